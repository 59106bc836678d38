"""Scores of one model, with their uncertainty: logits are float arrays [rows, classes], labels class ids [rows].

Of several labels at once labels are 0 and 1 [rows, labels]; of a number, logits are [rows, 1] and labels [rows].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy import stats
from scipy.special import log_expit, log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, mean_absolute_error, root_mean_squared_error
from transformers import EvalPrediction

from kdhelpers.data import Task, has_label, predictions


@dataclass(frozen=True)
class Measure:
    """The score that a task's models are chosen, drawn and summed up by."""

    key: str  # in what `score` returns
    name: str
    interval: str = "interval95"  # the key of its 95 % interval
    percent: bool = True  # a fraction that is written in percent, the higher the better; else a distance

    def shown(self, value: float) -> str:
        """As text: 83.4 %, or 0.812."""
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3f}"


MEASURES = {
    Task.ONE: Measure("accuracy", "accuracy"),
    Task.SEVERAL: Measure("f1_micro", "micro F1"),
    Task.NUMBER: Measure("rmse", "RMSE", "rmse_interval95", percent=False),
}


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


def classification_metrics(said: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`accuracy`, `f1_macro` and `mcc` of class ids [rows]; rows without a label (below 0) are left out."""
    known = labels >= 0
    metric = ClassificationMetrics(keep_in_memory=True)
    return metric.compute(predictions=said[known], references=labels[known])


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """What Trainer calls after each evaluation."""
    return classification_metrics(prediction.predictions.argmax(-1), prediction.label_ids)


def metrics_for(task: Task) -> Callable[[EvalPrediction], dict[str, float]]:
    """`compute_metrics` of a task: what Trainer calls, and chooses checkpoints by the `MEASURES` of."""
    return compute_metrics if task is Task.ONE else partial(_task_metrics, task)


def _task_metrics(task: Task, prediction: EvalPrediction) -> dict[str, float]:
    of_task = label_metrics if task is Task.SEVERAL else number_metrics
    return of_task(predictions(prediction.predictions, task), prediction.label_ids)


def label_metrics(said: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """`f1_micro`, `f1_macro`, `exact_match` of all of a row's labels, and `label_accuracy`; 0 and 1 [rows, labels]."""
    alone = labels.shape[-1] == 1  # scikit-learn would take it for two classes
    kinds = {kind: "binary" if alone else kind for kind in ("micro", "macro")}
    f1 = {f"f1_{kind}": float(f1_score(labels, said, average=how, zero_division=0)) for kind, how in kinds.items()}
    return f1 | {"exact_match": agreement(said, labels), "label_accuracy": float((said == labels).mean())}


def rmse(said: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square error of numbers, [rows] or [rows, 1]."""
    return float(root_mean_squared_error(wanted, said))


def number_metrics(said: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """`rmse`, `mae`, and the correlations `pearson` and `spearman` (None where all numbers are the same), of [rows]."""
    values: dict[str, Any] = {"rmse": rmse(said, labels), "mae": float(mean_absolute_error(labels, said))}
    varied = len(labels) > 1 and np.ptp(said) > 0 and np.ptp(labels) > 0
    for name, correlation in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        values[name] = float(correlation(said, labels).statistic) if varied else None
    return values


def bootstrapped(statistic: Callable, *columns: np.ndarray) -> tuple[float, float] | None:
    """95 % bootstrap percentiles over rows of `statistic(*columns, axis=)` (Efron and Tibshirani 1993); None of one."""
    if len(columns[0]) < 2:
        return None
    found = stats.bootstrap(
        columns, statistic, paired=True, vectorized=True, n_resamples=1999, batch=100, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _micro_f1(hits: np.ndarray, said: np.ndarray, true: np.ndarray, axis: int) -> np.ndarray:
    """From a row's right labels, those said and those true: 2 * hits / (said + true)."""
    return 2 * hits.sum(axis) / np.maximum(said.sum(axis) + true.sum(axis), 1)


def _of_classes(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    said = logits.argmax(-1)
    values: dict[str, Any] = classification_metrics(said, labels) | {"interval95": wilson_interval(said == labels)}
    return values | {"ece": expected_calibration_error(logits, labels)}


def _of_labels(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    said = predictions(logits, Task.SEVERAL)
    values = label_metrics(said, labels)
    values["interval95"] = bootstrapped(_micro_f1, (said * labels).sum(-1), said.sum(-1), labels.sum(-1))
    return values | {"exact_interval95": wilson_interval(same_rows(said, labels))}


def _of_numbers(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    error = logits[:, 0].astype(float) - labels
    squared = bootstrapped(np.mean, error**2)
    return number_metrics(logits[:, 0], labels) | {"rmse_interval95": squared and tuple(np.sqrt(squared).tolist())}


SCORES = {Task.ONE: _of_classes, Task.SEVERAL: _of_labels, Task.NUMBER: _of_numbers}


def score(
    logits: np.ndarray, labels: np.ndarray, teacher_logits: np.ndarray | None = None, task: Task = Task.ONE
) -> dict[str, Any]:
    """All scores of one model; those about labels only where rows have one, those about the teacher given its logits.

    One label: `accuracy` with `interval95` (Wilson), `f1_macro`, `mcc`, `ece`; `agreement` with the teacher, on all
    rows and on those where the teacher is right or wrong (None without such rows); `mean_kl` to it. Several: what
    `label_metrics` has, with `interval95` of micro F1 (bootstrap) and `exact_interval95` (Wilson); agreement is that of
    all of a row's labels. A number: `number_metrics`, `rmse_interval95` (bootstrap), and `rmse_to_teacher`.
    """
    known = has_label(labels)
    values = SCORES[task](logits[known], labels[known]) if known.any() else {}
    if teacher_logits is None or teacher_logits is logits:
        return values
    if task is Task.NUMBER:
        return values | {"rmse_to_teacher": rmse(logits, teacher_logits)}
    said, teacher = predictions(logits, task), predictions(teacher_logits, task)
    values["agreement"], right = agreement(said, teacher), same_rows(teacher, labels)
    for name, rows in (("right", known & right), ("wrong", known & ~right)):
        if known.any():
            values[f"agreement_{name}"] = agreement(said[rows], teacher[rows]) if rows.any() else None
    return values | {"mean_kl": mean_kl(logits, teacher_logits, task)}


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
    return float(np.mean(same_rows(predictions_a, predictions_b)))


def same_rows(predictions_a: np.ndarray, predictions_b: np.ndarray) -> np.ndarray:
    """Where two of class ids [rows], or of 0 and 1 [rows, labels], are the same: booleans [rows]."""
    same = np.asarray(predictions_a) == np.asarray(predictions_b)
    return same if same.ndim == 1 else same.all(-1)


def mean_kl(logits: np.ndarray, teacher_logits: np.ndarray, task: Task = Task.ONE) -> float:
    """Mean KL(teacher || model) at temperature 1, in nats a row, summed over several labels; 0 for a perfect copy."""
    both = (teacher_logits, logits)
    if task is Task.SEVERAL:  # a label is there or not: two outcomes each
        teacher, model = (np.concatenate([log_expit(each), log_expit(-each)], axis=-1) for each in both)
    else:
        teacher, model = (log_softmax(each, axis=-1) for each in both)
    return float(np.mean(np.sum(np.exp(teacher) * (teacher - model), axis=-1)))


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """ECE: the gap between confidence and accuracy, averaged over equal-width bins of confidence (Guo et al. 2017)."""
    probabilities = softmax(logits, axis=-1)
    confidence, correct = probabilities.max(-1), probabilities.argmax(-1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(bin_of, confidence - correct)).sum() / len(labels))
