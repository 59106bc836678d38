"""`python -m kdhelpers logits`: let the teacher label a large corpus once, shared among processes, for every `distill`.

Rows and teacher are named with distill's own options; torchrun sets rank and world.
"""

import os
from pathlib import Path

from kdhelpers import runtime, storage
from kdhelpers.cli.parsing import Parser, read_options
from kdhelpers.errors import UserError
from kdhelpers.settings import settings_from


def main(argv: list[str]) -> None:
    """Run the command, by itself or under torchrun. Raises UserError."""
    parser = Parser(prog="python -m kdhelpers logits", description=__doc__)
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    parser.add_argument("--shard-rows", type=int, default=10_000, help="rows a shard (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=rank, help="which process this is")
    parser.add_argument("--world", type=int, default=world, help="how many there are")
    parser.add_argument("--output", help="folder, for a fleet a shared one (default: distill's cache of logits)")
    options, rest = parser.parse_known_args(argv)
    if options.shard_rows < 1 or not 0 <= options.rank < options.world:
        raise UserError("--shard-rows has to be 1 or more, and --rank from 0 to one less than --world")
    settings = settings_from(read_options(rest))
    from kdhelpers.distillation import label

    output = Path(options.output).expanduser() if options.output else storage.cache_home() / "logits"
    label(settings, output, options.shard_rows, options.rank, options.world)
    runtime.end_processes()
