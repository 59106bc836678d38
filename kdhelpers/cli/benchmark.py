"""What a student costs: seconds of training, switch by switch, and milliseconds an answer."""

import argparse
import dataclasses
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import set_seed

from kdhelpers import data, files, fitting, latency, models, plots, report, train
from kdhelpers.console import Parser
from kdhelpers.errors import UserError
from kdhelpers.logits import add_teacher_logits, predict_logits
from kdhelpers.recipes import MOVIE_SNIPPETS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """One way of training the same student on the same rows. Each rung of the ladder turns one more switch."""

    name: str
    live_teacher: bool = True
    by_length: bool = False
    precision: str = "fp32"
    frozen_embeddings: bool = False
    attention: str = "sdpa"  # transformers' default
    dropout: float | None = None  # None: as the model came


def training_ladder() -> list[Rung]:
    """From the article's way of training to ours, one switch at a time (Trainer's default optimizer throughout)."""
    rungs = [Rung("the article's way: live teacher, fp32, random batches")]

    def turn(name, **switch):
        rungs.append(dataclasses.replace(rungs[-1], name=name, **switch))

    turn("+ teacher's logits cached", live_teacher=False)
    turn("+ batches of like length", by_length=True)
    if fitting.choose_precision("auto") != "fp32":
        turn(f"+ {fitting.choose_precision('auto')}", precision=fitting.choose_precision("auto"))
    turn("+ word embeddings frozen", frozen_embeddings=True)
    turn("+ no dropout in the student", dropout=0.0)
    if models.attention_here() != "sdpa":
        turn("+ plain attention instead of the fused kernel", attention=models.attention_here())
    return rungs


def run_rung(rung: Rung, splits, teacher, tokenizer, epochs: float, batch_size: int, seed: int) -> dict:
    """Train one student; seconds (with the teacher's logits, made anew) and test accuracy."""
    recipe = MOVIE_SNIPPETS
    rows, logits_seconds = splits["train"], 0.0
    teacher.set_attn_implementation(rung.attention)
    with tempfile.TemporaryDirectory() as folder:
        if not rung.live_teacher:
            rows, logits_seconds = add_teacher_logits(
                rows, teacher, tokenizer, bf16=rung.precision == "bf16", cache=Path(folder)
            )
        student = models.student_from_layers(
            teacher, models.evenly_spaced_layers(models.num_layers(teacher), recipe.student_layers)
        )
        if rung.frozen_embeddings:
            models.freeze_word_embeddings(student)
        if rung.dropout is not None:
            models.set_dropout(student, rung.dropout)
        steps = max(1, round(epochs * fitting.steps_per_epoch(len(rows), batch_size)))
        arguments = fitting.training_arguments(
            Path(folder),
            dataclasses.replace(recipe, batch_size=batch_size),
            steps=steps,
            evaluations=1,
            seed=seed,
            precision=rung.precision,
            has_validation=False,
            options={"save_strategy": "no"} | fitting.length_grouping(rung.by_length),
        )
        set_seed(seed)
        live = teacher if rung.live_teacher else None
        result = fitting.fit(rung.name, student, rows, None, tokenizer, arguments, teacher=live)
    predictions = predict_logits(result.model, splits["test"], tokenizer).argmax(-1)
    return {
        "rung": rung.name,
        "seconds": round(logits_seconds + result.seconds, 2),
        "teacher_logits_seconds": round(logits_seconds, 2),
        "test_accuracy": float(np.mean(predictions == np.array(splits["test"]["labels"]))),
    }


def benchmark_training(rows: int, epochs: float, batch_size: int, seed: int, rounds: int) -> dict:
    """The whole ladder on the default recipe's rows and teacher, climbed `rounds` times.

    A rung's seconds are those of its fastest round: whatever else the machine does can only slow a rung down.
    """
    settings = train.RunSettings(MOVIE_SNIPPETS, Path("unused"))
    tokenizer = models.load_tokenizer(MOVIE_SNIPPETS.teacher)
    all_rows = train.load_rows(settings, None)
    splits = data.tokenise(all_rows.splits, tokenizer, MOVIE_SNIPPETS.max_length)
    backbone = models.load_classifier(MOVIE_SNIPPETS.teacher, all_rows.label_names)
    with tempfile.TemporaryDirectory() as folder:
        teacher = train.finetune_teacher(settings, backbone, splits, tokenizer, Path(folder)).model
    splits["train"] = splits["train"].select(range(min(rows, len(splits["train"]))))
    fastest: dict[str, dict] = {}
    for number in range(rounds):
        for rung in training_ladder():
            result = run_rung(rung, splits, teacher, tokenizer, epochs, batch_size, seed)
            log.info("round %d of %d, %s: %.0f s", number + 1, rounds, rung.name, result["seconds"])
            if rung.name not in fastest or result["seconds"] < fastest[rung.name]["seconds"]:
                fastest[rung.name] = result
    return {
        "rows": len(splits["train"]),
        "epochs": epochs,
        "batch_size": batch_size,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "rungs": list(fastest.values()),
    }


def ladder_lines(result: dict) -> list[str]:
    """The ladder as a table, each rung beside the first."""
    first = result["rungs"][0]["seconds"]
    body = [
        [
            rung["rung"],
            f"{rung['seconds']:.1f}",
            f"{rung['teacher_logits_seconds']:.1f}",
            f"{first / rung['seconds']:.1f}x",
            f"{100 * rung['test_accuracy']:.1f} %",
        ]
        for rung in result["rungs"]
    ]
    title = (
        f"{result['rows']:,} rows, {result['epochs']:g} epochs, batch {result['batch_size']}, "
        f"{result['threads']} threads; seconds of the fastest of {result['rounds']} rounds, teacher's logits included"
    )
    return ["", title, *report.text_table(["", "seconds", "of them logits", "speed", "accuracy"], body)]


def inference_lines(timings: list[latency.Timing], threads: int, price: float | None) -> list[str]:
    """Latency, size and accuracy as a table, each model beside the first."""
    head = [
        "",
        "",
        "MB",
        "parameters",
        "accuracy",
        "p50 ms",
        "p95 ms",
        "p50 with tokens",
        "a second",
        "faster",
        "smaller",
    ]
    body = []
    for timing in timings:
        low, high = timing.faster_interval95
        faster = "1.0x" if timing is timings[0] else f"{timing.faster:.1f}x ({low:.1f} to {high:.1f})"
        body.append(
            [
                timing.name,
                timing.kind,
                f"{timing.megabytes:.1f}",
                f"{timing.parameters:,}",
                "" if timing.accuracy is None else f"{100 * timing.accuracy:.1f} %",
                f"{timing.p50_ms:.2f}",
                f"{timing.p95_ms:.2f}",
                f"{timing.with_tokeniser_p50_ms:.2f}",
                f"{timing.sentences_per_second:,.0f}",
                faster,
                f"{timing.smaller:.1f}x",
            ]
        )
        if price:
            dollars = latency.dollars_per_million(1000 / timing.sentences_per_second, price)
            body[-1].append(f"${dollars:.2f}")
    head += ["a million"] if price else []
    notes = [
        f"One sentence at a time, threads: {threads}; 'with tokens' is p50 with the tokeniser's time;",
        f"'a second' is at batch {latency.BATCH}, tokeniser included.",
        "Ratios are against the first row: medians over the same sentences, with 95 % bootstrap intervals.",
    ]
    notes += [f"'a million': sentences at batch {latency.BATCH}, on a machine at ${price:g} an hour."] if price else []
    return ["", *report.text_table(head, body), *notes]


def benchmark_inference(options: argparse.Namespace) -> None:
    """Time the named models, print the table, write JSON and figure where they were asked for."""
    if options.threads < 1 or options.sentences < latency.WARM_UP:
        raise UserError(f"--threads must be at least 1 and --sentences at least {latency.WARM_UP}")
    if options.rows:
        rows = files.read_file(options.rows, options.text_column, options.label_column)
        texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    else:
        rows = data.movie_snippets()
        texts = list(rows.splits["test"]["text"])
        labels = [rows.label_names[label] for label in rows.splits["test"]["label"]]
    torch.set_num_threads(options.threads)
    found = {name: folder for given in options.models for name, folder in latency.models_of(given).items()}
    runners = [latency.load_runner(folder, options.threads, name) for name, folder in found.items()]
    log.info("timing %d models on %d sentences, scoring on %d", len(runners), options.sentences, len(texts))
    timings = latency.measure(runners, texts, labels, options.sentences)
    print(*inference_lines(timings, options.threads, options.price), sep="\n")
    if options.output:
        facts = {"threads": options.threads, "sentences": options.sentences, "models": latency.as_json(timings)}
        data.write_atomically(Path(options.output), (json.dumps(facts, indent=1) + "\n").encode())
    if options.figure:
        plots.save(plots.accuracy_against_latency(timings), Path(options.figure))


def main(argv: list[str]) -> None:
    """`python -m kdhelpers benchmark training|inference`. Raises UserError for options that make no sense."""
    parser = Parser(prog="python -m kdhelpers benchmark", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    training = kinds.add_parser("training", help="seconds of training, from the article's way to ours")
    training.add_argument("--rows", type=int, default=2048, help="training rows (default 2048)")
    training.add_argument("--epochs", type=float, default=3, help="passes over them (default 3)")
    training.add_argument("--batch-size", type=int, default=32, help="rows a step (default 32)")
    training.add_argument("--seed", type=int, default=42, help="seed of the student's training (default 42)")
    training.add_argument(
        "--rounds", type=int, default=2, help="how often each is timed, the fastest counts (default 2)"
    )
    training.add_argument("--output", help="also write the numbers to this JSON file")
    inference = kinds.add_parser("inference", help="size, milliseconds and accuracy of models")
    inference.add_argument(
        "models", nargs="+", metavar="MODEL", help="folders of classifiers, trained or exported, or of a whole run"
    )
    inference.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads for every model")
    inference.add_argument("--sentences", type=int, default=300, help="how many are timed one by one (default 300)")
    inference.add_argument("--rows", help="your labelled rows: .csv, .tsv, .jsonl, .parquet (default: test snippets)")
    inference.add_argument("--text-column", default="text", help="their text column (default: text)")
    inference.add_argument("--label-column", default="label", help="their label column (default: label)")
    inference.add_argument("--price", type=float, help="dollars an hour: adds dollars per million sentences")
    inference.add_argument("--output", help="also write the numbers to this JSON file")
    inference.add_argument("--figure", help="also draw accuracy against latency into this PNG file")
    options = parser.parse_args(argv)
    if options.kind == "inference":
        benchmark_inference(options)
        return
    for name in ("rows", "epochs", "batch_size", "rounds"):
        if getattr(options, name) <= 0:
            raise UserError(f"{name.replace('_', ' ')} must be greater than 0, not {getattr(options, name)}")
    result = benchmark_training(options.rows, options.epochs, options.batch_size, options.seed, options.rounds)
    print(*ladder_lines(result), sep="\n")
    if options.output:
        data.write_atomically(Path(options.output), (json.dumps(result, indent=1) + "\n").encode())
