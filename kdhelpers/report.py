"""What a run prints: tables in plain text."""

from pathlib import Path

NAMES = {"teacher": "teacher", "control": "control, no teacher", "student": "distilled student"}


def text_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column left-aligned, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row):
        return "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )

    return [line(header), "  ".join("-" * width for width in widths), *map(line, rows)]


def rows_seen(name: str, metrics: dict) -> str:
    """Which rows a model learnt from."""
    labelled, unlabelled = metrics["rows"]["labelled"], metrics["rows"]["unlabelled"]
    if name == "teacher" and not metrics["teacher"]["train_seconds"]:
        return "came trained"
    if name == "student" and unlabelled:
        return f"{labelled:,} labels + {unlabelled:,} texts"
    return f"{labelled:,} labels"


def result_lines(metrics: dict, output: Path) -> list[str]:
    """The table and the verdict of one run."""
    body = []
    for name in ("teacher", "control", "student"):
        if name in metrics:
            values = metrics[name]
            low, high = values["test_accuracy_interval95"]
            body.append(
                [
                    NAMES[name],
                    f"{values['parameters']:,}",
                    str(values["layers"]),
                    f"{100 * values['test_accuracy']:.1f} %",
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    f"{values['train_seconds']:.0f}",
                    rows_seen(name, metrics),
                ]
            )
    header = ["model", "parameters", "layers", "accuracy", "95 % interval", "train s", "rows seen"]
    share = metrics["student"]["test_accuracy"] / metrics["teacher"]["test_accuracy"]
    seconds = metrics["student"]["teacher_logits_seconds"]
    cost = f"and {seconds:.0f} s for the teacher's logits" if seconds else "the teacher's logits came from the cache"
    lines = [
        "",
        f"Scores on {metrics['rows']['test']:,} rows: {metrics['test_rows']}.",
        *text_table(header, body),
        f"The student keeps {100 * share:.1f} % of the teacher's accuracy ({cost}).",
    ]
    if "verdict" in metrics:
        lines.append(f"Verdict: {metrics['verdict']['text']}.")
    return [*lines, f"Written to {output}: metrics.json, predictions.csv, result.png, run.log, student/"]


def seeds_lines(summary: dict, output: Path) -> list[str]:
    """The table of several seeds: each run's accuracies, their mean and spread."""
    names = [name for name in ("teacher", "control", "student") if name in summary["mean"]]
    percent = [[f"{100 * run[name]['test_accuracy']:.1f}" for name in names] for run in summary["runs"]]
    body = [[f"seed {run['seed']}", *row] for run, row in zip(summary["runs"], percent, strict=True)]
    body.append(["mean", *(f"{100 * summary['mean'][name]:.2f}" for name in names)])
    body.append(["standard deviation", *(f"{100 * summary['spread'][name]:.2f}" for name in names)])
    lines = ["", f"Test accuracy in % on {summary['runs'][0]['rows']['test']:,} rows."]
    lines += text_table(["", *(NAMES[name] for name in names)], body)
    lines.append(f"The student keeps {100 * summary['share_of_teacher']:.1f} % of the teacher's accuracy.")
    if "gain_over_control" in summary:
        lines.append(f"Student minus control: {100 * summary['gain_over_control']:+.1f} points on average.")
        lines += [f"Verdict, seed {run['seed']}: {run['verdict']['text']}." for run in summary["runs"]]
    return [*lines, f"Written to {output}: metrics.json, and each seed's run in its own folder"]
