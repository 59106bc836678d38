"""Labels as they were read, made into what a model learns from: class ids, rows of 0 and 1, or numbers."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from datasets import Dataset, DatasetDict

from kdhelpers.data.rows import NUMBER, Rows, class_names, columns_of, no_label, normal_label
from kdhelpers.data.task import SEPARATOR, Task, listed
from kdhelpers.errors import UserError
from kdhelpers.settings import RunSettings

LIKE_NOTHING = ("null", "none", "n/a", "na", "#n/a")  # what other programs write where a value is missing
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
Code = Callable[[Any], Any]  # a label as it was read to what a model learns from; None where training does not know it


def task_of_labels(settings: RunSettings, labels: list, declared: list[str], teacher: Task | None) -> Task:
    """The task that --task names, or for auto the one that the labels are for.

    Lists, or a --label-separator, are several labels at once; numbers of which one at least has a fraction are numbers
    (whole ones alone are classes); all else is one label. Without any label it is the teacher's task.
    """
    if settings.task != "auto":
        return Task(settings.task)
    if settings.label_separator or any(isinstance(label, tuple) for label in labels):
        return Task.SEVERAL
    if not labels:
        return teacher or Task.ONE
    if not declared and all(DECIMAL_COMMA.fullmatch(label) for label in labels):
        raise UserError(f"the labels are numbers with a comma, {labels[0]!r}: write a point, or name the task, --task")
    numbers = not declared and all(NUMBER.fullmatch(label) for label in labels)
    return Task.NUMBER if numbers and any("." in label for label in labels) else Task.ONE


def coded(rows: Rows, settings: RunSettings, teacher: list[str], task: Task | None = None) -> Rows:
    """The rows with ids, their task and what their labels stand for; `teacher` and `task` are the teacher's.

    Raises UserError for labels of another task, for held-out ones that training does not know, and for missing ones.
    """
    read = {
        name: [tuple(x) if isinstance(x, list) else x for x in part["label"][:]] for name, part in rows.splits.items()
    }
    train = [label for label in read["train"] if label is not None]
    task = task_of_labels(settings, train, rows.label_names, task)
    for name, labels in read.items():
        for index, label in enumerate(labels):
            if isinstance(label, tuple) and task is not Task.SEVERAL:
                where = rows.splits[name][index]["where"]
                raise UserError(f"{where} has several labels, {label}: give --task several-labels")
            if isinstance(label, str) and task is Task.SEVERAL:
                labels[index] = (label,)
    names, code = CODES[task](read["train"], settings, rows.label_names, teacher)
    none = no_label(task, len(names))
    splits = DatasetDict()
    for split, part in rows.splits.items():
        codes = [none if label is None else code(label) for label in read[split]]
        _require_known(part, codes, task, names)
        if split != "train" and None in read[split] and (train or any(read[split])):
            raise UserError(f"{part[read[split].index(None)]['where']} has no label: only training rows may lack one")
        row_ids = [f"{split}-{index}" for index in range(len(part))]
        texts = {name: part[name][:] for name in columns_of(part)}
        splits[split] = Dataset.from_dict({"id": row_ids, **texts, "label": codes})
    doubtful = [name for name in names if normal_label(name) in LIKE_NOTHING]
    notes = [f"{name!r} is taken for a class: where a label is missing, leave its field empty" for name in doubtful]
    return replace(rows, splits=splits, label_names=names, task=task, notes=[*rows.notes, *notes])


def _require_known(part: Dataset, codes: list, task: Task, names: list[str]) -> None:
    if None in codes:
        row = part[codes.index(None)]
        label = row["label"]
        if task is Task.NUMBER:
            raise UserError(f"{row['where']} has the label {label!r}, which is no number: correct it, or name the task")
        known = f"which no labelled training row has; training knows: {listed(names)}"
        raise UserError(f"{row['where']} has the label {label!r}, {known}")


def _class_ids(labels: list, settings: RunSettings, declared: list[str], teacher: list[str]) -> tuple[list[str], Code]:
    names = class_names(set(labels) - {None}, declared, teacher)
    apart = len(set(map(normal_label, names))) == len(names)  # else names are declared that differ only in case
    form = normal_label if apart else str
    ids: dict[str | None, int] = {form(name): index for index, name in enumerate(names)}
    return names, lambda label: ids.get(form(label))


def _vectors(labels: list, settings: RunSettings, declared: list[str], teacher: list[str]) -> tuple[list[str], Code]:
    names, id_of = _class_ids([one for label in labels for one in label or ()], settings, declared, teacher)
    if unclear := [name for name in names if SEPARATOR in name]:
        raise UserError(f"the label {unclear[0]!r} holds a {SEPARATOR}, the sign between labels: give it another name")

    def code(label: tuple[str, ...]) -> list[float] | None:
        ids = [id_of(one) for one in label]
        return None if None in ids else [float(index in ids) for index in range(len(names))]

    return names, code


def _numbers(labels: list, settings: RunSettings, declared: list[str], teacher: list[str]) -> tuple[list[str], Code]:
    return [settings.label_column], lambda label: float(label) if NUMBER.fullmatch(label) else None


CODES = {Task.ONE: _class_ids, Task.SEVERAL: _vectors, Task.NUMBER: _numbers}
