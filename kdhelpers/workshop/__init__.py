"""For notebooks: figures, exercises, the doctor, and a few short cuts. Figures are loaded when they are first used."""

import importlib
import typing

from kdhelpers.workshop.doctor import Finding, Report, doctor, fill_caches
from kdhelpers.workshop.endpoint import pretend_endpoint
from kdhelpers.workshop.kit import command, logits_of, three_class_files, train_briefly

__all__ = [
    "Finding", "Report", "command", "doctor", "exercises", "figures", "fill_caches", "logits_of", "pretend_endpoint",
    "show", "three_class_files", "train_briefly",
]  # fmt: skip


def __getattr__(name: str) -> typing.Any:
    if name in ("exercises", "figures"):
        return importlib.import_module(f"kdhelpers.workshop.{name}")
    if name == "show":
        return importlib.import_module("kdhelpers.workshop.figures").show
    raise AttributeError(f"module 'kdhelpers.workshop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
