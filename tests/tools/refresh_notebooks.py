"""Run every notebook anew and save it with its outputs: python -m tests.tools.refresh_notebooks [--tidy] [NAME ...].

With --tidy nothing is run: only the metadata is put in order.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
from ipykernel.ipkernel import IPythonKernel
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOLUTION = "# Solution: one way to do it (the three dots open the cell)"


def memory(pid: int) -> int:
    """Bytes that a process and its children hold together; what they share counts once (PSS, where Linux knows it)."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                full = member.memory_full_info()
                total += getattr(full, "pss", full.rss)
    return total


class PeakMemory:
    """The most that a process and its children held together while a `with` block ran: `.gib`, looked at often."""

    def __init__(self, pid: int, every: float = 0.3):
        self.pid, self.every, self.gib = pid, every, 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while True:
            self.gib = max(self.gib, memory(self.pid) / 2**30)
            if self._done.wait(self.every):
                return

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def run(notebook: nbformat.NotebookNode, folder: Path) -> dict[str, float]:
    """Clear and execute a notebook; returns what it took. Raises an error where a cell fails."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    started = time.perf_counter()
    # nbval runs each notebook in its own folder, so that is where it runs here too
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel(), PeakMemory(client.km.provisioner.pid) as peak:
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    return {"seconds": round(time.perf_counter() - started), "gib": round(peak.gib, 1)}


def tidy(notebook: nbformat.NotebookNode, took: dict[str, float]) -> None:
    """Put a notebook's metadata in order, and what it took into its header.

    `language_info` is the kernel's own answer, whole: JupyterLab puts it there on opening, and calls the notebook
    unsaved, and soon saves it, wherever that changes anything.
    """
    notebook.metadata = {
        "measured": took,
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": IPythonKernel.language_info,
    }
    minutes = max(1, round(took["seconds"] / 60))
    said = f"about {minutes} minute{'s' * (minutes > 1)} on 2 cores, {took['gib']} GiB"
    notebook.cells[0].source = re.sub(r"about \d+ minutes? on 2 cores, [\d.]+ GiB", said, notebook.cells[0].source)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps of this run
        if "solution" in cell.metadata.get("tags", []):
            fold(cell)
    nbformat.validate(notebook)


def fold(cell: nbformat.NotebookNode) -> None:
    """Hide a solution and what it prints. JupyterLab shows the first line of a hidden cell: that must not tell it."""
    cell.metadata["jupyter"] = {"source_hidden": True, "outputs_hidden": True}
    cell.metadata["collapsed"] = True  # the same once more, as JupyterLab writes it
    if not cell.source.startswith("# Solution:"):
        cell.source = f"{SOLUTION}\n{cell.source}"


def refresh(path: Path, execute: Callable = run) -> dict[str, float]:
    """Execute and tidy one notebook; nothing is saved if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    took = execute(notebook, path.parent)
    tidy(notebook, took)
    nbformat.write(notebook, path)
    return took


def main(arguments: list[str]) -> None:
    """Refresh the named notebooks, or all of them in order."""
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    os.environ["KD_PROGRESS"] = "off"
    names = [argument for argument in arguments if argument != "--tidy"]
    execute = run if names == arguments else lambda notebook, _: notebook.metadata["measured"]
    for path in [NOTEBOOKS / Path(name).name for name in names] or sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        took = refresh(path, execute)
        print(f"{path.name}: {took['seconds']} s, {took['gib']} GiB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
