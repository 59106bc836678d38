"""All that a student's training starts from: rows, tokens, the teacher, its answers; and the students themselves."""

import dataclasses
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from kdhelpers import __version__, data, evaluation, models, runtime, storage
from kdhelpers.distillation.hidden_states import HiddenStatesLoss
from kdhelpers.distillation.teacher_logits import add_teacher_logits, table_hash
from kdhelpers.distillation.training import Fit, Training, fit, load_fit, ready_to_train, rehearse, save_fit
from kdhelpers.errors import UserError
from kdhelpers.runtime import Machine
from kdhelpers.settings import RunSettings, recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its student.

    `splits` are tokenised for the student; `splits["train"]` holds `teacher_logits`, unless the teacher is live or
    alpha is 1. `teacher_splits` are the same rows for the teacher: the same tables where both read alike.
    """

    settings: RunSettings
    machine: Machine
    rows: data.Rows
    splits: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    teacher_splits: DatasetDict
    teacher_tokenizer: PreTrainedTokenizerBase
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
        storage.write_folder(folder, lambda path: [part.save_pretrained(path) for part in (model, self.tokenizer)])
        return folder


def prepare(settings: RunSettings | None = None, folder: Path | None = None, answers: bool = True) -> Prepared:
    """Rows, tokens, teacher and the teacher's answers, of the default recipe or of `settings`; cached.

    A bare teacher is fine-tuned first: for the default recipe one to three minutes on two cores. `folder` keeps its
    checkpoints; without `answers` the column is left out. Raises UserError for whatever can be known to be wrong
    before a student is trained.
    """
    settings = settings or recipe()
    rows, loaded = _rows_and_teacher(settings)
    machine = runtime.this_machine(settings.precision)
    as_it_came = Fit(loaded.model.eval().to(machine.device), 0.0, None, settings.teacher)
    read = _tokens(settings, rows, loaded.model)
    prepared = Prepared(settings, machine, rows, *read, as_it_came, loaded.has_head)
    check_students(prepared)
    if loaded.has_head:
        log.info("teacher: %s is used as it is", settings.teacher)
    else:
        log.info("teacher: %s has no classification head for these labels yet and is fine-tuned", settings.teacher)
        prepared = dataclasses.replace(prepared, teacher_fit=train_teacher(prepared, folder))
    judged = "validation" if "validation" in prepared.splits else "test"
    logits, labels = prepared.logits(prepared.teacher, judged), prepared.labels(judged)
    evaluation.check_teacher(logits, labels, prepared.label_names, settings.accept_teacher)
    if not answers or settings.alpha == 1 or settings.live_teacher:
        return prepared
    with runtime.first_process_first():
        tables = prepared.splits["train"], prepared.teacher_splits["train"]
        table, seconds = add_teacher_logits(*tables, prepared.teacher, prepared.teacher_tokenizer, machine)
    return dataclasses.replace(prepared, splits=DatasetDict(prepared.splits | {"train": table}), logits_seconds=seconds)


def _rows_and_teacher(settings: RunSettings) -> tuple[data.Rows, models.LoadedModel]:
    """Both agree on the classes; refused is what cannot be learnt from these labels. Raises UserError."""
    with runtime.first_process_first():
        rows = data.load_rows(settings, models.label_names_of(settings.teacher))
    for note in rows.notes:
        log.info("%s", note)
    counts = rows.counts()
    log.info("rows: %s", ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    set_seed(settings.seed)
    loaded = models.load_classifier(settings.teacher, rows.label_names)
    models.align_labels(loaded, rows.label_names)
    if not counts["labelled"] and (settings.alpha > 0 or not loaded.has_head):
        why = f"alpha is {settings.alpha:g}" if loaded.has_head else "the teacher has yet to be fine-tuned"
        raise UserError(f"no training row has a label, and {why}: label some, or give a fine-tuned teacher and alpha 0")
    names = [str(name) for name in loaded.model.config.id2label.values()]
    useful = {name: part for name, part in rows.splits.items() if name != "validation" or max(part["label"][:]) >= 0}
    return dataclasses.replace(rows, splits=DatasetDict(useful), label_names=names), loaded


def _tokens(
    settings: RunSettings, rows: data.Rows, teacher: PreTrainedModel
) -> tuple[DatasetDict, PreTrainedTokenizerBase, DatasetDict, PreTrainedTokenizerBase]:
    """Splits and tokenizer of the student, then the teacher's: the same objects where the tokenizers agree.

    Raises UserError where they differ and one batch of ids would be fed to both models.
    """
    theirs = models.load_tokenizer(settings.teacher)
    ours = models.load_tokenizer(settings.student) if settings.student else theirs
    config = models.load_config(settings.student) if settings.student else teacher.config
    report = models.compare_tokenizers(theirs, ours, teacher.config, config)
    if settings.needs_live_teacher:
        models.require_same_tokenizer(report)
    for tokenizer in (ours, theirs):
        tokenizer.model_max_length = min(settings.max_length, report.usable_length)
    splits = data.tokenise(rows.splits, ours, ours.model_max_length)
    if report.agree:
        return splits, ours, splits, ours
    log.info("teacher and student have different tokenizers: each reads every text with its own")
    return splits, ours, data.tokenise(rows.splits, theirs, theirs.model_max_length), theirs


def check_students(prepared: Prepared) -> None:
    """Build the student once and throw it away: what is wrong with it, or with its options, shows before training."""
    settings = prepared.settings
    student = build_student(settings, prepared.teacher, prepared.label_names)
    if settings.hidden_states != "none":
        HiddenStatesLoss(settings.hidden_states, student.to(prepared.machine.device), prepared.teacher)
    if settings.trainer_options:
        splits, own = prepared.splits, on_labels(settings)
        how = Training(
            "rehearsal", splits["train"], prepared.tokenizer, own, prepared.machine, splits.get("validation")
        )
        rehearse(student, how)


def labelled(rows: Dataset) -> Dataset:
    """The tokenised rows that have a label."""
    return rows.filter(lambda label: label != data.UNLABELLED, input_columns="labels")


def on_labels(settings: RunSettings, **changes: Any) -> RunSettings:
    """The settings of a training that no teacher takes part in."""
    return dataclasses.replace(settings, alpha=1.0, hidden_states="none", **changes)


def train_teacher(prepared: Prepared, folder: Path | None) -> Fit:
    """A bare encoder fine-tuned on the labelled rows, with early stopping; cached.

    The cache's key is all that the result depends on: weights, configuration, tokens, labels, settings, seed,
    precision, processes and versions.
    """
    settings, machine, tokenizer = prepared.settings, prepared.machine, prepared.teacher_tokenizer
    tables = [labelled(prepared.teacher_splits["train"]), prepared.teacher_splits.get("validation")]
    # the labels are few: a teacher keeps the dropout that it came with
    own = on_labels(settings, epochs=settings.teacher_epochs, learning_rate=settings.teacher_learning_rate,
                    dropout=None, trainer_options={})  # fmt: skip
    key = storage.fingerprint(
        models.weights_fingerprint(prepared.teacher),
        [table_hash(part, ("input_ids", "labels")) for part in tables if part is not None],
        [own.epochs, own.learning_rate, own.batch_size, own.warmup, own.train_embeddings, own.seed],
        [machine.precision, machine.processes, __version__, version("torch"), version("transformers")],
    )
    cached = storage.cache_home() / "teachers" / key
    kept = load_fit(cached)
    if kept:
        log.info("teacher: from the cache (its training took %.0f s)", kept.seconds)
        return dataclasses.replace(kept, model=kept.model.to(machine.device))
    size = models.count_parameters(prepared.teacher)
    if machine.device.type == "cpu" and size > 50e6:
        log.info("teacher: %.0f M parameters; its training takes ten to twenty minutes on two cores, once", size / 1e6)
    set_seed(settings.seed)
    rows, validation = tables
    how = Training("teacher", rows, tokenizer, own, machine, validation, folder=folder, patience=2, resume=True)
    result = fit(ready_to_train(prepared.teacher, own), how)
    if machine.is_main:
        save_fit(cached, result, tokenizer)
    return dataclasses.replace(result, source=str(cached))


# --- students -----------------------------------------------------------------------------------------------------


def build_student(settings: RunSettings, teacher: PreTrainedModel, label_names: list[str]) -> PreTrainedModel:
    """A fresh student: from its id or folder, or cut from the teacher's layers; word embeddings frozen by default."""
    set_seed(settings.seed)
    parent = teacher
    if settings.student is not None:
        loaded = models.load_classifier(settings.student, label_names, "student")
        models.align_labels(loaded, label_names, "student")
        parent = loaded.model
    layers = settings.student_layers or (None if settings.student else models.num_layers(teacher))
    return ready_to_train(models.cut_layers(parent, layers) if layers else parent, settings)


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


def train_student(prepared: Prepared, model: PreTrainedModel, rows: Dataset, **how: Any) -> Fit:
    """Train one model on tokenised rows of the student's kind, as the run's settings say, on its machine.

    `how` are fields of `Training` that are not the usual ones: name, validation, teacher, steps, folder, options.
    """
    usual = {"name": "student", "settings": prepared.settings, "validation": prepared.splits.get("validation")}
    set_seed(prepared.settings.seed)
    return fit(model, Training(rows=rows, tokenizer=prepared.tokenizer, machine=prepared.machine, **(usual | how)))
