"""For notebooks: figures, exercises, doctor, short cuts. What needs libraries is loaded at its first use."""

import importlib
import typing

from kdhelpers.workshop.doctor import Finding, Report, doctor, fill_caches

_FROM = {"show": "figures", "pretend_endpoint": "endpoint"} | dict.fromkeys(
    ("command", "logits_of", "three_class_files", "train_briefly"), "kit"
)

__all__ = [
    "Finding", "Report", "command", "doctor", "exercises", "figures", "fill_caches", "logits_of", "pretend_endpoint",
    "show", "three_class_files", "train_briefly",
]  # fmt: skip


def __getattr__(name: str) -> typing.Any:
    if name in ("exercises", "figures"):
        return importlib.import_module(f"kdhelpers.workshop.{name}")
    if name in _FROM:
        return getattr(importlib.import_module(f"kdhelpers.workshop.{_FROM[name]}"), name)
    raise AttributeError(f"module 'kdhelpers.workshop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
