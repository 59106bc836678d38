"""One training job on Amazon SageMaker, planned and checked without AWS: nothing here sends anything.

`sagemaker_rehearse` runs the job on this machine, `sagemaker_cloud` on SageMaker. The SDK (v3) is imported inside
functions: it takes seconds.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from kdhelpers import arguments, data, ladder, models
from kdhelpers.console import unknown_argument
from kdhelpers.errors import UserError
from kdhelpers.recipes import MOVIE_SNIPPETS
from kdhelpers.train import RunSettings

PROJECT_TAG = ("project", "distilling-bert")
CHECKPOINTS = "/opt/ml/checkpoints"
INPUTS = "/opt/ml/input/data"
IMAGE_TAG = "2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04"

# USD an hour, on demand, us-east-1, as passed on to us in November 2026: edit them, or give --price.
PRICES = {"ml.g4dn.xlarge": 0.74, "ml.g6.xlarge": 1.13, "ml.g5.xlarge": 1.41}
PRICES_OF = "November 2026, us-east-1"

# How many times as fast as the one core that recorded the ladder: a guess on the safe side until your own job has run.
# (Less than a tenth of the teraflops on these GPUs' data sheets, 60 to 70, over the 0.2 of the ladder's student.)
TIMES_THE_LADDER = {"ml.g4dn.xlarge": 24, "ml.g6.xlarge": 24, "ml.g5.xlarge": 28}
START_UP_MINUTES = 5  # finding a machine, pulling the image, loading the data; counted as if it were billed

# Of each named recipe: rows, labelled rows, word pieces a row, parameters of teacher and student without embeddings.
WORK = {"movie-snippets": (8_070, 2_000, 25, 10.6e6, 5.3e6), "sst2": (67_349, 67_349, 15, 85e6, 42.5e6)}

# The job's log lines that SageMaker turns into curves.
METRICS = {
    f"{name}:validation_accuracy": rf"{name}: step .* validation accuracy ([0-9.]+) %"
    for name in ("control", "student")
} | {f"{name}:training_loss": rf"{name}: step .* training loss ([0-9.]+)" for name in ("control", "student")}

ROLE_ARN = r"arn:aws[a-z\-]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+"
SET_BY_THE_JOB = ("output", "output_dir", "checkpoints", "resume", "overwrite", "seeds")
LOCAL_INPUTS = ("train", "validation", "test", "unlabelled", "teacher", "student")
SECRET_NAMES = re.compile(r"token|password|passwd|secret|credential|api.?key|access.?key", re.IGNORECASE)
SECRET_VALUES = re.compile(r"hf_\w{20,}|(AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|-----BEGIN")


@dataclass(frozen=True)
class JobPlan:
    """A job, in full. `hyperparameters` are options of `distill`; local files and folders among them are uploaded, and
    s3:// addresses are read where they are.

    Minutes are whole minutes; `processes` greater than 1 starts that many under torchrun, one a GPU. `logits` is the
    --output of `python -m kdhelpers logits`, or an S3 address where it lies: a corpus that was labelled once. `role`
    and `bucket` may stay open until the launch.
    """

    hyperparameters: dict[str, object] = field(default_factory=dict)
    logits: str | None = None
    instance: str = "ml.g5.xlarge"
    processes: int = 1
    spot: bool = False
    max_minutes: int = 60
    max_wait_minutes: int | None = None
    region: str = "us-east-1"
    role: str | None = None
    bucket: str | None = None
    name: str = "distilling-bert"
    tags: dict[str, str] = field(default_factory=dict)
    price: float | None = None  # USD an hour, where the table's is not yours


# --- hyperparameters ------------------------------------------------------------------------------------------


def as_text(value: object) -> str:
    """A value as it arrives on the container's command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_argv(hyperparameters: dict[str, object]) -> list[str]:
    """Hyperparameters as the SDK's driver passes them to the training script."""
    return [part for name, value in hyperparameters.items() for part in (f"--{name}", as_text(value))]


def as_hyperparameters(argv: list[str]) -> dict[str, object]:
    """The other way round: `--name value`, `--name=value`, or `--name` alone for true. Raises UserError."""
    found: dict[str, object] = {}
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise UserError(unknown_argument(name, arguments.distill_parser()))
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        found[name[2:]] = value
    return found


def run_settings(plan: JobPlan) -> RunSettings:
    """The run that the hyperparameters describe, read by the training script's own parser. Raises UserError."""
    settings, _ = arguments.run_settings(as_argv(plan.hyperparameters))
    return settings


def hyperparameter_problems(hyperparameters: dict[str, object]) -> list[str]:
    """What is wrong with a job's hyperparameters, a sentence each."""
    problems = []
    for name, value in hyperparameters.items():
        text = as_text(value)
        if name.replace("-", "_") in SET_BY_THE_JOB:
            problems.append(f"hyperparameter {name}: the job sets it itself; leave it out")
        if value is None:
            problems.append(f"hyperparameter {name} is None, which would arrive as the text 'null': leave it out")
        if "'" in text or "'" in name:
            problems.append(f"hyperparameter {name} has a single quote, which breaks the SDK's start script")
        if SECRET_NAMES.search(name) or SECRET_VALUES.search(text):
            problems.append(
                f"hyperparameter {name} looks like a secret; everyone who may describe the job can read it: "
                "use AWS Secrets Manager"
            )
    try:
        arguments.run_settings(as_argv(hyperparameters))
    except UserError as error:
        problems.append(str(error))
    return problems


def all_tags(plan: JobPlan) -> dict[str, str]:
    """The plan's own tags and the project's, by which `clean` finds what is left."""
    return plan.tags | dict([PROJECT_TAG])


def tag_problems(tags: dict[str, str]) -> list[str]:
    """What is wrong with a plan's tags, a sentence each; their length is the request's matter."""
    problems = []
    for name, value in tags.items():
        if name.lower().startswith("aws:"):
            problems.append(f"tag {name}: names that begin with aws: are AWS's own")
        if name == PROJECT_TAG[0] and value != PROJECT_TAG[1]:
            problems.append(f"tag {name} is this project's own, by which clean finds what is left: choose another")
        if SECRET_NAMES.search(name) or SECRET_VALUES.search(value):
            problems.append(f"tag {name} looks like a secret; everyone who may list tags can read it")
    return problems


# --- channels -------------------------------------------------------------------------------------------------


def channels(plan: JobPlan) -> dict[str, Path | str]:
    """The local files and folders that the job needs, by channel name. Raises UserError where one is missing.

    What lies in S3 already is its address, and stays there. The default recipe's rows and its backbone
    go with the job, so that the container has to download nothing.
    """
    settings = run_settings(plan)
    recipe = settings.recipe
    found = {}
    named = {"teacher": recipe.teacher, "student": recipe.student}
    if settings.files:
        named |= dataclasses.asdict(settings.files)
    for name in LOCAL_INPUTS:
        value = named.get(name)
        if value is None:
            continue
        if value.startswith("s3://"):
            found[name] = value
        elif value == models.EMBEDDED_BACKBONE or Path(value).expanduser().is_dir():
            found[name] = Path(models.locate(value))
        elif name not in ("teacher", "student"):
            if not Path(value).expanduser().is_file():
                raise UserError(f"no file {value}")
            found[name] = Path(value).expanduser()
    if recipe.data == "movie-snippets":
        found["snippets"] = data.fetch_movie_snippets()
    if plan.logits:
        found["logits"] = plan.logits if plan.logits.startswith("s3://") else Path(plan.logits).expanduser()
        if isinstance(found["logits"], Path) and not any(found["logits"].glob("*/dataset_info.json")):
            raise UserError(f"{plan.logits} holds no logits: name the --output of python -m kdhelpers logits")
    return found


def container_hyperparameters(plan: JobPlan, inputs: dict[str, Path | str]) -> dict[str, str]:
    """The hyperparameters as the container reads them: local files by their place in it, and where checkpoints go."""
    text = {name: as_text(value) for name, value in plan.hyperparameters.items()}
    for name, path in inputs.items():
        if name in LOCAL_INPUTS:
            is_file = path.is_file() if isinstance(path, Path) else bool(Path(path).suffix)
            text[name] = f"{INPUTS}/{name}/{Path(path).name}" if is_file else f"{INPUTS}/{name}"
    return text | {"checkpoints": CHECKPOINTS}


@contextlib.contextmanager
def code_folder() -> Iterator[Path]:
    """A folder with all the code that a job needs: this package, and `container.py` at its root."""
    package = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(package, Path(folder, "kdhelpers"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(package / "container.py", folder)
        yield Path(folder)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


# --- the request, as the SDK makes it -------------------------------------------------------------------------


def require_sdk() -> None:
    """Raise UserError unless version 3 of the SDK is installed."""
    if importlib.util.find_spec("sagemaker") is None or importlib.util.find_spec("sagemaker.train") is None:
        raise UserError("version 3 of the SageMaker SDK is missing: pip install sagemaker==3.27.0")


def training_image(region: str, instance: str) -> str:
    """The address of the Hugging Face training image. Raises UserError for a region or machine without one.

    The SDK is asked for the registry by an older image, since SDK 3.7 does not know the newest by name.
    """
    from sagemaker.core import image_uris

    older = {"version": "4.56.2", "py_version": "py312", "base_framework_version": "pytorch2.8.0"}
    try:
        address = image_uris.retrieve(
            "huggingface", region=region, instance_type=instance, image_scope="training", **older
        )
        return f"{address.split(':')[0]}:{IMAGE_TAG}"
    except (KeyError, ValueError) as error:
        if "processor" in str(error):
            raise UserError(
                f"{instance} is a machine without a GPU, and the training image wants one: "
                f"take one of {', '.join(PRICES)}"
            ) from error
        if "region" in str(error).lower():
            raise UserError(
                f"the training image is not in region {region}: launch in another, e.g. us-east-1"
            ) from error
        raise UserError(f"no training image for {instance} in {region}: {error}") from error


def sdk_session(region: str, bucket: str | None, boto_session):
    """The SDK's session: an explicit bucket, and telemetry off unless KD_TELEMETRY=on asks for it."""
    from sagemaker.core.helper.session_helper import Session

    off = os.environ.get("KD_TELEMETRY", "off") != "on"
    config = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": off}}}}
    return Session(boto_session=boto_session, default_bucket=bucket, sagemaker_config=config)


def build_trainer(plan: JobPlan, session, code: Path):
    """The SDK's ModelTrainer for a plan, and its input channels. Role and bucket have to be there."""
    from sagemaker.core.training.configs import (
        CheckpointConfig,
        Compute,
        InputData,
        MetricDefinition,
        SourceCode,
        StoppingCondition,
        Tag,
    )
    from sagemaker.train import ModelTrainer
    from sagemaker.train.distributed import Torchrun

    inputs = channels(plan)
    wait = {} if plan.max_wait_minutes is None else {"max_wait_time_in_seconds": 60 * plan.max_wait_minutes}
    trainer = ModelTrainer(
        sagemaker_session=session,
        role=plan.role,
        base_job_name=plan.name,
        training_image=training_image(plan.region, plan.instance),
        source_code=SourceCode(source_dir=str(code), entry_script="container.py"),
        distributed=Torchrun(process_count_per_node=plan.processes) if plan.processes > 1 else None,
        compute=Compute(instance_type=plan.instance, instance_count=1, enable_managed_spot_training=plan.spot),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=60 * plan.max_minutes, **wait),
        checkpoint_config=CheckpointConfig(local_path=CHECKPOINTS),
        hyperparameters=container_hyperparameters(plan, inputs),
        tags=[Tag(key=key, value=value) for key, value in all_tags(plan).items()],
    )
    trainer.with_metric_definitions([MetricDefinition(name=name, regex=regex) for name, regex in METRICS.items()])
    return trainer, [InputData(channel_name=name, data_source=str(path)) for name, path in inputs.items()]


def forget_clients() -> None:
    """Make the SDK drop the AWS client that it keeps: SDK 3.7 would sign a launch with a check's empty credentials."""
    from sagemaker.core.utils.utils import SageMakerClient

    if hasattr(SageMakerClient, "reset"):
        SageMakerClient.reset()
    else:
        type(SageMakerClient)._instances.pop(SageMakerClient, None)


@contextlib.contextmanager
def quiet_sdk() -> Iterator[None]:
    """Work with the SDK: its commentary kept off the screen, no question to IAM about the role, no client kept.

    Its questions to IAM need rights that a launch does not, and raise false alarms (sagemaker-python-sdk#6019). It
    also holds `sdk_session`'s constant settings against a large JSON schema, eleven times a request and over a second
    in all: left out.
    """
    level = logging.root.manager.disable
    forget_clients()
    logging.disable(logging.WARNING)
    try:
        with mock.patch.dict(os.environ, {"SAGEMAKER_VALIDATE_ROLE": "false"}), mock.patch("jsonschema.validate"):
            yield
    finally:
        logging.disable(level)
        forget_clients()


class _CapturedError(Exception):
    """Carries a CreateTrainingJob request out of the SDK before it is sent."""

    def __init__(self, request: dict):
        super().__init__("captured")
        self.request = request


def training_request(plan: JobPlan) -> dict:
    """The CreateTrainingJob request that the SDK would send for this plan: no credentials, no network, no upload.

    Role and bucket that are still open are stood in for. Raises UserError for what cannot become a request.
    """
    require_sdk()
    import boto3
    import botocore.client

    def answer(client, operation, parameters):
        if operation == "CreateTrainingJob":
            raise _CapturedError(parameters)
        return {"Buckets": [{"Name": plan.bucket, "CreationDate": True}]} if operation == "ListBuckets" else {}

    def upload_nothing(session, path, bucket=None, key_prefix="data", **options):
        return f"s3://{bucket}/{key_prefix}"

    plan = dataclasses.replace(
        plan,
        role=plan.role or "arn:aws:iam::123456789012:role/to-be-named",
        bucket=plan.bucket or f"sagemaker-{plan.region}-123456789012",
    )
    boto_session = boto3.Session("nobody", "nothing", region_name=plan.region)
    with quiet_sdk(), code_folder() as code, mock.patch.object(botocore.client.BaseClient, "_make_api_call", answer):
        session = sdk_session(plan.region, plan.bucket, boto_session)
        session.upload_data = upload_nothing.__get__(session)
        trainer, inputs = build_trainer(plan, session, code)
        try:
            trainer.train(input_data_config=inputs, wait=False, logs=False)
        except _CapturedError as captured:
            return captured.request
    raise RuntimeError("the SDK made no CreateTrainingJob request")


# --- checking -------------------------------------------------------------------------------------------------


def _shape_problems(value, shape, where: str) -> Iterator[str]:
    """Compare a value with botocore's model of it: kinds, enumerations, patterns, lengths; a sentence for each."""
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                yield f"{where} lacks {name}"
        for name, part in value.items():
            if name not in shape.members:
                yield f"{where} has {name}, which AWS does not know"
            else:
                yield from _shape_problems(part, shape.members[name], f"{where}.{name}")
        return
    size, unit = (len(value), " long") if shape.type_name in ("list", "map", "string") else (value, "")
    limits = shape.metadata
    if "max" in limits and size > limits["max"]:
        yield f"{where} is {size}{unit}, {limits['max']} is the most"
    elif "min" in limits and size < limits["min"]:
        yield f"{where} is {size}{unit}, {limits['min']} is the least"
    elif shape.type_name == "list":
        for index, part in enumerate(value):
            yield from _shape_problems(part, shape.member, f"{where}[{index}]")
    elif shape.type_name == "map":
        for name, part in value.items():
            yield from _shape_problems(name, shape.key, f"{where} name")
            yield from _shape_problems(part, shape.value, f"{where}[{name}]")
    elif shape.type_name == "string":
        if getattr(shape, "enum", None) and value not in shape.enum:
            near = difflib.get_close_matches(value, shape.enum, n=1)
            yield f"{where} is {value!r}, which does not exist" + (f": did you mean {near[0]}?" if near else "")
        pattern = limits.get("pattern")
        if pattern and "\\p{" not in pattern and not re.fullmatch(pattern, value, flags=re.DOTALL):
            yield f"{where} is {value!r}, which does not have the form {pattern}"


def request_problems(request: dict) -> list[str]:
    """What AWS would refuse in a CreateTrainingJob request, a sentence each: its own service model, and spot rules."""
    import botocore.session

    model = botocore.session.get_session().get_service_model("sagemaker")
    problems = list(_shape_problems(request, model.operation_model("CreateTrainingJob").input_shape, "the request"))
    stop = request.get("StoppingCondition", {})
    wait, run = stop.get("MaxWaitTimeInSeconds"), stop.get("MaxRuntimeInSeconds", 86_400)
    if not request.get("EnableManagedSpotTraining"):
        if wait is not None:
            problems.append("a maximum waiting time goes with spot only: add --spot, or leave out --max-wait-minutes")
    elif wait is None:
        problems.append("a spot job needs --max-wait-minutes, which bounds waiting and training together")
    elif wait < run:
        problems.append(f"the maximum waiting time ({wait} s) is shorter than the maximum run time ({run} s)")
    return problems


def check(plan: JobPlan) -> dict:
    """Refuse what AWS, or the training script, would refuse later; gives back the request.

    Raises UserError with one sentence; where there are several faults, all of them in it.
    """
    require_sdk()
    problems = hyperparameter_problems(plan.hyperparameters) + tag_problems(plan.tags)
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,47}", plan.name):
        problems.append(
            f"the job's name {plan.name!r} may have letters, digits and hyphens, 48 at most: the time is added to it"
        )
    if plan.processes < 1:
        problems.append(f"{plan.processes} processes: at least 1, one a GPU")
    if plan.role is not None and not re.fullmatch(ROLE_ARN, plan.role):
        problems.append(f"the role {plan.role!r} is no ARN such as arn:aws:iam::123456789012:role/NAME")
    request: dict = {}
    if not problems:
        request = training_request(plan)
        problems = [problem.replace("the request.", "") for problem in request_problems(request)]
    if problems:
        raise UserError("; also: ".join(problems))
    return request


# --- time and money -------------------------------------------------------------------------------------------


def training_speed(instance: str) -> float:
    """Operations a second: what the recorded ladder's distilled student took on a core, times the instance's factor.

    A training step takes 6 operations a parameter and word piece (Kaplan et al. 2020, table 1), a forward pass 2.
    """
    runs = ladder.recorded()
    runs = runs[runs.rung == "+ logits on all texts"]
    _, _, pieces, _, student = WORK["movie-snippets"]
    operations = 6 * student * pieces * MOVIE_SNIPPETS.batch_size * runs.steps.sum()
    return TIMES_THE_LADDER[instance] * operations / runs.seconds.sum()


def training_minutes(plan: JobPlan) -> float | None:
    """Minutes of work once the machine is up; None where the recipe's or the machine's numbers are not known."""
    settings = run_settings(plan)
    recipe = settings.recipe
    if recipe.name not in WORK or plan.instance not in TIMES_THE_LADDER:
        return None
    rows, labelled, pieces, teacher, student = WORK[recipe.name]
    row_passes = 6 * student * recipe.epochs * rows * (2 if settings.control else 1) + 2 * teacher * rows
    if recipe.teacher == models.EMBEDDED_BACKBONE:
        row_passes += 6 * teacher * recipe.teacher_epochs * labelled
    return pieces * row_passes / training_speed(plan.instance) / 60


def expected_minutes(plan: JobPlan) -> float | None:
    """Minutes that are billed, start-up counted; None where they are not known."""
    minutes = training_minutes(plan)
    return None if minutes is None else START_UP_MINUTES + minutes


def hourly_price(plan: JobPlan) -> float | None:
    """USD an hour: the plan's own price, else the table's, else None."""
    return plan.price if plan.price is not None else PRICES.get(plan.instance)


def most_expensive(plan: JobPlan) -> float | None:
    """USD that the job can cost at most: the time limit at the full price (spot is cheaper, never dearer)."""
    price = hourly_price(plan)
    return None if price is None else price * plan.max_minutes / 60


def rounded_up(dollars: float) -> float:
    """To the next full cent: a limit must not be understated."""
    return math.ceil(round(100 * dollars, 6)) / 100


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def plan_lines(plan: JobPlan) -> list[str]:
    """The plan, for the reader to look at before anything happens."""
    price, minutes, most = hourly_price(plan), expected_minutes(plan), most_expensive(plan)
    kind = f"spot, {plan.max_wait_minutes} minutes at most with waiting" if plan.spot else "on demand"
    processes = f", {plan.processes} processes under torchrun" if plan.processes > 1 else ""
    inputs = channels(plan)
    uploads = [f"{name} {megabytes(size_of(path))}" for name, path in inputs.items() if isinstance(path, Path)]
    there = [f"; {name} stays at {path}" for name, path in inputs.items() if isinstance(path, str)]
    bucket = plan.bucket or "your SageMaker bucket"
    if minutes is None:
        time = "not known for these models or this machine; the limit bounds it"
    else:
        time = (
            f"about {math.ceil(minutes)} minutes: {START_UP_MINUTES} to start up, the rest from the recorded ladder, "
            f"{TIMES_THE_LADDER[plan.instance]} times as fast here by our guess"
        )
    if price is None:
        cost = f"the price of {plan.instance} is not in the table: give --price"
    else:
        usual = "" if minutes is None else f"about {price * minutes / 60:.2f} USD, "
        source = "your price" if plan.price is not None else f"price of {PRICES_OF}; look yours up, give --price"
        cost = (
            f"{usual}at most {rounded_up(most):.2f} USD ({plan.max_minutes} minutes at {price:.2f} an hour: {source})"
        )
    return [
        f"job       {plan.name}-(time), in {plan.region}, role {plan.role or '(named at launch)'}",
        f"image     {training_image(plan.region, plan.instance).split('/')[-1]}",
        f"machine   1 x {plan.instance}, {kind}{processes}, stopped after {plan.max_minutes} minutes",
        f"runs      distill {' '.join(as_argv(plan.hyperparameters))}".rstrip(),
        f"uploads   {', '.join(['the code', *uploads])}, to {bucket}{''.join(there)}",
        f"tags      {', '.join(f'{name}={value}' for name, value in all_tags(plan).items())}",
        f"time      {time}",
        f"cost      {cost}",
    ]
