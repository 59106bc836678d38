"""The whole life of a job, command by command, with two owners in one account; every call to AWS is in the record.

`python -m tests.tools.record_calls` writes the record, calls.json, from which AWS.md gets its table.
"""

import io
import json
import os
import re
import shutil
import threading
import time

import boto3
import botocore.client
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from moto.sagemaker.models import sagemaker_backends

from kdhelpers import sagemaker
from kdhelpers.__main__ import main
from kdhelpers.sagemaker import cloud, container, rights
from tests.sagemaker.conftest import ROLE, as_argv, stand
from tests.sagemaker.test_cloud import deliver
from tests.tools import results
from tests.tools.record_calls import CALLS_FILE, RECORDING

SERVER = "arn:aws-us-gov:sagemaker:us-gov-west-1:123456789012:mlflow-tracking-server/mine"
PLACE, HERE = ["--role", ROLE, "--bucket", "mine"], ["--region", "us-east-1"]
SPOT = ["--spot", "--max-wait-minutes", "60"]  # of which the account has no quota of its own, but AWS's default
TELLING = ("--from", "--output", "--yes", "--s3")  # the options on which it depends what is asked of AWS
ALWAYS = {"launch": "--yes", "label": "--yes", "endpoint": "--yes"}  # without it they ask nothing
ANN = "arn:aws:sts::123456789012:assumed-role/Workshop/ann"
DEFAULTS = "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {Session: {DefaultS3ObjectKeyPrefix: team}}}}\n"


class Body(io.BytesIO):
    """An answer's body: of a service, or of the connection to it."""

    def stream(self, **options):
        yield self.read()


class Life:
    """Commands, and what they ask of AWS: `calls` is {"service Operation": {"launch --from", ...}}."""

    def __init__(self, session, capsys, monkeypatch):
        self.aws, self.capsys, self.monkeypatch = session, capsys, monkeypatch
        self.calls, self.asking, self.inside = {}, "", threading.local()
        self.on, self.warm = {}, []
        self.jobs = sagemaker_backends["123456789012"]["us-east-1"].training_jobs
        self.send = botocore.client.BaseClient._make_api_call
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", lambda *given: self.call(*given))

    def call(self, client, name, parameters):
        """Note a call and pass it on; what the fake itself asks of moto does not count. Large files go in threads."""
        if self.asking and not getattr(self.inside, "fake", False):
            self.calls.setdefault(f"{client.meta.service_model.service_name} {name}", set()).add(self.asking)
        if name in self.on:
            return self.on[name](parameters)
        if name == "ListTrainingJobs" and "WarmPoolStatusEquals" in parameters:  # moto has none
            return {"TrainingJobSummaries": [{"TrainingJobName": job} for job in self.warm]}
        before, self.inside.fake = getattr(self.inside, "fake", False), True
        try:
            return self.send(client, name, parameters)
        finally:
            self.inside.fake = before

    def say(self, *command, code=0, when=""):
        """Run a command; returns what it said. `when`: what else is so, for the record."""
        told = [option for option in TELLING if option in command and option != ALWAYS.get(command[0])]
        self.asking = " ".join([command[0], *told, *([when] if when else [])])
        assert main(["sagemaker", *command]) == code, self.capsys.readouterr().err
        self.asking = ""
        said = self.capsys.readouterr()
        return said.err if code else said.out

    def refuse(self, operation, code, times):
        """From the connection: an answer as AWS's that refuses an operation so many times, and is then passed on."""
        left, body = [code] * times, json.dumps({"__type": code, "message": f"{code}, says AWS"}).encode()

        def answer(request, **more):
            if left:
                left.pop()
                return AWSResponse(request.url, 400, {"x-amzn-errortype": code}, Body(body))
            return None

        self.aws.events.register_first(f"before-send.sagemaker.{operation}", answer)
        return left


@pytest.fixture
def life(aws, capsys, monkeypatch):
    """moto's jobs are over at once and cannot be stopped, its warm pools do not exist, its models do not answer."""
    life = Life(aws, capsys, monkeypatch)

    def stop(asked):
        life.jobs[asked["TrainingJobName"]].training_job_status = "Stopped"
        return {}

    def cool(asked):
        life.warm.remove(asked["TrainingJobName"])
        return {}

    def answer(asked):
        texts = json.loads(asked["Body"])["inputs"]
        return {"Body": Body(json.dumps([{"label": "positive", "score": 1.0}] * len(texts)).encode())}

    life.on = {"StopTrainingJob": stop, "UpdateTrainingJob": cool, "InvokeEndpoint": answer}
    return life


@pytest.fixture
def large(plan, tmp_path):
    """The options of a job with a teacher of more than 8 MB, which boto3 sends in parts, as it does real ones."""
    teacher = tmp_path / "large"
    shutil.copytree(plan.hyperparameters["teacher"], teacher)
    (teacher / "more.bin").write_bytes(os.urandom(9_000_000))
    return as_argv(sagemaker.JobPlan(plan.hyperparameters | {"teacher": str(teacher)}))


@pytest.mark.slow
def test_from_a_plan_to_an_empty_account_and_every_call_is_in_the_record(life, large, tmp_path):
    stand(life.aws, "anns", project="distilling-bert", owner="user/ann")
    for command in ("plan", "check"):
        life.say(command, *large)
    life.say("rehearse", *large, "--folder", str(tmp_path / "rehearsal"))
    assert life.calls == {}, "none of these needs AWS"
    left, describe = deliver(life.aws, tmp_path / "rehearsal" / "ml" / "model"), cloud.describe
    life.monkeypatch.setattr(cloud, "describe", lambda *given: describe(*given) | left | running(life, given[0]))

    job = interrupted(life, large)
    again = re.search(r"launched (\S+),", life.say("launch", "--from", job, "--max-minutes", "90", "--yes", *HERE))[1]
    home = tmp_path / "home"
    assert f"brought home to {home}" in life.say("status", again, "--follow", "--output", str(home), *HERE)
    assert (home / "predictions.csv").read_bytes() == (
        tmp_path / "rehearsal" / "ml" / "model" / "predictions.csv"
    ).read_bytes()

    labelling = re.search(r"launched (\S+)", life.say("label", "--yes", *PLACE, *SPOT, *large))[1]
    life.jobs[labelling].training_job_status = "InProgress"
    told = life.say("endpoint", str(home), "--yes", *PLACE)
    for words in ("nothing while nobody asks", "'label': 'positive'", "the endpoint is deleted"):
        assert words in told
    cleaned(life, labelling)
    assert {item["Key"] for item in life.aws.client("s3").list_objects_v2(Bucket="mine")["Contents"]} == {
        "model.tar.gz"
    }, "the rehearsal's, which is no job's"

    life.say("launch", "--yes", *PLACE, "--output", str(tmp_path / "launched"), *large)
    (home / "student" / "more.bin").write_bytes(os.urandom(9_000_000))
    life.say("endpoint", "--yes", *PLACE, str(home))
    commands = {"launch": large, "label": large, "endpoint": [str(home)]}
    after_a_failing_upload(life, commands)
    when_aws_refuses_the_job(life, commands)
    with_nothing_named(life, commands)
    with_a_prefix(life, commands, tmp_path)
    by_the_job(life)
    made = {name: sorted(commands) for name, commands in sorted(life.calls.items())}
    if os.environ.get(RECORDING):
        CALLS_FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    assert made == json.loads(CALLS_FILE.read_text(encoding="utf-8")), "python -m tests.tools.record_calls"


def running(life, job):
    """moto says of every job what it has left; one that is made to run has left nothing."""
    state = life.jobs[job].training_job_status
    return {} if state == "Completed" else {"TrainingJobStatus": state}


def interrupted(life, options):
    """Launch a job, follow it until Ctrl-C and until a token expires, and stop it; returns its name."""
    told = life.say("launch", "--yes", *PLACE, *SPOT, *options)
    job = re.search(r"launched (\S+)", told)[1]
    life.jobs[job].training_job_status = "InProgress"
    throttled = life.refuse("DescribeTrainingJob", "ThrottlingException", times=2)
    sleep = time.sleep

    def press_ctrl_c(seconds):
        if seconds == 30:  # the pause before it looks again; boto3's are shorter
            raise KeyboardInterrupt  # no signal: where a shell runs the tests in the background, they ignore it
        sleep(seconds)

    with life.monkeypatch.context() as patch:
        patch.setattr(time, "sleep", press_ctrl_c)
        told = life.say("status", job, "--follow", *HERE, code=2)
    assert throttled == [], "boto3 asks again by itself"
    assert f"{job} runs on and is billed" in told
    assert life.jobs[job].training_job_status == "InProgress"

    life.refuse("DescribeTrainingJob", "ExpiredTokenException", times=1)
    assert "aws sso login" in life.say("status", job, "--follow", *HERE, code=2)
    assert life.say("clean", job, "--yes", *HERE).count("deleted or stopped") == 1
    assert "stopped by hand" in life.say("status", job, "--follow", *HERE, code=2)
    return job


def cleaned(life, labelling):
    """List and delete what is one's own, a running job first, and nothing of the other's."""
    stand(life.aws, "forgotten", project="distilling-bert", owner=cloud.owner())
    assert labelling in life.say("clean", *HERE)
    told = life.say("clean", *HERE, "--s3")
    for words in (f"training_job {labelling}", "1.41 USD an hour", "endpoint forgotten"):
        assert words in told
    assert ": a student" not in told, "moto's jobs leave nothing"
    assert "anns" not in told
    assert len(re.findall(r"files s3://mine/distilling-bert-\S+ .* MB", told)) == 1, "the second job read the first's"
    assert life.say("clean", labelling, "--yes", *HERE).count("deleted or stopped") == 1
    assert "is called anns" in life.say("clean", "anns", "--yes", *HERE, code=2)
    life.warm.append(labelling)
    assert f"warm_pool {labelling}" in life.say("clean", "--yes", *HERE)
    assert life.warm == []
    assert "3 more are others'" in life.say("clean", "--yes", "--s3", *HERE)
    assert "nothing of" in life.say("clean", "--s3", *HERE)
    assert [model["ModelName"] for model in life.aws.client("sagemaker").list_models()["Models"]] == ["anns"]


def after_a_failing_upload(life, commands):
    def deny(asked):
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "UploadPart")

    life.on["UploadPart"] = deny
    for command, given in commands.items():
        told = life.say(command, "--yes", *PLACE, *given, code=2, when="when an upload fails")
        assert "AWS does not allow this" in told
    del life.on["UploadPart"]


def when_aws_refuses_the_job(life, commands):
    """Its own uploads go, and nothing else."""
    bucket = life.aws.resource("s3").Bucket("mine")
    before = {item.key for item in bucket.objects.all()}
    for command in ("launch", "label"):
        life.refuse("CreateTrainingJob", "ResourceLimitExceeded", times=1)
        told = life.say(command, "--yes", *PLACE, *commands[command], code=2, when="when AWS refuses the job")
        assert "your quota is used up" in told
    assert {item.key for item in bucket.objects.all()} == before


def with_nothing_named(life, commands):
    """Someone who has signed in with a role, which is the job's, too; SageMaker's own bucket is made."""
    life.aws.client("iam").create_role(RoleName="Workshop", AssumeRolePolicyDocument="{}")
    life.on["GetCallerIdentity"] = lambda asked: {"Arn": ANN, "Account": "123456789012", "UserId": "a"}
    for command, given in commands.items():
        bucket = life.aws.resource("s3").Bucket("sagemaker-us-east-1-123456789012")
        if bucket.creation_date:  # the one before has made it
            bucket.objects.all().delete()
            bucket.delete()
        life.say(command, "--yes", *HERE, *given, when="without --role and --bucket")
    del life.on["GetCallerIdentity"]


def with_a_prefix(life, commands, tmp_path):
    bucket = life.aws.resource("s3").create_bucket(Bucket="sagemaker-us-east-1-123456789012")
    (tmp_path / "defaults.yaml").write_text(DEFAULTS)
    with life.monkeypatch.context() as patch:
        patch.setenv("SAGEMAKER_USER_CONFIG_OVERRIDE", str(tmp_path / "defaults.yaml"))
        for command, given in commands.items():
            life.say(command, "--yes", *HERE, "--role", ROLE, *given, when="with an administrator's prefix")
    assert any(item.key.startswith("team/distilling-bert") for item in bucket.objects.all())


def by_the_job(life):
    life.aws.client("secretsmanager").create_secret(Name="hub", SecretString="hf_token")
    life.asking = "a job with --hub-secret"
    with life.monkeypatch.context() as patch:
        patch.setattr(boto3, "client", life.aws.client)
        patch.setenv("HF_TOKEN", "")
        container.read_hub_token({"KD_HUB_SECRET": "hub", "AWS_DEFAULT_REGION": "us-east-1"})
    life.asking = ""


def recorded():
    return json.loads(CALLS_FILE.read_text(encoding="utf-8"))


def test_every_recorded_call_has_its_right_and_cost_and_none_that_nobody_makes():
    assert set(recorded()) == {call.operation for call in rights.CALLS}


def test_what_only_the_job_asks_is_a_right_of_its_role_alone():
    asked = {name for name, commands in recorded().items() if all(one.startswith("a job") for one in commands)}
    assert asked == {call.operation for call in rights.CALLS if call.by_the_job}
    assert "secretsmanager" not in json.dumps(rights.user_policy(sagemaker.JobPlan(hub_secret="hub")))


def test_the_policies_allow_the_calls_and_name_no_right_that_is_none():
    plan = sagemaker.JobPlan(bucket="sagemaker-mine", hub_secret="hub")
    policies = rights.user_policy(plan), rights.role_policy(plan)
    allowed = {right for policy in policies for statement in policy["Statement"] for right in statement["Action"]}
    for call in rights.CALLS:
        assert call.right in allowed or ":" not in call.right, call
    session = botocore.session.get_session()
    services = {"servicequotas": "service-quotas", "tag": "resourcegroupstaggingapi"}
    not_operations = {
        "s3:ListBucket",
        "s3:ListAllMyBuckets",
        "iam:PassRole",
        "sagemaker:InvokeEndpoint",
    }  # rights of another name
    for right in allowed - not_operations:
        service, _, operation = right.partition(":")
        names = session.get_service_model(services.get(service, service)).operation_names
        names = [*names, "DeleteObject", "GetBucketLocation"]
        assert operation in names, right
    assert "InvokeEndpoint" in session.get_service_model("sagemaker-runtime").operation_names


def test_nobody_may_end_what_does_not_carry_the_projects_tag():
    for statement in rights.user_policy(sagemaker.JobPlan(bucket="b"))["Statement"]:
        if any(
            action.startswith(("sagemaker:Delete", "sagemaker:Stop", "sagemaker:Update"))
            for action in statement["Action"]
        ):
            assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/project": "distilling-bert"}}
        if "sagemaker:AddTags" in statement["Action"]:
            made = statement["Condition"]["StringEquals"]["sagemaker:TaggingAction"]
            assert set(made) == {"CreateTrainingJob", "CreateModel", "CreateEndpointConfig", "CreateEndpoint"}
        if "iam:PassRole" in statement["Action"]:
            assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_rights_are_written_and_said_how_they_are_used(tmp_path, life, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = life.say("rights", "--bucket", "sagemaker-mine", "--region", "eu-west-1")
    for name in ("trust", "role", "user"):
        policy = json.loads((tmp_path / "sagemaker-rights" / f"{name}.json").read_text())
        assert policy["Version"] == "2012-10-17"
        assert f"file://sagemaker-rights/{name}.json" in told
    assert "arn:aws:s3:::sagemaker-mine/*" in (tmp_path / "sagemaker-rights" / "role.json").read_text()
    assert "s3 mb s3://sagemaker-mine --region eu-west-1" in told
    assert "give --bucket sagemaker-mine to" in told
    assert "'ml.g5.xlarge for training job usage'" in told
    more = ["--subnets", "subnet-0a", "--kms-key", "alias/k", "--mlflow", SERVER, "--spot", "--instances", "8"]
    told = life.say("rights", "--region", "us-gov-west-1", *more, "--keep-alive-minutes", "9", "--output", "more")
    texts = {name: (tmp_path / "more" / f"{name}.json").read_text() for name in ("role", "user")}
    for right in ("ec2:CreateNetworkInterface", "kms:GenerateDataKey", "sagemaker-mlflow:*"):
        assert right in texts["role"]
    assert "kms:GenerateDataKey" in texts["user"]
    assert "arn:aws-us-gov:s3:::" in texts["role"]
    assert "arn:aws:" not in texts["role"].replace(SERVER, "")
    assert "spot training job usage" in told
    assert "training warm pool usage" in told
    assert "--desired-value 8" in told
    life.say("rights", code=2)


def test_the_table_names_the_commands_of_every_call():
    lines = results.aws_calls(None).splitlines()
    assert {line.count("|") for line in lines} == {5}
    assert len(lines) == 2 + len(recorded())
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[2] for line in lines}
    assert cells["s3 PutObject"] == "launch, label, endpoint"
    assert cells["s3 GetObject"] == "launch --output, status --output"
    assert cells["s3 CreateBucket"] == "launch, label, endpoint without --role and --bucket"
    assert cells["sagemaker StopTrainingJob"] == "clean --yes"
    assert cells["secretsmanager GetSecretValue"] == "a job with --hub-secret"
