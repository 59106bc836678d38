"""The style of every figure, and the figure of a run: colour-blind safe (Okabe and Ito 2008), readable in grey."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import IO, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from kdhelpers.data import Task
from kdhelpers.evaluation.metrics import MEASURES

COLOURS = {"teacher": "#0072B2", "control": "#E69F00", "student": "#009E73"}
MARKERS = {"teacher": "s", "control": "^", "student": "o"}
LABELS = {"teacher": "teacher", "control": "control (no teacher)", "student": "distilled student"}
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind a text, so that no line runs through it
SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]  # where a mark's label may stand


def new_figure(width: float = 6.4, height: float = 4.0, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes in the series' style, with no global state touched."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    axes = figure.subplots(1, columns, sharey=True)
    for axis in axes if columns > 1 else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def save(figure: Figure, place: Path | IO[bytes]) -> None:
    """Write a figure as PNG without the library's version in it, so that equal figures are equal files."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place, format="png", metadata={"Software": None})


def place_labels(axis: Axes, points: list, texts: list[str], avoid: Sequence = (), sides: list = SIDES) -> None:
    """Write a text beside each point (x, y) of the data, so that none covers another, a mark, or a point to `avoid`.

    Call it last: labels are placed on the figure as it stands, each where it covers least.
    """
    axis.figure.draw_without_rendering()  # type: ignore[union-attr]
    frame = axis.get_window_extent()
    marks = axis.transData.transform([*points, *avoid])
    taken = [Bbox.from_bounds(x - 10, y - 10, 20, 20) for x, y in marks]
    for point, text in zip(points, texts, strict=True):
        note = axis.annotate(text, point, (0, 0), textcoords="offset points", in_layout=False, bbox=WHITE)
        tried: list = []
        for distance, (x, y) in product((10, 20, 32), sides):
            ha, va = ("center", "left", "right")[x], ("center", "bottom", "top")[y]
            note.set(position=(distance * x, distance * y), ha=ha, va=va)
            box = note.get_window_extent()
            outside = not (frame.fully_contains(*box.p0) and frame.fully_contains(*box.p1))
            tried.append((box.count_overlaps(taken) + outside, len(tried), note.xyann, ha, va, box))
        *_, place, ha, va, box = min(tried)
        note.set(position=place, ha=ha, va=va)
        taken.append(box)


def accuracy_against_parameters(metrics: dict) -> Figure:
    """A run's result: test accuracy with 95 % interval against millions of parameters, one mark a model.

    Of several labels it is micro F1, of a number RMSE.
    """
    figure, axis = new_figure()
    measure = MEASURES[Task(metrics.get("task", Task.ONE))]
    score, unit = f"test_{measure.key}", 100 if measure.percent else 1
    names = [name for name in COLOURS if {"parameters", score} <= metrics.get(name, {}).keys()]
    sizes = [metrics[name]["parameters"] / 1e6 for name in names]
    points, bars = [], []
    for name, size in zip(names, sizes, strict=True):
        # control and student have the same size: set them a little apart
        x = size + {"control": -1, "student": 1}.get(name, 0) * 0.012 * max(sizes)
        y, (low, high) = unit * metrics[name][score], metrics[name][f"test_{measure.interval}"]
        axis.errorbar(x, y, [[y - unit * low], [unit * high - y]], fmt=MARKERS[name], color=COLOURS[name], capsize=4)
        points.append((x, y))
        bars += [(x, unit * (low + step * (high - low) / 8)) for step in range(9)]
    span = max(max(sizes) - min(sizes), 0.2 * max(sizes))
    axis.set_xlim(min(sizes) - 0.6 * span, max(sizes) + 0.6 * span)
    axis.set(
        xlabel="parameters (millions)", ylabel=f"test {measure.name}{' (%)' * measure.percent}, with 95 % interval"
    )
    place_labels(axis, points, [f"{LABELS[name]}\n{measure.shown(metrics[name][score])}" for name in names], bars)
    return figure
