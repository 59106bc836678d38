"""The behavioural test set asks what it says."""

import numpy as np

from kdhelpers.evaluation import behaviour


def test_the_behavioural_set_asks_what_it_says():
    asked = behaviour.cases()
    assert len(set(asked)) == len(asked) > 500
    assert all(case[2] != case[-1] for case in asked if len(case) == 4)
    assert any("a truly mvoing film" in case[-1] for case in asked)
    assert not any("{" in text for case in asked for text in case)


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
