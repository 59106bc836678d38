"""The style of every figure, and the figure of a run: colour-blind safe (Okabe and Ito 2008), readable in grey."""

from itertools import product
from pathlib import Path
from typing import IO, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path as Curve
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from kdhelpers.data import Task
from kdhelpers.evaluation.metrics import MEASURES

COLOURS = {"teacher": "#0072B2", "control": "#E69F00", "student": "#009E73"}
MARKERS = {"teacher": "s", "control": "^", "student": "o"}
LABELS = {"teacher": "teacher", "control": "control (no teacher)", "student": "distilled student"}
OUTLINE = [withStroke(linewidth=2, foreground="white")]  # a text is read on a line, and the line still seen
SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]  # where a mark's label may stand


def new_figure(width: float = 6.4, height: float = 4.0, columns: int = 1, sharey: bool = True) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes in the series' style, with no global state touched."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    axes = figure.subplots(1, columns, sharey=sharey)
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


def _drawn(axis: Axes) -> tuple[list[Bbox], list[Curve]]:
    """What a label must not cover, in pixels: a box around every mark, and every line and error bar."""
    marks: list[tuple] = []  # where, and how large in points
    lines = []
    for line in axis.lines:
        path = line.get_transform().transform_path(line.get_path())
        if line.get_linestyle() != "None":
            lines.append(path)
        if line.get_marker() not in ("None", "_", "|"):  # the latter two end an error bar
            marks += [(at, line.get_markersize()) for at in np.asarray(path.vertices)]
    for group in axis.collections:
        if isinstance(group, PathCollection):
            marks += [(at, group.get_sizes()[0] ** 0.5) for at in axis.transData.transform(group.get_offsets())]
        elif isinstance(group, LineCollection):
            lines += [group.get_transform().transform_path(path) for path in group.get_paths()]
    half = axis.figure.dpi / 72 / 2
    return [Bbox([at - half * size, at + half * size]) for at, size in marks], lines


def _far(box: Bbox, place: np.ndarray) -> float:
    """Pixels from a point to the nearest of a box."""
    return float(np.linalg.norm(place - np.clip(place, box.min, box.max)))


def place_labels(axis: Axes, points: list, texts: list[str], sides: list = SIDES) -> None:
    """Write a text beside each point (x, y) of the data, so that none covers another, a mark or a line.

    Call it last: labels are placed on the figure as it stands, each where it covers least, those with the fewest
    free places first, and each nearer to its own point than to another's.
    """
    axis.figure.draw_without_rendering()  # type: ignore[union-attr]
    frame, places = axis.get_window_extent(), axis.transData.transform(points)
    taken, lines = _drawn(axis)
    waiting: list = []
    for point, place, text in zip(points, places, texts, strict=True):
        note = axis.annotate(text, point, (0, 0), textcoords="offset points", in_layout=False, path_effects=OUTLINE)
        tried: list = []
        for distance, (x, y) in product((10, 15, 20, 26, 32, 40, 50), sides):
            look = {"ha": ("center", "left", "right")[x], "va": ("center", "bottom", "top")[y]}
            note.set(position=(distance * x, distance * y), **look)
            text_box = note.get_window_extent()
            box = text_box.padded(6, 3)
            cost = 8 * sum(line.intersects_bbox(box, filled=False) for line in lines)
            cost += 5 * (sum(_far(box, other) <= 1.2 * _far(box, place) for other in places) > 1)
            cost += 10 * (not (frame.fully_contains(*text_box.p0) and frame.fully_contains(*text_box.p1)))
            tried.append((cost + 10 * box.count_overlaps(taken), len(tried), box, look | {"position": note.xyann}))
        waiting.append((sum(cost == 0 for cost, *_ in tried), len(waiting), note, tried))
    written: list[Bbox] = []
    for *_, note, tried in sorted(waiting):
        *_, box, look = min((cost + 10 * box.count_overlaps(written), at, box, look) for cost, at, box, look in tried)
        note.set(**look)
        written.append(box)


def accuracy_against_parameters(metrics: dict) -> Figure:
    """A run's result: test accuracy with 95 % interval against millions of parameters, one mark a model.

    Of several labels it is micro F1, of a number RMSE.
    """
    figure, axis = new_figure()
    measure = MEASURES[Task(metrics.get("task", Task.ONE))]
    score, unit = f"test_{measure.key}", 100 if measure.percent else 1
    names = [name for name in COLOURS if {"parameters", score} <= metrics.get(name, {}).keys()]
    sizes = [metrics[name]["parameters"] / 1e6 for name in names]
    points = []
    for name, size in zip(names, sizes, strict=True):
        # control and student have the same size: set them a little apart
        x = size + {"control": -1, "student": 1}.get(name, 0) * 0.012 * max(sizes)
        y, interval = unit * metrics[name][score], metrics[name][f"test_{measure.interval}"]
        ends = interval and [[y - unit * interval[0]], [unit * interval[1] - y]]
        axis.errorbar(x, y, ends, fmt=MARKERS[name], color=COLOURS[name], capsize=4)
        points.append((x, y))
    span = max(max(sizes) - min(sizes), 0.2 * max(sizes))
    axis.set_xlim(min(sizes) - 0.6 * span, max(sizes) + 0.6 * span)
    axis.set(
        xlabel="parameters (millions)", ylabel=f"test {measure.name}{' (%)' * measure.percent}, with 95 % interval"
    )
    place_labels(axis, points, [f"{LABELS[name]}\n{measure.shown(metrics[name][score])}" for name in names])
    return figure
