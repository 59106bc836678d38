"""Scores of one model, their intervals, and the paired test's arithmetic."""

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from kdhelpers import evaluation
from kdhelpers.evaluation.metrics import ClassificationMetrics


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 2, 1000)


def flip(labels, rows):
    out = labels.copy()
    out[rows] = 1 - out[rows]
    return out


def test_metrics_need_no_download_and_are_right(labels):
    predictions = flip(labels, slice(0, 200))
    scores = ClassificationMetrics(keep_in_memory=True).compute(predictions=predictions, references=labels)
    assert scores["accuracy"] == 0.8
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(labels, predictions))
    assert set(scores) == {"accuracy", "f1_macro", "mcc"}


def test_interval_has_the_binomial_width():
    correct = np.arange(1000) < 800
    for low, high in (evaluation.bootstrap_interval(correct), evaluation.wilson_interval(correct)):
        assert low == pytest.approx(0.775, abs=0.004)
        assert high == pytest.approx(0.825, abs=0.004)


def test_a_perfect_score_is_not_certain():
    low, high = evaluation.wilson_interval(np.ones(30, bool))
    assert 0.85 < low < 0.92
    assert high == 1.0
    assert evaluation.wilson_interval(np.zeros(30, bool))[0] == 0.0


def test_mcnemar_is_the_exact_binomial_test():
    a = np.array([True] * 9 + [False] + [True] * 90)
    b = np.array([False] * 9 + [True] + [True] * 90)
    assert evaluation.mcnemar_p(a, b) == pytest.approx(2 * (1 + 10) / 2**10)
    assert evaluation.mcnemar_p(a, a) == 1.0


def test_identical_models_give_no_evidence(labels):
    result = evaluation.paired(labels, labels, labels)
    assert result.text.startswith("no evidence of a difference")
    assert (result.difference, result.mcnemar_p, result.gained, result.lost) == (0.0, 1.0, 0, 0)


def test_one_sentence_of_872_is_no_evidence():
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


def test_rows_are_paired(labels):
    """Same accuracies, other rows: the paired test must see the difference in overlap."""
    a = flip(labels, slice(0, 180))
    nested, apart = flip(labels, slice(0, 210)), flip(labels, slice(500, 710))
    assert evaluation.paired(a, nested, labels).mcnemar_p < 0.001
    assert evaluation.paired(a, apart, labels).mcnemar_p > 0.1


def test_agreement(labels):
    assert evaluation.agreement(labels, flip(labels, slice(0, 100))) == 0.9
