"""A teacher is anything that answers: here a file of answers, or a function from texts to answers."""

import hashlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import logit

from kdhelpers import data
from kdhelpers.data import Task
from kdhelpers.errors import UserError
from kdhelpers.runtime import progress_bar
from kdhelpers.storage import cache_home, fingerprint

log = logging.getLogger(__name__)

SMALLEST = 1e-6  # stands for a probability of 0, whose logarithm is no number
Function = Callable[[list], Any]  # texts, or pairs of texts, to answers [texts, classes]


@dataclass(frozen=True)
class Answers:
    """A teacher that is no model here, as `prepare(settings, teacher=...)` takes it.

    `of(rows, label_names)` returns float32 logits [rows, classes] for rows with `id` and `text` (of sentence pairs
    `text_pair`, too), in the order of the label names, or None where it knows no answer for any of them. Where the rows
    are not for one label their task is its third argument.
    """

    source: str
    of: Callable[..., np.ndarray | None]
    label_names: tuple[str, ...] = ()  # empty: those of the rows


def as_logits(answers: np.ndarray, where: Callable[[int], str], task: Task = Task.ONE) -> np.ndarray:
    """Probabilities, log-probabilities or logits [rows, classes] as float32 logits; `where(row)` names a row.

    Of several labels probabilities need not sum to 1, values of which one lies outside [0, 1] are logits, and
    log-probabilities are not read; numbers [rows, 1] stay what they are. Raises UserError for a value that is no
    number, for rows of probabilities that do not sum to 1 among others that do, and for percentages, counts and scores
    of single classes, none of the three.
    """
    answers = np.asarray(answers, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(answers).all(axis=1))
    if len(bad):
        raise UserError(f"{where(bad[0])} holds NaN or an infinite value: every class needs a number")
    # (of a few rows all may lie on one side by chance)
    if task is Task.SEVERAL and len(answers) >= 20 and (answers.max() <= 0 or answers.min() >= 0 and answers.max() > 1):
        what = "no label would ever apply" if answers.max() <= 0 else "every label would always apply"
        raise UserError(f"{where(0)} and the others are no logits, by which {what}: give probabilities")
    if task is Task.NUMBER or task is Task.SEVERAL and not ((answers >= 0) & (answers <= 1)).all():
        return answers.astype(np.float32)
    if task is Task.SEVERAL:
        return logit(answers.clip(SMALLEST, 1 - SMALLEST)).astype(np.float32)
    shares, totals = (answers >= 0).all(axis=1), answers.sum(1)
    summed = shares & (np.abs(totals - 1) <= 0.01)
    logs = np.abs(np.exp(np.minimum(answers, 1.0)).sum(1) - 1) <= 0.01
    for fitting, what in ((summed, "probabilities"), (logs, "log-probabilities")):
        if fitting.mean() >= 0.5 and not fitting.all():
            row = np.flatnonzero(~fitting)[0]
            raise UserError(f"{where(row)} is not like the others, whose {what} sum to 1: correct or drop it")
    if shares.all() and not summed.all() and (answers.max() <= 1 or np.ptp(totals) <= 0.01 * totals.max()):
        raise UserError(f"{where(0)} and the others are neither probabilities that sum to 1 nor logits: convert them")
    return (np.log(np.maximum(answers, SMALLEST)) if summed.all() else answers).astype(np.float32)


# --- a file ---------------------------------------------------------------------------------------------------------


def answers_from_file(
    path: str,
    text_column: str = "text",
    label_column: str = "label",
    pair_column: str | None = None,
    task: Task | None = Task.ONE,
) -> Answers:
    """A .csv, .tsv, .jsonl or .parquet file with a column a class, joined to the rows by `id` or by text.

    The columns hold probabilities, log-probabilities or logits, or one column a number; of sentence pairs both texts
    are joined by. A `task` of None is left to the rows. Raises UserError, naming the line, for what is no number, for a
    row that is there twice, and for a file without anything to join by; and when it is asked, for other classes than
    the rows', and for rows of which it knows some and not all.
    """
    records = data.read_records(path, [])
    columns = list(records[0][1])
    texts = (text_column, pair_column) if pair_column else (text_column,)
    keys = [key for key in (("id",), texts) if set(key) <= set(columns)]
    classes = [column for column in columns if column not in ("id", label_column, *texts)]
    if not keys:
        both = f"both {text_column!r} and {pair_column!r}" if pair_column else repr(text_column)
        raise UserError(f"{path} has neither a column 'id' nor {both} to join its answers by")
    if not classes:
        raise UserError(f"{path} has no column of answers, only {', '.join(columns)}: it needs one for every class")
    table = np.array([[_number(place, record, name) for name in classes] for place, record in records])
    known = None if task is None else as_logits(table, lambda row: records[row][0], task)
    places = {key: _unique(records, key) for key in keys}

    def of(rows: Dataset, label_names: list[str], task: Task = Task.ONE) -> np.ndarray | None:
        order = [0] if task is Task.NUMBER and len(classes) == 1 else _in_order(path, classes, label_names)
        logits = as_logits(table, lambda row: records[row][0], task) if known is None else known
        for key in keys:
            found = _found(places[key], rows, key, path)
            if found is not None:
                _require_same_texts([records[row] for row in found], rows, texts)
                return logits[found][:, order]
        return None

    return Answers(path, of, tuple(name.strip() for name in classes))


def _found(places: dict, rows: Dataset, key: tuple[str, ...], path: str) -> list[int] | None:
    """The line of each row's answer; None where there is none for any."""
    found = [places.get(value) for value in (rows["id"][:] if key == ("id",) else data.texts_of(rows))]
    known = [row for row in found if row is not None]
    if known and len(known) < len(found):
        first = rows[found.index(None)]
        by = " and ".join(map(repr, key))
        missing = f"{len(found) - len(known):,} of {len(found):,} rows have no answer in {path} by {by}"
        raise UserError(f"{missing}, the first is {data.quoted(first['text'])}")
    return known or None


def _require_same_texts(answers: list[tuple[str, dict]], rows: Dataset, columns: tuple[str, ...]) -> None:
    """Raise UserError where an answer that was joined by id has the text of another row beside it."""
    for (place, record), text, row_id in zip(answers, data.texts_of(rows), rows["id"][:], strict=True):
        ours = text if isinstance(text, tuple) else (text,)
        beside = zip(columns, ours, strict=False)
        if any(data.fold(str(record.get(name) or one)) != data.fold(one) for name, one in beside):
            why = f"has the id {row_id!r} and another text than that row, {data.quoted(text)}"
            raise UserError(f"{place} {why}: are the ids those of these rows? Without them texts are joined")


def _number(place: str, record: dict, column: str) -> float:
    try:
        return float(record[column])
    except (TypeError, ValueError, KeyError) as error:
        found = record.get(column)
        raise UserError(f"{place} has {found!r} for the class {column!r}: every class needs a number") from error


def _unique(records: list[tuple[str, dict]], key: tuple[str, ...]) -> dict:
    """The row of each value of the columns that rows are joined by: a text, or of several columns a tuple."""
    rows: dict = {}
    for row, (place, record) in enumerate(records):
        texts = tuple(str(record[column]).strip() for column in key)
        value = texts if len(key) > 1 else texts[0]
        if value in rows:
            shown = ", ".join(map(data.quoted, texts))
            raise UserError(f"{place} answers for {' and '.join(key)} {shown} again, after {records[rows[value]][0]}")
        rows[value] = row
    return rows


def _in_order(path: str, classes: list[str], names: list[str]) -> list[int]:
    """The columns of a file in the order of the label names."""
    forms = {data.normal_label(name): column for column, name in enumerate(classes)}
    wanted = [data.normal_label(name) for name in names]
    if len(forms) != len(classes) or set(forms) != set(wanted):
        raise UserError(f"{path} answers for the classes {data.listed(classes)}; the rows' are {data.listed(names)}")
    return [forms[name] for name in wanted]


# --- a function -----------------------------------------------------------------------------------------------------


def answers_from(function: Function, name: str, label_names: Sequence[str] = (), **how: Any) -> Answers:
    """A function from a list of texts to [texts, classes] as a teacher: an API, an LLM, a rule.

    It returns probabilities, log-probabilities or logits in the order of the rows' classes (`label_names`, where the
    rows have no labels to tell them); of a number [texts, 1]. Of sentence pairs it is given a list of tuples (text,
    second text). `name` and `how` are those of `ask`.
    """

    def of(rows: Dataset, names: list[str], task: Task = Task.ONE) -> np.ndarray:
        texts = data.texts_of(rows)
        answers = ask(function, texts, name, **how)
        if answers.shape[1] != len(names):
            raise UserError(f"{name} answers for {answers.shape[1]} classes; the rows' are {data.listed(names)}")
        return as_logits(answers, lambda row: f"{name}'s answer to {data.quoted(texts[row])}", task)

    return Answers(name, of, tuple(label_names))


def ask(
    function: Function,
    texts: list,
    name: str,
    *,
    batch_size: int = 32,
    attempts: int = 5,
    wait: float = 1.0,
) -> np.ndarray:
    """What `function` answers for each text, float64 [texts, classes]: asked in batches, each text once, and kept.

    A pair of texts is a tuple. Answers are kept on disk under `name` as they come, so that what was paid for is not
    asked again, after an interruption or in another run: give another name to another model, prompt or version. A
    function that *yields* its rows, one a text, loses none of those before a failure; one that returns a batch at once
    is asked for that batch again. A failure of the network (OSError, a time-out, HTTP 408, 429 and 5xx) is tried
    again, `attempts` times, after `wait` seconds, then twice as long, or as long as the server's Retry-After says.
    Raises UserError where that did not help, and for an answer of another shape; any other exception of the function
    goes through.

    >>> ask(lambda texts: [[0.5, 0.5] for _ in texts], ["so so"], "undecided")  # doctest: +SKIP
    array([[0.5, 0.5]])
    """
    path = cache_home() / "answers" / f"{fingerprint(name)}.jsonl"
    kept = _kept(path)
    missing = [text for text in dict.fromkeys(texts) if _key(text) not in kept]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, progress_bar(len(missing), name, unit="texts") as bar:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            for text, answer in zip(batch, _asked(function, batch, name, attempts, wait), strict=True):
                kept[_key(text)] = answer
                file.write("\n" + json.dumps([_key(text), answer]))  # after a torn line, a new one
                file.flush()
                bar.update()
    widths = {len(kept[_key(text)]) for text in texts}
    if len(widths) > 1:
        raise UserError(f"{name} has answered for {' and for '.join(map(str, sorted(widths)))} classes: rename it")
    return np.array([kept[_key(text)] for text in texts])


def _key(text: str | tuple[str, str]) -> str:
    whole = text if isinstance(text, str) else json.dumps(text)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def _kept(path: Path) -> dict[str, list[float]]:
    """The answers in a file; a line that was torn by an interruption is passed over."""
    kept = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            key, answer = json.loads(line)
            kept[key] = answer
        except ValueError:
            continue
    return kept


def _asked(function: Function, batch: list, name: str, attempts: int, wait: float) -> Iterator[list[float]]:
    """The batch's answers, each as soon as it is there; after a failure only the texts without one are asked again."""
    failed = 0
    while batch:
        try:
            for answer in _answers(function, batch, name):
                yield answer
                batch, failed = batch[1:], 0
        except Exception as error:  # network libraries have no common type
            if isinstance(error, UserError) or not _passing(error):
                raise
            said = (str(error).splitlines() or [type(error).__name__])[0].split(" for url")[0]
            failed += 1
            if failed == attempts:
                raise UserError(f"{name} failed {attempts} times ({said}); what it answered before is kept") from error
            seconds = _retry_after(error) or wait * 2 ** (failed - 1)
            log.info("%s: %s; trying again in %.0f s", name, said, seconds)
            time.sleep(seconds)


def _answers(function: Function, batch: list, name: str) -> Iterator[list[float]]:
    said = function(batch)
    if not inspect.isgenerator(said):
        yield from _rows(said, batch, name)
        return
    for text in batch:
        yield from _rows([next(said, None)], [text], name)
    if next(said, None) is not None:
        raise UserError(f"{name} yielded more rows than the {len(batch)} texts that it was given: one a text is wanted")


def _rows(answers: Any, batch: list, name: str) -> list[list[float]]:
    table = np.asarray(answers, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(batch) or not np.isfinite(table).all():
        raise UserError(
            f"{name} answered {table.shape} to the batch that begins {data.quoted(batch[0])}: "
            f"finite numbers of shape [{len(batch)}, classes] are wanted"
        )
    return table.tolist()


def _passing(error: Exception) -> bool:
    """Whether an error may be gone a moment later."""
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    if isinstance(status, int) and status >= 400:
        return status in (408, 429) or status >= 500
    return isinstance(error, OSError) or "Timeout" in type(error).__name__ or "Connect" in type(error).__name__


def _retry_after(error: Exception) -> float | None:
    """The seconds that a server asks to wait (RFC 9110), where it says so in seconds."""
    headers = getattr(getattr(error, "response", error), "headers", None) or {}
    value = str(headers.get("Retry-After", ""))
    return float(value) if value.isdigit() else None
