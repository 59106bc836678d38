"""One label, one class, however it is written."""

import unicodedata

import pandas as pd
import pytest

from kdhelpers import data
from kdhelpers.data.rows import class_names, shown_labels
from kdhelpers.errors import UserError
from kdhelpers.settings import settings_from

SAME = {
    "1": [1, 1.0, "1", "1.0", "1e0", "+1", " 1 ", "1.", "01", pd.array([1, None])[0], "1.000"],
    "-1": [-1, "-1.0", "\N{MINUS SIGN}1", "-10e-1"],
    "0": [0, 0.0, "-0", "0e0"],
    "0.5": [0.5, ".5", "0.50", "5e-1"],
    "good": ["good", "GOOD", "Good ", "good\n"],
    "true": [True, "True", "TRUE", "true"],
    "very good": ["very good", "Very  Good", "very\u00a0good"],
    "caf\u00e9": ["caf\u00e9", "cafe\u0301", "CAF\u00c9", unicodedata.normalize("NFD", "Caf\u00c9")],
}
NOTHING = [
    None,
    float("nan"),
    pd.NA,
    "",
    "  ",
    "nan",
    -100,
    -100.0,
    "-100",
    "-100.0",
    "-1e2",
    "\N{MINUS SIGN}100",
    "-100.",
]


@pytest.mark.parametrize("form", SAME)
def test_spellings_of_one_label_have_one_normal_form(form):
    assert {data.normal_label(value) for value in SAME[form]} == {form}


@pytest.mark.parametrize("value", NOTHING, ids=repr)
def test_no_label_is_no_label_in_any_spelling(value):
    assert data.normal_label(value) is None


def test_what_is_not_the_same_stays_apart():
    different = ["1", "10", "0.1", "1_0", "one", "1e999", "a b", "ab", "-1", "100", "1.01"]
    assert len({data.normal_label(value) for value in different}) == len(different)


@pytest.mark.parametrize("value", [["bad", "long"], {"a": 1}, (1,), b"bad"], ids=repr)
def test_an_object_is_no_label(value):
    with pytest.raises(UserError, match="neither a name nor a number"):
        data.normal_label(value)


@pytest.mark.parametrize(
    ("found", "declared", "teacher", "names"),
    [
        ({"10", "9", "1"}, [], [], ["1", "9", "10"]),
        ({"1", "-1", "0"}, [], [], ["-1", "0", "1"]),
        ({"-2", "-10"}, [], [], ["-10", "-2"]),
        ({"2", "0.5", "10"}, [], [], ["0.5", "2", "10"]),
        ({"10 stars", "9 stars", "1 star"}, [], [], ["1 star", "9 stars", "10 stars"]),
        ({"grade-10", "grade-9"}, [], [], ["grade-9", "grade-10"]),
        ({"good", "Bad", "7"}, [], [], ["7", "Bad", "good"]),
        ({"good", "bad"}, ["good", "bad"], [], ["good", "bad"]),
        ({"good", "bad"}, [], ["GOOD", "BAD"], ["GOOD", "BAD"]),
        ({"good", "bad"}, ["bad", "good"], ["good", "fair", "bad"], ["good", "fair", "bad"]),
        ({"good", "bad"}, [], ["yes", "no"], ["bad", "good"]),
        ({"1", "2"}, [], ["1.0", "2.0"], ["1.0", "2.0"]),
        ({"US", "us"}, ["us", "US", "it"], [], ["us", "US", "it"]),
    ],
)
def test_classes_are_in_the_teachers_order_or_as_declared_or_sorted(found, declared, teacher, names):
    assert class_names(found, declared, teacher) == names


def test_training_labels_that_differ_in_nothing_but_case_are_asked_about():
    with pytest.raises(UserError, match="'GOOD' and 'good'|'good' and 'GOOD'"):
        class_names({"good", "GOOD", "bad"}, [], [])


def test_a_word_that_stands_for_nothing_elsewhere_is_a_class_and_this_is_said(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{('a', 'b', 'NULL')[i % 3]}\n" for i in range(90)))
    rows = data.load_rows(settings_from({"train": str(path), "teacher": "x"}))
    assert rows.label_names == ["a", "b", "NULL"]
    assert any("'NULL' is taken for a class" in note for note in rows.notes)


@pytest.mark.parametrize("separator", [None, ",", "|"])
@pytest.mark.parametrize("label", ["['a', 'b']", "['a']", '["a"]', "[]", "[0, 1]", "('a',)", "{'a', 'b'}", "['a' 'b']"])
def test_a_list_in_one_text_is_refused_whatever_separates_labels(label, separator):
    with pytest.raises(UserError, match="a list in one text"):
        shown_labels(label, separator)


@pytest.mark.parametrize("label", ["[spam]", "(a, b)", "[a]|[b]", "'a'", "it's [so]", "{x}", "[1]"])
def test_brackets_alone_make_no_list(label):
    assert shown_labels(label) == label
    assert shown_labels(label, "|") == label.split("|")


@pytest.mark.parametrize(
    ("labels", "words"),
    [(["['a']", "c"], "a list in one text: write a|b"), (["4,25", "1,5"], "numbers with a comma, '4,25'")],
)
def test_labels_that_are_lists_or_numbers_in_disguise_are_refused(tmp_path, labels, words):
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\n" + "".join(f"text {i}\t{labels[i % 2]}\n" for i in range(40)))
    with pytest.raises(UserError, match=words):
        data.load_rows(settings_from({"train": str(path), "teacher": "x"}))
