"""SageMaker's SDK (v3) at work on a plan: images, session, trainer, and the request that it would send.

It is imported inside functions: that takes seconds, and not everybody has it.
"""

import contextlib
import difflib
import functools
import importlib.util
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from kdhelpers.errors import UserError, refuse
from kdhelpers.sagemaker.plan import JobPlan, channels, container_hyperparameters, downloads, gpus, plan_problems

# Which images we mean, and by which older sister SDK 3.7, which does not know them yet, finds their registry.
TRAINING_TAG = "2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04"
NEXT_TRAINING = ("5.13.1", "pytorch2.11.0")  # taken as soon as the SDK lists it for the region
INFERENCE_VERSION = "5.5.3"
OLDER = {"training": ("4.56.2", "pytorch2.8.0"), "inference": ("4.51.3", "pytorch2.6.0")}

# The job's log lines that SageMaker turns into curves.
METRICS = {
    f"{name}:{metric}": rf"{name}: step .* {metric.replace('_', ' ')} (-?[0-9.]+)"
    for name in ("control", "student")
    for metric in ("validation_accuracy", "validation_micro_F1", "validation_RMSE", "training_loss")
}

# What MLflow's client on a job needs to reach SageMaker's tracking server.
MLFLOW_REQUIREMENTS = "mlflow>=3,<4\nsagemaker-mlflow>=0.2\n"

# The kinds of no that are worth a sentence of ours: what to do, and how AWS and its library say it. What hides its
# cause stands before what it looks like.
SAYINGS = {
    "SageMaker may not use the job's role: it has to trust sagemaker.amazonaws.com, as sagemaker rights says":
        r"[Cc]ould not assume role",
    "the job's role does not see the files: mostly it lacks s3:ListBucket on the bucket; sagemaker rights says more":
        r"No S3 objects found",
    "AWS does not allow this: ask whoever runs the account to allow it for you or for the job's role":
        r"^(AccessDenied|UnauthorizedOp|403)|not authorized to perform",
    "no valid AWS credentials here: run aws configure or aws sso login, or check AWS_PROFILE":
        r"Credentials|ProfileNotFound|Config\w*Error|SSO\w*Error|TokenRetrieval|LoginRefresh|Expired|UnrecognizedClient"
        r"|InvalidClientTokenId|InvalidAccessKeyId|SignatureDoesNotMatch|^Unauthorized",
    "your quota is used up: ask for more under Service Quotas, Amazon SageMaker, or take another --instance":
        r"ResourceLimitExceeded",
    "the bucket is missing, or in another region than the job: check --bucket and --region":
        r"^(301|404|NoSuchBucket|PermanentRedirect|IllegalLocation|AuthorizationHeader)|bucket is in this region",
    "AWS has no such machine free at the moment: try later, another --instance, or another --region":
        r"[Cc]apacity",
    "nothing of this name is there: check the name and --region": r"^Valid\w+: .*([Cc]ould not find|not found)",
    "AWS cannot be reached: check the network and --region": r"^(\w+Connection|\w+Timeout|SSL)Error",
    "AWS was asked too often: repeat the command in a while": r"^(Throttl|TooManyRequests|RequestLimit|SlowDown)",
}  # fmt: skip


def explain(code: str, message: str) -> str:
    """One sentence for an AWS error code and its message: for the usual five what to do, else what AWS says."""
    said = " ".join(f"{code}: {message}".split())
    for sentence, pattern in SAYINGS.items():
        if re.search(pattern, said):
            return f"{sentence} ({said})"
    return f"AWS says {said}"


@contextlib.contextmanager
def aws_errors() -> Iterator[None]:
    """Turn what boto3 raises into UserError with one sentence; also a decorator."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("botocore.", "boto3.")):
            raise
        # boto3 wraps what S3 says no to in an exception of its own
        answer = getattr(error, "response", None) or getattr(error.__context__, "response", {})
        said = {"Code": type(error).__name__, "Message": str(error)} | answer.get("Error", {})
        raise UserError(explain(said["Code"], said["Message"])) from error


@contextlib.contextmanager
def without_aws() -> Iterator[None]:
    """Work as if nobody had configured AWS here: botocore and boto3 would stop at a broken or missing profile."""
    empty = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    with mock.patch.dict(os.environ, empty):
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            os.environ.pop(name, None)
        yield


def require_sdk() -> None:
    """Raise UserError unless version 3 of the SDK is installed."""
    if importlib.util.find_spec("sagemaker") is None or importlib.util.find_spec("sagemaker.train") is None:
        raise UserError("version 3 of the SageMaker SDK is missing: pip install sagemaker==3.27.0")


def image_address(scope: str, region: str, instance: str) -> str:
    """The address of the Hugging Face image for "training" or "inference". Raises UserError where there is none."""
    from sagemaker.core import image_uris

    def look_up(version: str, torch: str) -> str:
        kind = {"image_scope": scope, "version": version, "base_framework_version": torch, "py_version": "py312"}
        return image_uris.retrieve("huggingface", region=region, instance_type=instance, **kind)

    if scope == "training":
        with contextlib.suppress(KeyError, ValueError):
            return look_up(*NEXT_TRAINING)
    version, torch = OLDER[scope]
    try:
        address = look_up(version, torch)
    except (KeyError, ValueError) as error:
        hint = "a machine with a GPU, such as ml.g5.xlarge" if scope == "training" else "ml.m5.large"
        elsewhere = "" if region == "us-east-1" else ", or region us-east-1"
        raise UserError(f"no {scope} image for {instance} in {region}: take {hint}{elsewhere}") from error
    if scope == "training":
        return f"{address.split(':')[0]}:{TRAINING_TAG}"
    return address.replace(version, INFERENCE_VERSION)


def sdk_session(boto_session: Any, bucket: str | None) -> Any:
    """The SDK's session, with an administrator's or the reader's own defaults for it, and with telemetry off.

    KD_TELEMETRY=on allows the SDK its telemetry. Raises UserError for defaults that cannot be read.
    """
    from sagemaker.core.config.config import load_sagemaker_config
    from sagemaker.core.helper.session_helper import Session

    try:
        config = load_sagemaker_config()
    except (ValueError, RuntimeError, OSError, yaml.YAMLError) as error:
        raise UserError(f"the SageMaker SDK's defaults cannot be read: {' '.join(str(error).split())}") from error
    config = {"SchemaVersion": "1.0", "SageMaker": {}} | (config or {})
    modules = config["SageMaker"].setdefault("PythonSDK", {}).setdefault("Modules", {})
    modules["TelemetryOptOut"] = os.environ.get("KD_TELEMETRY", "off") != "on"
    return Session(boto_session=boto_session, default_bucket=bucket, sagemaker_config=config)


def defaults(session: Any, section: str = "TrainingJob") -> dict:
    """What the SDK's defaults say of training jobs (or Model, EndpointConfig): role, network, keys, tags; or {}.

    The SDK looks some of them up without its session, and so in a file that is not there (sagemaker-python-sdk#5766):
    the plan fills them in.
    """
    return (session.sagemaker_config or {}).get("SageMaker", {}).get(section) or {}


def default_tags(session: Any) -> dict[str, str]:
    """The tags that an administrator wants on training jobs, and that we put on all that we make."""
    return {tag["Key"]: tag["Value"] for tag in defaults(session).get("Tags", [])}


def build_trainer(plan: JobPlan, session: Any, code: Path, fetch: bool = True) -> tuple[Any, list]:
    """The SDK's ModelTrainer for a plan, and its input channels (see `channels`). Role and bucket have to be there."""
    from sagemaker.core.training import configs
    from sagemaker.train import ModelTrainer
    from sagemaker.train.distributed import Torchrun

    count, wait = plan.process_count, {}
    if plan.max_wait_minutes is not None:
        wait = {"max_wait_time_in_seconds": 60 * plan.max_wait_minutes}
    source = {"source_dir": str(code), "entry_script": "container.py"}
    if plan.mlflow:
        Path(code, "requirements.txt").write_text(MLFLOW_REQUIREMENTS, encoding="utf-8")
        source["requirements"] = "requirements.txt"
    own, given = _from_the_account(plan, session), container_hyperparameters(plan)
    trainer = ModelTrainer(
        sagemaker_session=session,
        role=plan.role,
        base_job_name=f"{plan.name}-{secrets.token_hex(2)}",  # two of a workshop may launch in the same second
        training_image=image_address("training", plan.region, plan.instance),
        source_code=configs.SourceCode(**source),
        distributed=Torchrun(process_count_per_node=count) if count > 1 else None,
        compute=_compute(plan, own["key"]),
        networking=own["networking"],
        stopping_condition=configs.StoppingCondition(max_runtime_in_seconds=60 * plan.max_minutes, **wait),
        output_data_config=own["output"],
        checkpoint_config=configs.CheckpointConfig(local_path=given["checkpoints"]) if plan.keeps_checkpoints else None,
        environment=own["environment"],
        hyperparameters=given,
        tags=[configs.Tag(key=key, value=value) for key, value in own["tags"].items()],
    )
    trainer.with_metric_definitions([configs.MetricDefinition(name=name, regex=METRICS[name]) for name in METRICS])
    places = channels(plan, fetch)
    inputs = [configs.InputData(channel_name=name, data_source=str(path)) for name, path in places.items()]
    return trainer, inputs


def _compute(plan: JobPlan, key: str | None) -> Any:
    from sagemaker.core.training import configs

    return configs.Compute(
        instance_type=plan.instance,
        instance_count=plan.instances,
        volume_size_in_gb=plan.volume_gb,
        # AWS refuses a key for a disk of the machine's own, which all GPU machines of our table have
        volume_kms_key_id=key if gpus(plan.instance) is None else None,
        keep_alive_period_in_seconds=60 * plan.keep_alive_minutes or None,
        enable_managed_spot_training=plan.spot,
    )


def _from_the_account(plan: JobPlan, session: Any) -> dict[str, Any]:
    """Network, encryption, environment and tags: the plan's, else an administrator's defaults."""
    from sagemaker.core.training import configs

    theirs = defaults(session)
    place, output = plan.vpc or theirs.get("VpcConfig", {}), theirs.get("OutputDataConfig", {})
    network = {
        "subnets": place.get("Subnets"),
        "security_group_ids": place.get("SecurityGroupIds"),
        "enable_network_isolation": plan.network_isolation or theirs.get("EnableNetworkIsolation"),
    }
    result = {
        "kms_key_id": plan.kms_key or output.get("KmsKeyId"),
        "s3_output_path": output.get("S3OutputPath"),
    }
    return {
        "networking": configs.Networking(**network) if any(network.values()) else None,
        "output": configs.OutputDataConfig(**result) if any(result.values()) else None,
        "key": plan.kms_key or theirs.get("ResourceConfig", {}).get("VolumeKmsKeyId"),
        "environment": theirs.get("Environment", {}) | plan.all_environment,
        "tags": default_tags(session) | plan.all_tags,
    }


@contextlib.contextmanager
def code_folder() -> Iterator[Path]:
    """A folder with all the code that a job needs: this package, and `container.py` at its root."""
    package = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(package, Path(folder, "kdhelpers"), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(Path(__file__).with_name("container.py"), folder)
        yield Path(folder)


@contextlib.contextmanager
def quiet_sdk() -> Iterator[None]:
    """Work with the SDK: its commentary kept off the screen, no question to IAM about the role, no client kept.

    Its questions to IAM need rights that a launch does not, and raise false alarms (sagemaker-python-sdk#6019). SDK
    3.7 would sign a launch with the empty credentials of the check before it. And `sdk_session`'s settings would be
    held against a large JSON schema, over a second a request.
    """
    from sagemaker.core.utils.utils import SageMakerClient

    kept, level = type(SageMakerClient)._instances, logging.root.manager.disable
    kept.pop(SageMakerClient, None)
    logging.disable(logging.WARNING)
    try:
        with mock.patch.dict(os.environ, {"SAGEMAKER_VALIDATE_ROLE": "false"}), mock.patch("jsonschema.validate"):
            yield
    finally:
        logging.disable(level)
        kept.pop(SageMakerClient, None)


class _CaughtError(Exception):
    """Carries a CreateTrainingJob request out of the SDK before it is sent."""


@aws_errors()
def training_request(plan: JobPlan, upload: Callable[[Path, str], object] | None = None) -> dict:
    """The CreateTrainingJob request that the SDK would send for this plan: no credentials, no network.

    `upload` is called in the place of every upload, with a file or folder and its channel. Role and bucket that are
    still open are stood in for. Raises UserError for what cannot become a request.
    """
    require_sdk()
    import boto3
    import botocore.client

    def answer(client: Any, operation: str, parameters: dict) -> dict:
        if operation == "CreateTrainingJob":
            raise _CaughtError(parameters)
        return {}

    def catch_upload(path: str, bucket: str, key_prefix: str, **options: object) -> str:
        if upload:
            upload(Path(path), key_prefix.split("/")[-1])
        return f"s3://{bucket}/{key_prefix}" + (f"/{Path(path).name}" if Path(path).is_file() else "")

    caught = mock.patch.object(botocore.client.BaseClient, "_make_api_call", answer)
    with without_aws(), quiet_sdk(), code_folder() as code, caught:
        session = sdk_session(boto3.Session("nobody", "nothing", region_name=plan.region), plan.bucket)
        role = plan.role or defaults(session).get("RoleArn") or "arn:aws:iam::123456789012:role/to-be-named"
        bucket = session._default_bucket_name_override or f"sagemaker-{plan.region}-123456789012"
        plan = replace(plan, role=role, bucket=bucket)
        session._default_bucket, session.upload_data = plan.bucket, catch_upload
        trainer, inputs = build_trainer(plan, session, code, fetch=upload is not None)
        try:
            trainer.train(input_data_config=inputs, wait=False, logs=False)
        except _CaughtError as request:
            return request.args[0]
    raise RuntimeError("the SDK made no CreateTrainingJob request")


def beyond_limits(value: Any, shape: Any, where: str = "") -> Iterator[str]:
    """What of a value breaks AWS's description of it and botocore does not look at: maxima, patterns, names.

    `shape`: botocore's. Patterns in other classes of letters than Python's `re` knows are left out.
    """
    if shape.type_name == "structure":
        for name, part in value.items():
            yield from beyond_limits(part, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for part in value:
            yield from beyond_limits(part, shape.member, where)
    elif shape.type_name == "map":
        for name, part in value.items():
            yield from beyond_limits(name, shape.key, f"{where}.{name}")
            yield from beyond_limits(part, shape.value, f"{where}.{name}")
    size = value if shape.type_name in ("integer", "long") else len(value) if hasattr(value, "__len__") else 0
    most, pattern = shape.metadata.get("max"), shape.metadata.get("pattern", "\\p")
    if most is not None and size > most:
        yield f"{where[1:]}: {size}, and at most {most} is allowed"
    if shape.type_name == "string" and getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{where[1:]}: {value!r} is none of AWS's"
    if shape.type_name == "string" and "\\p" not in pattern and not re.fullmatch(pattern, value):
        yield f"{where[1:]}: {value!r} does not match {pattern}"


@functools.cache
def service_model() -> Any:
    """AWS's own description of SageMaker, as botocore has it."""
    import botocore.session

    with without_aws():
        return botocore.session.get_session().get_service_model("sagemaker")


def machine_problems(instance: str, use: str = "TrainingInstanceType") -> list[str]:
    """A sentence where AWS has no such machine for `use`, which is a name of AWS's; else none."""
    known = service_model().shape_for(use).enum
    spelt = f"ml.{instance.lower().removeprefix('ml.')}"
    near = [f": did you mean {name}?" for name in difflib.get_close_matches(spelt, known, n=1)]
    return [] if instance in known else [f"there is no machine {instance}{''.join(near)}"]


def check(plan: JobPlan) -> dict:
    """Refuse what AWS, or the training script, would refuse later; returns the request. Needs no AWS account.

    The request is held against AWS's own description of it: fields, kinds, lengths, limits, names and patterns. Raises
    UserError with one sentence; where there are several faults, all of them in it.
    """
    require_sdk()
    from botocore.validate import ParamValidator

    refuse(plan_problems(plan) + machine_problems(plan.instance))
    request = training_request(plan)
    shape = service_model().operation_model("CreateTrainingJob").input_shape
    report = ParamValidator().validate(request, shape)
    said = [report.generate_report()] if report.has_errors() else list(beyond_limits(request, shape))
    if said:
        raise UserError(f"AWS would refuse this request: {' '.join('; '.join(said).split())}")
    fetched = downloads(plan)
    if request.get("EnableNetworkIsolation") and fetched:
        raise UserError(
            f"the container gets no network, by --network-isolation or your SDK's defaults, and would have to fetch "
            f"{', '.join(fetched)}: download that first, and name the folder or file"
        )
    return request
