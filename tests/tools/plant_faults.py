"""Does the regression test bite? Plant eight faults, one at a time, in a copy; each must turn something red.

python -m tests.plant_faults
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
NBVAL = ["-p", "tests.nbval_plugin", "--nbval", "--nbval-current-env"]
NBVAL += ["--nbval-sanitize-with=tests/nbval_sanitize.cfg", "--nbval-cell-timeout=600"]


@dataclass(frozen=True)
class Fault:
    """A fault, how to plant it in a copy of the repository, and what is run to find it (arguments of pytest)."""

    name: str
    plant: Callable[[Path], None]
    look: tuple[str, ...]


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    """Plant by changing text that must be there exactly once."""

    def plant(copy: Path) -> None:
        text = (copy / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file}: {old!r} stands there {text.count(old)} times"
        (copy / file).write_text(text.replace(old, new), encoding="utf-8")

    return plant


def in_notebook(name: str, change: Callable) -> Callable[[Path], None]:
    """Plant by changing a notebook, given as nbformat reads it."""

    def plant(copy: Path) -> None:
        path = copy / "notebooks" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        change(notebook)
        nbformat.write(notebook, path)

    return plant


def code_cells(notebook) -> list:
    """A notebook's code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def alter_an_output(notebook) -> None:
    """One digit of a printed count."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "10,605 snippets" in output.get("text", ""):
                output["text"] = output["text"].replace("10,605", "10,606")
                return
    raise AssertionError("no output to alter")


def strip_outputs(notebook) -> None:
    """What a well-meaning commit hook does."""
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None


def unknown_magic(notebook) -> None:
    """Jupyter says so on standard error, skips the rest of the cell, and nbval stays green."""
    cell = code_cells(notebook)[1]
    cell.source = "%no_such_magic\n" + cell.source


NOTEBOOK = "notebooks/{}.ipynb"
FAULTS = (
    Fault(
        "T^2 dropped",
        replace("kdhelpers/losses.py", "return temperature**2 * F.kl_div", "return F.kl_div"),
        ("tests/test_losses.py", *NBVAL, NOTEBOOK.format("04_distillation_trainer")),
    ),
    Fault(
        "alpha swapped",
        replace("kdhelpers/losses.py", "loss + alpha * hard_label_loss", "loss + (1 - alpha) * hard_label_loss"),
        ("tests/test_losses.py", *NBVAL, NOTEBOOK.format("04_distillation_trainer")),
    ),
    Fault(
        "labels shuffled",
        replace("kdhelpers/data.py", "> 0) for row in unique]", "> 0) for row in unique[::-1]]"),
        ("tests/test_data.py",),
    ),
    Fault(
        "wrong tokenizer",
        replace(
            "kdhelpers/checks.py",
            "def require_same_tokenizer(report: TokenizerReport) -> None:",
            "def require_same_tokenizer(report) -> None:\n    return\n\n\ndef _unused(report) -> None:",
        ),
        ("tests/test_cli.py", "-k", "tokenizer or vocabular"),
    ),
    Fault(
        "teacher left in train mode",
        replace("kdhelpers/trainer.py", "teacher.to(self.args.device).eval()", "teacher.to(self.args.device).train()"),
        ("tests/test_trainer.py",),
    ),
    Fault(
        "a saved output altered",
        in_notebook("02_dataset", alter_an_output),
        (*NBVAL, NOTEBOOK.format("02_dataset")),
    ),
    Fault(
        "a notebook stripped of its outputs", in_notebook("01_tokenizers", strip_outputs), ("tests/test_notebooks.py",)
    ),
    Fault(
        "an unknown magic",
        in_notebook("02_dataset", unknown_magic),
        ("tests/test_notebooks.py", *NBVAL, NOTEBOOK.format("02_dataset")),
    ),
)


def red(copy: Path, look: tuple[str, ...]) -> list[str]:
    """The tests and cells that fail, as pytest names them."""
    command = [sys.executable, "-m", "pytest", "--tb=no", "-rf", *look]
    where = os.environ | {"PYTHONPATH": str(copy)}  # a notebook's kernel has to find the copy's package, too
    run = subprocess.run(command, cwd=copy, env=where, capture_output=True, text=True)
    failed = [line.split(" - ")[0].removeprefix("FAILED ") for line in run.stdout.splitlines() if "FAILED" in line[:7]]
    if run.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run:\n{run.stdout}{run.stderr}")
    return failed


def main() -> int:
    """Plant every fault in its own copy, print what turned red; the exit code counts the faults that went unseen."""
    unseen = 0
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "copy")
            skip = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", "*.egg-info")
            shutil.copytree(ROOT, copy, ignore=skip)
            fault.plant(copy)
            failed = red(copy, fault.look)
        unseen += not failed
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        print(f"{fault.name:36}{'red: ' + failed[0] + more if failed else 'NOT SEEN'}", flush=True)
    print(f"{len(FAULTS) - unseen} of {len(FAULTS)} faults were seen")
    return unseen


if __name__ == "__main__":
    sys.exit(main())
