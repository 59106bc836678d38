"""Rows of every task that tiny models can learn, or at least be trained on, as files; and the families they are for."""

import random

import pandas as pd

from tests.tiny import BAD, FILLER, GOOD

TASKS = ("pairs", "several-labels", "number")
SIZES = {"train": 96, "validation": 32, "test": 32}
OPTIONS = {  # what `distill` is told of each
    "pairs": {"text_pair_column": "second"},
    "several-labels": {"label_separator": "|"},
    "number": {},
}


def text_of(draw: random.Random, *words: str) -> str:
    """The words among others that mean nothing."""
    filler = [draw.choice(FILLER) for _ in range(draw.randint(3, 8))]
    return " ".join(draw.sample([*filler, *words], len(filler) + len(words)))


def row_of(task: str, draw: random.Random) -> dict:
    """One row: a pair is the same where both texts praise or blame; labels are both, one or none; a number is a sum."""
    praise, blame = draw.random() < 0.5, draw.random() < 0.5
    words = [draw.choice(GOOD)] * praise + [draw.choice(BAD)] * blame
    if task == "pairs":
        one, two = (draw.choice(GOOD if which else BAD) for which in (praise, blame))
        label = "same" if praise == blame else "other"
        return {"text": text_of(draw, one), "second": text_of(draw, two), "label": label}
    if task == "several-labels":
        return {"text": text_of(draw, *words), "label": "|".join(["praise"] * praise + ["blame"] * blame) or "|"}
    return {"text": text_of(draw, *words), "label": praise - blame + 0.25}


def write_task(folder, task: str, unlabelled: int = 32) -> dict:
    """train.csv (its last rows without a label), validation.csv and test.csv; returns the options that name them."""
    draw = random.Random(task)
    for name, count in SIZES.items():
        table = pd.DataFrame([row_of(task, draw) for _ in range(count)])
        if name == "train":
            table["label"] = table["label"].astype(object)
            table.loc[count - unlabelled :, "label"] = ""
        table.to_csv(folder / f"{name}.csv", index=False)
    return {name: str(folder / f"{name}.csv") for name in SIZES} | OPTIONS[task]
