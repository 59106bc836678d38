"""What every notebook must look like, and that the sanitize rules do what they say."""

import ast
import configparser
import html
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from ipykernel.ipkernel import IPythonKernel
from nbval.plugin import get_sanitize_patterns

from tests.tools import draw_diagrams, refresh_notebooks
from tests.tools.results import words_of

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LONGEST_CELL, LONGEST_LINE = 10, 92
LONGEST_PRINTED = 100  # at 1280 pixels with the file browser open, JupyterLab breaks a line at 104, in mid-word
MOST_WORDS = {"05_did_the_teacher_help": 1000, "05b_what_helped": 1000, "08_sagemaker": 700}
MOST_GIB = 2  # of a kernel and what it starts: a small space in Studio has 4, and JupyterLab's server takes some
UNDER_IT = ("05_did_the_teacher_help", "05b_what_helped", "07_smaller_and_faster", "08_sagemaker", "09_your_own_data")
SECRETS_AND_PATHS = (
    r"/root/|/home/\w|/work/|/tmp/|/Users/|[A-Z]:\\\\|\b(?!123456789012)\d{12}\b|hf_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}"
)


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def text_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_notebooks():
    assert NOTEBOOKS
    assert NOTEBOOKS[0].stem == "00_start_here"


def test_one_title_and_headings_in_order(notebook):
    levels = [len(match[1]) for match in re.finditer(r"^(#+) ", text_of(notebook), flags=re.M)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_header_card(notebook):
    header = notebook.cells[0].source
    for field in ("**You will learn**", "**Time**", "2 cores", "**Needs**"):
        assert field in header, field


def test_the_header_says_what_was_measured(notebook):
    """`make notebooks` leaves seconds and memory in the metadata, and rounds them for the header."""
    said = re.search(r"about (\d+) minutes? on 2 cores, ([\d.]+) GiB", notebook.cells[0].source)
    measured = notebook.metadata["measured"]
    assert int(said[1]) == max(1, round(measured["seconds"] / 60)), measured
    assert float(said[2]) == measured["gib"], measured


def test_words_are_what_stands_open_in_sentences():
    diagram, table = "```mermaid\ngraph LR\n  a --> b\n```", "| a | b |\n| --- | --- |\n| one two | three |"
    folded = "<details><summary>More</summary>\n\nnobody sees it\n</details>"
    assert words_of(f"Five words | before them.\n\n{diagram}\n{table}\n{folded}\n\nThree behind them.") == 8


@pytest.mark.parametrize("name", MOST_WORDS)
def test_a_notebook_keeps_to_its_words(name):
    markdown = text_of(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4))
    assert words_of(markdown) <= MOST_WORDS[name]


@pytest.mark.parametrize("name", UNDER_IT)
def test_a_notebook_fits_into_a_small_space(name):
    assert nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).metadata["measured"]["gib"] < MOST_GIB


def test_every_code_cell_was_run_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_warnings_or_leaks_in_outputs(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output
        shown = json.dumps(cell.outputs) if cell.outputs else ""
        shown = re.sub(r"base64,[A-Za-z0-9+/=]*", "", shown) + cell.source
        assert not re.search(SECRETS_AND_PATHS, shown), re.search(SECRETS_AND_PATHS, shown)
        assert "UsageError" not in shown


def test_cells_are_short(notebook):
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LONGEST_CELL, cell.source
        assert max(map(len, lines)) <= LONGEST_LINE, max(lines, key=len)


def test_three_quarters_are_compared_and_ignored_cells_have_a_verdict(notebook):
    cells = code_cells(notebook)
    ignored = [index for index, cell in enumerate(cells) if "nbval-ignore-output" in tags(cell)]
    assert 4 * len(ignored) <= len(cells)
    for index in ignored:
        verdict = cells[index + 1]
        assert "nbval-ignore-output" not in tags(verdict)
        assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(verdict.source))), verdict.source
        assert verdict.outputs, "a verdict says what holds"


def test_something_is_compared(notebook):
    """A notebook stripped of its outputs would pass nbval."""
    with_output = [cell for cell in code_cells(notebook) if cell.outputs]
    assert len(with_output) >= len(code_cells(notebook)) / 2


def test_exercise_with_a_folded_solution(notebook):
    text = text_of(notebook)
    assert "redict, then" in text
    assert "xercise" in text
    solutions = [cell for cell in code_cells(notebook) if "solution" in tags(cell)]
    assert solutions
    for cell in solutions:
        assert cell.outputs[0].text.startswith("passed")
    starters = [cell for cell in code_cells(notebook) if "kd.exercises." in cell.source and cell not in solutions]
    assert starters
    assert all(cell.outputs[0].text.startswith("not attempted") for cell in starters)


def test_a_folded_solution_shows_neither_itself_nor_what_it_prints(notebook):
    """Of a hidden cell JupyterLab shows the first line."""
    for cell in code_cells(notebook):
        if "solution" in tags(cell):
            assert cell.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
            first, rest = cell.source.split("\n", 1)
            assert re.fullmatch(r"# Solution: \w.*", first)
            assert rest.strip()


def outputs_of(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_figures_have_alternative_text_that_is_handed_on(notebook):
    """JupyterLab and nbconvert hand on the text of an <img>, and none of a bare picture's metadata."""
    for output in outputs_of(notebook):
        data = output.get("data", {})
        assert not set(data) & {"image/png", "image/jpeg", "image/svg+xml"}, "show it with kd.show"
        for tag in re.findall(r"<img[^>]*>", data.get("text/html", "")):
            said = html.unescape(re.search(r'alt="([^"]*)"', tag)[1])
            computed = data["text/plain"].replace("\n", " ")
            assert said.endswith(computed)
            assert len(said) - len(computed) > 20, "what it is, in a sentence, before what is drawn"


def test_printed_lines_are_not_broken_in_the_middle_of_a_word(notebook):
    for output in outputs_of(notebook):
        shown = output.get("text") or output.get("data", {}).get("text/plain", "")
        if "text/html" not in output.get("data", {}):
            assert max(map(len, shown.splitlines()), default=0) <= LONGEST_PRINTED, shown


def test_diagrams_have_words_and_a_picture_that_is_drawn_from_them():
    found = list(draw_diagrams.diagrams())
    assert [path.name for path, _ in found] == ["the_way.png", "life_of_a_job.png"]
    for path, text in found:
        assert draw_diagrams.drawn_from(path) == text, "draw it anew: python -m tests.tools.draw_diagrams"
        assert re.search(r"^  accTitle: .{20,}$", text, flags=re.M)
        assert re.search(r"^  accDescr: .{80,}$", text, flags=re.M)


def test_recap_and_links(notebook):
    last = notebook.cells[-1]
    assert last.cell_type == "markdown"
    assert "## Recap" in last.source
    assert re.search(r"\]\(\w+\.ipynb\)", last.source)


@pytest.mark.parametrize("begins", ["03", "05_", "07", "09"])
def test_where_a_notebook_used_to_stop_it_names_the_one_that_goes_on(begins):
    """10 has other teachers, 11 smaller students; the line that leads from notebook to notebook does not count."""
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(begins))
    lines = text_of(nbformat.read(path, as_version=4)).splitlines()
    told = "\n".join(line for line in lines if not line.startswith("[←"))
    assert re.search(r"\]\((10_any_teacher|11_how_small)\.ipynb", told)


def anchors(markdown):
    titles = re.findall(r"^#+ (.+)$", markdown, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}


def test_links_are_alive(path, notebook):
    for target in re.findall(r"\]\(([^)]+)\)", text_of(notebook)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        assert not file or (path.parent / file).exists(), target
        if anchor:
            if file.endswith(".md"):
                titles = anchors((path.parent / file).read_text(encoding="utf-8"))
                assert anchor in {title.lower() for title in titles}, target  # JupyterLab's and GitHub's for Markdown
                continue
            where = nbformat.read(path.parent / file, as_version=4) if file else notebook
            assert anchor in anchors(text_of(where)), target


def test_small_and_clean_on_disk(path, notebook):
    assert path.stat().st_size < 1_500_000
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    assert all(cell.id for cell in notebook.cells)


def test_opens_as_saved(notebook):
    """JupyterLab calls a notebook unsaved where the kernel says anything else of its language than the notebook."""
    said, kernels = dict(notebook.metadata.language_info), dict(IPythonKernel.language_info)
    if said.pop("version") == kernels.pop("version"):
        assert said == kernels  # another Python's ipykernel may say more
    assert all(set(cell.metadata) <= {"tags", "jupyter", "collapsed"} for cell in notebook.cells)


SAMPLES = {
    "kernel temp file": ("/tmp/ipykernel_4711/1234567.py:3: UserWarning", "IPYKERNEL_FILE:3: UserWarning"),
    "what this machine computes fast": ("seed 42, precision bf16", "seed 42, precision FASTEST"),
    "picture": ('<img alt="Bars." src="data:image/png;base64,iVBOR/w0+Gg==">', '<img alt="Bars." src="PICTURE">'),
    "memory address": ("<object at 0x7f3a5c0b9d10>", "<object at ADDRESS>"),
}


def test_every_sanitize_rule_fires_on_its_sample():
    """Parsed by nbval itself: a rule that it drops in silence is missing here."""
    written = (ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")
    names = configparser.ConfigParser(interpolation=None)
    names.read_string(written)
    rules = get_sanitize_patterns(written)
    assert len(rules) == len(names.sections()) == len(SAMPLES)
    for (pattern, replacement), section in zip(rules, names.sections(), strict=True):
        before, after = SAMPLES[section]
        assert re.sub(pattern, replacement, before) == after


def test_a_comparison_passes_over_a_pictures_bytes_and_stops_at_its_words(tmp_path):
    """By nbval itself: the same figure drawn by another machine, then another figure."""
    shown = 'display({"text/html": \'<img alt="%s" src="data:image/png;base64,%s">\', "text/plain": "%s"}, raw=True)'
    cells = []
    for count, (words, saved_words) in enumerate((("5 bars", "5 bars"), ("4 bars", "5 bars")), start=1):
        html_saved = f'<img alt="{saved_words}" src="data:image/png;base64,iVBORw0KGgo=">'
        data = {"text/html": html_saved, "text/plain": words}
        output = nbformat.v4.new_output("display_data", data=data)
        cells.append(nbformat.v4.new_code_cell(shown % (words, "AAAA", words), outputs=[output], execution_count=count))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "figures.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "-rA"]
    command += [f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}", "figures.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "PASSED figures.ipynb::Cell 0" in done.stdout


# --- the tool that refreshes them -----------------------------------------------------------------------------


def test_tidy_folds_solutions_and_drops_what_differs_between_runs():
    cell = nbformat.v4.new_code_cell("answer = 42", metadata={"tags": ["solution"], "execution": {"idle": "today"}})
    labelled = nbformat.v4.new_code_cell("# Solution: as in the book\nx = 1", metadata={"tags": ["solution"]})
    header = nbformat.v4.new_markdown_cell("**Time** about 9 minutes on 2 cores, 9.9 GiB of memory.")
    notebook = nbformat.v4.new_notebook(cells=[header, cell, labelled], metadata={"orphan": True})
    refresh_notebooks.tidy(notebook, {"seconds": 61, "gib": 1.2})
    assert header.source == "**Time** about 1 minute on 2 cores, 1.2 GiB of memory."
    assert cell.source == refresh_notebooks.SOLUTION + "\nanswer = 42"
    assert labelled.source == "# Solution: as in the book\nx = 1"
    assert cell.metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
    assert "execution" not in cell.metadata
    assert set(notebook.metadata) == {"measured", "kernelspec", "language_info"}
    once = nbformat.writes(notebook)
    refresh_notebooks.tidy(notebook, {"seconds": 61, "gib": 1.2})
    assert nbformat.writes(notebook) == once


def test_a_failing_cell_leaves_the_notebook_as_it_was(tmp_path):
    path = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One")]), path)
    before = path.read_bytes()

    def fail(notebook, folder):
        notebook.cells.clear()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        refresh_notebooks.refresh(path, fail)
    assert path.read_bytes() == before


def test_memory_is_that_of_a_process_and_its_children():
    """A rehearsal trains in a child of the kernel."""
    child = "kept = bytearray(range(256)) * 800_000; print(flush=True); input()"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-S", "-c", parent, child], **pipes) as process:
        process.stdout.readline()
        with refresh_notebooks.PeakMemory(process.pid, every=0.01) as peak:
            time.sleep(0.05)
        process.communicate(b"\n")
    assert 0.19 < peak.gib < 0.35  # 205 MB and two Pythons
    assert refresh_notebooks.memory(process.pid) == 0
