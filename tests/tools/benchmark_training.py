"""Seconds of training, switch by switch: from the article's way to ours. python -m tests.tools.benchmark_training

Run by hand (`make benchmark`); the same student on the same rows each time, with the default recipe's teacher.
"""

import argparse
import dataclasses
import json
import logging
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import set_seed

from kdhelpers import models, quiet, runtime, storage
from kdhelpers.cli.parsing import start_console
from kdhelpers.distillation import Prepared, Training, add_teacher_logits, fit, length_grouping, prepare
from kdhelpers.models.first_token import FIRST_TOKEN
from kdhelpers.settings import recipe

log = logging.getLogger("kdhelpers.benchmark")


@dataclass(frozen=True)
class Switches:
    """One way of training the same student on the same rows. Each way turns one more switch."""

    name: str
    live_teacher: bool = True
    by_length: bool = False
    precision: str = "fp32"
    frozen_embeddings: bool = False
    attention: str = "sdpa"  # transformers' default
    dropout: float | None = None  # None: as the model came
    first_token: bool = False  # the last layer computes what the classifier reads of it


def ways() -> list[Switches]:
    """From the article's way of training to ours, one switch at a time (Trainer's default optimizer throughout)."""
    found = [Switches("the article's way: live teacher, fp32, random batches")]

    def turn(name: str, **switch: object) -> None:
        found.append(dataclasses.replace(found[-1], name=name, **switch))

    turn("+ teacher's logits cached", live_teacher=False)
    turn("+ batches of like length", by_length=True)
    precision = runtime.this_machine().precision
    if precision != "fp32":
        turn(f"+ {precision}", precision=precision)
    turn("+ word embeddings frozen", frozen_embeddings=True)
    turn("+ no dropout in the student", dropout=0.0)
    attention = runtime.attention_options().get("attn_implementation", "sdpa")
    if attention != "sdpa":
        turn("+ plain attention instead of the fused kernel", attention=attention)
    turn("+ the last layer's first token only", first_token=True)
    return found


def train(way: Switches, kit: Prepared, rows: int, options: argparse.Namespace) -> dict:
    """Train one student; seconds (with the teacher's logits, made anew) and test accuracy."""
    machine = runtime.this_machine(way.precision)
    settings = dataclasses.replace(kit.settings, epochs=options.epochs, batch_size=options.batch_size)
    settings = dataclasses.replace(settings, train_embeddings=not way.frozen_embeddings, seed=options.seed)
    table, teacher, seconds = kit.splits["train"].select(range(rows)), kit.teacher, 0.0
    table = table.remove_columns("teacher_logits")
    teacher.set_attn_implementation(way.attention)
    if not way.live_teacher:
        with tempfile.TemporaryDirectory() as cache:
            table, seconds = add_teacher_logits(table, table, teacher, kit.tokenizer, machine, Path(cache))
    student = models.cut_layers(teacher, settings.student_layers)
    if way.frozen_embeddings:
        models.freeze_word_embeddings(student)
    if way.dropout is not None:
        models.set_dropout(student, way.dropout)
    how = {"save_strategy": "no"} | length_grouping(way.by_length)
    live = teacher if way.live_teacher else None
    set_seed(options.seed)
    result = fit(student, Training(way.name, table, kit.tokenizer, settings, machine, teacher=live, options=how))
    return {
        "way": way.name,
        "seconds": round(seconds + result.seconds, 2),
        "teacher_logits_seconds": round(seconds, 2),
        "model": result.model,
    }


def benchmark(options: argparse.Namespace) -> dict:
    """All ways, `rounds` times. The fastest round counts: whatever else the machine does can only slow a way down.

    A round before them is not timed: it counts operations, which are the same on every processor.
    """
    kit = prepare(recipe("movie-snippets"))
    rows = min(options.rows, len(kit.splits["train"]))
    found: dict[str, dict] = {}
    for number in range(options.rounds + 1):
        for way in ways():
            counter = nullcontext() if number else FlopCounterMode(display=False)
            with mock.patch.dict(FIRST_TOKEN, clear=not way.first_token), counter:
                result = train(way, kit, rows, options)
            log.info("round %d of %d, %s: %.0f s", number, options.rounds, way.name, result["seconds"])
            right = kit.logits(result.pop("model"), "test").argmax(-1) == kit.labels("test")
            if not number:
                found[way.name] = {"operations": counter.get_total_flops(), "seconds": np.inf}
            if number and result["seconds"] < found[way.name]["seconds"]:
                found[way.name] |= result | {"test_accuracy": float(np.mean(right))}
    facts = {"rows": rows, "epochs": options.epochs, "batch_size": options.batch_size, "rounds": options.rounds}
    return facts | {"threads": torch.get_num_threads(), "ways": list(found.values())}


def lines(result: dict) -> list[str]:
    """The ways as a table, each beside the first."""
    first = result["ways"][0]["seconds"]
    table = pd.DataFrame(
        {
            "seconds": [f"{way['seconds']:.1f}" for way in result["ways"]],
            "for logits": [f"{way['teacher_logits_seconds']:.1f}" for way in result["ways"]],
            "TFLOP": [f"{way['operations'] / 1e12:.2f}" for way in result["ways"]],
            "fewer": [f"{result['ways'][0]['operations'] / way['operations']:.1f}x" for way in result["ways"]],
            "speed": [f"{first / way['seconds']:.1f}x" for way in result["ways"]],
            "accuracy": [f"{100 * way['test_accuracy']:.1f} %" for way in result["ways"]],
        },
        index=[way["way"] for way in result["ways"]],
    )
    title = (
        f"{result['rows']:,} rows, {result['epochs']:g} epochs, batch {result['batch_size']}, "
        f"{result['threads']} threads; seconds of the fastest of {result['rounds']} rounds, teacher's logits included"
    )
    return ["", title, table.to_string()]


def main(argv: list[str]) -> None:
    """Read the options, measure, print the table and write it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.benchmark_training", description=__doc__)
    parser.add_argument("--rows", type=int, default=2048, help="training rows (default 2048)")
    parser.add_argument("--epochs", type=float, default=3, help="passes over them (default 3)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step (default 32)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the student's training (default 42)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is timed (default 2)")
    parser.add_argument("--output", type=Path, help="also write the numbers to this JSON file")
    options = parser.parse_args(argv)
    if min(options.rows, options.epochs, options.batch_size, options.rounds) <= 0:
        parser.error("rows, epochs, batch size and rounds must be greater than 0")
    quiet()
    start_console()
    result = benchmark(options)
    print(*lines(result), sep="\n")
    if options.output:
        storage.write_file(options.output, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
