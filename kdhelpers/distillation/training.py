"""Training one model: its TrainingArguments, what is said meanwhile, its checkpoints, and the one that is kept."""

import json
import logging
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)

from kdhelpers import evaluation, models
from kdhelpers.distillation.progress import ProgressBar
from kdhelpers.distillation.trainer import DistillationTrainer, DistillationTrainingArguments
from kdhelpers.runtime import Machine
from kdhelpers.settings import RunSettings
from kdhelpers.storage import write_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """A trained model, the seconds its training took, and its accuracy on validation (None without such rows)."""

    model: PreTrainedModel
    seconds: float
    validation_accuracy: float | None
    source: str | None = None  # the folder or hub id that it can be loaded from again


@dataclass(frozen=True)
class Training:
    """All that one training needs besides the model: rows, settings, machine, and how it is watched.

    `rows` are tokenised; they hold the column `teacher_logits` unless `settings.alpha` is 1 or a live `teacher` is
    given. Without `steps` it is `settings.epochs` passes over `rows`. Without `folder`, checkpoints are thrown away.
    `patience`: evaluations without gain before it stops early. `options`: TrainingArguments fields that override all.
    """

    name: str
    rows: Dataset
    tokenizer: object
    settings: RunSettings
    machine: Machine
    validation: Dataset | None = None
    teacher: PreTrainedModel | None = None
    steps: int | None = None
    folder: Path | None = None
    patience: int | None = None
    resume: bool = False
    options: dict = field(default_factory=dict)


def length_grouping(on: bool = True) -> dict:
    """The TrainingArguments switch for batches of like length, by its name in the installed transformers."""
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
        return {"train_sampling_strategy": "group_by_length" if on else "random"}
    return {"group_by_length": on}


def steps_for(settings: RunSettings, machine: Machine, rows: int) -> int:
    """Optimizer steps of `settings.epochs` passes over so many rows, over all processes and accumulation steps."""
    accumulation = settings.trainer_options.get("gradient_accumulation_steps", 1)
    per_epoch = -(-rows // (settings.batch_size * accumulation * machine.processes))
    return max(1, round(settings.epochs * per_epoch))


def training_arguments(training: Training) -> DistillationTrainingArguments:
    """The TrainingArguments of a training: evenly spaced evaluations and checkpoints, one an epoch.

    With validation rows the checkpoint of the highest accuracy is kept, else the last.
    """
    settings, precision = training.settings, training.machine.precision
    steps = training.steps or steps_for(settings, training.machine, len(training.rows))
    every = max(1, round(steps / max(1, round(settings.epochs))))
    judged = training.validation is not None
    choose = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True}
    fields = {
        "output_dir": str(training.folder),
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": 64,
        "learning_rate": settings.learning_rate,
        "warmup_steps": round(settings.warmup * steps),
        "seed": settings.seed,
        "use_cpu": not torch.accelerator.is_available(),  # bf16 on a CPU has to be asked for
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "eval_strategy": "steps" if judged else "no",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "restore_callback_states_from_checkpoint": True,  # early stopping goes on counting after a resume
        "logging_strategy": "steps",
        "logging_steps": every,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,  # a classifier uses all of its own
        "alpha": settings.alpha,
        "temperature": settings.temperature,
        "hidden_states": settings.hidden_states,
        "hidden_states_weight": settings.hidden_states_weight,
    }
    extra = (choose if judged else {}) | length_grouping() | settings.trainer_options | training.options
    return DistillationTrainingArguments(**(fields | extra))


class EpochLines(TrainerCallback):
    """Says in one line where training stands, each time the model is scored."""

    def __init__(self, name: str):
        self.name, self.started = name, time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the clock."""
        self.started = time.perf_counter()
        if state.is_world_process_zero:
            log.info("%s: training for %d steps", self.name, state.max_steps)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Trainer logs losses and scores separately; remember the one for the line with the other."""
        if state.is_world_process_zero and logs and "eval_accuracy" in logs:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            log.info(
                "%s: step %d of %d, training loss %.3f, validation accuracy %.1f %% (%.0f s)",
                self.name,
                state.global_step,
                state.max_steps,
                losses[-1] if losses else float("nan"),
                100 * logs["eval_accuracy"],
                time.perf_counter() - self.started,
            )

    def on_train_end(self, args, state, control, **kwargs):
        """Say so where EarlyStoppingCallback has ended it."""
        if state.is_world_process_zero and state.global_step < state.max_steps:
            log.info("%s: stopped early, no longer gaining; step %d was the best", self.name, state.best_global_step)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None where there is none.

    Trainer writes trainer_state.json last, so a checkpoint that a killed run left half-written has none, or a piece.
    """
    whole = []
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):
            whole.append((json.loads(state.read_text(encoding="utf-8"))["global_step"], state.parent))
    return max(whole)[1] if whole else None


def trainer_for(training: Training, **model: object) -> DistillationTrainer:
    """The Trainer of a training. `model` is `model=`, or `model_init=` for a hyperparameter search."""
    trainer = DistillationTrainer(
        args=training_arguments(training),
        train_dataset=training.rows,
        eval_dataset=training.validation,
        processing_class=training.tokenizer,
        data_collator=DataCollatorWithPadding(training.tokenizer),
        compute_metrics=evaluation.compute_metrics,
        teacher=training.teacher,
        **model,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def fit(model: PreTrainedModel, training: Training) -> Fit:
    """Train `model`, in place, and return the checkpoint that is kept."""
    if training.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            return fit(model, replace(training, folder=Path(folder)))
    trainer = trainer_for(training, model=model)
    trainer.add_callback(EpochLines(training.name))
    bar = ProgressBar(training.name)
    trainer.add_callback(bar)
    if training.patience is not None and training.validation is not None:
        trainer.add_callback(EarlyStoppingCallback(training.patience))
    checkpoint = last_whole_checkpoint(training.folder) if training.resume else None
    if checkpoint:
        log.info("%s: going on from %s", training.name, checkpoint.name)
    started = time.perf_counter()
    with bar:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    # keep_fp32_wrapper=True, the default, would leave autocast in the model's forward: half-precision scores for ever
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).float().eval()
    return Fit(model, seconds, trainer.state.best_metric)



def save_fit(folder: Path, result: Fit, tokenizer) -> None:
    """Write a model, its tokenizer and what its training took, all or nothing."""

    def save(path):
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
    """Dropout and frozen word embeddings as the settings say, for control and student alike."""
    if settings.dropout is not None:
        models.set_dropout(model, settings.dropout)
    return model if settings.train_embeddings else models.freeze_word_embeddings(model)
