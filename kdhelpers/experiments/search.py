"""Choosing alpha, temperature and depth on validation rows, with Optuna through Trainer's own search."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from kdhelpers import distillation, models, runtime
from kdhelpers.data import Task
from kdhelpers.distillation import Prepared, Training
from kdhelpers.errors import UserError


def search(
    kit: Prepared, rows: Dataset, validation: Dataset, space: Callable, trials: int, seed: int = 42
) -> optuna.Study:
    """Train one student a trial, one epoch over `rows` (which hold the teacher's logits), and keep the scores.

    `space(trial)` returns TrainingArguments fields for one trial, and may ask the trial for "layers", the student's
    depth. What is maximised is the accuracy on `validation`. The teacher is never run: its logits are a column. Raises
    UserError for rows that are not for one label.

    >>> search(kit, rows, validation, lambda trial: {"alpha": trial.suggest_float("alpha", 0, 1)}, 4)  # doctest: +SKIP
    """
    if kit.task is not Task.ONE:
        raise UserError(f"the search compares accuracies, and these rows are for {kit.task}: try settings by hand")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = dataclasses.replace(kit.settings, epochs=1, seed=seed)

    def model_init(trial: optuna.Trial | None = None) -> PreTrainedModel:
        # Trainer makes the model before it asks the space; a trial that is asked twice gives the same answer twice
        layers = space(trial).get("layers") if trial else None
        set_seed(seed)
        student = models.cut_layers(kit.teacher, layers or settings.student_layers or models.num_layers(kit.teacher))
        return distillation.ready_to_train(student, settings)

    steps = distillation.steps_for(settings, kit.machine, len(rows))
    distillation.print_settings("each trial, where the space says nothing else", settings, steps, len(rows))
    once = {"eval_strategy": "epoch", "save_strategy": "no", "logging_strategy": "no", "load_best_model_at_end": False}
    training = Training("search", rows, kit.tokenizer, settings, kit.machine, validation, options=once)
    study: dict[str, Any] = {"storage": optuna.storages.InMemoryStorage(), "study_name": "distillation"}
    with tempfile.TemporaryDirectory() as work, runtime.progress_bar(trials, "search", unit="trials") as bar:
        trainer = distillation.trainer_for(dataclasses.replace(training, folder=Path(work)), model_init=model_init)
        trainer.hyperparameter_search(
            hp_space=lambda trial: {name: value for name, value in space(trial).items() if name != "layers"},
            compute_objective=lambda metrics: bar.update() or metrics["eval_accuracy"],
            n_trials=trials,
            direction="maximize",
            backend="optuna",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, trials // 2)),
            **study,
        )
    return optuna.load_study(**study)  # Trainer returns the best trial only; here are all


def search_table(study: optuna.Study) -> pd.DataFrame:
    """The trials, best first: their parameters and the validation accuracy."""
    rows = [{**trial.params, "accuracy": trial.value} for trial in study.trials if trial.value is not None]
    return pd.DataFrame(rows).sort_values("accuracy", ascending=False, ignore_index=True)
