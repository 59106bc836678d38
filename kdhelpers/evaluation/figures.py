"""The style of every figure, and the figure of a run: colour-blind safe (Okabe and Ito 2008), readable in grey."""

from pathlib import Path

from matplotlib.figure import Figure

COLOURS = {"teacher": "#0072B2", "control": "#E69F00", "student": "#009E73"}
MARKERS = {"teacher": "s", "control": "^", "student": "o"}
LABELS = {"teacher": "teacher", "control": "control (no teacher)", "student": "distilled student"}


def new_figure(width: float = 6.4, height: float = 4.0, columns: int = 1):
    """A figure and its axes in the series' style, with no global state touched."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    axes = figure.subplots(1, columns)
    for axis in axes if columns > 1 else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG without the library's version in it, so that equal figures are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def accuracy_against_parameters(metrics: dict) -> Figure:
    """A run's result: test accuracy with 95 % interval against millions of parameters, one mark a model."""
    figure, axis = new_figure()
    names = [name for name in COLOURS if name in metrics]
    for name in names:
        values = metrics[name]
        x, y = values["parameters"] / 1e6, 100 * values["test_accuracy"]
        low, high = (100 * bound for bound in values["test_interval95"])
        # control and student have the same size: set them a little apart
        shift = {"control": -1, "student": 1}.get(name, 0) * 0.012 * metrics["teacher"]["parameters"] / 1e6
        axis.errorbar(
            x + shift, y, yerr=[[y - low], [high - y]], fmt=MARKERS[name], color=COLOURS[name], markersize=9, capsize=4
        )
        left = name == "control"
        axis.annotate(
            f"{LABELS[name]}\n{y:.1f} %", (x + shift, y), xytext=(-10 if left or name == "teacher" else 10, 0),
            textcoords="offset points", ha="right" if left or name == "teacher" else "left", va="center", fontsize=10,
        )  # fmt: skip
    axis.set_xlabel("parameters (millions)")
    axis.set_ylabel("test accuracy (%), with 95 % interval")
    smallest = min(metrics[name]["parameters"] for name in names) / 1e6
    largest = max(metrics[name]["parameters"] for name in names) / 1e6
    span = max(largest - smallest, 0.2 * largest)
    axis.set_xlim(smallest - 0.55 * span, largest + 0.2 * span)
    return figure
