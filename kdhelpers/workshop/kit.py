"""What the notebooks start from: the default recipe's rows, teacher and logits, from the cache or made."""

import contextlib
import io
import logging
import shlex
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, set_seed

from kdhelpers import data, fitting, models, train
from kdhelpers.logits import add_teacher_logits, predict_logits
from kdhelpers.recipes import MOVIE_SNIPPETS, Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The default recipe, ready to distil: `splits["train"]` holds the teacher's logits for every row."""

    recipe: Recipe
    rows: data.Rows
    splits: DatasetDict
    tokenizer: object
    teacher: PreTrainedModel

    def labels(self, split: str) -> np.ndarray:
        """The class ids of a split, int64 [rows]."""
        return np.array(self.splits[split]["labels"])

    def logits(self, model: PreTrainedModel, split: str) -> np.ndarray:
        """A model's logits on a split, float32 [rows, classes]."""
        return predict_logits(model, self.splits[split], self.tokenizer)

    def save(self, model: PreTrainedModel, folder: Path) -> Path:
        """Write a model with the tokenizer beside it; gives back the folder."""
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder


def prepare(seed: int = 42) -> Prepared:
    """Rows, fine-tuned teacher and cached logits of the default recipe, the same that `distill` makes and uses.

    From the cache in seconds; else the teacher is trained first, two to three minutes on two cores.
    """
    settings = train.RunSettings(MOVIE_SNIPPETS, Path("unused"), seed=seed)
    rows = train.load_rows(settings, None)
    tokenizer = models.load_tokenizer(MOVIE_SNIPPETS.teacher)
    splits = data.tokenise(rows.splits, tokenizer, MOVIE_SNIPPETS.max_length)
    set_seed(seed)
    backbone = models.load_classifier(MOVIE_SNIPPETS.teacher, rows.label_names)
    with tempfile.TemporaryDirectory() as folder:
        teacher = train.finetune_teacher(settings, backbone, splits, tokenizer, Path(folder)).model
    bf16 = fitting.choose_precision("auto") == "bf16"
    splits["train"], _ = add_teacher_logits(splits["train"], teacher, tokenizer, bf16=bf16)
    return Prepared(MOVIE_SNIPPETS, rows, splits, tokenizer, teacher)


def logits_of(model: PreTrainedModel, tokenizer, sentences: list[str]) -> torch.Tensor:
    """Logits for a few sentences, float32 [sentences, classes]."""
    rows = Dataset.from_dict({"input_ids": tokenizer(sentences)["input_ids"]})
    return torch.as_tensor(predict_logits(model, rows, tokenizer))


def train_briefly(
    kit: Prepared, rows: Dataset, teacher: PreTrainedModel | None = None, learning_rate: float = 1e-4, seed: int = 42
) -> fitting.Fit:
    """One epoch of the default student on `rows`, as `distill` would train it; `teacher` makes it a live one."""
    recipe = replace(kit.recipe, learning_rate=learning_rate)
    settings = train.RunSettings(recipe, Path("unused"), seed=seed)
    student = train.build_student(settings, kit.teacher, kit.rows.label_names)
    with tempfile.TemporaryDirectory() as folder:
        arguments = fitting.training_arguments(
            Path(folder),
            recipe,
            steps=fitting.steps_per_epoch(len(rows), recipe.batch_size),
            evaluations=1,
            seed=seed,
            precision=fitting.choose_precision("auto"),
            has_validation=False,
            options={"save_strategy": "no"},
        )
        set_seed(seed)
        return fitting.fit("student", student, rows, None, kit.tokenizer, arguments, teacher=teacher)


def command(line: str) -> int:
    """Run a `python -m kdhelpers` command in this process and print all that it says; gives back its exit code."""
    from kdhelpers.__main__ import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(shlex.split(line))
    print(said.getvalue(), end="")
    return code


def three_class_files(folder: Path, train_rows: int = 2400, labelled: int = 900, held_out: int = 600) -> None:
    """Write train.csv, validation.csv and test.csv with the labels bad, mixed and good, made from the ratings.

    About a third of the rows each. A stand-in for a reader's own files: in train.csv only `labelled` rows have a label.
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
