"""The teacher reads every row once; its answers become a dataset column that is kept on disk.

A large corpus is read shard by shard, by any number of processes on any number of machines that share a folder.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets, load_from_disk
from scipy.special import log_expit, log_softmax, logsumexp
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdhelpers import data, models
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.errors import UserError
from kdhelpers.runtime import Machine
from kdhelpers.storage import cache_home, fingerprint, write_folder

log = logging.getLogger(__name__)


def table_hash(rows: Dataset, columns: Sequence[str] = ("input_ids",)) -> str:
    """A hash of some columns' values (numbers, or lists of them) in the rows' order, without a Python object each."""
    digest = hashlib.sha256()
    for part in rows.select_columns(list(columns)).with_format("arrow").iter(10_000):
        for name in columns:
            values = part[name].combine_chunks()
            if pa.types.is_list(values.type):
                digest.update(values.value_lengths().to_numpy().tobytes())
                values = values.flatten()
            numbers = values.to_numpy(zero_copy_only=False)
            digest.update(numbers.astype(np.float64 if numbers.dtype.kind == "f" else np.int64).tobytes())
    return digest.hexdigest()


def logits_fingerprint(
    teacher: PreTrainedModel, rows: Dataset, tokenizer: PreTrainedTokenizerBase, precision: str
) -> str:
    """A hash of all that the answers depend on: teacher (weights, configuration), tokenizer, rows, precision.

    The rows' tokens, in order, stand for both text and maximum length: if either changes what the teacher reads,
    they change.
    """
    vocabulary = sorted(tokenizer.get_vocab().items())
    read = token_columns(rows)
    return fingerprint(models.weights_fingerprint(teacher), vocabulary, precision, table_hash(rows, read))


def token_columns(rows: Dataset) -> tuple[str, ...]:
    """The columns that say what a model reads: tokens, and of sentence pairs which of the two each belongs to."""
    pairs = {"text_pair", "token_type_ids"} <= set(rows.column_names)
    return ("input_ids", "token_type_ids") if pairs else ("input_ids",)


def add_teacher_logits(
    rows: Dataset,
    teacher_rows: Dataset,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    machine: Machine,
    cache: Path | None = None,
) -> tuple[Dataset, float]:
    """`rows` with the column `teacher_logits`, and the seconds that the teacher needed (0 from the cache).

    `teacher_rows` are the same rows with the teacher's own tokens. The column is cached under a fingerprint (see
    `logits_fingerprint`), so another teacher, tokenizer or maximum length never meets answers that are not its own.
    A cache that cannot be read is made again. A job that was given answers (KD_ANSWERS=given) does not pay for a
    second reading: UserError where they do not fit.
    """
    name = logits_fingerprint(teacher, teacher_rows, tokenizer, machine.precision)
    folder = (cache or cache_home() / "logits") / name
    column, seconds = read_cached(folder, len(rows)), 0.0
    if column is None and os.environ.get("KD_ANSWERS") == "given":
        raise UserError(
            "the answers that were given are not of this run's rows: teacher, rows and their order, longest input and "
            f"precision (here {machine.precision}) have to be those that were labelled"
        )
    if column is None:
        started = time.perf_counter()
        column = as_column(
            models.predict_logits(teacher, teacher_rows, tokenizer, machine, progress="teacher's logits")
        )
        seconds = time.perf_counter() - started
        write_folder(folder, column.save_to_disk)
        log.info("teacher's logits for %d rows: made in %.0f s and cached", len(rows), seconds)
    else:
        log.info("teacher's logits for %d rows: from the cache", len(rows))
    return with_column(rows, column), seconds


def with_column(rows: Dataset, answers: Dataset | np.ndarray) -> Dataset:
    """`rows` with the column `teacher_logits`, in place of one that is there."""
    column = as_column(answers) if isinstance(answers, np.ndarray) else answers
    if TEACHER_LOGITS in rows.column_names:
        rows = rows.remove_columns(TEACHER_LOGITS)
    return concatenate_datasets([rows, column], axis=1)


def hard_answers(rows: Dataset, task: data.Task = data.Task.ONE) -> Dataset:
    """The rows with the teacher's likeliest class, or labels, as every row's label: pseudo-labels (Lee 2013)."""
    likeliest = data.predictions(as_array(rows), task)
    likeliest = likeliest if task is data.Task.ONE else likeliest.astype(float).tolist()
    return rows.remove_columns(["labels", TEACHER_LOGITS]).add_column("labels", likeliest)


def mean_of_probabilities(logits: list[np.ndarray], task: data.Task = data.Task.ONE) -> np.ndarray:
    """What several teachers say together, float32 [rows, outputs]: the logarithm of their mean probabilities.

    Of several labels that is the log-odds of the mean probability, of numbers the mean.
    """
    if task is data.Task.NUMBER:
        return np.stack(_wide(logits)).mean(axis=0).astype(np.float32)
    each = [log_expit(x) if task is data.Task.SEVERAL else log_softmax(x, axis=-1) for x in _wide(logits)]
    together: np.ndarray = logsumexp(np.stack(each), axis=0) - np.log(len(logits))
    if task is data.Task.SEVERAL:
        together -= logsumexp(np.stack([log_expit(-x) for x in _wide(logits)]), axis=0) - np.log(len(logits))
    return together.astype(np.float32)


def _wide(logits: list[np.ndarray]) -> list[np.ndarray]:
    return [each.astype(np.float64) for each in logits]


def as_column(logits: np.ndarray) -> Dataset:
    """float32 [rows, classes] as a table of one column; arrow all the way, no Python number a value."""
    flat = pa.array(np.ascontiguousarray(logits, dtype=np.float32).ravel())
    lists = pa.ListArray.from_arrays(np.arange(0, logits.size + 1, logits.shape[1], dtype=np.int32), flat)
    return Dataset(pa.table({TEACHER_LOGITS: lists}))


def as_array(column: Dataset) -> np.ndarray:
    """The inverse of `as_column`, of a table that has the column: float32 [rows, classes]."""
    lists = column.select_columns(TEACHER_LOGITS).with_format("arrow")[:][TEACHER_LOGITS].combine_chunks()
    return lists.flatten().to_numpy().reshape(len(lists), -1).astype(np.float32, copy=False)


def read_cached(folder: Path, expected_rows: int) -> Dataset | None:
    """A cached column of so many rows, all finite; None where it is missing, or damaged and removed."""
    if not folder.is_dir():
        return None
    try:
        column = load_from_disk(str(folder))
        if len(column) == expected_rows and np.isfinite(as_array(column)).all():
            return column
    except Exception as error:  # whatever is wrong with a cache, the answer is to make it again
        log.info("the cached logits cannot be read (%s)", type(error).__name__)
    shutil.rmtree(folder, ignore_errors=True)
    return None
