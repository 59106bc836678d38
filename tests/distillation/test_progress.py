"""The progress bar as a person sees it: what a child process writes is replayed as a screen."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 40, 120

PREPARE = """
import gc
import kdhelpers
kdhelpers.quiet()
import torch, transformers
from datasets import Dataset
from kdhelpers import models
from kdhelpers.cli.parsing import start_console
from kdhelpers.distillation import Training, fit
from kdhelpers.runtime import this_machine
from kdhelpers.settings import recipe
from tests import tiny

gc.freeze()  # Trainer collects garbage at every training's end: what the imports have left need not be searched
start_console()
torch.manual_seed(0)
tokenizer = tiny.tiny_tokenizer()
rows = tiny.teachable_rows(96)
rows = Dataset.from_dict(
    {"input_ids": tokenizer([row["text"] for row in rows])["input_ids"], "labels": [row["label"] for row in rows]}
)

def train(name):
    settings = recipe("movie-snippets", alpha=1, epochs=3, batch_size=4)
    return fit(tiny.tiny_bert(), Training(name, rows, tokenizer, settings, this_machine("fp32"), validation=rows))

class Interrupt(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 30:
            raise KeyboardInterrupt

def interrupted(name):
    from kdhelpers.distillation import training
    made = training.trainer_for
    def trainer_for(*args, **kwargs):
        trainer = made(*args, **kwargs)
        trainer.add_callback(Interrupt())
        return trainer
    training.trainer_for = trainer_for
    try:
        train(name)
    except KeyboardInterrupt:
        print("stopped")
    training.trainer_for = made
"""
CELLS = {
    "trained": "result = train('the student')",
    "interrupted": "interrupted('the control')",
    "again": "result = train('the control')",
    "predicted": "models.predict_logits(result.model, rows, tokenizer, batch_size=4, progress='the answers').shape",
}


def screens(text: str):
    """What stands on a terminal, line by line, each time the cursor goes back or down a line."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Za-z]|[\r\n\b]|[^\r\n\b\x1b]+", text):
        if part in "\r\n":
            yield [line.rstrip() for line in lines]
            column, row = 0, row + (part == "\n")
            lines += [""] * (row + 1 - len(lines))
        elif part == "\b":
            column = max(0, column - 1)
        elif part.endswith("A") and part.startswith("\x1b"):
            row = max(0, row - int(part[2:-1] or 1))
        elif not part.startswith("\x1b"):
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
            column += len(part)
    yield [line.rstrip() for line in lines]


def bars(lines: list[str]) -> list[str]:
    return [line for line in lines if re.search(r"\d+/\d+ (steps|rows), ", line)]


@pytest.fixture(scope="module")
def terminal(tmp_path_factory) -> str:
    """All that a program writes on a terminal of 120 columns."""
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    import fcntl
    import struct
    import termios

    script = tmp_path_factory.mktemp("terminal") / "script.py"
    script.write_text(PREPARE + "\n".join(CELLS.values()) + "\nprint('done')\n", encoding="utf-8")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "KD_PROGRESS"}
    child = subprocess.Popen([sys.executable, script], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            part = b""
        if not part:
            break
        written += part
    os.close(ours)
    text = written.decode()
    assert child.wait() == 0, text
    return text


@pytest.fixture(scope="module")
def outputs() -> dict[str, list]:
    """The outputs of each cell of a notebook that a person runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("KD_PROGRESS", raising=False)
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        cells = [nbformat.v4.new_code_cell(source) for source in [PREPARE, *CELLS.values()]]
        NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=120, kernel_name="python3").execute()
    assert not cells[0].outputs
    return {name: cell.outputs for name, cell in zip(CELLS, cells[1:], strict=True)}


def stream(outputs: list, name: str) -> str:
    return "".join(output.text for output in outputs if output.get("name") == name)


def test_a_terminal_shows_one_bar_at_a_time_and_names_it(terminal):
    seen = [bars(lines) for lines in screens(terminal)]
    assert max(map(len, seen)) == 1
    assert {found[0].split(":")[0] for found in seen if found} == {"the student", "the control", "the answers"}


def test_a_bar_in_a_terminal_counts_to_its_end_and_never_back(terminal):
    counts = [
        int(re.search(r"(\d+)/72 steps", found[0])[1])
        for found in map(bars, screens(terminal))
        if "72 steps" in "".join(found)
    ]
    assert counts[0] == 0
    assert max(counts) > 60
    assert sum(after < before for before, after in zip(counts, counts[1:], strict=False)) == 2  # three trainings


def test_nothing_of_the_bars_is_left_in_a_terminal_and_each_message_has_its_own_line(terminal):
    *_, last = screens(terminal)
    whole = re.compile(
        r"the (student|control): (training for 72 steps on 96 rows; batch size 4, .*, seed 42"
        r"|step (24|48|72) of 72, training loss [\d.]+, validation accuracy [\d.]+ % \(\d+ s\))|stopped|done"
    )
    assert [line for line in last if line and not whole.fullmatch(line)] == []
    assert sum("of 72" in line for line in last) == 3 + 1 + 3


@pytest.mark.parametrize("cell", CELLS)
def test_a_notebook_shows_its_bar_as_plain_text_in_one_place(outputs, cell):
    """Neither standard error, which JupyterLab shows on pink, nor a widget, nor an output that is replaced."""
    kinds = {(output.output_type, output.get("name")) for output in outputs[cell]}
    assert kinds <= {("stream", "stdout"), ("execute_result", None)}
    seen = [bars(lines) for lines in screens(stream(outputs[cell], "stdout"))]
    assert max(map(len, seen)) == 1


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_of_the_bar_is_left_in_a_notebook(outputs, cell):
    *_, last = screens(stream(outputs[cell], "stdout"))
    assert bars(last) == []
    named = ("the student: ", "the control: ", "stopped", "    ")  # a long message goes on in a second line
    assert all(line.startswith(named) for line in last if line)
    assert sum("of 72" in line for line in last) == {"trained": 3, "interrupted": 1, "again": 3, "predicted": 0}[cell]


def test_after_an_interrupt_the_next_bar_moves_in_one_line(outputs):
    written = stream(outputs["again"], "stdout")
    assert written.count("\n") == 2 + 3  # the messages', none of the bar's


def test_whoever_compares_outputs_switches_the_bar_off(monkeypatch, capsys):
    from kdhelpers import runtime

    monkeypatch.setattr(runtime, "_in_notebook", lambda: True)
    with runtime.progress_bar(3, "seen") as bar:
        bar.update()
    assert "seen" in capsys.readouterr().out
    monkeypatch.setenv("KD_PROGRESS", "off")
    with runtime.progress_bar(3, "hidden") as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")
