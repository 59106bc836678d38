"""The carrier of a run's rows, and what every room agrees on about their columns."""

from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, DatasetDict

from kdhelpers.errors import UserError

UNLABELLED = -100  # the label of a row whose class is withheld or unknown; PyTorch's cross-entropy skips it too
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
        labels = np.array(self.splits["train"]["label"])
        return {
            "labelled": int((labels != UNLABELLED).sum()),
            "unlabelled": int((labels == UNLABELLED).sum()),
            "validation": len(self.splits["validation"]) if "validation" in self.splits else 0,
            "test": len(self.splits["test"]),
        }


def fold(text: str) -> str:
    """The form in which two texts count as the same: lower case, single blanks."""
    return " ".join(text.lower().split())


def require_column(column: str, columns: list[str], where: str) -> None:
    """Raise UserError, naming the columns that there are, unless `column` is one of them."""
    if column not in columns:
        raise UserError(f"{where} has no column {column!r}; it has: {', '.join(map(str, columns))}")


def require_scorable(rows: Dataset, name: str) -> None:
    """Refuse to score rows whose labels are hidden. Raises UserError."""
    hidden = sum(label < 0 for label in rows["label"])
    if hidden:
        raise UserError(
            f"{hidden} of {len(rows)} rows of {name} have no label (GLUE's test split marks all of its rows -1): "
            "they cannot be scored; use the validation split"
        )


def withhold_labels(rows: Dataset, keep: int) -> Dataset:
    """Keep the labels of the first `keep` rows; those of all others become -100."""
    labels = [label if index < keep else UNLABELLED for index, label in enumerate(rows["label"])]
    return rows.remove_columns("label").add_column("label", labels)


def drop_rows(rows: Dataset, indices: list[int]) -> Dataset:
    """All rows but these."""
    unwanted = set(indices)
    return rows.select([index for index in range(len(rows)) if index not in unwanted])


def join_rows(first: Dataset, second: Dataset) -> Dataset:
    """One table after the other."""
    return concatenate_datasets([first, second])
