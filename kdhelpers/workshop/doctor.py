"""How this machine stands: what is here, what is missing, and what each lack means."""

import logging
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from kdhelpers import data, models
from kdhelpers.console import Parser
from kdhelpers.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. `level`: "ok", "note" (works, with a limit) or "missing" (has to be mended)."""

    level: str
    name: str
    text: str


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding(
        "ok" if good else "missing", "Python", platform.python_version() + ("" if good else ": 3.11 or newer is needed")
    )


def _packages() -> Finding:
    from packaging.requirements import Requirement

    wrong, seen = [], []
    for line in metadata.requires("kdhelpers") or []:
        requirement = Requirement(line)
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        seen.append(f"{requirement.name} {installed}")
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        return Finding("missing", "packages", "; ".join(wrong) + ": pip install -r requirements.txt")
    return Finding("ok", "packages", ", ".join(seen[:3]) + f" and {len(seen) - 3} more")


def _machine() -> list[Finding]:
    import torch

    from kdhelpers.fitting import choose_precision

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = [
        Finding("ok" if cores > 1 else "note", "cores", f"{cores}, {torch.get_num_threads()} threads for PyTorch")
    ]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        enough = memory >= 3.5
        findings.append(
            Finding(
                "ok" if enough else "note", "memory", f"{memory:.0f} GiB" + ("" if enough else ": 4 GiB are wanted")
            )
        )
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "CPU"
    precision = choose_precision("auto")
    slow = "" if precision != "fp32" else " (no fast bf16 here: training takes about twice as long)"
    findings.append(Finding("ok" if not slow else "note", "training", f"on the {device} in {precision}{slow}"))
    return findings


def _caches() -> list[Finding]:
    home = data.cache_home()
    snippets = (home / "data" / "movie_snippets.tsv").is_file()
    try:
        models.locate(models.EMBEDDED_BACKBONE)
        backbone = Finding("ok", "backbone", "MiniLM-L6-H384 is installed and whole")
    except UserError as error:
        backbone = Finding("missing", "backbone", str(error))
    text = (
        "movie snippets are cached"
        if snippets
        else "movie snippets are not cached: the first run fetches 2.5 MB with pip"
    )
    kept = {kind: len(list((home / kind).glob("[!.]*"))) for kind in ("teachers", "logits", "students")}
    place = home if home.exists() else home.parent if home.parent.exists() else Path.home()
    free = shutil.disk_usage(place).free / 2**30
    return [
        backbone,
        Finding("ok" if snippets else "note", "data", text),
        Finding(
            "ok",
            "cache",
            f"{kept['teachers']} fine-tuned teachers, {kept['logits']} sets of logits, "
            f"{kept['students']} students ($KD_HOME moves it)",
        ),
        Finding(
            "ok" if free > 3 else "note", "disk", f"{free:.0f} GiB free" + ("" if free > 3 else ": 3 GiB are wanted")
        ),
    ]


def _reach() -> list[Finding]:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(endpoint, timeout=3):
            pass
        hub = Finding("ok", "Hub", "reached: --recipe sst2 and hub models will load")
    except urllib.error.HTTPError:
        hub = Finding("ok", "Hub", "reached: --recipe sst2 and hub models will load")
    except (OSError, ValueError):
        hub = Finding("note", "Hub", "not reached: the default recipe runs, --recipe sst2 and hub models do not")
    here = (
        os.environ.get("AWS_ACCESS_KEY_ID")
        or os.environ.get("AWS_PROFILE")
        or (Path.home() / ".aws" / "credentials").is_file()
    )
    aws = Finding(
        "ok" if here else "note",
        "AWS",
        "credentials found" if here else "no credentials: all but a launch on SageMaker works",
    )
    return [hub, aws]


def doctor() -> list[Finding]:
    """Look at versions, machine, caches, Hub and AWS; nothing is downloaded or changed. Takes up to 5 seconds."""
    return [_python(), _packages(), *_machine(), *_caches(), *_reach()]


def prepare() -> None:
    """Fill every cache that the notebooks read: rows, teacher, its logits, three students.

    With them a room needs no network. Some five minutes on two cores, seconds where they are there already.
    """
    from kdhelpers import ladder, workshop

    kit = workshop.prepare()
    for name in ladder.OF_THE_NOTEBOOKS:
        ladder.student(kit, ladder.rung(name))
        log.info("student %r: in the cache", name)


def main(argv: list[str]) -> None:
    """`python -m kdhelpers doctor`. Raises UserError where something has to be mended."""
    parser = Parser(prog="python -m kdhelpers doctor", description=__doc__)
    parser.add_argument("--prepare", action="store_true", help="fill the caches, so that the notebooks need no network")
    if parser.parse_args(argv).prepare:
        prepare()
    findings = doctor()
    for finding in findings:
        print(f"{finding.level:8}{finding.name:10}{finding.text}")
    missing = [finding.name for finding in findings if finding.level == "missing"]
    if missing:
        raise UserError(f"mend first: {', '.join(missing)}")
    print("Ready: python -m kdhelpers distill")
