"""What a run leaves to read: predictions.csv, the student's model card, the figure, the table on the screen."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy.special import softmax

from kdhelpers.evaluation.comparison import score_table
from kdhelpers.storage import write_file

log = logging.getLogger(__name__)

MODELS = ("teacher", "control", "student")
ON_SCREEN = {"accuracy": "accuracy", "95 % interval": "95 % interval", "calibration error": "ECE"}
ON_SCREEN |= {"agrees with teacher": "fidelity"}
LEGEND = "(ECE: expected calibration error; fidelity: share of rows on which it says what the teacher says.)"


def write_predictions(path: Path, test: Dataset, logits: dict[str, np.ndarray], label_names: list[str]) -> None:
    """predictions.csv: row id, text, label, each model's answer by name, and the student's probability of its own."""
    names = np.array(label_names, dtype=object)
    columns = {"id": test["id"], "text": test["text"], "label": names[np.array(test["labels"])]}
    columns |= {name: names[values.argmax(-1)] for name, values in logits.items()}
    columns["probability"] = softmax(logits["student"], axis=-1).max(-1).round(4)
    write_file(path, pd.DataFrame(columns).to_csv(index=False).encode())


def rows_seen(name: str, metrics: dict) -> str:
    """Which rows a model learnt from."""
    labelled, unlabelled = metrics["rows"]["labelled"], metrics["rows"]["unlabelled"]
    if name == "teacher" and not metrics["teacher"]["train_seconds"]:
        return "already trained"
    if name != "student" or metrics["alpha"] == 1:
        return f"{labelled:,} labels"
    if metrics["alpha"] == 0:
        return f"{labelled + unlabelled:,} texts, no label"
    return f"{labelled:,} labels, {labelled + unlabelled:,} texts"


def result_table(metrics: dict) -> str:
    """The table of one run: a line a model, sizes, scores and seconds."""
    models = {name: metrics[name] for name in MODELS if name in metrics}
    scores = {name: {key.removeprefix("test_"): value for key, value in of.items()} for name, of in models.items()}
    table = score_table(scores)
    table = table[[heading for heading in ON_SCREEN if heading in table]].rename(columns=ON_SCREEN)
    table.insert(0, "layers", [of["layers"] for of in models.values()])
    table.insert(0, "parameters", [f"{of['parameters']:,}" for of in models.values()])
    table["trained"] = [f"{of['train_seconds']:.0f} s" for of in models.values()]
    table["learnt from"] = [rows_seen(name, metrics) for name in models]
    return table.to_string()


def result_lines(metrics: dict, output: Path) -> list[str]:
    """The table and the verdict of one run."""
    share = metrics["student"]["test_accuracy"] / metrics["teacher"]["test_accuracy"]
    seconds = metrics["student"]["teacher_logits_seconds"]
    lines = [
        "",
        f"Scores on {metrics['rows']['test']:,} rows: {metrics['test_rows']}.",
        result_table(metrics),
        LEGEND,
        f"The student has {100 * share:.1f} % of the teacher's accuracy."
        + (f" The teacher's answers took {seconds:.0f} s." if seconds else ""),
    ]
    if "verdict" in metrics:
        lines.append(f"Verdict: {metrics['verdict']['text']}.")
    return [*lines, f"Written to {output}: metrics.json, predictions.csv, result.png, run.log, student/"]


def seeds_lines(summary: dict, output: Path) -> list[str]:
    """The table of several seeds: each run's accuracies, their mean and standard deviation, and the verdict."""
    names = list(summary["mean"])
    runs = summary["runs"]
    table = pd.DataFrame(
        {name: [100 * run[name]["test_accuracy"] for run in runs] for name in names},
        index=[f"seed {run['seed']}" for run in runs],
    )
    table.loc["mean"] = [100 * summary["mean"][name] for name in names]
    table.loc["standard deviation"] = [100 * summary["spread"][name] for name in names]
    lines = ["", f"Test accuracy in % on {runs[0]['rows']['test']:,} rows.", table.to_string(float_format="%.2f")]
    lines.append(f"The student has {100 * summary['share_of_teacher']:.1f} % of the teacher's accuracy.")
    if "verdict" in summary:
        lines.append(f"Verdict: {summary['verdict']['text']}.")
    return [*lines, f"Written to {output}: metrics.json, and each seed's run in its own folder"]


def write_model_card(path: Path, metrics: dict, label_names: list[str]) -> None:
    """The student's README.md, in the form that the Hugging Face Hub reads: data, numbers, verdict, limits."""
    verdict = metrics.get("verdict", {}).get("text", "the run had no control, so it cannot tell what the teacher added")
    rows = metrics["rows"]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "---",
        "",
        "# A distilled text classifier",
        "",
        f"{metrics['student']['layers']} layers, {metrics['student']['parameters']:,} parameters, trained by "
        f"kdhelpers (recipe {metrics['recipe']}, seed {metrics['seed']}). Classes: {', '.join(label_names)}.",
        "",
        f"Trained on {rows['labelled']:,} labelled and {rows['unlabelled']:,} unlabelled rows; scored on "
        f"{rows['test']:,} rows ({metrics['test_rows']}):",
        "",
        "```",
        result_table(metrics),
        "```",
        "",
        f"Verdict: {verdict}.",
        "",
        "Limits: measured on rows like the training rows, with one seed. It reads "
        f"{metrics['max_length']} tokens and cuts off the rest; it has its teacher's mistakes and biases, and some of "
        "its own.",
        "",
    ]
    write_file(path, "\n".join(lines).encode())


def draw_result(metrics: dict, path: Path) -> None:
    """result.png: accuracy against parameters. Left out, with a line in the log, where matplotlib is missing."""
    try:
        from kdhelpers.evaluation.figures import accuracy_against_parameters, save
    except ModuleNotFoundError as error:  # a training container may come without matplotlib
        log.info("no result.png: %s", error)
    else:
        save(accuracy_against_parameters(metrics), path)
