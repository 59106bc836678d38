"""Timing models: that the figures are about what they say they are about, not how large they are."""

import time

import numpy as np
import pytest

from kdhelpers.deployment import Runner, dollars_per_million, measure
from kdhelpers.errors import UserError

NAMES = ["negative", "positive"]


def sleeper(name, seconds, size, labels=NAMES):
    """A runner that takes its time and then says the second of its labels."""

    def run(inputs):
        time.sleep(seconds)
        return np.array([[0.0, 1.0]] * len(inputs["texts"]))

    return Runner(name, "PyTorch fp32", size, size // 4, labels, lambda texts: {"texts": texts}, run)


def test_ratios_are_against_the_first_model():
    texts = ["a text"] * 60
    labels = ["positive"] * 45 + ["negative"] * 15
    slow, fast = measure([sleeper("slow", 0.008, 4000), sleeper("fast", 0.002, 1000)], texts, labels)
    assert slow.faster == slow.smaller == 1.0
    assert fast.smaller == 4.0
    assert fast.faster_interval95[0] <= fast.faster <= fast.faster_interval95[1]
    assert fast.faster > 1
    assert slow.accuracy == fast.accuracy == 0.75
    assert slow.p95_ms >= slow.p50_ms >= 8.0


def test_without_labels_there_is_no_accuracy():
    assert measure([sleeper("any", 0, 4)], ["a text"] * 10)[0].accuracy is None


@pytest.mark.parametrize(
    ("models", "rows"),
    [
        (["NEGATIVE", "Positive"], ["positive", "negative "]),
        (["0", "1"], ["1.0", "0"]),
        (["LABEL_0", "LABEL_1"], ["1", "0"]),
        (["LABEL_0", "LABEL_1"], ["LABEL_1", "label_0"]),
    ],
)
def test_labels_are_matched_however_they_are_written(models, rows):
    assert sleeper("any", 0, 4, models).accuracy(["a", "b"], rows) == 0.5


@pytest.mark.parametrize("label", ["0", "neutral", "positive, very"])
def test_a_label_that_the_model_does_not_know_is_refused_and_named(label):
    with pytest.raises(UserError, match=label):
        measure([sleeper("any", 0, 4)], ["a", "b"], ["negative", label])


def test_logits_come_in_the_texts_own_order():
    runner = Runner("any", "", 4, 1, NAMES, lambda texts: {"n": texts}, lambda x: np.array([[len(t)] for t in x["n"]]))
    texts = ["x" * length for length in (5, 1, 9, 1, 7, 3)]
    assert runner.logits(texts, batch_size=2)[:, 0].tolist() == [5, 1, 9, 1, 7, 3]


def test_dollars():
    """3.6 ms each: a million take an hour."""
    assert dollars_per_million(3.6, 0.25) == pytest.approx(0.25)
    for milliseconds, price in ((3.6, 0), (0, 1), (float("nan"), 1)):
        with pytest.raises(UserError, match="greater than 0"):
            dollars_per_million(milliseconds, price)
