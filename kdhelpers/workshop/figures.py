"""Every figure of the series: colour-blind safe (Okabe and Ito 2008), readable in grey, labelled axes with units."""

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from kdhelpers.distillation import soft_targets
from kdhelpers.evaluation import SeedsComparison, wilson_interval
from kdhelpers.evaluation.figures import COLOURS, MARKERS, new_figure, place_labels, save

ASIDE = {"fontsize": 10, "color": "#555555", "loc": "left"}  # the look of a title that names the dashed line
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind a number that may stand on the dashed line
STABLE = "stable"  # the gid of what is drawn from numbers that are the same on every machine


def show(figure: Figure, alt: str) -> None:
    """Show a figure in a notebook. `alt`: one sentence that says what it is, for readers who do not see it.

    The picture is HTML, since JupyterLab and nbconvert hand on no alternative text of a bare image. Beside it stands
    `describe(figure)` as plain text, which nbval compares.
    """
    from IPython.display import display

    save(figure, buffer := io.BytesIO())
    picture = base64.b64encode(buffer.getvalue()).decode()
    drawn = describe(figure)
    words = html.escape(f"{alt} {drawn}".replace("\n", " "))
    page = f'<img alt="{words}" src="data:image/png;base64,{picture}">'
    display({"text/html": page, "text/plain": drawn}, raw=True)


def describe(figure: Figure) -> str:
    """What a figure shows, computed from it: a line for the marks and one for each axis, the same on every machine.

    Marks are counted. Limits are told where the figure fixes them; values, and whether a curve rises or falls,
    where what is drawn has the gid `STABLE`. A dashed line is one to compare with.
    """
    figure.draw_without_rendering()  # the axes' own texts are set only then
    return "\n".join(line for axis in figure.axes for line in (_marks(axis), *_scales(axis)))


def _marks(axis: Axes) -> str:
    bars = [bar for group in axis.containers if isinstance(group, BarContainer) for bar in group]
    errors = [group for group in axis.containers if isinstance(group, ErrorbarContainer)]
    lines: list = [line for line in axis.lines if not any(line in group.lines[1] for group in errors)]
    points = sum(len(line.get_xdata()) for line in lines if line.get_linestyle() == "None")
    points += sum(np.shape(marks.get_offsets())[0] for marks in axis.collections if isinstance(marks, PathCollection))
    intervals = sum(len(group.lines[2][0].get_segments()) for group in errors)
    dashed = sum(line.get_linestyle() == "--" for line in lines)
    counts = {"bar": len(bars), "point": points, "interval": intervals, "dashed line": dashed}
    said = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
    for line in (line for line in lines if line.get_linestyle() not in ("None", "--")):
        steps, name = np.diff(line.get_ydata()), "" if line.get_label().startswith("_") else f" {line.get_label()!r}"
        trend = " falls" if (steps < 0).all() else " rises" if (steps > 0).all() else " turns"
        said.append(f"curve{name} of {len(steps) + 1} points{trend if line.get_gid() == STABLE else ''}")
    if axis.get_gid() == STABLE and len(axis.texts) == len(bars):
        names = [label.get_text() for label in axis.get_xticklabels()]
        said += [f"{name} {value.get_text()}" for name, value in zip(names, axis.texts, strict=True)]
    return "; ".join(said) + "."


def _scales(axis: Axes) -> Iterator[str]:
    for name, which, free in (("across", "x", axis.get_autoscalex_on()), ("up", "y", axis.get_autoscaley_on())):
        if label := getattr(axis, f"get_{which}label")():
            low, high = getattr(axis, f"get_{which}lim")()
            yield f"{name}: {label}" + ("." if free else f", {low:g} to {high:g}.")


def _labelled_bars(shares: dict[str, float], across: str, up: str) -> Figure:
    """Bars with their numbers, in percent, on top; what is small but not nothing is not called 0."""
    figure, axis = new_figure(height=3.4)
    values = [100 * share for share in shares.values()]
    bars = axis.bar(list(shares), values, color=COLOURS["teacher"], width=0.6)
    axis.bar_label(bars, fmt=lambda y: f"{y:.1f} %" if 0 < y < 1 else f"{y:.0f} %", padding=3, fontsize=11)
    axis.set(xlabel=across, ylabel=up, ylim=(0, 10 * np.ceil(0.115 * max(values))), gid=STABLE)
    return figure


def unknown_words(counts: list[int]) -> Figure:
    """Share of snippets by how many of their words became [UNK]."""
    names = ("none", "one", "two", "three", "four or more")
    shares = {name: np.mean(np.minimum(counts, 4) == k) for k, name in enumerate(names)}
    return _labelled_bars(shares, "words of the snippet that became [UNK]", "share of snippets (%)")


def padding_bars(shares: dict[str, float]) -> Figure:
    """Share of padding, as fractions, for several ways to fill a batch."""
    return _labelled_bars(shares, "how batches are filled", "padding (% of all slots)")


def rating_histogram(ratings: list[float], neutral_below: float) -> Figure:
    """Mean ratings, with the neutral ones in a grey band."""
    figure, axis = new_figure(height=3.4)
    axis.hist(ratings, bins=48, range=(-4, 4), color=COLOURS["teacher"], edgecolor="white", linewidth=0.5)
    axis.axvspan(-neutral_below, neutral_below, color="#999999", alpha=0.45, zorder=3)
    axis.annotate("neutral:\nleft out", (0, axis.get_ylim()[1] * 0.97), ha="center", va="top", fontsize=11, zorder=4)
    axis.set(xlabel="mean rating of 20 people (-4 awful, +4 wonderful)", ylabel="snippets", xlim=(-4, 4), gid=STABLE)
    return figure


def _curves(xs: Sequence, curves: dict[str, list[float]], stable: Sequence, **labels: object) -> Figure:
    """Lines with a marker each and their name at the right end, so that no legend has to be matched by colour."""
    figure, axis = new_figure(width=7.2)
    for (name, ys), look in zip(curves.items(), ("#0072B2 o", "#D55E00 s", "#009E73 ^", "#000000 D"), strict=False):
        colour, marker = look.split()
        axis.plot(xs, ys, color=colour, marker=marker, label=name, gid=STABLE if name in stable else None)
    axis.set(**labels)
    axis.minorticks_off()
    ends = [(xs[-1], ys[-1]) for ys in curves.values()]
    place_labels(axis, ends, list(curves), sides=[(1, 0), (1, 1), (1, -1)])
    return figure


def soft_targets_over_temperature(logits: np.ndarray, temperatures: tuple = (1, 1.5, 2, 3, 4, 6, 8)) -> Figure:
    """The leading class's probability against T, for rows at four quantiles of confidence; logits [rows, 2]."""
    margin = np.abs(logits[:, 1] - logits[:, 0])
    rows = [np.argsort(margin)[int(q * (len(margin) - 1))] for q in (0.99, 0.5, 0.15, 0.03)]
    names = ("among the surest", "middling", "rather unsure", "among the least sure")
    chosen = torch.as_tensor(logits)[rows]
    leading = torch.stack([100 * soft_targets(chosen, t).max(-1).values for t in temperatures], dim=1).tolist()
    look = {"xlabel": "temperature T", "xticks": [1, 2, 4, 6, 8], "xlim": (0.8, 11.5), "ylim": (44, 102)}
    look["ylabel"] = "probability of the leading class (%)"
    return _curves(temperatures, dict(zip(names, leading, strict=True)), stable=names, **look)


def gradient_over_temperature(
    temperatures: list[float], with_square: list[float], without_square: list[float]
) -> Figure:
    """The size of the student's gradient against T, with and without the factor T^2; both axes logarithmic."""
    curves = {"with T\u00b2": with_square, "without T\u00b2": without_square}
    look = {"xscale": "log", "yscale": "log", "xlim": (0.9, 42), "xticks": [1, 2, 4, 10, 20]}
    look |= {"xticklabels": look["xticks"], "xlabel": "temperature T (logarithmic)"}
    look["ylabel"] = "gradient norm (logarithmic, no unit)"
    return _curves(temperatures, curves, stable=["without T\u00b2"], **look)


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 4) -> Figure:
    """How often a model is right against how sure it says it is (Guo et al. 2017), with 95 % intervals (Wilson).

    Both [rows], confidence from 0.5 to 1. Sorted by confidence, the rows are cut into `bins` of equally many.
    """
    groups = np.array_split(np.argsort(confidence), bins)
    said, was = (np.array([100 * values[group].mean() for group in groups]) for values in (confidence, correct))
    low, high = 100 * np.array([wilson_interval(correct[group]) for group in groups]).T
    figure, axis = new_figure(width=5.2, height=4.6)
    axis.plot([50, 100], [50, 100], color="#555555", linestyle="--", linewidth=1.2)
    axis.set_title(f"each mark: {len(groups[-1])} rows; dashed: as sure as right", **ASIDE)
    errors = np.maximum(0, [was - low, high - was])
    axis.errorbar(said, was, yerr=errors, fmt="s-", color=COLOURS["teacher"], markersize=7, linewidth=2, capsize=3)
    axis.set(xlabel="confidence (%)", xlim=(48, 102), ylabel="how often right (%), with 95 % interval")
    return figure


def accuracy_against_latency(
    timings: list, pair: pd.DataFrame | None = None, limits: tuple[float, float] | None = None
) -> Figure:
    """Accuracy against milliseconds a sentence, the mark's area growing with the file; dashed, the Pareto front.

    `pair` is what `evaluation.cascade` returns and is drawn as a line, `limits` are the least and most milliseconds.
    """
    figure, axis = new_figure(width=7.6, height=4.8 if pair is None else 6)
    kinds = {"PyTorch fp32": ("#0072B2", "s"), "ONNX fp32": ("#E69F00", "^"), "ONNX int8": ("#009E73", "o")}
    timings = [timing for timing in timings if timing.accuracy is not None]
    points = [(timing.p50_ms, 100 * timing.accuracy) for timing in timings]
    for timing, (x, y) in zip(timings, points, strict=True):
        colour, marker = kinds.get(timing.kind, ("#D55E00", "D"))
        axis.scatter(x, y, s=40 + 2 * timing.megabytes, color=colour, marker=marker, alpha=0.75, edgecolor="black")
    front = [(x, y) for x, y in sorted(points) if not any(u <= x and v >= y and (u, v) != (x, y) for u, v in points)]
    axis.plot(*zip(*front, strict=True), color="#555555", linestyle="--", linewidth=1.2, zorder=1)
    along = [] if pair is None else list(zip(pair["milliseconds"], 100 * pair["accuracy"], strict=True))
    if along:
        axis.plot(*zip(*along, strict=True), color="black", linewidth=1.5, zorder=1, label="pair")
    axis.set_title("dashed: none of the others is faster and more accurate", **ASIDE)
    axis.set(xscale="log", xlabel="milliseconds a sentence, batch 1, median (logarithmic)", ylabel="accuracy (%)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    x, middle = np.mean(points, axis=0)
    axis.update_datalim([(x, middle - 3), (x, middle + 3)])  # tenths of a point are noise: keep them small
    axis.margins(0.22, 0.25)
    if limits is not None:  # or else they stay the data's, which no description repeats
        axis.set_xlim(limits)
    texts = [f"{t.name}\n{t.kind}, {t.megabytes:.0f} MB" for t in timings]
    named = [along[int(0.75 * len(along))]] if along else []
    place_labels(axis, points + named, texts + ["pair"] * len(named))
    return figure


def ablation(summary: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Test accuracy of every variant: each seed's run as an open mark, their mean as a full one; the teacher's dashed.

    `runs` has a row a run with `variant` and `test_accuracy`, `summary` a row a variant with `mean`, as fractions.
    """
    names = [name for name in reversed(summary.index) if name != "teacher"]
    means = 100 * summary["mean"]
    figure, axis = new_figure(width=7.6, height=1.2 + 0.42 * len(names))
    for height, name in enumerate(names):
        points = 100 * runs[runs.variant == name]["test_accuracy"]
        axis.plot(points, [height] * len(points), "o", color=COLOURS["student"], fillstyle="none", markersize=6)
        axis.plot(means[name], height, "D", color="black", markersize=7)
        axis.text(means[name], height + 0.2, f"{means[name]:.1f}", ha="center", va="bottom", fontsize=9, bbox=WHITE)
    if "teacher" in means:
        axis.axvline(means["teacher"], color=COLOURS["teacher"], linestyle="--")
        axis.set_title(f"dashed: teacher, {means['teacher']:.1f}", **ASIDE)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axis.set(xlabel="test accuracy (%)", ylim=(-0.6, len(names) - 0.4), yticks=range(len(names)), yticklabels=names)
    return figure


def forest(comparisons: Mapping[str, SeedsComparison]) -> Figure:
    """Differences between ways of training, one a line: each seed's as an open mark, the mean with its 95 % interval.

    What lies wholly right of the dashed 0 is better, what lies wholly left of it worse, and the rest is not shown.
    """
    figure, axis = new_figure(width=7.6, height=1.3 + 0.42 * len(comparisons))
    names = list(comparisons)[::-1]
    for height, one in enumerate(comparisons[name] for name in names):
        seeds, mean = [100 * value for value in one.by_seed.values()], 100 * one.difference
        errors = np.abs(100 * np.array([one.interval95]).T - mean)
        axis.plot(seeds, [height + 0.22] * len(seeds), "o", color=COLOURS["student"], fillstyle="none", markersize=5)
        axis.errorbar(mean, height, xerr=errors, fmt="D", color="black", markersize=6, capsize=4)
    axis.axvline(0, color="#555555", linestyle="--", linewidth=1.2)
    axis.set_title("dashed: no difference", **ASIDE)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axis.set(xlabel="difference in test accuracy (% points)", yticks=range(len(names)), yticklabels=names)
    axis.set_ylim(-0.6, len(names) - 0.2)
    return figure


def more_rows(curves: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """Test accuracy against the number of rows beyond the labelled ones; each curve through the means of its seeds.

    `curves`: by name, by number of rows, the seeds' accuracies as fractions.
    """
    figure, axis = new_figure(width=7.6, height=4.4)
    looks = ((COLOURS["student"], "o"), (COLOURS["control"], "^"))
    for (_, points), (colour, marker) in zip(curves.items(), looks, strict=True):
        for rows, seeds in points.items():
            axis.plot([rows] * len(seeds), 100 * np.asarray(seeds), marker, color=colour, fillstyle="none", ms=6)
        means = [100 * np.mean(seeds) for seeds in points.values()]
        axis.plot(list(points), means, color=colour, marker=marker, markersize=8, linewidth=2)
    most = max(max(points) for points in curves.values())
    axis.set(xlabel="rows beyond the 2,000 labelled ones", ylabel="test accuracy (%)", xlim=(-0.06 * most, 1.5 * most))
    axis.set_xticks(sorted({rows for points in curves.values() for rows in points}))
    ends = [(max(points), 100 * np.mean(points[max(points)])) for points in curves.values()]
    place_labels(axis, ends, list(curves), sides=[(1, 0), (1, 1), (1, -1)])
    return figure


def search_results(table: pd.DataFrame) -> Figure:
    """Validation accuracy against each searched parameter, a panel each; the best quarter of the trials in full marks.

    `table` has a row a trial: the parameters, and `accuracy` as a fraction.
    """
    parameters = [name for name in table.columns if name != "accuracy"]
    figure, _ = new_figure(width=1.2 + 2.6 * len(parameters), height=3.6, columns=len(parameters))
    best = table["accuracy"].rank(pct=True) > 0.75
    for axis, name in zip(figure.axes, parameters, strict=True):
        for rows, fill, edge in ((table[~best], "none", COLOURS["student"]), (table[best], "full", "black")):
            axis.plot(rows[name], 100 * rows["accuracy"], "o", color=COLOURS["student"], fillstyle=fill, mec=edge)
        if table[name].nunique() < 5:
            axis.set_xticks(sorted(table[name].unique()))
        axis.set_xlabel(name)
        if name == "temperature":  # drawn on a logarithmic scale, too
            ticks = [1, 2, 4, 8]
            axis.update_datalim([(ticks[0], 0), (ticks[-1], 0)], updatey=False)
            axis.set(xscale="log", xlabel=f"{name} (logarithmic)", xticks=ticks, xticklabels=ticks)
            axis.minorticks_off()
    figure.axes[0].set_ylabel("validation accuracy (%)")
    return figure


def cascade(curve: pd.DataFrame, share: float) -> Figure:
    """Accuracy of student and teacher together against milliseconds an answer: `evaluation.cascade`, in per cent.

    Named are the student alone, the teacher alone, and the pair in which the student answers about `share`.
    """
    figure, axis = new_figure(width=7.2)
    x, y = curve["milliseconds"], 100 * curve["accuracy"]
    axis.plot(x, y, color="#555555", linewidth=1.2, label="pair")
    places = [0, int(np.abs(curve["student_share"] - share).argmin()), len(curve) - 1]
    for name, place in zip(("student", "control", "teacher"), places, strict=True):
        axis.plot(x.iloc[place], y.iloc[place], marker=MARKERS[name], color=COLOURS[name], markersize=9, linestyle="")
    texts = ["student alone", f"student answers {100 * share:.0f} %", "every text to the teacher, too"]
    axis.set(xlabel="milliseconds an answer, on average", ylabel="accuracy of the pair (%)")
    axis.margins(0.12, 0.25)
    place_labels(axis, [(x.iloc[place], y.iloc[place]) for place in places], texts)
    return figure
