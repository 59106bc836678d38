"""On AWS itself: launch a planned job, follow it, bring the student home, ask it behind an endpoint, clean up."""

import contextlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdhelpers import models
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import sdk
from kdhelpers.sagemaker.plan import PROJECT_TAG, JobPlan
from kdhelpers.sagemaker.sdk import aws_errors, explain
from kdhelpers.storage import require_free, write_file

KINDS = {"training_job": "TrainingJob", "endpoint": "Endpoint", "endpoint_config": "EndpointConfig", "model": "Model"}
TOO_SHORT = {"MaxRuntimeExceeded": "--max-minutes", "MaxWaitTimeExceeded": "--max-wait-minutes"}


def boto_session(region: str | None) -> Any:
    """The reader's own AWS session."""
    import boto3

    return boto3.Session(region_name=region)


@aws_errors()
def find_region(given: str | None = None) -> str:
    """The region that was given, else that of the reader's configuration or of Studio, else us-east-1."""
    return given or boto_session(None).region_name or JobPlan().region


def find_role(plan: JobPlan, session: Any) -> str:
    """The role that the job runs as: the plan's, $KD_ROLE_ARN, or Studio's. Raises UserError where there is none."""
    from sagemaker.core.helper.session_helper import get_execution_role

    role = plan.role or os.environ.get("KD_ROLE_ARN")
    with contextlib.suppress(ValueError):
        role = role or get_execution_role(sagemaker_session=session)
    if role and "/aws-reserved/" not in role:  # what someone who logged in by SSO has: SageMaker may not assume it
        return role
    raise UserError("the job needs a role that SageMaker may assume: give its ARN with --role, or in KD_ROLE_ARN")


@aws_errors()
def owner(region: str | None = None) -> str:
    """Whose jobs and endpoints are ours: the caller's name in AWS as a tag's value; in Studio the space's, too."""
    from sagemaker.core.helper import session_helper

    arn = boto_session(region).client("sts").get_caller_identity()["Arn"]
    name = re.sub(r"/(botocore|aws-cli)-session-\d+$", "", arn.split(":", 5)[5], flags=re.IGNORECASE)
    studio = Path(session_helper.NOTEBOOK_METADATA_FILE)
    if studio.is_file():  # all of a workshop may share one role there
        facts = json.loads(studio.read_text(encoding="utf-8"))
        name += f"/{facts.get('SpaceName') or facts.get('UserProfileName') or ''}"
    return re.sub(r"[^\w.:/=+@-]", "-", name)[:256]


def located(plan: JobPlan) -> tuple[JobPlan, Any]:
    """The plan with role, bucket and owner filled in from the account, and the SDK's session."""
    sdk.require_sdk()
    with sdk.quiet_sdk():
        session = sdk.sdk_session(boto_session(plan.region), plan.bucket)
        role = find_role(plan, session)
        if plan.bucket:  # the SDK would make one for a misspelt name, and upload to another region without a word
            found = session.boto_session.client("s3").head_bucket(Bucket=plan.bucket)
            where = found["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", plan.region)
            if where != plan.region:
                raise UserError(explain("PermanentRedirect", where))
        tags = {"owner": owner(plan.region)} | plan.tags
        return replace(plan, role=role, bucket=session.default_bucket(), tags=tags), session


@aws_errors()
def launch(plan: JobPlan) -> str:
    """Upload and start the job; returns its name at once. From here on it costs money. Raises UserError."""
    sdk.check(plan)
    plan, session = located(plan)
    with sdk.quiet_sdk(), sdk.code_folder() as code:
        trainer, inputs = sdk.build_trainer(plan, session, code)
        trainer.train(input_data_config=inputs, wait=False, logs=False)
    return trainer._latest_training_job.training_job_name


@aws_errors()
def describe(job: str, region: str | None = None) -> dict:
    """What AWS knows of a job, and its tags under "Tags". Raises UserError."""
    client = boto_session(region).client("sagemaker")
    found = client.describe_training_job(TrainingJobName=job)
    return found | {"Tags": _tags(client, found["TrainingJobArn"])}


def _tags(client: Any, arn: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in client.list_tags(ResourceArn=arn)["Tags"]}


def _of(owner: str | None, created: datetime) -> str:
    return f"of {owner or 'unknown owner'}, {(datetime.now(UTC) - created).total_seconds() / 3600:.1f} h old"


def ending(job: dict) -> str | None:
    """Why a job ended badly, in one sentence; None while it runs and after a good end.

    `job`: what `describe` says. The script's own last words come with it where it left some.
    """
    status, second, reason = job["TrainingJobStatus"], job.get("SecondaryStatus"), job.get("FailureReason", "")
    if second in TOO_SHORT:
        return f"the job was stopped, {second}: give {TOO_SHORT[second]} more minutes"
    if status != "Failed":
        return "the job was stopped by hand" if status == "Stopped" else None
    if not reason.startswith("AlgorithmError"):
        return explain("the job failed", reason)
    said = reason.split("ErrorMessage", 1)[-1].strip(' ":\n').splitlines()[-3:]  # of a traceback place, line and error
    return f"the job failed, and its script said: {' | '.join(map(str.strip, said))} (more in CloudWatch)"


def status_lines(job: dict, price: float | None = None) -> list[str]:
    """A job's state, owner, age, metrics, time and cost, from what `describe` says. `price`: USD an hour."""
    whose = _of(job.get("Tags", {}).get("owner"), job["CreationTime"])
    lines = [f"{job['TrainingJobName']} {whose}: {job['TrainingJobStatus']}, {job.get('SecondaryStatus', '')}"]
    lines += [f"  {metric['MetricName']} {metric['Value']:.4g}" for metric in job.get("FinalMetricDataList", [])]
    trained, billed = job.get("TrainingTimeInSeconds"), job.get("BillableTimeInSeconds")
    if billed is not None:
        price = JobPlan(instance=job["ResourceConfig"].get("InstanceType", ""), price=price).hourly_price
        cost = "" if price is None else f", about {price * billed / 3600:.2f} USD"
        saved = f", spot saved {1 - billed / trained:.0%}" if job.get("EnableManagedSpotTraining") and trained else ""
        lines.append(f"  {billed / 60:.1f} minutes billed{cost}{saved}")
    reason = ending(job)
    return [*lines, f"  {reason}"] if reason else lines


def follow(job: str, region: str | None = None, pause: float = 30, say: Callable[[str], object] = print) -> dict:
    """Wait until a job ends, with one line whenever its state changes; returns its description.

    Raises UserError where it ended badly, and where it cannot be followed any longer (Ctrl-C, an expired token):
    that does not stop the job.
    """
    state: tuple = ()
    while not state or state[0] in ("InProgress", "Stopping"):
        try:
            time.sleep(pause if state else 0)
            found = describe(job, region)
        except (KeyboardInterrupt, UserError) as error:
            if not state and isinstance(error, UserError):
                raise
            again = f"python -m kdhelpers sagemaker status {job} --follow looks again, and clean --yes stops it"
            raise UserError(f"no longer followed, but {job} runs on and is billed: {again} {error}".strip()) from error
        if state != (state := (found["TrainingJobStatus"], found.get("SecondaryStatus", ""))):
            say(f"{time.strftime('%H:%M')} {', '.join(state)}")
    reason = ending(found)
    if reason:
        raise UserError(reason)
    return found


@aws_errors()
def bring_home(job: dict, folder: Path | str, region: str | None = None) -> Path:
    """Download and unpack a finished job's model.tar.gz: metrics.json, predictions.csv, student/; returns the folder.

    A teacher that lay in the container is gone: metrics.json then names none.
    """
    require_free(Path(folder), overwrite=False)
    if "ModelArtifacts" not in job:
        raise UserError(f"{job['TrainingJobName']} has left no student yet: it is {job['TrainingJobStatus']}")
    bucket, _, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    with tempfile.TemporaryDirectory() as download:
        archive = Path(download, "model.tar.gz")
        boto_session(region).client("s3").download_file(bucket, key, str(archive))
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    path = Path(folder, "metrics.json")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if Path(metrics.get("teacher", {}).get("model") or "").is_absolute():
        metrics["teacher"]["model"] = None
        write_file(path, (json.dumps(metrics, indent=1) + "\n").encode())
    return Path(folder)


def pack(model: Path, folder: Path) -> Path:
    """A run's or an exported student's folder as the archive, below `folder`, that an endpoint unpacks.

    A run gives student/, an export its model and what reads it; beside them lies code/inference.py. The container
    has no onnxruntime: its start script installs what code/requirements.txt names. Raises UserError for other folders.
    """
    model, code = Path(model), folder / "archive" / "code"
    code.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("inference.py"), code)
    if (model / "export.json").is_file():
        for path in (*model.glob("model.*"), model / "tokenizer.json", model / "export.json"):
            shutil.copy(path, code.parent)
        shutil.copy(model / "predict.py", code)
        if (model / "model.onnx").is_file():  # for a static student the container has all that is needed
            (code / "requirements.txt").write_text(f"onnxruntime=={version('onnxruntime')}\n")  # what checked it
    elif (model / "student" / "config.json").is_file():
        config = json.loads((model / "student" / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") == models.StaticForSequenceClassification.kind:
            raise UserError(f"the container cannot load a static student: export {model}, and deploy the export")
        shutil.copytree(model / "student", code.parent / "student")
    else:
        raise UserError(f"{model} holds no student: name the output folder of a run, or of an export")
    return Path(shutil.make_archive(str(folder / "model"), "gztar", code.parent))


@contextlib.contextmanager
def endpoint(model: Path, plan: JobPlan, instance: str = "ml.m5.large") -> Iterator[Callable[[list[str]], list[dict]]]:
    """Deploy the student of a run's or an export's folder (see `pack`); gives a function from texts to answers.

    At the end of the `with` block endpoint, configuration and model are deleted, also when the block fails and when
    the endpoint never came up. It costs money from the moment it is in service, asked or not.
    """
    with aws_errors():
        plan, session = located(plan)
        client = session.boto_session.client("sagemaker")
        runtime = session.boto_session.client("sagemaker-runtime")
        name = f"{plan.name}-{time.strftime('%Y%m%d%H%M%S')}"

        def ask(texts: list[str]) -> list[dict]:
            body = json.dumps({"inputs": texts})
            answer = runtime.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=body)
            return json.loads(answer["Body"].read())

        try:
            _deploy(model, plan, instance, name, session.boto_session)
            yield ask
        finally:
            _delete_all(client, [(kind, name) for kind in KINDS if kind != "training_job"])


def _deploy(model: Path, plan: JobPlan, instance: str, name: str, session: Any) -> None:
    """Upload a packed student, make model, configuration and endpoint of this name, and wait until it answers."""
    from botocore.exceptions import WaiterError

    client, key = session.client("sagemaker"), f"{plan.name}/{name}/model.tar.gz"
    image = sdk.image_address("inference", plan.region, instance)
    tags = [{"Key": key, "Value": value} for key, value in plan.all_tags.items()]
    with tempfile.TemporaryDirectory() as folder:
        archive = pack(model, Path(folder))
        session.client("s3").upload_file(str(archive), plan.bucket, key)
    container = {"Image": image, "ModelDataUrl": f"s3://{plan.bucket}/{key}"}
    client.create_model(ModelName=name, ExecutionRoleArn=plan.role, Tags=tags, PrimaryContainer=container)
    variant = {"VariantName": "all", "ModelName": name, "InstanceType": instance, "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
    client.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tags)
    try:
        client.get_waiter("endpoint_in_service").wait(EndpointName=name)
    except WaiterError as error:
        reason = client.describe_endpoint(EndpointName=name).get("FailureReason", str(error))
        raise UserError(explain("the endpoint did not come into service", reason)) from error


@dataclass(frozen=True)
class Leftover:
    """Something in the account that carries this project's tag. `kind`: training_job, endpoint, ..."""

    kind: str
    name: str
    owner: str | None
    created: datetime

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {_of(self.owner, self.created)}"


@aws_errors()
def leftovers(region: str | None = None) -> list[Leftover]:
    """Everybody's running jobs, endpoints, configurations and models with this project's tag."""
    client, found = boto_session(region).client("sagemaker"), []
    for kind, title in KINDS.items():
        filters = {"StatusEquals": "InProgress"} if kind == "training_job" else {}
        for page in client.get_paginator(f"list_{kind}s").paginate(**filters):
            for item in next(value for value in page.values() if isinstance(value, list)):
                tags = _tags(client, item[f"{title}Arn"])
                if tags.get(PROJECT_TAG[0]) == PROJECT_TAG[1]:
                    found.append(Leftover(kind, item[f"{title}Name"], tags.get("owner"), item["CreationTime"]))
    return found


@aws_errors()
def clean(region: str | None = None, whose: str | None = None, everybody: bool = False) -> list[Leftover]:
    """Stop or delete the `leftovers` that are one's own, or whose they are; returns them. Archives in S3 stay.

    Raises UserError for what could not be deleted, after all the rest.
    """
    mine = None if everybody else whose or owner(region)
    items = [item for item in leftovers(region) if mine in (None, item.owner)]
    _delete_all(boto_session(region).client("sagemaker"), [(item.kind, item.name) for item in items])
    return items


def _delete_all(client: Any, items: list[tuple[str, str]]) -> None:
    """Delete one after the other. What an endpoint needs stays as long as the endpoint: without it, it gets stuck."""
    left: dict[str, str] = {}
    for kind, name in items:
        problem = None if name in left else _delete(client, kind, name)
        if problem:
            left[name] = f"{kind} {name} ({problem})"
    if left:
        raise UserError(
            f"not deleted, and perhaps costing money: {'; '.join(left.values())}; afterwards "
            "python -m kdhelpers sagemaker clean --yes"
        )


def _delete(client: Any, kind: str, name: str) -> str | None:
    """Stop a job, or delete anything else; returns why it could not be done, None where it is gone.

    AWS does not delete an endpoint that is still being made: that is waited for.
    """
    from botocore.exceptions import BotoCoreError, ClientError, WaiterError

    verb = "stop" if kind == "training_job" else "delete"
    for _ in range(2):
        try:
            getattr(client, f"{verb}_{kind}")(**{f"{KINDS[kind]}Name": name})
            return None
        except (ClientError, BotoCoreError) as error:
            if "ould not find" in str(error):
                return None
            problem = str(error)
        if kind != "endpoint" or "progress" not in problem:
            break
        print(f"{name} is still being made, and can be deleted only then: waiting, some minutes", flush=True)
        with contextlib.suppress(WaiterError):
            client.get_waiter("endpoint_in_service").wait(EndpointName=name)
    return problem
