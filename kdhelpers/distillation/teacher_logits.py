"""The teacher reads every row once; its answers become a dataset column that is kept on disk."""

import hashlib
import json
import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets, load_from_disk
from transformers import PreTrainedModel

from kdhelpers import models
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.runtime import Machine
from kdhelpers.storage import cache_home, write_folder

log = logging.getLogger(__name__)


def logits_fingerprint(teacher: PreTrainedModel, rows: Dataset, tokenizer, precision: str) -> str:
    """A hash of all that the answers depend on: teacher (weights, configuration), tokenizer, rows, precision.

    The rows' tokens, in order, stand for both text and maximum length: if either changes what the teacher reads,
    they change.
    """
    digest = hashlib.sha256(models.weights_fingerprint(teacher).encode())
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    digest.update(precision.encode())
    for ids in rows["input_ids"]:
        digest.update(np.asarray(ids, dtype=np.int32).tobytes() + b"|")
    return digest.hexdigest()[:24]


def add_teacher_logits(
    rows: Dataset, teacher_rows: Dataset, teacher: PreTrainedModel, tokenizer, machine: Machine,
    cache: Path | None = None,
) -> tuple[Dataset, float]:  # fmt: skip
    """`rows` with the column `teacher_logits`, and the seconds that the teacher needed (0 from the cache).

    `teacher_rows` are the same rows with the teacher's own tokens. The column is cached under a fingerprint (see
    `logits_fingerprint`), so another teacher, tokenizer or maximum length never meets answers that are not its own.
    A cache that cannot be read is made again.
    """
    name = logits_fingerprint(teacher, teacher_rows, tokenizer, machine.precision)
    folder = (cache or cache_home() / "logits") / name
    column, seconds = read_cached(folder, len(rows)), 0.0
    if column is None:
        started = time.perf_counter()
        logits = models.predict_logits(teacher, teacher_rows, tokenizer, machine, progress="teacher's logits")
        seconds = time.perf_counter() - started
        column = as_column(logits)
        write_folder(folder, column.save_to_disk)
        log.info("teacher's logits for %d rows: made in %.0f s and cached", len(rows), seconds)
    else:
        log.info("teacher's logits for %d rows: from the cache", len(rows))
    if TEACHER_LOGITS in rows.column_names:
        rows = rows.remove_columns(TEACHER_LOGITS)
    return concatenate_datasets([rows, column], axis=1), seconds


def as_column(logits: np.ndarray) -> Dataset:
    """float32 [rows, classes] as a table of one column; arrow all the way, no Python number a value."""
    flat = pa.array(np.ascontiguousarray(logits, dtype=np.float32).ravel())
    lists = pa.ListArray.from_arrays(np.arange(0, logits.size + 1, logits.shape[1], dtype=np.int32), flat)
    return Dataset(pa.table({TEACHER_LOGITS: lists}))


def as_array(column: Dataset) -> np.ndarray:
    """The inverse of `as_column`: float32 [rows, classes]."""
    return np.stack(column.with_format("numpy")[TEACHER_LOGITS][:]).astype(np.float32, copy=False)


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
