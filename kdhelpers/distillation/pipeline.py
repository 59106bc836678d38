"""One distillation run from start to end: the same on a laptop, under torchrun and in a SageMaker container.

`prepare` makes all that a student's training starts from; `distill` trains control and student and judges them.
"""

import dataclasses
import json
import logging
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, set_seed

from kdhelpers import __version__, data, evaluation, models, runtime, storage
from kdhelpers.distillation.teacher_logits import add_teacher_logits
from kdhelpers.distillation.training import Fit, Training, fit, load_fit, ready_to_train, save_fit, steps_for
from kdhelpers.runtime import Machine
from kdhelpers.settings import RunSettings, recipe

log = logging.getLogger(__name__)

MODELS = ("teacher", "control", "student")


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its student: rows, tokens, teacher, and the teacher's answers as a column.

    `splits` are tokenised for the student; `splits["train"]` holds `teacher_logits`, unless the teacher is live or
    alpha is 1. `teacher_splits` are the same rows for the teacher: the same tables where both read alike.
    """

    settings: RunSettings
    machine: Machine
    rows: data.Rows
    splits: DatasetDict
    tokenizer: object
    teacher_splits: DatasetDict
    teacher_tokenizer: object
    teacher_fit: Fit
    teacher_came_trained: bool
    logits_seconds: float = 0.0

    @property
    def teacher(self) -> PreTrainedModel:
        """The teacher, in eval mode."""
        return self.teacher_fit.model

    @property
    def label_names(self) -> list[str]:
        """The classes, in the order of their ids."""
        return self.rows.label_names

    def labels(self, split: str) -> np.ndarray:
        """The class ids of a split, int64 [rows]."""
        return np.array(self.splits[split]["labels"])

    def logits(self, model: PreTrainedModel, split: str) -> np.ndarray:
        """A model's logits on a split, in fp32, float32 [rows, classes]; the teacher reads its own tokens."""
        tables, tokenizer = self.splits, self.tokenizer
        if model is self.teacher:
            tables, tokenizer = self.teacher_splits, self.teacher_tokenizer
        return models.predict_logits(model.to(self.machine.device), tables[split], tokenizer)

    def save(self, model: PreTrainedModel, folder: Path) -> Path:
        """Write a model of the student's kind with its tokenizer beside it; returns the folder."""
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder


# --- preparing ------------------------------------------------------------------------------------------------


def prepare(settings: RunSettings | None = None, folder: Path | None = None) -> Prepared:
    """Rows, tokens, teacher and the teacher's answers, of the default recipe or of `settings`; cached.

    A bare teacher is fine-tuned first: for the default recipe one to three minutes on two cores. `folder` keeps its
    checkpoints. Raises UserError for whatever can be known to be wrong before a student is trained.
    """
    settings = settings or recipe()
    machine = runtime.this_machine(settings.precision)
    with runtime.first_process_first():
        rows = data.load_rows(settings, models.label_names_of(settings.teacher))
    for note in rows.notes:
        log.info("%s", note)
    log.info("rows: %s", ", ".join(f"{count:,} {name}" for name, count in rows.counts().items()))
    set_seed(settings.seed)
    teacher = models.load_classifier(settings.teacher, rows.label_names)
    models.align_labels(teacher, rows.label_names)
    rows = dataclasses.replace(rows, label_names=list(teacher.model.config.id2label.values()))
    check_student(settings, teacher.model, rows.label_names)
    tokenizer, teacher_tokenizer, max_length = load_tokenizers(settings, teacher.model)
    splits = data.tokenise(rows.splits, tokenizer, max_length)
    teacher_splits = splits
    if teacher_tokenizer is not tokenizer:
        teacher_splits = data.tokenise(rows.splits, teacher_tokenizer, max_length)
    teacher_fit = train_teacher(settings, machine, teacher, teacher_splits, teacher_tokenizer, folder)
    prepared = Prepared(
        settings, machine, rows, splits, tokenizer, teacher_splits, teacher_tokenizer, teacher_fit, teacher.has_head
    )
    judged = "validation" if "validation" in splits else "test"
    accept = settings.accept_teacher
    evaluation.check_teacher(
        prepared.logits(teacher_fit.model, judged), prepared.labels(judged), rows.label_names, accept
    )
    return with_teacher_logits(prepared)


def load_tokenizers(settings: RunSettings, teacher: PreTrainedModel) -> tuple[object, object, int]:
    """The student's tokenizer, the teacher's (the same object where they agree), and the run's longest input.

    Raises UserError where they differ and one batch of ids would be fed to both models.
    """
    theirs = models.load_tokenizer(settings.teacher)
    ours = models.load_tokenizer(settings.student) if settings.student else theirs
    student_config = models.load_config(settings.student) if settings.student else teacher.config
    report = models.compare_tokenizers(theirs, ours, teacher.config, student_config)
    if settings.live_teacher or settings.hidden_states != "none":
        models.require_same_tokenizer(report)
    max_length = min(settings.max_length, report.usable_length)
    for tokenizer in (ours, theirs):
        tokenizer.model_max_length = max_length
    if not report.agree:
        log.info("teacher and student have different tokenizers: each reads every text with its own")
    return ours, theirs if not report.agree else ours, max_length


def check_student(settings: RunSettings, teacher: PreTrainedModel, label_names: list[str]) -> None:
    """Build the student once and throw it away: what is wrong with it shows before the teacher is trained."""
    student = build_student(settings, teacher, label_names)
    if settings.hidden_states != "none":
        from kdhelpers.distillation.hidden_states import HiddenStatesLoss

        HiddenStatesLoss(settings.hidden_states, student, teacher).close()


def with_teacher_logits(prepared: Prepared) -> Prepared:
    """The same with the teacher's answers as a column of the training rows, where the settings need them."""
    settings = prepared.settings
    if settings.alpha == 1 or settings.live_teacher:
        return prepared
    with runtime.first_process_first():
        table, seconds = add_teacher_logits(
            prepared.splits["train"], prepared.teacher_splits["train"], prepared.teacher, prepared.teacher_tokenizer,
            prepared.machine,
        )  # fmt: skip
    splits = DatasetDict(prepared.splits | {"train": table})
    return dataclasses.replace(prepared, splits=splits, logits_seconds=seconds)


def labelled(rows: Dataset) -> Dataset:
    """The tokenised rows that have a label."""
    return rows.filter(lambda label: label != data.UNLABELLED, input_columns="labels")


def train_teacher(
    settings: RunSettings, machine: Machine, loaded: models.LoadedModel, splits: DatasetDict, tokenizer, folder
) -> Fit:
    """The teacher as it came, or a bare encoder fine-tuned on the labelled rows, with early stopping; cached.

    The cache's key is everything the result depends on: weights, configuration, rows, labels, settings, seed,
    precision, processes and versions.
    """
    if loaded.has_head:
        log.info("teacher: %s is used as it is", settings.teacher)
        return Fit(loaded.model.eval().to(machine.device), 0.0, None, source=settings.teacher)
    log.info("teacher: %s has no classification head for these labels yet and is fine-tuned", settings.teacher)
    rows, validation = labelled(splits["train"]), splits.get("validation")
    tables = [part for part in (rows, validation) if part is not None]
    cached = (
        storage.cache_home()
        / "teachers"
        / storage.fingerprint(
            models.weights_fingerprint(loaded.model),
            [settings.teacher_epochs, settings.teacher_learning_rate, settings.batch_size, settings.warmup],
            [settings.train_embeddings, settings.seed, machine.precision, machine.processes],
            [__version__, version("torch"), version("transformers")],
            [[list(part[column]) for column in ("input_ids", "labels")] for part in tables],
        )
    )
    kept = load_fit(cached)
    if kept:
        log.info("teacher: from the cache (its training took %.0f s)", kept.seconds)
        return dataclasses.replace(kept, model=kept.model.to(machine.device))
    # the labels are few: a teacher keeps the dropout that it came with
    alone = {"alpha": 1.0, "hidden_states": "none", "dropout": None, "trainer_options": {}}
    own = dataclasses.replace(
        settings, epochs=settings.teacher_epochs, learning_rate=settings.teacher_learning_rate, **alone
    )
    set_seed(settings.seed)
    result = fit(
        ready_to_train(loaded.model, own),
        Training("teacher", rows, tokenizer, own, machine, validation, folder=folder, patience=2, resume=True),
    )
    if machine.is_main:
        save_fit(cached, result, tokenizer)
    return dataclasses.replace(result, source=str(cached))


# --- students -------------------------------------------------------------------------------------------------


def build_student(settings: RunSettings, teacher: PreTrainedModel, label_names: list[str]) -> PreTrainedModel:
    """A fresh student: from its id or folder, or cut from the teacher's layers; word embeddings frozen by default."""
    set_seed(settings.seed)
    parent = teacher
    if settings.student is not None:
        loaded = models.load_classifier(settings.student, label_names, "student")
        models.align_labels(loaded, label_names, "student")
        parent = loaded.model
    student = models.cut_layers(parent, settings.student_layers) if settings.student_layers else parent
    return ready_to_train(student, settings)


def build_control(prepared: Prepared) -> PreTrainedModel:
    """The student's twin that owes the teacher nothing: same architecture, from the pretrained backbone.

    A teacher that came fine-tuned has no backbone at hand: then the twin starts from its layers with a new head.
    """
    settings = prepared.settings
    if settings.student is not None:
        return build_student(settings, prepared.teacher, prepared.label_names)
    set_seed(settings.seed)
    backbone = models.load_classifier(settings.teacher, prepared.label_names).model
    control = models.cut_layers(backbone, settings.student_layers or models.num_layers(backbone))
    if prepared.teacher_came_trained:
        models.reset_head(control)
    return ready_to_train(control, settings)


def train_student(prepared: Prepared, model: PreTrainedModel, rows: Dataset, **how) -> Fit:
    """Train one model on tokenised rows of the student's kind, as the run's settings say, on its machine.

    `how` are fields of `Training` that are not the usual ones: name, validation, teacher, steps, folder, options.
    """
    usual = {"name": "student", "settings": prepared.settings, "validation": prepared.splits.get("validation")}
    set_seed(prepared.settings.seed)
    return fit(model, Training(rows=rows, tokenizer=prepared.tokenizer, machine=prepared.machine, **(usual | how)))


def train_both(prepared: Prepared, folder: Path, work: Path) -> dict[str, Fit]:
    """Train control (labels only) and student for the same number of optimizer steps; returns them by name.

    A resumed run takes what was finished before the interruption from `work`, and goes on from `folder`'s
    checkpoints.
    """
    settings = prepared.settings
    every_row = prepared.splits["train"]
    steps = steps_for(settings, prepared.machine, len(every_row))
    live = settings.live_teacher or settings.hidden_states != "none"
    on_labels = dataclasses.replace(settings, alpha=1.0, hidden_states="none")
    plans = {
        "control": {"settings": on_labels, "rows": labelled(every_row)},
        "student": {"settings": settings, "rows": every_row, "teacher": prepared.teacher if live else None},
    }
    if settings.no_control:
        del plans["control"]
    fits = {}
    for name, plan in plans.items():
        kept = load_fit(work / name) if settings.resume else None
        if kept:
            log.info("%s: already trained before the interruption", name)
        else:
            model = (
                build_control(prepared)
                if name == "control"
                else build_student(settings, prepared.teacher, prepared.label_names)
            )
            kept = train_student(
                prepared, model, name=name, steps=steps, folder=folder / name, resume=settings.resume, **plan
            )
            if prepared.machine.is_main:
                save_fit(work / name, kept, prepared.tokenizer)
        fits[name] = kept
    return fits


# --- whole runs -----------------------------------------------------------------------------------------------


def distill(settings: RunSettings) -> dict:
    """Run everything and write `settings.output`; returns what metrics.json holds ({} in all processes but one).

    All work is done in `<output>.incomplete`; `<output>` itself appears, or is replaced, at the very end. With
    `settings.seeds` above 1 the run is repeated with consecutive seeds, each in a folder of its own. Raises
    UserError for what the reader can mend, before anything is trained where that can be known.
    """
    with runtime.first_process_first():  # under torchrun one process clears, the others find it cleared
        if not runtime.is_main():
            work = storage.incomplete(settings.output)
        else:
            wanted = dataclasses.asdict(settings) | {"inputs": data.digests(settings)}
            work = storage.start_run(settings.output, wanted, settings.overwrite, settings.resume)
    with storage.log_file(work / "run.log"):
        metrics = _one_run(settings, work) if settings.seeds == 1 else _several_runs(settings, work)
    if metrics:
        (work / "settings.json").unlink()
        storage.finish_run(work, settings.output)
    return metrics


def _several_runs(settings: RunSettings, work: Path) -> dict:
    """One run a seed, below `work`; returns the summary over them."""
    runs = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        folder = work / f"seed-{seed}"
        if (folder / "metrics.json").is_file():
            log.info("seed %d: already done before the interruption", seed)
            runs.append(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
            continue
        folder.mkdir(exist_ok=True)
        runs.append(_one_run(dataclasses.replace(settings, seed=seed, seeds=1), folder))
    if not runtime.is_main():
        return {}
    summary = evaluation.over_seeds(runs, [pd.read_csv(work / f"seed-{run['seed']}" / "predictions.csv") for run in runs])
    storage.write_file(work / "metrics.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def _one_run(settings: RunSettings, work: Path) -> dict:
    """The stages of a run, in order, writing to `work`."""
    machine = runtime.this_machine(settings.precision)
    log.info("recipe %s, seed %d, precision %s", settings.name, settings.seed, machine.precision)
    home = settings.checkpoints or work / "checkpoints"
    # other settings, another folder: what another run left in --checkpoints is neither used nor touched
    folder = home / storage.fingerprint(storage.computed_by(dataclasses.asdict(settings)), data.digests(settings))
    if not settings.resume:
        shutil.rmtree(folder, ignore_errors=True)
    prepared = prepare(settings, folder / "teacher")
    fits = {"teacher": prepared.teacher_fit, **train_both(prepared, folder, work)}
    if not machine.is_main:
        return {}
    metrics = score(prepared, fits, work)
    shutil.rmtree(folder, ignore_errors=True)
    if settings.checkpoints is None:
        shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(work / "control", ignore_errors=True)
    (work / "student" / "fit.json").unlink()
    storage.write_file(work / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    return metrics


def score(prepared: Prepared, fits: dict[str, Fit], work: Path) -> dict:
    """Score every model on the test rows in fp32, write what a run writes beside metrics.json, and judge."""
    settings, rows = prepared.settings, prepared.rows
    labels = prepared.labels("test")
    logits = {name: prepared.logits(result.model, "test") for name, result in fits.items()}
    card = evaluation.compare(logits, labels, "student", "control" if "control" in logits else "teacher")
    metrics = {"recipe": settings.name, "seed": settings.seed, "alpha": settings.alpha}
    metrics |= {"rows": rows.counts(), "test_rows": rows.test_name}
    for name, result in fits.items():
        metrics[name] = {
            "parameters": models.count_parameters(result.model),
            "layers": models.num_layers(result.model),
            **{f"test_{key}": value for key, value in card.scores[name].items()},
            "validation_accuracy": result.validation_accuracy,
            "train_seconds": round(result.seconds, 1),
        }
    metrics["teacher"]["model"] = fits["teacher"].source
    metrics["student"]["teacher_logits_seconds"] = round(prepared.logits_seconds, 1)
    if "control" in fits:
        metrics["verdict"] = dataclasses.asdict(card.comparison)
    metrics["precision"] = prepared.machine.precision
    metrics["max_length"] = prepared.tokenizer.model_max_length
    packages = ("torch", "transformers", "datasets", "evaluate", "accelerate")
    metrics["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    metrics["revisions"] = {
        "teacher": models.hub_revision(settings.teacher),
        "student": models.hub_revision(settings.student) if settings.student else None,
        "dataset": rows.revision,
    }
    evaluation.write_predictions(work / "predictions.csv", prepared.splits["test"], logits, rows.label_names)
    evaluation.write_model_card(work / "student" / "README.md", metrics, rows.label_names)
    evaluation.draw_result(metrics, work / "result.png")
    return metrics


