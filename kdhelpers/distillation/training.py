"""Training one model: its TrainingArguments, what is said meanwhile, its checkpoints, and the one that is kept."""

import json
import logging
import tempfile
import textwrap
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from kdhelpers import evaluation, models
from kdhelpers.data import Task
from kdhelpers.distillation.losses import Loss
from kdhelpers.distillation.progress import ProgressBar
from kdhelpers.distillation.trainer import DistillationTrainer, DistillationTrainingArguments
from kdhelpers.errors import UserError
from kdhelpers.runtime import Machine, give_memory_back
from kdhelpers.settings import RunSettings
from kdhelpers.storage import write_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """A trained model, the seconds its training took, and its accuracy on validation (None without such rows).

    In place of accuracy it is micro F1 of several labels, and RMSE of a number.
    """

    model: PreTrainedModel
    seconds: float
    validation_accuracy: float | None
    source: str | None = None  # the folder or hub id that it can be loaded from again


@dataclass(frozen=True)
class Training:
    """All that one training needs besides the model. `rows` are tokenised."""

    name: str
    rows: Dataset  # with the column `teacher_logits`, unless alpha is 1 or a live teacher is given
    tokenizer: PreTrainedTokenizerBase
    settings: RunSettings
    machine: Machine
    validation: Dataset | None = None
    teacher: PreTrainedModel | None = None
    steps: int | None = None  # default: settings.epochs passes over the rows
    folder: Path | None = None  # for checkpoints; None throws them away
    patience: int | None = None  # evaluations without gain before it stops early
    loss: Loss | None = None  # default: the task's
    task: Task = Task.ONE
    resume: bool = False
    options: dict = field(default_factory=dict)  # TrainingArguments fields that override all


def length_grouping(on: bool = True) -> dict[str, Any]:
    """The TrainingArguments switch for batches of like length, by its name in the installed transformers."""
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
        return {"train_sampling_strategy": "group_by_length" if on else "random"}
    return {"group_by_length": on}


def steps_for(settings: RunSettings, machine: Machine, rows: int) -> int:
    """Optimizer steps of `settings.epochs` passes over so many rows, over all processes and accumulation steps."""
    accumulation = settings.trainer_options.get("gradient_accumulation_steps", 1)
    per_epoch = -(-rows // (settings.batch_size * accumulation * machine.processes))
    return max(1, round(settings.epochs * per_epoch))


def settings_line(settings: RunSettings, steps: int, rows: int) -> str:
    """What a training is given, in one line for whoever reads along; its data and models have names of their own.

    >>> settings_line(RunSettings(dropout=0.0), 759, 8070)
    '759 steps on 8,070 rows; batch size 32, learning rate 0.0001, warm-up 0.1, alpha 0, T 2, dropout 0, seed 42'
    """
    dropout = _dropout(settings)
    said = [
        f"batch size {settings.batch_size}, learning rate {settings.learning_rate:g}, warm-up {settings.warmup:g}",
        f"alpha {settings.alpha:g}" + (f", T {settings.temperature:g}" if settings.alpha < 1 else ""),
        f"dropout {'of the model' if dropout is None else format(dropout, 'g')}, seed {settings.seed}",
        *(["word embeddings trained"] if settings.train_embeddings else []),
        *([f"hidden states {settings.hidden_states}"] if settings.hidden_states != "none" else []),
    ]
    return f"{steps:,} steps on {rows:,} rows; {', '.join(said)}"


def print_settings(name: str, settings: RunSettings, steps: int, rows: int) -> None:
    """Print the line of a training's settings for a notebook's page, which breaks longer lines in mid-word."""
    first, rest = settings_line(settings, steps, rows).split("; ")
    rest = rest.replace(" ", "\0").replace(",\0", ", ")  # a name and its value stay on one line
    print(f"{name}: {first};\n{textwrap.indent(textwrap.fill(rest, 92), '    ')}".replace("\0", " "))


def _dropout(settings: RunSettings) -> float | None:
    return 0.0 if settings.hidden_states != "none" else settings.dropout  # see HiddenStatesLoss


def training_arguments(training: Training) -> DistillationTrainingArguments:
    """The TrainingArguments of a training: evenly spaced evaluations and checkpoints, one an epoch.

    With validation rows the checkpoint of the highest accuracy (micro F1, or lowest RMSE) is kept, else the last.
    """
    settings, precision = training.settings, training.machine.precision
    steps = training.steps or steps_for(settings, training.machine, len(training.rows))
    every = max(1, round(steps / max(1, round(settings.epochs))))
    fields: dict[str, Any] = {
        "output_dir": str(training.folder),
        "run_name": training.name,  # what a tracker calls it
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": 64,
        "warmup_steps": round(settings.warmup * steps),
        "use_cpu": not torch.accelerator.is_available(),  # bf16 on a CPU has to be asked for
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "save_total_limit": 1,
        "restore_callback_states_from_checkpoint": True,  # early stopping goes on counting after a resume
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,  # a classifier uses all of its own
    }
    same = ("learning_rate", "seed", "alpha", "temperature", "hidden_states", "hidden_states_weight")
    fields |= {name: getattr(settings, name) for name in same} | length_grouping()
    for what in ("save", "logging") if training.validation is None else ("save", "logging", "eval"):
        fields |= {f"{what}_strategy": "steps", f"{what}_steps": every}
    if training.validation is not None:
        best = evaluation.MEASURES[training.task]
        fields |= {"load_best_model_at_end": True, "metric_for_best_model": best.key, "greater_is_better": best.percent}
    # nothing is pushed to the Hub, so its token is not needed; every checkpoint would hold it in clear
    given = {name: value for name, value in settings.trainer_options.items() if name != "hub_token"}
    return DistillationTrainingArguments(**(fields | given | training.options))


class EpochLines(TrainerCallback):
    """Says in one line where training stands, each time the model is scored."""

    def __init__(self, training: Training):
        self.training, self.name, self.started = training, training.name, time.perf_counter()
        self.measure = evaluation.MEASURES[training.task]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock; say with which settings."""
        self.started = time.perf_counter()
        how = settings_line(self.training.settings, state.max_steps, len(self.training.rows))
        log.info("%s: training for %s", self.name, how)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict | None = None, **_: Any
    ) -> None:
        """Trainer logs losses and scores separately; the line with the one shows the other."""
        if logs and f"eval_{self.measure.key}" in logs:
            loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), float("nan"))
            where = f"{self.name}: step {state.global_step} of {state.max_steps}, training loss {loss:.3f}"
            seconds = time.perf_counter() - self.started
            score = self.measure.shown(logs[f"eval_{self.measure.key}"])
            log.info("%s, validation %s %s (%.0f s)", where, self.measure.name, score, seconds)
            give_memory_back()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Say so where EarlyStoppingCallback has ended it."""
        if state.global_step < state.max_steps:
            log.info("%s: stopped early, no longer gaining; step %d was the best", self.name, state.best_global_step)


class Patience(EarlyStoppingCallback):
    """Early stopping that ends a resumed training at once where it had just been decided before the interruption."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Trainer has cleared the decision; one step is taken, unscored, and then the best checkpoint is loaded."""
        control.should_training_stop = self.early_stopping_patience_counter >= self.early_stopping_patience


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None where there is none.

    Trainer writes trainer_state.json last, so a checkpoint that a killed run left half-written has none, or a piece.
    """
    whole = []
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):
            whole.append((json.loads(state.read_text(encoding="utf-8"))["global_step"], state.parent))
    return max(whole)[1] if whole else None


def trainer_for(training: Training, **model: Any) -> DistillationTrainer:
    """The Trainer of a training. `model` is `model=`, or `model_init=` for a hyperparameter search."""
    trainer = DistillationTrainer(
        args=training_arguments(training),
        train_dataset=training.rows,
        eval_dataset=training.validation,
        processing_class=training.tokenizer,
        data_collator=DataCollatorWithPadding(training.tokenizer),
        compute_metrics=evaluation.metrics_for(training.task),
        teacher=training.teacher,
        loss=training.loss,
        **model,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def rehearse(model: PreTrainedModel, training: Training) -> None:
    """One step on `model`, which is thrown away: options that cannot work end here, as a UserError."""
    validation = training.validation
    few = {"rows": training.rows.select(range(min(8, len(training.rows))))}
    few["validation"] = validation and validation.select(range(min(8, len(validation))))
    try:
        with tempfile.TemporaryDirectory() as folder:
            training = replace(training, **few, folder=Path(folder), steps=1)
            trainer_for(training, model=model)  # with whatever the run is to be reported to
            trainer_for(replace(training, options={"report_to": "none"}), model=model).train()
    except Exception as error:  # transformers and torch refuse options in many types
        options = ", ".join(sorted(training.settings.trainer_options))
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"training cannot begin with the options given ({options}): {said[0]}") from error


def fit(model: PreTrainedModel, training: Training) -> Fit:
    """Train `model`, in place, and return the checkpoint that is kept."""
    if training.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            return fit(model, replace(training, folder=Path(folder)))
    had_cache = "use_cache" in model.config.to_dict()
    trainer = trainer_for(training, model=model)
    bar = ProgressBar(training.name)
    for callback in (EpochLines(training), bar):
        trainer.add_callback(callback)
    if training.patience is not None and training.validation is not None:
        trainer.add_callback(Patience(training.patience))
    checkpoint = last_whole_checkpoint(training.folder) if training.resume else None
    if checkpoint:
        log.info("%s: going on from %s", training.name, checkpoint.name)
    started = time.perf_counter()
    with bar:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    # keep_fp32_wrapper=True, the default, would leave autocast in the model's forward: half-precision scores for ever
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).float().eval()
    if not had_cache and hasattr(model.config, "use_cache"):
        del model.config.use_cache  # Trainer's, for decoders: saved without it, the model would be another one
    result = Fit(model, seconds, trainer.state.best_metric)
    del trainer  # and with it the optimizer
    give_memory_back()
    return result


def save_fit(folder: Path, result: Fit, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model, its tokenizer and what its training took, all or nothing."""

    def save(path: str) -> None:
        result.model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        record = {"seconds": result.seconds, "validation_accuracy": result.validation_accuracy}
        Path(path, "fit.json").write_text(json.dumps(record), encoding="utf-8")

    write_folder(folder, save)


def load_fit(folder: Path) -> Fit | None:
    """What `save_fit` wrote; None where it is missing or damaged, and so has to be made again."""
    if not (folder / "fit.json").is_file():
        return None
    try:
        record = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
        return Fit(models.load_classifier(str(folder), None).model.eval(), **record, source=str(folder))
    except (ValueError, TypeError) as error:
        log.info("the model kept in %s cannot be read and is made again (%s)", folder.name, error)
        return None


def ready_to_train(model: PreTrainedModel, settings: RunSettings) -> PreTrainedModel:
    """Dropout, frozen word embeddings and what is read as the settings say, for control and student alike."""
    dropout = _dropout(settings)
    if dropout is not None:
        models.set_dropout(model, dropout)
    if settings.text_pair_column:
        model.config.text_pairs = True  # an export reads it, and what asks the model
    return model if settings.train_embeddings else models.freeze_word_embeddings(model)
