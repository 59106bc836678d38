"""What runs in the SageMaker container: `distill`, or the label stage, between the container's folders.

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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdhelpers.settings import RunSettings

FAILURE_CHARACTERS = 1024  # SageMaker shows no more of the failure file than this


def prepare_cache(checkpoints: Path, environment: Mapping[str, str]) -> Path:
    """The run's cache: links to the channels, which are there already, and to what outlives an interruption.

    Teachers and logits that the job makes go to the checkpoint folder, which SageMaker can keep in S3. The channel
    `snippets` is the cached data set; the channel `logits` is the cached logits: no download, no upload, no copy.
    Only the shards of a label job are joined first, beside the channel, which may be read-only.
    """
    from kdhelpers.distillation import join_delivered

    kept, cache = checkpoints / "cache", Path(environment["SM_MODEL_DIR"]).parent / "cache"
    places = {"teachers": kept / "teachers", "logits": kept / "logits"}
    for channel, name in (("SM_CHANNEL_SNIPPETS", "data"), ("SM_CHANNEL_LOGITS", "logits")):
        if channel in environment:
            places[name] = Path(environment[channel])
    cache.mkdir(parents=True, exist_ok=True)
    if join_delivered(places["logits"], cache / "joined"):
        places["logits"] = cache / "joined"
    for name, place in places.items():
        place.mkdir(parents=True, exist_ok=True)
        if not (cache / name).is_symlink():
            (cache / name).symlink_to(place)
    return cache


def read_hub_token(environment: Mapping[str, str]) -> None:
    """Put the Hub's token, which the job names and does not hold, where the Hub's client looks for it."""
    if "KD_HUB_SECRET" in environment and "HF_TOKEN" not in environment:
        import boto3

        secrets = boto3.client("secretsmanager", region_name=environment["AWS_DEFAULT_REGION"])
        os.environ["HF_TOKEN"] = secrets.get_secret_value(SecretId=environment["KD_HUB_SECRET"])["SecretString"]


def run(environment: Mapping[str, str]) -> None:
    """Do the job's stage as its hyperparameters say: distil, or label."""
    from kdhelpers import quiet, runtime
    from kdhelpers.settings import settings_from

    quiet()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("kdhelpers").setLevel(logging.INFO if runtime.is_main() else logging.ERROR)
    options = Path(environment["SM_INPUT_CONFIG_DIR"], "hyperparameters.json").read_text(encoding="utf-8")
    settings = settings_from(json.loads(options))
    read_hub_token(environment)
    (_label if environment.get("KD_STAGE") == "label" else _distil)(settings, environment)
    runtime.end_processes()


def _label(settings: "RunSettings", environment: Mapping[str, str]) -> None:
    """Label this machine's shards, all that are missing of every n-th, into the checkpoint folder.

    Which machine this is, and of how many, SageMaker says in resourceconfig.json.
    """
    from kdhelpers import distillation

    machines = json.loads(Path(environment["SM_INPUT_CONFIG_DIR"], "resourceconfig.json").read_text(encoding="utf-8"))
    hosts = sorted(machines["hosts"])
    folder = Path(settings.checkpoints or "")
    os.environ["KD_HOME"] = str(prepare_cache(Path(environment["SM_MODEL_DIR"]).parent / "work", environment))
    settings = dataclasses.replace(settings, checkpoints=None)
    shard_rows, rank = int(environment["KD_SHARD_ROWS"]), hosts.index(machines["current_host"])
    distillation.label(settings, folder, shard_rows, rank, len(hosts))


def _distil(settings: "RunSettings", environment: Mapping[str, str]) -> None:
    """Distil, go on where an interrupted run stopped, and fill the model folder.

    The model folder gets all that `distill` writes and `code/inference.py`, so that its archive can be deployed.
    """
    from kdhelpers import distillation, evaluation, runtime

    output = Path(settings.checkpoints or "") / "run"
    unfinished = output.with_name("run.incomplete") / "settings.json"
    settings = dataclasses.replace(settings, output=output, checkpoints=None, resume=unfinished.is_file())
    with runtime.first_process_first():
        # S3 was sent file by file: an interruption at the very end leaves a part of a finished run beside the other
        whole = (output / "metrics.json").is_file() and any(output.glob("student/*.safetensors"))
        if unfinished.is_file() and not whole:
            shutil.rmtree(output, ignore_errors=True)
        os.environ["KD_HOME"] = str(prepare_cache(output.parent, environment))
    if "SM_CHANNEL_LOGITS" in environment:
        os.environ["KD_ANSWERS"] = "given"
    if not (output / "metrics.json").is_file():  # it is there when the interruption came at the very end
        metrics = distillation.distill(settings)
        if metrics:
            print(*evaluation.result_lines(metrics, output), sep="\n", flush=True)
    if runtime.is_main():
        model = Path(environment["SM_MODEL_DIR"])
        shutil.copytree(output, model, dirs_exist_ok=True)
        (model / "code").mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parent / "kdhelpers" / "sagemaker" / "inference.py", model / "code")


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
