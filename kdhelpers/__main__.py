"""The command line: python -m kdhelpers COMMAND [options]."""

import difflib
import errno
import importlib
import os
import signal
import sys

from kdhelpers import quiet
from kdhelpers.cli.parsing import start_console
from kdhelpers.errors import UserError

USAGE = """usage: python -m kdhelpers COMMAND [options]

  distill             distil a teacher into a small student and judge the result
  export              write a student for ONNX (fp32, int8), numpy or a web page
  ablation            students over seeds, sizes, amounts of text and losses: what helps, and what does not
  benchmark           size, milliseconds and accuracy of models, PyTorch and ONNX side by side
  sagemaker           plan, check, rehearse, launch, follow and clean up the same run on Amazon SageMaker
  logits              let the teacher label a large corpus once, shared among processes
  doctor              check this machine: versions, memory, caches, Hub and AWS reach

COMMAND --help says more."""


# Each command's module has a `main(argv)`; it is imported when the command is given, since that takes seconds.
COMMANDS = ("distill", "export", "ablation", "benchmark", "sagemaker", "logits", "doctor")
FORMER_NAMES = {"ladder": "ablation"}  # kept for one release, with a hint


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk; torch and safetensors each say it their own way."""
    signs = ("No space left", "file write failed", "PytorchStreamWriter", "Disk quota exceeded")
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(sign in str(error) for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False


def in_a_sentence(error: Exception) -> str | None:
    """What to do about a full disk, a place that cannot be used or a missing library; None for anything else."""
    if disk_is_full(error):
        full = "the disk is full; nothing of an earlier run was touched"
        return f"{full}: make room, then repeat the command with --resume"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG):
        return f"cannot use {error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "kdhelpers").startswith("kdhelpers"):
        return f"{error.name} is not installed: python -m kdhelpers doctor says what is missing, and what to do"
    return None


def known_command(given: str) -> str | None:
    """The command of that name, also of a former one, with a hint; None, with the nearest name said, where none is."""
    if given in FORMER_NAMES:
        print(f"note: {given} is now called {FORMER_NAMES[given]}", file=sys.stderr)
        return FORMER_NAMES[given]
    if given in COMMANDS:
        return given
    near = difflib.get_close_matches(given, COMMANDS, n=1)
    print(f"error: no command {given!r}" + (f": did you mean {near[0]}?" if near else "\n" + USAGE), file=sys.stderr)
    return None


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the reader's to mend, 130 stopped by Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if argv else 2
    command = known_command(argv[0])
    if command is None:
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        if command != "doctor":  # it is asked where the libraries that these import are missing
            quiet()
            start_console()
        importlib.import_module(f"kdhelpers.cli.{command}").main(argv[1:])
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # under torchrun the others meet the same mistake
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resume = (
            " Nothing of an earlier run was touched, and this one's checkpoints are kept: "
            "the same command with --resume goes on from the last of them."
        )
        print("\nstopped." + (resume if command == "distill" else ""), file=sys.stderr)
        return 130
    except Exception as error:
        said = in_a_sentence(error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2
    return 0


def console_script() -> None:
    """Entry point of the `kdhelpers` command. SIGTERM ends it as Ctrl-C does: temporary files go."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())


if __name__ == "__main__":
    console_script()
