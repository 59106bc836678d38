"""The teacher reads every row once; its logits become a dataset column that is kept on disk."""

import hashlib
import inspect
import json
import logging
import os
import shutil
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from tqdm import tqdm
from transformers import PreTrainedModel

from kdhelpers.console import show_progress
from kdhelpers.data import cache_home
from kdhelpers.models import weights_fingerprint
from kdhelpers.trainer import TEACHER_LOGITS

log = logging.getLogger(__name__)


def predict_logits(
    model: PreTrainedModel,
    rows: Dataset,
    tokenizer,
    *,
    batch_size: int = 64,
    bf16: bool = False,
    progress: str | None = None,
) -> np.ndarray:
    """The model's logits for tokenised rows: float32 [rows, classes], in the rows' own order.

    Rows are read shortest first, so that a batch holds rows of like length and little padding. (Trainer's own
    `predict` gives them back in that shuffled order when batches are grouped by length, hence this function.)
    The model is left in the mode it came in. `progress` names the bar; None shows none.
    """
    accepted = set(inspect.signature(model.forward).parameters) - {"labels"}
    columns = [name for name in rows.column_names if name in accepted]
    order = np.argsort([len(ids) for ids in rows["input_ids"]], kind="stable")
    table = rows.select_columns(columns).select(order)
    was_training, device = model.training, model.device
    autocast = torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()
    parts = []
    model.eval()
    with torch.inference_mode(), autocast:
        starts = range(0, len(table), batch_size)
        for start in tqdm(starts, desc=progress, disable=not (progress and show_progress())):
            batch = tokenizer.pad(table[start : start + batch_size], return_tensors="pt").to(device)
            parts.append(model(**batch).logits.float().cpu().numpy())
    model.train(was_training)
    logits = np.empty((len(table), model.config.num_labels), dtype=np.float32)
    logits[order] = np.concatenate(parts)
    return logits


def logits_fingerprint(teacher: PreTrainedModel, rows: Dataset, tokenizer, precision: str = "fp32") -> str:
    """A hash of all that the logits depend on: teacher weights, tokenizer, every row's pieces in order, precision.

    The pieces stand for both text and maximum length: if either changes what the teacher reads, they change.
    """
    digest = hashlib.sha256(weights_fingerprint(teacher).encode())
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    digest.update(precision.encode())
    for ids in rows["input_ids"]:
        digest.update(np.asarray(ids, dtype=np.int32).tobytes() + b"|")
    return digest.hexdigest()[:24]


def add_teacher_logits(
    rows: Dataset, teacher: PreTrainedModel, tokenizer, *, bf16: bool = False, cache: Path | None = None
) -> tuple[Dataset, float]:
    """Rows with the column `teacher_logits`, and the seconds that the teacher needed (0 from the cache).

    The column is cached under a fingerprint (see `logits_fingerprint`), so another teacher, tokenizer or maximum
    length never meets logits that are not its own. A cache that cannot be read is made again.
    """
    folder = (cache or cache_home() / "logits") / logits_fingerprint(
        teacher, rows, tokenizer, "bf16" if bf16 else "fp32"
    )
    column, seconds = _read_cached(folder, len(rows)), 0.0
    if column is None:
        started = time.perf_counter()
        logits = predict_logits(teacher, rows, tokenizer, bf16=bf16, progress="teacher's logits")
        seconds = time.perf_counter() - started
        column = Dataset.from_dict({TEACHER_LOGITS: logits.tolist()})
        save_folder_atomically(folder, column.save_to_disk)
        log.info("teacher's logits for %d rows: made in %.0f s and cached", len(rows), seconds)
    else:
        log.info("teacher's logits for %d rows: from the cache", len(rows))
    if TEACHER_LOGITS in rows.column_names:
        rows = rows.remove_columns(TEACHER_LOGITS)
    return rows.add_column(TEACHER_LOGITS, list(column[TEACHER_LOGITS])), seconds


def _read_cached(folder: Path, expected_rows: int) -> Dataset | None:
    if not folder.is_dir():
        return None
    try:
        column = load_from_disk(str(folder))
        if len(column) == expected_rows and np.isfinite(np.array(column[TEACHER_LOGITS])).all():
            return column
    except Exception as error:  # whatever is wrong with a cache, the answer is to make it again
        log.info("the cached logits cannot be read (%s)", type(error).__name__)
    shutil.rmtree(folder, ignore_errors=True)
    return None


def save_folder_atomically(folder: Path, save) -> None:
    """Call `save(path)` on a folder beside `folder`, then rename: readers see all of it or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = tempfile.mkdtemp(dir=folder.parent, prefix=".partial-")
    try:
        save(partial)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
