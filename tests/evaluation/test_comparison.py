"""The card, calibration and fidelity, and the behavioural test set."""

import numpy as np
import pytest
from scipy.special import softmax

from kdhelpers import behaviour, card, evaluation
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
    shown = card.compare({"teacher": logits_that_say(labels), "control": same, "student": same}, labels)
    assert "no evidence of a difference" in str(shown)
    assert "no evidence of a difference" in shown._repr_html_()
    assert "too few rows" not in str(shown)
    assert "90.0 %" in str(shown)
    assert "<table" in shown._repr_html_()


def test_too_few_rows_are_said_to_be_too_few(labels):
    few = labels[:40]
    shown = card.compare({"student": wrong_on(few, slice(0, 4)), "control": wrong_on(few, slice(0, 9))}, few)
    assert "too few rows" in shown.comparison.text
    assert f"{100 * evaluation.smallest_difference(40, 5 / 40):.1f} points" in shown.comparison.text


def test_the_smallest_difference_is_found_four_times_in_five():
    """What the formula promises, simulated: 1,000 rows, a tenth of them told apart, difference as promised."""
    rows, disagreeing = 1000, 0.1
    difference = evaluation.smallest_difference(rows, disagreeing)
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        kind = draw.choice(3, rows, p=[(disagreeing + difference) / 2, (disagreeing - difference) / 2, 1 - disagreeing])
        a, b = np.array([1, 0, 1])[kind].astype(bool), np.array([0, 1, 1])[kind].astype(bool)
        found += evaluation.mcnemar_p(a, b) < 0.05
    assert 0.7 < found / 400 < 0.9, found / 400


def test_identical_rows_need_six_the_same_way():
    assert evaluation.mcnemar_p(np.ones(5, bool), np.zeros(5, bool)) > 0.05
    assert evaluation.mcnemar_p(np.ones(6, bool), np.zeros(6, bool)) < 0.05
    assert evaluation.smallest_difference(100, 0.0) == 0.06


def test_fidelity_at_the_teachers_right_and_wrong_rows(labels):
    teacher = wrong_on(labels, slice(0, 200))
    student = wrong_on(labels, slice(0, 50))  # follows the teacher into a quarter of its mistakes
    scores = card.compare({"teacher": teacher, "student": student, "control": student}, labels).scores["student"]
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
        card.compare(models, labels, b="rival")
    with pytest.raises(UserError, match="1000 rows, but there are 999"):
        card.compare(models, labels[1:])
    with pytest.raises(UserError, match="without|needs a label"):
        card.compare(models, np.where(labels == 0, -100, 1))


def test_gained_and_lost_rows(labels):
    texts = [f"text {index}" for index in range(1000)]
    a, b = wrong_on(labels, [3]).argmax(-1), wrong_on(labels, [5, 7]).argmax(-1)
    table = card.gained_and_lost(texts, labels, a, b, ["negative", "positive"])
    assert table.values.tolist() == [
        ["gained", "positive", "text 5"],
        ["gained", "positive", "text 7"],
        ["lost", "positive", "text 3"],
    ]


def test_the_behavioural_set_asks_what_it_says():
    asked = behaviour.cases()
    assert len(set(asked)) == len(asked) > 500
    assert behaviour.misspell("a truly moving film", "moving") == "a truly mvoing film"
    assert all(case.texts[0] != case.texts[-1] for case in asked if len(case.texts) == 2)


def test_failure_rates_of_models_whose_faults_are_known():
    def always_positive(texts):
        return np.full(len(texts), 0.9)

    def reads_words_only(texts):  # knows the words, ignores "not" and all else
        return np.array([0.9 if any(word in text for word in behaviour.GOOD) else 0.1 for text in texts])

    rates = behaviour.failure_rates({"positive": always_positive, "words": reads_words_only})
    assert rates.loc["plain words", "positive"] == 50
    assert rates.loc["plain words", "words"] == 0
    assert rates.loc["negation", "words"] == 100
    assert rates.loc["names swapped", "positive"] == 0
    assert rates.loc["intensifiers", "positive"] == 100
    assert rates["cases"].sum() == len(behaviour.cases())
