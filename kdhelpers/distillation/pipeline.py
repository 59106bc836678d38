"""One distillation run from start to end: the same on a laptop, under torchrun and in a SageMaker container."""

import dataclasses
import hashlib
import json
import logging
import os
import platform
import shutil
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from kdhelpers import data, evaluation, models, runtime, storage
from kdhelpers.distillation.prepared import (
    Prepared,
    build_control,
    build_student,
    labelled,
    on_labels,
    prepare,
    train_student,
)
from kdhelpers.distillation.training import Fit, load_fit, save_fit, steps_for
from kdhelpers.settings import RunSettings

log = logging.getLogger(__name__)


def distill(settings: RunSettings) -> dict:
    """Run everything and write `settings.output`; returns what metrics.json holds ({} in all processes but one).

    All work is done in `<output>.incomplete`; `<output>` itself appears, or is replaced, at the very end. With
    `settings.seeds` above 1 the run is repeated with consecutive seeds, each in a folder of its own. Raises
    UserError for what the reader can mend, before anything is trained where that can be known.
    """
    main = runtime.is_main()
    work = storage.incomplete(settings.output)
    with storage.locked(settings.output) if main else nullcontext():
        with runtime.first_process_first():  # under torchrun one process clears, the others find it cleared
            if main:
                wanted = dataclasses.asdict(settings) | {"inputs": inputs(settings)}
                storage.start_run(settings.output, wanted, settings.overwrite, settings.resume)
        with storage.log_file(work / "run.log") if main else nullcontext():
            metrics = _one_run(settings, work) if settings.seeds == 1 else _several_runs(settings, work)
        if main:
            (work / "settings.json").unlink()
            storage.finish_run(work, settings.output)
    return metrics


def inputs(settings: RunSettings) -> dict[str, str]:
    """Digests of the files and the model folders that a run reads: it is only resumed with what it began with."""
    found = data.digests(settings)
    for name in ("teacher", "student"):
        folder = Path(getattr(settings, name) or os.devnull).expanduser()
        digest = hashlib.sha256()
        for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
            digest.update(path.read_bytes())
        found[name] = digest.hexdigest()
    return found


def _several_runs(settings: RunSettings, work: Path) -> dict:
    """One run a seed, below `work`; returns the summary over them."""
    runs, predictions = [], []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        folder = work / f"seed-{seed}"
        if (folder / "metrics.json").is_file():
            log.info("seed %d: already done before the interruption", seed)
        else:
            folder.mkdir(exist_ok=True)
            _one_run(dataclasses.replace(settings, seed=seed, seeds=1), folder)
        if runtime.is_main():
            runs.append(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
            predictions.append(pd.read_csv(folder / "predictions.csv"))
    return _written(evaluation.over_seeds(runs, predictions), work) if runtime.is_main() else {}


def _written(metrics: dict, work: Path) -> dict:
    storage.write_file(work / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    return metrics


def _one_run(settings: RunSettings, work: Path) -> dict:
    """The stages of a run, in order, writing to `work`."""
    machine = runtime.this_machine(settings.precision)
    log.info("recipe %s, seed %d, precision %s", settings.name, settings.seed, machine.precision)
    # other settings or rows, another folder: what another run left in --checkpoints is neither used nor touched
    name = storage.fingerprint(storage.computed_by(dataclasses.asdict(settings)), inputs(settings))
    folder = (settings.checkpoints or work / "checkpoints") / name
    if machine.is_main and not settings.resume:
        shutil.rmtree(folder, ignore_errors=True)
    prepared = prepare(settings, folder / "teacher")
    fits = {"teacher": prepared.teacher_fit, **train_both(prepared, folder, work)}
    if not machine.is_main:
        return {}
    metrics = score(prepared, fits, work)
    for done in (folder, work / "checkpoints", work / "control"):
        shutil.rmtree(done, ignore_errors=True)
    (work / "student" / "fit.json").unlink()
    return _written(metrics, work)


def train_both(prepared: Prepared, folder: Path, work: Path) -> dict[str, Fit]:
    """Train control (labels only) and student for the same number of optimizer steps; returns them by name.

    A resumed run takes what was finished before the interruption from `work`, and goes on from `folder`'s
    checkpoints. Without any label there is no control.
    """
    settings, every_row = prepared.settings, prepared.splits["train"]
    few = labelled(every_row)
    steps = steps_for(settings, prepared.machine, len(every_row))
    teacher = prepared.teacher if settings.needs_live_teacher else None
    plans = {
        "control": {"settings": on_labels(settings), "rows": few},
        "student": {"settings": settings, "rows": every_row, "teacher": teacher},
    }
    if settings.no_control or not len(few):
        del plans["control"]
        log.info("no control%s: what the teacher adds is not measured", "" if len(few) else ", for want of labels")
    fits = {}
    for name, plan in plans.items():
        kept = load_fit(work / name) if settings.resume else None
        if kept:
            log.info("%s: already trained before the interruption", name)
        else:
            own = name == "control"
            model = build_control(prepared) if own else build_student(settings, prepared.teacher, prepared.label_names)
            how = {"name": name, "steps": steps, "folder": folder / name, "resume": settings.resume, **plan}
            kept = train_student(prepared, model, **how)
            if prepared.machine.is_main:
                save_fit(work / name, kept, prepared.tokenizer)
        fits[name] = kept
    return fits


def score(prepared: Prepared, fits: dict[str, Fit], work: Path) -> dict:
    """Score every model on the test rows in fp32, write what a run writes beside metrics.json, and judge."""
    settings, rows, labels = prepared.settings, prepared.rows, prepared.labels("test")
    logits = {name: prepared.logits(result.model, "test") for name, result in fits.items()}
    metrics: dict[str, Any] = {"recipe": settings.name, "seed": settings.seed, "alpha": settings.alpha}
    metrics |= {"rows": rows.counts(), "test_rows": rows.test_name, "precision": prepared.machine.precision}
    for name, result in fits.items():
        scores = evaluation.score(logits[name], labels, logits["teacher"])
        metrics[name] = {
            "parameters": models.count_parameters(result.model),
            "layers": models.num_layers(result.model),
            **{f"test_{key}": value for key, value in scores.items()},
            "validation_accuracy": result.validation_accuracy,
            "train_seconds": round(result.seconds, 1),
        }
    metrics["teacher"]["model"] = fits["teacher"].source
    metrics["student"]["teacher_logits_seconds"] = round(prepared.logits_seconds, 1)
    if "control" in fits:
        metrics["verdict"] = dataclasses.asdict(evaluation.compare(logits, labels).comparison)
    metrics["max_length"] = prepared.tokenizer.model_max_length
    packages = ("torch", "transformers", "datasets", "evaluate", "accelerate")
    metrics["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    ids = {"teacher": settings.teacher, "student": settings.student}
    metrics["revisions"] = {name: models.hub_revision(model_id) if model_id else None for name, model_id in ids.items()}
    metrics["revisions"]["dataset"] = rows.revision
    evaluation.write_predictions(work / "predictions.csv", prepared.splits["test"], logits, rows.label_names)
    evaluation.write_model_card(work / "student" / "README.md", metrics, rows.label_names)
    evaluation.draw_result(metrics, work / "result.png")
    return metrics
