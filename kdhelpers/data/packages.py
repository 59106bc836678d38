"""Packages through the reader's own pip: mirrors and proxies count, and the checksum is required."""

import os
import subprocess
import sys
from pathlib import Path

from kdhelpers.errors import UserError


def download_package(package: str, sha256: str, folder: Path, what: str, *options: str) -> Path:
    """Let pip download a package, as "name==version", into an empty folder; returns its file.

    Raises UserError, in which `what` names what the reader lacks, where pip cannot get it or gets another file.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", *options]
    pip += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    # pip's own temporary files too: so whoever waits can see in this folder how far it has come
    where = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    done = subprocess.run(pip, capture_output=True, text=True, env=where)
    files = [path for path in folder.iterdir() if path != wanted and path.is_file()]
    if done.returncode or not files:
        why = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        if "DO NOT MATCH THE HASHES" in done.stderr:
            why = "the package that it finds is not the known one: its checksum differs"
        advice = "connect once, or copy another machine's cache folder and point KD_HOME at it"
        raise UserError(f"cannot download {what} with pip: {why} - {advice}")
    return files[0]
