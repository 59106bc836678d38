"""What is asked of a text: one label out of several, several labels at once, or a number; and what arrays make of it.

Logits are float [rows, outputs]. Labels are class ids [rows] (-100: none), 0 and 1 [rows, labels], or numbers [rows];
in the latter two a row without a label is NaN.
"""

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, softmax

SEPARATOR = "|"  # between the labels of a row in predictions.csv, and by default in a file


class Task(enum.StrEnum):
    """The task of a run; the values are those that --task takes besides auto."""

    ONE = "one-label"
    SEVERAL = "several-labels"
    NUMBER = "number"

    @property
    def problem_type(self) -> str:
        """What a model's config calls it."""
        return PROBLEM_TYPES[self]


PROBLEM_TYPES = {
    Task.ONE: "single_label_classification",
    Task.SEVERAL: "multi_label_classification",
    Task.NUMBER: "regression",
}


def has_label(labels: Any) -> np.ndarray:
    """Which rows have a label: booleans [rows].

    >>> has_label([1, -100]), has_label([0.5, float("nan")])
    (array([ True, False]), array([ True, False]))
    """
    table = np.asarray(labels)
    if table.dtype.kind != "f":
        return table >= 0
    return ~(np.isnan(table) if table.ndim == 1 else np.isnan(table).any(-1))


def predictions(logits: np.ndarray, task: Task = Task.ONE) -> np.ndarray:
    """What a model says: class ids [rows], 0 and 1 [rows, labels] (1 from a probability of a half on), or numbers."""
    if task is Task.NUMBER:
        return logits[:, 0]
    return (logits > 0).astype(int) if task is Task.SEVERAL else logits.argmax(-1)


def probabilities(logits: np.ndarray, task: Task = Task.ONE) -> np.ndarray:
    """Logits as probabilities [rows, outputs]: softmax, or sigmoid label by label; a number stays what it is."""
    if task is Task.NUMBER:
        return logits
    return expit(logits) if task is Task.SEVERAL else softmax(logits, axis=-1)


def listed(names: Sequence[str]) -> str:
    """Label names in a sentence, those with a comma in quotes.

    >>> listed(["bad", "good, or better"])
    "bad, 'good, or better'"
    """
    return ", ".join(repr(name) if "," in name else name for name in names)


def joined(row: Sequence[float], names: Sequence[str]) -> str:
    """The labels of a row of 0 and 1 as one text; the separator alone where it has none.

    >>> joined([1, 0, 1], ["funny", "sad", "long"]), joined([0], ["funny"])
    ('funny|long', '|')
    """
    return SEPARATOR.join(name for name, has in zip(names, row, strict=True) if has) or SEPARATOR
