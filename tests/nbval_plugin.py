"""For pytest -p tests.nbval_plugin: kernels without a network, patience, and a stop at the first failing cell."""

import os

import pytest

from tests import loopback

loopback.guard_children()  # the kernels are children
os.environ["KD_PROGRESS"] = "off"  # the kernels inherit it: a bar never looks the same twice

_failed = set()


def pytest_collection_modifyitems(items):
    """nbval waits 5 s for a cell's output after it has ended; figures on a busy machine take longer."""
    for item in items:
        item.output_timeout = 60


def pytest_runtest_setup(item):
    """Cells after a failure would only fail for want of what it should have made."""
    if item.parent in _failed:
        pytest.skip("an earlier cell of this notebook failed")


def pytest_runtest_makereport(item, call):
    """Remember the notebook of a failing cell."""
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        _failed.add(item.parent)
