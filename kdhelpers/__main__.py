"""The command line: python -m kdhelpers COMMAND [options]."""

import errno
import logging
import os
import sys

from kdhelpers import quiet
from kdhelpers.errors import UserError

USAGE = """usage: python -m kdhelpers COMMAND [options]

  distill             distil a teacher into a small student and judge the result
  export              write a student as ONNX, in fp32 or int8
  ladder              students over seeds, sizes, amounts of text and losses: what helps, and what does not
  benchmark training  seconds of the article's way of training against ours, switch by switch
  benchmark inference size, milliseconds and accuracy of models, PyTorch and ONNX side by side
  sagemaker           plan, check, rehearse, launch, follow and clean up the same run on Amazon SageMaker
  logits              let the teacher label a large corpus once, shared among processes
  doctor              check this machine: versions, memory, caches, Hub and AWS reach

COMMAND --help says more."""


def start_console() -> None:
    """Send the package's messages to standard output, plain."""
    root = logging.getLogger("kdhelpers")
    for handler in [h for h in root.handlers if type(h) is logging.StreamHandler]:
        root.removeHandler(handler)
    root.addHandler(logging.StreamHandler(sys.stdout))
    root.setLevel(logging.INFO)
    root.propagate = False


def _distill(argv: list[str]) -> None:
    from kdhelpers import arguments, report, train

    quiet()
    settings, seeds = arguments.run_settings(argv)
    start_console()
    if seeds == 1:
        metrics = train.distill(settings)
        lines = report.result_lines(metrics, settings.output) if metrics else []
    else:
        summary = train.distill_seeds(settings, seeds)
        lines = report.seeds_lines(summary, settings.output) if summary else []
    if lines:  # under torchrun one process speaks
        print(*lines, sep="\n")


def _benchmark(argv: list[str]) -> None:
    from kdhelpers import benchmark

    quiet()
    start_console()
    benchmark.main(argv)


def _ladder(argv: list[str]) -> None:
    from kdhelpers import ladder

    quiet()
    start_console()
    ladder.main(argv)


def _export(argv: list[str]) -> None:
    from kdhelpers import export

    quiet()
    start_console()
    export.main(argv)


def _doctor(argv: list[str]) -> None:
    from kdhelpers import machine

    quiet()
    machine.main(argv)


def _logits(argv: list[str]) -> None:
    from kdhelpers import labelling

    quiet()
    start_console()
    labelling.main(argv)


def _sagemaker(argv: list[str]) -> None:
    from kdhelpers import sagemaker_commands

    quiet()
    sagemaker_commands.main(argv)


COMMANDS = {
    "distill": _distill,
    "export": _export,
    "ladder": _ladder,
    "benchmark": _benchmark,
    "logits": _logits,
    "sagemaker": _sagemaker,
    "doctor": _doctor,
}


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk; torch and safetensors each say it their own way."""
    signs = ("No space left", "file write failed", "PytorchStreamWriter", "Disk quota exceeded")
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(sign in str(error) for sign in signs):
            return True
        error = error.__cause__ or error.__context__
    return False


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the reader's to mend, 130 stopped by Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        print(
            f"error: no command {argv[0]!r}" + (f": did you mean {near[0]}?" if near else "\n" + USAGE), file=sys.stderr
        )
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        COMMANDS[argv[0]](argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nstopped. Nothing of an earlier run was touched, and this one's checkpoints are kept: "
            "the same command with --resume goes on from the last of them.",
            file=sys.stderr,
        )
        return 130
    except Exception as error:
        if not disk_is_full(error):
            raise
        print(
            "error: the disk is full; nothing of an earlier run was touched: "
            "make room, then repeat the command with --resume",
            file=sys.stderr,
        )
        return 2
    return 0


def console_script() -> None:
    """Entry point of the `kdhelpers` command."""
    sys.exit(main())


if __name__ == "__main__":
    console_script()
