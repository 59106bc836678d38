"""Options that are read strictly, and messages that go to standard output."""

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from kdhelpers.errors import UserError
from kdhelpers.settings import OPTIONS, dashed, nearest


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are a UserError: `output` must not become `output_dir`."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Called by argparse; the base class would print the usage and exit."""
        raise UserError(message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an unknown argument is answered with the nearest known one."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise UserError(unknown_argument(unknown[0], options_of(self)))
        return found


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Every option that a parser knows, those of its sub-commands included."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            found += [option for inner in action.choices.values() for option in options_of(inner)]
    return found


def unknown_argument(given: str, known: Iterable[str]) -> str:
    """The sentence for an argument that nobody knows, with the nearest known one."""
    name = given.split("=")[0]
    if not name.startswith("-"):
        return f"unexpected value {given!r}: every value follows its option, e.g. --temperature 2"
    near = nearest("--" + name.lstrip("-").replace("_", "-"), known)
    return f"unknown argument {name}" + (f": did you mean {near}?" if near else ": --help lists what there is")


def read_options(argv: list[str]) -> dict[str, str]:
    """`--name value`, `--name=value`, or `--name` alone for true, to a mapping that `settings_from` takes.

    Several teachers become a list, as JSON. Raises UserError for a value without an option and for any other option
    that is given twice.
    """
    found: dict[str, str] = {}
    teachers: list[str] = []
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise UserError(unknown_argument(name, map(dashed, OPTIONS)))
        if not equals:
            alone = not rest or (rest[0].startswith("--"))
            value = "true" if alone else rest.pop(0)
        if name == "--teacher" and "teacher" in found:
            teachers.append(value)
        elif name[2:] in found:
            raise UserError(f"{name} is given twice")
        else:
            found[name[2:]] = value
    return found | ({"teacher": json.dumps([found["teacher"], *teachers])} if teachers else {})


def start_console() -> None:
    """Send the package's messages to standard output, plain; under torchrun one process speaks."""
    from kdhelpers.runtime import PageFormatter, is_main

    root = logging.getLogger("kdhelpers")
    for handler in [h for h in root.handlers if type(h) is logging.StreamHandler]:
        root.removeHandler(handler)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(PageFormatter())
    root.addHandler(console)
    root.setLevel(logging.INFO if is_main() else logging.ERROR)
    root.propagate = False
