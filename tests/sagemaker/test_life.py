"""The whole life of a job, command by command, with two owners in one account; every call to AWS is in the table."""

import json
import re

import botocore.client
import botocore.session
import pytest
from moto.sagemaker.models import sagemaker_backends

from kdhelpers import sagemaker
from kdhelpers.__main__ import main
from kdhelpers.sagemaker import cloud, rights
from tests.sagemaker.conftest import ROLE, as_argv, stand
from tests.sagemaker.test_cloud import deliver

COMMAND = [""]  # the one that is being run
SERVER = "arn:aws-us-gov:sagemaker:us-gov-west-1:123456789012:mlflow-tracking-server/mine"
PLACE = ["--role", ROLE, "--bucket", "mine"]


@pytest.fixture
def calls(aws, monkeypatch):
    """What is asked of AWS from here on, and by which command: {"service Operation": {"launch", ...}}."""
    made, inside, send = {}, [], botocore.client.BaseClient._make_api_call

    def record(client, name, parameters):
        if not inside:  # what the fake itself asks of moto does not count
            made.setdefault(f"{client.meta.service_model.service_name} {name}", set()).add(COMMAND[0])
        if name == "InvokeEndpoint":  # moto answers with what it was given
            answers = [{"label": "positive", "score": 1.0}] * len(json.loads(parameters["Body"])["inputs"])
            return {"Body": Answer(json.dumps(answers))}
        if name == "StopTrainingJob":  # moto's are over at once, and cannot be stopped
            return {}
        inside.append(name)
        try:
            return send(client, name, parameters)
        finally:
            inside.pop()

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
    return made


class Answer(str):
    read = str.__str__


def said(capsys, *command, code=0):
    COMMAND[0] = command[0]
    assert main(["sagemaker", *command]) == code, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.slow
def test_from_a_plan_to_an_empty_account(aws, calls, plan, rehearsed, tmp_path, capsys, monkeypatch):
    jobs = sagemaker_backends["123456789012"]["us-east-1"].training_jobs
    stand(aws, "anns", project="distilling-bert", owner="user/ann")
    # moto's jobs leave nothing: what one would have left is a rehearsal's
    left, describe = deliver(aws, rehearsed[0].model), cloud.describe
    calls.clear()
    said(capsys, "plan", *as_argv(plan))
    said(capsys, "check", *as_argv(plan))
    assert calls == {}, "neither needs AWS"

    told = said(capsys, "launch", "--yes", *PLACE, "--spot", "--max-wait-minutes", "60", *as_argv(plan))
    name = re.search(r"launched (\S+)", told)[1]
    jobs[name].training_job_status = "Stopped"
    told = said(capsys, "launch", "--from", name, "--max-minutes", "90", "--yes", "--region", "us-east-1")
    again = re.search(r"launched (\S+),", told)[1]
    monkeypatch.setattr(cloud, "describe", lambda *given: describe(*given) | left)
    home = tmp_path / "home"
    told = said(capsys, "status", again, "--follow", "--output", str(home), "--region", "us-east-1")
    assert f"brought home to {home}" in told

    told = said(capsys, "label", "--yes", *PLACE, "--instances", "1", *as_argv(plan))
    labelling = re.search(r"launched (\S+)", told)[1]
    jobs[labelling].training_job_status = "InProgress"

    told = said(capsys, "endpoint", str(home), "--yes", *PLACE)
    assert "nothing while nobody asks" in told
    assert "'label': 'positive'" in told
    assert "the endpoint is deleted" in told

    stand(aws, "forgotten", project="distilling-bert", owner=cloud.owner())
    told = said(capsys, "clean", "--region", "us-east-1", "--s3")
    assert f"training_job {labelling}" in told
    assert "1.41 USD an hour" in told
    assert "endpoint forgotten" in told
    assert ": a student" not in told, "moto's jobs leave nothing"
    assert "anns" not in told
    assert len(re.findall(r"files s3://mine/distilling-bert-\S+ .* MB", told)) == 1, "the second job read the first's"
    told = said(capsys, "clean", labelling, "--yes", "--region", "us-east-1")
    assert told.count("deleted or stopped") == 1
    assert main(["sagemaker", "clean", "anns", "--yes", "--region", "us-east-1"]) == 2
    assert "is called anns" in capsys.readouterr().err
    jobs[labelling].training_job_status = "Stopped"
    told = said(capsys, "clean", "--yes", "--s3", "--region", "us-east-1")
    assert "3 more are others'" in told
    assert "nothing of" in said(capsys, "clean", "--s3", "--region", "us-east-1")
    asked = {operation: set(commands) for operation, commands in calls.items()}
    assert [model["ModelName"] for model in aws.client("sagemaker").list_models()["Models"]] == ["anns"]
    left = aws.client("s3").list_objects_v2(Bucket="mine").get("Contents", [])
    assert {item["Key"] for item in left} == {"model.tar.gz"}, "the rehearsal's, which is no job's"

    known = {call.operation: call.commands for call in rights.CALLS}
    assert asked.keys() - known.keys() == set(), "calls that the table lacks"
    # the SDK's, for a bucket, a prefix or a role that is not named; and a warm pool's, which moto does not have
    only_elsewhere = {"s3 CreateBucket", "s3 ListObjectsV2", "iam GetRole", "sagemaker UpdateTrainingJob"}
    assert known.keys() - asked.keys() == only_elsewhere, "calls that nobody makes"
    for operation, commands in asked.items():
        assert commands <= set(re.findall(r"\w+", known[operation])), operation


def test_the_policies_allow_the_calls_and_name_no_right_that_is_none():
    plan = sagemaker.JobPlan(bucket="sagemaker-mine")
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


def test_rights_are_written_and_said_how_they_are_used(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = said(capsys, "rights", "--bucket", "sagemaker-mine", "--region", "eu-west-1")
    for name in ("trust", "role", "user"):
        policy = json.loads((tmp_path / "sagemaker-rights" / f"{name}.json").read_text())
        assert policy["Version"] == "2012-10-17"
        assert f"file://sagemaker-rights/{name}.json" in told
    assert "arn:aws:s3:::sagemaker-mine/*" in (tmp_path / "sagemaker-rights" / "role.json").read_text()
    assert "s3 mb s3://sagemaker-mine --region eu-west-1" in told
    assert "give --bucket sagemaker-mine to" in told
    assert "'ml.g5.xlarge for training job usage'" in told
    more = ["--subnets", "subnet-0a", "--kms-key", "alias/k", "--mlflow", SERVER, "--spot", "--instances", "8"]
    told = said(capsys, "rights", "--region", "us-gov-west-1", *more, "--keep-alive-minutes", "9", "--output", "more")
    texts = {name: (tmp_path / "more" / f"{name}.json").read_text() for name in ("role", "user")}
    for right in ("ec2:CreateNetworkInterface", "kms:GenerateDataKey", "sagemaker-mlflow:*"):
        assert right in texts["role"]
    assert "kms:GenerateDataKey" in texts["user"]
    assert "arn:aws-us-gov:s3:::" in texts["role"]
    assert "arn:aws:" not in texts["role"].replace(SERVER, "")
    assert "spot training job usage" in told
    assert "training warm pool usage" in told
    assert "--desired-value 8" in told
    said(capsys, "rights", code=2)


def test_the_table_of_calls_is_complete_markdown():
    lines = sagemaker.calls_table()
    assert {line.count("|") for line in lines} == {5}
    assert len(lines) == 2 + len(rights.CALLS)
