"""Altered copies: made of the text's own words, none twice, none that is held out, and the teacher's to answer."""

import numpy as np
import pandas as pd
import pytest

from kdhelpers import data
from kdhelpers.data import augment
from kdhelpers.errors import UserError
from kdhelpers.settings import recipe
from tests.tasks import write_task

TEXTS = [f"a film number {n} with a plot that nobody can follow {'and songs ' * (n % 4)}".strip() for n in range(50)]


def subsequence(words, of):
    left = iter(of)
    return all(word in left for word in words)


def test_a_copy_is_words_of_its_text_in_their_order():
    copies = data.altered_copies(TEXTS, 3)
    assert 100 < len(copies) <= 150
    for copy in copies:
        assert any(subsequence(copy.split(), text.split()) for text in TEXTS), copy
    parts = [copy for copy in copies if any(copy in text for text in TEXTS)]
    assert 0.3 < len(parts) / len(copies) < 0.9, "some are parts of a text, in others words are left out"


def test_no_copy_is_there_twice_or_among_the_texts_or_held_out():
    some = data.altered_copies(TEXTS, 2)
    held_out = {some[0].upper(), f" {some[7]}  "}
    again = data.altered_copies(TEXTS, 2, held_out)
    folded = list(map(data.fold, again))
    assert len(set(folded)) == len(folded)
    assert set(folded).isdisjoint(map(data.fold, [*TEXTS, *held_out]))
    assert data.altered_copies(TEXTS, 2) == some, "the same every time"
    assert data.altered_copies(TEXTS, 2, seed=1) != some


def test_what_cannot_be_altered_has_no_copy():
    assert data.altered_copies(["", "fine"], 20) == []


@pytest.mark.parametrize("task", ["one-label", "several-labels", "number"])
def test_copies_join_the_training_rows_without_a_label(task, tmp_path):
    files = write_task(tmp_path, "number" if task == "one-label" else task)
    if task == "one-label":
        for name in ("train", "validation", "test"):
            table = pd.read_csv(files[name])
            table["label"] = np.where(table["label"].isna(), "", np.where(table["label"] > 0.5, "good", "bad"))
            table.to_csv(files[name], index=False)
    plain, more = (data.load_rows(recipe(**files, augment=n)) for n in (0, 1))
    before, train = plain.splits["train"], more.splits["train"]
    assert len(train) > len(before)
    assert train.features == before.features
    assert train["text"][: len(before)] == before["text"][:]
    assert not data.has_label(train["label"][len(before) :]).any()
    assert len(set(train["id"])) == len(train)
    assert more.splits["test"]["text"][:] == plain.splits["test"]["text"][:]
    assert data.leaking_rows(more.splits) == []
    assert more.counts()["labelled"] == plain.counts()["labelled"]


def test_pairs_are_refused(tmp_path):
    rows = data.load_rows(recipe(**write_task(tmp_path, "pairs")))
    with pytest.raises(UserError, match="single texts"):
        augment.with_altered_copies(rows, 1)


def test_texts_of_which_none_has_a_space_are_refused_rather_than_left_as_they_are(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "".join(f"\u597d\u770b{n},{n % 2}\n" for n in range(60)), encoding="utf-8")
    with pytest.raises(UserError, match="--augment cuts texts at their spaces"):
        data.load_rows(recipe(train=str(path), augment=2))


def test_a_seventh_of_the_words_or_so_is_left_out():
    texts = [" ".join(f"word{number}-{place}" for place in range(6)) for number in range(1000)]
    copies = data.altered_copies(texts, 1)
    whole = 0.85**6  # the share from which nothing is left out: no copies
    assert len(copies) == pytest.approx(1000 * (1 - whole), rel=0.1)
    words = sum(len(copy.split()) for copy in copies) + 6 * (1000 - len(copies))
    assert words / 6000 == pytest.approx(1 - augment.LEFT_OUT, abs=0.02)
