"""Shared by all tests: quiet libraries, no socket beyond loopback here or in a child process, one thread each."""

import copy
import dataclasses
import functools
import gc
import os

gc.disable()  # until the imports are done: they leave no garbage, and looking for it takes a sixth of their time
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are faster so, here and in child processes

from tests import loopback  # noqa: E402

loopback.install()
loopback.guard_children()

import pytest  # noqa: E402


@functools.cache
def prepare_libraries():
    import torch

    from kdhelpers import quiet

    torch.set_num_threads(1)
    quiet()


def pytest_collectstart():
    """Here, not above: with -n the process that only hands out the tests needs no library."""
    prepare_libraries()


def pytest_collection_finish():
    """Trainer collects garbage at every training's end: what the imports have left need not be searched each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def trained_teacher():
    """A tiny BERT that has learnt the task of `teachable_rows`: each test's own copy.

    A fixture of a wider scope calls `trained_tiny_teacher()` itself.
    """
    from tests.tiny import trained_tiny_teacher

    return trained_tiny_teacher()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run that is ready for its student: 40 labelled rows and 24 without, 64 for validation, 64 for test."""
    from datasets import Dataset, DatasetDict

    from kdhelpers import data, models, runtime
    from kdhelpers.distillation import Fit, Prepared, add_teacher_logits
    from kdhelpers.settings import recipe
    from tests.tiny import save_model, teachable_rows, tiny_tokenizer, trained_tiny_teacher

    tokenizer, names, folder = tiny_tokenizer(), ["negative", "positive"], tmp_path_factory.mktemp("tiny-run")
    teacher = models.set_labels(trained_tiny_teacher(), names)
    save_model(folder / "teacher", teacher, tokenizer)
    parts = {
        name: Dataset.from_list([row | {"id": str(index)} for index, row in enumerate(teachable_rows(64, seed))])
        for seed, name in enumerate(("train", "validation", "test"))
    }
    parts["train"] = data.withhold_labels(parts["train"], keep=40)
    rows, machine = data.Rows(DatasetDict(parts), names), runtime.this_machine("fp32")
    settings = recipe(teacher=str(folder / "teacher"), student_layers=1, batch_size=8, max_length=32, precision="fp32")
    splits = data.tokenise(rows.splits, tokenizer, 32)
    splits["train"], _ = add_teacher_logits(splits["train"], splits["train"], teacher, tokenizer, machine, folder)
    return Prepared(settings, machine, rows, splits, tokenizer, splits, tokenizer, Fit(teacher, 0.0, None), True)


@pytest.fixture
def kit(tiny_run, tmp_path, monkeypatch):
    """`tiny_run`, with a teacher and a cache of this test's own."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "home"))
    fit = dataclasses.replace(tiny_run.teacher_fit, model=copy.deepcopy(tiny_run.teacher))
    return dataclasses.replace(tiny_run, teacher_fit=fit)
