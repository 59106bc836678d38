"""Is a teacher worth learning from? Its answers on labelled rows say so, before a student is trained."""

import logging

import numpy as np
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from kdhelpers.data import Task, has_label, predictions
from kdhelpers.errors import UserError
from kdhelpers.evaluation.metrics import MEASURES, agreement, label_metrics, number_metrics

log = logging.getLogger(__name__)
RENAME = "correct its labels' names, in a model's config id2label and label2id"
TAKE_MORE = "take another teacher or more labelled rows"


def check_teacher(
    logits: np.ndarray,
    labels: np.ndarray,
    label_names: list[str],
    accept: bool = False,
    task: Task = Task.ONE,
    learnt: int | None = None,
) -> float:
    """The teacher's accuracy on labelled rows. Raises UserError for a teacher that a student should not learn from.

    Refused are logits that are not finite, labels that look swapped (another assignment of the names would be far
    better: a teacher with swapped names loads without a word), and answers that have nothing to do with the labels
    (permutation test at 5 %). A teacher without a mistake always passes, and so does one on rows that are too few
    to tell. With `accept` the last two are said, not raised. `logits` [rows, classes], `labels` [rows]; rows without a
    label are left out, and without any the accuracy is NaN. Of several labels, micro F1 is returned and no assignment
    tried; of a number it is RMSE, and refused is a correlation that is not shown to be above 0. `learnt`: on how many
    labels the teacher was fine-tuned here, where it was.
    """
    if not np.isfinite(logits).all():
        raise UserError("the teacher's logits hold NaN or infinite values: its weights are damaged, load others")
    known = has_label(labels)
    if not known.any():
        log.info("no labelled row: whether the teacher is right cannot be checked")
        return float("nan")
    said, labels = predictions(logits[known], task), labels[known]
    problem = _PROBLEMS[task](said, labels, label_names)
    if problem and learnt is not None:
        problem = problem.replace("the teacher is", f"the teacher, fine-tuned on {learnt:,} labels, is", 1)
        problem = problem.replace(RENAME, "compare the labels that it has learnt with those of these rows")
        problem += ", or give more --teacher-epochs"
    if problem and not accept:
        raise UserError(f"{problem}; --accept-teacher distils it all the same")
    if problem:
        log.info("accepted: %s", problem)
    if task is Task.ONE:
        return agreement(said, labels)
    return (label_metrics if task is Task.SEVERAL else number_metrics)(said, labels)[MEASURES[task].key]


def _one_label(said: np.ndarray, labels: np.ndarray, label_names: list[str]) -> str | None:
    confusion = confusion_matrix(said, labels, labels=range(len(label_names)))
    return _swapped(confusion, label_names) or _guessing(confusion)


def _several_labels(said: np.ndarray, labels: np.ndarray, label_names: list[str]) -> str | None:
    """The sentence for labels that fit their rows no better than other rows' labels do; else None."""
    draw = np.random.default_rng(0)
    orders = [draw.permutation(len(labels)) for _ in range(999)]

    def by_luck(answers: np.ndarray) -> float:
        hits = (answers * labels).sum()
        return (1 + sum((answers * labels[order]).sum() >= hits for order in orders)) / 1000

    if (said == labels).all() or by_luck(labels) > 0.05 or by_luck(said) < 0.05:
        return None
    return (
        f"the teacher is not shown to be better than guessing: its labels fit {len(labels)} rows no better than those "
        f"of other rows would: {TAKE_MORE}"
    )


def _number(said: np.ndarray, labels: np.ndarray, label_names: list[str]) -> str | None:
    """The sentence for numbers whose correlation with the labels is not shown to be above 0; else None."""
    if len(labels) < 4 or np.ptp(labels) == 0 or (said == labels).all():
        return None
    found = stats.pearsonr(said, labels, alternative="greater") if np.ptp(said) else None
    if found is None or not found.pvalue < 0.05:
        how = f"the correlation of its answers with the labels of {len(labels)} rows is "
        how += f"{found.statistic:.2f} (p = {found.pvalue:.2g})" if found else "none, they are all the same"
        return f"the teacher is not shown to be better than guessing: {how}: {TAKE_MORE}"
    if np.mean((said - labels) ** 2) > labels.var():
        log.info("the teacher's numbers are on another scale than the labels: their mean alone would be closer")
    return None


_PROBLEMS = {Task.ONE: _one_label, Task.SEVERAL: _several_labels, Task.NUMBER: _number}


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
        f"{100 * (right - as_named + better) / rows:.1f} % with {swaps}: {RENAME}"
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
        f"where the commonest class alone has {100 * of_class.max() / rows:.1f} %: {TAKE_MORE}"
    )
