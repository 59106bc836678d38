"""What a run leaves to read: predictions.csv, the student's model card, the figure, the table on the screen."""

import logging
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy.special import softmax

from kdhelpers.evaluation.comparison import NAMES, paired_over_seeds, score_table
from kdhelpers.storage import write_file

log = logging.getLogger(__name__)

NO_CONTROL = "without a control, what the teacher added is not known"


def write_predictions(path: Path, test: Dataset, logits: dict[str, np.ndarray], label_names: list[str]) -> None:
    """predictions.csv: row id, text, label, each model's answer by name, and the student's probability of its own."""
    names = np.array([*label_names, ""], dtype=object)
    columns = {"id": test["id"], "text": test["text"], "label": names[np.maximum(test["labels"], -1)]}
    columns |= {name: names[values.argmax(-1)] for name, values in logits.items()}
    columns["probability"] = softmax(logits["student"], axis=-1).max(-1).round(4)
    write_file(path, pd.DataFrame(columns).to_csv(index=False).encode())


def result_table(metrics: dict) -> str:
    """The table of one run, a column a model: sizes, all scores, seconds, and what it learnt from."""
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
    scores = {
        name: {key.removeprefix("test_"): value for key, value in model.items()} for name, model in models.items()
    }
    table = pd.DataFrame.from_dict(size, orient="index").join(score_table(scores))
    table["training"] = [f"{model['train_seconds']:.0f} s" for model in models.values()]
    table["learnt from"] = [seen.get(name, labels) for name in models]
    return table.rename(index=lambda name: name.replace("_", " ")).T.to_string(line_width=100)


def result_lines(metrics: dict, output: Path) -> list[str]:
    """The table and the verdicts of one run."""
    seconds = metrics["student"]["teacher_logits_seconds"]
    lines = ["", f"Scores on {metrics['rows']['test']:,} rows: {metrics['test_rows']}.", result_table(metrics), ""]
    if "test_accuracy" in metrics["student"] and "test_accuracy" in metrics["teacher"]:
        share = metrics["student"]["test_accuracy"] / max(metrics["teacher"]["test_accuracy"], 1e-9)
        lines.append(f"The student has {100 * share:.1f} % of the teacher's accuracy.")
    if seconds:
        lines.append(f"The teacher's answers took {seconds:.0f} s.")
    lines.append(fill(f"Verdict: {metrics['verdict']['text'] if 'verdict' in metrics else NO_CONTROL}.", 100))
    for title, kind in (("Soft against hard answers", "soft_or_hard"), ("Luck of the seed", "two_controls")):
        if kind in metrics:
            lines.append(fill(f"{title}: {metrics[kind]['text']}.", 100))
    return [*lines, f"Written to {output}: metrics.json, predictions.csv, result.png, run.log, student/"]


def over_seeds(runs: list[dict], predictions: list[pd.DataFrame]) -> dict:
    """The summary of several runs' metrics.json and predictions.csv: means, spread, and one verdict over seeds."""
    scored = [name for name in NAMES if "test_accuracy" in runs[0].get(name, {})]
    scores = {name: np.array([run[name]["test_accuracy"] for run in runs]) for name in scored}
    summary = {
        "recipe": runs[0]["recipe"],
        "mean": {name: float(values.mean()) for name, values in scores.items()},
        "spread": {name: float(values.std(ddof=1)) for name, values in scores.items()},
        "share_of_teacher": float(scores["student"].mean() / scores["teacher"].mean()) if "teacher" in scores else None,
        "runs": runs,
    }
    if "control" in scores:
        by_seed = {run["seed"]: table for run, table in zip(runs, predictions, strict=True)}
        student, control = (
            {seed: (table[name] == table["label"]).to_numpy() for seed, table in by_seed.items()}
            for name in ("student", "control")
        )
        summary["verdict"] = vars(paired_over_seeds(student, control, NAMES["student"], NAMES["control"]))
    return summary


def seeds_lines(summary: dict, output: Path) -> list[str]:
    """The table of several seeds: each run's accuracies, their mean and standard deviation, and the verdict."""
    runs, names = summary["runs"], list(summary["mean"])
    rows = {f"seed {run['seed']}": [100 * run[name]["test_accuracy"] for name in names] for run in runs}
    rows |= {"mean": [100 * value for value in summary["mean"].values()]}
    rows |= {"standard deviation": [100 * value for value in summary["spread"].values()]}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[name.replace("_", " ") for name in names])
    share = summary["share_of_teacher"]
    return [
        "",
        f"Test accuracy in % on {runs[0]['rows']['test']:,} rows.",
        table.to_string(float_format="%.2f", line_width=100),
        *([f"The student has {100 * share:.1f} % of the teacher's accuracy."] if share else []),
        fill(f"Verdict: {summary['verdict']['text'] if 'verdict' in summary else NO_CONTROL}.", 100),
        f"Written to {output}: metrics.json, and each seed's run in its own folder",
    ]


CARD = """---
library_name: transformers
pipeline_tag: text-classification
---

# A distilled text classifier

{layers} layers, {parameters:,} parameters, trained by kdhelpers (recipe {recipe}, seed {seed}). Classes: {classes}.

Trained on {labelled:,} labelled and {unlabelled:,} unlabelled rows; scored on {test:,} rows ({test_rows}):

```
{table}
```

Verdict: {verdict}.

Limits: measured on rows like the training rows, with one seed. It reads {max_length} tokens and cuts off the rest; it
has its teacher's mistakes and biases, and some of its own.
"""


def write_model_card(path: Path, metrics: dict, label_names: list[str]) -> None:
    """The student's README.md, in the form that the Hugging Face Hub reads: data, numbers, verdict, limits."""
    verdict = metrics["verdict"]["text"] if "verdict" in metrics else NO_CONTROL
    fields = metrics | metrics["student"] | metrics["rows"] | {"table": result_table(metrics), "verdict": verdict}
    write_file(path, CARD.format(**fields, classes=", ".join(label_names)).encode())


def draw_result(metrics: dict, path: Path) -> None:
    """result.png: accuracy against parameters. Left out, with a line in the log, where it cannot be drawn."""
    try:
        from kdhelpers.evaluation.figures import accuracy_against_parameters, save
    except ModuleNotFoundError as error:  # a training container may come without matplotlib
        log.info("no result.png: %s", error)
        return
    if "test_accuracy" in metrics["student"]:
        save(accuracy_against_parameters(metrics), path)
