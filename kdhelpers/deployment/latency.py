"""What an answer costs: milliseconds a sentence, sentences a second, dollars a million."""

import time
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdhelpers.deployment.runners import BATCH, Runner

ROUNDS = 5  # every model is timed in each round, so that a busy minute of the machine hits all of them
WARM_UP = 10  # sentences before the clock counts


@dataclass(frozen=True)
class Timing:
    """One model's figures. Milliseconds are for one sentence at a time; `with_tokeniser` includes its time."""

    name: str
    kind: str
    megabytes: float
    parameters: int
    accuracy: float | None  # of several labels exact match, of a number RMSE
    p50_ms: float
    p95_ms: float
    with_tokeniser_p50_ms: float
    sentences_per_second: float  # at batch 32, tokenisation included
    faster: float  # p50 of the first model over this one's
    faster_interval95: tuple[float, float]
    smaller: float  # bytes of the first model over this one's


def measure(runners: list[Runner], texts: list, labels: list | None = None, sentences: int = 300) -> list[Timing]:
    """Time every model on the same sentences, the first `sentences` of `texts`; with `labels`, accuracy on all texts.

    Ratios are against the first model, their intervals a bootstrap over sentences. Raises UserError for a label that
    a model does not know.
    """
    truths = [None if labels is None else runner.truths(labels) for runner in runners]
    times = _milliseconds(runners, texts[:sentences])
    base = times[0][:, 0]
    found = []
    for runner, took, truth in zip(runners, times, truths, strict=True):
        alone, whole = took.T
        runner.logits(texts[:BATCH], BATCH)
        began = time.perf_counter()
        answers = runner.logits(texts, BATCH)
        rate = len(texts) / (time.perf_counter() - began)
        accuracy = None if truth is None else runner.merit(answers, truth)
        p50, p95 = np.percentile(alone, (50, 95)).tolist()
        found.append(
            Timing(
                runner.name, runner.kind, runner.bytes / 1e6, runner.parameters, accuracy, p50, p95,
                float(np.median(whole)), rate, float(np.median(base)) / p50, _ratio_interval(base, alone),
                runners[0].bytes / runner.bytes,
            )
        )  # fmt: skip
    return found


def _milliseconds(runners: list[Runner], sentences: list) -> list[np.ndarray]:
    """For every model float [sentences, 2]: the model alone, and with its tokenizer."""
    share = -(-len(sentences) // ROUNDS)
    times: list[list] = [[] for _ in runners]
    for start in range(0, len(sentences), share):
        for runner, took in zip(runners, times, strict=True):
            for sentence in sentences[:WARM_UP]:
                runner.run(runner.encode([sentence]))
            for sentence in sentences[start : start + share]:
                began = time.perf_counter()
                inputs = runner.encode([sentence])
                encoded = time.perf_counter()
                runner.run(inputs)
                done = time.perf_counter()
                took.append((1000 * (done - encoded), 1000 * (done - began)))
    return [np.array(took) for took in times]


def _ratio_interval(base: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians, sentences drawn in pairs."""
    if np.array_equal(base, times):
        return 1.0, 1.0
    found = stats.bootstrap(
        (base, times), lambda a, b, axis: np.median(a, axis) / np.median(b, axis), paired=True, n_resamples=1999,
        method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
