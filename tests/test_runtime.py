"""Device, precision and processes are decided once."""

import logging
import platform

import numpy as np
import psutil
import pytest
import torch

from kdhelpers import runtime
from kdhelpers.errors import UserError


def test_the_precision_that_is_asked_for_is_the_one_that_is_used():
    for precision in ("bf16", "fp16", "fp32"):
        assert runtime.this_machine(precision).precision == precision
    assert runtime.this_machine("auto").precision in ("bf16", "fp16", "fp32")
    with pytest.raises(UserError, match="precision must be one of"):
        runtime.this_machine("fp8")


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_products_are_computed_in_the_machines_precision(precision, dtype):
    with runtime.this_machine(precision).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_torchruns_variables_say_which_process_this_is(monkeypatch):
    assert runtime.this_machine("fp32").is_main
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    machine = runtime.this_machine("fp32")
    assert (machine.rank, machine.processes, machine.is_main, runtime.is_main()) == (2, 4, False, False)


def test_an_accelerator_is_left_to_choose_its_attention(monkeypatch):
    """MPNet and DeBERTa have no fused kernel: asked for by name, it stops their loading."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_: True)
    assert runtime.attention_options() == {}
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *_: False)
    assert runtime.attention_options() == {"attn_implementation": "eager"}


def test_no_bar_where_nobody_watches(monkeypatch):
    assert not runtime.show_progress()  # pytest captures stderr
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert runtime.show_progress()
    monkeypatch.setenv("KD_PROGRESS", "off")
    assert not runtime.show_progress()
    monkeypatch.delenv("KD_PROGRESS")
    monkeypatch.setenv("RANK", "1")
    assert not runtime.show_progress()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not asked")
def test_freed_memory_goes_back_to_the_machine():
    """Under the last array of many, which is kept, the heap cannot shrink by itself."""
    arrays = [np.ones(8192) for _ in range(2000)]  # 131 MB in pieces that are not mapped one by one
    kept = arrays.pop()
    del arrays
    before = psutil.Process().memory_info().rss
    runtime.give_memory_back()
    assert before - psutil.Process().memory_info().rss > 60e6
    assert kept.sum() == 8192


def test_where_the_c_library_is_another_memory_stays(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(runtime.ctypes, "CDLL", missing)
    runtime.give_memory_back()


@pytest.mark.parametrize("notebook", [True, False])
def test_a_page_gets_no_line_that_it_would_break_in_mid_word(monkeypatch, notebook):
    monkeypatch.setattr(runtime, "_in_notebook", lambda: notebook)
    said = "student: training for 78 steps on 807 rows; batch size 32, " + ", ".join(["learning rate 0.0003"] * 4)
    table = "a   b\n1   2"
    record = logging.LogRecord("kdhelpers", logging.INFO, __file__, 1, f"%s\n{table}", (said,), None)
    *lines, head, row = runtime.PageFormatter().format(record).split("\n")
    assert [head, row] == table.split("\n")
    assert " ".join(line.strip() for line in lines) == said
    assert (max(map(len, lines)) <= 100, len(lines)) == ((True, 2) if notebook else (False, 1))
