"""Scores of one model, with their uncertainty.

Predictions are integer arrays [rows], logits float arrays [rows, classes], labels class ids [rows].
"""

import datasets
import evaluate
import numpy as np
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


class ClassificationMetrics(evaluate.Metric):
    """Accuracy, macro F1 and MCC as one `evaluate` metric; it needs no download, where `evaluate.load` would."""

    def _info(self):
        ints = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description="predictions and references: class ids",
            features=datasets.Features({"predictions": ints, "references": ints}),
        )

    def _compute(self, predictions, references):
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "f1_macro": float(f1_score(references, predictions, average="macro")),
            "mcc": float(matthews_corrcoef(references, predictions)),
        }


def compute_metrics(prediction) -> dict[str, float]:
    """What Trainer calls after each evaluation; rows without a label are left out."""
    known = prediction.label_ids >= 0
    return ClassificationMetrics(keep_in_memory=True).compute(
        predictions=prediction.predictions.argmax(-1)[known], references=prediction.label_ids[known]
    )


def score(logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None) -> dict:
    """All scores of one model on labelled rows; those about the teacher only where its logits are given.

    `accuracy` with `interval95` (Wilson), `f1_macro`, `mcc`, `ece`; `agreement` with the teacher, on all rows and on
    those where the teacher is right or wrong; `mean_kl` to it.
    """
    predictions = logits.argmax(-1)
    values = ClassificationMetrics(keep_in_memory=True).compute(predictions=predictions, references=labels)
    values["interval95"] = wilson_interval(predictions == labels)
    values["ece"] = expected_calibration_error(logits, labels)
    if teacher_logits is not None and teacher_logits is not logits:
        teacher = teacher_logits.argmax(-1)
        values["agreement"] = agreement(predictions, teacher)
        values["agreement_right"] = agreement_where(predictions, teacher, teacher == labels)
        values["agreement_wrong"] = agreement_where(predictions, teacher, teacher != labels)
        values["mean_kl"] = mean_kl(logits, teacher_logits)
    return values


def wilson_interval(correct: np.ndarray) -> tuple[float, float]:
    """95 % interval of an accuracy from right/wrong answers [rows] (Wilson 1927); never of width 0.

    >>> low, high = wilson_interval(np.ones(100, bool))
    >>> round(low, 3), high
    (0.963, 1.0)
    """
    found = stats.binomtest(int(np.sum(correct)), len(correct)).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def bootstrap_interval(values: np.ndarray, seed: int = 0, resamples: int = 9999) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of per-row values (Efron and Tibshirani 1993)."""
    values = np.asarray(values, dtype=float)
    if values.min() == values.max():  # nothing varies: scipy would warn and give NaN
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, method="percentile", batch=500, rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def agreement(predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Share of rows on which two models say the same, right or wrong (fidelity, Stanton et al. 2021)."""
    return float(np.mean(np.asarray(predictions_a) == np.asarray(predictions_b)))


def agreement_where(predictions: np.ndarray, teacher: np.ndarray, rows: np.ndarray) -> float | None:
    """Agreement with the teacher on a choice of rows (boolean [rows]); None where there is no such row."""
    return agreement(np.asarray(predictions)[rows], np.asarray(teacher)[rows]) if rows.any() else None


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
