"""A run on tiny models, as the command line is given it; fixtures to import, and helpers."""

import pandas as pd
import pytest

from kdhelpers import models
from kdhelpers.__main__ import main
from kdhelpers.settings import RunSettings, settings_from
from tests.tiny import save_model, teachable_rows, tiny_tokenizer, trained_tiny_teacher

FAST = {"epochs": 1, "batch_size": 16, "precision": "fp32"}
SIZES = {"train": 240, "validation": 80, "test": 80}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """train.csv (a third of it unlabelled), validation.csv and test.csv of the task that tiny models can learn."""
    folder = tmp_path_factory.mktemp("files")
    seen = set()
    for seed, (name, n) in enumerate(SIZES.items()):
        fresh = {row["text"]: row for row in teachable_rows(4 * n, seed=seed) if row["text"] not in seen}
        rows = list(fresh.values())[:n]
        seen |= {row["text"] for row in rows}
        table = pd.DataFrame(rows).rename(columns={"text": "sentence"})
        table["label"] = table["label"].map({0: "bad", 1: "good"})
        if name == "train":
            table.loc[160:, "label"] = ""
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """A folder with a tiny fine-tuned teacher whose labels are named."""
    model = models.set_labels(trained_tiny_teacher(), ["bad", "good"])
    return save_model(tmp_path_factory.mktemp("teacher"), model, tiny_tokenizer())


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """A folder with the tiny teacher's encoder, its head left out."""
    return save_model(tmp_path_factory.mktemp("bare"), trained_tiny_teacher().bert, tiny_tokenizer())


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty KD_HOME for one test."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    return tmp_path / "kd"


@pytest.fixture
def spoken(caplog):
    """What was said since the last time it was asked."""
    caplog.set_level("INFO", logger="kdhelpers")

    def said():
        text = caplog.text
        caplog.clear()
        return text

    return said


def options(files, teacher, output, /, **more) -> dict:
    """Options of a run on `files`; a one-layer student unless `more` says otherwise."""
    rows = {name: str(files / f"{name}.csv") for name in SIZES} | {"text_column": "sentence"}
    student = {} if {"student", "student_layers"} & set(more) else {"student_layers": 1}
    return {**rows, "teacher": str(teacher), "output": str(output), **FAST, **student, **more}


def settings(*args, **more) -> RunSettings:
    """The same as settings."""
    return settings_from(options(*args, **more))


def command(*args, **more) -> list[str]:
    """The same as a command line."""
    given = options(*args, **more).items()
    return ["distill", *(part for name, value in given for part in (f"--{name.replace('_', '-')}", str(value)))]


def refused(capsys, argv, *words) -> None:
    """The command ends with 2 and one line on standard error that holds the words; no traceback."""
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error, error
