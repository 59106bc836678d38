"""The whole job on this machine: what would be uploaded and sent is caught, laid out as in the container, and run.

What runs is what SageMaker would run: the SDK's own start script and driver, the uploaded copy of the code, the
submitted hyperparameters, the folders of the container (below one of ours instead of /opt/ml).
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kdhelpers.errors import UserError
from kdhelpers.sagemaker.plan import JobPlan, channels
from kdhelpers.sagemaker.sdk import check, training_request
from kdhelpers.storage import cache_home

# What the training image holds (`sdk.TRAINING_TAG`), and a pyarrow that goes with its numpy; torch is the one here.
# Of the next image (`sdk.NEXT_TRAINING`) no more is known than its name: the transformers, which is taken from it, and
# torch 2.11.0, which is not: what pip gets is a CUDA build of gigabytes. Its python lies in /opt/venv; that the driver
# finds it there, only the image itself can show.
IMAGE_VERSIONS = {
    "current": "transformers==5.3.0 datasets==4.5.0 huggingface_hub==1.10.0 evaluate==0.4.6 accelerate==1.12.0 numpy<2 "
    "pyarrow<26",
    "next": "transformers==5.13.1",
}

# An editable install of this package would stand in for whatever the uploaded copy lacks.
ONLY_THE_UPLOADED_CODE = """import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
"""

# What stands in for a container without a network: nothing but this machine itself can be reached.
NO_NETWORK = """
import socket

connect = socket.socket.connect


def only_here(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"the container has no network, and {address[0]} was asked for")
    return connect(self, address)


socket.socket.connect = only_here
"""

PROVES = """  proves      the code, the data and the drivers that would be uploaded are complete
  proves      the SDK's own start script and driver start the training script with these hyperparameters
  proves      the script trains, checkpoints, and fills the model folder
  proves not  GPU and CUDA, rights of the role, quota and capacity, several machines, speed"""

Say = Callable[[str], object]
PROXIES = [spelt for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") for spelt in (name, name.lower())]
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
HUB = ("HF_ENDPOINT", "HF_TOKEN", "HF_HOME")
KEPT = ("OMP_NUM_THREADS", "PIP_CONFIG_FILE", *HUB, *PROXIES, *CERTIFICATES)  # of the reader's


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


def stage(plan: JobPlan, folder: Path, host: str = "algo-1", checkpoints: Path | None = None) -> dict:
    """Lay out below `folder` what the job's container would find; returns the request. Raises UserError.

    `host`: which of the plan's machines it is. `checkpoints`: a folder that several of them share, as they do S3.
    """
    folder = Path(folder).resolve()
    if shlex.quote(str(folder)) != str(folder):
        raise UserError(f"rehearse in a folder without spaces and quotes in its path, not in {folder}")
    check(plan)
    for path in channels(plan, fetch=True).values():
        if isinstance(path, str):
            raise UserError(f"a rehearsal reads nothing from S3: copy some of {path} here, and name that")
    ml = _container_folders(folder / "ml", checkpoints)

    def deliver(path: Path, channel: str) -> None:
        place = ml / "input" / "data" / channel
        if path.is_dir():
            shutil.copytree(path, place)
        else:
            place.mkdir()
            shutil.copy(path, place)

    request = training_request(plan, deliver)
    for file in (ml / "input" / "data" / "sm_drivers").rglob("*"):
        if file.suffix in (".py", ".sh", ".json"):
            file.write_text(at_home(file.read_text(encoding="utf-8"), ml), encoding="utf-8")
    config: dict[str, dict] = {
        "hyperparameters": {key: at_home(value, ml) for key, value in request["HyperParameters"].items()},
        "inputdataconfig": {part["ChannelName"]: {"TrainingInputMode": "File"} for part in request["InputDataConfig"]},
        "resourceconfig": {"current_host": host, "hosts": hosts(plan), "current_instance_type": plan.instance,
                           "network_interface_name": "lo"},
    }  # fmt: skip
    for name, content in config.items():
        (ml / "input" / "config" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "request.json").write_text(json.dumps(request, indent=1), encoding="utf-8")
    return request


def _container_folders(ml: Path, checkpoints: Path | None) -> Path:
    for name in ("input/config", "input/data", "model", "output/data"):
        (ml / name).mkdir(parents=True, exist_ok=True)
    if checkpoints:
        checkpoints.mkdir(parents=True, exist_ok=True)
        (ml / "checkpoints").symlink_to(checkpoints.resolve())
    (ml / "checkpoints").mkdir(exist_ok=True)
    return ml


def hosts(plan: JobPlan) -> list[str]:
    """What SageMaker calls the plan's machines."""
    return [f"algo-{number}" for number in range(1, plan.instances + 1)]


def at_home(value: str, ml: Path) -> str:
    """A value of the container, with our folder in the place of /opt/ml."""
    return value.replace("/opt/ml", str(ml))


def container_environment(request: dict, folder: Path, python: str) -> dict[str, str]:
    """The container's environment variables: hardly any of the reader's; `python3` and its like run `python`."""
    commands, home = folder / "bin", folder / "home"
    commands.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    for name, arguments in (("python3", ""), ("pip3", "-m pip"), ("torchrun", "-m torch.distributed.run")):
        (commands / name).write_text(f'#!/bin/bash\nexec {shlex.quote(python)} {arguments} "$@"\n', encoding="utf-8")
        (commands / name).chmod(0o755)
    isolated = NO_NETWORK if request.get("EnableNetworkIsolation") else ""
    (home / "sitecustomize.py").write_text(ONLY_THE_UPLOADED_CODE + isolated, encoding="utf-8")
    own = {"HOME": str(home), "PYTHONPATH": str(home), "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}
    own |= {"PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin", "TOKENIZERS_PARALLELISM": "false"}
    # oneDNN keeps what it has prepared for each shape of a batch, 1,024 times over; this machine may be small
    own |= {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "LRU_CACHE_CAPACITY": "16"}
    given = {key: at_home(value, folder / "ml") for key, value in request.get("Environment", {}).items()}
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    return own | {"TRAINING_JOB_NAME": request["TrainingJobName"]} | kept | given


def show_steps(line: str) -> None:
    """For `say`: print the settings of each training and how far it is, and nothing that names a folder of ours."""
    if line.startswith("rows:") or ": step " in line or ": training for " in line:
        print(textwrap.fill(line, 96, subsequent_indent="    "), flush=True)


def run(folder: Path, python: str = sys.executable, say: Say = show_steps) -> Rehearsal:
    """Run what `stage` laid out, as the container would. `say` gets the training script's own lines as they come.

    Where `say` answers "stop" the job is sent SIGTERM, as by SageMaker that takes a spot machine away. A second `run`
    in the same folder then is the resumed job: it finds the checkpoints.
    """
    folder = Path(folder).resolve()
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
            for line in job.stdout or ():
                file.write(line)
                if speaking and not line.startswith("+") and say(line.rstrip("\n")) == "stop":
                    os.killpg(job.pid, signal.SIGTERM)
                speaking = speaking or line.startswith("Executing command")
        code = job.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    reason = failure.read_text(encoding="utf-8") if failure.is_file() else ""
    return Rehearsal(code, time.perf_counter() - started, ml / "model", log, reason)


def rehearse(plan: JobPlan, folder: Path, python: str = sys.executable, say: Say = show_steps) -> Rehearsal:
    """Stage and run a job, on several machines all at once. Raises UserError, with the script's last words.

    The machines of a label job share the folder `checkpoints` as they share S3; what they say is told of the first.
    """
    if plan.instances == 1:
        stage(plan, folder)
        results = [run(folder, python, say)]
    else:
        for host in hosts(plan):
            stage(plan, folder / host, host, folder / "checkpoints")
        with ThreadPoolExecutor(plan.instances) as pool:
            tell = [say, *[lambda line: None] * (plan.instances - 1)]
            results = list(pool.map(lambda host, say: run(folder / host, python, say), hosts(plan), tell))
    result = next((one for one in results if one.exit_code), results[0])
    if result.exit_code:
        reason = (result.failure.strip().splitlines() or [f"exit code {result.exit_code}"])[-1]
        raise UserError(f"the rehearsed job failed: {reason.removeprefix('error: ')} (its log: {result.log})")
    return result


def image_python(image: str = "current") -> str:
    """The interpreter of an environment with a training image's library versions, made by pip on the first call.

    It is a virtual environment on top of this interpreter's packages: only what differs is installed.
    """
    versions = IMAGE_VERSIONS[image].split()
    folder = cache_home() / ("image-versions" if image == "current" else f"image-versions-{image}")
    ready, wanted = folder / "ready", "\n".join((sys.executable, *versions))
    if not ready.is_file() or ready.read_text(encoding="utf-8") != wanted:
        print("making an environment with the training image's versions, once, a minute or two", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "base.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        if subprocess.run([folder / "bin" / "python", "-m", "pip", "install", *versions]).returncode:
            raise UserError("cannot install the training image's versions with pip; its own words stand above")
        ready.write_text(wanted, encoding="utf-8")
    return str(folder / "bin" / "python")
