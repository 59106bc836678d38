"""Did the teacher help? One card: scores of every model on the same rows, fidelity, calibration, and the verdict."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdhelpers import evaluation
from kdhelpers.errors import UserError

COLUMNS = {  # key in `scores`: (heading, how it is written)
    "accuracy": ("accuracy", lambda v: f"{100 * v:.1f} %"),
    "interval95": ("95 % interval", lambda v: f"{100 * v[0]:.1f} to {100 * v[1]:.1f}"),
    "f1_macro": ("macro F1", lambda v: f"{v:.3f}"),
    "mcc": ("MCC", lambda v: f"{v:.3f}"),
    "ece": ("calibration error", lambda v: f"{100 * v:.1f} %"),
    "agreement": ("agrees with teacher", lambda v: f"{100 * v:.1f} %"),
    "agreement_right": ("where it is right", lambda v: f"{100 * v:.1f} %"),
    "agreement_wrong": ("where it is wrong", lambda v: f"{100 * v:.1f} %"),
    "mean_kl": ("KL to teacher", lambda v: f"{v:.3f}"),
}


@dataclass(frozen=True)
class Card:
    """Scores of a set of models on one split, and the paired comparison of two of them.

    Shows as text in a terminal, as a table in a notebook. `scores` maps a model's name to the values of `COLUMNS`.
    """

    scores: dict[str, dict]
    comparison: evaluation.Comparison

    def table(self) -> pd.DataFrame:
        """The scores as text, a row a model."""
        rows = {
            name: {heading: write(values[key]) for key, (heading, write) in COLUMNS.items() if key in values}
            for name, values in self.scores.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").fillna("")

    def __str__(self) -> str:
        return f"{self.table().T.to_string()}\n\nVerdict: {self.comparison.text}."

    def _repr_html_(self) -> str:
        return f"{self.table().T.to_html(border=0)}<p><b>Verdict:</b> {self.comparison.text}.</p>"


def compare(
    logits: dict[str, np.ndarray], labels: np.ndarray, a: str = "student", b: str = "control", teacher: str = "teacher"
) -> Card:
    """Score every model and judge `a` against `b`; fidelity is to the model called `teacher`, where there is one.

    `logits` maps names to float arrays [rows, classes], `labels` are class ids [rows], every row labelled. Raises
    UserError for names that are not there, other numbers of rows, or rows without a label.
    """
    labels = np.asarray(labels)
    for name in (a, b):
        if name not in logits:
            raise UserError(f"no model called {name!r} to compare: there are {', '.join(logits)}")
    for name, values in logits.items():
        if len(values) != len(labels):
            raise UserError(f"{name} has logits for {len(values)} rows, but there are {len(labels)} labels")
    if len(labels) == 0 or labels.min() < 0:
        raise UserError("every row needs a label to be compared on: leave the unlabelled ones out")
    scores = {name: score(values, labels, logits.get(teacher)) for name, values in logits.items()}
    predictions = {name: values.argmax(-1) for name, values in logits.items()}
    called = {"student": "the distilled student", "control": "the control without a teacher", "teacher": "the teacher"}
    return Card(
        scores,
        evaluation.paired(predictions[a], predictions[b], labels, called.get(a, a), called.get(b, b)),
    )


def score(logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None) -> dict:
    """All values of `COLUMNS` for one model; those about the teacher only where its logits are given."""
    predictions = logits.argmax(-1)
    values = evaluation.classification_metrics().compute(predictions=predictions, references=labels)
    values["interval95"] = evaluation.bootstrap_interval(predictions == labels)
    values["ece"] = evaluation.expected_calibration_error(logits, labels)
    if teacher_logits is not None and teacher_logits is not logits:
        teacher = teacher_logits.argmax(-1)
        values["agreement"] = evaluation.agreement(predictions, teacher)
        values["agreement_right"] = evaluation.agreement_where(predictions, teacher, teacher == labels)
        values["agreement_wrong"] = evaluation.agreement_where(predictions, teacher, teacher != labels)
        values["mean_kl"] = evaluation.mean_kl(logits, teacher_logits)
    return values


def gained_and_lost(texts, labels, predictions_a, predictions_b, label_names: list[str], rows: int = 5) -> pd.DataFrame:
    """Texts that only `a` gets right (gained) and that only `b` gets right (lost), up to `rows` of each."""
    right_a, right_b = np.asarray(predictions_a) == labels, np.asarray(predictions_b) == labels
    found = [("gained", i) for i in np.flatnonzero(right_a & ~right_b)[:rows]]
    found += [("lost", i) for i in np.flatnonzero(right_b & ~right_a)[:rows]]
    return pd.DataFrame(
        [{"": kind, "label": label_names[labels[i]], "text": texts[int(i)]} for kind, i in found],
        columns=["", "label", "text"],
    )
