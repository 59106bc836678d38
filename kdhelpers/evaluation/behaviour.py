"""A small behavioural test set in the manner of CheckList (Ribeiro et al. 2020), generated from templates of our own.

Accuracy on rows like the training rows says little about what a model has understood. Each case here asks one thing:
a *minimum functionality* case has a right answer; an *invariance* case is a pair that must get the same answer; a
*directional* case is a pair whose second text must sound more positive, or less, than its first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

GOOD = ("wonderful", "moving", "clever", "funny", "gripping", "charming")
BAD = ("dreadful", "boring", "stupid", "tedious", "clumsy", "lifeless")
THINGS = ("film", "story", "acting", "script")
NAMES = ("Anna", "Mehmet", "Ngozi", "Li Wei", "Pedro", "Fatima", "Lars", "Priya")


@dataclass(frozen=True)
class Case:
    """One question to a model: `texts` are one or two sentences, `expected` says what must hold.

    expected: "positive" or "negative" (one text); "same" (two texts); "up" or "down" (the second text's probability
    of positive against the first's).
    """

    capability: str
    texts: tuple[str, ...]
    expected: str


def cases() -> list[Case]:
    """The whole set, in a fixed order."""
    found = []
    for thing, good, bad in product(THINGS, GOOD, BAD):
        found.append(Case("plain words", (f"The {thing} is {good}.",), "positive"))
        found.append(Case("plain words", (f"The {thing} is {bad}.",), "negative"))
        found.append(Case("negation", (f"The {thing} is not {good} at all.",), "negative"))
        found.append(Case("negation", (f"The {thing} is never {bad}.",), "positive"))
        found.append(Case("contrast", (f"I expected a {bad} {thing}, but it is {good}.",), "positive"))
        found.append(Case("contrast", (f"I expected a {good} {thing}, but it is {bad}.",), "negative"))
        found.append(Case("intensifiers", (f"The {thing} is a bit {bad}.", f"The {thing} is utterly {bad}."), "down"))
        found.append(Case("intensifiers", (f"The {thing} is a bit {good}.", f"The {thing} is utterly {good}."), "up"))
    for (first, second), word in product(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True), GOOD + BAD):
        pair = tuple(f"{name} plays the lead, and the result is {word}." for name in (first, second))
        found.append(Case("names swapped", pair, "same"))
    for thing, word in product(THINGS, GOOD + BAD):
        sentence = f"All in all, a truly {word} {thing} about a family in the north."
        found.append(Case("typos", (sentence, misspell(sentence, word)), "same"))
        found.append(Case("typos", (sentence, misspell(sentence, "family")), "same"))
    return list(dict.fromkeys(found))


def misspell(sentence: str, word: str) -> str:
    """Swap a word's second and third letters, as a hasty hand does."""
    return sentence.replace(word, word[0] + word[2] + word[1] + word[3:])


def holds(case: Case, positive: list[float]) -> bool:
    """Whether the probabilities of "positive", one a text, are what the case expects."""
    if case.expected in ("positive", "negative"):
        return (positive[0] > 0.5) == (case.expected == "positive")
    if case.expected == "same":
        return (positive[0] > 0.5) == (positive[1] > 0.5)
    return positive[1] > positive[0] if case.expected == "up" else positive[1] < positive[0]


def failure_rates(models: dict[str, Callable[[list[str]], np.ndarray]]) -> pd.DataFrame:
    """Share of failed cases by capability (rows) and model (columns), in percent, and the number of cases.

    Each model is a function from texts to the probability of "positive", float [texts].
    """
    asked = cases()
    texts = list(dict.fromkeys(text for case in asked for text in case.texts))
    table: dict[str, dict] = {}
    for name, positive in models.items():
        answer = dict(zip(texts, np.asarray(positive(texts), dtype=float), strict=True))
        for case in asked:
            cell = table.setdefault(case.capability, {"cases": 0})
            cell["cases"] += name == next(iter(models))
            cell[name] = cell.get(name, 0) + (not holds(case, [answer[text] for text in case.texts]))
    frame = pd.DataFrame.from_dict(table, orient="index")
    for name in models:
        frame[name] = 100 * frame[name] / frame["cases"]
    return frame
