"""The teacher's logits as a stage of its own: shared among processes, resumable, read by every later `distill`."""

import logging
import os
from pathlib import Path

import numpy as np
from datasets import Dataset

from kdhelpers import arguments, checks, data, fitting, models, train
from kdhelpers.console import Parser
from kdhelpers.errors import UserError
from kdhelpers.logits import logits_fingerprint, predict_logits, save_folder_atomically
from kdhelpers.trainer import TEACHER_LOGITS

log = logging.getLogger(__name__)


def shard_path(folder: Path, index: int, shards: int) -> Path:
    """Where one shard's logits are kept: float32 [rows of the shard, classes]."""
    return folder / f"{index:05d}-of-{shards:05d}.npy"


def label_shards(
    rows: Dataset,
    teacher,
    tokenizer,
    folder: Path,
    *,
    shard_rows: int,
    rank: int = 0,
    world: int = 1,
    bf16: bool = False,
) -> int:
    """Let the teacher read this process's shards of the tokenised rows; gives back how many it had to do.

    Shard i belongs to process i modulo `world`. A shard that is on disk is not read again, so a run that was stopped
    goes on where it was, also with another number of processes.
    """
    shards = -(-len(rows) // shard_rows)
    done = 0
    for index in range(rank, shards, world):
        path = shard_path(folder, index, shards)
        if path.is_file():
            continue
        part = rows.select(range(index * shard_rows, min((index + 1) * shard_rows, len(rows))))
        logits = predict_logits(teacher, part, tokenizer, bf16=bf16)
        partial = path.with_name(f".{path.name}.{rank}.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(partial, logits)
        os.replace(partial, path)
        done += 1
    return done


def join_shards(rows: int, shards_folder: Path, folder: Path, shard_rows: int) -> bool:
    """Join all shards into the cached column that `distill` looks for; False while some are missing."""
    shards = -(-rows // shard_rows)
    paths = [shard_path(shards_folder, index, shards) for index in range(shards)]
    if not all(path.is_file() for path in paths):
        return False
    logits = np.concatenate([np.load(path) for path in paths])
    save_folder_atomically(folder, Dataset.from_dict({TEACHER_LOGITS: logits.tolist()}).save_to_disk)
    return True


def label(settings: train.RunSettings, shard_rows: int, rank: int, world: int, output: Path) -> bool:
    """Label a run's training rows below `output`; True once every process's shards are there and joined.

    The teacher has to come with its classification head. Raises UserError.
    """
    recipe = settings.recipe
    train.check_settings(settings)
    rows = train.load_rows(settings, models.label_names_of(recipe.teacher))
    loaded = models.load_classifier(recipe.teacher, rows.label_names)
    if not loaded.has_head:
        raise UserError(
            f"the teacher {recipe.teacher} has no classification head for these labels: fine-tune it first "
            "(distill does), and name its folder with --teacher"
        )
    checks.align_labels(loaded, rows.label_names)
    tokenizer = models.load_tokenizer(recipe.teacher)
    report = checks.compare_tokenizers(tokenizer, tokenizer, loaded.model.config, None)
    max_length = min(recipe.max_length, report.usable_length)
    table = data.tokenise(rows.splits["train"], tokenizer, max_length)
    precision = fitting.choose_precision(settings.precision)
    bf16 = precision == "bf16"
    teacher = loaded.model.eval().to(train.device_for_inference())
    name = logits_fingerprint(teacher, table, tokenizer, "bf16" if bf16 else "fp32")
    shards_folder = output / f"shards-{name}-{shard_rows}"
    done = label_shards(
        table, teacher, tokenizer, shards_folder, shard_rows=shard_rows, rank=rank, world=world, bf16=bf16
    )
    log.info("process %d of %d: %d shards labelled, the others were there or are another's", rank + 1, world, done)
    fitting.processes().wait_for_everyone()
    if rank == 0 and join_shards(len(table), shards_folder, output / name, shard_rows):
        log.info("all %d rows are labelled, for every later distill with this teacher", len(table))
        return True
    if rank == 0:
        log.info(
            "not joined: shards are missing in %s; when all are there, run this once more by itself", shards_folder
        )
    return False


def main(argv: list[str]) -> None:
    """`python -m kdhelpers logits`, by itself or under torchrun. Raises UserError."""
    parser = Parser(
        prog="python -m kdhelpers logits", description=__doc__,
        epilog="The rows and the teacher are named with distill's own options; torchrun sets rank and world.",
    )  # fmt: skip
    environment = os.environ.get
    parser.add_argument("--shard-rows", type=int, default=10_000, help="rows a shard (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=int(environment("RANK", "0")), help="which process this is")
    parser.add_argument("--world", type=int, default=int(environment("WORLD_SIZE", "1")), help="how many there are")
    parser.add_argument("--output", help="folder, for a fleet a shared one (default: distill's cache of logits)")
    options, rest = parser.parse_known_args(argv)
    if options.shard_rows < 1 or not 0 <= options.rank < options.world:
        raise UserError("--shard-rows has to be 1 or more, and --rank from 0 to one less than --world")
    settings, _ = arguments.run_settings(rest)
    label(
        settings, options.shard_rows, options.rank, options.world, Path(options.output or data.cache_home() / "logits")
    )
    fitting.end_processes()
