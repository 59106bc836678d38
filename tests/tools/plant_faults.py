"""Does the regression test bite? Plant faults, one at a time, in a copy; each must turn something red.

python -m tests.tools.plant_faults [--notebooks] [NAME ...]   (some minutes each; without names: all)

With --notebooks the tests are left out: would a reader see it, too? Each fault has a cache of its own: no student that
it has spoilt is kept, and none that was trained without it hides it. (What is red without a fault, too, is
no sight of it: look at the names.)
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

from kdhelpers import storage

ROOT = Path(__file__).parents[2]
NBVAL = ["-p", "tests.nbval_plugin", "--nbval", "--nbval-current-env"]
NBVAL += ["--nbval-sanitize-with=tests/nbval_sanitize.cfg", "--nbval-cell-timeout=600"]


@dataclass(frozen=True)
class Fault:
    """A fault, how to plant it in a copy of the repository, and where it is looked for."""

    name: str
    plant: Callable[[Path], None]
    tests: tuple[str, ...] = ()  # arguments of pytest
    notebooks: tuple[str, ...] = ()  # by their names without an ending


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


LOSSES = "kdhelpers/distillation/losses.py"
LOSS_TESTS = ("tests/distillation/test_losses.py",)
FAULTS = (
    Fault(
        "T^2 dropped",
        replace(LOSSES, "return temperature**2 * F.kl_div", "return F.kl_div"),
        LOSS_TESTS,
        ("04_distillation_trainer",),
    ),
    Fault(
        "alpha swapped",
        replace(LOSSES, "loss + alpha * HARD[task](", "loss + (1 - alpha) * HARD[task]("),
        LOSS_TESTS,
        ("04_distillation_trainer",),
    ),
    Fault(
        "soft answers turned into hard ones",
        replace(
            "kdhelpers/distillation/trainer.py",
            "answers = inputs.get(TEACHER_LOGITS)",
            "answers = inputs.get(TEACHER_LOGITS)\n"
            "        answers = answers if answers is None else 20.0 * (answers == answers.amax(-1, keepdim=True))",
        ),
        ("tests/distillation/test_trainer.py",),
        ("04_distillation_trainer", "05_did_the_teacher_help"),
    ),
    Fault(
        "labels shuffled",
        replace("kdhelpers/data/snippets.py", 'int(row["rating"] > 0)', 'int(hash(row["text"]) % 2)'),
        ("tests/data",),
        ("02_dataset",),
    ),
    Fault(
        "the run's seed leaks into the split",
        replace("kdhelpers/data/snippets.py", "default_rng(SPLIT_SEED)", "default_rng(np.random.randint(2**31))"),
        ("tests/data",),
        ("02_dataset", "04_distillation_trainer"),
    ),
    Fault(
        "wrong tokenizer",
        replace(
            "kdhelpers/models/tokenizers.py",
            "def require_same_tokenizer(report: TokenizerReport) -> None:",
            "def require_same_tokenizer(report) -> None:\n    return\n\n\ndef _unused(report) -> None:",
        ),
        ("tests/models", "tests/cli", "-k", "tokenizer or vocabular"),
        ("01_tokenizers",),
    ),
    Fault(
        "teacher left in train mode",
        replace(
            "kdhelpers/distillation/trainer.py",
            "teacher.to(self.args.device).eval()",
            "teacher.to(self.args.device).train()",
        ),
        ("tests/distillation/test_trainer.py",),
        ("04_distillation_trainer",),
    ),
    Fault(
        "a saved output altered",
        in_notebook("02_dataset", alter_an_output),
        notebooks=("02_dataset",),
    ),
    Fault(
        "a notebook stripped of its outputs",
        in_notebook("01_tokenizers", strip_outputs),
        ("tests/test_notebooks.py",),
    ),
    Fault(
        "an unknown magic",
        in_notebook("02_dataset", unknown_magic),
        ("tests/test_notebooks.py",),
        ("02_dataset",),
    ),
)


def look(fault: Fault, notebooks_only: bool) -> list[str]:
    """The arguments of pytest with which a fault is looked for."""
    files = [f"notebooks/{name}.ipynb" for name in fault.notebooks]
    return [*(() if notebooks_only else fault.tests), *([*NBVAL, *files] if files else [])]


def fresh_copy(folder: Path) -> Path:
    """A copy of the repository as it lies there, in a folder that is not there yet; returns that."""
    skip = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", "*.egg-info", ".*_cache")
    return Path(shutil.copytree(ROOT, folder, ignore=skip))


def own_cache(folder: Path) -> Path:
    """A cache with the downloads, teachers and answers that are there (linked, not copied) and with no student."""
    for known in ("data", "models", "teachers", "logits"):
        if (storage.cache_home() / known).is_dir():
            skip = shutil.ignore_patterns(".*")  # locks, and what another process is writing
            shutil.copytree(storage.cache_home() / known, folder / known, ignore=skip, copy_function=_link)
    return folder


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)  # the cache's files are replaced whole, never written into
    except OSError:  # on another disk
        shutil.copy2(source, target)


def red(copy: Path, cache: Path, looked: list[str]) -> list[str]:
    """The tests and cells that fail, as pytest names them."""
    command = [sys.executable, "-m", "pytest", "--tb=no", "-rf", *looked]
    where = os.environ | {"PYTHONPATH": str(copy), "KD_HOME": str(cache)}  # a notebook's kernel needs them, too
    run = subprocess.run(command, cwd=copy, env=where, capture_output=True, text=True)
    failed = [line.split(" - ")[0].removeprefix("FAILED ") for line in run.stdout.splitlines() if "FAILED" in line[:7]]
    if run.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run:\n{run.stdout}{run.stderr}")
    return failed


def said(failed: list[str]) -> str:
    """What turned red, a line: of each file the first test or cell, and how many more."""
    if not failed:
        return "NOT SEEN"
    files = list(dict.fromkeys(name.split("::")[0] for name in failed))
    first = [next(name for name in failed if name.startswith(file)) for file in files]
    more = f" and {len(failed) - len(first)} more" if len(failed) > len(first) else ""
    return f"red: {', '.join(first)}{more}"


def main(arguments: list[str]) -> int:
    """Plant the named faults, each in its own copy, and print what turned red; returns how many went unseen."""
    names = [name for name in arguments if name != "--notebooks"]
    if unknown := set(names) - {fault.name for fault in FAULTS}:
        raise SystemExit(f"no fault {unknown.pop()!r}: there are {', '.join(fault.name for fault in FAULTS)}")
    unseen, only = 0, names != arguments
    chosen = [fault for fault in FAULTS if (not names or fault.name in names) and (fault.notebooks or not only)]
    for fault in chosen:
        with tempfile.TemporaryDirectory() as folder:
            copy, cache = fresh_copy(Path(folder, "copy")), own_cache(Path(folder, "cache"))
            fault.plant(copy)
            failed = red(copy, cache, look(fault, only))
        unseen += not failed
        print(f"{fault.name:36}{said(failed)}", flush=True)
    print(f"{len(chosen) - unseen} of {len(chosen)} faults were seen")
    return unseen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
