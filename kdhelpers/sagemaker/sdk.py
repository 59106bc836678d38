"""SageMaker's SDK (v3) at work on a plan: images, session, trainer, and the request that it would send.

It is imported inside functions: that takes seconds, and not everybody has it.
"""

import contextlib
import difflib
import importlib.util
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from kdhelpers.errors import UserError
from kdhelpers.sagemaker.plan import CHECKPOINTS, PRICES, JobPlan, channels, container_hyperparameters, plan_problems

# Which images we mean, and by which older sister SDK 3.7, which does not know them yet, finds their registry.
TRAINING_TAG = "2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04"
INFERENCE_VERSION = "5.5.3"
OLDER = {"training": ("4.56.2", "pytorch2.8.0"), "inference": ("4.51.3", "pytorch2.6.0")}

# The job's log lines that SageMaker turns into curves.
METRICS = {
    f"{name}:{metric}": rf"{name}: step .* {metric.replace('_', ' ')} (-?[0-9.]+)"
    for name in ("control", "student")
    for metric in ("validation_accuracy", "validation_micro_F1", "validation_RMSE", "training_loss")
}

# The five kinds of no that are worth a sentence of ours: what to do, and how AWS and its library say it.
SAYINGS = {
    "no valid AWS credentials here: run aws configure or aws sso login, or check AWS_PROFILE":
        r"Credentials|ProfileNotFound|Config\w*Error|SSO|TokenRetrieval|LoginRefresh|Expired|UnrecognizedClient"
        r"|InvalidClientTokenId|InvalidAccessKeyId|SignatureDoesNotMatch",
    "AWS does not allow this: ask whoever runs the account to allow it for you or for the job's role":
        r"AccessDenied|Unauthorized|^403",
    "your quota is used up: ask for more under Service Quotas, Amazon SageMaker, or take another --instance":
        r"ResourceLimitExceeded",
    "the bucket is missing, or in another region than the job: check --bucket and --region":
        r"^(301|404|NoSuchBucket|PermanentRedirect|IllegalLocation|AuthorizationHeader)|bucket is in this region",
    "AWS has no such machine free at the moment: try later, another --instance, or another --region":
        r"[Cc]apacity",
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


def require_sdk() -> None:
    """Raise UserError unless version 3 of the SDK is installed."""
    if importlib.util.find_spec("sagemaker") is None or importlib.util.find_spec("sagemaker.train") is None:
        raise UserError("version 3 of the SageMaker SDK is missing: pip install sagemaker==3.27.0")


def image_address(scope: str, region: str, instance: str) -> str:
    """The address of the Hugging Face image for "training" or "inference". Raises UserError where there is none."""
    from sagemaker.core import image_uris

    version, torch = OLDER[scope]
    kind = {"image_scope": scope, "version": version, "base_framework_version": torch, "py_version": "py312"}
    try:
        address = image_uris.retrieve("huggingface", region=region, instance_type=instance, **kind)
    except (KeyError, ValueError) as error:
        hint = f"a machine with a GPU ({', '.join(PRICES)})" if scope == "training" else "ml.m5.large"
        raise UserError(f"no {scope} image for {instance} in {region}: take {hint}, or region us-east-1") from error
    if scope == "training":
        return f"{address.split(':')[0]}:{TRAINING_TAG}"
    return address.replace(version, INFERENCE_VERSION)


def sdk_session(boto_session: Any, bucket: str | None) -> Any:
    """The SDK's session: an explicit bucket, and telemetry off unless KD_TELEMETRY=on asks for it."""
    from sagemaker.core.helper.session_helper import Session

    off = os.environ.get("KD_TELEMETRY", "off") != "on"
    config = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": off}}}}
    return Session(boto_session=boto_session, default_bucket=bucket, sagemaker_config=config)


def build_trainer(plan: JobPlan, session: Any, code: Path) -> tuple[Any, list]:
    """The SDK's ModelTrainer for a plan, and its input channels. Role and bucket have to be there."""
    from sagemaker.core.training import configs
    from sagemaker.train import ModelTrainer
    from sagemaker.train.distributed import Torchrun

    count, wait = plan.process_count, {}
    if plan.max_wait_minutes is not None:
        wait = {"max_wait_time_in_seconds": 60 * plan.max_wait_minutes}
    machine = {"instance_type": plan.instance, "instance_count": 1, "enable_managed_spot_training": plan.spot}
    trainer = ModelTrainer(
        sagemaker_session=session,
        role=plan.role,
        base_job_name=plan.name,
        training_image=image_address("training", plan.region, plan.instance),
        source_code=configs.SourceCode(source_dir=str(code), entry_script="container.py"),
        distributed=Torchrun(process_count_per_node=count) if count > 1 else None,
        compute=configs.Compute(**machine),
        stopping_condition=configs.StoppingCondition(max_runtime_in_seconds=60 * plan.max_minutes, **wait),
        checkpoint_config=configs.CheckpointConfig(local_path=CHECKPOINTS),
        hyperparameters=container_hyperparameters(plan),
        tags=[configs.Tag(key=key, value=value) for key, value in plan.all_tags.items()],
    )
    trainer.with_metric_definitions([configs.MetricDefinition(name=name, regex=METRICS[name]) for name in METRICS])
    inputs = [configs.InputData(channel_name=name, data_source=str(path)) for name, path in channels(plan).items()]
    return trainer, inputs


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
def training_request(plan: JobPlan, upload: Callable[[Path, str], object] = lambda path, channel: None) -> dict:
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
        upload(Path(path), key_prefix.split("/")[-1])
        return f"s3://{bucket}/{key_prefix}" + (f"/{Path(path).name}" if Path(path).is_file() else "")

    role = plan.role or "arn:aws:iam::123456789012:role/to-be-named"
    plan = replace(plan, role=role, bucket=plan.bucket or f"sagemaker-{plan.region}-123456789012")
    with quiet_sdk(), code_folder() as code, mock.patch.object(botocore.client.BaseClient, "_make_api_call", answer):
        session = sdk_session(boto3.Session("nobody", "nothing", region_name=plan.region), plan.bucket)
        session._default_bucket, session.upload_data = plan.bucket, catch_upload
        trainer, inputs = build_trainer(plan, session, code)
        try:
            trainer.train(input_data_config=inputs, wait=False, logs=False)
        except _CaughtError as caught:
            return caught.args[0]
    raise RuntimeError("the SDK made no CreateTrainingJob request")


def check(plan: JobPlan) -> dict:
    """Refuse what AWS, or the training script, would refuse later; returns the request. Needs no AWS account.

    The request is held against botocore's own model of it. Raises UserError with one sentence; where there are
    several faults, all of them in it.
    """
    require_sdk()
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model("sagemaker")
    instances = model.shape_for("TrainingInstanceType").enum
    problems = plan_problems(plan)
    if plan.instance not in instances:
        near = difflib.get_close_matches(plan.instance, instances, n=1)
        problems.append(f"there is no machine {plan.instance}" + (f": did you mean {near[0]}?" if near else ""))
    if problems:
        raise UserError("; also: ".join(problems))
    request = training_request(plan)
    report = ParamValidator().validate(request, model.operation_model("CreateTrainingJob").input_shape)
    if report.has_errors():
        raise UserError(f"AWS would refuse this request: {' '.join(report.generate_report().split())}")
    return request
