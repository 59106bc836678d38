"""Is a teacher worth learning from? Its answers on labelled rows say so, before a student is trained."""

import logging

import numpy as np
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from kdhelpers.errors import UserError

log = logging.getLogger(__name__)


def check_teacher(logits: np.ndarray, labels: np.ndarray, label_names: list[str], accept: bool = False) -> float:
    """The teacher's accuracy on labelled rows. Raises UserError for a teacher that a student should not learn from.

    Refused are logits that are not finite, labels that look swapped (another assignment of the names would be far
    better: a teacher with swapped names loads without a word), and answers that have nothing to do with the labels
    (permutation test at 5 %). A teacher without a mistake always passes, and so does one on rows that are too few
    to tell. With `accept` the last two are said, not raised. `logits` [rows, classes], `labels` [rows]; rows without a
    label (below 0) are left out, and without any the accuracy is NaN.
    """
    if not np.isfinite(logits).all():
        raise UserError("the teacher's logits hold NaN or infinite values: its weights are damaged, load others")
    known = labels >= 0
    if not known.any():
        log.info("no labelled row: whether the teacher is right cannot be checked")
        return float("nan")
    confusion = confusion_matrix(logits[known].argmax(-1), labels[known], labels=range(len(label_names)))
    problem = _swapped(confusion, label_names) or _guessing(confusion)
    if problem and not accept:
        raise UserError(f"{problem}; --accept-teacher distils it all the same")
    if problem:
        log.info("accepted: %s", problem)
    return float(np.trace(confusion) / confusion.sum())


def _swapped(confusion: np.ndarray, label_names: list[str]) -> str | None:
    """The sentence for a teacher that would be far better with its labels assigned otherwise; else None."""
    said, meant = linear_sum_assignment(-confusion)
    moved = said != meant
    better, as_named = int(confusion[said, meant][moved].sum()), int(np.diag(confusion)[moved].sum())
    renamed = np.empty_like(confusion)
    renamed[meant] = confusion
    # twice as many right as with the names it has, more than luck finds in several assignments, and no constant answer
    unlikely = stats.binomtest(as_named, max(1, better + as_named)).pvalue < 0.01
    if better < 2 * as_named or not unlikely or _guessing(renamed):
        return None
    rows, right = int(confusion.sum()), int(np.trace(confusion))
    pairs = zip(said[moved], meant[moved], strict=True)
    swaps = ", ".join(f"{label_names[a]!r} as {label_names[b]!r}" for a, b in pairs)
    return (
        f"the teacher's labels look swapped: {100 * right / rows:.1f} % of {rows} rows are right, but "
        f"{100 * (right - as_named + better) / rows:.1f} % with {swaps}: correct id2label and label2id in its config"
    )


def _guessing(confusion: np.ndarray) -> str | None:
    """The sentence for a teacher whose answers have nothing to do with the labels; else None, as for too few rows."""
    rows, right, of_class = int(confusion.sum()), int(np.trace(confusion)), confusion.sum(0)
    perfect = stats.random_table(of_class, of_class)  # a perfect teacher's answers in any order
    if right == rows or perfect.pmf(np.diag(of_class)) > 0.05:
        return None
    # not scipy's faster "patefield": where a class is never said it makes tables with negative counts
    by_luck = stats.random_table(confusion.sum(1), of_class, seed=0).rvs(1999, method="boyett")
    if (1 + (np.trace(by_luck, axis1=1, axis2=2) >= right).sum()) / 2000 < 0.05:
        return None
    return (
        f"the teacher is not shown to be better than guessing: {100 * right / rows:.1f} % of {rows} rows are right, "
        f"where the commonest class alone has {100 * of_class.max() / rows:.1f} %: take another teacher, more labelled "
        "rows or more --teacher-epochs"
    )
