"""On AWS itself: launch a planned job, follow it, bring the student home, ask it behind an endpoint, clean up.

Whatever AWS says no to becomes one sentence that says what to do (`aws_errors`).
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from kdhelpers.errors import UserError
from kdhelpers.sagemaker_job import (
    PROJECT_TAG,
    JobPlan,
    all_tags,
    build_trainer,
    check,
    code_folder,
    hourly_price,
    quiet_sdk,
    require_sdk,
    sdk_session,
)

RUNNING = ("InProgress", "Stopping")
LAST_WORDS = 3  # lines of a failed script: of a traceback the place, the statement and the error
# How S3 says that a bucket is in another region, depending on what was asked of it.
ELSEWHERE = ("301", "PermanentRedirect", "IllegalLocationConstraintException", "AuthorizationHeaderMalformed")


# --- errors in one sentence -----------------------------------------------------------------------------------


def _quota(message: str) -> str:
    name = re.search(r"service limit '([^']+)' is ([\d.]+)", message)
    which = f"your quota '{name[1]}' is {name[2]}" if name else "a quota of your account is used up"
    return f"{which}: ask for more under Service Quotas, Amazon SageMaker, or take another machine with --instance"


def explain(code: str, message: str) -> str:
    """One sentence for an AWS error code and its message: what is wrong, and what to do."""
    message = " ".join(message.split())
    elsewhere = re.search(r"in this region: ([\w-]+)", message)
    if elsewhere or code in ELSEWHERE:
        where = f" ({elsewhere[1]})" if elsewhere else ""
        return f"the bucket is in another region{where} than the job: give --region or --bucket so that they agree"
    if code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired"):
        return "your AWS token has expired: log in again (aws sso login, or new keys)"
    if code in ("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidAccessKeyId"):
        return "AWS does not know these keys: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or aws configure"
    if code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"):
        what = re.search(r"perform: ([\w:]+)", message)
        action = f" ({what[1]})" if what else ""
        return (
            f"AWS does not allow this{action}: ask whoever runs the account to allow it for you or for the job's role"
        )
    if code == "ResourceLimitExceeded":
        return _quota(message)
    if "capacity" in f"{code} {message}".lower():
        return "AWS has no such machine free at the moment: try later, another --instance, or another --region"
    if "image" in message.lower() and re.search(r"not exist|not found|cannot find", message, re.IGNORECASE):
        return "the container image is not in this region: launch in another, e.g. --region us-east-1"
    if "could not find" in message.lower() or code in ("ResourceNotFound", "NoSuchBucket", "NoSuchKey", "404"):
        return f"AWS cannot find it ({message.rstrip('.')}): check the name and --region"
    return f"AWS says {code}: {message}"


@contextlib.contextmanager
def aws_errors() -> Iterator[None]:
    """Turn what boto3 raises into UserError with one sentence."""
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions

    try:
        yield
    except S3UploadFailedError as error:  # boto3 wraps what S3 says no to in an exception of its own
        said = getattr(error.__context__, "response", {}).get("Error", {})
        raise UserError(explain(said.get("Code", "the upload failed"), said.get("Message", str(error)))) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise UserError(
            "no AWS credentials here: run aws configure or aws sso login; a rehearsal needs none"
        ) from error
    except exceptions.ProfileNotFound as error:
        raise UserError(f"{error}: check AWS_PROFILE") from error
    except (
        exceptions.UnauthorizedSSOTokenError,
        exceptions.TokenRetrievalError,
        exceptions.SSOTokenLoadError,
    ) as error:
        raise UserError(explain("ExpiredToken", "")) from error
    except exceptions.NoRegionError as error:
        raise UserError("no AWS region is set: give --region") from error
    except exceptions.ClientError as error:
        details = error.response.get("Error", {})
        raise UserError(explain(details.get("Code", "an error"), details.get("Message", ""))) from error
    except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError) as error:
        raise UserError(f"AWS cannot be reached: check the network and the region ({error})") from error
    except exceptions.BotoCoreError as error:
        raise UserError(explain(type(error).__name__, str(error))) from error


def ending(job: dict) -> str | None:
    """Why a job ended badly, in one sentence; None while it runs and after a good end.

    `job`: what DescribeTrainingJob says. The script's own last words come with it where it left some.
    """
    status, reason = job["TrainingJobStatus"], job.get("FailureReason", "")
    if job.get("SecondaryStatus") == "MaxRuntimeExceeded":
        limit = job["StoppingCondition"]["MaxRuntimeInSeconds"] // 60
        return f"the job was stopped by its time limit of {limit} minutes: give --max-minutes more"
    if job.get("SecondaryStatus") == "MaxWaitTimeExceeded":
        return "no spot machine came within the waiting time: give --max-wait-minutes more, or leave out --spot"
    if status == "Stopped":
        return "the job was stopped by hand"
    if status != "Failed":
        return None
    if reason.startswith("CapacityError"):
        return explain("CapacityError", reason)
    said = reason.split("ErrorMessage", 1)[-1].strip(' ":\n') or "it left no message"
    last = " | ".join(line.strip() for line in said.splitlines()[-LAST_WORDS:])
    return f"the job failed, and its script said: {last} (all of it: CloudWatch, TrainingJobs)"


# --- launching ------------------------------------------------------------------------------------------------


def boto_session(region: str | None):
    """The reader's own AWS session."""
    import boto3

    return boto3.Session(region_name=region)


def find_region(given: str | None = None) -> str:
    """The region that was given, else that of the reader's configuration or of Studio, else us-east-1."""
    return given or boto_session(None).region_name or JobPlan().region


def find_role(plan: JobPlan, session) -> str:
    """The role that the job runs as: the plan's, $KD_ROLE_ARN, or Studio's. Raises UserError where there is none."""
    if plan.role or os.environ.get("KD_ROLE_ARN"):
        return plan.role or os.environ["KD_ROLE_ARN"]
    from sagemaker.core.helper.session_helper import get_execution_role

    try:
        return get_execution_role(sagemaker_session=session)
    except ValueError as error:
        raise UserError(
            "the job needs a role, and you are a user: give --role or set KD_ROLE_ARN to the ARN of a role "
            "that SageMaker may assume"
        ) from error


def located(plan: JobPlan) -> tuple[JobPlan, object]:
    """The plan with role and bucket filled in from the account, and the SDK's session. Asks AWS for both."""
    require_sdk()
    with quiet_sdk():
        session = sdk_session(plan.region, plan.bucket, boto_session(plan.region))
        role = find_role(plan, session)
        if plan.bucket:  # the SDK would make one for a misspelt name, and upload to another region without a word
            found = session.boto_session.client("s3").head_bucket(Bucket=plan.bucket)
            where = found["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", plan.region)
            if where != plan.region:
                raise UserError(explain("", f"in this region: {where}"))
        return dataclasses.replace(plan, role=role, bucket=session.default_bucket()), session


def launch(plan: JobPlan) -> str:
    """Upload and start the job; gives back its name at once. From here on it costs money. Raises UserError."""
    check(plan)
    with aws_errors():
        plan, session = located(plan)
        check(plan)  # once more, with the role that was found
        with quiet_sdk(), code_folder() as code:
            from kdhelpers.sagemaker_rehearse import recorded

            trainer, inputs = build_trainer(plan, session, code)
            with recorded("CreateTrainingJob") as requests:
                trainer.train(input_data_config=inputs, wait=False, logs=False)
    return requests[0]["TrainingJobName"]


# --- following ------------------------------------------------------------------------------------------------


def describe(job: str, region: str | None = None) -> dict:
    """What AWS knows of a job. Raises UserError."""
    with aws_errors():
        return boto_session(region).client("sagemaker").describe_training_job(TrainingJobName=job)


def status_lines(job: dict, price: float | None = None) -> list[str]:
    """A job's state, metrics, time and cost, from what DescribeTrainingJob says. `price`: USD an hour."""
    lines = [f"{job['TrainingJobName']}: {job['TrainingJobStatus']}, {job.get('SecondaryStatus', '')}"]
    lines += [f"  {metric['MetricName']} {metric['Value']:.4g}" for metric in job.get("FinalMetricDataList", [])]
    trained, billed = job.get("TrainingTimeInSeconds"), job.get("BillableTimeInSeconds")
    if billed is not None:
        if price is None:
            plan = JobPlan(instance=job["ResourceConfig"].get("InstanceType", ""))
            price = hourly_price(plan)
        cost = "" if price is None else f", about {price * billed / 3600:.2f} USD"
        saved = f", spot saved {1 - billed / trained:.0%}" if job.get("EnableManagedSpotTraining") and trained else ""
        lines.append(f"  {billed / 60:.1f} minutes billed{cost}{saved}")
    reason = ending(job)
    return [*lines, f"  {reason}"] if reason else lines


def follow(job: str, region: str | None = None, pause: float = 30, say: Callable[[str], None] = print) -> dict:
    """Wait until a job ends, with one line whenever its state changes; gives back its description.

    Raises UserError where it ended badly. Stopping this (Ctrl-C) does not stop the job.
    """
    state = None
    while True:
        found = describe(job, region)
        now = (found["TrainingJobStatus"], found.get("SecondaryStatus", ""))
        if now != state:
            say(f"{time.strftime('%H:%M')} {now[0]}, {now[1]}")
            state = now
        if now[0] not in RUNNING:
            break
        time.sleep(pause)
    reason = ending(found)
    if reason:
        raise UserError(reason)
    return found


def require_empty(folder: str | Path) -> None:
    """Raise UserError where the folder holds something: what a job made is not mixed with anything else."""
    if Path(folder).exists() and (not Path(folder).is_dir() or any(Path(folder).iterdir())):
        raise UserError(f"the folder {folder} is not empty: choose another --output")


def bring_home(job: dict, folder: Path, region: str | None = None) -> Path:
    """Download and unpack a finished job's model.tar.gz: metrics.json, predictions.csv, student/; gives the folder."""
    require_empty(folder)
    bucket, _, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    with tempfile.TemporaryDirectory() as download, aws_errors():
        archive = Path(download, "model.tar.gz")
        boto_session(region).client("s3").download_file(bucket, key, str(archive))
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return Path(folder)


# --- an endpoint, for as long as it is needed -----------------------------------------------------------------


def inference_image(region: str, instance: str) -> str:
    """The address of the inference image with transformers 5.5.3; SDK 3.7 knows only its older sister by name."""
    from sagemaker.core import image_uris

    older = {"version": "4.51.3", "py_version": "py312", "base_framework_version": "pytorch2.6.0"}
    try:
        address = image_uris.retrieve(
            "huggingface", region=region, instance_type=instance, image_scope="inference", **older
        )
    except (KeyError, ValueError) as error:
        raise UserError(f"no inference image for {instance} in {region}: try ml.m5.large, or us-east-1") from error
    return address.replace("4.51.3", "5.5.3")


def pack(model: Path, archive: Path) -> Path:
    """A run's folder, or an exported student's, as the archive that an endpoint unpacks.

    A run gives student/, an export its ONNX file and what reads it; beside them lies code/inference.py. The container
    has no onnxruntime: its start script installs what code/requirements.txt names, so that an exported student's
    endpoint needs the network that SageMaker gives it by default. Raises UserError for any other folder.
    """
    model, code = Path(model), {"code/inference.py": Path(__file__).with_name("inference.py")}
    if (model / "student" / "config.json").is_file():
        files = {"student": model / "student"}
    elif (model / "export.json").is_file():
        files = {name: model / name for name in ("model.onnx", "tokenizer.json", "export.json")}
        code["code/predict.py"] = model / "predict.py"
    else:
        raise UserError(f"{model} holds no student: name the output folder of a run, or of an export")
    with tarfile.open(archive, "w:gz") as tar:
        for name, path in (files | code).items():
            tar.add(path, name)
        if "student" not in files:
            needs = f"onnxruntime=={metadata.version('onnxruntime')}\n".encode()  # the one that checked the export
            entry = tarfile.TarInfo("code/requirements.txt")
            entry.size = len(needs)
            tar.addfile(entry, io.BytesIO(needs))
    return archive


def _delete(client, kind: str, name: str) -> str | None:
    """Stop a job, or delete anything else; gives back why it could not be done, None where it is gone."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if kind == "training_job":
            client.stop_training_job(TrainingJobName=name)
        else:
            key = "".join(part.capitalize() for part in kind.split("_")) + "Name"
            getattr(client, f"delete_{kind}")(**{key: name})
    except (ClientError, BotoCoreError) as error:
        return None if "ould not find" in str(error) else f"{kind} {name} ({error})"
    return None


def _require_gone(left: list[str | None]) -> None:
    """Raise UserError with what could not be deleted, if there is anything."""
    left = [problem for problem in left if problem]
    if left:
        raise UserError(
            f"not deleted, and perhaps costing money: {'; '.join(left)}: mend it, then "
            "python -m kdhelpers sagemaker clean --yes"
        )


def delete_endpoint(client, name: str) -> None:
    """Delete endpoint, configuration and model of this name, each whether or not the others are there.

    Deleting an endpoint alone leaves the other two behind. Raises UserError for what could not be deleted.
    """
    _require_gone([_delete(client, kind, name) for kind in ("endpoint", "endpoint_config", "model")])


@contextlib.contextmanager
def endpoint(model: Path, plan: JobPlan, instance: str = "ml.m5.large") -> Iterator[Callable[[list[str]], list[dict]]]:
    """Deploy the student of a run's or an export's folder (see `pack`); gives a function from texts to answers.

    At the end of the `with` block endpoint, configuration and model are deleted, also when the block fails and when
    the endpoint never came up. It costs money from the moment it is in service, asked or not.
    """
    from botocore.exceptions import WaiterError

    with aws_errors():
        plan, session = located(plan)
        client = session.boto_session.client("sagemaker")
        runtime = session.boto_session.client("sagemaker-runtime")
        name = f"{plan.name}-{time.strftime('%Y%m%d%H%M%S')}"
        tags = [{"Key": key, "Value": value} for key, value in all_tags(plan).items()]
        image = inference_image(plan.region, instance)
        with tempfile.TemporaryDirectory() as folder:
            archive = pack(model, Path(folder, "model.tar.gz"))
            key = f"{plan.name}/{name}/model.tar.gz"
            session.boto_session.client("s3").upload_file(str(archive), plan.bucket, key)

        def ask(texts: list[str]) -> list[dict]:
            body = json.dumps({"inputs": texts})
            answer = runtime.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=body)
            return json.loads(answer["Body"].read())

        try:
            client.create_model(
                ModelName=name, ExecutionRoleArn=plan.role, Tags=tags,
                PrimaryContainer={"Image": image, "ModelDataUrl": f"s3://{plan.bucket}/{key}"},
            )  # fmt: skip
            variant = {"VariantName": "all", "ModelName": name, "InstanceType": instance, "InitialInstanceCount": 1}
            client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
            client.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tags)
            try:
                client.get_waiter("endpoint_in_service").wait(EndpointName=name)
            except WaiterError as error:
                reason = client.describe_endpoint(EndpointName=name).get("FailureReason", str(error))
                raise UserError(explain("that the endpoint did not come into service", reason)) from error
            yield ask
        finally:
            delete_endpoint(client, name)


def latency(ask: Callable[[list[str]], object], texts: list[str]) -> tuple[float, float]:
    """Milliseconds that a request of one text takes, median and 95th percentile, after one to warm up."""
    import numpy as np

    ask(texts[:1])
    took = []
    for text in texts:
        started = time.perf_counter()
        ask([text])
        took.append(1000 * (time.perf_counter() - started))
    return float(np.median(took)), float(np.percentile(took, 95))


# --- cleaning up ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leftover:
    """Something in the account that carries this project's tag. `kind`: training_job, endpoint, ..."""

    kind: str
    name: str


def leftovers(region: str | None = None) -> list[Leftover]:
    """Running jobs, endpoints, configurations and models with this project's tag."""
    kinds = (("training_job", "TrainingJob", {"StatusEquals": "InProgress"}), ("endpoint", "Endpoint", {}),
             ("endpoint_config", "EndpointConfig", {}), ("model", "Model", {}))  # fmt: skip
    found = []
    with aws_errors():
        client = boto_session(region).client("sagemaker")
        for kind, title, filters in kinds:
            for page in client.get_paginator(f"list_{kind}s").paginate(**filters):
                for item in next(value for key, value in page.items() if isinstance(value, list)):
                    tags = client.list_tags(ResourceArn=item[f"{title}Arn"])["Tags"]
                    if {"Key": PROJECT_TAG[0], "Value": PROJECT_TAG[1]} in tags:
                        found.append(Leftover(kind, item[f"{title}Name"]))
    return found


def clean(region: str | None = None) -> list[Leftover]:
    """Stop or delete all `leftovers`; gives them back. Archives in S3 stay.

    Raises UserError for what could not be deleted, after trying all the rest.
    """
    found = leftovers(region)
    with aws_errors():
        client = boto_session(region).client("sagemaker")
        _require_gone([_delete(client, item.kind, item.name) for item in found])
    return found
