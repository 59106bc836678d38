"""Is one model really better than another? Every model scored on the same rows, two of them compared row by row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from kdhelpers.data import Task, has_label, predictions
from kdhelpers.errors import UserError
from kdhelpers.evaluation.metrics import same_rows, score

TWO_MODELS = "It is about these two models, not about two ways of training: another seed makes other models."
TOO_COARSE = 0.05  # rows that show only larger differences than this (as a fraction) are called too few
FEWEST = 6  # rows, all one way, with which an exact test falls below 5 %
TOO_FEW = f"too few rows tell them apart: a verdict takes {FEWEST}"
NAMES = {  # of a run's models, in the order of its table
    "baseline": "the baseline on the labels",
    "taught_baseline": "the baseline on the teacher's answers",
    "teacher": "the teacher",
    "control": "the control without a teacher",
    "second_control": "a control with another seed",
    "hard_answers": "the student on hard answers",
    "student": "the distilled student",
}
VERDICTS = {  # a run's paired comparisons of two of these: the student with its control, and what stands beside it
    "verdict": ("student", "control"),
    "two_controls": ("second_control", "control"),
    "soft_or_hard": ("student", "hard_answers"),
}


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _percents(pair: tuple[float, float]) -> str:
    return f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f}"


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {  # key in `scores`: heading, and how it is written
    "accuracy": ("accuracy", _percent),
    "f1_micro": ("micro F1", _percent),
    "interval95": ("95 % interval", _percents),
    "exact_match": ("exact match", _percent),
    "exact_interval95": ("its 95 % interval", _percents),
    "label_accuracy": ("label accuracy", _percent),
    "rmse": ("RMSE", "{:.3f}".format),
    "rmse_interval95": ("95 % interval", lambda pair: f"{pair[0]:.3f} to {pair[1]:.3f}"),
    "mae": ("MAE", "{:.3f}".format),
    "pearson": ("Pearson", "{:.3f}".format),
    "spearman": ("Spearman", "{:.3f}".format),
    "f1_macro": ("macro F1", "{:.3f}".format),
    "mcc": ("MCC", "{:.3f}".format),
    "ece": ("calibration error", _percent),
    "agreement": ("agrees with teacher", _percent),
    "agreement_right": ("where it is right", _percent),
    "agreement_wrong": ("where it is wrong", _percent),
    "mean_kl": ("KL to teacher", "{:.3f}".format),
    "rmse_to_teacher": ("RMSE to teacher", "{:.3f}".format),
}


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two models on the same rows; differences are in accuracy, as fractions, or in RMSE."""

    rows: int
    difference: float  # accuracy (of several labels: exact match; of a number: RMSE) of a minus that of b
    interval95: tuple[float, float]  # paired bootstrap
    mcnemar_p: float | None  # of a number None
    gained: int  # rows that only a gets right; of a number, on which a is closer
    lost: int  # rows that only b gets right; of a number, on which b is closer
    text: str  # the verdict, one sentence


def mcnemar_p(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided McNemar test on paired right/wrong answers; 1.0 where no row tells the models apart.

    >>> mcnemar_p(np.ones(6, bool), np.zeros(6, bool))  # six rows, all one way: the fewest that can show anything
    0.03125
    """
    only_a, only_b = (int(np.sum(one & ~other)) for one, other in ((correct_a, correct_b), (correct_b, correct_a)))
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def minimum_detectable_effect(rows: int, disagreeing: float) -> float:
    """The smallest difference in accuracy that this many rows could show, as a fraction.

    `disagreeing` is the share of rows on which exactly one of two models is right. A true difference of this size
    is found four times in five at the 5 % level (the usual approximation for McNemar's test, Connor 1987, first
    order). Never less than `FEWEST` rows; a true difference of that floor is found little more than every second time.
    """
    return min(1.0, max(FEWEST / rows, (1.96 + 0.84) * (disagreeing / rows) ** 0.5))


def paired(
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    labels: np.ndarray,
    name_a: str = NAMES["student"],
    name_b: str = NAMES["control"],
) -> Comparison:
    """Does model `a` beat model `b`, row by row? A verdict needs p < 0.05 (exact McNemar) and an interval without 0.

    It is about these two trained models, not about two ways of training: another seed makes other models. Where
    there is no verdict, the text says the minimum detectable effect, and calls the rows too few where that is more
    than `TOO_COARSE`.
    """
    correct_a, correct_b = same_rows(predictions_a, labels), same_rows(predictions_b, labels)
    per_row = correct_a.astype(float) - correct_b
    (low, high), p = bootstrap_interval(per_row), mcnemar_p(correct_a, correct_b)
    difference, rows = float(per_row.mean()), len(labels)
    gained, lost = int((per_row > 0).sum()), int((per_row < 0).sum())
    points = "points of exact match" if np.ndim(labels) > 1 else "points"
    facts = (
        f"{100 * difference:+.1f} {points} on {rows} rows, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}, "
        f"McNemar p = {p:.2g}, {gained} row{'s' * (gained != 1)} gained, {lost} lost"
    )
    if p < 0.05 and (low > 0 or high < 0):
        text = f"{name_a} is {'better' if low > 0 else 'worse'} than {name_b} ({facts})"
    else:
        visible = minimum_detectable_effect(rows, (gained + lost) / rows)
        few = "too few rows: " if visible > TOO_COARSE else ""
        could = f"{few}these rows could show a difference of {100 * visible:.1f} points or more"
        text = f"no evidence of a difference between {name_a} and {name_b} ({facts}); "
        text += could if rows >= FEWEST else TOO_FEW
    return Comparison(rows, difference, (low, high), p, gained, lost, text)


def paired_numbers(
    said_a: np.ndarray,
    said_b: np.ndarray,
    labels: np.ndarray,
    name_a: str = NAMES["student"],
    name_b: str = NAMES["control"],
) -> Comparison:
    """Are the numbers of model `a` closer to the labels than those of `b`? All [rows]; as `paired`, by RMSE.

    A verdict needs a paired bootstrap interval of the difference in RMSE without 0, and `FEWEST` rows on which they
    differ; else the text says the difference that would be found four times in five, from the interval's width.
    """
    squares = [(np.asarray(said, dtype=float) - labels) ** 2 for said in (said_a, said_b)]
    (low, high), (a, b), rows = rmse_interval(*squares), (np.sqrt(each.mean()) for each in squares), len(labels)
    gained, lost = (int((one < other).sum()) for one, other in (squares, squares[::-1]))
    enough = gained + lost >= FEWEST  # of fewer, a bootstrap takes what it has seen for all there is
    interval = f"95 % interval {low:+.3f} to {high:+.3f}, " if enough else ""
    facts = (
        f"RMSE {a:.3f} against {b:.3f}, {a - b:+.3f} on {rows} rows, {interval}"
        f"closer on {gained} row{'s' * (gained != 1)}, farther on {lost}"
    )
    if enough and (low > 0 or high < 0):
        text = f"{name_a} is {'better' if high < 0 else 'worse'} than {name_b} ({facts})"
    else:
        text = f"no evidence of a difference between {name_a} and {name_b} ({facts}); "
        could = f"these rows could show a difference of {(1.96 + 0.84) * (high - low) / 3.92:.3f} or more"
        text += could if enough else TOO_FEW
    return Comparison(rows, float(a - b), (low, high), None, gained, lost, text)


def rmse_interval(squares_a: np.ndarray, squares_b: np.ndarray) -> tuple[float, float]:
    """95 % interval of RMSE of a minus RMSE of b from paired squared errors, [rows] or [seeds, rows] (2,000 resamples).

    Hierarchical, as `bootstrap_interval`.
    """
    both = [np.atleast_2d(squares) for squares in (squares_a, squares_b)]
    seeds, rows = both[0].shape
    draw, found = np.random.default_rng(0), []
    for _ in range(20):  # a hundred at a time, for the memory's sake
        of_rows = draw.multinomial(rows, np.full(rows, 1 / rows), size=100) / rows
        of_seeds = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=100) / seeds
        a, b = (np.sqrt(of_rows @ squares.T) for squares in both)
        found.append(((a - b) * of_seeds).sum(1))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def judged(logits: dict[str, np.ndarray], labels: np.ndarray, a: str, b: str, task: Task = Task.ONE) -> Comparison:
    """Model `a` against `b`, row by row, as the task has it: `paired`, or `paired_numbers`."""
    said_a, said_b = (predictions(logits[name], task) for name in (a, b))
    by_row = paired_numbers if task is Task.NUMBER else paired
    return by_row(said_a, said_b, labels, NAMES.get(a, a), NAMES.get(b, b))


def bootstrap_interval(table: np.ndarray, resamples: int = 9999) -> tuple[float, float]:
    """95 % interval of the mean of paired differences (-1, 0 or 1), [rows] or [seeds, rows]; never of width 0.

    A two-way percentile bootstrap (Efron and Tibshirani 1993): seeds are drawn again, and rows, the same for
    every seed. Where all values are equal, it is as wide as the share of others that so many rows may hide at 95 %.
    """
    table = np.atleast_2d(table)
    seeds, rows = table.shape
    first = float(table.flat[0])
    if (table == first).all():
        hidden = 1 - 0.05 ** (1 / rows)
        return max(-1.0, first - hidden), min(1.0, first + hidden)
    draw = np.random.default_rng(0)
    patterns, counts = np.unique(table, axis=1, return_counts=True)  # rows on which the seeds say the same are alike
    of_seeds = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    of_rows = draw.multinomial(rows, counts / rows, size=resamples) / rows
    means = ((of_seeds @ patterns) * of_rows).sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class SeedsComparison:
    """A paired comparison over seeds; differences are in accuracy, as fractions, or in RMSE."""

    by_seed: dict[int, float]  # accuracy, exact match or RMSE of a minus that of b
    difference: float  # their mean
    interval95: tuple[float, float]  # seeds and rows drawn again
    text: str  # the verdict, one sentence


def paired_over_seeds(
    correct_a: dict[int, np.ndarray],
    correct_b: dict[int, np.ndarray],
    name_a: str,
    name_b: str,
    task: Task = Task.ONE,
) -> SeedsComparison:
    """Does the way of training `a` beat `b`? Right/wrong answers [rows] by seed; the seeds that both have count.

    Of a number they are squared errors, and the differences are in RMSE. A verdict needs an interval over seeds and
    rows without 0, and `FEWEST` rows on which a seed tells them apart. (Three seeds on the same 1,000 rows are no 3,000
    rows. Drawn again, three values never look beyond themselves: the interval is, if anything, too narrow.)
    Raises UserError where there is no common seed.
    """
    seeds = sorted(set(correct_a) & set(correct_b))
    if not seeds:
        raise UserError(f"no seed has both {name_a!r} and {name_b!r}")
    a, b = (np.array([of[seed] for seed in seeds], dtype=float) for of in (correct_a, correct_b))
    if task is Task.NUMBER:
        means, (low, high) = np.sqrt(a.mean(1)) - np.sqrt(b.mean(1)), rmse_interval(a, b)
        better, scale, form, unit = high < 0, 1, "+.3f", "RMSE"
    else:
        means, (low, high) = (a - b).mean(1), bootstrap_interval(a - b)
        unit = "points of exact match" if task is Task.SEVERAL else "points"
        better, scale, form = low > 0, 100, "+.1f"
    by_seed = dict(zip(map(int, seeds), means.tolist(), strict=True))
    clear = low > 0 or high < 0
    found = clear and (a != b).any(0).sum() >= FEWEST
    verdict = f"is {'better' if better else 'worse'} than" if found else "shows no evidence of a difference from"
    mean, low_text, high_text, *each = (f"{scale * value:{form}}" for value in (means.mean(), low, high, *means))
    count = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    interval = f", 95 % interval over seeds and rows {low_text} to {high_text}"
    text = f"{name_a} {verdict} {name_b}: {mean} {unit} over {count} ({', '.join(each)})"
    text += f"; {TOO_FEW}" if a.shape[1] < FEWEST or clear and not found else interval
    return SeedsComparison(by_seed, float(means.mean()), (low, high), text)


@dataclass(frozen=True)
class Card:
    """Scores of a set of models on one split, and the paired comparison of two of them.

    Shows as text in a terminal, as a table in a notebook. `scores` maps a model's name to the values of `COLUMNS`.
    """

    scores: dict[str, dict]
    comparison: Comparison

    def table(self) -> pd.DataFrame:
        """The scores as text, a row a model."""
        return score_table(self.scores)

    def __str__(self) -> str:
        return f"{self.table().T.to_string()}\n\nVerdict: {self.comparison.text}. {TWO_MODELS}"

    def _repr_html_(self) -> str:
        return f"{self.table().T.to_html(border=0)}<p><b>Verdict:</b> {self.comparison.text}. {TWO_MODELS}</p>"


def score_table(scores: dict[str, dict]) -> pd.DataFrame:
    """Scores as `score` returns them, written as text: a row a model, a column a score."""
    shown = {key: column for key, column in COLUMNS.items() if any(key in values for values in scores.values())}
    rows = {
        name: {title: "" if values.get(key) is None else write(values[key]) for key, (title, write) in shown.items()}
        for name, values in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def compare(
    logits: dict[str, np.ndarray],
    labels: np.ndarray,
    a: str = "student",
    b: str = "control",
    teacher: str = "teacher",
    task: Task = Task.ONE,
) -> Card:
    """Score every model and judge `a` against `b`; fidelity is to the model called `teacher`, where there is one.

    `logits` maps names to float arrays [rows, classes], `labels` are class ids [rows], every row labelled (of another
    task as in `kdhelpers.data.task`). Raises UserError for names that are not there, other numbers of rows, logits that
    are not finite, or rows without a label.

    >>> compare({"student": np.eye(2), "control": 1 - np.eye(2)}, np.array([0, 1])).comparison.difference
    1.0
    """
    labels = np.asarray(labels)
    for name in (a, b):
        if name not in logits:
            raise UserError(f"no model called {name!r} to compare: there are {', '.join(logits)}")
    for name, values in logits.items():
        if len(values) != len(labels):
            raise UserError(f"{name} has logits for {len(values)} rows, but there are {len(labels)} labels")
        if not np.isfinite(values).all():
            raise UserError(f"the logits of {name} hold NaN or infinite values: the model is broken")
    if len(labels) == 0 or not has_label(labels).all():
        raise UserError("every row needs a label to be compared on: leave the unlabelled ones out")
    scores = {name: score(values, labels, logits.get(teacher), task) for name, values in logits.items()}
    return Card(scores, judged(logits, labels, a, b, task))


def gained_and_lost(
    texts: Sequence[str],
    labels: np.ndarray,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    label_names: list[str],
    rows: int = 5,
) -> pd.DataFrame:
    """Texts that only `a` gets right (gained) and that only `b` gets right (lost), up to `rows` of each."""
    right_a, right_b = np.asarray(predictions_a) == labels, np.asarray(predictions_b) == labels
    found = [("gained", i) for i in np.flatnonzero(right_a & ~right_b)[:rows]]
    found += [("lost", i) for i in np.flatnonzero(right_b & ~right_a)[:rows]]
    shown = [(kind, label_names[labels[i]], texts[int(i)]) for kind, i in found]
    return pd.DataFrame(shown, columns=["", "label", "text"])
