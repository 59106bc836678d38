"""`python -m kdhelpers benchmark`: size, milliseconds an answer and accuracy of PyTorch and ONNX models."""

import argparse
import dataclasses
import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset

from kdhelpers import data, deployment, distillation, models, storage
from kdhelpers.cli.export import pair_column_of, texts_of
from kdhelpers.cli.parsing import Parser
from kdhelpers.errors import UserError

log = logging.getLogger(__name__)

# the tables' columns: which figure of a Timing, and how it is shown
SIZES = {
    "kind": ("kind", str),
    "parameters": ("parameters", "{:,}".format),
    "MB": ("megabytes", "{:.1f}".format),
    "smaller": ("smaller", "{:.1f}x".format),
    "accuracy": ("accuracy", "{:.1%}".format),
}
# what stands in place of accuracy, by task: its heading, and how it is shown
SCORES: dict = {
    data.Task.SEVERAL: ("exact match", "{:.1%}".format),
    data.Task.NUMBER: ("RMSE", "{:.3f}".format),
}
SPEEDS = {
    "p50 ms": ("p50_ms", "{:.2f}".format),
    "p95 ms": ("p95_ms", "{:.2f}".format),
    "p50 with tokenizer": ("with_tokeniser_p50_ms", "{:.2f}".format),
    "a second": ("sentences_per_second", "{:,.0f}".format),
    "faster": ("faster", "{:.1f}x".format),
    "95 % interval": ("faster_interval95", lambda pair: "{:.1f} to {:.1f}".format(*pair)),
}
MOVED = "benchmark training is now a command of the repository's tools: python -m tests.tools.benchmark_training"


def parser() -> Parser:
    """The command's options."""
    options = Parser(prog="python -m kdhelpers benchmark", description=__doc__)
    add = options.add_argument
    add("models", nargs="+", metavar="MODEL", help="folder of a run, or of one classifier, trained or exported")
    add("--threads", type=int, default=torch.get_num_threads(), help="threads for every model")
    add("--sentences", type=int, default=300, help="how many are timed one by one (default 300)")
    add("--rows", help="labelled rows to score on: .csv, .tsv, .jsonl, .parquet (default: each run's own test rows)")
    add("--text-column", default="text", help="their text column (default: text)")
    add("--text-pair-column", help="their second text column, for models that read pairs")
    add("--label-column", default="label", help="their label column (default: label)")
    add("--label-separator", default=data.SEPARATOR, help="what separates their labels, for models of several labels")
    baseline = "also time TF-IDF and logistic regression, fitted now on the labels of these rows: a file like --rows, "
    openvino = "also time every ONNX fp32 export in OpenVINO, as it is and in int8, whose ranges these texts set: "
    openvino += "a file, or movie-snippets (needs pip install -e '.[openvino]')"
    add("--baseline", metavar="ROWS", help=baseline + "or movie-snippets")
    answers = "also time it fitted on a teacher's answers: a file with a column of texts and one for each class, as "
    add("--baseline-answers", metavar="FILE", help=answers + "distill --teacher-answers takes it")
    add("--openvino", metavar="TEXTS", help=openvino)
    add("--price", type=float, help="dollars an hour: adds dollars per million sentences")
    add("--output", help="also write the numbers to this JSON file")
    add("--figure", help="also draw accuracy against latency into this PNG file")
    return options


def labelled_texts(
    path: str | None, text_column: str, label_column: str, pair_column: str | None, separator: str | None
) -> tuple[str, list, list]:
    """Where rows come from, their texts and their labels.

    Without a path they are the test rows of the default recipe, for "movie-snippets" its labelled training rows.
    With a `pair_column` texts are tuples of two, with a `separator` labels are lists.
    """
    if path in (None, "movie-snippets"):
        rows, split = data.movie_snippets(), "train" if path else "test"
        part = rows.splits[split]
        part = part.select(np.flatnonzero(data.has_label(part["label"][:])))
        return f"the movie snippets' {split} rows", list(part["text"]), [rows.label_names[i] for i in part["label"]]
    table = data.read_file(path, text_column, label_column, pair_column, separator)
    for row in table:
        if row["label"] is None:
            raise UserError(f"{row['where']}, has no label in column {label_column!r}: it cannot be scored")
    texts = [(row["text"], row["text_pair"]) if pair_column else row["text"] for row in table]
    return path, texts, [row["label"] for row in table]


def load(options: argparse.Namespace) -> list[tuple[deployment.Runner, tuple]]:
    """Every model with the rows that it is scored on. Raises UserError, but not for a run's teacher."""
    read, found = functools.cache(labelled_texts), []
    for model in deployment.models_of(options.models):
        try:
            runner = deployment.load_runner(model.folder, options.threads, model.name)
        except UserError as error:
            if not model.optional:
                raise
            log.info("%s is left out: %s", model.name, error)  # as for a run that was brought home from elsewhere
            continue
        several = runner.task is data.Task.SEVERAL
        if options.rows:
            columns = options.text_column, options.label_column, options.text_pair_column
            rows = read(options.rows, *columns, options.label_separator if several else None)
        else:
            own = model.run / "predictions.csv"
            there, pair_column = (str(own), pair_column_of(own)) if own.is_file() else (None, None)
            rows = read(there, "text", "label", pair_column, data.SEPARATOR if several else None)
        found.append((runner, rows))
    return found


def with_openvino(
    loaded: list[tuple[deployment.Runner, tuple]], options: argparse.Namespace
) -> list[tuple[deployment.Runner, tuple]]:
    """The models, and behind each ONNX fp32 export the same in OpenVINO. Raises UserError where there is none."""
    folders = {model.name: model.folder for model in deployment.models_of(options.models)}
    texts = texts_of(options.openvino, options.text_column, options.text_pair_column)
    found = []
    for runner, rows in loaded:
        found.append((runner, rows))
        if runner.kind == deployment.KINDS["onnx"]:
            others = deployment.openvino_runners(folders[runner.name], texts, options.threads, runner.name)
            found += [(other, rows) for other in others]
    if len(found) == len(loaded):
        raise UserError("--openvino reads fp32 exports, and none is here: export RUN --format onnx --output RUN/onnx")
    return found


def baselines(options: argparse.Namespace, first: deployment.Runner) -> list[deployment.Runner]:
    """TF-IDF and logistic regression, fitted on labels, on a teacher's answers, or one on each. Raises UserError."""
    found = []
    for path, name in ((options.baseline, "TF-IDF"), (options.baseline_answers, "TF-IDF taught")):
        if not path:
            continue
        if first.task is not data.Task.ONE:
            raise UserError("--baseline and --baseline-answers are for one label a text: leave them out")
        texts, targets = (on_labels if name == "TF-IDF" else on_answers)(path, options, first)
        fitted = models.fit_baseline(texts, targets)
        if fitted is None:
            raise UserError(f"no row of {path} holds a word: there is nothing to count")
        found.append(deployment.baseline_runner(fitted, first.labels, name))
    return found


def on_labels(path: str, options: argparse.Namespace, first: deployment.Runner) -> tuple[list, np.ndarray]:
    """Texts, and 1 for the label of each among zeros [texts, classes], as `labelled_texts`. Raises UserError."""
    columns = options.text_column, options.label_column, options.text_pair_column
    _, texts, labels = labelled_texts(path, *columns, None)
    return texts, np.eye(len(first.labels))[first.class_ids(labels)]


def on_answers(path: str, options: argparse.Namespace, first: deployment.Runner) -> tuple[list, np.ndarray]:
    """Texts, and the probabilities [texts, classes] that a file of answers has for them. Raises UserError."""
    columns = options.text_column, options.label_column, options.text_pair_column
    answers = distillation.answers_from_file(path, *columns)
    rows = Dataset.from_list(data.read_file(path, options.text_column, None, options.text_pair_column))
    logits = np.asarray(answers.of(rows.add_column("id", [""] * len(rows)), first.labels))  # joined by text, to itself
    return data.texts_of(rows), data.probabilities(logits, first.task)


def table(timings: list[deployment.Timing], columns: dict) -> str:
    """The timings' figures, a line a model."""
    cells = {head: [show(getattr(timing, name)) for timing in timings] for head, (name, show) in columns.items()}
    return pd.DataFrame(cells, index=[timing.name for timing in timings]).to_string(line_width=110)


def lines(
    timings: list[deployment.Timing], threads: int, price: float | None, task: data.Task = data.Task.ONE
) -> list[str]:
    """Size, accuracy (or what the task has instead) and latency as tables, each model beside the first."""
    speeds, notes = dict(SPEEDS), []
    sizes = {name: column for name, column in SIZES.items() if name != "accuracy"}
    heading, show = SCORES.get(task, ("accuracy", SIZES["accuracy"][1]))
    sizes[heading] = ("accuracy", show)
    if price is not None:
        cost = functools.partial(deployment.dollars_per_million, dollars_per_hour=price)
        speeds["a million"] = ("sentences_per_second", lambda rate: f"${cost(1000 / rate):.2f}")
        notes = [f"'a million': sentences at batch {deployment.BATCH}, on a machine at ${price:g} an hour."]
    return [
        table(timings, sizes),
        table(timings, speeds),
        f"One sentence at a time, threads: {threads}; 'a second' is at batch {deployment.BATCH}, tokenizer included.",
        "Ratios are against the first row: medians over the same sentences, with 95 % bootstrap intervals.",
        *notes,
    ]


def teachers_not_in_int8(given: list[str], runners: list[deployment.Runner]) -> Iterator[str]:
    """A line for each run with int8 models of which none has its teacher's size: 8 bits would speed up that, too."""
    loaded, found = {runner.name: runner for runner in runners}, deployment.models_of(given)
    for teacher in (model for model in found if model.optional and model.name in loaded):
        of_run = [loaded[model.name] for model in found if model.run == teacher.run and model.name in loaded]
        sizes = [runner.parameters for runner in of_run if runner.kind == "ONNX int8"]
        if sizes and loaded[teacher.name].parameters not in sizes:
            command = f"python -m kdhelpers export {teacher.run} --teacher --format onnx-int8"
            yield f"No int8 model has {teacher.name}'s size; to time it: {command} --output {teacher.run}/teacher-int8"


def main(argv: list[str]) -> None:
    """Run the command. Raises UserError."""
    if argv[:1] == ["training"]:
        raise UserError(MOVED)
    if argv[:1] == ["inference"]:  # the former name, for one release
        log.info("note: 'benchmark inference MODEL' is now 'benchmark MODEL'")
        argv = argv[1:]
    options = parser().parse_args(argv)
    if options.threads < 1 or options.sentences < deployment.WARM_UP:
        raise UserError(f"--threads must be at least 1 and --sentences at least {deployment.WARM_UP}")
    torch.set_num_threads(options.threads)
    loaded = load(options)
    task = loaded[0][0].task
    if options.openvino:
        loaded = with_openvino(loaded, options)
    loaded += [(runner, loaded[0][1]) for runner in baselines(options, loaded[0][0])]
    if len({runner.task for runner, _ in loaded}) > 1 or options.figure and task is data.Task.NUMBER:
        raise UserError("the models are for several tasks, or --figure is asked for of a number: time them one by one")
    right = [runner.accuracy(texts, labels) for runner, (_, texts, labels) in loaded]
    log.info("models: %d, timed on %d sentences of %s", len(loaded), options.sentences, loaded[0][1][0])
    timings = deployment.measure([runner for runner, _ in loaded], loaded[0][1][1], None, options.sentences)
    timings = [dataclasses.replace(timing, accuracy=share) for timing, share in zip(timings, right, strict=True)]
    print("", *lines(timings, options.threads, options.price, task), sep="\n")
    for name, (source, texts, _) in ((runner.name, rows) for runner, rows in loaded):
        heading = SCORES.get(task, ("accuracy",))[0]
        print(f"{heading[0].upper()}{heading[1:]} of {name}: on {len(texts):,} rows, {source}.")
    for line in teachers_not_in_int8(options.models, [runner for runner, _ in loaded]):
        print(line)
    if options.output:
        facts = {"threads": options.threads, "sentences": options.sentences}
        facts["models"] = [dataclasses.asdict(timing) for timing in timings]
        storage.write_file(Path(options.output), (json.dumps(facts, indent=1) + "\n").encode())
    if options.figure:
        from kdhelpers.workshop import figures

        figures.accuracy_against_latency(timings).savefig(options.figure, metadata={"Software": None})
