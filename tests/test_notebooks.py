"""What every notebook must look like, and that the sanitize rules do what they say."""

import ast
import configparser
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LONGEST_CELL, LONGEST_LINE = 10, 92
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


def test_every_code_cell_was_run_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_warnings_or_leaks_in_outputs(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output
        shown = json.dumps(cell.outputs) if cell.outputs else ""
        shown = re.sub(r'"image/png": "[^"]*"', "", shown) + cell.source
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
        assert cell.metadata.get("jupyter", {}).get("source_hidden") is True
        assert cell.outputs[0].text.startswith("passed")
    starters = [cell for cell in code_cells(notebook) if "kd.check." in cell.source and cell not in solutions]
    assert starters
    assert all(cell.outputs[0].text.startswith("not attempted") for cell in starters)


def test_figures_have_alternative_text(notebook):
    pictures = [o for cell in code_cells(notebook) for o in cell.outputs if "image/png" in o.get("data", {})]
    for picture in pictures:
        assert len(picture.metadata["image/png"]["alt"]) > 20
        assert picture.data["text/plain"] == picture.metadata["image/png"]["alt"]


def test_recap_and_links(notebook):
    last = notebook.cells[-1]
    assert last.cell_type == "markdown"
    assert "## Recap" in last.source
    assert re.search(r"\]\(\w+\.ipynb\)", last.source)


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
            where = nbformat.read(path.parent / file, as_version=4) if file else notebook
            assert anchor in anchors(text_of(where)), target


def test_small_and_clean_on_disk(path, notebook):
    assert path.stat().st_size < 1_500_000
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    assert "version" not in notebook.metadata.language_info
    assert all(cell.id for cell in notebook.cells)


SAMPLES = {
    "kernel temp file": ("/tmp/ipykernel_4711/1234567.py:3: UserWarning", "IPYKERNEL_FILE:3: UserWarning"),
    "what this machine computes fast": ("seed 42, precision bf16", "seed 42, precision FASTEST"),
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
