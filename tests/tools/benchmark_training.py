"""Seconds of training, switch by switch: from the article's way to ours. python -m tests.tools.benchmark_training

Run by hand (`make benchmark`); the same student on the same rows each time, with the default recipe's teacher. What
begins with "tried" was left out of `distill`: look at seconds and accuracy.
"""

import argparse
import dataclasses
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel, set_seed

from kdhelpers import models, quiet, runtime, storage
from kdhelpers.cli.parsing import start_console
from kdhelpers.distillation import Fit, Prepared, Training, add_teacher_logits, fit, length_grouping, prepare, trainer
from kdhelpers.distillation.trainer import ShuffledLengthSampler
from kdhelpers.models.first_token import FIRST_TOKEN
from kdhelpers.models.layers import encoder_layers
from kdhelpers.settings import RunSettings, recipe

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
    sorted_rows: bool = False  # batches of like length are made of all rows, not of some hundreds at a time
    frozen_layers: int = 0  # so many layers from below, and all embeddings, stay as they were cut


class SortedSampler(ShuffledLengthSampler):
    """All rows in order of their length, equals at random; then their batches in random order."""

    def __iter__(self) -> Iterator[int]:
        """Row indices, batch after batch; the longest rows are the batch that is not full, at the end."""
        luck = torch.rand(len(self.lengths), generator=self.generator)  # below 1, a token
        rows = torch.argsort(torch.tensor(self.lengths) + luck).tolist()
        size = self.batch_size
        whole = torch.randperm(len(rows) // size, generator=self.generator).tolist()
        return (row for index in [*whole, len(whole)] for row in rows[size * index : size * (index + 1)])


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
    turn("tried: + lengths sorted over all rows", sorted_rows=True)
    turn("tried: + first layer frozen", frozen_layers=1)
    return found


def untrained(way: Switches, teacher: PreTrainedModel, layers: int | None) -> PreTrainedModel:
    """The student, with what the way's switches say of its weights."""
    student = models.cut_layers(teacher, layers or 0)
    if way.frozen_embeddings:
        models.freeze_word_embeddings(student)
    if way.frozen_layers:
        student.base_model.embeddings.requires_grad_(False)
        encoder_layers(student)[: way.frozen_layers].requires_grad_(False)
    if way.dropout is not None:
        models.set_dropout(student, way.dropout)
    return student


@contextmanager
def turned(way: Switches) -> Iterator[None]:
    """The switches that are no settings of a training."""
    with ExitStack() as block:
        block.enter_context(mock.patch.dict(FIRST_TOKEN, clear=not way.first_token))
        if way.sorted_rows:
            block.enter_context(mock.patch.object(trainer, "ShuffledLengthSampler", SortedSampler))
        yield


def with_logits(way: Switches, kit: Prepared, rows: int) -> tuple[Dataset, float]:
    """The rows, with the teacher's logits unless it is a live one, and the seconds that these took, made anew."""
    table = kit.splits["train"].select(range(rows)).remove_columns("teacher_logits")
    kit.teacher.set_attn_implementation(way.attention)
    if way.live_teacher:
        return table, 0.0
    with turned(way), tempfile.TemporaryDirectory() as cache:
        machine = runtime.this_machine(way.precision)
        return add_teacher_logits(table, table, kit.teacher, kit.tokenizer, machine, Path(cache))


def train(way: Switches, kit: Prepared, table: Dataset, settings: RunSettings) -> Fit:
    """Train one student."""
    machine = runtime.this_machine(way.precision)
    settings = dataclasses.replace(settings, train_embeddings=not way.frozen_embeddings)
    student = untrained(way, kit.teacher, settings.student_layers)
    how = {"save_strategy": "no"} | length_grouping(way.by_length)
    live = kit.teacher if way.live_teacher else None
    set_seed(settings.seed)
    with turned(way):
        return fit(student, Training(way.name, table, kit.tokenizer, settings, machine, teacher=live, options=how))


def operations(way: Switches, kit: Prepared, rows: int, settings: RunSettings) -> float:
    """Floating-point operations of a way, the same on every processor: counted in one epoch, times the epochs."""
    with FlopCounterMode(display=False) as of_logits:
        table, _ = with_logits(way, kit, rows)
    with FlopCounterMode(display=False) as of_an_epoch:
        train(way, kit, table, dataclasses.replace(settings, epochs=1))
    return of_logits.get_total_flops() + settings.epochs * of_an_epoch.get_total_flops()


def benchmark(options: argparse.Namespace) -> dict:
    """All ways, `rounds` times, each time with another seed; accuracies are the mean over them.

    The fastest round counts: whatever else the machine does can only slow a way down.
    """
    kit = prepare(recipe("movie-snippets"))
    rows = min(options.rows, len(kit.splits["train"]))
    settings = dataclasses.replace(kit.settings, epochs=options.epochs, batch_size=options.batch_size)
    found = [{"way": way.name, "operations": operations(way, kit, rows, settings), "rounds": []} for way in ways()]
    for number in range(options.rounds):
        for way, record in zip(ways(), found, strict=True):
            table, seconds = with_logits(way, kit, rows)
            result = train(way, kit, table, dataclasses.replace(settings, seed=options.seed + number))
            right = kit.logits(result.model, "test").argmax(-1) == kit.labels("test")
            took = {"seconds": seconds + result.seconds, "teacher_logits_seconds": seconds}
            record["rounds"].append(took | {"test_accuracy": float(np.mean(right))})
            log.info("round %d of %d, %s: %.0f s", number + 1, options.rounds, way.name, took["seconds"])
    facts = {"rows": rows, "epochs": options.epochs, "batch_size": options.batch_size, "rounds": options.rounds}
    return facts | {"threads": torch.get_num_threads(), "ways": found}


def lines(result: dict) -> list[str]:
    """The ways as a table, each beside the first."""
    ways = result["ways"]
    best = [min(way["rounds"], key=lambda one: one["seconds"]) for way in ways]
    accuracies = [np.mean([one["test_accuracy"] for one in way["rounds"]]) for way in ways]
    table = pd.DataFrame(
        {
            "seconds": [f"{one['seconds']:.1f}" for one in best],
            "for logits": [f"{one['teacher_logits_seconds']:.1f}" for one in best],
            "TFLOP": [f"{way['operations'] / 1e12:.2f}" for way in ways],
            "fewer": [f"{ways[0]['operations'] / way['operations']:.1f}x" for way in ways],
            "speed": [f"{best[0]['seconds'] / one['seconds']:.1f}x" for one in best],
            "accuracy": [f"{100 * accuracy:.1f} %" for accuracy in accuracies],
        },
        index=[way["way"] for way in ways],
    )
    title = (
        f"{result['rows']:,} rows, {result['epochs']:g} epochs, batch {result['batch_size']}, "
        f"{result['threads']} threads; seconds of the fastest of {result['rounds']} rounds, "
        "teacher's logits included;\nmean accuracy of the rounds, each with another seed"
    )
    return ["", title, table.to_string()]


def main(argv: list[str]) -> None:
    """Read the options, measure, print the table and write it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.benchmark_training", description=__doc__)
    parser.add_argument("--rows", type=int, default=2048, help="training rows (default 2048)")
    parser.add_argument("--epochs", type=float, default=3, help="passes over them (default 3)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step (default 32)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the first round's trainings (default 42)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default 3)")
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
