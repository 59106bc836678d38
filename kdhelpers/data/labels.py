"""What a label is, however it is written: one normal form for every file, Hub data set and teacher."""

import itertools
import re
import unicodedata
from decimal import Decimal
from typing import Any

import pandas as pd

from kdhelpers.errors import UserError

UNLABELLED = -100  # the label of a row whose class is withheld or unknown; PyTorch's cross-entropy skips it too
MISSING = ("", "nan", "<na>")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.IGNORECASE)


def shown_label(value: Any) -> str | None:
    """A label as tables show it: 1, 1.0, "+1" and "1e0" are "1", single spaces, NFC; None for missing and -100.

    Raises UserError for lists and other objects.
    """
    if not pd.api.types.is_scalar(value) or isinstance(value, bytes):
        raise UserError(f"the label {str(value)[:60]} is neither a name nor a number")
    text = "" if pd.isna(value) else " ".join(unicodedata.normalize("NFC", str(value)).split())
    if NUMBER.fullmatch(text.replace("\N{MINUS SIGN}", "-")):
        number = Decimal(text.replace("\N{MINUS SIGN}", "-"))
        text = str(int(number)) if number == int(number) else f"{number:f}".rstrip("0")
    return None if text.lower() in (*MISSING, str(UNLABELLED)) else text


def normal_label(value: Any) -> str | None:
    """The form in which two labels are the same class; None for no label. Raises UserError for lists and objects.

    >>> [normal_label(value) for value in (1.0, "+1", "GOOD", "Good ", True, "-100.0")]
    ['1', '1', 'good', 'good', 'true', None]
    """
    text = shown_label(value)
    return None if text is None else unicodedata.normalize("NFC", text.casefold())


def class_names(found: set[str], declared: list[str], teacher: list[str]) -> list[str]:
    """The classes in the order of their ids: the teacher's, where its names are meant; the declared; else sorted.

    Raises UserError where two undeclared labels differ in nothing but case: are they one class or two?
    """
    forms = {normal_label(name) for name in teacher}
    if len(forms) == len(teacher) and forms.issuperset(map(normal_label, found)):
        return list(teacher)
    ordered = sorted(found, key=_order)
    for one, two in itertools.pairwise(ordered):
        if not declared and normal_label(one) == normal_label(two):
            raise UserError(f"the training labels {one!r} and {two!r} differ in nothing but case: write them alike")
    return declared or ordered


def _order(label: str) -> list[str | float]:
    """A sorting key by which numbers are in number order, those within names too: "10 stars" after "9 stars"."""
    parts = re.split(r"((?:^-)?\d+(?:\.\d+)?)", str(normal_label(label)))
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]
