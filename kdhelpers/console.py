"""What a person at the console meets: options that are read strictly, messages, progress."""

import argparse
import difflib
import logging
import os
import sys

from kdhelpers.errors import UserError


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Every option that a parser knows, those of its sub-commands included."""
    found = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            found += [option for inner in action.choices.values() for option in options_of(inner)]
    return found


def unknown_argument(given: str, *parsers: argparse.ArgumentParser) -> str:
    """The sentence for an argument that no parser knows, with the nearest known one; the first parser is likeliest."""
    name = given.split("=")[0]
    if not name.startswith("-"):
        return f"unexpected value {given!r}: every value follows its option, e.g. --temperature 2"
    plain = "--" + name.lstrip("-").replace("_", "-")
    for parser in parsers:
        near = difflib.get_close_matches(plain, options_of(parser), n=1, cutoff=0.7)
        if near:
            return f"unknown argument {name}: did you mean {near[0]}?"
    return f"unknown argument {name}: see {parsers[0].prog} --help"


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are a UserError: `output` must not become `output_dir`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        """Called by argparse; the base class would print the usage and exit."""
        raise UserError(message)

    def parse_args(self, args=None, namespace=None):
        """As argparse's, but an unknown argument is answered with the nearest known one."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise UserError(unknown_argument(unknown[0], self))
        return found


def start_console() -> None:
    """Send the package's messages to standard output, plain."""
    root = logging.getLogger("kdhelpers")
    for handler in [h for h in root.handlers if type(h) is logging.StreamHandler]:
        root.removeHandler(handler)
    root.addHandler(logging.StreamHandler(sys.stdout))
    root.setLevel(logging.INFO)
    root.propagate = False


def is_main() -> bool:
    """True in the one process that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def show_progress() -> bool:
    """A bar only where someone can watch it move: a terminal, or a notebook that a person runs.

    A bar never looks the same twice, so whoever compares a notebook's outputs sets KD_PROGRESS=off.
    """
    ipython = sys.modules.get("IPython")
    watched = sys.stderr.isatty() or (ipython is not None and ipython.get_ipython() is not None)
    return is_main() and watched and os.environ.get("KD_PROGRESS") != "off"
