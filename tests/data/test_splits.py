"""From files to splits: what is missing is carved out, what two splits share is found, one label is one class."""

import json
import unicodedata

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from kdhelpers import data
from kdhelpers.data import splits as splits_module
from kdhelpers.errors import UserError
from kdhelpers.settings import settings_from
from tests.tiny import tiny_tokenizer


def table(n=40, labels=("bad", "good"), word="sentence"):
    return pd.DataFrame(
        {"text": [f"{word} number {i}" for i in range(n)], "label": [labels[i % len(labels)] for i in range(n)]}
    )


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads tables or raw texts, by split, as the files that a reader names."""
    monkeypatch.chdir(tmp_path)

    def load_rows(teacher=None, options=None, **files):
        named = {}
        for name, content in files.items():
            named[name] = f"{name}.csv"
            if isinstance(content, pd.DataFrame):
                content.to_csv(named[name], index=False)
            elif "\t" in content or "{" not in content:
                (tmp_path / named[name]).write_text(content, encoding="utf-8")
            else:
                named[name] = f"{name}.jsonl"
                (tmp_path / named[name]).write_text(content, encoding="utf-8")
        return data.load_rows(settings_from(named | (options or {})), teacher)

    return load_rows


def refused(load, *words, **files):
    with pytest.raises(UserError) as caught:
        load(**files)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def labels_by_text(rows, split):
    part = rows.splits[split]
    return {text: rows.label_names[label] for text, label in zip(part["text"], part["label"], strict=True)}


# --- what is missing is carved out


@pytest.mark.parametrize("labels", [("bad", "good"), (0, 1), ("poor", "fair", "fine"), (1, 2, 10)], ids=str)
def test_missing_splits_are_carved_out_of_the_labelled_rows_and_this_is_said(load, labels):
    rows = load(train=table(120, labels))
    assert rows.label_names == [str(label) for label in sorted(labels)]
    assert rows.counts() == {"labelled": 96, "unlabelled": 0, "validation": 12, "test": 12}
    assert sum("set aside" in note for note in rows.notes) == 2
    assert any("120" in note and "train.csv" in note for note in rows.notes), "the number of rows read is said"
    texts = [text for part in rows.splits.values() for text in part["text"]]
    assert sorted(texts) == sorted(table(120)["text"])
    for split in rows.splits:
        for text, label in labels_by_text(rows, split).items():
            assert label == str(labels[int(text.split()[-1]) % len(labels)])


def test_each_class_gets_its_share_of_what_is_carved_out(load):
    rows = load(train=table(400, ("common",) * 9 + ("rare",)))
    for split in ("validation", "test"):
        assert list(labels_by_text(rows, split).values()).count("rare") == 4, "a tenth of 40"
    again = load(train=table(400, ("common",) * 9 + ("rare",)), options={"seed": 7})
    assert again.splits["test"]["id"] == rows.splits["test"]["id"], "the split does not follow the run's seed"


def test_repeated_texts_and_classes_of_one_row_stay_in_training(load):
    frame = pd.concat([table(40), table(10), pd.DataFrame({"text": ["odd one"], "label": ["odd"]})])
    rows = load(train=frame)
    assert data.leaking_rows(rows.splits) == []
    assert labels_by_text(rows, "train")["odd one"] == "odd"
    assert len(rows.splits["validation"]) == len(rows.splits["test"]) == 5


@pytest.mark.parametrize("pair", [None, "text"])
def test_text_that_labelled_rows_have_too_hinders_no_carving_and_is_not_taught_from_there(load, pair):
    more = pd.concat([table(120), table(30, word="other")])
    rows = load(train=table(120), unlabelled=more, options={"text_pair_column": pair})
    assert rows.counts() == {"labelled": 96, "unlabelled": 126, "validation": 12, "test": 12}
    assert data.leaking_rows(rows.splits) == []
    assert sum("and 12 without a label that have the same texts were left out" in note for note in rows.notes) == 2
    with pytest.raises(UserError, match="8 train rows are in test"):
        load(train=table(120), unlabelled=more, test=table(8, word="other"))


def test_more_classes_than_rows_to_set_aside(load):
    rows = load(train=table(100, tuple(f"intent {i}" for i in range(30))))
    assert len(rows.splits["test"]) == 10
    assert rows.label_names[9:11] == ["intent 9", "intent 10"]


def test_too_few_rows_to_carve(load):
    refused(load, "too few labelled training rows", train=table(8))


def test_rows_without_a_label_become_unlabelled_and_more_text_joins_them(load):
    frame = table()
    frame.loc[0, "label"], frame.loc[1, "label"] = "", "-100.0"
    rows = load(train=frame, unlabelled="text\none\ntwo\nthree\n")
    assert rows.counts()["unlabelled"] == 5
    assert len(set(rows.splits["train"]["id"])) == len(rows.splits["train"])


@pytest.mark.parametrize("label", ["", "-100", "-100.0"])
def test_a_test_row_needs_a_label(load, label):
    refused(load, "test.csv, line 2 has no label", train=table(), test=f"text,label\nx,{label}\n")


def test_one_class_is_nothing_to_learn(load):
    refused(load, "fewer than two classes", train=table(labels=("good",)))


def test_no_training_row_needs_a_label_where_a_teacher_answers_for_all_of_them(load):
    files = {"train": table(labels=("",)), "validation": table(6, word="held"), "test": table(6, word="test")}
    alone = {"alpha": 0.0}
    rows = load(["good", "bad"], alone, **files)
    assert rows.counts() == {"labelled": 0, "unlabelled": 40, "validation": 6, "test": 6}
    assert list(rows.splits["test"]["label"])[:2] == [1, 0]
    for teacher, options in ((None, alone), (["good", "bad"], {"alpha": 0.5})):
        with pytest.raises(UserError):
            load(teacher, options, **files)


# --- one label is one class

SPELLINGS = {
    "whole numbers with gaps": ([1, 0], ["1.0", "0.0"]),
    "numbers as text": (["1", "0"], ["1e0", "+0"]),
    "case": (["GOOD", "BAD"], ["good", "bad"]),
    "truth": (["TRUE", "FALSE"], ["True", "False"]),
    "accents": (["caf\u00e9", "th\u00e9"], [unicodedata.normalize("NFD", word) for word in ("caf\u00e9", "th\u00e9")]),
    "spaces": (["very good", "bad"], ["very  good ", " bad"]),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_label_is_the_same_class_in_every_file(load, case):
    in_train, in_test = SPELLINGS[case]
    rows = load(train=table(labels=in_train), validation=table(6, in_test, "valid"), test=table(6, in_test, "test"))
    assert rows.label_names == sorted(map(str, in_train))
    for split in ("validation", "test"):
        for text, label in labels_by_text(rows, split).items():
            assert label == str(in_train[int(text.split()[-1]) % 2])


def test_labels_of_json_and_csv_are_the_same_classes(load):
    test = "".join(json.dumps({"text": f"text {i}", "label": bool(i % 2)}) + "\n" for i in range(4))
    rows = load(train=table(labels=("FALSE", "TRUE")), test=test)
    assert list(rows.splits["test"]["label"]) == [0, 1, 0, 1]


def test_a_label_that_training_does_not_know(load):
    refused(
        load,
        "'odd'",
        "test.csv, line 3 has the label",
        "bad, good",
        train=table(),
        test=table(5, ("bad", "odd"), "test"),
    )


@pytest.mark.parametrize("teacher", [["good", "bad"], ["GOOD", "Bad"], ["good", "fair", "bad"]], ids=str)
def test_a_teachers_order_of_names_counts_however_they_are_written(load, teacher):
    rows = load(teacher, train=table())
    assert rows.label_names == teacher
    assert {label.lower() for label in labels_by_text(rows, "train").values()} == {"good", "bad"}
    assert labels_by_text(rows, "train")["sentence number 1"].lower() == "good"


# --- nothing is in two splits


def splits_of(**texts):
    """Splits of these texts; labels take turns."""
    return DatasetDict(
        {
            name: Dataset.from_dict({"id": part, "text": part, "label": [i % 2 for i in range(len(part))]})
            for name, part in texts.items()
        }
    )


LEAKS = {
    "train and test": (
        {"train": ["a", "B  b", "c", "d"], "validation": ["e"], "test": ["b B"]},
        ["a", "c", "d"],
        ["e"],
    ),
    "train and validation": (
        {"train": ["a", "b", "c"], "validation": ["C", "e"], "test": ["f"]},
        ["a", "b"],
        ["C", "e"],
    ),
    "validation and test": ({"train": ["a", "b"], "validation": ["e", "f"], "test": ["F"]}, ["a", "b"], ["e"]),
    "all three": ({"train": ["a", "b", "x"], "validation": ["x", "e"], "test": ["x"]}, ["a", "b"], ["e"]),
    "accents": ({"train": ["a", "b", "e\u0301"], "validation": ["f"], "test": ["\u00e9"]}, ["a", "b"], ["f"]),
    "no validation": ({"train": ["a", "b", "c"], "test": ["c"]}, ["a", "b"], None),
}


@pytest.mark.parametrize("case", LEAKS)
def test_a_text_in_two_splits_stops_the_run_or_stays_in_the_later_one(case):
    texts, train, validation = LEAKS[case]
    rows = data.Rows(splits_of(**texts), ["no", "yes"])
    with pytest.raises(UserError, match="--drop-leaks"):
        splits_module.check_leakage(rows, drop=False)
    kept = splits_module.check_leakage(rows, drop=True)
    assert list(kept.splits["train"]["text"]) == train
    assert validation is None or list(kept.splits["validation"]["text"]) == validation
    assert list(kept.splits["test"]["text"]) == texts["test"], "test rows always stay"
    assert all("left out" in note for note in kept.notes)
    assert splits_module.check_leakage(kept, drop=False).notes == kept.notes


def test_leaks_are_counted_between_each_two_splits():
    rows = data.Rows(splits_of(train=["a", "b", "c"], validation=["b", "c", "d"], test=["d", "c"]), ["no", "yes"])
    with pytest.raises(UserError) as caught:
        splits_module.check_leakage(rows, drop=False)
    for count in ("1 train rows are in test", "1 train rows are in validation", "2 validation rows are in test"):
        assert count in str(caught.value)
    assert data.leaking_rows(rows.splits) == [1, 2]


def test_a_leaking_text_is_shown_in_whole_words():
    long, word = "a film about nothing at all, and about the people to whom it happens", "x" * 80
    for text, shown in ((long, "the people to whom …'"), (word, f"'{60 * 'x'}'"), ("short", "'short'")):
        rows = data.Rows(splits_of(train=[text, "b"], validation=["c"], test=[text]), ["no", "yes"])
        with pytest.raises(UserError, match="train rows are in test too") as caught:
            splits_module.check_leakage(rows, drop=False)
        assert f"{shown}: remove" in str(caught.value)
    assert data.quoted((long, "b")).endswith("whom …' and 'b'")


def test_validation_rows_that_are_tested_on_are_found_in_files(load):
    files = {"train": table(), "validation": table(6, word="held"), "test": table(9, word="held")}
    refused(load, "6 validation rows are in test", **files)


def test_dropping_leaks_never_leaves_nothing(load):
    reordered = table().iloc[::-1]
    for files in (
        {"train": table(), "test": reordered},
        {"train": table(60), "validation": table(), "test": reordered},
    ):
        with pytest.raises(UserError, match="are in test"):
            load(options={"drop_leaks": True}, **files)


def test_dropping_leaks_leaves_two_classes(load):
    train = pd.concat([table(20, ("good",)), table(4, ("bad",), "other")])
    test = table(4, ("bad",), "other").iloc[::-1]
    with pytest.raises(UserError, match="fewer than two classes"):
        load(options={"drop_leaks": True}, train=train, validation=table(3, word="held"), test=test)


@pytest.mark.parametrize(
    "pair",
    [
        ("train", "test"),
        ("train", "validation"),
        ("validation", "test"),
        ("unlabelled", "test"),
        ("train", "unlabelled"),
    ],
    ids=str,
)
@pytest.mark.parametrize("drop", [False, True])
def test_no_two_options_hold_the_same_rows(load, pair, drop):
    """Neither the same name twice nor a copy under another name, with or without --drop-leaks."""
    files = {"train": table(), "validation": table(8, word="held"), "test": table(8, word="test")}
    files[pair[0]] = files[pair[1]] = table(30, word="both")
    with pytest.raises(UserError, match=f"--{pair[0]} and --{pair[1]}|--{pair[1]} and --{pair[0]}"):
        load(options={"drop_leaks": drop}, **files)


def test_digests_are_those_of_the_files_that_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n", encoding="utf-8")
    settings = settings_from({"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "none.csv")})
    before = data.digests(settings)
    assert list(before) == ["train"]
    (tmp_path / "a.csv").write_text("text,label\nx,1\n", encoding="utf-8")
    assert data.digests(settings) != before


# --- subsamples and tokens


def test_a_subsample_is_taken_at_even_distances_from_every_split_and_this_is_said():
    rows = data.Rows(splits_of(train=list("abcdefghij"), test=list("klmno")), ["no", "yes"])
    thin = data.thin_out(rows, 4)
    assert list(thin.splits["train"]["text"]) == list("adehi")  # every second of either label
    assert list(thin.splits["test"]["text"]) == list("kno")
    assert thin.notes == ["a subsample: 5 of 10 training rows"]


def test_leaks_are_looked_for_before_the_rows_are_thinned_out(load):
    files = {"train": table(60), "validation": table(20, word="held"), "test": table(60, word="test")}
    files["test"].loc[1, "text"] = files["train"].loc[7, "text"]
    with pytest.raises(UserError, match="1 train rows"):
        load(options={"rows": 10}, **files)


def test_padding_share_is_that_of_batches_padded_to_their_longest_row():
    assert data.padding_share([2, 4, 3, 3], 2) == pytest.approx(1 - 12 / 14)
    assert data.padding_share([3, 3, 3], 2) == 0


def test_tokens_are_truncated_unpadded_and_their_labels_renamed():
    rows = splits_of(train=["a film", "the town was quite lovely today"], test=["bad"])
    tokens = data.tokenise(rows, tiny_tokenizer(), max_length=6)
    assert list(tokens["train"]["length"]) == [4, 6]
    assert [len(ids) for ids in tokens["train"]["input_ids"]] == [4, 6]
    assert list(tokens["train"]["labels"]) == [0, 1]
    assert "label" not in tokens["train"].column_names
    assert isinstance(data.tokenise(rows["test"], tiny_tokenizer(), 6), Dataset)


# --- the package's own data sets


def test_a_data_set_of_the_package_is_found_by_its_name_before_the_hubs(monkeypatch):
    words = {"train": ("fine", "dull"), "validation": ("great", "awful"), "test": ("lovely", "bad")}
    tables = {
        split: Dataset.from_dict({"id": pair, "text": [f"a {word} film" for word in pair], "label": [1, 0]})
        for split, pair in words.items()
    }
    mine = data.Rows(DatasetDict(tables), ["bad", "good"])
    monkeypatch.setitem(splits_module.DATA_SETS, "mine", lambda: mine)
    settings = settings_from({"dataset_id": "mine"})
    assert data.load_rows(settings).splits["test"]["id"][:] == ["lovely", "bad"]
    assert str(settings.output) == "runs/mine"


def test_the_default_data_set_has_a_name_too(monkeypatch):
    monkeypatch.setitem(splits_module.DATA_SETS, "movie-snippets", lambda: pytest.fail("asked"))
    with pytest.raises(pytest.fail.Exception, match="asked"):
        data.load_rows(settings_from({}))


@pytest.mark.parametrize("option", [{"task": "number"}, {"text_pair_column": "b"}, {"label_separator": ";"}])
def test_what_is_meant_for_other_rows_is_not_passed_over(option):
    with pytest.raises(UserError, match="are for other rows"):
        data.load_rows(settings_from(option))


@pytest.mark.parametrize("labels", [[0, 1] * 30, [0, 1, 2] * 20, [0] * 20 + [1] * 20 + [data.UNLABELLED] * 20])
def test_a_subsample_keeps_each_labels_share_whatever_the_order_of_rows(labels):
    part = Dataset.from_dict({"text": [str(index) for index in range(60)], "label": labels})
    for wanted in (30, 20, 15):
        thin = data.thin_out(data.Rows(DatasetDict(train=part, test=part), ["a", "b", "c"]), wanted)
        for split in thin.splits.values():
            counts = [split["label"][:].count(label) / labels.count(label) for label in set(labels)]
            assert max(counts) - min(counts) <= 1 / min(map(labels.count, set(labels)))


def test_what_a_model_does_not_read_is_said():
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 8
    rows = Dataset.from_dict({"text": ["good " * 20, "good film", "fine"], "label": [0, 1, 1]})
    assert data.lost_in_reading(data.tokenise(rows, tokenizer, 8), tokenizer) == [
        "1 of 3 training texts fill the longest input, 8 tokens, or are cut"
    ]
    strange = data.tokenise(Dataset.from_dict({"text": ["Ж Ж Ж", "Ж"], "label": [0, 1]}), tokenizer, 8)
    assert "of the tokens are unknown" in data.lost_in_reading(strange, tokenizer)[0]
    assert data.lost_in_reading(data.tokenise(rows.select([1, 2]), tokenizer, 8), tokenizer) == []


def test_a_subsample_that_leaves_one_class_is_refused(load):
    files = {"train": table(60), "validation": table(20, word="held"), "test": table(60, word="test")}
    with pytest.raises(UserError, match="fewer than two classes"):
        load(options={"rows": 1}, **files)
