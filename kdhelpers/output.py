"""A run's folder: nothing of an earlier run is touched before the new one is whole."""

import json
import logging
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from kdhelpers import data
from kdhelpers.console import is_main
from kdhelpers.errors import UserError


def prepare_output(output: Path, settings: dict, overwrite: bool, resume: bool) -> Path:
    """Make the folder that the run works in, `<output>.incomplete`. Touches nothing that an earlier run wrote.

    `settings`, the run's own, are kept in it: `resume` wants the same. Raises UserError.
    """
    work = output.with_name(output.name + ".incomplete")
    wanted = json.dumps(settings, default=str, sort_keys=True, indent=1)
    try:
        if output.is_dir() and any(output.iterdir()):
            if not (output / "metrics.json").is_file():
                raise UserError(f"the folder {output} holds files that are not a run: choose another --output")
            if not overwrite:
                raise UserError(
                    f"{output} already holds a run: choose another --output, or replace it with --overwrite"
                )
        if resume:
            if not (work / "settings.json").is_file():
                raise UserError(f"there is nothing to resume: no unfinished run in {work}")
            if (work / "settings.json").read_text(encoding="utf-8") != wanted:
                raise UserError(f"the unfinished run in {work} had other settings: repeat its command with --resume")
        elif is_main():
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        if is_main():
            data.write_atomically(work / "settings.json", wanted.encode())
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    return work


def publish(work: Path, output: Path) -> None:
    """Put the finished run in its place, replacing an earlier one only now."""
    old = output.with_name(output.name + ".old")
    try:
        if output.is_dir():
            os.replace(output, old)
        os.replace(work, output)
    except OSError:  # a mount point (SageMaker's model folder) cannot be renamed: copy into it
        shutil.copytree(work, output, dirs_exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def log_file(path: Path):
    """Write the package's messages to `path` too, with time stamps, for the length of a `with` block."""
    root = logging.getLogger("kdhelpers")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
