"""Every figure of the series: colour-blind safe (Okabe and Ito 2008), readable in grey, labelled axes with units."""

import base64
import io
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


def show(figure: Figure, alt: str) -> None:
    """Show a figure in a notebook, with alternative text for readers who do not see it."""
    from IPython.display import display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    picture = base64.b64encode(buffer.getvalue()).decode()
    display({"image/png": picture, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})


def _labelled_bars(axis, names: list[str], values: list[float], unit: str = "%") -> None:
    """Bars with their numbers on top."""
    bars = axis.bar(names, values, color=COLOURS["teacher"], width=0.6)
    axis.bar_label(bars, labels=[f"{value:.0f} {unit}" for value in values], padding=3, fontsize=11)
    axis.set_ylim(0, 1.15 * max(values))


def unknown_words(counts: list[int]) -> Figure:
    """Share of snippets by how many of their words became [UNK]."""
    figure, axis = new_figure(height=3.4)
    groups = {"none": 0, "one": 1, "two": 2, "three": 3}
    shares = [100 * sum(n == k for n in counts) / len(counts) for k in groups.values()]
    shares.append(100 * sum(n > 3 for n in counts) / len(counts))
    _labelled_bars(axis, [*groups, "four or more"], shares)
    axis.set_xlabel("words of the snippet that became [UNK]")
    axis.set_ylabel("share of snippets (%)")
    return figure


def rating_histogram(ratings: list[float], neutral_below: float) -> Figure:
    """Mean ratings, with the neutral ones in a grey band."""
    figure, axis = new_figure(height=3.4)
    axis.hist(ratings, bins=48, range=(-4, 4), color=COLOURS["teacher"], edgecolor="white", linewidth=0.5)
    axis.axvspan(-neutral_below, neutral_below, color="#999999", alpha=0.45, zorder=3)
    axis.annotate("neutral:\nleft out", (0, axis.get_ylim()[1] * 0.97), ha="center", va="top", fontsize=11, zorder=4)
    axis.set_xlabel("mean rating of 20 people (-4 awful, +4 wonderful)")
    axis.set_ylabel("snippets")
    return figure


def padding_bars(shares: dict[str, float]) -> Figure:
    """Share of padding for several ways to fill a batch."""
    figure, axis = new_figure(height=3.4)
    _labelled_bars(axis, list(shares), [100 * share for share in shares.values()])
    axis.set_xlabel("how batches are filled")
    axis.set_ylabel("padding (% of all slots)")
    return figure


def accuracy_against_parameters(metrics: dict) -> Figure:
    """A run's result: test accuracy with 95 % interval against millions of parameters, one mark a model."""
    figure, axis = new_figure()
    names = [name for name in COLOURS if name in metrics]
    for name in names:
        values = metrics[name]
        x, y = values["parameters"] / 1e6, 100 * values["test_accuracy"]
        low, high = (100 * bound for bound in values["test_accuracy_interval95"])
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
