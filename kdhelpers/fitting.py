"""Training one model: its TrainingArguments, what is said meanwhile, its checkpoints, and the one that is kept."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
)

from kdhelpers import evaluation, models
from kdhelpers.console import show_progress
from kdhelpers.errors import UserError
from kdhelpers.logits import save_folder_atomically
from kdhelpers.recipes import Recipe
from kdhelpers.trainer import DistillationTrainer, DistillationTrainingArguments

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Fit:
    """A trained model, the seconds its training took, and its accuracy on validation (None without such rows)."""

    model: PreTrainedModel
    seconds: float
    validation_accuracy: float | None
    source: str | None = None  # the folder or hub id that it can be loaded from again


def choose_precision(precision: str) -> str:
    """Turn "auto" into what this machine computes fast: bf16 where it has it, fp16 on older GPUs, else fp32."""
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    fast_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if fast_bf16 and not torch.backends.mps.is_available() else "fp32"


def processes() -> PartialState:
    """The processes that torchrun started, to wait for one another; on a CPU accelerate sees one unless it is told."""
    return PartialState(cpu=not torch.accelerator.is_available())


def end_processes() -> None:
    """End what torchrun's processes share, as PyTorch asks before they exit: without it one is aborted now and then."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def first_process_first() -> Iterator[None]:
    """As accelerate's main_process_first, but after an error, too, the others go on: they meet it themselves."""
    state = processes()
    if not state.is_main_process:
        state.wait_for_everyone()
    try:
        yield
    finally:
        if state.is_main_process:
            state.wait_for_everyone()


def length_grouping(on: bool = True) -> dict:
    """The TrainingArguments switch for batches of like length, by its name in the installed transformers."""
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
        return {"train_sampling_strategy": "group_by_length" if on else "random"}
    return {"group_by_length": on}


def training_arguments(
    folder: Path,
    recipe: Recipe,
    *,
    steps: int,
    evaluations: int,
    seed: int,
    precision: str,
    has_validation: bool,
    options: dict | None = None,
) -> DistillationTrainingArguments:
    """A recipe's TrainingArguments for `steps` optimizer steps with `evaluations` evenly spaced checkpoints.

    With validation rows the checkpoint of the highest accuracy is kept, else the last. `options` are fields of
    TrainingArguments that override all others.
    """
    every = max(1, round(steps / max(1, evaluations)))
    choose = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True}
    fields = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": 64,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": round(recipe.warmup * steps),
        "seed": seed,
        "use_cpu": not torch.accelerator.is_available(),  # bf16 on a CPU has to be asked for
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "eval_strategy": "steps" if has_validation else "no",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "logging_strategy": "steps",
        "logging_steps": every,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,  # a classifier uses all of its own
        "alpha": recipe.alpha,
        "temperature": recipe.temperature,
        **(choose if has_validation else {}),
        **length_grouping(),
        **(options or {}),
    }
    return DistillationTrainingArguments(**fields)


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


class QuietProgress(ProgressCallback):
    """Trainer's progress bar without the dictionaries it prints."""

    def on_log(self, *args, **kwargs):
        """Nothing: EpochLines speaks."""


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None where there is none.

    Trainer writes trainer_state.json last, so a checkpoint that a killed run left half-written has none, or a piece.
    """
    whole = []
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):
            whole.append((json.loads(state.read_text(encoding="utf-8"))["global_step"], state.parent))
    return max(whole)[1] if whole else None


def fit(
    name: str,
    model: PreTrainedModel,
    train_rows: Dataset,
    validation_rows: Dataset | None,
    tokenizer,
    arguments: DistillationTrainingArguments,
    *,
    teacher: PreTrainedModel | None = None,
    patience: int | None = None,
    resume: bool = False,
) -> Fit:
    """Train `model` and give back the kept checkpoint. `patience`: evaluations without gain before stopping."""
    trainer = DistillationTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=evaluation.compute_metrics,
        teacher=teacher,
        callbacks=[EpochLines(name)],
    )
    trainer.remove_callback(PrinterCallback)
    if show_progress():
        trainer.add_callback(QuietProgress())
    if patience is not None and validation_rows is not None:
        trainer.add_callback(EarlyStoppingCallback(patience))
    checkpoint = last_whole_checkpoint(Path(arguments.output_dir)) if resume else None
    if checkpoint:
        log.info("%s: going on from %s", name, checkpoint.name)
    started = time.perf_counter()
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

    save_folder_atomically(folder, save)


def steps_per_epoch(rows: int, batch_size: int, options: dict | None = None) -> int:
    """Optimizer steps in one pass over the rows, over all processes and accumulation steps."""
    accumulation = (options or {}).get("gradient_accumulation_steps", 1)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return -(-rows // (batch_size * accumulation * world))


def ready_to_train(model: PreTrainedModel, recipe: Recipe) -> PreTrainedModel:
    """Dropout and frozen word embeddings as the recipe says, for control and student alike."""
    if recipe.dropout is not None:
        models.set_dropout(model, recipe.dropout)
    return model if recipe.train_embeddings else models.freeze_word_embeddings(model)
