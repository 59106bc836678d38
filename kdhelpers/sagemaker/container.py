"""What runs in the SageMaker container: `distill`, between the container's folders.

A copy of this file lies at the root of the uploaded code. The SDK's driver starts it, by itself or under torchrun. The
job's hyperparameters are read where SageMaker puts them: on the command line the SDK has turned 1.10 into 1.1.
"""

import dataclasses
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

FAILURE_CHARACTERS = 1024  # SageMaker shows no more of the failure file than this


def prepare_cache(checkpoints: Path, environment: Mapping[str, str]) -> Path:
    """The run's cache: links to the channels, which are there already, and to what outlives an interruption.

    Teachers and logits that the job makes go to the checkpoint folder, which SageMaker keeps in S3. The channel
    `snippets` is the cached data set; the channel `logits` is the cached logits: no download, no upload, no copy.
    """
    kept, cache = checkpoints / "cache", Path(environment["SM_MODEL_DIR"]).parent / "cache"
    places = {"teachers": kept / "teachers", "logits": kept / "logits"}
    for channel, name in (("SM_CHANNEL_SNIPPETS", "data"), ("SM_CHANNEL_LOGITS", "logits")):
        if channel in environment:
            places[name] = Path(environment[channel])
    cache.mkdir(parents=True, exist_ok=True)
    for name, place in places.items():
        place.mkdir(parents=True, exist_ok=True)
        if not (cache / name).is_symlink():
            (cache / name).symlink_to(place)
    return cache


def run(environment: Mapping[str, str]) -> None:
    """Distil as the job's hyperparameters say, go on where an interrupted run stopped, and fill the model folder.

    The model folder gets all that `distill` writes and `code/inference.py`, so that its archive can be deployed.
    """
    from kdhelpers import distillation, evaluation, quiet, runtime
    from kdhelpers.settings import settings_from

    quiet()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("kdhelpers").setLevel(logging.INFO if runtime.is_main() else logging.ERROR)
    options = Path(environment["SM_INPUT_CONFIG_DIR"], "hyperparameters.json").read_text(encoding="utf-8")
    settings = settings_from(json.loads(options))
    output = Path(settings.checkpoints or "") / "run"
    unfinished = output.with_name("run.incomplete") / "settings.json"
    settings = dataclasses.replace(settings, output=output, checkpoints=None, resume=unfinished.is_file())
    with runtime.first_process_first():
        os.environ["KD_HOME"] = str(prepare_cache(output.parent, environment))
    if not (output / "metrics.json").is_file():  # it is there when the interruption came at the very end
        metrics = distillation.distill(settings)
        if metrics:
            print(*evaluation.result_lines(metrics, output), sep="\n", flush=True)
    if runtime.is_main():
        model = Path(environment["SM_MODEL_DIR"])
        shutil.copytree(output, model, dirs_exist_ok=True)
        (model / "code").mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parent / "kdhelpers" / "sagemaker" / "inference.py", model / "code")
    runtime.end_processes()


def main() -> int:
    """Run; returns the exit code. What went wrong is left where SageMaker looks for it.

    Without that file the job's page would say "CalledProcessError" and nothing else.
    """
    from kdhelpers.errors import UserError

    try:
        run(os.environ)
    except Exception as error:
        reason = f"error: {error}" if isinstance(error, UserError) else traceback.format_exc()
        print(reason, file=sys.stderr, flush=True)
        Path(os.environ["SM_OUTPUT_FAILURE"]).write_text(reason[-FAILURE_CHARACTERS:], encoding="utf-8")
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
