"""Run a measurement of the results page and keep what it printed: python -m tests.tools.record NAME [--from FILE]

A record is the end of what a command printed, with the command, the machine and the version: tests/tools/records/.
--from FILE: that command ran already, and this is what it printed. `python -m tests.tools.results` writes the pages.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import joblib
import torch

import kdhelpers
from kdhelpers import storage

RECORDS = Path(__file__).with_name("records")
PYTHON = "python -m "
# by name: the command, and what the first line that is kept looks like; of several, the last
MEASURED = {
    "run": (PYTHON + "kdhelpers distill --seed 43 --overwrite", "recipe "),  # the middle one of three_seeds
    "three_seeds": (PYTHON + "kdhelpers distill --seeds 3 --overwrite", "Test accuracy in % on"),
    "training": ("make benchmark", "2,048 rows"),
    "one_core": (PYTHON + "kdhelpers distill --output runs/one-core --overwrite", "recipe "),
    "peers": (PYTHON + "tests.tools.peers.compare --rows 3000 --epochs 3 --seeds 3 --threads 2", "3,000 rows"),
    "small": (PYTHON + "kdhelpers benchmark runs/small --threads 1", r" +kind "),
    "small_two_threads": (PYTHON + "kdhelpers benchmark runs/small --threads 2", r" +kind "),
    "back_ends": (PYTHON + "kdhelpers benchmark runs/small --threads 1 --openvino movie-snippets", r" +kind "),
    "back_ends_two_threads": (
        PYTHON + "kdhelpers benchmark runs/small --threads 2 --openvino movie-snippets",
        r" +kind ",
    ),
    "large": ("make large", r" +kind "),
    "page": (PYTHON + "kdhelpers export runs/movie-snippets --format web --output page --overwrite", "page: "),
    "static_page": (
        PYTHON + "kdhelpers export runs/static --format web --output page --overwrite",
        "page/index.html: ",
    ),
    "browser": (PYTHON + "pytest -q -s tests/tools/browser/check_page.py", "A transformer's page: "),
    "scale": (
        PYTHON + "tests.tools.scale --teacher runs/one-layer/student --figure images/scale.png",
        "teacher runs/one-layer",
    ),
    "ratings": (PYTHON + "kdhelpers distill --recipe movie-ratings --overwrite", "Scores on"),
}


def machine() -> str:
    """Processor, cores and what of its instructions matters here, in a few words."""
    has = torch.cpu.get_capabilities()
    fast = "AMX" if has.get("amx_bf16") else "AVX512-BF16" if has.get("avx512_bf16") else "no bf16"
    count = joblib.cpu_count()
    return f"{count} core{'s' * (count > 1)} ({has.get('cpu_name', has['architecture'])}, {fast})"


def printed_by(name: str, text: str) -> dict:
    """The record of a measurement that printed `text`. Raises ValueError where its table is not in there."""
    command, first = MEASURED[name]
    text = text.replace(f"{Path.cwd()}/", "")  # where it ran stays out of it
    lines = [line.rstrip() for line in text.splitlines() if not re.fullmatch(r"\.+", line)]  # pytest's dots
    begins = [number for number, line in enumerate(lines) if re.match(first, line)]
    if not begins:
        raise ValueError(f"`{command}` printed no line like {first!r}")
    kept = "\n".join(lines[begins[-1] :]).strip("\n").splitlines()
    return {"command": command, "machine": machine(), "version": kdhelpers.__version__, "printed": kept}


def run(name: str) -> str:
    """Run the command of a measurement, showing what it prints; returns that. Raises CalledProcessError."""
    words = MEASURED[name][0].split()
    words[0] = sys.executable if words[0] == "python" else words[0]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        shown = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            shown.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return "".join(shown)


def main(argv: list[str]) -> None:
    """Measure what is named and write its record."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.record", description=__doc__)
    parser.add_argument("name", choices=MEASURED)
    parser.add_argument("--from", dest="file", type=Path, help="what the command printed when it ran")
    options = parser.parse_args(argv)
    text = options.file.read_text(encoding="utf-8") if options.file else run(options.name)
    record = printed_by(options.name, text)
    storage.write_file(
        RECORDS / f"{options.name}.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
    )


if __name__ == "__main__":
    main(sys.argv[1:])
