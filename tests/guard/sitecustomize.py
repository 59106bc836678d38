"""Python runs this at start-up where this folder is on PYTHONPATH: see tests/loopback.py."""

import gc
import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent.parent / "loopback.py"))["install"]()
gc.set_threshold(50_000, 20, 1000)  # looking for garbage takes a tenth of the time that a process imports for
