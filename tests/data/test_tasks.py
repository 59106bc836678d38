"""What a label column is for, how each kind of label is written, and rows that are pairs of texts."""

import dataclasses
import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from kdhelpers import data, storage
from kdhelpers.data import Task
from kdhelpers.errors import UserError
from kdhelpers.settings import RunSettings, settings_from
from tests.tiny import family_tokenizer


def load(folder, rows, **options):
    """Rows (dicts) as a .jsonl file, read as training rows with ten times as many copies of other text."""
    many = [row | {"text": f"{row['text']} {number}"} for number in range(20) for row in rows]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, many)))
    return data.load_rows(settings_from({"train": str(folder / "train.jsonl"), **options}))


def rows_of(*labels):
    return [{"text": f"text {index}", "label": label} for index, label in enumerate(labels)]


KINDS = {
    "names": (["bad", "good"], {}, Task.ONE),
    "integers": ([1, 2, 3], {}, Task.ONE),
    "whole floats": ([1.0, 2.0], {}, Task.ONE),
    "fractions": ([1.0, 2.5, None], {}, Task.NUMBER),
    "integers as a number": ([1, 2, 3], {"task": "number"}, Task.NUMBER),
    "fractions as classes": ([0.5, 1.5], {"task": "one-label"}, Task.ONE),
    "lists": ([["a", "b"], ["b"], [], None], {}, Task.SEVERAL),
    "a separator": (["a;b", "b", ";"], {"label_separator": ";"}, Task.SEVERAL),
    "no separator": (["a|b", "a"], {}, Task.ONE),
    "the usual separator": (["a|b", "a"], {"task": "several-labels"}, Task.SEVERAL),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_is_what_the_labels_are_for_or_what_is_said(kind, tmp_path):
    labels, options, task = KINDS[kind]
    rows = load(tmp_path, rows_of(*labels), **options)
    assert rows.task is task
    assert rows.counts()["unlabelled"] == (20 if None in labels else 0)
    assert all(len(rows.splits[name]) for name in ("train", "validation", "test"))


def test_several_labels_are_rows_of_0_and_1_and_a_row_may_have_none_of_them(tmp_path):
    rows = load(tmp_path, rows_of(["b", "a"], ["b"], [], None))
    assert rows.label_names == ["a", "b"]
    found = {
        text.split()[1]: label
        for part in rows.splits.values()
        for text, label in zip(part["text"], part["label"], strict=True)
    }
    assert [found[number] for number in "012"] == [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    assert np.isnan(found["3"]).all()


WRONG = {
    "one list": (rows_of("a", ["b"]), {"task": "one-label"}, "line 1 has several labels"),
    "no number": (rows_of(1.5, "many"), {"task": "number"}, "line 2 has the label 'many', which is no number"),
    "always the same": (rows_of(1.5), {}, "fewer than two different labels"),
    "a separator in a name": (rows_of(["a|b", "c"], ["c"]), {}, r"the label 'a\|b' holds a \|"),
    "no second text": ([{"text": "a", "b": "", "label": 1}], {"text_pair_column": "b"}, "no text in column 'b'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_labels_that_do_not_fit_are_one_sentence(case, tmp_path):
    rows, options, words = WRONG[case]
    with pytest.raises(UserError, match=words):
        load(tmp_path, rows, **options)


def pair_rows(tmp_path, second_of_test="x"):
    for name, second in {"train": "y", "validation": "z", "test": second_of_test}.items():
        lines = [{"a": "same text", "b": f"{second} {n}", "label": n % 2} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")}
    return settings_from({**files, "text_column": "a", "text_pair_column": "b"})


def test_a_leak_is_a_pair_that_is_there_twice_and_not_one_of_its_texts(tmp_path):
    rows = data.load_rows(pair_rows(tmp_path))
    assert rows.pairs
    assert rows.splits["test"]["text_pair"][0] == "x 0"
    with pytest.raises(UserError, match="12 train rows are in test too"):
        data.load_rows(pair_rows(tmp_path, second_of_test="Y"))


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_a_pair_that_is_too_long_keeps_something_of_both(family):
    table = Dataset.from_dict({"text": ["good " * 50], "text_pair": ["bad " * 50], "label": [0]})
    tokenizer = family_tokenizer(family)
    rows = data.tokenise(DatasetDict(train=table), tokenizer, 21)["train"]
    read = tokenizer.decode(rows["input_ids"][0])
    assert rows["length"][0] == 21
    assert abs(read.count("good") - read.count("bad")) <= 1 < read.count("bad")


def test_the_ratings_are_the_snippets_with_their_means_and_the_same_rows_for_every_seed():
    rows = data.movie_ratings()
    assert rows.task is Task.NUMBER
    assert rows.counts() == {"labelled": 2000, "unlabelled": 6603, "validation": 1000, "test": 1000}
    means = np.array(rows.splits["test"]["label"])
    assert -4 <= means.min() < -3 < 3 < means.max() <= 4
    assert (np.abs(means) < 0.5).any(), "neutral rows are among them"
    assert data.leaking_rows(rows.splits) == []


# the options that every kept cache's key was made with; a later one belongs to storage.ADDED, with its default
IN_EVERY_KEY = """
    accept_teacher alpha batch_size controls dataset_config dataset_id drop_leaks dropout ensemble epochs
    hidden_states hidden_states_weight label_column learning_rate live_teacher max_length precision recipe
    rows seed seeds student student_layers teacher teacher_answers teacher_epochs teacher_learning_rate
    temperature test text_column train train_embeddings trainer_options unlabelled validation warmup
"""


def test_an_option_that_is_not_given_is_in_no_key_unless_it_always_was():
    settings = dataclasses.asdict(RunSettings())
    assert set(storage.computed_by(settings)) == set(IN_EVERY_KEY.split())
    assert {name: settings[name] for name in storage.ADDED} == storage.ADDED, "with their defaults"


def test_the_names_of_the_packages_data_sets_stand_in_the_help():
    (field,) = (field for field in dataclasses.fields(RunSettings) if field.name == "dataset_id")
    assert all(name in str(field.metadata) for name in data.DATA_SETS)


def test_options_that_are_new_leave_the_keys_of_older_caches_alone():
    plain = {"teacher": "t", "output": "o"}
    new = plain | {"task": "auto", "text_pair_column": None, "label_separator": None}
    assert storage.computed_by(new) == {"teacher": "t"}
    assert storage.computed_by(new | {"task": "number"}) == {"teacher": "t", "task": "number"}
