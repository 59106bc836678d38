"""One distillation run from start to end: the same on a laptop, under torchrun and in a SageMaker container."""

import dataclasses
import hashlib
import json
import logging
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from kdhelpers import __version__, checks, data, evaluation, files, fitting, models
from kdhelpers.console import is_main
from kdhelpers.errors import UserError
from kdhelpers.logits import add_teacher_logits, predict_logits
from kdhelpers.losses import UNLABELLED, check_alpha, check_temperature
from kdhelpers.output import log_file, prepare_output, publish
from kdhelpers.recipes import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """The reader's own rows; see `files.file_rows`."""

    train: str
    validation: str | None = None
    test: str | None = None
    unlabelled: str | None = None


@dataclass(frozen=True)
class RunSettings:
    """One run: a recipe and how to run it. `trainer_options` are TrainingArguments fields for both students."""

    recipe: Recipe
    output: Path
    files: Files | None = None
    rows: int | None = None  # train on so many rows only, evenly taken, and score on as small a share
    seed: int = 42
    live_teacher: bool = False
    control: bool = True
    precision: str = "auto"
    checkpoints: Path | None = None
    overwrite: bool = False
    resume: bool = False
    trainer_options: dict = dataclasses.field(default_factory=dict)


# --- the stages of a run -------------------------------------------------------------------------------------


def check_settings(settings: RunSettings) -> None:
    """Numbers that make no sense are refused here, before anything is loaded. Raises UserError."""
    recipe = settings.recipe
    check_alpha(recipe.alpha)
    check_temperature(recipe.temperature)
    fitting.choose_precision(settings.precision)
    if settings.rows is not None and settings.rows < 1:
        raise UserError(f"rows must be greater than 0, not {settings.rows}")
    for name in ("epochs", "batch_size", "learning_rate", "teacher_epochs", "max_length"):
        if not getattr(recipe, name) > 0:
            raise UserError(f"{name.replace('_', ' ')} must be greater than 0, not {getattr(recipe, name)}")


def load_rows(settings: RunSettings, label_names: list[str] | None) -> data.Rows:
    """The run's rows, checked for leakage and for hidden test labels."""
    recipe = settings.recipe
    if recipe.data == "movie-snippets":
        rows = data.movie_snippets()
    elif recipe.data == "hub":
        rows = data.hub_rows(recipe.dataset_id, recipe.dataset_config, recipe.text_column, recipe.label_column)
    else:
        own = settings.files
        rows = files.file_rows(
            own.train, own.validation, own.test, recipe.text_column, recipe.label_column, own.unlabelled, label_names
        )
    if settings.rows is not None:
        rows = data.thin_out(rows, settings.rows)
    data.require_scorable(rows.splits["test"], rows.test_name)
    return checks.check_leakage(rows, recipe.drop_leaks)


def finetune_teacher(
    settings: RunSettings, backbone: models.LoadedModel, splits, tokenizer, folder: Path
) -> fitting.Fit:
    """Fine-tune a bare encoder on the labelled rows, early stopping on validation; kept in the cache.

    The cache's key is everything the result depends on: weights, rows, labels, settings, seed, precision.
    """
    recipe, precision = settings.recipe, fitting.choose_precision(settings.precision)
    labelled = splits["train"].filter(lambda label: label != UNLABELLED, input_columns="labels")
    validation = splits.get("validation")
    everything = [
        models.weights_fingerprint(backbone.model),
        recipe.teacher_epochs,
        recipe.teacher_learning_rate,
        recipe.batch_size,
        recipe.warmup,
        recipe.train_embeddings,
        settings.seed,
        precision,
        __version__,
        version("torch"),
        version("transformers"),
        [[list(part[c]) for c in ("input_ids", "labels")] for part in (labelled, validation) if part is not None],
    ]
    cached = data.cache_home() / "teachers" / hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:24]
    if (cached / "fit.json").is_file():
        try:
            loaded = models.load_classifier(str(cached), None)
            record = json.loads((cached / "fit.json").read_text(encoding="utf-8"))
            log.info("teacher: from the cache (its training took %.0f s)", record["seconds"])
            return fitting.Fit(loaded.model, **record, source=str(cached))
        except (UserError, ValueError, TypeError):
            log.info("teacher: the cached one cannot be read and is made again")
    steps = max(1, round(recipe.teacher_epochs * fitting.steps_per_epoch(len(labelled), recipe.batch_size)))
    arguments = fitting.training_arguments(
        folder,
        dataclasses.replace(recipe, learning_rate=recipe.teacher_learning_rate, alpha=1.0),
        steps=steps,
        evaluations=round(recipe.teacher_epochs),
        seed=settings.seed,
        precision=precision,
        has_validation=validation is not None,
    )
    # the labels are few: a teacher keeps the dropout that it came with
    fitting.ready_to_train(backbone.model, dataclasses.replace(recipe, dropout=None))
    set_seed(settings.seed)
    result = fitting.fit(
        "teacher", backbone.model, labelled, validation, tokenizer, arguments,
        patience=2, resume=settings.resume,
    )  # fmt: skip
    if is_main():
        fitting.save_fit(cached, result, tokenizer)
    return dataclasses.replace(result, source=str(cached))


def build_student(settings: RunSettings, teacher: PreTrainedModel, label_names: list[str]) -> PreTrainedModel:
    """A fresh student: from its id or folder, or cut out of the teacher's layers; word embeddings frozen by default."""
    recipe = settings.recipe
    set_seed(settings.seed)
    if recipe.student is not None:
        loaded = models.load_classifier(recipe.student, label_names, "student")
        checks.align_labels(loaded, label_names, "student")
        student = loaded.model
    else:
        layers = models.evenly_spaced_layers(models.num_layers(teacher), recipe.student_layers)
        student = models.student_from_layers(teacher, layers)
    return fitting.ready_to_train(student, recipe)


def build_control(settings: RunSettings, label_names: list[str], teacher_was_bare: bool) -> PreTrainedModel:
    """The student's twin that owes the teacher nothing: same architecture, from the pretrained backbone.

    A teacher that came fine-tuned has no backbone at hand: then the twin starts from its layers with a new head.
    """
    recipe = settings.recipe
    set_seed(settings.seed)
    if recipe.student is not None:
        return build_student(settings, None, label_names)
    backbone = models.load_classifier(recipe.teacher, label_names).model
    layers = models.evenly_spaced_layers(models.num_layers(backbone), recipe.student_layers)
    control = models.student_from_layers(backbone, layers)
    if not teacher_was_bare:
        models.reset_head(control)
    return fitting.ready_to_train(control, recipe)


def train_students(settings: RunSettings, splits, tokenizer, teacher, control, student, folder: Path, work: Path):
    """Train control (labels only) and student (teacher's logits too) for the same number of optimizer steps."""
    recipe, precision = settings.recipe, fitting.choose_precision(settings.precision)
    validation = splits.get("validation")
    labelled = splits["train"].filter(lambda label: label != UNLABELLED, input_columns="labels")
    options = settings.trainer_options
    steps = max(1, round(recipe.epochs * fitting.steps_per_epoch(len(splits["train"]), recipe.batch_size, options)))
    results = {}
    for name, model, rows, alpha in (
        ("control", control, labelled, 1.0),
        ("student", student, splits["train"], recipe.alpha),
    ):
        if model is None:
            continue
        done = work / name
        if settings.resume and (done / "fit.json").is_file():
            record = json.loads((done / "fit.json").read_text(encoding="utf-8"))
            log.info("%s: already trained before the interruption", name)
            results[name] = fitting.Fit(models.load_classifier(str(done), None).model.eval(), **record)
            continue
        arguments = fitting.training_arguments(
            folder / name,
            dataclasses.replace(recipe, alpha=alpha),
            steps=steps,
            evaluations=round(recipe.epochs),
            seed=settings.seed,
            precision=precision,
            has_validation=validation is not None,
            options=options | ({"states": "none"} if name == "control" else {}),
        )
        deep = arguments.states != "none"
        live = teacher if deep or (name == "student" and settings.live_teacher) else None
        set_seed(settings.seed)
        results[name] = fitting.fit(
            name, model, rows, validation, tokenizer, arguments,
            teacher=live, resume=settings.resume,
        )  # fmt: skip
        if is_main():
            fitting.save_fit(done, results[name], tokenizer)
    return results


def distill(settings: RunSettings) -> dict:
    """Run everything and write `settings.output`; gives back what metrics.json holds.

    All work is done in `<output>.incomplete`; `<output>` itself appears, or is replaced, at the very end. Raises
    UserError for what the reader can mend, before anything is trained where that can be known.
    """
    check_settings(settings)
    with fitting.first_process_first():  # under torchrun one process clears, the others find it cleared
        wanted = {k: v for k, v in dataclasses.asdict(settings).items() if k not in ("resume", "overwrite")}
        work = prepare_output(settings.output, wanted, settings.overwrite, settings.resume)
    with log_file(work / "run.log"):
        metrics = _distill(settings, work)
    if is_main():
        publish(work, settings.output)
    return metrics


def _distill(settings: RunSettings, work: Path) -> dict:
    """The stages of `distill`, in order, writing to `work`."""
    recipe, precision = settings.recipe, fitting.choose_precision(settings.precision)
    log.info("recipe %s, seed %d, precision %s", recipe.name, settings.seed, precision)

    known_names = models.label_names_of(recipe.teacher)
    with fitting.first_process_first():
        rows = load_rows(settings, known_names)
    for note in rows.notes:
        log.info("%s", note)
    log.info("rows: %s", ", ".join(f"{count:,} {name}" for name, count in rows.counts().items()))

    set_seed(settings.seed)
    teacher_loaded = models.load_classifier(recipe.teacher, rows.label_names)
    checks.align_labels(teacher_loaded, rows.label_names)
    label_names = list(teacher_loaded.model.config.id2label.values())
    tokenizer = models.load_tokenizer(recipe.teacher)
    student_tokenizer = models.load_tokenizer(recipe.student) if recipe.student else tokenizer
    student_config = models.load_config(recipe.student) if recipe.student else None
    report = checks.compare_tokenizers(tokenizer, student_tokenizer, teacher_loaded.model.config, student_config)
    checks.require_same_tokenizer(report)
    max_length = min(recipe.max_length, report.usable_length)
    splits = data.tokenise(rows.splits, tokenizer, max_length)
    if recipe.student_layers and not recipe.student:
        models.evenly_spaced_layers(models.num_layers(teacher_loaded.model), recipe.student_layers)
    if recipe.student:
        build_student(settings, teacher_loaded.model, label_names)  # its faults show before the teacher is trained

    folder = settings.checkpoints or work / "checkpoints"
    if teacher_loaded.has_head:
        log.info("teacher: %s is used as it is", recipe.teacher)
        teacher_fit = fitting.Fit(teacher_loaded.model.eval(), 0.0, None, source=recipe.teacher)
    else:
        log.info("teacher: %s has no classification head for these labels yet and is fine-tuned", recipe.teacher)
        teacher_fit = finetune_teacher(settings, teacher_loaded, splits, tokenizer, folder / "teacher")
    teacher = teacher_fit.model.to(device_for_inference())
    judged = splits["validation"] if "validation" in splits else splits["test"]
    judged_logits = predict_logits(teacher, judged, tokenizer)
    checks.check_teacher_quality(judged_logits, np.array(judged["labels"]), label_names)

    logits_seconds = 0.0
    if recipe.alpha < 1 and not settings.live_teacher:
        with fitting.first_process_first():
            splits["train"], logits_seconds = add_teacher_logits(
                splits["train"], teacher, tokenizer, bf16=precision == "bf16"
            )

    control = build_control(settings, label_names, not teacher_loaded.has_head) if settings.control else None
    student = build_student(settings, teacher, label_names)
    fits = train_students(settings, splits, tokenizer, teacher, control, student, folder, work)
    fits = {"teacher": teacher_fit, **fits}
    if not is_main():
        return {}
    metrics = score(settings, rows, splits["test"], tokenizer, fits, label_names, logits_seconds, work)
    metrics["revisions"] = {
        "teacher": teacher_loaded.revision,
        "student": models.hub_revision(recipe.student) if recipe.student else None,
        "dataset": rows.revision,
    }
    data.write_atomically(work / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    if settings.checkpoints is None:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(work / "control", ignore_errors=True)
    (work / "student" / "fit.json").unlink()
    (work / "settings.json").unlink()
    return metrics


def distill_seeds(settings: RunSettings, seeds: int) -> dict:
    """Repeat `distill` with `seeds` consecutive seeds; writes each to its own folder and a summary over them."""
    output = settings.output
    if output.is_dir() and any(output.iterdir()) and not (settings.overwrite or settings.resume):
        raise UserError(f"{output} already holds a run: choose another --output, or replace it with --overwrite")
    runs = []
    for seed in range(settings.seed, settings.seed + seeds):
        finished = output / f"seed-{seed}" / "metrics.json"
        if settings.resume and finished.is_file():
            runs.append(json.loads(finished.read_text(encoding="utf-8")))
            continue
        unfinished = finished.parent.with_name(f"seed-{seed}.incomplete")
        runs.append(
            distill(
                dataclasses.replace(
                    settings, seed=seed, output=finished.parent, resume=settings.resume and unfinished.is_dir()
                )
            )
        )
    if not is_main():
        return {}
    names = [name for name in ("teacher", "control", "student") if name in runs[0]]
    scores = {name: np.array([run[name]["test_accuracy"] for run in runs]) for name in names}
    summary = {
        "recipe": settings.recipe.name,
        "mean": {name: float(values.mean()) for name, values in scores.items()},
        "spread": {name: float(values.std(ddof=1)) for name, values in scores.items()},
        "share_of_teacher": float(scores["student"].mean() / scores["teacher"].mean()),
        "runs": runs,
    }
    if "control" in scores:
        summary["gain_over_control"] = float((scores["student"] - scores["control"]).mean())
    data.write_atomically(output / "metrics.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def device_for_inference() -> torch.device:
    """This process's accelerator, else the CPU."""
    return fitting.processes().device


def score(settings, rows, test, tokenizer, fits, label_names, logits_seconds, work) -> dict:
    """Score every model on the test rows in fp32, write predictions.csv and the result figure, and judge."""
    labels = np.array(test["labels"])
    predictions = {
        name: predict_logits(result.model.to(device_for_inference()), test, tokenizer).argmax(-1)
        for name, result in fits.items()
    }
    metrics = {
        "recipe": settings.recipe.name,
        "seed": settings.seed,
        "rows": rows.counts(),
        "test_rows": rows.test_name,
    }
    for name, result in fits.items():
        scores = evaluation.classification_metrics().compute(predictions=predictions[name], references=labels)
        metrics[name] = {
            "parameters": models.count_parameters(result.model),
            "layers": models.num_layers(result.model),
            "test_accuracy": scores["accuracy"],
            "test_accuracy_interval95": evaluation.bootstrap_interval(predictions[name] == labels),
            "test_f1_macro": scores["f1_macro"],
            "test_mcc": scores["mcc"],
            "validation_accuracy": result.validation_accuracy,
            "train_seconds": round(result.seconds, 1),
            "agreement_with_teacher": evaluation.agreement(predictions[name], predictions["teacher"]),
        }
    metrics["teacher"]["model"] = fits["teacher"].source
    metrics["student"]["teacher_logits_seconds"] = round(logits_seconds, 1)
    if "control" in fits:
        metrics["verdict"] = verdict(evaluation.paired(predictions["student"], predictions["control"], labels))
    metrics["precision"] = fitting.choose_precision(settings.precision)
    packages = ("torch", "transformers", "datasets", "evaluate", "accelerate")
    metrics["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    write_predictions(work / "predictions.csv", test, labels, predictions, label_names)
    try:
        from kdhelpers import plots
    except ModuleNotFoundError as error:  # a training container may come without matplotlib
        log.info("no result.png: %s", error)
    else:
        plots.save(plots.accuracy_against_parameters(metrics), work / "result.png")
    return metrics


def verdict(comparison: evaluation.Comparison) -> dict:
    """A comparison as metrics.json writes it."""
    fields = dataclasses.asdict(comparison)
    return {name: fields[name] for name in ("difference", "interval95", "mcnemar_p", "gained", "lost", "text")}


def write_predictions(path: Path, test: Dataset, labels, predictions: dict, label_names: list[str]) -> None:
    """predictions.csv: row id, text, label and each model's prediction, as names."""
    import pandas as pd

    columns = {"id": test["id"], "text": test["text"], "label": [label_names[label] for label in labels]}
    for name, classes in predictions.items():
        columns[name] = [label_names[label] for label in classes]
    data.write_atomically(path, pd.DataFrame(columns).to_csv(index=False).encode())
