"""All that a student's training starts from: rows, tokens, the teacher, its answers; and the students themselves."""

import dataclasses
import logging
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from kdhelpers import __version__, data, evaluation, models, runtime, storage
from kdhelpers.distillation.answers import Answers, answers_from_file
from kdhelpers.distillation.hidden_states import HiddenStatesLoss
from kdhelpers.distillation.teacher_logits import (
    add_teacher_logits,
    as_array,
    mean_of_probabilities,
    table_hash,
    token_columns,
    with_column,
)
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
    teacher_fit: Fit | None  # None: its answers came without a model
    teacher_came_trained: bool
    logits_seconds: float = 0.0
    further: tuple["Prepared", ...] = ()  # the same rows with each teacher after the first
    answers: dict[str, np.ndarray] | None = None  # by split, of a teacher that is not one model

    @property
    def teacher(self) -> PreTrainedModel:
        """The teacher, in eval mode; of several the first. Raises UserError where there are only its answers."""
        if self.teacher_fit is None:
            raise UserError("this run has its teacher's answers and not the teacher: read them with teacher_logits")
        return self.teacher_fit.model

    @property
    def label_names(self) -> list[str]:
        """The classes, in the order of their ids."""
        return self.rows.label_names

    def labels(self, split: str) -> np.ndarray:
        """The labels of a split: class ids int64 [rows], 0 and 1 [rows, labels], or numbers [rows]."""
        return np.array(self.splits[split]["labels"])

    @property
    def task(self) -> data.Task:
        """What is asked of a text."""
        return self.rows.task

    def logits(self, model: PreTrainedModel, split: str) -> np.ndarray:
        """A model's logits on a split, in fp32, float32 [rows, classes]; the teacher reads its own tokens."""
        tables, tokenizer = self.splits, self.tokenizer
        if self.teacher_fit and model is self.teacher:
            tables, tokenizer = self.teacher_splits, self.teacher_tokenizer
        return models.predict_logits(model.to(self.machine.device), tables[split], tokenizer)

    def teacher_logits(self, split: str) -> np.ndarray | None:
        """The teacher's logits on validation or test, float32 [rows, classes]; None where its answers lack them."""
        return self.logits(self.teacher, split) if self.answers is None else self.answers.get(split)

    def save(self, model: PreTrainedModel, folder: Path) -> Path:
        """Write a model of the student's kind with its tokenizer beside it; returns the folder."""
        storage.write_folder(folder, lambda path: [part.save_pretrained(path) for part in (model, self.tokenizer)])
        return folder


def prepare(
    settings: RunSettings | None = None,
    folder: Path | None = None,
    answers: bool = True,
    teacher: Answers | None = None,
) -> Prepared:
    """Rows, tokens, teacher and the teacher's answers, of the default recipe or of `settings`; cached.

    A bare teacher is fine-tuned first: for the default recipe one to three minutes on two cores. `folder` keeps its
    checkpoints; without `answers` the column is left out. `teacher` answers in place of the settings' one. Raises
    UserError for whatever can be known to be wrong before a student is trained.
    """
    settings = settings or recipe()
    teacher = teacher or _answers_of(settings)
    prepared = look(settings, teacher)
    if teacher is not None:
        return _answered(prepared, teacher)
    prepared = _fine_tuned(prepared, folder)
    if not answers or settings.alpha == 1 or settings.live_teacher:
        return prepared
    return _with_ensemble(_asked(prepared))


def _fine_tuned(prepared: Prepared, folder: Path | None) -> Prepared:
    """The run with its teacher fine-tuned, where that came bare, and found good enough."""
    settings, learnt = prepared.settings, None
    if prepared.teacher_came_trained:
        log.info("teacher: %s is used as it is", settings.teacher)
    else:
        log.info("teacher: %s has no classification head for these labels yet and is fine-tuned", settings.teacher)
        prepared = dataclasses.replace(prepared, teacher_fit=train_teacher(prepared, folder))
        learnt = prepared.rows.counts()["labelled"]
    judged = "validation" if "validation" in prepared.splits else "test"
    logits, labels = prepared.logits(prepared.teacher, judged), prepared.labels(judged)
    evaluation.check_teacher(logits, labels, prepared.label_names, settings.accept_teacher, prepared.task, learnt)
    return prepared


def _asked(prepared: Prepared) -> Prepared:
    """The run with its teacher's answers as a column."""
    with runtime.first_process_first():
        tables = prepared.splits["train"], prepared.teacher_splits["train"]
        table, seconds = add_teacher_logits(*tables, prepared.teacher, prepared.teacher_tokenizer, prepared.machine)
    return dataclasses.replace(_with_column(prepared, table), logits_seconds=seconds)


def _with_column(prepared: Prepared, train: Dataset) -> Prepared:
    return dataclasses.replace(prepared, splits=DatasetDict(prepared.splits | {"train": train}))


def _with_ensemble(prepared: Prepared) -> Prepared:
    """The mean of all the teachers' probabilities in place of the first one's answers."""
    if not prepared.further:
        return prepared
    others = tuple(_asked(_fine_tuned(one, None)) for one in prepared.further)
    teachers = [prepared, *others]
    column = mean_of_probabilities([as_array(one.splits["train"]) for one in teachers], prepared.task)
    held_out = [split for split in ("validation", "test") if split in prepared.splits]
    said = {split: [one.logits(one.teacher, split) for one in teachers] for split in held_out}
    answers = {split: mean_of_probabilities(each, prepared.task) for split, each in said.items()}
    what = "answers" if prepared.task is data.Task.NUMBER else "probabilities"
    log.info("the mean of %d teachers' %s is taught", len(teachers), what)
    return dataclasses.replace(
        _with_column(prepared, with_column(prepared.splits["train"], column)),
        logits_seconds=sum(one.logits_seconds for one in teachers),
        further=others,
        answers=answers,
    )


def look(settings: RunSettings, teacher: Answers | None = None, most: int | None = None) -> Prepared:
    """A run before anything is trained and anybody is asked: rows, tokens, models; the answers are still to come.

    `most`, for a mere look, takes about so many training rows only, and the answers too where a file has them. Raises
    UserError for whatever can be known to be wrong by now.
    """
    teacher = teacher or _answers_of(settings)
    if settings.ensemble and settings.alpha == 1:
        raise UserError("at alpha 1 no teacher teaches: leave the further ones out, or give an alpha below 1")
    machine = runtime.this_machine(settings.precision)
    if teacher is not None:
        if settings.needs_live_teacher:
            raise UserError(f"{teacher.source} only answers: --live-teacher and --hidden-states need a model")
        settings = dataclasses.replace(settings, student=settings.student or models.EMBEDDED_BACKBONE)
        rows = _rows(settings, list(teacher.label_names) or None)
        if settings.alpha > 0 and not rows.counts()["labelled"]:
            raise UserError(f"no training row has a label, and alpha is {settings.alpha:g}: label some, or set it to 0")
        rows = _fewer(rows, most)
        ours = models.load_tokenizer(str(settings.student))
        ours.model_max_length = min(settings.max_length, ours.model_max_length)
        splits = data.tokenise(rows.splits, ours, ours.model_max_length)
        prepared = Prepared(settings, machine, rows, splits, ours, splits, ours, None, True)
    else:
        first = models.label_names_of(settings.teacher), models.task_of_model(settings.teacher)
        rows = _fewer(_rows(settings, *first), most)
        alone = dataclasses.replace(settings, ensemble=[], student=None, student_layers=None)
        further = [  # a bare encoder that is named again is fine-tuned with another seed, which no other run has
            _with_teacher(dataclasses.replace(alone, teacher=name, seed=settings.seed + 1000 * number), rows, machine)
            for number, name in enumerate(settings.ensemble, 1)
        ]
        prepared = dataclasses.replace(_with_teacher(settings, rows, machine), further=tuple(further))
    for said in data.lost_in_reading(prepared.splits["train"], prepared.tokenizer):
        log.info("%s", said)
    check_students(prepared)
    return _answered(prepared, teacher) if teacher and most and settings.teacher_answers else prepared


def _fewer(rows: data.Rows, most: int | None) -> data.Rows:
    """The rows with about `most` training rows, taken at even distances; what they are measured on stays whole."""
    if most is None:
        return rows
    train = data.thin_out(rows, most).splits["train"]
    return dataclasses.replace(rows, splits=DatasetDict(rows.splits | {"train": train}))


def _answers_of(settings: RunSettings) -> Answers | None:
    """The teacher that is a file of answers, where the settings name one."""
    columns = settings.text_column, settings.label_column, settings.text_pair_column
    return answers_from_file(settings.teacher_answers, *columns, task=None) if settings.teacher_answers else None


def _answered(prepared: Prepared, teacher: Answers) -> Prepared:
    """A run whose teacher is no model here, asked for its answers."""
    settings, rows, splits = prepared.settings, prepared.rows, prepared.splits
    started = time.perf_counter()
    log.info("teacher: the answers of %s", teacher.source)
    with runtime.first_process_first():
        order = [split for split in ("validation", "test", "train") if split in splits]
        task = [] if rows.task is data.Task.ONE else [rows.task]
        answers = {split: teacher.of(splits[split], rows.label_names, *task) for split in order}
    found = {split: logits for split, logits in answers.items() if logits is not None}
    if "train" not in found:
        raise UserError(f"{teacher.source} answers for none of the training rows: give it their ids or texts")
    judged = next((split for split in ("validation", "test") if split in found), None)
    if judged:
        labels, accept = prepared.labels(judged), settings.accept_teacher
        evaluation.check_teacher(found[judged], labels, rows.label_names, accept, rows.task)
    if "test" not in found:
        log.info("%s answers for no test row: the table cannot show how good it is", teacher.source)
    prepared = _with_column(prepared, with_column(splits["train"], found.pop("train")))
    return dataclasses.replace(prepared, answers=found, logits_seconds=time.perf_counter() - started)


def _rows(settings: RunSettings, label_names: list[str] | None, task: data.Task | None = None) -> data.Rows:
    """The run's rows, and what is to be said of them. Raises UserError."""
    with runtime.first_process_first():
        rows = data.load_rows(settings, label_names, task)
    for note in rows.notes:
        log.info("%s", note)
    log.info("rows: %s", ", ".join(f"{count:,} {name}" for name, count in rows.counts().items()))
    # what is to choose a checkpoint has labels
    useful = {n: part for n, part in rows.splits.items() if n != "validation" or data.has_label(part["label"][:]).any()}
    return dataclasses.replace(rows, splits=DatasetDict(useful))


def _with_teacher(settings: RunSettings, rows: data.Rows, machine: Machine) -> Prepared:
    """The rows with the settings' teacher, as it came; both agree on task and classes. Raises UserError."""
    set_seed(settings.seed)
    loaded = models.load_classifier(settings.teacher, rows.label_names, task=rows.task)
    models.align_labels(loaded, rows.label_names, task=rows.task)
    if not rows.counts()["labelled"] and (settings.alpha > 0 or not loaded.has_head):
        why = f"alpha is {settings.alpha:g}" if loaded.has_head else "the teacher has yet to be fine-tuned"
        raise UserError(f"no training row has a label, and {why}: label some, or give a fine-tuned teacher and alpha 0")
    rows = dataclasses.replace(rows, label_names=models.names_in_order(loaded.model.config))
    as_it_came = Fit(loaded.model.eval().to(machine.device), 0.0, None, settings.teacher)
    return Prepared(settings, machine, rows, *_tokens(settings, rows, loaded.model), as_it_came, loaded.has_head)


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
    # a pair needs the types of its tokens where a model reads them: then each model has its own tokenizer's columns
    same_columns = not rows.pairs or ours.model_input_names == theirs.model_input_names
    if report.agree and not same_columns and settings.needs_live_teacher:  # one batch for both: with all columns
        ours, same_columns = max(ours, theirs, key=lambda each: len(each.model_input_names)), True
    splits = data.tokenise(rows.splits, ours, ours.model_max_length)
    if report.agree and same_columns:
        return splits, ours, splits, ours
    log.info("teacher and student have different tokenizers: each reads every text with its own")
    return splits, ours, data.tokenise(rows.splits, theirs, theirs.model_max_length), theirs


def check_students(prepared: Prepared) -> None:
    """Build the student once and throw it away: what is wrong with it, or with its options, shows before training."""
    settings = prepared.settings
    student = build_student(prepared)
    if settings.hidden_states != "none":
        HiddenStatesLoss(settings.hidden_states, student.to(prepared.machine.device), prepared.teacher)
    if settings.trainer_options:
        splits, own = prepared.splits, on_labels(settings)
        how = Training(
            "rehearsal", splits["train"], prepared.tokenizer, own, prepared.machine, splits.get("validation"),
            task=prepared.task,
        )  # fmt: skip
        rehearse(student, how)


def labelled(rows: Dataset) -> Dataset:
    """The tokenised rows that have a label."""
    return rows.select(np.flatnonzero(data.has_label(rows["labels"][:])))


def on_labels(settings: RunSettings, **changes: Any) -> RunSettings:
    """The settings of a training that no teacher takes part in."""
    return dataclasses.replace(settings, alpha=1.0, hidden_states="none", **changes)


def of_control(settings: RunSettings, **changes: Any) -> RunSettings:
    """The settings of a control: no teacher, and a learning rate and dropout of its own where it has them."""
    own = {"learning_rate": settings.control_learning_rate, "dropout": settings.control_dropout}
    return on_labels(settings, **{name: value for name, value in own.items() if value is not None}, **changes)


def of_teacher(settings: RunSettings) -> RunSettings:
    """The settings of a bare teacher's fine-tuning, the same whatever its student is.

    It sees few labels, so it keeps the dropout that it came with; and its word embeddings, also where a static student,
    which has nothing else, trains its own.
    """
    own = {"epochs": settings.teacher_epochs, "learning_rate": settings.teacher_learning_rate}
    return on_labels(settings, **own, dropout=None, train_embeddings=False, trainer_options={})


def train_teacher(prepared: Prepared, folder: Path | None) -> Fit:
    """A bare encoder fine-tuned on the labelled rows, with early stopping; cached.

    The cache's key is all that the result depends on: weights, configuration, tokens, labels, settings, seed,
    precision, processes and versions.
    """
    settings, machine, tokenizer = prepared.settings, prepared.machine, prepared.teacher_tokenizer
    tables = [labelled(prepared.teacher_splits["train"]), prepared.teacher_splits.get("validation")]
    own = of_teacher(settings)
    key = storage.fingerprint(
        models.weights_fingerprint(prepared.teacher),
        [table_hash(part, (*token_columns(part), "labels")) for part in tables if part is not None],
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
    how = Training("teacher", rows, tokenizer, own, machine, validation, folder=folder, patience=2, resume=True,
                   task=prepared.task)  # fmt: skip
    result = fit(ready_to_train(prepared.teacher, own), how)
    if machine.is_main:
        save_fit(cached, result, tokenizer)
    return dataclasses.replace(result, source=str(cached))


# --- students -----------------------------------------------------------------------------------------------------


def build_student(prepared: Prepared) -> PreTrainedModel:
    """A fresh student: from its id or folder, or cut from the teacher's layers; word embeddings frozen by default."""
    settings = prepared.settings
    set_seed(settings.seed)
    if settings.student is None:
        parent = prepared.teacher
    else:
        loaded = models.load_classifier(settings.student, prepared.label_names, "student", prepared.task)
        models.align_labels(loaded, prepared.label_names, "student", prepared.task)
        parent = loaded.model
    layers = settings.student_layers
    if layers is None and settings.student is None:
        layers = models.num_layers(parent)
    return ready_to_train(parent if layers is None else models.cut_layers(parent, layers), settings)


def build_control(prepared: Prepared) -> PreTrainedModel:
    """The student's twin that owes the teacher nothing: same architecture, from the pretrained backbone.

    A teacher that came fine-tuned has no backbone at hand: then the twin starts from its layers with a new head.
    """
    settings = prepared.settings
    if settings.student is not None:
        return build_student(prepared)
    set_seed(settings.seed)
    backbone = models.load_classifier(settings.teacher, prepared.label_names, task=prepared.task).model
    layers = models.num_layers(backbone) if settings.student_layers is None else settings.student_layers
    control = models.cut_layers(backbone, layers)
    if prepared.teacher_came_trained:
        models.reset_head(control)
    return ready_to_train(control, settings)


def train_student(prepared: Prepared, model: PreTrainedModel, rows: Dataset, **how: Any) -> Fit:
    """Train one model on tokenised rows of the student's kind, as the run's settings say, on its machine.

    `how` are fields of `Training` that are not the usual ones: name, validation, teacher, steps, folder, options.
    """
    usual = {"name": "student", "settings": prepared.settings, "validation": prepared.splits.get("validation")}
    usual["task"] = prepared.task
    set_seed(prepared.settings.seed)
    return fit(model, Training(rows=rows, tokenizer=prepared.tokenizer, machine=prepared.machine, **(usual | how)))
