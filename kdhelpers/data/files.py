"""The reader's own rows, from .csv, .tsv, .jsonl, .parquet or .txt; what is wrong with a file is said with its line."""

import csv
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, DatasetDict

from kdhelpers.data.rows import Rows, checked_rows, require_column, with_texts
from kdhelpers.data.snippets import fetch_other_snippets
from kdhelpers.errors import UserError
from kdhelpers.settings import FILES, ROW_FILES, RunSettings

QUOTED_AS_IN_CSV = re.compile('"[^"]*(""[^"]*)+"')
OF_THE_PACKAGE = {"other-snippets": fetch_other_snippets}  # text that can be named like a file
Records = Iterator[tuple[str, list, list]]  # where a row begins, the names of its columns, its values


def file_rows(settings: RunSettings) -> Rows:
    """The rows of the settings' files; labels are still names. Raises UserError for what is wrong in a file."""
    of_rows = {name: digest for name, digest in digests(settings).items() if name in ROW_FILES}
    for (one, digest), (two, other) in itertools.combinations(of_rows.items(), 2):
        if digest == other:
            raise UserError(f"--{one} and --{two} hold the same rows: give each row once, or nothing can be measured")
    found = {}
    columns = settings.text_column, settings.label_column, settings.text_pair_column, settings.separator
    for name in ROW_FILES[:3]:  # the rows without labels join those of any source
        if path := getattr(settings, name):
            found[name] = read_file(path, *columns)
    read = [f"{len(rows):,} in {getattr(settings, name)}" for name, rows in found.items()]
    splits = DatasetDict({name: Dataset.from_list(rows) for name, rows in found.items()})
    return Rows(splits, [], notes=[f"rows read: {', '.join(read)}"])


def with_more_text(rows: Rows, settings: RunSettings) -> Rows:
    """The rows, and beside the training rows the texts of --unlabelled. Raises UserError for what is wrong in them."""
    if not settings.unlabelled:
        return rows
    read = read_file(settings.unlabelled, settings.text_column, None, settings.text_pair_column)
    return with_texts(rows, read, f"texts without labels join the training rows: {settings.unlabelled}")


def located(path: str) -> Path:
    """Where rows that are named like a file lie; the text that `OF_THE_PACKAGE` names is fetched. Raises UserError."""
    return OF_THE_PACKAGE[path]() if path in OF_THE_PACKAGE else Path(path).expanduser()


def digests(settings: RunSettings) -> dict[str, str]:
    """The sha256 of every file that the settings name: a run is only resumed with the rows that it began with."""
    named = {name: getattr(settings, name) for name in FILES}
    files = {name: located(path) for name, path in named.items() if path}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path.is_file()}


def read_file(
    path: str,
    text_column: str,
    label_column: str | None,
    pair_column: str | None = None,
    separator: str | None = None,
) -> list[dict]:
    """Rows as {"text": str, "label": str or None, "where": "train.csv, line 7"}; see `checked_rows` for the others.

    Raises UserError, naming file and line, for whatever a person would not read as a row.
    """
    wanted = [column for column in (text_column, pair_column, label_column) if column]
    return checked_rows(read_records(path, wanted), text_column, label_column, pair_column, separator)


def read_records(path: str, wanted: list[str]) -> list[tuple[str, dict]]:
    """Each row of a file as its place ("train.csv, line 7") and its values by column; it has the `wanted` columns.

    A .txt file has one column, the first of `wanted`, or "text". Raises UserError, naming file and line.
    """
    file = located(path)
    if not file.is_file():
        raise UserError(f"no file {path}")
    if file.suffix.lower() not in READERS:
        raise UserError(f"{path}: cannot read {file.suffix or 'this'}; use .csv, .tsv, .jsonl or .parquet")
    records = []
    for place, names, values in READERS[file.suffix.lower()](file):
        columns = names or wanted[:1] or ["text"]
        for column in wanted:
            require_column(column, columns, f"{path}, {place}")
        records.append((f"{path}, {place}", dict(zip(columns, values, strict=True))))
    if not records:
        raise UserError(f"{path} has no rows")
    return records


def _decoded(file: Path) -> str:
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + raw.count(b"\n", 0, error.start)
        what = f"byte 0x{raw[error.start]:02x} on line {line}"
        raise UserError(f"{file} is not UTF-8: {what}; save it as UTF-8") from error


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank; str.splitlines would also break them at U+2028, U+0085 and form feeds."""
    lines = _decoded(file).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ((f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip())


def _json_lines(file: Path) -> Records:
    for place, line in _lines(file):
        try:
            pairs = json.loads(line, object_pairs_hook=tuple)  # a dict would not show a name that is given twice
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}, {place} is not JSON ({getattr(error, 'msg', error)})") from error
        if not isinstance(pairs, tuple):
            raise UserError(f'{file}, {place} is not a JSON object like {{"text": ..., "label": ...}}')
        yield place, [name for name, _ in pairs], [value for _, value in pairs]


def _separated(file: Path, **dialect: Any) -> Records:
    """Rows with as many fields as the header. pandas would fill short rows and take surplus columns for an index."""
    content = _decoded(file)
    csv.field_size_limit(2**31 - 1)
    lines = io.StringIO(content if "\n" in content else content.replace("\r", "\n"), newline="\n")
    reader, line = csv.reader(lines, **dialect), 1
    header: list[str] = []
    try:
        for fields in reader:
            if not header or not fields:  # blank lines are no rows
                header = header or fields
            elif len(fields) != len(header):
                why = f"has {len(fields)} field(s), the header {len(header)}: is a separator in a text not quoted?"
                raise UserError(f"{file}, line {line} {why}")
            elif fields == header or any(QUOTED_AS_IN_CSV.fullmatch(field.strip()) for field in fields):
                raise UserError(f"{file}, line {line} is the header again, or quoted where quoting is not read")
            else:
                yield f"line {line}", header, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}, line {line} is damaged ({error})") from error


def _comma_separated(file: Path) -> Records:
    """As above; a quotation mark that is not closed swallows the rows up to the next one, which is found here."""
    rows = list(_separated(file, strict=True))
    known = {(column, field) for _, _, fields in rows for column, field in enumerate(fields) if field}
    for place, names, fields in rows:
        inside = [part.strip().split(",") for field in fields if "\n" in field for part in field.split("\n")]
        if any(len(part) == len(names) and not known.isdisjoint(enumerate(part)) for part in inside):
            raise UserError(f"{file}, {place} holds further rows: a quotation mark is missing")
        yield place, names, fields


def _parquet(file: Path) -> Records:
    try:
        table = pd.read_parquet(file, dtype_backend="numpy_nullable")  # whole numbers with gaps stay whole numbers
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{file} is not a Parquet file: {str(error).splitlines()[0]}") from error
    if any(table.index.names):  # a column of the file, which pandas has taken for the rows' names
        table = table.reset_index(allow_duplicates=True)
    rows = enumerate(table.itertuples(index=False, name=None), 1)
    return ((f"row {number}", list(table.columns), list(values)) for number, values in rows)


READERS: dict[str, Callable[[Path], Records]] = {
    ".csv": _comma_separated,
    ".tsv": partial(_separated, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".txt": lambda file: ((place, [], [line]) for place, line in _lines(file)),
}
