"""The machine that a run meets: device, precision, processes and progress are decided here, once."""

import ctypes
import gc
import logging
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kdhelpers.errors import UserError
from kdhelpers.settings import PRECISIONS

LONGEST_WAIT = timedelta(days=28)  # as long as a job on SageMaker can be


@dataclass(frozen=True)
class Machine:
    """What a run computes on. `processes` are torchrun's, `rank` is this one's number among them."""

    device: torch.device
    precision: str  # "bf16", "fp16" or "fp32": autocast's; weights are always fp32
    rank: int = 0
    processes: int = 1

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager:
        """A context in which matrix products are computed in this precision."""
        if self.precision == "fp32":
            return nullcontext()
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(self.device.type, dtype=kinds[self.precision])


def this_machine(precision: str = "auto") -> Machine:
    """Look at this process's device and at torchrun's variables. Raises UserError for a precision that is none.

    "auto" is what the machine computes fast: bf16 where it has it, fp16 on older NVIDIA GPUs, else fp32.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "auto":
        precision = _fast_precision()
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    return Machine(processes().device, precision, rank, world)


def _fast_precision() -> str:
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    fast_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if fast_bf16 and not torch.backends.mps.is_available() else "fp32"


def attention_options() -> dict[str, str]:
    """The `from_pretrained` argument for the attention that is fast here.

    On a CPU, for sentences of some 30 tokens, PyTorch's fused kernel is slower than the plain matrix products
    (`tests.tools.benchmark_training` measures it). On an accelerator it is the other way round, and transformers
    chooses it by itself for every family that has it (DeBERTa and MPNet do not).
    """
    return {} if torch.accelerator.is_available() else {"attn_implementation": "eager"}


def give_memory_back() -> None:
    """Return to the machine what was freed, where the C library is glibc: over batches of many lengths its heap grows.

    Not for every batch: the same pages have to be made anew, which takes time.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


# --- processes under torchrun ---------------------------------------------------------------------------------


def processes() -> PartialState:
    """The processes that torchrun started, to wait for one another; on a CPU accelerate sees one unless it is told.

    They wait for as long as the first one reads, or trains, alone: NCCL would give up after ten minutes.
    """
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)


def end_processes() -> None:
    """End what torchrun's processes share, as PyTorch asks before they exit: without it one is aborted now and then.

    A wrapped model holds on to gloo's threads, which need the interpreter for their last step: so it goes first.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


@contextmanager
def first_process_first() -> Iterator[None]:
    """As accelerate's main_process_first, but after an error, too, the others go on: they meet it themselves."""
    state = processes()
    if not state.is_main_process:
        state.wait_for_everyone()
    try:
        yield
    finally:
        if state.is_main_process:
            state.wait_for_everyone()


def is_main() -> bool:
    """True in the one process that writes files and prints, known before torch is asked for a device."""
    return int(os.environ.get("RANK", "0")) == 0


# --- progress -------------------------------------------------------------------------------------------------


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class PageFormatter(logging.Formatter):
    """In a notebook lines of more than 100 characters are broken between words: JupyterLab would do it in mid-word."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, in lines that a page can hold."""
        text = super().format(record)
        if not _in_notebook():
            return text
        fill = textwrap.TextWrapper(96, subsequent_indent="    ").fill
        return "\n".join(line if len(line) <= 100 else fill(line) for line in text.split("\n"))


def show_progress() -> bool:
    """A bar only where someone can watch it move: a terminal, or a notebook that a person runs.

    A bar never looks the same twice, so whoever compares a notebook's outputs sets KD_PROGRESS=off.
    """
    return is_main() and (sys.stderr.isatty() or _in_notebook()) and os.environ.get("KD_PROGRESS") != "off"


@contextmanager
def progress_bar(total: int, name: str, done: int = 0, unit: str = "rows") -> Iterator[tqdm]:
    """A bar that stays on one line and is gone afterwards, whatever happens; `.update(n)` moves it.

    Messages that are logged meanwhile appear above it. In a notebook it is plain text on standard output: standard
    error is shown there on pink, as if something had gone wrong.
    """
    notebook, hidden = _in_notebook(), not show_progress()
    form = f"{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} {unit}, {{remaining}} to go"
    place = {"file": sys.stdout, "mininterval": 0.3} if notebook else {"dynamic_ncols": True}
    speaking = [log for log in (logging.getLogger(), logging.getLogger("kdhelpers")) if _speaks(log)]
    redirected = nullcontext() if hidden else logging_redirect_tqdm(speaking)
    try:
        with (
            redirected,
            tqdm(total=total, desc=name, initial=done, bar_format=form, leave=False, disable=hidden, **place) as bar,
        ):
            yield bar
    finally:
        if notebook and not hidden:  # of the blanks that are left JupyterLab would keep an empty line
            print(" " * 120 + "\b" * 120, end="", flush=True)


def _speaks(logger: logging.Logger) -> bool:
    """Whether a logger writes to the screen by itself."""
    return any(getattr(handler, "stream", None) in (sys.stdout, sys.stderr) for handler in logger.handlers)
