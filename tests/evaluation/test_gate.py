"""A teacher is refused for what its answers show, and for nothing else."""

import numpy as np
import pytest

from kdhelpers.errors import UserError
from kdhelpers.evaluation import check_teacher

NAMES = ["bad", "mixed", "good"]


def logits_of(predictions, classes=2):
    return 4.0 * np.eye(classes)[predictions]


@pytest.mark.parametrize(
    "labels",
    [np.r_[np.zeros(97, int), np.ones(3, int)], np.array([0, 1, 0, 1]), np.zeros(50, int), np.array([1]), np.arange(2)],
    ids=["97 to 3", "four rows", "one class", "one row", "two rows"],
)
def test_a_perfect_teacher_always_passes(labels):
    assert check_teacher(logits_of(labels), labels, NAMES[:2]) == 1.0


def test_a_good_teacher_passes_where_one_class_is_rare():
    labels = np.r_[np.zeros(190, int), np.ones(10, int)]
    predictions = labels.copy()
    predictions[[0, 1, 2, 199]] = 1 - predictions[[0, 1, 2, 199]]  # 98 %, where the commonest class has 95
    assert check_teacher(logits_of(predictions), labels, NAMES[:2]) == 0.98


def test_a_teacher_that_finds_the_rare_class_passes_below_the_commonest_classs_share():
    labels = np.r_[np.zeros(90, int), np.ones(10, int)]
    predictions = labels.copy()
    predictions[:12] = 1  # 88 %, less than the 90 % of always saying 0, and far from guessing
    assert check_teacher(logits_of(predictions), labels, NAMES[:2]) == 0.88


@pytest.mark.parametrize("share", [0.5, 0.9], ids=["a coin", "a coin with the classes' shares"])
def test_a_teacher_that_guesses_is_refused(share):
    draw = np.random.default_rng(1)
    labels = (draw.random(400) > share).astype(int)
    guesses = (draw.random(400) > share).astype(int)
    with pytest.raises(UserError, match="guessing"):
        check_teacher(logits_of(guesses), labels, NAMES[:2])


@pytest.mark.parametrize("said", [0, 1])
@pytest.mark.parametrize("rare", [100, 300])
def test_a_teacher_that_says_one_class_always_is_refused(said, rare):
    labels = np.r_[np.zeros(400 - rare, int), np.ones(rare, int)]
    with pytest.raises(UserError, match="guessing"):
        check_teacher(logits_of(np.full(400, said)), labels, NAMES[:2])


def test_swapped_labels_are_named_as_such():
    labels = np.arange(200) % 2
    with pytest.raises(UserError, match="swapped"):
        check_teacher(logits_of(1 - labels), labels, NAMES[:2])


def test_only_a_teacher_that_was_fine_tuned_here_is_to_be_trained_longer_and_only_another_renamed():
    labels, draw = np.arange(200) % 2, np.random.default_rng(0)
    for said, cure in ((1 - labels, "id2label"), (draw.permutation(labels), "take another teacher or more labelled")):
        with pytest.raises(UserError, match=cure) as came:
            check_teacher(logits_of(said), labels, NAMES[:2])
        with pytest.raises(UserError, match="more --teacher-epochs; --accept") as learnt:
            check_teacher(logits_of(said), labels, NAMES[:2], learnt=160)
        assert "--teacher-epochs" not in str(came.value)
        assert "id2label" not in str(learnt.value)


def test_two_swapped_classes_of_three_are_found_though_the_teacher_is_above_chance():
    labels = np.r_[np.zeros(200, int), np.ones(50, int), np.full(50, 2)]
    swapped = np.array([0, 2, 1])[labels]  # two thirds right, and above chance
    with pytest.raises(UserError, match="swapped.*'mixed' as 'good'"):
        check_teacher(logits_of(swapped, 3), labels, NAMES)


def test_a_weak_but_honest_teacher_is_not_called_swapped():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 300)
    predictions = np.where(draw.random(300) < 0.45, labels, draw.integers(0, 3, 300))
    assert 0.5 < check_teacher(logits_of(predictions, 3), labels, NAMES) < 0.8


def test_unlabelled_rows_are_not_counted():
    labels = np.r_[np.arange(100) % 2, np.full(50, -100)]
    predictions = np.r_[np.arange(100) % 2, np.zeros(50, int)]
    assert check_teacher(logits_of(predictions), labels, NAMES[:2]) == 1.0


def test_accepting_a_teacher_says_what_was_accepted(caplog):
    labels = np.arange(200) % 2
    with caplog.at_level("INFO", "kdhelpers"):
        check_teacher(logits_of(1 - labels), labels, NAMES[:2], accept=True)
    assert "swapped" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused_even_if_accepted(value):
    logits = logits_of(np.arange(10) % 2)
    logits[0, 0] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        check_teacher(logits, np.arange(10) % 2, NAMES[:2], accept=True)
