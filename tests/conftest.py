"""Shared by all tests: quiet libraries, no socket beyond loopback here or in a child process, one thread each."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are faster so, here and in child processes

from tests import loopback

loopback.install()
loopback.guard_children()

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

from kdhelpers import quiet  # noqa: E402

quiet()


@pytest.fixture
def trained_teacher():
    """A tiny BERT that has learnt the task of `teachable_rows`: each test's own copy.

    A fixture of a wider scope calls `trained_tiny_teacher()` itself.
    """
    from tests.tiny import trained_tiny_teacher

    return trained_tiny_teacher()
