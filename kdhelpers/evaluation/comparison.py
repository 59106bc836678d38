"""Is one model really better than another? Every model scored on the same rows, two of them compared row by row."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kdhelpers.errors import UserError
from kdhelpers.evaluation.metrics import bootstrap_interval, score

TOO_COARSE = 0.05  # rows that show only larger differences than this (as a fraction) are called too few
NAMES = {"teacher": "the teacher", "control": "the control without a teacher", "student": "the distilled student"}

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


# --- two models, paired row by row ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two models on the same rows; differences are in accuracy, as fractions."""

    rows: int
    difference: float  # accuracy of a minus accuracy of b
    interval95: tuple[float, float]  # paired bootstrap
    mcnemar_p: float
    gained: int  # rows that only a gets right
    lost: int  # rows that only b gets right
    text: str  # the verdict, one sentence


def mcnemar_p(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided McNemar test on paired right/wrong answers; 1.0 where no row tells the models apart."""
    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(correct_b & ~correct_a))
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def minimum_detectable_effect(rows: int, disagreeing: float) -> float:
    """The smallest difference in accuracy that this many rows could show, as a fraction.

    `disagreeing` is the share of rows on which exactly one of two models is right. A true difference of this size
    is found four times in five at the 5 % level (the usual approximation for McNemar's test, Connor 1987, first
    order); and never less than 6 rows, since the exact test needs six, all one way, to fall below 5 %.
    """
    return max(6 / rows, (1.96 + 0.84) * (disagreeing / rows) ** 0.5)


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
    correct_a, correct_b = np.asarray(predictions_a) == labels, np.asarray(predictions_b) == labels
    per_row = correct_a.astype(float) - correct_b.astype(float)
    low, high = difference_interval(per_row)
    p = mcnemar_p(correct_a, correct_b)
    difference = float(per_row.mean())
    gained, lost = int((per_row > 0).sum()), int((per_row < 0).sum())
    facts = (
        f"{100 * difference:+.1f} points on {len(labels)} rows, "
        f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}, McNemar p = {p:.2g}, {gained} rows gained, {lost} lost"
    )
    if p < 0.05 and low > 0:
        text = f"{name_a} is better than {name_b} ({facts})"
    elif p < 0.05 and high < 0:
        text = f"{name_a} is worse than {name_b} ({facts})"
    else:
        visible = minimum_detectable_effect(len(labels), (gained + lost) / len(labels))
        text = f"no evidence of a difference between {name_a} and {name_b} ({facts}); "
        text += "too few rows: " if visible > TOO_COARSE else ""
        text += f"these rows could show a difference of {100 * visible:.1f} points or more"
    return Comparison(len(labels), difference, (low, high), p, gained, lost, text)


def difference_interval(per_row: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean of paired differences (-1, 0 or 1): bootstrap, and never of width 0.

    Where no row differs, the largest share of differing rows that 0 of so many would still allow at 95 % bounds it.
    """
    if (per_row == per_row[0]).all():
        slack = float(1 - 0.05 ** (1 / len(per_row)))
        return max(-1.0, float(per_row[0]) - slack), min(1.0, float(per_row[0]) + slack)
    return bootstrap_interval(per_row)


# --- over several seeds -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedsComparison:
    """A paired comparison over seeds; differences are in accuracy, as fractions."""

    by_seed: dict[int, float]  # accuracy of a minus accuracy of b
    difference: float  # their mean
    interval95: tuple[float, float]  # seeds and rows drawn again
    text: str  # the verdict, one sentence


def paired_over_seeds(
    correct_a: dict[int, np.ndarray], correct_b: dict[int, np.ndarray], name_a: str, name_b: str
) -> SeedsComparison:
    """Does the way of training `a` beat `b`? Right/wrong answers [rows] by seed; the seeds that both have count.

    The interval is a hierarchical bootstrap: seeds are drawn again, and rows, the same for every seed. (Three seeds
    on the same 1,000 rows are no 3,000 rows; and three seeds are few, so it is wide.) Raises UserError where there
    is no common seed.
    """
    seeds = sorted(set(correct_a) & set(correct_b))
    if not seeds:
        raise UserError(f"no seed has both {name_a!r} and {name_b!r}")
    table = np.array([correct_a[seed].astype(float) - correct_b[seed].astype(float) for seed in seeds])
    by_seed = {int(seed): float(row.mean()) for seed, row in zip(seeds, table, strict=True)}
    low, high = hierarchical_interval(table)
    verdict = "is better than" if low > 0 else "is worse than" if high < 0 else "shows no evidence of a difference from"
    each = ", ".join(f"{100 * value:+.1f}" for value in by_seed.values())
    text = (
        f"{name_a} {verdict} {name_b}: {100 * table.mean():+.1f} points over {len(seeds)} seeds ({each}), "
        f"95 % interval over seeds and rows {100 * low:+.1f} to {100 * high:+.1f}"
    )
    return SeedsComparison(by_seed, float(table.mean()), (low, high), text)


def hierarchical_interval(table: np.ndarray, resamples: int = 4999, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of [seeds, rows], both drawn again with replacement."""
    draw = np.random.default_rng(seed)
    seeds, rows = table.shape
    if (table == table.flat[0]).all():
        return difference_interval(table[0])
    of_seeds = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    of_rows = draw.multinomial(rows, np.full(rows, 1 / rows), size=resamples) / rows
    means = np.einsum("bs,sr,br->b", of_seeds, table, of_rows, optimize=True)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def over_seeds(runs: list[dict], predictions: list[pd.DataFrame]) -> dict:
    """The summary of several runs' metrics.json and predictions.csv: means, spread, and one verdict over seeds."""
    names = [name for name in NAMES if name in runs[0]]
    scores = {name: np.array([run[name]["test_accuracy"] for run in runs]) for name in names}
    summary = {
        "recipe": runs[0]["recipe"],
        "mean": {name: float(values.mean()) for name, values in scores.items()},
        "spread": {name: float(values.std(ddof=1)) for name, values in scores.items()},
        "share_of_teacher": float(scores["student"].mean() / scores["teacher"].mean()),
        "runs": runs,
    }
    if "control" in scores:
        right = {
            name: {
                run["seed"]: (table[name] == table["label"]).to_numpy()
                for run, table in zip(runs, predictions, strict=True)
            }
            for name in ("student", "control")
        }
        found = paired_over_seeds(right["student"], right["control"], NAMES["student"], NAMES["control"])
        summary["verdict"] = {"by_seed": found.by_seed, "difference": found.difference, "text": found.text}
        summary["verdict"]["interval95"] = found.interval95
    return summary


# --- the card ---------------------------------------------------------------------------------------------------


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
        return f"{self.table().T.to_string()}\n\nVerdict: {self.comparison.text}."

    def _repr_html_(self) -> str:
        return f"{self.table().T.to_html(border=0)}<p><b>Verdict:</b> {self.comparison.text}.</p>"


def score_table(scores: dict[str, dict]) -> pd.DataFrame:
    """Scores as `score` returns them, written as text: a row a model, a column a score."""
    rows = {
        name: {
            heading: "" if values[key] is None else write(values[key])
            for key, (heading, write) in COLUMNS.items()
            if key in values
        }
        for name, values in scores.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def compare(
    logits: dict[str, np.ndarray], labels: np.ndarray, a: str = "student", b: str = "control", teacher: str = "teacher"
) -> Card:
    """Score every model and judge `a` against `b`; fidelity is to the model called `teacher`, where there is one.

    `logits` maps names to float arrays [rows, classes], `labels` are class ids [rows], every row labelled. Raises
    UserError for names that are not there, other numbers of rows, logits that are not finite, or rows without a
    label.
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
    if len(labels) == 0 or labels.min() < 0:
        raise UserError("every row needs a label to be compared on: leave the unlabelled ones out")
    scores = {name: score(values, labels, logits.get(teacher)) for name, values in logits.items()}
    predictions = {name: values.argmax(-1) for name, values in logits.items()}
    verdict = paired(predictions[a], predictions[b], labels, NAMES.get(a, a), NAMES.get(b, b))
    return Card(scores, verdict)


def gained_and_lost(texts, labels, predictions_a, predictions_b, label_names: list[str], rows: int = 5) -> pd.DataFrame:
    """Texts that only `a` gets right (gained) and that only `b` gets right (lost), up to `rows` of each."""
    right_a, right_b = np.asarray(predictions_a) == labels, np.asarray(predictions_b) == labels
    found = [("gained", i) for i in np.flatnonzero(right_a & ~right_b)[:rows]]
    found += [("lost", i) for i in np.flatnonzero(right_b & ~right_a)[:rows]]
    return pd.DataFrame(
        [{"": kind, "label": label_names[labels[i]], "text": texts[int(i)]} for kind, i in found],
        columns=["", "label", "text"],
    )
