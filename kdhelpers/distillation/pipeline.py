"""One distillation run from start to end: the same on a laptop, under torchrun and in a SageMaker container."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from kdhelpers import data, evaluation, runtime, storage
from kdhelpers.distillation.answers import Answers
from kdhelpers.distillation.prepared import (
    Prepared,
    build_control,
    build_student,
    labelled,
    of_control,
    on_labels,
    prepare,
    train_student,
)
from kdhelpers.distillation.scoring import score
from kdhelpers.distillation.teacher_logits import hard_answers
from kdhelpers.distillation.training import load_fit, save_fit, steps_for
from kdhelpers.settings import RunSettings

log = logging.getLogger(__name__)


def distill(settings: RunSettings, teacher: Answers | None = None) -> dict:
    """Run everything and write `settings.output`; returns what metrics.json holds ({} in all processes but one).

    `teacher` answers in place of the settings' one (see `answers_from`).

    All work is done in `<output>.incomplete`; `<output>` itself appears, or is replaced, at the very end. With
    `settings.seeds` above 1 the run is repeated with consecutive seeds, each in a folder of its own. Raises
    UserError for what the reader can mend, before anything is trained where that can be known.
    """
    main = runtime.is_main()
    work = storage.incomplete(settings.output)
    with storage.locked(settings.output) if main else nullcontext():
        with runtime.first_process_first():  # under torchrun one process clears, the others find it cleared
            if main:
                wanted = dataclasses.asdict(settings) | {"inputs": inputs(settings, teacher)}
                storage.start_run(settings.output, wanted, settings.overwrite, settings.resume)
        with storage.log_file(work / "run.log") if main else nullcontext():
            run = _one_run if settings.seeds == 1 else _several_runs
            metrics = run(settings, work, teacher)
        if main:
            (work / "settings.json").unlink()
            storage.finish_run(work, settings.output)
    return metrics


def inputs(settings: RunSettings, teacher: Answers | None = None) -> dict[str, str]:
    """Digests of the files and the model folders that a run reads: it is only resumed with what it began with."""
    found = data.digests(settings) | ({"answers": teacher.source} if teacher else {})
    for name, model_id in {**settings.teachers, "student": settings.student}.items():
        folder = Path(model_id or os.devnull).expanduser()
        digest = hashlib.sha256()
        for path in sorted(path for path in folder.glob("*") if path.is_file()):
            digest.update(path.read_bytes())
        found[name] = digest.hexdigest()
    return found


def _several_runs(settings: RunSettings, work: Path, teacher: Answers | None) -> dict:
    """One run a seed, below `work`; returns the summary over them."""
    runs, predictions = [], []
    # the controls of the other seeds are what a second one would show
    controls = "one" if settings.controls == "two" else settings.controls
    alone = dataclasses.replace(settings, seeds=1, controls=controls)
    for seed in range(settings.seed, settings.seed + settings.seeds):
        folder = work / f"seed-{seed}"
        if (folder / "metrics.json").is_file():
            log.info("seed %d: already done before the interruption", seed)
        else:
            folder.mkdir(exist_ok=True)
            _one_run(dataclasses.replace(alone, seed=seed), folder, teacher)
        if runtime.is_main():
            runs.append(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
            # as text: a column of which each value could be a number is compared with one that holds "1+", too
            table = pd.read_csv(folder / "predictions.csv", keep_default_na=False, na_values=[""], dtype=str)
            predictions.append(table)
    return _written(evaluation.over_seeds(runs, predictions), work) if runtime.is_main() else {}


def _written(metrics: dict, work: Path) -> dict:
    plain = json.loads(json.dumps(metrics), parse_constant=lambda _: None)  # NaN and Infinity are no JSON
    storage.write_file(work / "metrics.json", (json.dumps(plain, indent=1) + "\n").encode())
    return metrics


def _one_run(settings: RunSettings, work: Path, teacher: Answers | None) -> dict:
    """The stages of a run, in order, writing to `work`."""
    machine = runtime.this_machine(settings.precision)
    log.info("recipe %s, seed %d, precision %s", settings.name, settings.seed, machine.precision)
    # other settings or rows, another folder: what another run left in --checkpoints is neither used nor touched
    name = storage.fingerprint(storage.computed_by(dataclasses.asdict(settings)), inputs(settings, teacher))
    folder = (settings.checkpoints or work / "checkpoints") / name
    if machine.is_main and not settings.resume:
        shutil.rmtree(folder, ignore_errors=True)
    prepared = prepare(settings, folder / "teacher", teacher=teacher)
    names = train_all(prepared, folder, work)
    if not machine.is_main:
        return {}
    metrics = score(prepared, names, work)
    for done in (folder, *(work / name for name in ("checkpoints", *names) if name != "student")):
        shutil.rmtree(done, ignore_errors=True)
    (work / "student" / "fit.json").unlink()
    return _written(metrics, work)


def planned(prepared: Prepared, folder: Path) -> dict[str, tuple[Prepared, dict]]:
    """What is trained, in order: each model's name, its own settings, and what `train_student` takes for it.

    All take the same number of optimizer steps. Controls learn from the labels, without a teacher; without any label
    there is none.
    """
    settings, every_row = prepared.settings, prepared.splits["train"]
    few = labelled(every_row)
    steps = steps_for(settings, prepared.machine, len(every_row))
    live = prepared.teacher if settings.needs_live_teacher else None
    plans: dict[str, tuple[Prepared, dict]] = {}
    if settings.controls == "none" or not len(few):
        log.info("no control%s: what the teacher adds is not measured", "" if len(few) else ", for want of labels")
    else:
        plans["control"] = _with(prepared, of_control(settings)), {"rows": few}
        if settings.controls != "one":
            plans["second_control"] = _with(prepared, of_control(settings, seed=settings.seed + 1)), {"rows": few}
    plans["student"] = prepared, {"rows": every_row, "teacher": live}
    if settings.controls == "all" and prepared.task is data.Task.NUMBER:
        log.info("no student on hard answers: a number has none, the teacher's answers are numbers themselves")
    elif settings.controls == "all" and data.TEACHER_LOGITS in every_row.column_names:
        plans["hard_answers"] = _with(prepared, on_labels(settings)), {"rows": hard_answers(every_row, prepared.task)}
    usual = {"steps": steps, "resume": settings.resume}
    return {name: (own, usual | how | {"name": name, "folder": folder / name}) for name, (own, how) in plans.items()}


def _with(prepared: Prepared, settings: RunSettings) -> Prepared:
    return dataclasses.replace(prepared, settings=settings)


def train_all(prepared: Prepared, folder: Path, work: Path) -> list[str]:
    """Train what is planned, each model into its folder below `work`; returns their names.

    None stays in memory. A resumed run takes what was finished from `work` and goes on from `folder`'s checkpoints.
    """
    plans = planned(prepared, folder)
    for name, (own, how) in plans.items():
        if prepared.settings.resume and load_fit(work / name):
            log.info("%s: already trained before the interruption", name)
            continue
        build = build_control if name.endswith("control") else build_student
        result = train_student(own, build(own), **how)
        if prepared.machine.is_main:
            save_fit(work / name, result, prepared.tokenizer)
        del result
    return list(plans)
