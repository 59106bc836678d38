"""Choosing alpha, temperature and depth on validation rows, with Optuna through Trainer's own search."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import optuna
from datasets import Dataset
from transformers import DataCollatorWithPadding, PrinterCallback, set_seed

from kdhelpers import evaluation, fitting, models, workshop
from kdhelpers.trainer import DistillationTrainer


def search(
    kit: workshop.Prepared, rows: Dataset, validation: Dataset, space: Callable, trials: int, seed: int = 42
) -> optuna.Study:
    """Train one student a trial, one epoch over `rows` (which hold the teacher's logits), and keep the scores.

    `space(trial)` gives back TrainingArguments fields for one trial, and may ask the trial for "layers", the
    student's depth (3 where it does not). Goes through `Trainer.hyperparameter_search`; what is maximised is the
    accuracy on `validation`. The teacher is never run: its logits are a column.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recipe = kit.recipe

    def model_init(trial=None):
        # Trainer makes the model before it asks the space; a trial that is asked twice gives the same answer twice
        layers = space(trial).get("layers", recipe.student_layers) if trial else recipe.student_layers
        set_seed(seed)
        chosen = models.evenly_spaced_layers(models.num_layers(kit.teacher), layers)
        return fitting.ready_to_train(models.student_from_layers(kit.teacher, chosen), recipe)

    with tempfile.TemporaryDirectory() as folder:
        arguments = fitting.training_arguments(
            Path(folder),
            recipe,
            steps=fitting.steps_per_epoch(len(rows), recipe.batch_size),
            evaluations=1,
            seed=seed,
            precision=fitting.choose_precision("auto"),
            has_validation=False,
            options={"save_strategy": "no", "eval_strategy": "epoch", "logging_strategy": "no"},
        )
        trainer = DistillationTrainer(
            model_init=model_init,
            args=arguments,
            train_dataset=rows,
            eval_dataset=validation,
            processing_class=kit.tokenizer,
            data_collator=DataCollatorWithPadding(kit.tokenizer),
            compute_metrics=evaluation.compute_metrics,
        )
        trainer.remove_callback(PrinterCallback)
        storage = optuna.storages.InMemoryStorage()  # Trainer gives back the best trial only; here are all
        trainer.hyperparameter_search(
            hp_space=lambda trial: {k: v for k, v in space(trial).items() if k != "layers"},
            compute_objective=lambda metrics: metrics["eval_accuracy"],
            n_trials=trials,
            direction="maximize",
            backend="optuna",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, trials // 2)),
            storage=storage,
            study_name="distillation",
        )
    return optuna.load_study(study_name="distillation", storage=storage)


def table(study: optuna.Study):
    """The trials as a DataFrame, best first: their parameters and the validation accuracy."""
    rows = [{**trial.params, "accuracy": trial.value} for trial in study.trials if trial.value is not None]
    import pandas as pd

    return pd.DataFrame(rows).sort_values("accuracy", ascending=False, ignore_index=True)
