"""One distillation run from start to end: the same on a laptop, under torchrun and in a SageMaker container."""

import dataclasses
import hashlib
import json
import logging
import os
import platform
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
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
    set_seed,
)

from kdhelpers import checks, data, evaluation, models
from kdhelpers.console import is_main, show_progress
from kdhelpers.errors import UserError
from kdhelpers.logits import add_teacher_logits, predict_logits, save_folder_atomically
from kdhelpers.losses import UNLABELLED, check_alpha, check_temperature
from kdhelpers.recipes import Recipe
from kdhelpers.trainer import DistillationTrainer, DistillationTrainingArguments

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Files:
    """The reader's own rows; see `data.file_rows`."""

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


@dataclass(frozen=True)
class Fit:
    """A trained model, the seconds its training took, and its accuracy on validation (None without such rows)."""

    model: PreTrainedModel
    seconds: float
    validation_accuracy: float | None
    source: str | None = None  # the folder or hub id that it can be loaded from again


# --- training one model ---------------------------------------------------------------------------------------


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


def length_grouping(on: bool = True) -> dict:
    """The TrainingArguments switch for batches of like length, by its name in the installed transformers."""
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
        return {"train_sampling_strategy": "group_by_length" if on else "random"}
    return {"group_by_length": on}


def training_arguments(
    folder: Path,
    *,
    steps: int,
    evaluations: int,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    seed: int,
    precision: str,
    has_validation: bool,
    alpha: float,
    temperature: float = 2.0,
    options: dict | None = None,
) -> DistillationTrainingArguments:
    """TrainingArguments for `steps` optimizer steps with `evaluations` evenly spaced checkpoints.

    With validation rows the checkpoint of the highest accuracy is kept, else the last.
    """
    every = max(1, round(steps / max(1, evaluations)))
    choose = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True}
    fields = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 64,
        "learning_rate": learning_rate,
        "warmup_steps": round(warmup * steps),
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
        "alpha": alpha,
        "temperature": temperature,
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


# --- the stages of a run -------------------------------------------------------------------------------------


def load_rows(settings: RunSettings, label_names: list[str] | None) -> data.Rows:
    """The run's rows, checked for leakage and for hidden test labels."""
    recipe = settings.recipe
    if recipe.data == "movie-snippets":
        rows = data.movie_snippets()
    elif recipe.data == "hub":
        rows = data.hub_rows(recipe.dataset_id, recipe.dataset_config, recipe.text_column, recipe.label_column)
    else:
        files = settings.files
        rows = data.file_rows(
            files.train,
            files.validation,
            files.test,
            recipe.text_column,
            recipe.label_column,
            files.unlabelled,
            label_names,
        )
    if settings.rows is not None:
        rows = data.thin_out(rows, settings.rows)
    data.require_scorable(rows.splits["test"], rows.test_name)
    return checks.check_leakage(rows, recipe.drop_leaks)


def tokenise_splits(rows: data.Rows, tokenizer, max_length: int):
    """Every split with the columns that the models read; see `data.tokenise_batch`."""
    options = {"tokenizer": tokenizer, "max_length": max_length}
    return rows.splits.map(data.tokenise_batch, batched=True, fn_kwargs=options)


def finetune_teacher(settings: RunSettings, backbone: models.LoadedModel, splits, tokenizer, folder: Path) -> Fit:
    """Fine-tune a bare encoder on the labelled rows, early stopping on validation; kept in the cache.

    The cache's key is everything the result depends on: weights, rows, labels, settings, seed, precision.
    """
    recipe, precision = settings.recipe, choose_precision(settings.precision)
    labelled = splits["train"].filter(lambda label: label != UNLABELLED, input_columns="labels")
    validation = splits.get("validation")
    everything = [
        models.weights_fingerprint(backbone.model),
        recipe.teacher_epochs,
        recipe.teacher_learning_rate,
        recipe.batch_size,
        recipe.warmup,
        recipe.train_embeddings,
        recipe.dropout,
        settings.seed,
        precision,
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
            return Fit(loaded.model, **record, source=str(cached))
        except (UserError, ValueError, TypeError):
            log.info("teacher: the cached one cannot be read and is made again")
    steps = max(1, round(recipe.teacher_epochs * steps_per_epoch(len(labelled), recipe.batch_size)))
    arguments = training_arguments(
        folder,
        steps=steps,
        evaluations=round(recipe.teacher_epochs),
        batch_size=recipe.batch_size,
        learning_rate=recipe.teacher_learning_rate,
        warmup=recipe.warmup,
        seed=settings.seed,
        precision=precision,
        has_validation=validation is not None,
        alpha=1.0,
    )
    ready_to_train(backbone.model, recipe)
    set_seed(settings.seed)
    result = fit(
        "teacher", backbone.model, labelled, validation, tokenizer, arguments,
        patience=2, resume=settings.resume,
    )  # fmt: skip
    if is_main():
        save_fit(cached, result, tokenizer)
    return dataclasses.replace(result, source=str(cached))


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
    """Dropout and frozen word embeddings as the recipe says, for teacher, control and student alike."""
    if recipe.dropout is not None:
        models.set_dropout(model, recipe.dropout)
    return model if recipe.train_embeddings else models.freeze_word_embeddings(model)


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
    return ready_to_train(student, recipe)


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
    return ready_to_train(control, recipe)


def train_students(settings: RunSettings, splits, tokenizer, teacher, control, student, folder: Path, work: Path):
    """Train control (labels only) and student (teacher's logits too) for the same number of optimizer steps."""
    recipe, precision = settings.recipe, choose_precision(settings.precision)
    validation = splits.get("validation")
    labelled = splits["train"].filter(lambda label: label != UNLABELLED, input_columns="labels")
    options = settings.trainer_options
    steps = max(1, round(recipe.epochs * steps_per_epoch(len(splits["train"]), recipe.batch_size, options)))
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
            results[name] = Fit(models.load_classifier(str(done), None).model.eval(), **record)
            continue
        arguments = training_arguments(
            folder / name,
            steps=steps,
            evaluations=round(recipe.epochs),
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            warmup=recipe.warmup,
            seed=settings.seed,
            precision=precision,
            has_validation=validation is not None,
            alpha=alpha,
            temperature=recipe.temperature,
            options=options | ({"states": "none"} if name == "control" else {}),
        )
        deep = arguments.states != "none"
        live = teacher if deep or (name == "student" and settings.live_teacher) else None
        set_seed(settings.seed)
        results[name] = fit(
            name, model, rows, validation, tokenizer, arguments,
            teacher=live, resume=settings.resume,
        )  # fmt: skip
        if is_main():
            save_fit(done, results[name], tokenizer)
    return results


def distill(settings: RunSettings) -> dict:
    """Run everything and write `settings.output`; gives back what metrics.json holds.

    All work is done in `<output>.incomplete`; `<output>` itself appears, or is replaced, at the very end. Raises
    UserError for what the reader can mend, before anything is trained where that can be known.
    """
    check_settings(settings)
    with PartialState().main_process_first():  # under torchrun one process clears, the others find it cleared
        work = prepare_output(settings)
    with log_file(work / "run.log"):
        metrics = _distill(settings, work)
    if is_main():
        publish(work, settings.output)
    return metrics


def _distill(settings: RunSettings, work: Path) -> dict:
    """The stages of `distill`, in order, writing to `work`."""
    recipe = settings.recipe
    log.info("recipe %s, seed %d, precision %s", recipe.name, settings.seed, choose_precision(settings.precision))

    known_names = models.label_names_of(recipe.teacher)
    with PartialState().main_process_first():
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
    splits = tokenise_splits(rows, tokenizer, max_length)
    if recipe.student_layers and not recipe.student:
        models.evenly_spaced_layers(models.num_layers(teacher_loaded.model), recipe.student_layers)
    if recipe.student:
        build_student(settings, teacher_loaded.model, label_names)  # its faults show before the teacher is trained

    folder = settings.checkpoints or work / "checkpoints"
    if teacher_loaded.has_head:
        log.info("teacher: %s is used as it is", recipe.teacher)
        teacher_fit = Fit(teacher_loaded.model.eval(), 0.0, None, source=recipe.teacher)
    else:
        log.info("teacher: %s has no classification head for these labels yet and is fine-tuned", recipe.teacher)
        teacher_fit = finetune_teacher(settings, teacher_loaded, splits, tokenizer, folder / "teacher")
    teacher = teacher_fit.model.to(device_for_inference())
    judged = splits["validation"] if "validation" in splits else splits["test"]
    judged_logits = predict_logits(teacher, judged, tokenizer)
    checks.check_teacher_quality(judged_logits, np.array(judged["labels"]), label_names)

    logits_seconds = 0.0
    if recipe.alpha < 1 and not settings.live_teacher:
        bf16 = choose_precision(settings.precision) == "bf16"
        with PartialState().main_process_first():
            splits["train"], logits_seconds = add_teacher_logits(splits["train"], teacher, tokenizer, bf16=bf16)

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
    return PartialState().device


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
    metrics["precision"] = choose_precision(settings.precision)
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


# --- the output folder ----------------------------------------------------------------------------------------


def check_settings(settings: RunSettings) -> None:
    """Numbers that make no sense are refused here, before anything is loaded. Raises UserError."""
    recipe = settings.recipe
    check_alpha(recipe.alpha)
    check_temperature(recipe.temperature)
    choose_precision(settings.precision)
    if settings.rows is not None and settings.rows < 1:
        raise UserError(f"rows must be greater than 0, not {settings.rows}")
    for name in ("epochs", "batch_size", "learning_rate", "teacher_epochs", "max_length"):
        if not getattr(recipe, name) > 0:
            raise UserError(f"{name.replace('_', ' ')} must be greater than 0, not {getattr(recipe, name)}")


def prepare_output(settings: RunSettings) -> Path:
    """Make the folder that the run works in, `<output>.incomplete`. Touches nothing that an earlier run wrote."""
    output = settings.output
    work = output.with_name(output.name + ".incomplete")
    wanted = json.dumps(dataclasses.asdict(settings), default=str, sort_keys=True)
    wanted = json.dumps({k: v for k, v in json.loads(wanted).items() if k not in ("resume", "overwrite")}, indent=1)
    try:
        if output.is_dir() and any(output.iterdir()):
            if not (output / "metrics.json").is_file():
                raise UserError(f"the folder {output} holds files that are not a run: choose another --output")
            if not settings.overwrite:
                raise UserError(
                    f"{output} already holds a run: choose another --output, or replace it with --overwrite"
                )
        if settings.resume:
            if not (work / "settings.json").is_file():
                raise UserError(f"there is nothing to resume: no unfinished run in {work}")
            if (work / "settings.json").read_text(encoding="utf-8") != wanted:
                raise UserError(f"the unfinished run in {work} had other settings: repeat its command with --resume")
        elif is_main():
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        if is_main():
            data.write_atomically(work / "settings.json", wanted.encode())
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    return work


def publish(work: Path, output: Path) -> None:
    """Put the finished run in its place, replacing an earlier one only now."""
    old = output.with_name(output.name + ".old")
    try:
        if output.is_dir():
            os.replace(output, old)
        os.replace(work, output)
    except OSError:  # a mount point (SageMaker's model folder) cannot be renamed: copy into it
        shutil.copytree(work, output, dirs_exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def log_file(path: Path):
    """Write the package's messages to `path` too, with time stamps, for the length of a `with` block."""
    root = logging.getLogger("kdhelpers")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
