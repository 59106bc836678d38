"""Scores with their uncertainty, and whether one model is really better than another.

Predictions are integer arrays [rows]; all comparisons pair two models row by row.
"""

from dataclasses import dataclass

import datasets
import evaluate
import numpy as np
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

TOO_COARSE = 0.05  # a split that shows only larger differences than this (as a fraction) is called too small


class _LocalMetric(evaluate.Metric):
    """An `evaluate` metric that needs no download: `evaluate.load` would fetch a script from the Hub."""

    def _info(self):
        ints = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description="predictions and references: class ids",
            features=datasets.Features({"predictions": ints, "references": ints}),
        )


class Accuracy(_LocalMetric):
    """Share of rows whose class is right."""

    def _compute(self, predictions, references):
        return {"accuracy": float(accuracy_score(references, predictions))}


class F1Macro(_LocalMetric):
    """F1 of each class, averaged with equal weight."""

    def _compute(self, predictions, references):
        return {"f1_macro": float(f1_score(references, predictions, average="macro"))}


class Matthews(_LocalMetric):
    """Matthews correlation: 0 for guessing, 1 for perfect, whatever the balance of the classes."""

    def _compute(self, predictions, references):
        return {"mcc": float(matthews_corrcoef(references, predictions))}


def classification_metrics() -> evaluate.CombinedEvaluations:
    """Accuracy, macro F1 and MCC as one `evaluate` object: `.compute(predictions=, references=)`."""
    return evaluate.combine([metric(keep_in_memory=True) for metric in (Accuracy, F1Macro, Matthews)])


def compute_metrics(prediction) -> dict[str, float]:
    """What Trainer calls after each evaluation; rows without a label are left out."""
    known = prediction.label_ids >= 0
    return classification_metrics().compute(
        predictions=prediction.predictions.argmax(-1)[known], references=prediction.label_ids[known]
    )


def bootstrap_interval(values: np.ndarray, seed: int = 0, resamples: int = 9999) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of per-row values (Efron and Tibshirani 1993)."""
    values = np.asarray(values, dtype=float)
    if values.min() == values.max():  # nothing varies: scipy would warn and give NaN
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, method="percentile", batch=500, rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def mcnemar_p(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Exact two-sided McNemar test on paired right/wrong answers; 1.0 where no row tells the models apart."""
    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(correct_b & ~correct_a))
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def agreement(predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Share of rows on which two models say the same, right or wrong (fidelity, Stanton et al. 2021)."""
    return float(np.mean(np.asarray(predictions_a) == np.asarray(predictions_b)))


def agreement_where(predictions: np.ndarray, teacher: np.ndarray, rows: np.ndarray) -> float:
    """Agreement with the teacher on a choice of rows (boolean [rows]); NaN where there is none."""
    return agreement(np.asarray(predictions)[rows], np.asarray(teacher)[rows]) if rows.any() else float("nan")


def mean_kl(logits: np.ndarray, teacher_logits: np.ndarray) -> float:
    """Mean KL(teacher || model) at temperature 1, in nats a row; 0 for a perfect copy."""
    teacher, model = log_softmax(teacher_logits, axis=-1), log_softmax(logits, axis=-1)
    return float(np.mean(np.sum(np.exp(teacher) * (teacher - model), axis=-1)))


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """ECE: the gap between confidence and accuracy, averaged over equal-width bins of confidence (Guo et al. 2017)."""
    probabilities = softmax(logits, axis=-1)
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs((correct[bin_of == b] - confidence[bin_of == b]).sum()) for b in range(bins)]
    return float(sum(gaps) / len(labels))


def smallest_difference(rows: int, disagreeing: float) -> float:
    """The smallest difference in accuracy that this many rows could show, as a fraction.

    `disagreeing` is the share of rows on which exactly one of two models is right. A true difference of this size
    is found four times in five at the 5 % level (the usual approximation for McNemar's test, Connor 1987, first
    order); and never less than 6 rows, since the exact test needs six, all one way, to fall below 5 %.
    """
    return max(6 / rows, (1.96 + 0.84) * (disagreeing / rows) ** 0.5)


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


def paired(
    predictions_a: np.ndarray,
    predictions_b: np.ndarray,
    labels: np.ndarray,
    name_a: str = "the distilled student",
    name_b: str = "the control without a teacher",
) -> Comparison:
    """Does `a` beat `b`, row by row? A verdict needs p < 0.05 in the exact McNemar test and an interval without 0.

    Where there is none, the text says the smallest difference that this many rows could show, and calls the rows
    too few where that is more than `TOO_COARSE`.
    """
    correct_a, correct_b = np.asarray(predictions_a) == labels, np.asarray(predictions_b) == labels
    per_row = correct_a.astype(float) - correct_b.astype(float)
    low, high = bootstrap_interval(per_row)
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
        visible = smallest_difference(len(labels), (gained + lost) / len(labels))
        text = f"no evidence of a difference between {name_a} and {name_b} ({facts}); "
        text += "too few rows: " if visible > TOO_COARSE else ""
        text += f"these rows could show a difference of {100 * visible:.1f} points or more"
    return Comparison(len(labels), difference, (low, high), p, gained, lost, text)
