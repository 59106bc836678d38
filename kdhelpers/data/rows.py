"""The carrier of a run's rows, and what every source of rows has to hold to."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from datasets import DatasetDict

from kdhelpers.data.labels import MISSING, UNLABELLED, shown_label
from kdhelpers.errors import UserError

TEACHER_LOGITS = "teacher_logits"  # the column of the teacher's answers: float32 [rows, classes]
SPLIT_SEED = 42  # the split never changes with a run's seed, so seeds can be compared row by row


@dataclass(frozen=True)
class Rows:
    """The rows of a run. Every split has the columns `id`, `text`, `label` (-100: withheld or unknown)."""

    splits: DatasetDict  # train; validation (may be missing); test
    label_names: list[str]
    test_name: str = "test"  # what the table calls the rows it reports on
    revision: str | None = None
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Rows by use, as in metrics.json."""
        labelled = int(np.sum(np.array(self.splits["train"]["label"]) != UNLABELLED))
        held_out = {name: len(self.splits[name]) if name in self.splits else 0 for name in ("validation", "test")}
        return {"labelled": labelled, "unlabelled": len(self.splits["train"]) - labelled} | held_out


def checked_rows(records: Iterable[tuple[str, dict]], text_column: str, label_column: str | None) -> list[dict]:
    """Rows as {"text": str, "label": str or None, "where": str}, out of places and the values there, by column.

    Raises UserError, naming the place, for a text that is empty or no string, and for what cannot be a label.
    """
    rows = []
    for where, record in records:
        text = record[text_column]
        if not isinstance(text, str) or text.strip().lower() in MISSING:
            raise UserError(f"{where} has no text in column {text_column!r} but {str(text)[:60]!r}: fill or drop it")
        try:
            label = None if label_column is None else shown_label(record[label_column])
            f"{text}{label}".encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{where} holds half a character, as of an emoji that was cut: mend or drop it") from error
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        rows.append({"text": text.strip(), "label": label, "where": where})
    return rows


def fold(text: str) -> str:
    """The form in which two texts count as the same: NFC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def require_column(column: str, columns: list[str], where: str) -> None:
    """Raise UserError, naming the columns that there are, unless `column` is one of them, once."""
    if columns.count(column) != 1:
        problem = "two columns" if column in columns else "no column"
        raise UserError(f"{where} has {problem} {column!r}; it has: {', '.join(map(str, columns))}")
