"""A small behavioural test set in the manner of CheckList (Ribeiro et al. 2020), generated from templates of our own.

Accuracy on rows like the training rows says little about what a model has understood. Each case here asks one thing:
a *minimum functionality* case has a right answer; an *invariance* case is a pair that must get the same answer; a
*directional* case is a pair whose second text must sound more positive, or less, than its first.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd

GOOD = ("wonderful", "moving", "clever", "funny", "gripping", "charming")
BAD = ("dreadful", "boring", "stupid", "tedious", "clumsy", "lifeless")
THINGS = ("film", "story", "acting", "script")
PEOPLE = ("Anna", "Mehmet", "Ngozi", "Li Wei", "Pedro", "Fatima", "Lars", "Priya")
SENTENCE = "All in all, a truly {word} {thing} about a family in the north."

TEMPLATES = (  # what is asked, what must hold, one text or two
    ("plain words", "positive", "The {thing} is {good}."),
    ("plain words", "negative", "The {thing} is {bad}."),
    ("negation", "negative", "The {thing} is not {good} at all."),
    ("negation", "positive", "The {thing} is never {bad}."),
    ("contrast", "positive", "I expected a {bad} {thing}, but it is {good}."),
    ("contrast", "negative", "I expected a {good} {thing}, but it is {bad}."),
    ("intensifiers", "down", "The {thing} is a bit {bad}.", "The {thing} is utterly {bad}."),
    ("intensifiers", "up", "The {thing} is a bit {good}.", "The {thing} is utterly {good}."),
    (
        "names swapped",
        "same",
        *(f"{{{name}}} plays the lead, and the result is {{word}}." for name in ("one", "other")),
    ),
    ("typos", "same", SENTENCE, SENTENCE.replace("{word}", "{typo}")),
    ("typos", "same", SENTENCE, SENTENCE.replace("family", "fmaily")),
)
HOLDS: dict[str, Callable[[list[float]], bool]] = {  # of the probabilities of "positive", one a text
    "positive": lambda p: p[0] > 0.5,
    "negative": lambda p: p[0] <= 0.5,
    "same": lambda p: (p[0] > 0.5) == (p[1] > 0.5),
    "up": lambda p: p[1] > p[0],
    "down": lambda p: p[1] < p[0],
}


def cases() -> list[tuple[str, ...]]:
    """The whole set: (what is asked, what must hold, text or two texts)."""
    found: dict[tuple[str, ...], None] = {}
    for thing, good, bad, who in product(THINGS, GOOD, BAD, range(len(PEOPLE))):
        for word in (good, bad):
            typo = word[0] + word[2] + word[1] + word[3:]  # two letters changed places, as a hasty hand writes
            fill = {"thing": thing, "good": good, "bad": bad, "word": word, "typo": typo}
            fill |= {"one": PEOPLE[who], "other": PEOPLE[(who + 1) % len(PEOPLE)]}
            found |= {(*case[:2], *(text.format(**fill) for text in case[2:])): None for case in TEMPLATES}
    return list(found)


def failure_rates(models: dict[str, Callable[[list[str]], np.ndarray]]) -> pd.DataFrame:
    """Share of failed cases by what is asked (rows) and model (columns), in percent, and the number of cases.

    Each model is a function from texts to the probability of "positive", float [texts].
    """
    asked = cases()
    texts = sorted({text for case in asked for text in case[2:]})
    table = pd.DataFrame({"": [case[0] for case in asked], "cases": 1})
    for name, positive in models.items():
        answer = dict(zip(texts, np.asarray(positive(texts), dtype=float), strict=True))
        table[name] = [100 * (not HOLDS[case[1]]([answer[text] for text in case[2:]])) for case in asked]
    groups = table.groupby("", sort=False)
    return groups.agg({"cases": "sum", **dict.fromkeys(models, "mean")}).rename_axis(None)
