"""The pair of student and teacher: its threshold, its curve, and the rows that look wrong."""

import math

import numpy as np
import pytest

from kdhelpers import evaluation
from kdhelpers.errors import UserError


def pair(rows, seed=0):
    """A student that agrees with its teacher where it is sure: logits of both, and labels (the teacher's answers)."""
    draw = np.random.default_rng(seed)
    labels, margin = draw.integers(0, 2, rows), draw.uniform(0, 6, rows)
    wrong = draw.random(rows) < np.exp(-margin) / (1 + np.exp(-margin))
    sign = np.where(labels == 1, 1, -1) * np.where(wrong, -1, 1)
    student = np.stack([-sign * margin / 2, sign * margin / 2], axis=1)
    return student, np.eye(2)[labels] * 4, labels


def test_the_share_holds_on_rows_that_the_threshold_has_not_seen():
    failed = 0
    for seed in range(200):
        threshold = evaluation.confidence_threshold(*pair(500, seed)[:2], agreement=0.95)
        student, teacher, _ = pair(20_000, 1000 + seed)
        alone = evaluation.confidence(student) >= threshold
        failed += alone.any() and (student.argmax(-1) == teacher.argmax(-1))[alone].mean() < 0.95
    assert failed <= 18, "promised: one in twenty, ten of 200; more than 18 by luck in less than 1 %"


def test_a_student_that_always_agrees_answers_everything_and_one_that_guesses_nothing():
    student, teacher, labels = pair(300)
    assert evaluation.confidence_threshold(teacher, teacher) <= evaluation.confidence(teacher).min()
    guess = np.random.default_rng(1).normal(size=student.shape)
    assert evaluation.confidence_threshold(guess, teacher) == math.inf
    assert evaluation.confidence_threshold(teacher[:20], teacher[:20]) == math.inf, "twenty rows show no 95 %"


def test_the_curve_runs_from_the_student_alone_to_the_teacher_alone():
    student, teacher, labels = pair(1000)
    curve = evaluation.cascade(student, teacher, labels, milliseconds=(1.0, 100.0), dollars_an_hour=0.36)
    first, last = curve.iloc[0], curve.iloc[-1]
    assert first["student_share"] == 1
    assert first["accuracy"] == (student.argmax(-1) == labels).mean()
    assert first["milliseconds"] == 1
    assert last["student_share"] == 0
    assert last["accuracy"] == 1.0
    assert last["milliseconds"] == 101
    assert last["dollars"] == pytest.approx(10.1), "101 ms of a million answers are 28 hours at 36 cents"
    assert curve["student_share"].is_monotonic_decreasing
    middle = curve.iloc[len(curve) // 2]
    alone = evaluation.confidence(student) >= middle["threshold"]
    assert middle["accuracy"] == np.where(alone, student.argmax(-1) == labels, True).mean()


def test_suspects_are_sure_and_contradicted():
    student, teacher = (
        np.array([[0, 5.0], [0, 0.1], [0, 5.0], [6.0, 0]]),
        np.array([[0, 1.0], [1, 0], [1.0, 0], [1, 0]]),
    )
    found = evaluation.suspects("abcd", np.array([1, 0, 1, -1]), student, teacher, 0.9, ["bad", "good"])
    assert list(found["text"]) == ["c"], "a agrees with both, b is not sure, d has no label and agrees with the teacher"
    assert found.iloc[0][["student", "teacher", "label"]].tolist() == ["good", "bad", "good"]
    mislabelled = evaluation.suspects("abcd", np.array([0, 0, 1, -1]), student, teacher, 0.9, ["bad", "good"])
    assert list(mislabelled["text"]) == ["a", "c"]


def test_what_makes_no_sense_is_refused():
    student, teacher, _ = pair(10)
    with pytest.raises(UserError, match="between 0 and 1"):
        evaluation.confidence_threshold(student, teacher, agreement=1.0)
    with pytest.raises(UserError, match="not alike"):
        evaluation.confidence_threshold(student, teacher[:5])


@pytest.mark.parametrize("logits", [np.zeros((0, 2)), np.zeros((5, 1)), np.full((5, 2), np.nan)])
def test_a_threshold_of_nothing_is_refused(logits):
    with pytest.raises(UserError):
        evaluation.confidence_threshold(logits, logits)
