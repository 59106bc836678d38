"""What an answer costs: size on disk, milliseconds a sentence, sentences a second, dollars a million."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from kdhelpers import models, predict
from kdhelpers.errors import UserError

log = logging.getLogger(__name__)

BATCH = 32  # rows a step where throughput is measured
ROUNDS = 5  # every model is timed in each round, so that a busy minute of the machine hits all of them
WARM_UP = 10  # sentences before the clock counts


@dataclass(frozen=True)
class Runner:
    """A model ready to answer: `encode` turns sentences into inputs, `run` turns inputs into logits [rows, classes]."""

    name: str
    kind: str  # "PyTorch fp32", "ONNX fp32" or "ONNX int8"
    bytes: int  # of the weights' file
    parameters: int
    labels: list[str]
    encode: Callable[[list[str]], dict]
    run: Callable[[dict], np.ndarray]


@dataclass(frozen=True)
class Timing:
    """One model's figures. Milliseconds are for one sentence at a time; `with_tokeniser` includes its time."""

    name: str
    kind: str
    megabytes: float
    parameters: int
    accuracy: float | None
    p50_ms: float
    p95_ms: float
    with_tokeniser_p50_ms: float
    sentences_per_second: float  # at batch 32, tokenisation included
    faster: float  # p50 of the first model over this one's
    faster_interval95: tuple[float, float]
    smaller: float  # bytes of the first model over this one's


def models_of(folder: str) -> dict[str, str]:
    """What to time in a folder, by name: a run's teacher, its student and what was exported beside it; else itself.

    Raises UserError for the folder of several seeds.
    """
    run = Path(folder).expanduser()
    if not (run / "metrics.json").is_file():
        return {"/".join(run.resolve().parts[-2:]): folder}
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    if "runs" in metrics:
        raise UserError(f"{folder} holds several runs: name one of them, e.g. {run / 'seed-42'}")
    exported = sorted(path.parent for path in run.glob("*/export.json"))
    found = {"teacher": metrics["teacher"]["model"], "student": str(run / "student")}
    return found | {path.name: str(path) for path in exported}


def load_runner(folder: str, threads: int, name: str = "model") -> Runner:
    """A trained PyTorch classifier or an exported one, from its folder. Raises UserError where it is neither."""
    path = Path(folder).expanduser()
    if (path / "export.json").is_file():
        return _onnx_runner(name, path, threads)
    loaded = models.load_classifier(folder, None, "model")
    if not loaded.has_head:
        raise UserError(f"{folder} has no classification head: name a trained classifier or an exported one")
    weights = path / "model.safetensors"
    size = weights.stat().st_size if weights.is_file() else 4 * models.count_parameters(loaded.model)
    return torch_runner(name, loaded.model, models.load_tokenizer(folder), size)


def torch_runner(name: str, model, tokenizer, size: int) -> Runner:
    """A PyTorch classifier in memory as a Runner; `size` in bytes."""
    model = model.float().eval()

    def run(batch: dict) -> np.ndarray:
        with torch.inference_mode():
            return model(**batch).logits.numpy()

    def encode(sentences: list[str]) -> dict:
        return dict(tokenizer(sentences, padding=True, truncation=True, return_tensors="pt"))

    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    return Runner(name, "PyTorch fp32", size, models.count_parameters(model), labels, encode, run)


def _onnx_runner(name: str, folder: Path, threads: int) -> Runner:
    card = predict.card(folder)
    session, tokenizer, labels = predict.load(folder, threads)
    return Runner(
        name,
        {"onnx": "ONNX fp32", "onnx-int8": "ONNX int8"}[card["format"]],
        (folder / "model.onnx").stat().st_size,
        card["parameters"],
        labels,
        lambda sentences: predict.encode(sentences, tokenizer),
        lambda inputs: session.run(None, inputs)[0],
    )


def measure(runners: list[Runner], texts: list[str], labels: list[str] | None = None, sentences: int = 300) -> list:
    """Time every model on the same sentences, the first `sentences` of `texts`; accuracy on all `texts`.

    Gives back a Timing a model; ratios are against the first model, their intervals a bootstrap over sentences.
    """
    chosen = texts[:sentences]
    share = -(-len(chosen) // ROUNDS)
    times: list[list] = [[] for _ in runners]
    for start in range(0, len(chosen), share):
        for runner, took in zip(runners, times, strict=True):
            for sentence in chosen[:WARM_UP]:
                runner.run(runner.encode([sentence]))
            for sentence in chosen[start : start + share]:
                began = time.perf_counter()
                inputs = runner.encode([sentence])
                encoded = time.perf_counter()
                runner.run(inputs)
                done = time.perf_counter()
                took.append((1000 * (done - encoded), 1000 * (done - began)))
    base = np.array(times[0])[:, 0]
    found = []
    for runner, took in zip(runners, times, strict=True):
        alone, whole = np.array(took).T
        rate, answers = _throughput(runner, texts)
        accuracy = None if labels is None else float(np.mean([a == b for a, b in zip(answers, labels, strict=True)]))
        found.append(
            Timing(
                runner.name,
                runner.kind,
                runner.bytes / 1e6,
                runner.parameters,
                accuracy,
                float(np.median(alone)),
                float(np.percentile(alone, 95)),
                float(np.median(whole)),
                rate,
                float(np.median(base) / np.median(alone)),
                _ratio_interval(base, alone),
                runners[0].bytes / runner.bytes,
            )
        )
    return found


def _throughput(runner: Runner, texts: list[str]) -> tuple[float, list[str]]:
    """Sentences a second at batch 32 with tokenisation, rows of like length together, and every row's answer."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    answers = [""] * len(texts)
    runner.run(runner.encode(texts[:BATCH]))
    began = time.perf_counter()
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        for index, row in zip(part, runner.run(runner.encode([texts[i] for i in part])), strict=True):
            answers[index] = runner.labels[int(row.argmax())]
    return len(texts) / (time.perf_counter() - began), answers


def _ratio_interval(base: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians, sentences drawn in pairs."""
    if base is times or np.array_equal(base, times):
        return 1.0, 1.0

    def ratio(a, b, axis=-1):
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    draw = np.random.default_rng(0)
    result = stats.bootstrap((base, times), ratio, paired=True, n_resamples=1999, method="percentile", rng=draw)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def dollars_per_million(milliseconds: float, dollars_per_hour: float) -> float:
    """What a million sentences cost on a machine of this hourly price that is busy all the time.

    Raises UserError for a price or a time that is not above 0.
    """
    if not (milliseconds > 0 and dollars_per_hour > 0):
        raise UserError(f"price and time must be greater than 0, not {dollars_per_hour} and {milliseconds}")
    return milliseconds / 1000 * 1e6 / 3600 * dollars_per_hour


def as_json(timings: list[Timing]) -> list[dict]:
    """The timings as plain dictionaries."""
    return [asdict(timing) for timing in timings]
