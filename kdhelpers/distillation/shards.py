"""The teacher's answers as a stage of its own: shared among processes and machines, resumable."""

import logging
import os
from pathlib import Path

import numpy as np

from kdhelpers import models, runtime
from kdhelpers.distillation.prepared import Prepared, prepare
from kdhelpers.distillation.teacher_logits import as_column, logits_fingerprint
from kdhelpers.errors import UserError
from kdhelpers.settings import RunSettings
from kdhelpers.storage import write_folder

log = logging.getLogger(__name__)


def shard_path(folder: Path, index: int, shards: int) -> Path:
    """Where one shard's logits are kept: float32 [rows of the shard, classes]."""
    return folder / f"{index:05d}-of-{shards:05d}.npy"


def label_shards(prepared: Prepared, folder: Path, shard_rows: int, rank: int = 0, world: int = 1) -> int:
    """Let the teacher read this process's shards of the training rows; returns how many it had to do.

    Shard i belongs to process i modulo `world`. A shard that is on disk is not read again, so a run that was stopped
    goes on where it was, also with another number of processes.
    """
    rows = prepared.teacher_splits["train"]
    shards = -(-len(rows) // shard_rows)
    missing = [index for index in range(rank, shards, world) if not shard_path(folder, index, shards).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    for index in missing:
        part = rows.select(range(index * shard_rows, min((index + 1) * shard_rows, len(rows))))
        logits = models.predict_logits(prepared.teacher, part, prepared.teacher_tokenizer, prepared.machine)
        path = shard_path(folder, index, shards)
        partial = path.with_name(f".{path.name}.{rank}.npy")
        np.save(partial, logits)
        os.replace(partial, path)
    return len(missing)


def join_shards(rows: int, shards_folder: Path, folder: Path, shard_rows: int) -> bool:
    """Join all shards into the cached column that `distill` looks for; False while some are missing."""
    shards = -(-rows // shard_rows)
    paths = [shard_path(shards_folder, index, shards) for index in range(shards)]
    if not all(path.is_file() for path in paths):
        return False
    write_folder(folder, as_column(np.concatenate([np.load(path) for path in paths])).save_to_disk)
    return True


def label(settings: RunSettings, output: Path, shard_rows: int, rank: int = 0, world: int = 1) -> bool:
    """Label a run's training rows below `output`; True once every process's shards are there and joined.

    The teacher has to come with its classification head. Raises UserError.
    """
    if not any("SequenceClassification" in name for name in models.load_config(settings.teacher).architectures or []):
        raise UserError(
            f"the teacher {settings.teacher} has no classification head for these labels: fine-tune it first "
            "(distill does), and name its folder with --teacher"
        )
    prepared = prepare(settings, answers=False)
    rows, machine = prepared.teacher_splits["train"], prepared.machine
    name = logits_fingerprint(prepared.teacher, rows, prepared.teacher_tokenizer, machine.precision)
    shards_folder = output / f"shards-{name}-{shard_rows}"
    done = label_shards(prepared, shards_folder, shard_rows, rank, world)
    log.info("process %d of %d: %d shards labelled, the others were there or are another's", rank + 1, world, done)
    runtime.processes().wait_for_everyone()
    if rank:
        return False
    joined = join_shards(len(rows), shards_folder, output / name, shard_rows)
    if joined:
        log.info("all %d rows are labelled, for every later distill with this teacher", len(rows))
    else:
        log.info(
            "not joined: shards are missing in %s; when all are there, run this once more by itself", shards_folder
        )
    return joined
