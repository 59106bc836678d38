"""The default rows: fetched once with checksums, split as promised."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from kdhelpers import data
from kdhelpers.data import packages, snippets, splits
from kdhelpers.errors import UserError
from kdhelpers.settings import recipe

# Invented rows in the snippets' format: id, rating, text.
INVENTED = "".join(f"{n}\t{(-1) ** n * (1 + n % 3)}.25\tinvented snippet number {n} of many\n" for n in range(1, 61))
INVENTED += "61\t0.1\ta neutral one\n62\t2.0\tInvented  SNIPPET number 2 of many\n63\t2.0\tpart one\u2028\tpart two\n"


INVENTED_OTHERS = {
    "amazonReviewSnippets": "1_1\t-0.9\tan invented product\n1_2\t0.9\tINVENTED snippet number 4 of many\n",
    "nytEditorialSnippets": "1_1\t0.2\tan invented editorial\n1_2\t0.2\tAn  Invented product\n",
    "tweets": "1\t3.1\tan invented tweet\n2\t0\t \n",
}


def archive_of(content: bytes) -> bytes:
    """The package's source archive as far as anyone looks at it: an archive in an archive."""

    def pack(members):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, body in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
        return buffer.getvalue()

    members = {name: text.encode() for name, text in INVENTED_OTHERS.items()} | {snippets.MOVIES: content}
    inside = pack({snippets.MEMBER.format(name): body for name, body in members.items()})
    return pack({f"vaderSentiment-3.3.2/{snippets.ARCHIVE}": inside})


@pytest.fixture
def fake_pip(monkeypatch, tmp_path):
    """A cache of its own and a pip that 'downloads' the invented snippets; counts its calls."""
    content = INVENTED.encode()
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    monkeypatch.setattr(snippets, "SHA256", hashlib.sha256(content).hexdigest())
    calls = []

    def run(command, **kwargs):
        calls.append(command)
        folder = command[command.index("--dest") + 1]
        wanted = Path(command[command.index("--requirement") + 1]).read_text(encoding="utf-8")
        assert "--require-hashes" in command
        assert snippets.PACKAGE_SHA256 in wanted
        Path(folder, "vaderSentiment-3.3.2.tar.gz").write_bytes(archive_of(content))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", run)
    return calls


def test_snippets_are_fetched_once(fake_pip):
    first = data.fetch_movie_snippets()
    assert data.fetch_movie_snippets() == first
    assert len(fake_pip) == 1


def test_a_line_of_the_snippets_is_a_row_whatever_is_in_its_text(fake_pip):
    rows = data.read_movie_snippets()
    assert len(rows) == 63
    assert rows[0] == {"id": "1", "rating": -2.25, "text": "invented snippet number 1 of many"}
    assert rows[-1]["text"] == "part one\u2028\tpart two"


@pytest.mark.parametrize("damage", [b"", INVENTED.encode()[:100], b"something else"])
def test_a_damaged_cache_is_replaced(fake_pip, damage):
    path = data.fetch_movie_snippets()
    path.write_bytes(damage)
    assert data.fetch_movie_snippets().read_bytes() == INVENTED.encode()
    assert len(fake_pip) == 2


def test_a_failed_download_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("KD_HOME", str(tmp_path))
    answer = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *args, **kwargs: answer)
    with pytest.raises(UserError, match="the snippets.*No matching distribution.*KD_HOME") as caught:
        data.fetch_movie_snippets()
    assert "\n" not in str(caught.value)


def test_another_file_in_the_package_is_refused(fake_pip, monkeypatch, tmp_path):
    monkeypatch.setattr(snippets, "SHA256", "0" * 64)
    with pytest.raises(UserError, match="checksum differs"):
        data.fetch_movie_snippets()
    assert not (tmp_path / "kd" / "data" / "movie_snippets.tsv").exists()


OTHERS = ["a neutral one", "an invented editorial", "an invented product", "an invented tweet"]


def test_what_else_is_in_the_archive_is_text_without_the_rows_of_the_recipes(fake_pip, monkeypatch):
    expected = "".join(f"{text}\n" for text in OTHERS).encode()
    monkeypatch.setattr(snippets, "OTHERS_SHA256", hashlib.sha256(expected).hexdigest())
    path = data.fetch_other_snippets()
    assert path.read_bytes() == expected
    assert data.located("other-snippets") == path
    assert len(fake_pip) == 1, "the second time it is in the cache"
    known = {data.fold(text) for part in data.movie_snippets(20, 10, 10).splits.values() for text in part["text"]}
    assert known.isdisjoint(OTHERS)


@pytest.mark.parametrize("recipe_name", ["movie-snippets", "movie-ratings"])
def test_more_text_joins_a_recipes_training_rows_without_labels(fake_pip, monkeypatch, recipe_name, tmp_path):
    small = data.movie_snippets(20, 10, 10) if recipe_name == "movie-snippets" else data.movie_ratings(20, 10, 10)
    source = {"movie-snippets": lambda: small, "movie-ratings": lambda: small}
    monkeypatch.setattr(splits, "DATA_SETS", source)
    more = tmp_path / "more.txt"
    more.write_text("".join(f"{text}\n" for text in OTHERS[1:]))
    rows = data.load_rows(recipe(recipe_name, unlabelled=str(more)))
    assert rows.counts() == small.counts() | {"unlabelled": small.counts()["unlabelled"] + 3}
    train, before = rows.splits["train"], small.splits["train"]
    assert train.features == before.features
    assert train["text"][:] == before["text"][:] + OTHERS[1:]
    assert len(set(train["id"])) == len(train)
    assert any("3 texts without labels" in note for note in rows.notes)
    more.write_text(small.splits["test"]["text"][0])
    with pytest.raises(UserError, match="1 train rows are in test too"):
        data.load_rows(recipe(recipe_name, unlabelled=str(more)))


def test_movie_snippets_are_split_as_promised(fake_pip):
    rows = data.movie_snippets(labelled=20, validation=10, test=10)
    assert rows.counts() == {"labelled": 20, "unlabelled": 21, "validation": 10, "test": 10}
    texts = [text for split in rows.splits.values() for text in split["text"]]
    assert len({data.fold(text) for text in texts}) == len(texts) == 61, "neutral and repeated rows are gone"
    assert data.movie_snippets(20, 10, 10).splits["test"]["id"] == rows.splits["test"]["id"], "the split is fixed"
    assert data.leaking_rows(rows.splits) == []
    ratings = {row["id"]: row["rating"] for row in data.read_movie_snippets()}
    for split in rows.splits.values():
        for row in split:
            assert row["label"] in (data.UNLABELLED, int(ratings[row["id"]] > 0))


def test_no_label_need_be_withheld(fake_pip):
    whole = data.DATA_SETS["movie-snippets-labelled"](validation=10, test=10)
    assert whole.counts() == {"labelled": 41, "unlabelled": 0, "validation": 10, "test": 10}
    assert whole.splits["train"]["id"][:] == data.movie_snippets(20, 10, 10).splits["train"]["id"][:]


def test_the_default_split_is_the_one_that_every_published_number_rests_on():
    """Reads the real snippets, where they are in the cache; their rows and order must never change."""
    from kdhelpers.storage import cache_home

    if not (cache_home() / "data" / "movie_snippets.tsv").is_file():
        pytest.skip("the snippets have not been downloaded here")
    split = {
        name: hashlib.sha256(json.dumps([list(part[column]) for column in part.column_names]).encode()).hexdigest()
        for name, part in data.movie_snippets().splits.items()
    }
    assert {name: digest[:16] for name, digest in split.items()} == {
        "train": "d867f951b471a44c",
        "validation": "7893431f20ca6bff",
        "test": "a814767790db1eca",
    }


def test_the_other_texts_are_the_known_ones_and_none_is_a_row_of_the_recipes():
    """Reads the real ones, where they are in the cache."""
    from kdhelpers.storage import cache_home

    if not (cache_home() / "data" / "other_snippets.txt").is_file():
        pytest.skip("the other snippets have not been downloaded here")
    texts = data.fetch_other_snippets().read_text(encoding="utf-8").strip().split("\n")
    assert len(texts) == len({data.fold(text) for text in texts}) == 13485
    rows = {data.fold(text) for part in data.movie_snippets().splits.values() for text in part["text"]}
    assert rows.isdisjoint(map(data.fold, texts))
