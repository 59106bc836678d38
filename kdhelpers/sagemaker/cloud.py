"""Jobs on AWS itself: launch what is planned, follow it, go on with it, bring the student home."""

import contextlib
import json
import math
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdhelpers.errors import UserError
from kdhelpers.sagemaker import sdk
from kdhelpers.sagemaker.plan import RESERVED_ROLE, JobPlan, bucket_lines, channels, quota_kinds
from kdhelpers.sagemaker.sdk import aws_errors, explain
from kdhelpers.storage import require_free, write_file

TOO_SHORT = {"MaxRuntimeExceeded": "--max-minutes", "MaxWaitTimeExceeded": "--max-wait-minutes"}


def boto_session(region: str | None) -> Any:
    """The reader's own AWS session."""
    import boto3

    return boto3.Session(region_name=region)


def find_region(given: str | None = None, offline: bool = False) -> str:
    """The region that was given, else that of the reader's configuration or of Studio, else us-east-1.

    `offline`, for what needs no AWS: a configuration that cannot be read is said and passed over, and not raised.
    """
    try:
        with aws_errors():
            found = boto_session(None).region_name or JobPlan().region if given is None else given
        return JobPlan(region=found).sound().region
    except UserError as error:
        if given is not None or not offline:
            raise
        print(f"note: the region is {JobPlan().region}, for want of a better one: {error}", flush=True)
    return JobPlan().region


def find_role(plan: JobPlan, session: Any) -> str:
    """The role that the job runs as: the plan's, $KD_ROLE_ARN, an administrator's, or Studio's. Raises UserError."""
    from sagemaker.core.helper.session_helper import get_execution_role

    role = plan.role or os.environ.get("KD_ROLE_ARN") or sdk.defaults(session).get("RoleArn")
    with contextlib.suppress(ValueError):
        role = role or get_execution_role(sagemaker_session=session)
    if role and not re.search(RESERVED_ROLE, role):
        return str(JobPlan(role=role).sound().role)
    raise UserError(
        "the job needs a role that SageMaker may assume: give its ARN with --role, or in KD_ROLE_ARN; "
        "python -m kdhelpers sagemaker rights makes one"
    )


@aws_errors()
def owner(region: str | None = None) -> str:
    """Whose jobs and endpoints are ours: the caller's name in AWS as a tag's value; in Studio the space's, too."""
    from sagemaker.core.helper import session_helper

    arn = boto_session(region).client("sts").get_caller_identity()["Arn"]
    name = re.sub(r"/(botocore|aws-cli)-session-\d+$", "", arn.split(":", 5)[5], flags=re.IGNORECASE)
    studio = Path(session_helper.NOTEBOOK_METADATA_FILE)
    if studio.is_file():  # all of a workshop may share one role there
        facts = json.loads(studio.read_text(encoding="utf-8"))
        name += f"/{facts.get('SpaceName') or facts.get('UserProfileName') or facts.get('ResourceName') or ''}"
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
        plan = replace(plan, role=role, bucket=session.default_bucket(), tags={"owner": owner(plan.region)} | plan.tags)
    for line in bucket_lines(str(plan.bucket)):
        print(line, flush=True)
    return plan, session


def quotas(plan: JobPlan, session: Any) -> dict[str, float]:
    """The account's limits that such a job meets, by their names; of those that AWS tells us.

    `session`: boto3's. The right to look is not needed for a launch.
    """
    wanted = {f"{plan.instance} for {kind} usage" for kind in quota_kinds(plan)}
    found: dict[str, float] = {}
    client = session.client("service-quotas")
    # the first leaves out what was never applied to the account: for that AWS's own defaults hold
    with contextlib.suppress(UserError), aws_errors():
        for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
            pages = client.get_paginator(operation).paginate(ServiceCode="sagemaker")
            for page in pages if wanted - set(found) else ():
                found = {one["QuotaName"]: one["Value"] for one in page["Quotas"] if one["QuotaName"] in wanted} | found
    return found


@aws_errors()
def launch(plan: JobPlan) -> str:
    """Upload and start the job; returns its name at once. From here on it costs money. Raises UserError."""
    sdk.check(plan)
    plan, session = located(plan)
    for name, value in quotas(plan, session.boto_session).items():
        if value < plan.instances:
            raise UserError(
                f"nothing was uploaded: your quota '{name}' is {value:.0f} in {plan.region}, and the job needs "
                f"{plan.instances}: ask for more under Service Quotas, Amazon SageMaker, or take another --instance"
            )
    channels(plan, fetch=True)  # here, where it can say that it downloads
    job = None
    with sdk.quiet_sdk(), sdk.code_folder() as code, contextlib.suppress(KeyboardInterrupt):
        trainer, inputs = sdk.build_trainer(plan, session, code)
        parts = (plan.bucket, session.default_bucket_prefix, trainer.base_job_name)
        folder = f"s3://{'/'.join(str(part) for part in parts if part)}/"  # this launch's alone
        with _uploads(session.boto_session, folder):
            trainer.train(input_data_config=inputs, wait=False, logs=False)
        job = trainer._latest_training_job
    if job is None:  # Ctrl-C, also where the SDK swallows it: AWS may have made the job, and not said its name yet
        look = f"python -m kdhelpers sagemaker clean --region {plan.region}"
        raise UserError(
            f"stopped; if the job runs already, it is billed: {look} lists it. If it does not, what was uploaded stays "
            f"until you delete it: aws s3 rm --recursive {folder}"
        )
    return job.training_job_name


@contextlib.contextmanager
def _uploads(session: Any, folder: str) -> Iterator[None]:
    """Delete what a launch has uploaded where AWS then refuses the job: it has no owner, so nothing would list it.

    After any other error the job may have been made, and the folder is only named. `session`: boto3's.
    """
    from botocore.exceptions import ClientError

    try:
        yield
    except Exception as error:
        said = f"what was uploaded stays until you delete it: aws s3 rm --recursive {folder}"
        answer = error.response["ResponseMetadata"] if isinstance(error, ClientError) else {}
        if getattr(error, "operation_name", "") == "CreateTrainingJob" and answer.get("HTTPStatusCode", 500) < 500:
            with contextlib.suppress(UserError), aws_errors():
                delete_folder(session, folder)
                said = "what had been uploaded is deleted again"
        print(said, flush=True)
        raise


def objects_below(session: Any, folder: str) -> Any:
    """All that lies below an s3:// address that ends in a slash, as boto3's collection. Raises UserError."""
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    if not prefix.strip("/") or not folder.endswith("/"):
        raise UserError(f"{folder} is no folder of this project's")
    return session.resource("s3").Bucket(bucket).objects.filter(Prefix=prefix)


def delete_folder(session: Any, folder: str) -> None:
    """Delete all below an s3:// address that ends in a slash. `session`: boto3's. Raises UserError.

    In a bucket with versions AWS keeps the earlier ones.
    """
    errors = [error for answer in objects_below(session, folder).delete() for error in answer.get("Errors", [])]
    if errors:
        raise UserError(f"{len(errors)} files of {folder} were not deleted: AWS says {errors[0].get('Message')}")


@aws_errors()
def again(job: str, region: str | None = None, max_minutes: int | None = None) -> dict:
    """The request that starts a stopped or failed job once more, with all that it was sent, from its checkpoints.

    `max_minutes`: its new time limit, where the old one was too short. Raises UserError for a job that still runs, has
    come to its end, has kept no checkpoints, or is gone on with already, and for a limit that AWS would not take.
    """
    if max_minutes is not None:
        JobPlan(max_minutes=max_minutes).sound()
    client, old = boto_session(region).client("sagemaker"), describe(job, region)
    if old["TrainingJobStatus"] not in ("Stopped", "Failed"):
        raise UserError(f"{job} is {old['TrainingJobStatus']}: only a stopped or failed job can go on")
    if "CheckpointConfig" not in old:
        raise UserError(f"{job} has kept no checkpoints: a job does with --spot, or with --keep-checkpoints")
    for page in client.get_paginator("list_training_jobs").paginate(StatusEquals="InProgress"):
        for other in page["TrainingJobSummaries"]:
            if tags_of(client, other["TrainingJobArn"]).get("continues") == job:
                raise UserError(f"{other['TrainingJobName']} goes on with {job} already")
    fields = client.meta.service_model.operation_model("CreateTrainingJob").input_shape.members
    request = {name: value for name, value in old.items() if name in fields}
    stem = re.sub(r"-\d{14}(-\d+)?$", "", job)
    tags = {name: value for name, value in old["Tags"].items() if not name.startswith("aws:")}
    tags |= {"owner": owner(region), "continues": job}
    request |= {"TrainingJobName": f"{stem}-{time.strftime('%Y%m%d%H%M%S')}"}
    request |= {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
    if max_minutes is not None:
        limits = {"MaxRuntimeInSeconds": 60 * max_minutes}
        if "MaxWaitTimeInSeconds" in old["StoppingCondition"]:
            waited = old["StoppingCondition"]["MaxWaitTimeInSeconds"] - old["StoppingCondition"]["MaxRuntimeInSeconds"]
            limits["MaxWaitTimeInSeconds"] = 60 * max_minutes + waited
        request["StoppingCondition"] = old["StoppingCondition"] | limits
    return request


def resumed(request: dict, price: float | None = None) -> JobPlan:
    """The machines and the time of what `again` returned, as a plan: for its price. `price`: USD an hour."""
    machines, limits = request["ResourceConfig"], request["StoppingCondition"]
    return JobPlan(
        instance=machines.get("InstanceType", ""),
        instances=machines.get("InstanceCount", 1),
        max_minutes=math.ceil(limits["MaxRuntimeInSeconds"] / 60),
        keep_alive_minutes=math.ceil(machines.get("KeepAlivePeriodInSeconds", 0) / 60),
        keep_checkpoints=True,
        price=price,
    )


@aws_errors()
def go_on(request: dict, region: str | None = None) -> str:
    """Start what `again` returned; returns the new job's name. From here on it costs money."""
    boto_session(region).client("sagemaker").create_training_job(**request)
    return request["TrainingJobName"]


@aws_errors()
def describe(job: str, region: str | None = None) -> dict:
    """What AWS knows of a job, and its tags under "Tags". Raises UserError."""
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", job):
        raise UserError(f"{job!r} is no job's name: the launch said it, and clean lists what runs")
    client = boto_session(region).client("sagemaker")
    found = client.describe_training_job(TrainingJobName=job)
    return found | {"Tags": tags_of(client, found["TrainingJobArn"])}


def tags_of(client: Any, arn: str) -> dict[str, str]:
    """The tags of something in SageMaker, by name. `client`: boto3's."""
    return {tag["Key"]: tag["Value"] for tag in client.list_tags(ResourceArn=arn)["Tags"]}


def of_whom(owner: str | None, created: datetime) -> str:
    """Whose something is, and how old, in words."""
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
    whose = of_whom(job.get("Tags", {}).get("owner"), job["CreationTime"])
    lines = [f"{job['TrainingJobName']} {whose}: {job['TrainingJobStatus']}, {job.get('SecondaryStatus', '')}"]
    lines += [f"  {metric['MetricName']} {metric['Value']:.4g}" for metric in job.get("FinalMetricDataList", [])]
    trained, billed = job.get("TrainingTimeInSeconds"), job.get("BillableTimeInSeconds")
    machines = job["ResourceConfig"].get("InstanceCount", 1)
    if billed is not None:
        price = JobPlan(instance=job["ResourceConfig"].get("InstanceType", ""), price=price).hourly_price
        cost = "" if price is None else f", about {price * machines * billed / 3600:.2f} USD"
        saved = f", spot saved {1 - billed / trained:.0%}" if job.get("EnableManagedSpotTraining") and trained else ""
        each = f" on each of {machines} machines" if machines > 1 else ""
        lines.append(f"  {billed / 60:.1f} minutes billed{each}{cost}{saved}")
    if job.get("Environment", {}).get("KD_STAGE") == "label" and job["TrainingJobStatus"] == "Completed":
        lines.append(f"  the teacher's answers: launch --answers {job['CheckpointConfig']['S3Uri']}")
    reason = ending(job)
    again = ", and launch --from goes on with it" if "CheckpointConfig" in job else ""
    return [*lines, f"  {reason}{again}"] if reason else lines


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
            place = f" --region {region}" if region else ""
            ours = "python -m kdhelpers sagemaker"
            later = f"{ours} status {job}{place} --follow looks again, {ours} clean {job}{place} --yes stops it"
            raise UserError(f"no longer followed, but {job} runs on and is billed: {later} {error}".strip()) from error
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
    if job["TrainingJobStatus"] != "Completed":
        raise UserError(f"{job['TrainingJobName']} has left no student yet: it is {job['TrainingJobStatus']}")
    if job.get("Environment", {}).get("KD_STAGE") == "label":
        raise UserError(f"{job['TrainingJobName']} has labelled, and left no student: {status_lines(job)[-1].strip()}")
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
