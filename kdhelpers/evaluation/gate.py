"""Is a teacher worth learning from? Its answers on labelled rows say so, before a student is trained."""

import logging

import numpy as np
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from kdhelpers.errors import UserError

log = logging.getLogger(__name__)

RESAMPLES = 1999
LEVEL = 0.05


def check_teacher(logits: np.ndarray, labels: np.ndarray, label_names: list[str], accept: bool = False) -> float:
    """The teacher's accuracy on labelled rows. Raises UserError for a teacher that a student should not learn from.

    Refused are logits that are not finite, labels that look swapped (another assignment of the names would be far
    better: a teacher with swapped names loads without a word), and answers that have nothing to do with the labels
    (permutation test at 5 %). A teacher without a mistake always passes, and so does one on rows that are too few
    to tell. With `accept` the last two are said, not raised. `logits` [rows, classes], `labels` [rows], -100 without.
    """
    if not np.isfinite(logits).all():
        raise UserError("the teacher's logits hold NaN or infinite values: its weights are damaged, load others")
    known = labels >= 0
    predictions, labels = logits[known].argmax(-1), labels[known]
    accuracy = float((predictions == labels).mean())
    problem = _looks_swapped(predictions, labels, label_names) or _looks_like_guessing(predictions, labels)
    if problem and not accept:
        raise UserError(f"{problem}; --accept-teacher distils it all the same")
    if problem:
        log.info("accepted: %s", problem)
    return accuracy


def _looks_swapped(predictions: np.ndarray, labels: np.ndarray, label_names: list[str]) -> str | None:
    """The sentence for a teacher that would be far better with its labels assigned otherwise; else None."""
    confusion = confusion_matrix(predictions, labels, labels=range(len(label_names)))
    said, meant = linear_sum_assignment(-confusion)
    best, right = int(confusion[said, meant].sum()), int(np.trace(confusion))
    # the rows on which the two assignments differ, as a coin that should be fair if neither were better
    if best - right < 0.1 * len(labels) or stats.binomtest(right, best + right, 0.5).pvalue > 0.01:
        return None
    swaps = ", ".join(f"{label_names[a]!r} as {label_names[b]!r}" for a, b in zip(said, meant, strict=True) if a != b)
    return (
        f"the teacher's labels look swapped: {100 * right / len(labels):.1f} % of {len(labels)} rows are right, but "
        f"{100 * best / len(labels):.1f} % with {swaps}: correct id2label and label2id in its config.json"
    )


def _looks_like_guessing(predictions: np.ndarray, labels: np.ndarray) -> str | None:
    """The sentence for a teacher whose answers have nothing to do with the labels; else None."""
    right = int((predictions == labels).sum())
    if right == len(labels) or len(set(labels)) == 1:  # nothing against it, or nothing that could tell
        return None
    draw = np.random.default_rng(0)
    by_luck = np.array([(predictions == draw.permutation(labels)).sum() for _ in range(RESAMPLES)])
    perfect_by_luck = np.array([(labels == draw.permutation(labels)).all() for _ in range(RESAMPLES)])
    if perfect_by_luck.mean() > LEVEL:
        log.info("%d labelled rows are too few to judge a teacher on", len(labels))
        return None
    if (1 + (by_luck >= right).sum()) / (1 + RESAMPLES) < LEVEL:
        return None
    commonest = np.bincount(labels).max()
    return (
        f"the teacher is not shown to be better than guessing: {100 * right / len(labels):.1f} % of {len(labels)} rows "
        f"are right, where the commonest class alone has {100 * commonest / len(labels):.1f} %: take another teacher, "
        "more labelled rows or more --teacher-epochs"
    )
