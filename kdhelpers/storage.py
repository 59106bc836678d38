"""What is kept on disk: the cache, files and folders that appear whole or not at all, and a run's own folder."""

import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdhelpers.errors import UserError

# options younger than caches that we keep, with their defaults
ADDED = {"task": "auto", "augment": 0} | dict.fromkeys(
    ("text_pair_column", "label_separator", "control_learning_rate", "control_dropout")
)
NOT_COMPUTED_BY = ("overwrite", "resume", "output", "checkpoints")  # options that do not change a run's result


def cache_home() -> Path:
    """Where downloads, teachers and their logits are kept: $KD_HOME, by default ~/.cache/kdhelpers."""
    return Path(os.environ.get("KD_HOME") or Path.home() / ".cache" / "kdhelpers").expanduser()


@functools.cache
def scratch() -> tempfile.TemporaryDirectory:
    """A folder for what this process need not hold in memory; it is gone when the process ends. Raises UserError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="kdhelpers-", ignore_cleanup_errors=True)
    except FileNotFoundError as error:
        raise UserError("no folder for temporary files can be written to: name one in TMPDIR") from error
    if "::" in folder.name:  # which datasets would read as one address inside another
        raise UserError(f"temporary files cannot be kept in {folder.name}: name a folder without :: in TMPDIR")
    return folder


def fingerprint(*parts: object) -> str:
    """A short hash of anything that JSON can hold: the name under which the cache keeps what depends on it.

    >>> fingerprint("a", 1) == fingerprint("a", 1.0), fingerprint("a", 1) == fingerprint("a", 2)
    (True, False)
    """
    plain = json.loads(json.dumps(parts, default=str), parse_float=_whole)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:24]


def _whole(number: str) -> int | float:
    """3.0 as 3: a recipe says the one, a command line the other, and they are the same setting."""
    return int(float(number)) if float(number).is_integer() else float(number)


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Hex digest of a file's bytes, computed once a process for each state of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_intact(path: Path, sha256: str) -> bool:
    """Whether a file is there and has this checksum."""
    state = path.stat() if path.is_file() else None
    return state is not None and _sha256(path, state.st_size, state.st_mtime_ns) == sha256


def _partial(path: Path) -> Path:
    """A name beside `path` that nobody else takes, in a folder that is there; other users may read what is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, even if the machine stops half-way."""
    partial = _partial(path)
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_folder(folder: Path, save: Callable[[str], object]) -> None:
    """Call `save(path)` on a new folder beside `folder`, then rename: readers see all of it or nothing.

    Other users may read it as far as the umask lets them; safetensors would keep weights to this user alone.
    """
    partial = _partial(folder)
    partial.mkdir()
    try:
        save(str(partial))
        mode = partial.stat().st_mode
        for path in partial.rglob("*"):
            path.chmod(mode if path.is_dir() else mode & 0o666)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


# --- a run's folder -------------------------------------------------------------------------------------------


def incomplete(output: Path) -> Path:
    """The folder that a run works in until it is done. Raises UserError for an output that has no name of its own."""
    if output.name in ("", ".."):
        raise UserError(f"--output {output} is no new folder: give it a name, e.g. --output {output / 'run'}")
    return output.with_name(output.name + ".incomplete")


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold a run's folder for one command. Raises UserError where another one is writing to it."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output.with_name(f".{output.name}.lock"), timeout=0)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"another run is writing to {output}: wait for it, or choose another --output") from error
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def require_free(output: Path, overwrite: bool) -> None:
    """Raise UserError where `output` holds a run that may not be replaced, or files that are no run's."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is no folder: choose another --output")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / "metrics.json").is_file():
        raise UserError(f"the folder {output} holds files that are not a run: choose another --output")
    if not overwrite:
        raise UserError(f"{output} already holds a run: choose another --output, or replace it with --overwrite")


def start_run(output: Path, settings: dict, overwrite: bool, resume: bool) -> Path:
    """Make the folder that the run works in, `<output>.incomplete`. Touches nothing that an earlier run wrote.

    `settings` are kept in it as a fingerprint and, without secrets, in words: `resume` wants the same. Raises
    UserError.
    """
    work = incomplete(output)
    kept = work / "settings.json"
    wanted = computed_by(settings)
    key = fingerprint(wanted)
    try:
        require_free(output, overwrite)
        if resume:
            if not kept.is_file():
                raise UserError(f"there is nothing to resume: no unfinished run in {work}")
            if json.loads(kept.read_text(encoding="utf-8")).get("fingerprint") != key:
                raise UserError(f"the unfinished run in {work} had other settings: repeat its command with --resume")
            return work
        shutil.rmtree(work, ignore_errors=True)
        write_file(kept, json.dumps({"fingerprint": key, **without_secrets(wanted)}, default=str, indent=1).encode())
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    return work


def computed_by(settings: dict) -> dict:
    """The settings that change what a run computes; of those in `ADDED` only what is not the default."""
    unchanged = [name for name, default in ADDED.items() if settings.get(name) == default]
    return {name: value for name, value in settings.items() if name not in (*NOT_COMPUTED_BY, *unchanged)}


def without_secrets(settings: dict) -> dict:
    """Settings as they may be written down: whatever a token or password is called, its value is left out."""
    hidden = ("token", "password", "secret", "key")
    return {
        name: without_secrets(value)
        if isinstance(value, dict)
        else "(not written down)"
        if value is not None and any(word in name.lower().split("_") for word in hidden)
        else value
        for name, value in settings.items()
    }


def finish_run(work: Path, output: Path) -> None:
    """Put the finished run in its place, replacing an earlier one only now."""
    old = output.with_name(output.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if output.is_dir():
            os.replace(output, old)
        os.replace(work, output)
    except OSError:  # a mount point (SageMaker's model folder) cannot be renamed: copy into it
        shutil.copytree(work, output, dirs_exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Write the package's messages to `path` too, with time stamps, for the length of a `with` block."""
    root = logging.getLogger("kdhelpers")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()
