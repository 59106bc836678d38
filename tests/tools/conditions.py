"""Do the notebooks say the same everywhere? Run them all under nbval in every condition that a reader may have.

python -m tests.tools.conditions [NAME ...]   (about ten minutes each; without names: all)
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_LOOPBACK = 'ip link set lo up && exec "$@"'  # a kernel is spoken to over it
NBVAL = ["-p", "tests.nbval_plugin", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=600", "-q"]
NBVAL += [f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}", f"--rootdir={ROOT}"]


@dataclass(frozen=True)
class Condition:
    """How the notebooks are run: environment variables, a command in front, the working folder, times in a row."""

    environment: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    folder: str = str(ROOT)
    times: int = 1


def conditions(empty: str) -> dict[str, Condition]:
    """By name; `empty` is a folder with nothing in it."""
    return {
        "cold caches": Condition({"KD_HOME": empty}),
        "warm caches, twice": Condition(times=2),
        "one thread": Condition({"OMP_NUM_THREADS": "1"}),
        "avx2": Condition({"ATEN_CPU_CAPABILITY": "avx2"}),
        "another folder, no network": Condition(
            before=("unshare", "-n", "sh", "-c", START_LOOPBACK, "sh"), folder=tempfile.gettempdir()
        ),
    }


def run(condition: Condition) -> str:
    """Run all notebooks; what pytest says last, and what failed."""
    command = [*condition.before, sys.executable, "-m", "pytest", *NBVAL, str(ROOT / "notebooks")]
    where = os.environ | {"PYTHONPATH": str(ROOT)} | condition.environment
    said = []
    for _ in range(condition.times):
        done = subprocess.run(command, cwd=condition.folder, env=where, capture_output=True, text=True)
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
        said += [line for line in lines if line.startswith(("FAILED", "ERROR"))] + lines[-1:]
    return "\n  ".join(said)


def main(names: list[str]) -> None:
    """Run the named conditions, or all of them."""
    with tempfile.TemporaryDirectory() as empty:
        for name, condition in conditions(empty).items():
            if names and name not in names:
                continue
            started = time.perf_counter()
            print(f"{name}:\n  {run(condition)}\n  ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
