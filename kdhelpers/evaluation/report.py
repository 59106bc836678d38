"""What a run leaves to read: predictions.csv, the student's model card, the figure, the table on the screen."""

import csv
import logging
from itertools import pairwise
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from datasets import Dataset

from kdhelpers.data import Task, has_label, joined, predictions, probabilities
from kdhelpers.evaluation.comparison import NAMES, VERDICTS, paired_over_seeds, score_table
from kdhelpers.evaluation.metrics import MEASURES, Measure
from kdhelpers.storage import write_file

log = logging.getLogger(__name__)

NO_CONTROL = "without a control, what the teacher added is not known"
ABOUT = "It is about these two models; --seeds 3 is about the two ways of training."
BESIDE = {"soft_or_hard": "Soft against hard answers", "two_controls": "Luck of the seed"}  # of `VERDICTS`


def write_predictions(
    path: Path, test: Dataset, logits: dict[str, np.ndarray], label_names: list[str], task: Task = Task.ONE
) -> None:
    """predictions.csv: row id, text (of a pair both), label, each model's answer by name, the student's probability.

    The probability is that of its own answer, or of each of several labels; a number has none.
    """
    columns: dict = {name: test[name][:] for name in ("id", "text", "text_pair") if name in test.column_names}
    labels = np.array(test["labels"][:])
    columns["label"] = np.where(has_label(labels), _shown(labels, label_names, task), "")  # no label: empty
    columns |= {name: _shown(predictions(values, task), label_names, task) for name, values in logits.items()}
    shares = probabilities(logits["student"], task).round(4)
    if task is Task.ONE:
        columns["probability"] = shares.max(-1)
    elif task is Task.SEVERAL:
        columns |= {f"probability of {name}": shares[:, index] for index, name in enumerate(label_names)}
    # every text in quotes: Python's csv leaves a lone carriage return without, and it would end the row
    write_file(path, pd.DataFrame(columns).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode())


def _shown(said: np.ndarray, names: list[str], task: Task) -> np.ndarray:
    """Answers or labels as predictions.csv has them: a name, names joined by a separator, or a number [rows]."""
    if task is Task.NUMBER:
        return np.array([float(f"{number:.7g}") for number in said], dtype=object)
    known = [*names, ""]
    rows = [joined(row > 0, names) for row in said] if task is Task.SEVERAL else [known[max(i, -1)] for i in said]
    return np.array(rows, dtype=object)


def measure_of(metrics: dict) -> Measure:
    """What a run is summed up by: accuracy, micro F1 or RMSE."""
    return MEASURES[Task(metrics.get("task", Task.ONE))]


def result_table(metrics: dict) -> str:
    """The table of one run, a column a model: sizes, all scores, seconds, and what it learnt from.

    Where that were too wide for a screen, the baselines have a table of their own below.
    """
    rows = metrics["rows"]
    labels, texts = f"{rows['labelled']:,} labels", f"{rows['labelled'] + rows['unlabelled']:,} texts"
    models = {name: metrics[name] for name in NAMES if name in metrics}
    seen = {"taught_baseline": texts, "hard_answers": texts, "teacher": labels}
    seen["student"] = {0: texts, 1: labels}.get(metrics["alpha"], f"{labels}, {texts}")
    if not metrics["teacher"]["train_seconds"]:
        seen["teacher"] = "came trained" if metrics["teacher"].get("model") else "(its answers)"
    size = {
        name: {key: f"{model[key]:,}" if model.get(key) else "" for key in ("parameters", "layers")}
        for name, model in models.items()
    }
    scores = {name: {key.removeprefix("test_"): value for key, value in one.items()} for name, one in models.items()}
    table = pd.DataFrame.from_dict(size, orient="index").join(score_table(scores))
    table["training"] = [f"{model['train_seconds']:.0f} s" for model in models.values()]
    table["learnt from"] = [seen.get(name, labels) for name in models]
    shown = table.rename(index=lambda name: name.replace("_", " ")).T
    of_words = [name for name in shown if "baseline" in name]
    parts = [shown.drop(columns=of_words), shown[of_words]] if len(models) > 5 and of_words else [shown]
    return "\n\n".join(part[part.ne("").any(axis=1)].to_string() for part in parts)


def result_lines(metrics: dict, output: Path) -> list[str]:
    """The table and the verdicts of one run."""
    seconds = metrics["student"]["teacher_logits_seconds"]
    lines = ["", f"Scores on {metrics['rows']['test']:,} rows: {metrics['test_rows']}.", result_table(metrics), ""]
    measure = measure_of(metrics)
    key = f"test_{measure.key}"
    if key in metrics["student"] and metrics["teacher"].get(key):  # of nothing there is no share
        lines.append(_share_line(metrics["student"][key] / metrics["teacher"][key], measure))
    if seconds:
        lines.append(f"The teacher's answers took {seconds:.0f} s.")
    lines += verdict_lines(metrics)
    return [*lines, f"Written to {output}: metrics.json, predictions.csv, result.png, run.log, student/"]


def verdict_lines(metrics: dict) -> list[str]:
    """The verdict of a run or of several seeds, what a single run's is about, and the comparisons beside it."""
    lines = [fill(f"Verdict: {metrics['verdict']['text'] if 'verdict' in metrics else NO_CONTROL}.", 100)]
    if "verdict" in metrics and "runs" not in metrics:
        lines.append(ABOUT)
    return lines + [fill(f"{title}: {metrics[key]['text']}.", 100) for key, title in BESIDE.items() if key in metrics]


def _share_line(share: float, measure: Measure) -> str:
    if not measure.percent:
        return f"The student's {measure.name} is {share:.2f} times the teacher's."
    return f"The student has {100 * share:.1f} % of the teacher's {measure.name}."


def over_seeds(runs: list[dict], predictions: list[pd.DataFrame]) -> dict:
    """The summary of several runs' metrics.json and predictions.csv: means, spread, and the verdicts over seeds.

    Where no run has a second control, the control of each next seed is one.
    """
    task, key = Task(runs[0].get("task", Task.ONE)), f"test_{measure_of(runs[0]).key}"
    scored = [name for name in NAMES if key in runs[0].get(name, {})]
    scores = {name: np.array([run[name][key] for run in runs]) for name in scored}
    mean = {name: float(values.mean()) for name, values in scores.items()}
    summary = {
        "recipe": runs[0]["recipe"],
        "task": task,
        "mean": mean,
        "spread": {name: float(values.std(ddof=1)) for name, values in scores.items()},
        "share_of_teacher": mean["student"] / mean["teacher"] if mean.get("teacher") else None,
        "runs": runs,
    }
    by_seed = {run["seed"]: table for run, table in zip(runs, predictions, strict=True)}
    compared = {name for pair in VERDICTS.values() for name in pair if name in scores}
    right = {name: {seed: _row_scores(by_seed[seed], name, task) for seed in by_seed} for name in compared}
    if "control" in right:
        next_ones = {seed: right["control"][after] for seed, after in pairwise(sorted(by_seed))}
        right = {"second_control": next_ones} | right
    for title, (a, b) in VERDICTS.items():
        if right.get(a) and right.get(b):
            summary[title] = vars(paired_over_seeds(right[a], right[b], NAMES[a], NAMES[b], task))
    return summary


def _row_scores(table: pd.DataFrame, name: str, task: Task) -> np.ndarray:
    """Right or wrong [rows], of a number squared errors."""
    if task is Task.NUMBER:
        return ((table[name].astype(float) - table["label"].astype(float)) ** 2).to_numpy()
    return (table[name] == table["label"]).to_numpy()


def seeds_lines(summary: dict, output: Path) -> list[str]:
    """The table of several seeds: each run's accuracies, their mean and standard deviation, and the verdicts."""
    runs, names, measure = summary["runs"], list(summary["mean"]), measure_of(summary["runs"][0])
    unit = 100 if measure.percent else 1
    rows = {f"seed {run['seed']}": [unit * run[name][f"test_{measure.key}"] for name in names] for run in runs}
    rows |= {"mean": [unit * value for value in summary["mean"].values()]}
    rows |= {"standard deviation": [unit * value for value in summary["spread"].values()]}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[name.replace("_", " ") for name in names])
    share = summary["share_of_teacher"]
    return [
        "",
        f"Test {measure.name}{' in %' * measure.percent} on {runs[0]['rows']['test']:,} rows.",
        table.to_string(float_format="%.2f" if measure.percent else "%.3f", line_width=100),
        *([] if share is None else [_share_line(share, measure)]),
        *verdict_lines(summary),
        f"Written to {output}: metrics.json, and each seed's run in its own folder",
    ]


CARD = """---
library_name: transformers
pipeline_tag: text-classification
---

# A distilled text classifier

Layers: {layers}. Parameters: {parameters:,}. Trained by kdhelpers (recipe {recipe}, seed {seed}). {answers}: {classes}.

Trained on {labelled:,} labelled and {unlabelled:,} unlabelled rows; scored on {test:,} rows ({test_rows}):

```
{table}
```

{verdict}

Limits: measured on rows like the training rows, with one seed. It reads {max_length} tokens and cuts off the rest; it
has its teacher's mistakes and biases, and some of its own.
"""


def write_model_card(path: Path, metrics: dict, label_names: list[str]) -> None:
    """The student's README.md, in the form that the Hugging Face Hub reads: data, numbers, verdict, limits."""
    verdict = "\n\n".join(verdict_lines(metrics))
    kinds = {Task.ONE: "Classes", Task.SEVERAL: "Labels, any number of them at once", Task.NUMBER: "It gives a number"}
    answers = kinds[Task(metrics.get("task", Task.ONE))]
    fields = metrics | metrics["student"] | metrics["rows"] | {"table": result_table(metrics), "verdict": verdict}
    plain = [name.replace("`", "'") for name in label_names]  # as code: commas stand inside, and <b> is no markup
    classes = ", ".join(f"`{name}`" for name in plain)
    write_file(path, CARD.format(**fields, answers=answers, classes=classes).encode())


def draw_result(metrics: dict, path: Path) -> None:
    """result.png: accuracy against parameters. Left out, with a line in the log, where it cannot be drawn."""
    try:
        from kdhelpers.evaluation.figures import accuracy_against_parameters, save
    except ModuleNotFoundError as error:  # a training container may come without matplotlib
        log.info("no result.png: %s", error)
        return
    if f"test_{measure_of(metrics).key}" in metrics["student"]:
        save(accuracy_against_parameters(metrics), path)
