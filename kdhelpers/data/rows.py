"""The carrier of a run's rows, what every source of rows has to hold to, and when two labels or texts are the same."""

import itertools
import json
import re
import textwrap
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, concatenate_datasets

from kdhelpers.data.task import Task, has_label
from kdhelpers.errors import UserError

UNLABELLED = -100  # the label of a row whose class is withheld or unknown; PyTorch's cross-entropy skips it too
TEACHER_LOGITS = "teacher_logits"  # the column of the teacher's answers: float32 [rows, classes]
SPLIT_SEED = 42  # the split never changes with a run's seed, so seeds can be compared row by row
MISSING = ("", "nan", "<na>")
LIST = re.compile(r"""\[\s*\]|\[[^]]*,.*\]|[\[({]\s*(['"]).*\1,?\s*[\])}]""", re.DOTALL)  # as Python writes it
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.IGNORECASE)


@dataclass(frozen=True)
class Rows:
    """The rows of a run. Every split has the columns `id`, `text`, `label`, and for sentence pairs `text_pair`.

    A label is a class id, a list of 0.0 and 1.0, or a number, as the task says; -100 or NaN: withheld or unknown.
    """

    splits: DatasetDict  # train; validation (may be missing); test
    label_names: list[str]
    test_name: str = "test"  # what the table calls the rows it reports on
    revision: str | None = None
    notes: list[str] = field(default_factory=list)
    task: Task = Task.ONE

    @property
    def pairs(self) -> bool:
        """True where a row is two texts."""
        return "text_pair" in self.splits["train"].column_names

    def counts(self) -> dict[str, int]:
        """Rows by use, as in metrics.json."""
        labelled = int(has_label(self.splits["train"]["label"][:]).sum())
        held_out = {name: len(self.splits[name]) if name in self.splits else 0 for name in ("validation", "test")}
        return {"labelled": labelled, "unlabelled": len(self.splits["train"]) - labelled} | held_out


def no_label(task: Task, outputs: int) -> Any:
    """What stands for the label of a row that has none."""
    return {Task.ONE: UNLABELLED, Task.NUMBER: np.nan, Task.SEVERAL: [np.nan] * outputs}[task]


def with_texts(rows: Rows, texts: list[dict], what: str) -> Rows:
    """The rows, and beside the training rows `texts`, which have no label; a note counts them and says `what`."""
    train = rows.splits["train"]
    label, names = no_label(rows.task, len(rows.label_names)), columns_of(train)
    new = [
        {"id": f"train-{number}", **{name: row[name] for name in names}, "label": label}
        for number, row in enumerate(texts, len(train))
    ]
    table = concatenate_datasets([train, Dataset.from_list(new, features=train.features)])
    splits = DatasetDict(rows.splits | {"train": table})
    return replace(rows, splits=splits, notes=[*rows.notes, f"{len(new):,} {what}"])


def checked_rows(
    records: Iterable[tuple[str, dict]],
    text_column: str,
    label_column: str | None,
    pair_column: str | None = None,
    separator: str | None = None,
) -> list[dict]:
    """Rows as {"text": str, "label": str, list of them or None, "where": str}, out of places and values by column.

    With `pair_column` there is a `text_pair`, too. Labels with the `separator` become lists. Raises UserError, naming
    the place, for a text that is empty or no string, and for what cannot be a label.
    """
    columns = {"text": text_column} | ({"text_pair": pair_column} if pair_column else {})
    rows = []
    for where, record in records:
        row: dict[str, Any] = {name: _checked_text(record, column, where) for name, column in columns.items()}
        try:
            row["label"] = None if label_column is None else shown_labels(record[label_column], separator)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where} holds half a character, as of an emoji that was cut: mend or drop it") from error
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        rows.append(row | {"where": where})
    if any(isinstance(row["label"], list) for row in rows):
        for row in rows:
            row["label"] = [row["label"]] if isinstance(row["label"], str) else row["label"]
    return rows


def _checked_text(record: dict, column: str, where: str) -> str:
    text = record[column]
    if not isinstance(text, str) or text.strip().lower() in MISSING:
        raise UserError(f"{where} has no text in column {column!r} but {quoted(str(text))}: fill or drop it")
    return text.strip()


def columns_of(rows: Dataset) -> list[str]:
    """The columns of a split that hold text: `text`, and `text_pair` of sentence pairs."""
    return [name for name in ("text", "text_pair") if name in rows.column_names]


def texts_of(rows: Dataset) -> list:
    """The rows' texts: strings, or of sentence pairs tuples of two."""
    columns = [rows[name][:] for name in columns_of(rows)]
    return list(columns[0] if len(columns) == 1 else zip(*columns, strict=True))


def row_keys(rows: Dataset) -> list:
    """The form in which two rows are the same: their texts, folded."""
    columns = [map(fold, rows[name][:]) for name in columns_of(rows)]
    return list(columns[0] if len(columns) == 1 else zip(*columns, strict=True))


def fold(text: str) -> str:
    """The form in which two texts count as the same: NFC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def quoted(text: str | tuple[str, ...]) -> str:
    """A text (or a pair) in quotation marks, for a message; of a long one its first words.

    >>> quoted("A film about nothing at all, and about the people to whom it happens")
    "'A film about nothing at all, and about the people to whom …'"
    """
    if isinstance(text, tuple):
        return " and ".join(map(quoted, text))
    words = textwrap.shorten(text, 60, placeholder=" …")
    return repr(text[:60] if words in ("", "…") else words)  # nothing, or one long word


def require_column(column: str, columns: list[str], where: str) -> None:
    """Raise UserError, naming the columns that there are, unless `column` is one of them, once."""
    if columns.count(column) != 1:
        problem = "two columns" if column in columns else "no column"
        raise UserError(f"{where} has {problem} {column!r}; it has: {', '.join(map(str, columns))}")


def shown_label(value: Any) -> str | None:
    """A label as tables show it: 1, 1.0, "+1" and "1e0" are "1", single spaces, NFC; None for missing and -100.

    Raises UserError for lists and other objects.
    """
    if not pd.api.types.is_scalar(value) or isinstance(value, bytes):
        raise UserError(f"the label {quoted(str(value))} is neither a name nor a number")
    text = "" if pd.isna(value) else " ".join(unicodedata.normalize("NFC", str(value)).split())
    if NUMBER.fullmatch(text.replace("\N{MINUS SIGN}", "-")):
        number = Decimal(text.replace("\N{MINUS SIGN}", "-"))
        text = str(int(number)) if number == int(number) else f"{number:f}".rstrip("0")
    return None if text.lower() in (*MISSING, str(UNLABELLED)) else text


def shown_labels(value: Any, separator: str | None = None) -> str | list[str] | None:
    """A label as `shown_label` has it, or a list of them: of a list, or of text with a separator.

    >>> shown_labels("funny|long", "|"), shown_labels(["funny"]), shown_labels("|", "|"), shown_labels("", "|")
    (['funny', 'long'], ['funny'], [], None)
    """
    if isinstance(value, str) and LIST.fullmatch(value.strip()):
        raise UserError(f"the label {quoted(value)} is a list in one text: write a|b and give --label-separator '|'")
    if separator and isinstance(value, str) and shown_label(value) is not None:
        value = value.split(separator)
    if isinstance(value, list | tuple | np.ndarray):
        return [shown for shown in map(shown_label, value) if shown is not None]
    return shown_label(value)


def normal_label(value: Any) -> str | None:
    """The form in which two labels are the same class; None for no label. Raises UserError for lists and objects.

    >>> [normal_label(value) for value in (1.0, "+1", "GOOD", "Good ", True, "-100.0")]
    ['1', '1', 'good', 'good', 'true', None]
    """
    text = shown_label(value)
    return None if text is None else unicodedata.normalize("NFC", text.casefold())


def class_names(found: set[str], declared: list[str], teacher: list[str]) -> list[str]:
    """The classes in the order of their ids: the teacher's, where its names are meant; the declared; else sorted.

    Raises UserError where two undeclared labels differ in nothing but case: are they one class or two?
    """
    forms = {normal_label(name) for name in teacher}
    if len(forms) == len(teacher) and forms.issuperset(map(normal_label, found)):
        return list(teacher)
    ordered = sorted(found, key=_order)
    for one, two in itertools.pairwise(ordered):
        if not declared and normal_label(one) == normal_label(two):
            raise UserError(f"the training labels {one!r} and {two!r} differ in nothing but case: write them alike")
    return declared or ordered


def _order(label: str) -> list[str | float]:
    """A sorting key by which numbers are in number order, those within names too: "10 stars" after "9 stars"."""
    parts = re.split(r"((?:^-)?\d+(?:\.\d+)?)", str(normal_label(label)))
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]
