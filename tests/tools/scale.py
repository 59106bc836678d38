"""What a large corpus costs, stage by stage: python -m tests.tools.scale --teacher FOLDER [--rows N ...]

`distill --unlabelled` with more and more text, each time in a process of its own: rows a second, megabytes of text a
second, and the most memory that the process had for itself, while the rows are read and tokenised, while the teacher
answers, and while a student trains for one epoch. The texts are made from the movie snippets.
"""

import argparse
import csv
import dataclasses
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from matplotlib.figure import Figure

from kdhelpers import data, quiet, storage
from kdhelpers.cli.parsing import start_console
from kdhelpers.evaluation.figures import COLOURS, new_figure, save

log = logging.getLogger("kdhelpers.scale")
# what the run prints when a stage has ended
STAGES = {
    "reading": r"rows: ",
    "tokenising": r"teacher: .* is used as it is",
    "answers": r"teacher's logits for \d+ rows: made",
    "an epoch": r"student: step (\d+) of \1,",
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of one run."""

    rows: int
    text_megabytes: float
    name: str
    seconds: float
    peak_megabytes: float  # memory of the process alone: files that are mapped count where they were written to


def write_texts(path: Path, rows: int) -> float:
    """A CSV of so many different texts, each the first half of one snippet and the second of another; its megabytes."""
    words = [text.split() for text in data.movie_snippets().splits["train"]["text"]]
    firsts = [" ".join(each[: len(each) // 2 + 1]) for each in words]
    seconds = [" ".join(each[len(each) // 2 + 1 :]) for each in words]
    pairs = np.random.default_rng(0).choice(len(words) ** 2, size=rows, replace=False)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        for one, two in zip(*np.divmod(pairs, len(words)), strict=True):
            writer.writerow([f"{firsts[one]} {seconds[two]}"])
    return path.stat().st_size / 1e6


def measure(rows: int, teacher: str, layers: int, folder: Path) -> list[Stage]:
    """Distil with so many further texts, and watch the process. Raises CalledProcessError."""
    megabytes = write_texts(folder / "texts.csv", rows)
    command = [sys.executable, "-u", "-m", "kdhelpers", "distill", "--unlabelled", str(folder / "texts.csv")]
    command += ["--teacher", teacher, "--student-layers", str(layers), "--epochs", "1", "--controls", "none"]
    command += ["--drop-leaks", "--output", str(folder / "run"), "--overwrite"]
    # a cache of its own, in which no answers lie
    shutil.copytree(storage.cache_home() / "data", folder / "cache" / "data")
    found: list[Stage] = []
    environment = os.environ | {"KD_HOME": str(folder / "cache")}
    how: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    with subprocess.Popen(command, **how) as process:
        seen = [0.0]  # megabytes, since the last stage has ended
        threading.Thread(target=watch, args=(psutil.Process(process.pid), seen), daemon=True).start()
        began = time.perf_counter()
        for line in process.stdout or ():
            log.info("%s", line.rstrip())
            name = next((name for name, ends in STAGES.items() if re.match(ends, line)), None)
            if name:
                now = time.perf_counter()
                found.append(Stage(rows, megabytes, name, now - began, max(seen)))
                began, seen[:] = now, [0.0]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return found


def watch(process: psutil.Process, seen: list[float]) -> None:
    """Note the memory that a process has for itself, four times a second, until it ends."""
    while True:
        try:
            seen.append(process.memory_full_info().uss / 1e6)
        except psutil.Error:
            return
        time.sleep(0.25)


def lines(stages: list[Stage], title: str) -> list[str]:
    """The stages as a table, a line a stage and size."""
    table = pd.DataFrame(
        {
            "rows": [f"{stage.rows:,}" for stage in stages],
            "stage": [stage.name for stage in stages],
            "seconds": [f"{stage.seconds:,.1f}" for stage in stages],
            "rows a second": [f"{stage.rows / stage.seconds:,.0f}" for stage in stages],
            "MB of text a second": [f"{stage.text_megabytes / stage.seconds:.2f}" for stage in stages],
            "peak MB": [f"{stage.peak_megabytes:,.0f}" for stage in stages],
        }
    )
    return ["", title, table.to_string(index=False)]


def figure(stages: list[Stage]) -> Figure:
    """Peak memory and rows a second of each stage over the number of texts."""
    drawn, (left, right) = new_figure(9, 3.6, columns=2, sharey=False)
    for (name, marker), colour in zip(zip(STAGES, "osD^", strict=True), [*COLOURS.values(), "#CC79A7"], strict=True):
        own = [stage for stage in stages if stage.name == name]
        sizes, style = [stage.rows for stage in own], {"marker": marker, "color": colour, "label": name}
        left.plot(sizes, [stage.peak_megabytes for stage in own], **style)
        right.plot(sizes, [stage.rows / stage.seconds for stage in own], **style)
    left.set(xscale="log", ylim=(0, None), xlabel="texts", ylabel="peak memory (MB)")
    right.set(xscale="log", yscale="log", xlabel="texts", ylabel="texts a second")
    left.legend()
    return drawn


def main(argv: list[str]) -> None:
    """Read the options, measure, print the table and draw it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.scale", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="how many texts")
    parser.add_argument("--teacher", required=True, help="folder of a trained teacher")
    parser.add_argument("--student-layers", type=int, default=1, help="layers of the student (default 1)")
    parser.add_argument("--figure", type=Path, help="also draw memory and rows a second into this PNG file")
    options = parser.parse_args(argv)
    quiet()
    start_console()
    found: list[Stage] = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            found += measure(rows, options.teacher, options.student_layers, Path(folder))
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    print(*lines(found, f"teacher {options.teacher}, student of {options.student_layers} layer, {threads} thread(s)"),
          sep="\n")  # fmt: skip
    if options.figure:
        save(figure(found), options.figure)


if __name__ == "__main__":
    main(sys.argv[1:])
