"""What a run says of its models: sizes, scores, the baselines beside them, and the verdicts."""

import dataclasses
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sklearn.pipeline import Pipeline

from kdhelpers import data, evaluation, models
from kdhelpers.distillation.prepared import Prepared, labelled
from kdhelpers.distillation.teacher_logits import as_array
from kdhelpers.distillation.training import Fit, load_fit
from kdhelpers.errors import UserError


def baseline_on(prepared: Prepared, rows: Dataset, taught: bool) -> Pipeline | None:
    """TF-IDF and a linear model on the rows' labels, or on the teacher's answers to them; None without any word."""
    task = prepared.task
    if taught:
        targets = data.probabilities(as_array(rows), task)
    else:
        labels = np.array(rows["labels"][:])
        targets = np.eye(len(prepared.label_names))[labels] if task is data.Task.ONE else labels.reshape(len(rows), -1)
    return models.fit_baseline(data.texts_of(rows), targets, task)


def baselines(prepared: Prepared) -> dict[str, dict]:
    """The baseline on the labels, and on the teacher's answers: their entries in metrics.json."""
    train, task, rows_of = prepared.splits["train"], prepared.task, {}
    if len(few := labelled(train)):
        rows_of["baseline"] = few
    if data.TEACHER_LOGITS in train.column_names:
        rows_of["taught_baseline"] = train
    found = {}
    for name, rows in rows_of.items():
        started = time.perf_counter()
        if (model := baseline_on(prepared, rows, taught=name == "taught_baseline")) is None:
            continue
        seconds = time.perf_counter() - started
        found[name] = {
            "parameters": models.baseline_parameters(model),
            "logits": models.baseline_logits(model, data.texts_of(prepared.splits["test"]), task),
            "train_seconds": round(seconds, 1),
        }
    return found


def score(prepared: Prepared, names: Sequence[str], work: Path) -> dict:
    """Score the models in `work` on the test rows in fp32, write what a run writes beside metrics.json, and judge."""
    settings, rows, labels, task = prepared.settings, prepared.rows, prepared.labels("test"), prepared.task
    entries = baselines(prepared) | {"teacher": teacher_entry(prepared)}
    for name in names:
        if (result := load_fit(work / name)) is None:
            raise UserError(f"the model that was written to {work / name} cannot be read again: is the disk sound?")
        entries[name] = size_of(result, task) | {"logits": prepared.logits(result.model, "test")}
    logits = {name: entry.pop("logits") for name, entry in entries.items()}
    logits = {name: values for name, values in logits.items() if values is not None}
    metrics: dict[str, Any] = {"recipe": settings.name, "seed": settings.seed, "alpha": settings.alpha, "task": task}
    metrics |= {"rows": rows.counts(), "test_rows": rows.test_name, "precision": prepared.machine.precision}
    for name, entry in entries.items():
        scores = evaluation.score(logits[name], labels, logits.get("teacher"), task) if name in logits else {}
        metrics[name] = entry | {f"test_{key}": value for key, value in scores.items()}
    metrics["student"]["teacher_logits_seconds"] = round(prepared.logits_seconds, 1)
    metrics |= verdicts(logits, labels, task)
    metrics["max_length"] = prepared.tokenizer.model_max_length
    packages = ("torch", "transformers", "datasets", "evaluate", "accelerate", "scikit-learn")
    metrics["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    ids = {"teacher": settings.teacher if prepared.teacher_fit else None, "student": settings.student}
    metrics["revisions"] = {name: models.hub_revision(model_id) if model_id else None for name, model_id in ids.items()}
    metrics["revisions"]["dataset"] = rows.revision
    evaluation.write_predictions(work / "predictions.csv", prepared.splits["test"], logits, rows.label_names, task)
    evaluation.write_model_card(work / "student" / "README.md", metrics, rows.label_names)
    evaluation.draw_result(metrics, work / "result.png")
    return metrics


def size_of(result: Fit, task: data.Task = data.Task.ONE) -> dict[str, Any]:
    """What metrics.json says of a trained model besides its scores."""
    return {
        "parameters": models.count_parameters(result.model),
        "layers": models.num_layers(result.model),
        f"validation_{evaluation.MEASURES[task].key}": result.validation_accuracy,
        "train_seconds": round(result.seconds, 1),
    }


def teacher_entry(prepared: Prepared) -> dict[str, Any]:
    """The same of the teacher: of several together, and of one that is known by its answers alone."""
    entry: dict[str, Any] = {"train_seconds": 0.0, "model": None}
    if prepared.teacher_fit:
        fits = (prepared.teacher_fit, *(one.teacher_fit for one in prepared.further if one.teacher_fit))
        entry = size_of(fits[0], prepared.task) | {"model": fits[0].source}
        if len(fits) > 1:
            entry |= {key: sum(size_of(fit)[key] for fit in fits) for key in ("parameters", "train_seconds")}
            entry["models"] = [fit.source for fit in fits]
    if prepared.answers is not None and "validation" in prepared.answers:
        scores = evaluation.score(prepared.answers["validation"], prepared.labels("validation"), task=prepared.task)
        key = evaluation.MEASURES[prepared.task].key
        entry[f"validation_{key}"] = scores.get(key)
    return entry | {"logits": prepared.teacher_logits("test")}


def verdicts(logits: dict[str, np.ndarray], labels: np.ndarray, task: data.Task = data.Task.ONE) -> dict[str, Any]:
    """The paired comparisons of a run: the student with its control, and what stands beside it."""
    if not len(labels) or not data.has_label(labels).all():
        return {}
    return {
        title: dataclasses.asdict(evaluation.judged(logits, labels, a, b, task))
        for title, (a, b) in evaluation.VERDICTS.items()
        if logits.keys() >= {a, b}
    }
