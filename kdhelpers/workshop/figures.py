"""Every figure of the series: colour-blind safe (Okabe and Ito 2008), readable in grey, labelled axes with units."""

import base64
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import LogLocator, NullFormatter

from kdhelpers.distillation import soft_targets
from kdhelpers.evaluation.figures import COLOURS, new_figure







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


def _direct_labels(axis, xs, curves: dict[str, list[float]], colours: list[str], markers: str = "os^D") -> None:
    """Lines with a marker each and their name at the right end, so that no legend has to be matched by colour."""
    for (name, values), colour, marker in zip(curves.items(), colours, markers, strict=False):
        axis.plot(xs, values, color=colour, marker=marker, markersize=6, linewidth=2)
        axis.annotate(
            name, (xs[-1], values[-1]), xytext=(8, 0), textcoords="offset points", va="center", color=colour,
        )  # fmt: skip


def soft_targets_over_temperature(logits, temperatures=(1, 1.5, 2, 3, 4, 6, 8)) -> Figure:
    """The leading class's probability against T, for rows at four quantiles of the teacher's confidence."""
    margin = np.abs(logits[:, 1] - logits[:, 0])
    rows = [np.argsort(margin)[int(q * (len(margin) - 1))] for q in (0.99, 0.5, 0.15, 0.03)]
    names = ("among the surest", "middling", "rather unsure", "among the least sure")
    tensor = torch.as_tensor(logits)
    curves = {
        name: [100 * float(soft_targets(tensor[row], t).max()) for t in temperatures]
        for name, row in zip(names, rows, strict=True)
    }
    figure, axis = new_figure(width=7.4)
    _direct_labels(axis, temperatures, curves, ["#0072B2", "#D55E00", "#009E73", "#000000"])
    axis.set_xlim(0.8, 11.5)
    axis.set_xticks([1, 2, 4, 6, 8])
    axis.set_xlabel("temperature T")
    axis.set_ylabel("probability of the leading class (%)")
    return figure


def reliability(confidence, correct, bins: int = 8) -> Figure:
    """How often a model is right against how sure it says it is (Guo et al. 2017); bins hold equally many rows."""
    order = np.argsort(confidence)
    groups = np.array_split(order, bins)
    said = [100 * confidence[group].mean() for group in groups]
    was = [100 * correct[group].mean() for group in groups]
    figure, axis = new_figure(width=5.2, height=4.6)
    axis.plot([50, 100], [50, 100], color="#555555", linestyle="--", linewidth=1.2)
    axis.annotate("as sure as right", (62, 62), rotation=41, ha="center", va="bottom", fontsize=10, color="#555555")
    axis.plot(said, was, color=COLOURS["teacher"], marker="s", markersize=7, linewidth=2)
    axis.set_xlabel("confidence (%)")
    axis.set_ylabel("how often right (%)")
    return figure


def gradient_over_temperature(temperatures, with_square, without_square) -> Figure:
    """The size of the student's gradient against T, with and without the factor T^2; both axes logarithmic."""
    figure, axis = new_figure(width=7.0)
    curves = {"with T\u00b2": with_square, "without T\u00b2": without_square}
    _direct_labels(axis, temperatures, curves, ["#0072B2", "#D55E00"])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([1, 2, 4, 10, 20], ["1", "2", "4", "10", "20"])
    axis.minorticks_off()
    axis.set_xlim(0.9, 42)
    axis.set_xlabel("temperature T")
    axis.set_ylabel("gradient norm (no unit)")
    return figure


def the_way() -> Figure:
    """The whole series on one figure: what flows from rows to a small, fast student."""
    figure = Figure(figsize=(9.0, 3.2), layout="constrained", dpi=120)
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set_xlim(0, 10)
    axis.set_ylim(0, 3.2)
    boxes = {
        "rows": (0.1, 1.2, "text, few labels\n(01, 02)"),
        "teacher": (2.6, 2.1, "teacher\nfine-tuned (03)"),
        "logits": (5.1, 2.1, "its logits on\nall text (04)"),
        "student": (7.8, 1.2, "student\nsmall (04)"),
        "control": (5.1, 0.2, "control, labels\nonly (05)"),
    }
    for x, y, text in boxes.values():
        axis.add_patch(
            FancyBboxPatch((x, y), 1.9, 0.8, boxstyle="round,pad=0.06", facecolor="#EAF3F8", edgecolor="#0072B2")
        )
        axis.text(x + 0.95, y + 0.4, text, ha="center", va="center", fontsize=11)
    arrow = {"arrowstyle": "-|>", "color": "#333333", "linewidth": 1.5}
    ways = [((2.1, 1.8), (2.5, 2.3)), ((4.6, 2.5), (5.0, 2.5)), ((7.1, 2.4), (7.7, 1.9)), ((2.1, 1.4), (5.0, 0.6))]
    for start, end in ways:
        axis.annotate("", xy=end, xytext=start, arrowprops=arrow)
    axis.annotate("", xy=(7.7, 1.3), xytext=(7.1, 0.7), arrowprops=arrow | {"linestyle": "--", "arrowstyle": "<|-|>"})
    axis.text(7.55, 0.62, "did the teacher\nhelp? (05)", fontsize=10, ha="left", va="center", style="italic")
    return figure


def life_of_a_job() -> Figure:
    """What runs where in a SageMaker job's life, and what costs money when: three lanes, time from left to right."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained", dpi=120)
    axis = figure.subplots()
    axis.set_xlim(0, 15.2)
    axis.set_ylim(-0.75, 3)
    axis.set_yticks([2.5, 1.5, 0.5], ["your machine", "S3", "SageMaker's\nmachines"], fontsize=11)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for line in (1, 2):
        axis.axhline(line, color="#DDDDDD", linewidth=0.8)
    free, paid = "#EAF3F8", "#FBE3D3"
    boxes = [
        (0.1, 2, 1.5, "plan\ncheck", free),
        (1.8, 2, 1.8, "rehearse", free),
        (3.8, 2, 1.5, "launch", free),
        (3.8, 1, 1.9, "code, data", free),
        (5.4, 0, 1.6, "start-up", paid),
        (7.1, 0, 2.2, "training", paid),
        (7.1, 1, 2.2, "checkpoints", free),
        (9.5, 1, 1.9, "model.tar.gz", free),
        (9.5, 2, 1.9, "bring home", free),
        (11.6, 0, 2.6, "endpoint", paid),
        (13.2, 2, 1.6, "clean", free),
    ]
    for x, lane, width, text, colour in boxes:
        edge = "#D55E00" if colour == paid else "#0072B2"
        style = {"boxstyle": "round,pad=0.04", "facecolor": colour, "edgecolor": edge}
        axis.add_patch(FancyBboxPatch((x, lane + 0.2), width, 0.6, **style, hatch="//" if colour == paid else None))
        plain = {"boxstyle": "square,pad=0.1", "facecolor": colour, "edgecolor": "none"}
        axis.text(x + width / 2, lane + 0.5, text, ha="center", va="center", fontsize=10.5, bbox=plain)
    for start, end, words in ((5.4, 9.3, "billed by the minute, ends by itself"), (11.6, 14.2, "billed until deleted")):
        axis.annotate("", (end, -0.12), (start, -0.12), arrowprops={"arrowstyle": "|-|", "color": "#D55E00"})
        axis.text((start + end) / 2, -0.5, words, ha="center", va="center", fontsize=10.5, color="#A34700")
    axis.text(0.1, 0.5, "up to here\nno AWS account\nis needed", fontsize=10.5, color="#0072B2", va="center")
    axis.axvline(3.7, color="#0072B2", linestyle="--", linewidth=1)
    axis.text(14.15, 1.5, "deletes", ha="center", va="center", fontsize=10, style="italic")
    axis.annotate("", (13.4, 0.85), (13.6, 2.1), arrowprops={"arrowstyle": "-|>", "color": "#333333"})
    return figure




def accuracy_against_latency(timings) -> Figure:
    """Accuracy against milliseconds a sentence (logarithmic), the mark's area growing with the file."""
    figure, axis = new_figure(width=7.6, height=4.6)
    kinds = {"PyTorch fp32": ("#0072B2", "s"), "ONNX fp32": ("#E69F00", "^"), "ONNX int8": ("#009E73", "o")}
    for index, timing in enumerate(timings):
        colour, marker = kinds[timing.kind]
        x, y = timing.p50_ms, 100 * timing.accuracy
        axis.scatter(x, y, s=40 + 6 * timing.megabytes, color=colour, marker=marker, alpha=0.75, edgecolor="black")
        axis.annotate(
            f"{timing.name}\n{timing.kind}, {timing.megabytes:.0f} MB", (x, y), xytext=(0, -17 if index % 2 else 17),
            textcoords="offset points", ha="center", va="top" if index % 2 else "bottom", fontsize=9,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(0.22, 0.25)
    low, high = axis.get_ylim()
    room = max(0, 8 - (high - low)) / 2  # tenths of a point are noise, and should not look like more
    axis.set_ylim(low - room, high + room)
    axis.set_xlabel("milliseconds a sentence, batch 1, median (logarithmic)")
    axis.set_ylabel("accuracy (%)")
    return figure


def ladder(summary, runs) -> Figure:
    """Test accuracy of every rung: each seed's run as an open mark, their mean as a full one; the teacher's dashed."""
    names = [name for name in summary.index if name != "teacher"]
    figure, axis = new_figure(width=7.6, height=1.2 + 0.42 * len(names))
    for height, name in enumerate(reversed(names)):
        points = 100 * runs[runs.rung == name]["test_accuracy"]
        axis.plot(points, [height] * len(points), "o", color=COLOURS["student"], fillstyle="none", markersize=6)
        mean = 100 * summary.loc[name, "mean"]
        axis.plot(mean, height, "D", color="black", markersize=7)
        plain = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"}  # no line through the number
        axis.annotate(
            f"{mean:.1f}", (mean, height), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9,
            bbox=plain,
        )  # fmt: skip
    axis.set_yticks(range(len(names)), list(reversed(names)))
    if "teacher" in summary.index:
        mean = 100 * summary.loc["teacher", "mean"]
        axis.axvline(mean, color=COLOURS["teacher"], linestyle="--")
        axis.annotate(
            f"teacher {mean:.1f}", (mean, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", color=COLOURS["teacher"], ha="center", fontsize=9,
        )  # fmt: skip
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axis.set_xlabel("test accuracy (%)")
    return figure


def parallel_coordinates(table) -> Figure:
    """One line a trial across its parameters to its accuracy, the last column; darker and thicker is better."""
    figure, axis = new_figure(width=7.6, height=4.2)
    lows, highs = table.min(), table.max()
    places = (table - lows) / (highs - lows).replace(0, 1)
    rank = table["accuracy"].rank(pct=True)
    for index in table["accuracy"].sort_values().index:
        best = rank[index] > 0.75
        axis.plot(
            range(len(table.columns)), places.loc[index], marker="o", color=str(0.82 - 0.82 * best),
            linewidth=2.4 if best else 1.2, linestyle="-" if best else "--",
        )  # fmt: skip
    for x, name in enumerate(table.columns):
        axis.axvline(x, color="#BBBBBB", linewidth=1)
        for y, value in ((-0.07, lows[name]), (1.07, highs[name])):
            axis.text(x, y, f"{100 * value:.1f} %" if name == "accuracy" else f"{value:.3g}", ha="center", va="center")
    axis.set_xticks(range(len(table.columns)), [*table.columns[:-1], "validation\naccuracy"])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.spines["left"].set_visible(False)
    axis.set_ylim(-0.15, 1.15)
    return figure
