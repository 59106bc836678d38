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


def shard_paths(folder: Path, rows: int, shard_rows: int) -> list[Path]:
    """Where the logits of each shard of so many rows are kept: float32 [rows of the shard, classes]."""
    shards = -(-rows // shard_rows)
    return [folder / f"{index:05d}-of-{shards:05d}.npy" for index in range(shards)]


def label_shards(prepared: Prepared, folder: Path, shard_rows: int, rank: int = 0, world: int = 1) -> int:
    """Let the teacher read this process's shards of the training rows; returns how many it had to do.

    Shard i belongs to process i modulo `world`. A shard that is on disk is not read again, so a run that was stopped
    goes on where it was, also with another number of processes.
    """
    rows = prepared.teacher_splits["train"]
    mine = list(enumerate(shard_paths(folder, len(rows), shard_rows)))[rank::world]
    missing = [(index, path) for index, path in mine if not path.is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    for index, path in missing:
        part = rows.select(range(index * shard_rows, min((index + 1) * shard_rows, len(rows))))
        partial = path.with_name(f".{path.name}.{rank}.npy")
        np.save(partial, models.predict_logits(prepared.teacher, part, prepared.teacher_tokenizer, prepared.machine))
        os.replace(partial, path)
        log.info("shard %s labelled", path.stem)
    return len(missing)


def join_shards(paths: list[Path], folder: Path) -> bool:
    """Join all shards into the cached column that `distill` looks for; False while some are missing."""
    if not all(path.is_file() for path in paths):
        return False
    write_folder(folder, as_column(np.concatenate([np.load(path) for path in paths])).save_to_disk)
    return True


def join_delivered(source: Path, cache: Path) -> list[str]:
    """Join every column whose shards all lie below `source`, as a label job leaves them; returns the columns' names."""
    joined = []
    for folder in sorted(source.glob("shards-*-*")):
        _, name, shard_rows = folder.name.split("-")
        counts = {path.stem.split("-of-")[1] for path in folder.glob("[0-9]*-of-*.npy")}
        paths = [folder / f"{index:05d}-of-{count}.npy" for count in counts for index in range(int(count))]
        if (cache / name).is_dir():  # by another process of this machine, a moment ago
            joined.append(name)
        elif len(counts) == 1 and join_shards(paths, cache / name):
            joined.append(name)
            log.info("the teacher's answers, labelled before: %d shards of %s rows joined", len(paths), shard_rows)
    return joined


def require_head(teacher: str) -> None:
    """Raise UserError for a bare encoder: only a teacher with its classification head can label."""
    if not any("SequenceClassification" in name for name in models.load_config(teacher).architectures or []):
        wanted = "fine-tune it first (distill does), and name its folder with --teacher"
        raise UserError(f"the teacher {teacher} has no classification head for these labels: {wanted}")


def label(settings: RunSettings, output: Path, shard_rows: int, rank: int = 0, world: int = 1) -> bool:
    """Label a run's training rows below `output`; True once every process's shards are there and joined.

    The teacher has to come with its classification head. Raises UserError.
    """
    require_head(settings.teacher)
    prepared = prepare(settings, answers=False)
    rows, teacher = prepared.teacher_splits["train"], prepared.teacher
    name = logits_fingerprint(teacher, rows, prepared.teacher_tokenizer, prepared.machine.precision)
    folder = output / f"shards-{name}-{shard_rows}"
    done = label_shards(prepared, folder, shard_rows, rank, world)
    log.info("process %d of %d: %d shards labelled, the others were there or are another's", rank + 1, world, done)
    runtime.processes().wait_for_everyone()
    joined = rank == 0 and join_shards(shard_paths(folder, len(rows), shard_rows), output / name)
    if joined:
        log.info("all %d rows are labelled, for every later distill with this teacher", len(rows))
    elif rank == 0:
        log.info("shards that are not in %s are joined where they are read, or when this is run once more", folder)
    return joined
