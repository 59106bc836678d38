"""The reader's own rows, from .csv, .tsv, .jsonl, .parquet or .txt; what is wrong with a file is said with its line."""

import io
import json
import math
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict

from kdhelpers.data.rows import SPLIT_SEED, UNLABELLED, Rows, require_column
from kdhelpers.errors import UserError


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
