"""Data sets in every shape that the Hub has them in, and one sentence for whatever goes wrong there."""

import json
import os
import subprocess
import sys

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from kdhelpers import data
from kdhelpers.errors import UserError
from kdhelpers.settings import recipe, settings_from
from tests.hub_server import running_hub

NAMES = ClassLabel(names=["negative", "positive"])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Writes splits of (texts, labels) as the parquet files of a data set, and loads them by its name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def load(splits, feature, teacher=None, **options):
        for name, (texts, labels) in splits.items():
            table = Dataset.from_dict(
                {"text": texts, "label": labels}, features=Features(text=Value("string"), label=feature)
            )
            table.to_parquet(str(tmp_path / "set" / f"{name}-00000-of-00001.parquet"))
        return data.load_rows(settings_from({"dataset_id": str(tmp_path / "set"), **options}), teacher)

    (tmp_path / "set").mkdir()
    return load


def split(word, labels):
    return [f"{word} number {index}" for index in range(len(labels))], list(labels)


def names_by_text(rows, name):
    part = rows.splits[name]
    pairs = zip(part["text"], part["label"], strict=True)
    return {text: None if label == data.UNLABELLED else rows.label_names[label] for text, label in pairs}


LABELS = {
    "class names": (NAMES, [1, 0], ["negative", "positive"]),
    "numbers from 0": (Value("int64"), [1, 0], ["0", "1"]),
    "stars": (Value("int32"), [5, 4, 3, 2, 1], ["1", "2", "3", "4", "5"]),
    "ten and nine": (Value("int64"), [10, 9], ["9", "10"]),
    "minus one to one": (Value("int64"), [-1, 0, 1], ["-1", "0", "1"]),
    "floats": (Value("float64"), [1.0, 0.0], ["0", "1"]),
    "strings": (Value("string"), ["good", "bad"], ["bad", "good"]),
    "truth": (Value("bool"), [True, False], ["False", "True"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_any_kind_of_label_is_a_class_and_missing_splits_are_carved_out(hub, kind):
    feature, labels, names = LABELS[kind]
    rows = hub({"train": split("train", labels * 30), "test": split("test", labels * 2)}, feature)
    assert rows.label_names == names
    assert len(rows.splits["validation"]) == 3 * len(labels)
    for name in rows.splits:
        for text, label in names_by_text(rows, name).items():
            value = labels[int(text.split()[-1]) % len(labels)]
            assert label == (names[value] if feature is NAMES else str(int(value) if kind == "floats" else value))
    shares = list(rows.splits["validation"]["label"])
    assert {shares.count(label) for label in range(len(names))} == {3}, "each class its share"
    assert any("validation" in note and "set aside" in note for note in rows.notes)


def test_splits_that_are_there_are_taken_as_they_are(hub):
    rows = hub({name: split(name, [0, 1] * 10) for name in ("train", "validation", "test")}, NAMES)
    assert rows.counts() == {"labelled": 20, "unlabelled": 0, "validation": 20, "test": 20}
    assert rows.test_name == "test"


HIDDEN = {"class names": (NAMES, [-1]), "numbers": (Value("int64"), [-1]), "strings": (Value("string"), [None])}


@pytest.mark.parametrize("kind", HIDDEN)
def test_where_test_labels_are_hidden_the_validation_rows_are_scored_and_nothing_is_chosen_on_them(hub, kind):
    feature, hidden = HIDDEN[kind]
    labels = ["no", "yes"] if kind == "strings" else [0, 1]
    known = {name: split(name, labels * 10) for name in ("train", "validation")}
    rows = hub(known | {"test": split("test", hidden * 6)}, feature)
    assert "validation" not in rows.splits
    assert "hidden" in rows.test_name
    assert all(text.startswith("validation") for text in rows.splits["test"]["text"])
    assert any("last checkpoint" in note for note in rows.notes)


def test_without_test_rows_the_validation_rows_are_scored(hub):
    rows = hub({name: split(name, [0, 1] * 10) for name in ("train", "validation")}, NAMES)
    assert rows.test_name.startswith("validation")
    assert rows.counts()["validation"] == 0
    assert len(rows.splits["test"]) == 20


@pytest.mark.parametrize("more", [{}, {"test": split("test", [-1] * 6)}], ids=["no test", "hidden test"])
def test_training_rows_alone_give_all_three_splits(hub, more):
    rows = hub({"train": split("train", [0, 1] * 50), **more}, NAMES)
    assert rows.counts() == {"labelled": 80, "unlabelled": 0, "validation": 10, "test": 10}
    assert rows.test_name == "test"


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_training_row_may_lack_its_label(hub, kind):
    feature, hidden = HIDDEN[kind]
    labels = ["no", "yes"] if kind == "strings" else [0, 1]
    held_out = {name: split(name, labels * 5) for name in ("validation", "test")}
    rows = hub({"train": split("train", labels * 10 + hidden * 7), **held_out}, feature)
    assert rows.counts()["unlabelled"] == 7
    assert len(rows.label_names) == 2


@pytest.mark.parametrize("kind", LABELS)
def test_more_text_joins_the_training_rows(hub, kind, tmp_path):
    feature, labels, names = LABELS[kind]
    more = tmp_path / "more.txt"
    more.write_text("one more\nand another\n")
    tables = {"train": split("train", labels * 30), "test": split("test", labels * 2)}
    rows = hub(tables, feature, unlabelled=str(more))
    assert rows.counts()["unlabelled"] == 2
    assert rows.splits["train"]["text"][-2:] == ["one more", "and another"]
    assert rows.label_names == names


def test_a_test_row_may_not(hub):
    with pytest.raises(UserError, match="test, row 3 has no label"):
        hub({"train": split("train", [0, 1] * 10), "test": split("test", [0, 1, -1, 1])}, NAMES)


def test_a_test_label_that_training_does_not_know(hub):
    with pytest.raises(UserError, match="test, row 2 has the label '3'"):
        hub({"train": split("train", [1, 2] * 10), "test": split("test", [1, 3])}, Value("int64"))


def test_one_class_is_nothing_to_learn(hub):
    with pytest.raises(UserError, match="fewer than two classes"):
        hub({"train": split("train", [1] * 40)}, NAMES)


@pytest.mark.parametrize("pair", [("train", "validation"), ("train", "test"), ("validation", "test")], ids=str)
def test_rows_in_two_splits_are_found(hub, pair):
    splits = {name: split(name, [0, 1] * 10) for name in ("train", "validation", "test")}
    splits[pair[0]] = splits[pair[1]]
    with pytest.raises(UserError, match=f"20 {pair[0]} rows are in {pair[1]}"):
        hub(splits, NAMES)


def test_a_teachers_order_of_names_counts(hub):
    splits = {name: split(name, [0, 1] * 10) for name in ("train", "validation", "test")}
    rows = hub(splits, NAMES, ["POSITIVE", "NEGATIVE"])
    assert rows.label_names == ["POSITIVE", "NEGATIVE"]
    assert names_by_text(rows, "test")["test number 0"] == "NEGATIVE"


def test_declared_names_that_differ_in_nothing_but_case_stay_two_classes(hub):
    names = ClassLabel(names=["US", "us", "it"])
    rows = hub({name: split(name, [0, 1, 2] * 10) for name in ("train", "validation", "test")}, names)
    assert rows.label_names == ["US", "us", "it"]
    assert list(rows.splits["test"]["label"])[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [
        (Value("int64"), NAMES, "train, row 1 has no text"),
        (datasets.List(Value("string")), NAMES, "train, row 1 has no text"),
        (Value("string"), {"a": Value("int64")}, "neither a label nor a list of labels"),
    ],
    ids=["numbers for texts", "lists for texts", "objects for labels"],
)
def test_columns_that_hold_no_texts_or_no_labels_are_refused(tmp_path, monkeypatch, text, label, words):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    values = {"text": [1, 2] if text == Value("int64") else [["a"], ["b"]] if text != Value("string") else ["a", "b"]}
    values["label"] = [{"a": 0}, {"a": 1}] if label is not NAMES else [0, 1]
    Dataset.from_dict(values, features=Features(text=text, label=label)).to_parquet(str(tmp_path / "set/train.parquet"))
    with pytest.raises(UserError, match=words):
        data.load_rows(settings_from({"dataset_id": str(tmp_path / "set")}))


@pytest.mark.parametrize("column", ["text_column", "label_column"])
def test_a_column_that_is_not_there(hub, column):
    with pytest.raises(UserError, match="no column 'stars'; it has: text, label"):
        hub({"train": split("train", [0, 1])}, NAMES, **{column: "stars"})


def test_a_data_set_without_training_rows(hub):
    with pytest.raises(UserError, match="no train split; it has: test"):
        hub({"test": split("test", [0, 1])}, NAMES)


# --- the real clients, against a Hub on loopback

CARD = """---
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
  - split: test
    path: sst2/test-*
---
A tiny stand-in of invented sentences.
"""

# The clients wait between their tries; here nobody needs to. It asks once for every line that it is given.
PROGRAM = """
import json, sys, time
time.sleep = lambda seconds: None
from kdhelpers import data
from kdhelpers.errors import UserError
from kdhelpers.settings import recipe
for _ in sys.stdin:
    try:
        print(json.dumps(str(data.load_rows(recipe("sst2")))), flush=True)
    except UserError as error:
        print(json.dumps({"error": str(error)}), flush=True)
"""


@pytest.fixture(scope="module")
def hub_root(tmp_path_factory):
    """The article's data set, tiny, below the folder that a Hub serves."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "datasets" / str(recipe("sst2").dataset_id)
    features = Features(sentence=Value("string"), label=NAMES, idx=Value("int32"))
    for name, labels in {"train": [0, 1] * 16, "validation": [0, 1] * 8, "test": [-1] * 8}.items():
        texts, labels = split(name, labels)
        table = Dataset.from_dict({"sentence": texts, "label": labels, "idx": range(len(texts))}, features=features)
        table.to_parquet(str(folder / f"sst2/{name}-00000-of-00001.parquet"))
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return root


FAILURES = {
    "404": ("does not exist", "check the spelling"),
    "429": ("too many requests", "wait"),
    "503": ("HTTP 503", "try again later"),
    "cut": ("cannot be reached", "network"),
    None: ("cannot be reached", "network"),
}


@pytest.fixture(scope="module")
def answers(hub_root, tmp_path_factory):
    """What a process of its own is told in each mode of a Hub, and when there is no Hub any more."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    kept |= {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    pipes, found = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}, {}
    with running_hub(hub_root) as server:
        asking = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=kept | {"HF_ENDPOINT": server.url}, text=True, **pipes
        )

        def ask():
            asking.stdin.write("\n")
            asking.stdin.flush()
            return json.loads(asking.stdout.readline() or "null")

        for server.mode in filter(None, FAILURES):
            found[server.mode] = ask()
    found[None] = ask()
    _, error = asking.communicate(timeout=60)
    assert asking.returncode == 0, error[-3000:]
    return found


@pytest.mark.parametrize("mode", FAILURES)
def test_a_hub_that_fails_is_one_sentence(answers, mode):
    for word in ("nyu-mll/glue", *FAILURES[mode]):
        assert word in answers[mode]["error"]
    assert "\n" not in answers[mode]["error"]


def test_an_error_that_is_not_the_networks_is_quoted():
    cause = ValueError("Unrecognized model in a/b.\nShould have a `model_type` key")
    said = data.hub_message("the teacher a/b", cause)
    assert "Unrecognized model in a/b." in said
    assert "reached" not in said
    assert "\n" not in said
    assert "KeyError" in data.hub_message("the teacher a/b", KeyError())


def test_what_lies_behind_an_error_counts():
    error = OSError("Can't load it")
    error.__cause__ = LookupError("no luck")
    error.__cause__.__context__ = ConnectionRefusedError("111")
    assert "cannot be reached" in data.hub_message("the teacher a/b", error)
