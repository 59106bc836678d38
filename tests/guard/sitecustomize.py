"""Python runs this at start-up where this folder is on PYTHONPATH: see tests/loopback.py."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent.parent / "loopback.py"))["install"]()
