"""Traps 29 and 30's arithmetic, and the metrics."""

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from kdhelpers import evaluation, report
from kdhelpers.plots import accuracy_against_parameters, save


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 2, 1000)


def flip(labels, rows):
    out = labels.copy()
    out[rows] = 1 - out[rows]
    return out


def test_metrics_need_no_download_and_are_right(labels):
    predictions = flip(labels, slice(0, 200))
    scores = evaluation.classification_metrics().compute(predictions=predictions, references=labels)
    assert scores["accuracy"] == 0.8
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(labels, predictions))
    assert set(scores) == {"accuracy", "f1_macro", "mcc"}


def test_interval_has_the_binomial_width():
    correct = np.arange(1000) < 800
    low, high = evaluation.bootstrap_interval(correct)
    assert low == pytest.approx(0.775, abs=0.004)
    assert high == pytest.approx(0.825, abs=0.004)
    assert evaluation.bootstrap_interval(np.ones(10)) == (1.0, 1.0)


def test_mcnemar_is_the_exact_binomial_test():
    a = np.array([True] * 9 + [False] + [True] * 90)
    b = np.array([False] * 9 + [True] + [True] * 90)
    assert evaluation.mcnemar_p(a, b) == pytest.approx(2 * (1 + 10) / 2**10)
    assert evaluation.mcnemar_p(a, a) == 1.0


def test_trap_30_identical_models_give_no_evidence(labels):
    result = evaluation.paired(labels, labels, labels)
    assert result.text.startswith("no evidence of a difference")
    assert (result.difference, result.mcnemar_p, result.gained, result.lost) == (0.0, 1.0, 0, 0)


def test_trap_30_one_sentence_of_872_is_no_evidence():
    """The whole gain of a published 2-layer student on SST-2: 83.72 -> 83.83."""
    labels = np.zeros(872, dtype=int)
    control, student = flip(labels, slice(0, 142)), flip(labels, slice(0, 141))
    result = evaluation.paired(student, control, labels)
    assert result.gained == 1
    assert result.text.startswith("no evidence")


def test_a_real_gain_and_a_real_loss_are_called_so(labels):
    worse, better = flip(labels, slice(0, 250)), flip(labels, slice(0, 180))
    assert "is better than" in evaluation.paired(better, worse, labels).text
    assert "is worse than" in evaluation.paired(worse, better, labels).text


def test_trap_30_rows_are_paired(labels):
    """Same accuracies, other rows: the paired test must see the difference in overlap."""
    a = flip(labels, slice(0, 180))
    nested, apart = flip(labels, slice(0, 210)), flip(labels, slice(500, 710))
    assert evaluation.paired(a, nested, labels).mcnemar_p < 0.001
    assert evaluation.paired(a, apart, labels).mcnemar_p > 0.1


def test_agreement(labels):
    assert evaluation.agreement(labels, flip(labels, slice(0, 100))) == 0.9


@pytest.fixture
def metrics():
    def model(parameters, accuracy):
        return {
            "parameters": parameters,
            "layers": 3,
            "test_accuracy": accuracy,
            "test_accuracy_interval95": (accuracy - 0.02, accuracy + 0.02),
            "train_seconds": 10.0,
        }

    return {
        "rows": {"labelled": 2000, "unlabelled": 6000, "validation": 1000, "test": 1000},
        "test_rows": "test",
        "teacher": model(22_713_986, 0.84),
        "control": model(17_390_594, 0.79),
        "student": model(17_390_594, 0.83) | {"teacher_logits_seconds": 12.0},
        "verdict": {"text": "the student is better"},
    }


def test_the_table_says_what_was_measured(metrics, tmp_path):
    text = "\n".join(report.result_lines(metrics, tmp_path))
    for wanted in (
        "22,713,986",
        "83.0 %",
        "81.0 to 85.0",
        "2,000 labels + 6,000 texts",
        "98.8 %",
        "Verdict: the student",
    ):
        assert wanted in text


def test_the_figure_is_drawn_without_a_display(metrics, tmp_path):
    figure = accuracy_against_parameters(metrics)
    axis = figure.axes[0]
    assert "%" in axis.get_ylabel()
    assert "millions" in axis.get_xlabel()
    path = save(figure, tmp_path / "figure.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
