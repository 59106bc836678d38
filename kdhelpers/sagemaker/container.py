"""What runs in the SageMaker container: `distill`, between the container's folders.

A copy of this file lies at the root of the uploaded code. The SDK's driver calls it with the job's hyperparameters as
options, by itself or under torchrun.
"""

import dataclasses
import os
import shutil
import sys
import traceback
from pathlib import Path

FAILURE_CHARACTERS = 1024  # SageMaker shows no more of the failure file than this


def prepare_cache(checkpoints: Path, environment: dict[str, str]) -> Path:
    """The run's cache, beside its checkpoints so that teacher and logits outlive an interruption of a spot job.

    The channel `snippets`, where the job has one, becomes the cached data set: no download in the container. The
    channel `logits` becomes the cached logits: a teacher whose logits are in it reads no row again.
    """
    cache = checkpoints / "cache"
    for channel, folder in (("SM_CHANNEL_SNIPPETS", "data"), ("SM_CHANNEL_LOGITS", "logits")):
        if environment.get(channel):
            shutil.copytree(environment[channel], cache / folder, dirs_exist_ok=True)
    return cache


def run(argv: list[str], environment: dict[str, str]) -> None:
    """Distil with the options in `argv`, go on where an interrupted run stopped, and fill the model folder.

    The model folder gets all that `distill` writes and `code/inference.py`, so that its archive can be deployed.
    """
    from kdhelpers import arguments, fitting, quiet, report, train
    from kdhelpers.console import is_main, start_console

    quiet()
    settings, _ = arguments.run_settings(argv)
    output = settings.checkpoints / "run"
    unfinished = output.with_name("run.incomplete") / "settings.json"
    settings = dataclasses.replace(settings, output=output, checkpoints=None, resume=unfinished.is_file())
    if is_main():
        start_console()
    with fitting.first_process_first():
        os.environ["KD_HOME"] = str(prepare_cache(output.parent, environment))
    if not (output / "metrics.json").is_file():  # it is there when the interruption came at the very end
        metrics = train.distill(settings)
        if metrics:
            print(*report.result_lines(metrics, output), sep="\n", flush=True)
    if is_main():
        model = Path(environment["SM_MODEL_DIR"])
        shutil.copytree(output, model, dirs_exist_ok=True)
        (model / "code").mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parent / "kdhelpers" / "inference.py", model / "code")
    fitting.end_processes()


def main(argv: list[str]) -> int:
    """Run and give back the exit code. What went wrong is left where SageMaker looks for it.

    Without that file the job's page would say "CalledProcessError" and nothing else.
    """
    from kdhelpers.errors import UserError

    try:
        run(argv, dict(os.environ))
    except Exception as error:
        reason = f"error: {error}" if isinstance(error, UserError) else traceback.format_exc()
        print(reason, file=sys.stderr, flush=True)
        Path(os.environ["SM_OUTPUT_FAILURE"]).write_text(reason[-FAILURE_CHARACTERS:], encoding="utf-8")
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
