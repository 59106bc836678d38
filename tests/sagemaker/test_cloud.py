"""Jobs on AWS, as far as moto and answers of ours can play it."""

import io
import json
import re
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import botocore.client
import nbformat
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from kdhelpers import sagemaker
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import JobPlan, cloud
from kdhelpers.sagemaker.plan import plan_problems
from tests.sagemaker.conftest import PLACE, QUOTA, ROLE

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_sagemaker.ipynb"

# --- who and where


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        ("arn:aws:iam::123456789012:user/team/ann", "user/team/ann"),
        ("arn:aws:iam::123456789012:root", "root"),
        ("arn:aws:sts::123456789012:assumed-role/Workshop/ann@example.com", "assumed-role/Workshop/ann@example.com"),
        ("arn:aws-cn:sts::123456789012:assumed-role/Workshop/a,b", "assumed-role/Workshop/a-b"),
        # the library makes these up anew for every process
        ("arn:aws:sts::123456789012:assumed-role/Workshop/botocore-session-1732536000", "assumed-role/Workshop"),
    ],
)
def test_the_owner_is_the_caller_in_a_tags_letters(aws, respond, arn, name):
    respond("GetCallerIdentity", {"Arn": arn})
    assert cloud.owner() == name
    assert re.fullmatch(r"[\w.:/=+@-]{1,256}", cloud.owner())


def test_in_studio_role_region_bucket_and_owner_are_found(tmp_path, monkeypatch):
    """Everybody there may have the same role: the space tells them apart."""
    from sagemaker.core.helper import session_helper

    facts = {"DomainId": "d-1", "ExecutionRoleArn": ROLE, "SpaceName": "ann"}
    (tmp_path / "resource-metadata.json").write_text(json.dumps(facts))
    monkeypatch.setattr(session_helper, "NOTEBOOK_METADATA_FILE", str(tmp_path / "resource-metadata.json"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        found, _ = cloud.located(JobPlan(region=cloud.find_region()))
    assert (found.region, found.role, found.bucket) == ("eu-west-1", ROLE, "sagemaker-eu-west-1-123456789012")
    assert found.tags["owner"].endswith("/ann")
    assert cloud.find_region("ap-south-1") == "ap-south-1"


def test_a_role_that_sagemaker_may_not_assume_is_not_taken(monkeypatch):
    from sagemaker.core.helper import session_helper

    def is_a_user(**options):
        raise ValueError("The current AWS identity is not a role")

    reserved = "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_0123"
    pathless = "arn:aws:iam::123456789012:role/AWSReservedSSO_PowerUser_0123"  # where iam:GetRole is denied
    for answer in (is_a_user, lambda **options: reserved, lambda **options: pathless):
        monkeypatch.setattr(session_helper, "get_execution_role", answer)
        with pytest.raises(UserError, match="KD_ROLE_ARN"):
            cloud.find_role(JobPlan(), SimpleNamespace(sagemaker_config=None))
    for role in (reserved, pathless):
        assert "signing in by SSO" in plan_problems(JobPlan({"recipe": "sst2"}, role=role))[0]
    monkeypatch.setenv("KD_ROLE_ARN", "training")
    with pytest.raises(UserError, match="'training' is no ARN"):
        cloud.find_role(JobPlan(), SimpleNamespace(sagemaker_config=None))
    monkeypatch.setenv("KD_ROLE_ARN", ROLE)
    assert cloud.find_role(JobPlan(), SimpleNamespace(sagemaker_config=None)) == ROLE


def test_a_bucket_that_is_not_there_or_elsewhere_is_refused_before_anything_is_sent(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for bucket, words in (("far", "eu-west-1"), ("nowhere", "--bucket and --region")):
        with pytest.raises(UserError, match=words):
            cloud.launch(replace(PLACE, bucket=bucket))
    assert sorted(bucket["Name"] for bucket in s3.list_buckets()["Buckets"]) == ["far", "mine"], "none is made"
    assert "Contents" not in s3.list_objects_v2(Bucket="far")


# --- the job


def test_a_launch_returns_the_name_that_aws_knows(aws):
    name = cloud.launch(replace(PLACE, tags={"team": "a"}))
    found = cloud.describe(name)
    assert found["RoleArn"] == ROLE
    assert found["Tags"] == {"team": "a", "project": "distilling-bert", "owner": cloud.owner()}
    (line, *_) = cloud.status_lines(found)
    assert cloud.owner() in line
    assert "h old" in line


def refusing(code, status):
    def answer(client, name, parameters):
        if name != "CreateTrainingJob":
            return send(client, name, parameters)
        told = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(told, name)

    send = botocore.client.BaseClient._make_api_call
    return answer


def test_what_was_uploaded_for_a_job_that_aws_refuses_is_deleted_again(aws, monkeypatch, capsys):
    """It would be in no list: only a job has an owner. What another launch has uploaded stays."""
    cloud.launch(PLACE)
    others = {item.key for item in aws.resource("s3").Bucket("mine").objects.all()}
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refusing("ResourceLimitExceeded", 400))
    with pytest.raises(UserError, match="your quota is used up"):
        cloud.launch(PLACE)
    assert "what had been uploaded is deleted again" in capsys.readouterr().out
    assert {item.key for item in aws.resource("s3").Bucket("mine").objects.all()} == others
    assert others


def test_where_the_job_may_have_been_made_its_uploads_stay_and_are_named(aws, monkeypatch, capsys):
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", refusing("InternalFailure", 500))
    with pytest.raises(UserError, match="InternalFailure"):
        cloud.launch(PLACE)
    (folder,) = re.findall(r"aws s3 rm --recursive s3://mine/(\S+/)", capsys.readouterr().out)
    assert list(aws.resource("s3").Bucket("mine").objects.filter(Prefix=folder))


def test_ctrl_c_before_aws_has_answered_does_not_hide_the_job(aws, interrupt_after):
    interrupt_after("CreateTrainingJob")
    told = (
        "if the job runs already, it is billed: .* clean --region us-east-1 lists it. .* rm --recursive s3://mine/dist"
    )
    with pytest.raises(UserError, match=told):
        cloud.launch(PLACE)


def described(**more):
    return {
        "TrainingJobName": "j", "TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "Tags": {"owner": "ann"},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600}, "ResourceConfig": {"InstanceType": "ml.g5.xlarge"},
        "CreationTime": datetime.now(UTC) - timedelta(hours=3), **more,
    }  # fmt: skip


def test_how_a_job_ended():
    script = (
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 2\nErrorMessage \"error: train.csv has no column 'review'\""
    )
    assert "no column 'review'" in cloud.ending(described(FailureReason=script))
    crash = (
        'AlgorithmError: Traceback (most recent call last):\n  File "train.py", line 7, in fit\n    x / 0\n'
        "ZeroDivisionError: division by zero, exit code: 1"
    )
    said = cloud.ending(described(FailureReason=crash))
    assert 'said: File "train.py", line 7, in fit | x / 0 | ZeroDivisionError: division' in said
    assert "no such machine free" in cloud.ending(described(FailureReason="CapacityError: Unable to provision"))
    for theirs in ("InternalServerError: We encountered an error", "ClientError: Data download failed: no space left"):
        assert "script" not in cloud.ending(described(FailureReason=theirs))
    stopped = described(TrainingJobStatus="Stopped", SecondaryStatus="MaxRuntimeExceeded")
    assert "--max-minutes" in cloud.ending(stopped)
    assert "--max-wait-minutes" in cloud.ending(stopped | {"SecondaryStatus": "MaxWaitTimeExceeded"})
    assert cloud.ending(described(TrainingJobStatus="Completed")) is None
    done = described(
        TrainingJobStatus="Completed", SecondaryStatus="Completed", EnableManagedSpotTraining=True,
        TrainingTimeInSeconds=600, BillableTimeInSeconds=180,
        FinalMetricDataList=[{"MetricName": "student:validation_accuracy", "Value": 83.1}],
    )  # fmt: skip
    fleet = done | {"ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 8}}
    assert "on each of 8 machines, about 0.56 USD" in "\n".join(cloud.status_lines(fleet))
    lines = "\n".join(cloud.status_lines(done))
    assert "3.0 minutes billed, about 0.07 USD, spot saved 70%" in lines
    assert "student:validation_accuracy 83.1" in lines
    assert "ann, 3.0 h old" in lines


def test_follow_speaks_when_something_changes(monkeypatch):
    states = [("InProgress", "Starting"), ("InProgress", "Starting"), ("InProgress", "Training"), ("Failed", "Failed")]
    answers = [described(TrainingJobStatus=a, SecondaryStatus=b, FailureReason="x") for a, b in states]
    monkeypatch.setattr(cloud, "describe", lambda *given: answers.pop(0))
    said = []
    with pytest.raises(UserError, match="the job failed"):
        cloud.follow("j", pause=0, say=said.append)
    assert [line.split(" ", 1)[1] for line in said] == [
        "InProgress, Starting",
        "InProgress, Training",
        "Failed, Failed",
    ]


@pytest.mark.parametrize("blow", [KeyboardInterrupt(), UserError("no valid AWS credentials here (ExpiredToken)")])
def test_who_cannot_follow_any_longer_is_told_that_the_job_runs_on(monkeypatch, blow):
    answers = [described(TrainingJobStatus="InProgress", SecondaryStatus="Training"), blow]

    def describe(*given):
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(cloud, "describe", describe)
    with pytest.raises(UserError, match=r"runs on and is billed: .*status j --follow .*clean j --yes") as told:
        cloud.follow("j", pause=0, say=lambda line: None)
    assert str(blow) in str(told.value)


def test_what_is_not_done_cannot_be_brought_home(aws, tmp_path):
    left = {"ModelArtifacts": {"S3ModelArtifacts": "s3://mine/m"}}  # AWS says so of every job
    for state in ("InProgress", "Stopped", "Failed"):
        with pytest.raises(UserError, match=f"no student yet: it is {state}"):
            cloud.bring_home(described(TrainingJobStatus=state) | left, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_job_that_is_not_there_does_not_run_on(aws):
    with pytest.raises(UserError) as told:
        cloud.follow("nothing", pause=0)
    assert "runs on" not in str(told.value)


def deliver(session, run):
    """What a finished job leaves in S3, and its description."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(run, ".")
    session.client("s3").put_object(Bucket="mine", Key="model.tar.gz", Body=packed.getvalue())
    return {"TrainingJobStatus": "Completed", "ModelArtifacts": {"S3ModelArtifacts": "s3://mine/model.tar.gz"}}


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("/opt/ml/input/data/teacher", None),
        ("/opt/ml/cache/teachers/0123", None),
        ("textattack/bert-base-uncased-SST-2", "textattack/bert-base-uncased-SST-2"),
    ],
)
def test_a_run_at_home_names_no_teacher_that_is_not_there(aws, tmp_path, there, here):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({"seed": 1, "teacher": {"model": there, "layers": 6}}))
    home = cloud.bring_home(deliver(aws, tmp_path / "run"), tmp_path / "home")
    assert json.loads((home / "metrics.json").read_text()) == {"seed": 1, "teacher": {"model": here, "layers": 6}}
    with pytest.raises(UserError, match="--output"):
        cloud.bring_home(deliver(aws, tmp_path / "run"), tmp_path / "home")


def test_a_quota_that_is_too_small_is_named_before_anything_is_uploaded(aws, respond):
    respond("ListServiceQuotas", {"Quotas": [{"QuotaName": "ml.g5.xlarge for training job usage", "Value": 0.0}]})
    with pytest.raises(UserError, match="nothing was uploaded: your quota 'ml.g5.xlarge for training job usage' is 0"):
        cloud.launch(PLACE)
    assert cloud.quotas(replace(PLACE, spot=True, max_wait_minutes=60), aws) == {}, "spot has a quota of its own"
    warm = {"QuotaName": "ml.g5.xlarge for training warm pool usage", "Value": 0.0}
    respond("ListServiceQuotas", {"Quotas": [QUOTA, warm]})
    with pytest.raises(UserError, match="warm pool usage' is 0"):
        cloud.launch(replace(PLACE, keep_alive_minutes=9))
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket="mine")
    respond("ListServiceQuotas", "AccessDeniedException: not yours to see")
    asked = respond("ListAWSDefaultServiceQuotas", {"Quotas": [warm | {"QuotaName": QUOTA["QuotaName"]}]})
    assert cloud.launch(PLACE)
    assert asked == [], "AWS's default may be less than what the account has"


def test_a_quota_that_was_never_applied_to_the_account_is_awss_default(aws, respond):
    """AWS lists only what was applied: a new account's 0 for GPUs may not be among it."""
    respond("ListServiceQuotas", {"Quotas": []})
    respond("ListAWSDefaultServiceQuotas", {"Quotas": [QUOTA | {"Value": 0.0}]})
    with pytest.raises(UserError, match="usage' is 0"):
        cloud.launch(PLACE)
    asked = respond("ListAWSDefaultServiceQuotas", {"Quotas": [QUOTA | {"Value": 0.0}]})
    respond("ListServiceQuotas", {"Quotas": [QUOTA]})
    assert cloud.launch(PLACE)
    assert asked == [], "the account's own counts"


def test_a_bucket_that_the_usual_role_does_not_open_is_noted_at_the_launch(aws, tmp_path, monkeypatch, capsys):
    """However it was named: here by an administrator's defaults."""
    (tmp_path / "config.yaml").write_text("""
SchemaVersion: "1.0"
SageMaker: {PythonSDK: {Modules: {Session: {DefaultS3Bucket: mine}}}}
""")
    monkeypatch.setenv("SAGEMAKER_ADMIN_CONFIG_OVERRIDE", str(tmp_path / "config.yaml"))
    plan, _ = cloud.located(replace(PLACE, bucket=None))
    assert plan.bucket == "mine"
    assert "mine needs a policy of its own" in capsys.readouterr().out


# --- going on


def stopped(aws, plan, respond, **more):
    """A launched job that AWS then says was stopped; moto forgets the environment, and says everything is done."""
    name = cloud.launch(plan)
    found = aws.client("sagemaker").describe_training_job(TrainingJobName=name)
    respond("DescribeTrainingJob", found | {"TrainingJobStatus": "Stopped", **more})
    return name, found


def test_a_stopped_job_goes_on_from_its_checkpoints(aws, respond):
    spot = replace(PLACE, spot=True, max_minutes=30, max_wait_minutes=50)
    name, old = stopped(aws, spot, respond, SecondaryStatus="MaxRuntimeExceeded")
    (line,) = [line for line in cloud.status_lines(cloud.describe(name)) if "stopped" in line]
    assert "launch --from goes on" in line
    sent = respond("CreateTrainingJob", ...)
    tags = [{"Key": "aws:createdBy", "Value": "x"}, {"Key": "project", "Value": "distilling-bert"}]
    respond("ListTags", {"Tags": tags})
    new = cloud.go_on(cloud.again(name, max_minutes=90))
    (request,) = sent
    assert request["TrainingJobName"] == new
    assert not any(tag["Key"].startswith("aws:") for tag in request["Tags"]), "AWS's own, which it refuses from others"
    assert request["CheckpointConfig"] == old["CheckpointConfig"]
    for same in ("HyperParameters", "RoleArn", "ResourceConfig", "AlgorithmSpecification", "InputDataConfig"):
        assert request[same] == old[same]
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 5400, "MaxWaitTimeInSeconds": 6600}
    assert {"Key": "continues", "Value": name} in request["Tags"]


def test_only_a_job_that_ended_badly_and_kept_something_goes_on(aws, respond):
    name, old = stopped(aws, PLACE, respond)
    with pytest.raises(UserError, match="--keep-checkpoints"):
        cloud.again(name)
    respond("DescribeTrainingJob", old | {"TrainingJobStatus": "InProgress"})
    with pytest.raises(UserError, match="is InProgress"):
        cloud.again(name)


def test_a_job_is_gone_on_with_once(aws, respond):
    name, _ = stopped(aws, replace(PLACE, keep_checkpoints=True), respond)
    cloud.again(name)
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job/next"
    respond("ListTrainingJobs", {"TrainingJobSummaries": [{"TrainingJobName": "next", "TrainingJobArn": arn}]})
    respond("ListTags", {"Tags": [{"Key": "continues", "Value": name}]})
    with pytest.raises(UserError, match="next goes on with"):
        cloud.again(name)


def test_the_notebooks_launch_cell_names_the_job_before_it_waits_and_brings_it_to_a_folder_that_stays(
    aws, tmp_path, monkeypatch, capsys
):
    """Run as a reader runs it, with LAUNCH set to True; the notebook itself works in a folder for the moment."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [cell.source for cell in notebook.cells if cell.source.startswith("LAUNCH = False")]
    for name in ("run", "own", "moment"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "moment")
    monkeypatch.setenv("HOME", str(tmp_path / "own"))
    left, describe, before = deliver(aws, tmp_path / "run"), cloud.describe, []

    def describing(name, region=None):
        before.append((name, capsys.readouterr().out))
        return describe(name, region) | left

    monkeypatch.setattr(cloud, "describe", describing)
    names = {"jobs": sagemaker, "plan": PLACE, "replace": replace, "Path": Path}
    exec(cell.replace("LAUNCH = False", "LAUNCH = True"), names)
    name, said = before[0]
    assert f"{name} is running and billed" in said, "an interrupted kernel must not leave a job without a name"
    assert (tmp_path / "own" / "distilled" / name / "metrics.json").is_file()
    assert not list((tmp_path / "moment").iterdir())
    assert str(tmp_path / "own" / "distilled" / name) in capsys.readouterr().out


def test_a_label_job_says_where_its_answers_are(tmp_path):
    place = {"S3Uri": "s3://mine/distilling-bert/j/checkpoints"}
    done = described(TrainingJobStatus="Completed", Environment={"KD_STAGE": "label"}, CheckpointConfig=place)
    assert "launch --answers s3://mine/distilling-bert/j/checkpoints" in cloud.status_lines(done)[-1]
    with pytest.raises(UserError, match="left no student"):
        cloud.bring_home(done | {"ModelArtifacts": {}}, tmp_path / "home")
