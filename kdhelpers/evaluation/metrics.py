"""Scores of one model, with their uncertainty: logits are float arrays [rows, classes], labels class ids [rows]."""

from typing import Any

import datasets
import evaluate
import numpy as np
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import EvalPrediction


class ClassificationMetrics(evaluate.Metric):
    """Accuracy, macro F1 and MCC as one `evaluate` metric; it needs no download, where `evaluate.load` would."""

    def _info(self) -> evaluate.MetricInfo:
        ids = dict.fromkeys(("predictions", "references"), datasets.Value("int64"))
        return evaluate.MetricInfo(self.__doc__, "", datasets.Features(ids), "predictions and references: class ids")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "f1_macro": float(f1_score(references, predictions, average="macro")),
            "mcc": float(matthews_corrcoef(references, predictions)),
        }


def classification_metrics(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`accuracy`, `f1_macro` and `mcc` of class ids [rows]; rows without a label (below 0) are left out."""
    known = labels >= 0
    metric = ClassificationMetrics(keep_in_memory=True)
    return metric.compute(predictions=predictions[known], references=labels[known])


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """What Trainer calls after each evaluation."""
    return classification_metrics(prediction.predictions.argmax(-1), prediction.label_ids)


def score(logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None) -> dict[str, Any]:
    """All scores of one model; those about labels only where rows have one, those about the teacher given its logits.

    `accuracy` with `interval95` (Wilson), `f1_macro`, `mcc`, `ece`; `agreement` with the teacher, on all rows and on
    those where the teacher is right or wrong (None without such rows); `mean_kl` to it.
    """
    known = labels >= 0
    predictions = logits.argmax(-1)
    values: dict[str, Any] = {}
    if known.any():
        values |= classification_metrics(predictions, labels)
        values["interval95"] = wilson_interval((predictions == labels)[known])
        values["ece"] = expected_calibration_error(logits[known], labels[known])
    if teacher_logits is not None and teacher_logits is not logits:
        teacher = teacher_logits.argmax(-1)
        values["agreement"] = agreement(predictions, teacher)
        for name, rows in (("right", known & (teacher == labels)), ("wrong", known & (teacher != labels))):
            if known.any():
                values[f"agreement_{name}"] = agreement(predictions[rows], teacher[rows]) if rows.any() else None
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


def agreement(predictions_a: np.ndarray, predictions_b: np.ndarray) -> float:
    """Share of rows on which two models say the same, right or wrong (fidelity, Stanton et al. 2021)."""
    return float(np.mean(np.asarray(predictions_a) == np.asarray(predictions_b)))


def mean_kl(logits: np.ndarray, teacher_logits: np.ndarray) -> float:
    """Mean KL(teacher || model) at temperature 1, in nats a row; 0 for a perfect copy."""
    teacher, model = log_softmax(teacher_logits, axis=-1), log_softmax(logits, axis=-1)
    return float(np.mean(np.sum(np.exp(teacher) * (teacher - model), axis=-1)))


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """ECE: the gap between confidence and accuracy, averaged over equal-width bins of confidence (Guo et al. 2017)."""
    probabilities = softmax(logits, axis=-1)
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(bin_of, confidence - correct)).sum() / len(labels))
