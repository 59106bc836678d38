"""Every figure of the series as a reader sees it: what is drawn, its labels, its colours, and no text on text."""

import itertools
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from kdhelpers.evaluation.figures import COLOURS, accuracy_against_parameters, new_figure, place_labels, save
from kdhelpers.workshop import exercises, figures

PALETTE = {"#0072b2", "#e69f00", "#009e73", "#d55e00", "#000000"}  # Okabe and Ito's, what of it is used
GREYS = {"#ffffff", "#dddddd", "#999999", "#555555"}
TEMPERATURES = [1, 1.5, 2, 3, 4, 6, 8, 10, 20]


def metrics(**parameters):
    scores = {"teacher": (0.84, (0.81, 0.86)), "control": (0.79, (0.76, 0.82)), "student": (0.82, (0.79, 0.85))}
    return {
        name: {"parameters": parameters[name], "test_accuracy": accuracy, "test_interval95": interval}
        for name, (accuracy, interval) in scores.items()
    }


def logits(rows=500):
    margin = np.random.default_rng(0).normal(0, 3, (rows, 1))
    return np.hstack([-margin, margin])


def timings(*rows):
    fields = ("name", "kind", "p50_ms", "accuracy", "megabytes")
    return [SimpleNamespace(**dict(zip(fields, row, strict=True))) for row in rows]


SIX = timings(
    ("teacher", "PyTorch fp32", 5.2, 0.860, 90),
    ("teacher", "ONNX fp32", 3.1, 0.860, 90),
    ("teacher", "ONNX int8", 0.56, 0.850, 23),
    ("student", "PyTorch fp32", 2.8, 0.823, 69),
    ("student", "ONNX fp32", 1.6, 0.823, 69),
    ("student", "ONNX int8", 0.1, 0.817, 17),
)
ALIKE = [SimpleNamespace(**vars(timing) | {"p50_ms": 1 + index / 20}) for index, timing in enumerate(SIX)]


def runs(names=("teacher", "labels only", "logits on all text", "all labels, no teacher")):
    return pd.DataFrame(
        {"variant": name, "test_accuracy": 0.78 + 0.02 * index + shift}
        for index, name in enumerate(names)
        for shift in (-0.01, 0, 0.012)
    )


def ablation(table):
    return figures.ablation(table.groupby("variant", sort=False)["test_accuracy"].agg(["mean"]), table)


def confidence_and_correct(rows=800):
    draw = np.random.default_rng(1)
    confidence = draw.uniform(0.5, 1, rows)
    return confidence, draw.random(rows) < confidence


def trials(rows=12):
    draw = np.random.default_rng(2)
    return pd.DataFrame(
        {"alpha": draw.random(rows), "temperature": draw.uniform(1, 8, rows), "layers": draw.integers(1, 4, rows)}
        | {"accuracy": draw.uniform(0.75, 0.83, rows)}
    )


def pair_curve():
    share = np.linspace(1, 0, 21)
    accuracy = 0.82 + 0.1 * np.sqrt(1 - share)
    return pd.DataFrame({"student_share": share, "accuracy": accuracy, "milliseconds": 1 + 9 * (1 - share)})


CURVES = {
    "text and teacher": {0: [0.80, 0.81], 2000: [0.83, 0.82], 6000: [0.84, 0.83]},
    "labels": {0: [0.78, 0.8], 6000: [0.86, 0.85]},
}
MADE = {
    "unknown_words": lambda: figures.unknown_words([0] * 2 + [1] * 40 + [2] * 30 + [3] * 18 + [7] * 10),
    "rating_histogram": lambda: figures.rating_histogram([-3.1, -2, -0.2, 0.1, 1.5, 1.6, 2.4], neutral_below=0.5),
    "padding_bars": lambda: figures.padding_bars({"as they come": 0.62, "like lengths": 0.005, "no padding": 0.0}),
    "soft_targets": lambda: figures.soft_targets_over_temperature(logits()),
    "reliability": lambda: figures.reliability(*confidence_and_correct()),
    "gradient": lambda: figures.gradient_over_temperature(
        TEMPERATURES, [1, 1.2, 1.4, 1.5, 1.55, 1.6, 1.6, 1.6, 1.6], [1.6 / t**2 for t in TEMPERATURES]
    ),
    "latency": lambda: figures.accuracy_against_latency(SIX),
    "latency and pair": lambda: figures.accuracy_against_latency(SIX, pair_curve(), (0.03, 100)),
    "latency, alike": lambda: figures.accuracy_against_latency(ALIKE),
    "ablation": lambda: ablation(runs()),
    "ablation, many": lambda: ablation(runs(["teacher", *(f"variant {number}" for number in range(16))])),
    "cascade": lambda: figures.cascade(pair_curve(), 0.5),
    "forest": lambda: figures.forest(exercises.FOREST),
    "more rows": lambda: figures.more_rows(CURVES),
    "search": lambda: figures.search_results(trials()),
    "parameters": lambda: accuracy_against_parameters(metrics(teacher=22.7e6, control=17.4e6, student=17.4e6)),
    "parameters, one size": lambda: accuracy_against_parameters(metrics(teacher=2e7, control=2e7, student=2e7)),
}


@pytest.fixture(params=MADE, scope="module")
def figure(request):
    """Each figure in turn, drawn; to be looked at only."""
    made = MADE[request.param]()
    FigureCanvasAgg(made).draw()
    return made


def texts(figure):
    """What is written on the figure; a tick outside the limits is not drawn."""
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    ticks = {id(label): axis for axis in figure.axes for label in axis.get_xticklabels() + axis.get_yticklabels()}
    return [text for text in found if id(text) not in ticks or tick_is_drawn(text, ticks[id(text)])]


def tick_is_drawn(text, axis):
    box, frame = text.get_window_extent(), axis.get_window_extent().expanded(1.02, 1.02)
    across, up = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    return frame.x0 <= across <= frame.x1 or frame.y0 <= up <= frame.y1


def test_no_text_covers_another(figure):
    for one, other in itertools.combinations(texts(figure), 2):
        ours, theirs = one.get_window_extent(), other.get_window_extent()
        assert not ours.shrunk(0.98, 0.9).overlaps(theirs.shrunk(0.98, 0.9)), (one.get_text(), other.get_text())


LABELLED = [name for name in MADE if name.startswith(("latency", "cascade", "more", "parameters", "soft", "gradient"))]


@pytest.mark.parametrize("name", LABELLED)
def test_a_label_stands_on_empty_ground_and_hides_nothing(name):
    made = MADE[name]()
    canvas = FigureCanvasAgg(made)
    labels = [text for axis in made.axes for text in axis.texts]
    for label in labels:
        assert label.get_bbox_patch() is None, "a box behind a label cuts the lines there"
        label.set_alpha(0)  # what is drawn where it stands?
    canvas.draw()
    lightest = np.asarray(canvas.buffer_rgba())[::-1, :, :3].min(axis=-1)
    for label in labels:
        (left, bottom), (right, top) = np.round(label.get_window_extent().get_points()).astype(int)
        assert lightest[bottom:top, left:right].min() >= 0xDD, label.get_text()  # the grid's grey


def test_a_label_is_nearer_to_its_own_mark_than_to_another():
    (axis,) = MADE["latency and pair"]().axes
    marks = axis.transData.transform([(timing.p50_ms, 100 * timing.accuracy) for timing in SIX])
    for own, label in enumerate(axis.texts[: len(SIX)]):
        box = label.get_window_extent()
        far = np.linalg.norm(marks - np.clip(marks, box.min, box.max), axis=1)
        assert far.argmin() == own, label.get_text()


def test_every_text_is_on_the_picture(figure):
    width, height = figure.canvas.get_width_height()
    for text in texts(figure):
        box = text.get_window_extent()
        assert -1 <= box.x0 <= box.x1 <= width + 1, text.get_text()
        assert -1 <= box.y0 <= box.y1 <= height + 1, text.get_text()


def test_every_axis_says_what_it_measures_and_accuracy_is_in_percent(figure):
    for axis in figure.axes:
        named = any(label.get_text().strip("\u2212-.0123456789") for label in axis.get_yticklabels())
        assert axis.get_xlabel()
        assert axis.get_ylabel() or named or axis is not figure.axes[0]
        for label in (axis.get_xlabel(), axis.get_ylabel()):
            assert "accuracy" not in label or "%" in label


def colours_of(figure):
    drawn = [
        line.get_color() for line in figure.findobj(matplotlib.lines.Line2D) if line.axes and line in line.axes.lines
    ]
    drawn += [text.get_color() for text in texts(figure)]
    for axis in figure.axes:
        drawn += [patch.get_facecolor() for patch in axis.patches]
        drawn += [colour for marks in axis.collections for colour in marks.get_facecolor()]
    return {matplotlib.colors.to_hex(colour) for colour in drawn}


def test_colours_are_from_the_palette(figure):
    assert colours_of(figure) <= PALETTE | GREYS


def lightness(colour):
    return np.dot(matplotlib.colors.to_rgb(colour), [0.299, 0.587, 0.114])


def looks(figure):
    """Colour and shape of everything that is drawn as a line or a mark and has to be told from the rest."""
    for axis in figure.axes:
        for line in axis.lines:
            if line.get_marker() not in ("_", "|"):  # an error bar's ends
                yield matplotlib.colors.to_hex(line.get_color()), (line.get_marker(), line.get_linestyle())
        for marks in axis.collections:
            if isinstance(marks, PathCollection):
                shape = marks.get_paths()[0].vertices.round(3).tobytes()
                yield matplotlib.colors.to_hex(marks.get_facecolor()[0]), shape


def test_what_differs_in_colour_differs_without_colour_too(figure):
    for (colour, shape), (other, another) in itertools.combinations(set(looks(figure)), 2):
        if colour != other:
            assert shape != another or abs(lightness(colour) - lightness(other)) > 0.2


def test_the_colours_of_teacher_control_and_student_are_the_palettes():
    assert {colour.lower() for colour in COLOURS.values()} <= PALETTE
    assert len(set(COLOURS.values())) == 3


# --- what is drawn --------------------------------------------------------------------------------------------


def heights(figure):
    return [round(bar.get_height(), 1) for bar in figure.axes[0].containers[0]]


def test_unknown_words_are_shares_of_all_snippets():
    made = MADE["unknown_words"]()
    assert heights(made) == [2, 40, 30, 18, 10]
    assert [label.get_text() for label in made.axes[0].texts] == ["2 %", "40 %", "30 %", "18 %", "10 %"]
    assert made.axes[0].get_ylim() == (0, 50)


def test_a_small_share_is_not_called_nothing():
    labels = [label.get_text() for label in MADE["padding_bars"]().axes[0].texts]
    assert labels == ["62 %", "0.5 %", "0 %"]


def test_the_histogram_counts_every_rating_once_and_marks_the_neutral_ones():
    (axis,) = MADE["rating_histogram"]().axes
    assert sum(bar.get_height() for bar in axis.containers[0]) == 7
    band = axis.patches[-1]
    assert (band.get_x(), band.get_x() + band.get_width()) == (-0.5, 0.5)


def test_soft_targets_are_the_softmax_at_each_temperature():
    made = figures.soft_targets_over_temperature(np.array([[-2.0, 2.0]] * 40), temperatures=(1, 2, 4))
    for line in made.axes[0].lines:
        assert line.get_ydata() == pytest.approx([100 / (1 + np.exp(-4 / t)) for t in (1, 2, 4)])


def test_reliability_shows_each_bins_share_with_its_wilson_interval():
    confidence = np.repeat([0.6, 0.9], 50)
    correct = np.concatenate([np.arange(50) < 30, np.ones(50, bool)])
    (axis,) = figures.reliability(confidence, correct, bins=2).axes
    (interval,) = axis.containers
    assert interval.lines[0].get_xydata() == pytest.approx(np.array([[60, 60], [90, 100]]))
    first, second = interval.lines[2][0].get_segments()
    assert first[:, 1] == pytest.approx([46.2, 72.4], abs=0.1)
    assert second[:, 1] == pytest.approx([92.9, 100], abs=0.1)
    assert axis.get_title(loc="left").startswith("each mark: 50 rows;")


def test_the_gradients_are_drawn_on_logarithmic_axes():
    (axis,) = MADE["gradient"]().axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    assert [line.get_label() for line in axis.lines] == ["with T\u00b2", "without T\u00b2"]
    assert list(axis.lines[1].get_ydata()) == [1.6 / t**2 for t in TEMPERATURES]


def test_the_pareto_front_leaves_out_what_another_beats():
    (axis,) = MADE["latency"]().axes
    (front,) = axis.lines
    assert front.get_xydata() == pytest.approx(np.array([[0.1, 81.7], [0.56, 85], [3.1, 86]]))


def test_the_pair_is_a_line_among_the_models_on_an_axis_that_is_the_same_everywhere():
    (axis,) = MADE["latency and pair"]().axes
    assert axis.get_xlim() == (0.03, 100)
    pair, curve = next(line for line in axis.lines if line.get_label() == "pair"), pair_curve()
    assert pair.get_xdata() == pytest.approx(curve["milliseconds"])
    assert pair.get_ydata() == pytest.approx(100 * curve["accuracy"])
    described = figures.describe(MADE["latency and pair"]())
    assert described.startswith("6 points; 1 dashed line; curve 'pair' of 21 points.")
    assert "0.03 to 100" in described


def test_a_model_whose_accuracy_is_not_known_is_left_out():
    made = figures.accuracy_against_latency([*SIX, *timings(("other", "ONNX int8", 1, None, 5))])
    assert not any("other" in text.get_text() for text in made.axes[0].texts)


def test_tenths_of_a_point_do_not_look_like_more():
    nearly = [SimpleNamespace(**vars(timing) | {"accuracy": 0.8 + index / 1000}) for index, timing in enumerate(SIX)]
    low, high = figures.accuracy_against_latency(nearly).axes[0].get_ylim()
    assert high - low > 6


def test_the_ablation_shows_each_run_the_mean_and_the_teacher():
    (axis,) = ablation(runs()).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "all labels, no teacher", "logits on all text", "labels only",
    ]  # fmt: skip
    open_marks = [line for line in axis.lines if line.get_fillstyle() == "none"]
    assert [len(line.get_xdata()) for line in open_marks] == [3, 3, 3]
    assert open_marks[-1].get_xdata() == pytest.approx([79, 80, 81.2])
    (teacher,) = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert teacher.get_xdata()[0] == pytest.approx(78.067, abs=0.001)


def test_search_results_have_a_panel_a_parameter_and_show_every_trial_in_each():
    table = trials()
    made = figures.search_results(table)
    names = ["alpha", "temperature", "layers"]
    assert [axis.get_xlabel() for axis in made.axes] == ["alpha", "temperature (logarithmic)", "layers"]
    for axis, name in zip(made.axes, names, strict=True):
        drawn = sorted(tuple(point) for line in axis.lines for point in line.get_xydata())
        expected = sorted(zip(table[name], 100 * table["accuracy"], strict=True))
        assert np.array(drawn) == pytest.approx(np.array(expected))
        best = [line for line in axis.lines if line.get_fillstyle() == "full"]
        assert sum(len(line.get_xdata()) for line in best) == 3


def test_the_searched_temperature_has_a_logarithmic_axis_with_plain_numbers():
    made = MADE["search"]()
    FigureCanvasAgg(made).draw()
    assert [axis.get_xscale() for axis in made.axes] == ["linear", "log", "linear"]
    assert [label.get_text() for label in made.axes[1].get_xticklabels()] == ["1", "2", "4", "8"]
    low, high = made.axes[1].get_xlim()
    assert low < 1
    assert high > 8


def test_a_runs_result_is_accuracy_with_its_interval_against_size():
    (axis,) = MADE["parameters"]().axes
    marks = {line.get_color(): line.get_xydata()[0] for group in axis.containers for line in group.lines[:1]}
    assert marks[COLOURS["teacher"]] == pytest.approx([22.7, 84])
    assert marks[COLOURS["student"]][1] == pytest.approx(82)
    segments = [group.lines[2][0].get_segments()[0][:, 1] for group in axis.containers]
    assert np.array(segments) == pytest.approx(np.array([[81, 86], [76, 82], [79, 85]]))


def test_labels_find_places_of_their_own_where_points_are_close():
    made, axis = new_figure()
    points = [(1 + index / 50, 1) for index in range(5)]
    axis.plot(*zip(*points, strict=True), "o", color=COLOURS["student"])
    axis.margins(0.8)
    place_labels(axis, points, [f"model {index}" for index in range(5)])
    FigureCanvasAgg(made).draw()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_equal_figures_are_equal_files(tmp_path):
    for name in ("one.png", "two.png"):
        save(MADE["ablation"](), tmp_path / "made" / name)
    one, two = (path.read_bytes() for path in sorted((tmp_path / "made").iterdir()))
    assert one == two
    assert b"Software" not in one


# --- what is said of it ---------------------------------------------------------------------------------------


def test_the_description_is_of_what_is_drawn():
    assert figures.describe(MADE["unknown_words"]()).splitlines() == [
        "5 bars; none 2 %; one 40 %; two 30 %; three 18 %; four or more 10 %.",
        "across: words of the snippet that became [UNK].",
        "up: share of snippets (%), 0 to 50.",
    ]
    assert "curve 'without T\u00b2' of 9 points falls" in figures.describe(MADE["gradient"]())
    assert figures.describe(MADE["latency"]()).startswith("6 points; 1 dashed line.")
    assert figures.describe(MADE["reliability"]()).startswith("4 intervals; 1 dashed line; curve of 4 points.")
    assert figures.describe(MADE["rating_histogram"]()).startswith("48 bars.")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda: figures.padding_bars({"a": 0.6, "b": 0.2}), lambda: figures.padding_bars({"a": 0.6, "b": 0.3})),
        (lambda: figures.accuracy_against_latency(SIX), lambda: figures.accuracy_against_latency(SIX[1:])),
        (lambda: ablation(runs()), lambda: ablation(runs().iloc[:-1])),
        (
            lambda: figures.gradient_over_temperature([1, 2, 4], [1, 1, 1], [4, 2, 1]),
            lambda: figures.gradient_over_temperature([1, 2, 4], [1, 1, 1], [1, 2, 4]),
        ),
    ],
    ids=["another height", "a model less", "a run less", "the other way"],
)
def test_another_figure_has_another_description(before, after):
    assert figures.describe(before()) != figures.describe(after())


@pytest.mark.parametrize("seed", range(3))
def test_the_noise_between_machines_does_not_reach_the_description(seed):
    draw = np.random.default_rng(seed)
    noisy = [
        SimpleNamespace(
            **vars(t) | {"accuracy": t.accuracy + draw.normal(0, 0.01), "p50_ms": t.p50_ms * draw.uniform(1, 3)}
        )
        for t in SIX
    ]
    table = runs()
    table["test_accuracy"] += draw.normal(0, 0.01, len(table))
    confidence, correct = confidence_and_correct()
    other = draw.permutation(correct)
    searched = trials()
    searched["accuracy"] += draw.normal(0, 0.01, len(searched))
    pairs = [
        (figures.accuracy_against_latency(noisy), MADE["latency"]()),
        (ablation(table), MADE["ablation"]()),
        (figures.reliability(confidence, other), MADE["reliability"]()),
        (figures.search_results(searched), MADE["search"]()),
        (figures.soft_targets_over_temperature(logits() + draw.normal(0, 0.2, (500, 2))), MADE["soft_targets"]()),
    ]
    for one, two in pairs:
        assert figures.describe(one) == figures.describe(two)


# --- how it reaches a reader ----------------------------------------------------------------------------------

ALT = 'Bars: "most" snippets lose < 2 words & more.'


@pytest.fixture
def shown(monkeypatch):
    """What `show` hands to the notebook."""
    import IPython.display

    found = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: found.append(data))
    figures.show(MADE["unknown_words"](), alt=ALT)
    (data,) = found
    return data


def pictures(page):
    """The attributes of every <img> of a page."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(dict(attributes)) if tag == "img" else None
    parser.handle_startendtag = parser.handle_starttag
    parser.feed(page)
    return found


def test_the_alternative_text_says_what_it_is_and_what_is_drawn(shown):
    (attributes,) = pictures(shown["text/html"])
    assert attributes["alt"].startswith(ALT)
    assert "three 18 %" in attributes["alt"]
    assert attributes["src"].startswith("data:image/png;base64,iVBORw0KGgo")


def test_what_a_comparison_of_notebooks_compares_is_computed_from_the_figure(shown):
    assert shown["text/plain"] == figures.describe(MADE["unknown_words"]())


def test_the_alternative_text_reaches_the_page_that_nbconvert_writes(shown, caplog):
    import nbconvert
    import nbformat

    output = nbformat.v4.new_output("display_data", data=shown)
    cell = nbformat.v4.new_code_cell("kd.show(figure, alt=...)", outputs=[output], execution_count=1)
    page, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert pictures(page) == pictures(shown["text/html"])
    assert "Alternative text is missing" not in caplog.text


def test_the_pair_is_drawn_from_the_student_alone_to_the_teacher():
    (axis,) = figures.cascade(pair_curve(), 0.5).axes
    line, student, pair, teacher = axis.lines
    assert len(line.get_xdata()) == 21
    assert (student.get_xdata()[0], student.get_ydata()[0]) == (1.0, 82.0)
    assert pair.get_xdata()[0] == pytest.approx(5.5)
    assert (teacher.get_xdata()[0], teacher.get_ydata()[0]) == (10.0, 92.0)
    assert {text.get_text() for text in axis.texts} >= {"student alone", "student answers 50 %"}


def test_the_forest_plot_shows_each_seed_the_mean_and_its_interval():
    (axis,) = MADE["forest"]().axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["E", "D", "C", "B", "A"]
    intervals = [group.lines[2][0].get_segments()[0][:, 0] for group in axis.containers]
    assert intervals[-1] == pytest.approx([0.9, 3.9])
    assert intervals[1] == pytest.approx([-2.9, -0.4])
    seeds = [line for line in axis.lines if line.get_fillstyle() == "none"]
    assert seeds[-1].get_xdata() == pytest.approx([2.9, 1.8, 2.5])
    (nothing,) = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert list(nothing.get_xdata()) == [0, 0]


def test_more_rows_are_drawn_where_they_were_measured_and_joined_by_their_means():
    (axis,) = MADE["more rows"]().axes
    lines = [line for line in axis.lines if line.get_linestyle() == "-"]
    assert lines[0].get_xydata() == pytest.approx(np.array([[0, 80.5], [2000, 82.5], [6000, 83.5]]))
    assert lines[1].get_xydata() == pytest.approx(np.array([[0, 79], [6000, 85.5]]))
    assert [text.get_text() for text in axis.texts] == list(CURVES)
