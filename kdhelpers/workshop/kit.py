"""What notebooks do besides the package's own work: short answers, short trainings, commands, and files to try."""

import contextlib
import dataclasses
import io
import shlex
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdhelpers import data, distillation, models
from kdhelpers.distillation import Fit, Prepared


def logits_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: list[str]) -> torch.Tensor:
    """A model's logits for a few sentences, float32 [sentences, classes]; `.softmax(-1)` makes probabilities.

    >>> logits_of(kit.teacher, kit.tokenizer, ["A wonderful film."]).shape  # doctest: +SKIP
    torch.Size([1, 2])
    """
    rows = Dataset.from_dict({"input_ids": tokenizer(sentences, truncation=True)["input_ids"]})
    return torch.as_tensor(models.predict_logits(model, rows, tokenizer))


def train_briefly(
    kit: Prepared,
    rows: Dataset,
    teacher: PreTrainedModel | None = None,
    student: PreTrainedModel | None = None,
    **changes: Any,
) -> Fit:
    """One epoch of `student`, the recipe's where none is given, on `rows`; a line says with which settings.

    `rows` hold the column `teacher_logits`, unless a live `teacher` is given. `changes` are options of the run, e.g.
    `learning_rate=3e-4` (1e-4 where it is not given). Returns the last checkpoint, its seconds in `.seconds`.
    """
    settings = dataclasses.replace(kit.settings, **{"epochs": 1, "learning_rate": 1e-4, **changes})
    run = dataclasses.replace(kit, settings=settings)
    steps = distillation.steps_for(settings, run.machine, len(rows))
    distillation.print_settings("student", settings, steps, len(rows))
    student = distillation.build_student(run) if student is None else student
    return distillation.train_student(
        run, student, rows, validation=None, teacher=teacher, options={"save_strategy": "no"}
    )


def command(line: str) -> int:
    """Run a `python -m kdhelpers` command in this process and print all that it says; returns its exit code.

    >>> command("distill --temparature 3")
    error: unknown argument --temparature: did you mean --temperature?
    2
    """
    from kdhelpers.__main__ import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(shlex.split(line))
    for sentence in said.getvalue().splitlines():
        print(textwrap.fill(sentence, 100))  # a page is narrower than a terminal
    return code


def three_class_files(folder: Path, train_rows: int = 2400, labelled: int = 900, held_out: int = 600) -> None:
    """Write train.csv, validation.csv and test.csv with the labels bad, mixed and good, made from the ratings.

    About a third of the rows each, in place of a reader's own files; in train.csv only `labelled` rows have a label.
    """
    rows = list({data.fold(row["text"]): row for row in data.read_movie_snippets()}.values())
    order = np.random.default_rng(data.SPLIT_SEED).permutation(len(rows))
    parts = np.split(order, [train_rows, train_rows + held_out, train_rows + 2 * held_out])
    for name, part in zip(("train", "validation", "test"), parts, strict=False):
        frame = pd.DataFrame([rows[index] for index in part])
        frame["label"] = pd.cut(frame["rating"], [-5, -1.5, 1.5, 5], labels=["bad", "mixed", "good"]).astype(str)
        if name == "train":
            frame.loc[labelled:, "label"] = ""
        frame[["text", "label"]].to_csv(Path(folder) / f"{name}.csv", index=False)
