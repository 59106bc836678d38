"""Scores, verdicts and the teacher's gate for several labels at once and for a number."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from kdhelpers import evaluation
from kdhelpers.data import Task
from kdhelpers.errors import UserError

DRAW = np.random.default_rng(1)
LABELS = (DRAW.random((200, 3)) < (0.2, 0.5, 0.7)).astype(float)
GOOD, FAIR = (4 * (LABELS - 0.5) + DRAW.normal(scale=scale, size=(200, 3)) for scale in (1.5, 4))
TRUTH = DRAW.normal(size=200)
NEAR, FAR = (TRUTH[:, None] + DRAW.normal(scale=scale, size=(200, 1)) for scale in (0.3, 1.5))


def test_several_labels_are_scored_as_scikit_learn_does():
    found, said = evaluation.score(GOOD, LABELS, FAIR, Task.SEVERAL), (GOOD > 0).astype(int)
    assert found["f1_micro"] == pytest.approx(metrics.f1_score(LABELS, said, average="micro"))
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(LABELS, said, average="macro"))
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(LABELS, said))
    assert found["label_accuracy"] == pytest.approx(1 - metrics.hamming_loss(LABELS, said))
    assert found["exact_interval95"] == evaluation.wilson_interval((said == LABELS).all(1))
    low, high = found["interval95"]
    assert low < found["f1_micro"] < high < low + 0.15
    assert found["agreement"] == pytest.approx(((GOOD > 0) == (FAIR > 0)).all(1).mean())
    p, q = (1 / (1 + np.exp(-value)) for value in (FAIR, GOOD))
    by_hand = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1).mean()
    assert found["mean_kl"] == pytest.approx(by_hand)
    assert evaluation.mean_kl(GOOD, GOOD, Task.SEVERAL) == pytest.approx(0)


def test_numbers_are_scored_as_scipy_and_scikit_learn_do():
    found, said = evaluation.score(NEAR, TRUTH, FAR, Task.NUMBER), NEAR[:, 0]
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(TRUTH, said))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(TRUTH, said))
    assert found["pearson"] == pytest.approx(stats.pearsonr(TRUTH, said).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(TRUTH, said).statistic)
    assert found["rmse_to_teacher"] == pytest.approx(metrics.root_mean_squared_error(FAR, NEAR))
    low, high = found["rmse_interval95"]
    assert low < found["rmse"] < high < low + 0.1


def test_rows_without_a_label_are_left_out_and_constant_numbers_have_no_correlation():
    some = np.where(np.arange(200) < 50, TRUTH, np.nan)
    assert evaluation.score(NEAR, some, task=Task.NUMBER)["rmse"] == pytest.approx(
        evaluation.score(NEAR[:50], TRUTH[:50], task=Task.NUMBER)["rmse"]
    )
    assert evaluation.score(NEAR, np.full(200, np.nan), task=Task.NUMBER) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluation.score(np.ones((200, 1)), TRUTH, task=Task.NUMBER)["pearson"] is None


@pytest.mark.parametrize(
    ("task", "labels", "good", "fair"), [(Task.SEVERAL, LABELS, GOOD, FAIR), (Task.NUMBER, TRUTH, NEAR, FAR)]
)
def test_a_better_student_is_found_and_two_equal_ones_are_no_evidence(task, labels, good, fair):
    better = evaluation.compare({"student": good, "control": fair}, labels, task=task)
    assert "the distilled student is better than the control" in better.comparison.text
    worse = evaluation.compare({"student": fair, "control": good}, labels, task=task)
    assert "the distilled student is worse than the control" in worse.comparison.text
    assert worse.comparison.difference == pytest.approx(-better.comparison.difference)
    equal = evaluation.compare({"student": good, "control": good.copy()}, labels, task=task)
    assert "no evidence of a difference" in equal.comparison.text
    assert equal.comparison.difference == 0
    assert ("RMSE" if task is Task.NUMBER else "points of exact match") in str(better)


def test_a_difference_in_rmse_has_the_interval_that_resampling_pairs_gives():
    squares = [(said[:, 0] - TRUTH) ** 2 for said in (NEAR, FAR)]
    found = stats.bootstrap(
        squares, lambda a, b, axis: np.sqrt(a.mean(axis)) - np.sqrt(b.mean(axis)), paired=True, n_resamples=1999,
        method="percentile", rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    ours = evaluation.paired_numbers(NEAR[:, 0], FAR[:, 0], TRUTH).interval95
    np.testing.assert_allclose(ours, found, atol=0.02)


def test_a_verdict_over_seeds_of_numbers_is_in_rmse():
    near, far = ({seed: (said[:, 0] - TRUTH + seed / 100) ** 2 for seed in (1, 2, 3)} for said in (NEAR, FAR))
    found = evaluation.paired_over_seeds(near, far, "near", "far", Task.NUMBER)
    assert found.text.startswith("near is better than far: -1.")
    assert "RMSE over 3 seeds" in found.text
    assert "no evidence" in evaluation.paired_over_seeds(near, near, "near", "near", Task.NUMBER).text


@pytest.mark.parametrize(("task", "labels", "good"), [(Task.SEVERAL, LABELS, GOOD), (Task.NUMBER, TRUTH, NEAR)])
def test_a_teacher_that_guesses_is_refused_and_a_perfect_one_passes(task, labels, good):
    names, shuffled = ["a", "b", "c"], np.random.default_rng(3).permutation(good)
    assert evaluation.check_teacher(good, labels, names, task=task) > 0
    for guesses in (shuffled, np.full_like(good, 0.1), -good):
        with pytest.raises(UserError, match="not shown to be better than guessing.*--accept-teacher"):
            evaluation.check_teacher(guesses, labels, names, task=task)
        evaluation.check_teacher(guesses, labels, names, accept=True, task=task)
    perfect = labels.reshape(200, -1) - 0.5 if task is Task.SEVERAL else labels[:, None]
    evaluation.check_teacher(perfect, labels, names, task=task)
    evaluation.check_teacher(shuffled[:2], labels[:2], names, task=task)  # too few to tell
    assert np.isnan(evaluation.check_teacher(good, np.full_like(labels, np.nan), names, task=task))


def test_a_teacher_on_another_scale_is_remarked_on(caplog):
    caplog.set_level("INFO", logger="kdhelpers")
    evaluation.check_teacher(10 * NEAR + 50, TRUTH, ["n"], task=Task.NUMBER)
    assert "another scale" in caplog.text


@pytest.mark.parametrize("task", [Task.SEVERAL, Task.NUMBER])
def test_the_table_shows_the_scores_of_its_task_only(task):
    logits, labels = (GOOD, LABELS) if task is Task.SEVERAL else (NEAR, TRUTH)
    table = evaluation.score_table({"student": evaluation.score(logits, labels, task=task)})
    several = ["micro F1", "95 % interval", "exact match", "its 95 % interval", "label accuracy", "macro F1"]
    assert list(table.columns) == (
        several if task is Task.SEVERAL else ["RMSE", "95 % interval", "MAE", "Pearson", "Spearman"]
    )
    assert isinstance(table, pd.DataFrame)


@pytest.mark.parametrize(("task", "logits", "labels"), [(Task.SEVERAL, GOOD, LABELS), (Task.NUMBER, NEAR, TRUTH)])
def test_a_single_row_has_no_bootstrap_interval_and_is_drawn_without(task, logits, labels, tmp_path):
    scores = evaluation.score(logits[:1], labels[:1], task=task)
    assert scores[evaluation.MEASURES[task].interval] is None
    student = {"parameters": 1e6} | {f"test_{name}": value for name, value in scores.items()}
    evaluation.draw_result({"task": task, "student": student}, tmp_path / "result.png")
    assert (tmp_path / "result.png").is_file()


def test_a_single_label_of_several_is_scored_by_its_hits():
    said, labels = np.array([[1], [0], [1], [0], [0]]), np.array([[1.0], [1.0], [0.0], [0.0], [0.0]])
    assert evaluation.score(np.where(said == 1, 1.0, -1.0), labels, task=Task.SEVERAL)["f1_micro"] == pytest.approx(
        0.5
    ), "2 * 1 hit of 2 said and 2 true"
