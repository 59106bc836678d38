"""Two models row by row, over seeds, and the card."""

import numpy as np
import pytest
from scipy.special import softmax

from kdhelpers import evaluation
from kdhelpers.data import Task
from kdhelpers.errors import UserError


def logits_that_say(classes, margin=2.0):
    return np.stack([np.where(classes == 0, margin, -margin), np.where(classes == 1, margin, -margin)], -1) / 2.0


@pytest.fixture
def labels():
    return np.arange(1000) % 2


def wrong_on(labels, rows):
    changed = labels.copy()
    changed[rows] = 1 - changed[rows]
    return logits_that_say(changed)


def test_two_identical_models_show_no_evidence_of_a_difference(labels):
    same = wrong_on(labels, slice(0, 100))
    shown = evaluation.compare({"teacher": logits_that_say(labels), "control": same, "student": same}, labels)
    assert "no evidence of a difference" in str(shown)
    assert "no evidence of a difference" in shown._repr_html_()
    assert "too few rows" not in str(shown)
    assert "90.0 %" in str(shown)
    assert "<table" in shown._repr_html_()


def test_a_verdict_says_that_it_is_about_two_models(labels):
    shown = evaluation.compare({"student": logits_that_say(labels), "control": wrong_on(labels, slice(0, 99))}, labels)
    for said in (str(shown), shown._repr_html_()):
        verdict = said[said.index("Verdict") :]
        assert "is better than" in verdict
        assert "about these two models, not about two ways of training" in verdict


def test_too_few_rows_are_said_to_be_too_few(labels):
    few = labels[:40]
    shown = evaluation.compare({"student": wrong_on(few, slice(0, 4)), "control": wrong_on(few, slice(0, 9))}, few)
    assert "too few rows" in shown.comparison.text
    assert f"{100 * evaluation.minimum_detectable_effect(40, 5 / 40):.1f} points" in shown.comparison.text


def test_the_minimum_detectable_effect_is_found_four_times_in_five():
    """What the formula promises, simulated: 1,000 rows, a tenth of them told apart, difference as promised."""
    rows, disagreeing = 1000, 0.1
    difference = evaluation.minimum_detectable_effect(rows, disagreeing)
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        kind = draw.choice(3, rows, p=[(disagreeing + difference) / 2, (disagreeing - difference) / 2, 1 - disagreeing])
        a, b = np.array([1, 0, 1])[kind].astype(bool), np.array([0, 1, 1])[kind].astype(bool)
        found += evaluation.mcnemar_p(a, b) < 0.05
    assert 0.7 < found / 400 < 0.9, found / 400


@pytest.mark.parametrize(("count", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows")])
def test_one_row_is_no_rows(count, said):
    labels = np.ones(10, int)
    right = np.arange(10) < count
    assert f", {said} gained, 0 lost" in evaluation.paired(right.astype(int), np.zeros(10, int), labels).text
    of_numbers = evaluation.paired_numbers(right.astype(float), np.zeros(10), np.ones(10)).text
    assert f"closer on {said}, farther on 0" in of_numbers


def test_identical_rows_need_six_the_same_way():
    assert evaluation.mcnemar_p(np.ones(5, bool), np.zeros(5, bool)) > 0.05
    assert evaluation.mcnemar_p(np.ones(6, bool), np.zeros(6, bool)) < 0.05
    assert evaluation.minimum_detectable_effect(100, 0.0) == 0.06


@pytest.mark.parametrize("rows", [1, 5, 6])
def test_fewer_than_six_rows_carry_no_verdict_of_any_kind(rows):
    good, bad = np.ones(rows, int), np.zeros(rows, int)
    found = [evaluation.paired(good, bad, good).text, evaluation.paired_numbers(good, bad, good).text]
    over_seeds = [({1: good, 2: good}, {1: bad, 2: bad}, task) for task in (Task.ONE, Task.SEVERAL)]
    over_seeds.append(({1: bad, 2: bad}, {1: good, 2: good}, Task.NUMBER))  # squared errors
    found += [evaluation.paired_over_seeds(a, b, "a", "b", task).text for a, b, task in over_seeds]
    for text in found:
        assert ("is better than" in text) == (rows == 6)
        assert text.endswith("too few rows tell them apart: a verdict takes 6") == (rows < 6)
    assert evaluation.minimum_detectable_effect(rows, 1.0) == 1.0


def test_five_rows_of_a_thousand_are_no_verdict_over_seeds_either():
    a, b = right_in(0.805), right_in(0.8)
    assert evaluation.paired_over_seeds({1: a, 2: a}, {1: b, 2: b}, "a", "b").text.endswith("a verdict takes 6")


def test_fidelity_at_the_teachers_right_and_wrong_rows(labels):
    teacher = wrong_on(labels, slice(0, 200))
    student = wrong_on(labels, slice(0, 50))  # follows the teacher into a quarter of its mistakes
    scores = evaluation.compare({"teacher": teacher, "student": student, "control": student}, labels).scores["student"]
    assert scores["agreement"] == pytest.approx(0.85)
    assert scores["agreement_right"] == 1.0
    assert scores["agreement_wrong"] == pytest.approx(0.25)
    assert scores["mean_kl"] > 0
    assert evaluation.mean_kl(teacher, teacher) == pytest.approx(0)


def test_calibration_error(labels):
    wrong = wrong_on(labels, slice(0, 200))  # says 88 % everywhere, is right in 80 %
    confidence = softmax(wrong, -1).max()
    assert evaluation.expected_calibration_error(wrong, labels) == pytest.approx(confidence - 0.8, abs=1e-6)
    honest = logits_that_say(labels, margin=np.log(0.8 / 0.2))
    assert evaluation.expected_calibration_error(honest, labels) == pytest.approx(0.2)


def test_what_cannot_be_compared_is_refused(labels):
    models = {"student": logits_that_say(labels), "control": logits_that_say(labels)}
    with pytest.raises(UserError, match="no model called 'rival'"):
        evaluation.compare(models, labels, b="rival")
    with pytest.raises(UserError, match="1000 rows, but there are 999"):
        evaluation.compare(models, labels[1:])
    with pytest.raises(UserError, match="without|needs a label"):
        evaluation.compare(models, np.where(labels == 0, -100, 1))


def test_gained_and_lost_rows(labels):
    texts = [f"text {index}" for index in range(1000)]
    a, b = wrong_on(labels, [3]).argmax(-1), wrong_on(labels, [5, 7]).argmax(-1)
    table = evaluation.gained_and_lost(texts, labels, a, b, ["negative", "positive"])
    assert table.values.tolist() == [
        ["gained", "positive", "text 5"],
        ["gained", "positive", "text 7"],
        ["lost", "positive", "text 3"],
    ]


# --- over seeds -------------------------------------------------------------------------------------------------


def right_in(share, rows=1000, offset=0):
    right = np.zeros(rows, bool)
    right[offset : offset + round(share * rows)] = True
    return right


def test_one_seed_in_three_does_not_carry_a_verdict():
    """Differences of +4.3, +0.3 and 0.0 points: an interval that leaves the seeds out calls this better."""
    control = {seed: right_in(0.80) for seed in (42, 43, 44)}
    other = {42: right_in(0.843), 43: right_in(0.803), 44: right_in(0.80)}
    found = evaluation.paired_over_seeds(other, control, "a", "b")
    assert [round(100 * value, 1) for value in found.by_seed.values()] == [4.3, 0.3, 0.0]
    assert found.interval95[0] <= 0 < found.interval95[1]
    assert "no evidence" in found.text
    assert "(+4.3, +0.3, +0.0)" in found.text


def test_the_same_gain_in_every_seed_is_a_verdict():
    control = {seed: right_in(0.79) for seed in (1, 2, 3)}
    other = {1: right_in(0.833), 2: right_in(0.826), 3: right_in(0.832)}
    assert "is better than" in evaluation.paired_over_seeds(other, control, "a", "b").text
    assert "is worse than" in evaluation.paired_over_seeds(control, other, "a", "b").text


def test_three_seeds_on_the_same_rows_are_no_three_times_as_many_rows():
    """Identical seeds: the interval is that of one seed's rows, not one of a third of the variance."""
    draw = np.random.default_rng(0)
    a, b = draw.random(1000) < 0.83, draw.random(1000) < 0.80
    one = evaluation.paired(np.where(a, 1, 0), np.where(b, 1, 0), np.ones(1000, int)).interval95
    three = evaluation.paired_over_seeds(dict.fromkeys((1, 2, 3), a), dict.fromkeys((1, 2, 3), b), "a", "b").interval95
    assert three == pytest.approx(one, abs=0.006)


def test_only_common_seeds_count():
    a, b = {1: right_in(0.9), 2: right_in(0.9)}, {2: right_in(0.8), 3: right_in(0.1)}
    assert list(evaluation.paired_over_seeds(a, b, "a", "b").by_seed) == [2]
    with pytest.raises(UserError, match="no seed has both"):
        evaluation.paired_over_seeds({1: right_in(0.9)}, {2: right_in(0.9)}, "a", "b")


def test_no_interval_has_width_zero(labels):
    perfect = evaluation.score(logits_that_say(labels), labels)
    assert perfect["interval95"][0] < perfect["interval95"][1] == 1.0
    same = evaluation.compare({"student": logits_that_say(labels), "control": logits_that_say(labels)}, labels)
    low, high = same.comparison.interval95
    assert low < 0 < high


def test_logits_that_are_not_finite_stop_the_comparison(labels):
    broken = logits_that_say(labels)
    broken[3, 0] = np.nan
    with pytest.raises(UserError, match="NaN"):
        evaluation.compare({"student": broken, "control": logits_that_say(labels)}, labels)
