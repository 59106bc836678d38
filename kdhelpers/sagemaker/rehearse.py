"""The whole job on this machine: what would be uploaded and sent goes to a fake AWS, and is then run for real.

What runs is what SageMaker would run: the SDK's own start script and driver, the uploaded copy of the code, the
submitted hyperparameters, the folders of the container (below one of ours instead of /opt/ml).
"""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from kdhelpers import data
from kdhelpers.errors import UserError
from kdhelpers.sagemaker_job import (
    JobPlan,
    build_trainer,
    channels,
    check,
    code_folder,
    quiet_sdk,
    require_sdk,
    sdk_session,
)

ROLE = "arn:aws:iam::123456789012:role/rehearsal"
BUCKET = "sagemaker-rehearsal"

# What the training image holds (see `sagemaker_job.IMAGE_TAG`); torch stays the one that is here.
IMAGE_VERSIONS = (
    "transformers==5.3.0",
    "datasets==4.5.0",
    "huggingface_hub==1.10.0",
    "evaluate==0.4.6",
    "accelerate==1.12.0",
    "numpy<2",
)

# An editable install of this package would stand in for whatever the uploaded copy lacks.
ONLY_THE_UPLOADED_CODE = """import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
"""

PROVES = (
    "the code, the data and the drivers that would be uploaded are complete",
    "the SDK's own start script and driver start the training script with these hyperparameters",
    "the script trains, checkpoints, and fills the model folder",
)
PROVES_NOT = ("GPU and CUDA", "rights of the role", "quota and capacity", "several machines", "speed")


@dataclass(frozen=True)
class Rehearsal:
    """How a rehearsal ended. `model` is the folder that SageMaker would pack into model.tar.gz."""

    exit_code: int
    seconds: float
    model: Path
    log: Path
    failure: str  # what the job's page would show; empty after a success

    def metrics(self) -> dict:
        """The run's metrics.json."""
        return json.loads((self.model / "metrics.json").read_text(encoding="utf-8"))


# --- the fake AWS ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def fake_aws(region: str) -> Iterator[object]:
    """An AWS in this process, with an empty bucket; gives a boto3 session for it. Nothing leaves the machine."""
    require_sdk()
    try:
        import boto3
        from moto import mock_aws
    except ModuleNotFoundError as error:
        raise UserError(f"a rehearsal needs the package moto: pip install moto==5.2.5 ({error})") from error
    with mock_aws():
        session = boto3.Session("nobody", "nothing", region_name=region)
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        session.client("s3").create_bucket(Bucket=BUCKET, **place)
        yield session


@contextlib.contextmanager
def recorded(operation: str) -> Iterator[list[dict]]:
    """The parameters of every call of one AWS operation, as they leave the client.

    moto itself is no witness: it drops some fields and replaces others.
    """
    import botocore.client

    seen: list[dict] = []
    send = botocore.client.BaseClient._make_api_call

    def note(client, name, parameters):
        if name == operation:
            seen.append(parameters)
        answer = send(client, name, parameters)
        # moto answers {} where AWS leaves a field out, and the SDK's models refuse that
        return {key: value for key, value in answer.items() if value != {}}

    with mock.patch.object(botocore.client.BaseClient, "_make_api_call", note):
        yield seen


def download(s3, uri: str, folder: Path) -> None:
    """Everything below an S3 address, as SageMaker puts a channel's files into its folder."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            rest = item["Key"].removeprefix(prefix).lstrip("/") or Path(item["Key"]).name
            (folder / rest).parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, item["Key"], str(folder / rest))


# --- the container's folders ----------------------------------------------------------------------------------


def stage(plan: JobPlan, folder: Path) -> dict:
    """Send the job to a fake AWS, and lay out below `folder` what the container would find; gives back the request.

    Raises UserError for whatever `check` refuses.
    """
    folder = Path(folder).resolve()
    if shlex.quote(str(folder)) != str(folder):
        raise UserError(f"rehearse in a folder without blanks and quotes in its path, not in {folder}")
    check(plan)
    for path in channels(plan).values():
        if isinstance(path, str):
            raise UserError(f"a rehearsal reads nothing from S3: copy some of {path} here, and name that")
    plan = dataclasses.replace(plan, role=plan.role or ROLE, bucket=BUCKET)
    ml = folder / "ml"
    with fake_aws(plan.region) as boto_session, quiet_sdk(), code_folder() as code:
        trainer, inputs = build_trainer(plan, sdk_session(plan.region, BUCKET, boto_session), code)
        with recorded("CreateTrainingJob") as requests:
            trainer.train(input_data_config=inputs, wait=False, logs=False)
        request = requests[0]
        for channel in request["InputDataConfig"]:
            place = ml / "input" / "data" / channel["ChannelName"]
            download(boto_session.client("s3"), channel["DataSource"]["S3DataSource"]["S3Uri"], place)
    for name in ("model", "output/data", "checkpoints", "input/config"):
        (ml / name).mkdir(parents=True, exist_ok=True)
    for file in (ml / "input" / "data" / "sm_drivers").rglob("*"):
        if file.suffix in (".py", ".sh", ".json"):
            file.write_text(file.read_text(encoding="utf-8").replace("/opt/ml", str(ml)), encoding="utf-8")
    config = {
        "hyperparameters": {key: at_home(value, ml) for key, value in request["HyperParameters"].items()},
        "inputdataconfig": {
            channel["ChannelName"]: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
            for channel in request["InputDataConfig"]
        },
        "resourceconfig": {
            "current_host": "algo-1",
            "hosts": ["algo-1"],
            "current_instance_type": plan.instance,
            "network_interface_name": "lo",
        },
    }
    for name, content in config.items():
        (ml / "input" / "config" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "request.json").write_text(json.dumps(request, indent=1), encoding="utf-8")
    return request


def at_home(value: str, ml: Path) -> str:
    """A value of the container, with our folder in the place of /opt/ml."""
    return value.replace("/opt/ml", str(ml))


def container_environment(request: dict, folder: Path, python: str) -> dict[str, str]:
    """The environment variables of the container: none of the reader's own but the number of threads.

    `python3`, `pip3` and `torchrun` are those of the interpreter `python`.
    """
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, arguments in (("python3", ""), ("pip3", "-m pip"), ("torchrun", "-m torch.distributed.run")):
        (commands / name).write_text(f'#!/bin/bash\nexec {shlex.quote(python)} {arguments} "$@"\n', encoding="utf-8")
        (commands / name).chmod(0o755)
    (folder / "home").mkdir(exist_ok=True)
    (folder / "home" / "sitecustomize.py").write_text(ONLY_THE_UPLOADED_CODE, encoding="utf-8")
    given = {key: at_home(value, folder / "ml") for key, value in request.get("Environment", {}).items()}
    kept = {key: os.environ[key] for key in ("OMP_NUM_THREADS", "PIP_CONFIG_FILE") if key in os.environ}
    return {
        "PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(folder / "home"),
        "LANG": "C.UTF-8",
        "TOKENIZERS_PARALLELISM": "false",
        "TRAINING_JOB_NAME": request["TrainingJobName"],
        "PYTHONUNBUFFERED": "1",
        **kept,
        **given,
    }


def run(
    folder: Path,
    python: str = sys.executable,
    say: Callable[[str], None] | None = None,
    interrupt_at: str | None = None,
) -> Rehearsal:
    """Run what `stage` laid out, as the container would. `say` gets the training script's own lines as they come.

    `interrupt_at`: as soon as a line holds this text the job is sent SIGTERM, as SageMaker does when it takes a spot
    machine away. A second `run` in the same folder then is the resumed job: it finds the checkpoints.
    """
    folder = Path(folder).resolve()
    if not Path("/bin/bash").exists():
        raise UserError("the SDK's start script needs /bin/bash, which is missing here: rehearse on Linux or a Mac")
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    ml, log = folder / "ml", folder / "job.log"
    failure = ml / "output" / "failure"
    failure.unlink(missing_ok=True)
    algorithm = request["AlgorithmSpecification"]
    command = [at_home(part, ml) for part in algorithm["ContainerEntrypoint"] + algorithm["ContainerArguments"]]
    started, speaking = time.perf_counter(), False
    job = subprocess.Popen(
        command, cwd=folder, env=container_environment(request, folder, python), text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        with open(log, "w", encoding="utf-8") as file:
            for line in job.stdout:
                file.write(line)
                if say and speaking and not line.startswith("+"):
                    say(line.rstrip("\n"))
                speaking = speaking or line.startswith("Executing command")
                if interrupt_at and interrupt_at in line:
                    os.killpg(job.pid, signal.SIGTERM)
                    interrupt_at = None
        code = job.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    reason = failure.read_text(encoding="utf-8") if failure.is_file() else ""
    return Rehearsal(code, time.perf_counter() - started, ml / "model", log, reason)


def image_python(say: Callable[[str], None] = print) -> str:
    """The interpreter of an environment with the training image's library versions, made on the first call.

    It is a virtual environment on top of this interpreter's packages: only what differs is installed, by pip.
    """
    import sysconfig
    import venv

    folder = data.cache_home() / "image-versions"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    wanted = "\n".join((sys.executable, *IMAGE_VERSIONS))
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return str(python)
    say("making an environment with the training image's versions, once, a minute or two")
    venv.create(folder, with_pip=True, clear=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "base.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *IMAGE_VERSIONS],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise UserError(f"cannot install the training image's versions with pip: {last}")
    ready.write_text(wanted, encoding="utf-8")
    return str(python)


def rehearse(
    plan: JobPlan, folder: Path, python: str = sys.executable, say: Callable[[str], None] | None = None
) -> Rehearsal:
    """Stage and run a job. Raises UserError, with the script's own last words, where it fails."""
    stage(plan, folder)
    result = run(folder, python, say)
    if result.exit_code:
        reason = result.failure.strip().splitlines() or [f"exit code {result.exit_code}"]
        raise UserError(f"the rehearsed job failed: {reason[-1].removeprefix('error: ')} (its log: {result.log})")
    return result


def show_steps(line: str) -> None:
    """For `say`: print how far the job is, and nothing that names a folder of this machine."""
    if line.startswith("rows:") or ": step " in line:
        print(line, flush=True)


def result_lines(result: Rehearsal) -> list[str]:
    """What a rehearsal has shown, and what it has not."""
    proved = [f"  proves      {line}" for line in PROVES]
    return [f"The rehearsal is done in {result.seconds:.0f} s.", *proved, f"  proves not  {', '.join(PROVES_NOT)}"]
