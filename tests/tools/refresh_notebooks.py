"""Run every notebook anew and save it with its outputs: python -m tests.refresh_notebooks [NAME ...]."""

import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def peak_memory(pid: int) -> float:
    """The most memory that a running process has held, in GiB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20


def refresh(path: Path) -> dict[str, float]:
    """Clear, execute and normalise one notebook; gives back what it took, as the metadata and the header keep it.

    Nothing is saved if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    started = time.perf_counter()
    # nbval runs each notebook in its own folder, so that is where it runs here too
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}})
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        gib = peak_memory(client.km.provisioner.pid)
    took = {"seconds": round(time.perf_counter() - started), "gib": round(gib, 1)}
    notebook.metadata = {
        "measured": took,
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    minutes = max(1, round(took["seconds"] / 60))
    said = f"about {minutes} minute{'s' * (minutes > 1)} on 2 cores, {took['gib']} GiB"
    notebook.cells[0].source = re.sub(r"about \d+ minutes? on 2 cores, [\d.]+ GiB", said, notebook.cells[0].source)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps of this run
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    return took


def main(names: list[str]) -> None:
    """Refresh the named notebooks, or all of them in order."""
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    os.environ["KD_PROGRESS"] = "off"
    paths = [NOTEBOOKS / Path(name).name for name in names] or sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    for path in paths:
        took = refresh(path)
        print(f"{path.name}: {took['seconds']} s, {took['gib']} GiB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
