"""A job on tiny models, laid out and run once; and an AWS that is moto's, without credentials, profile or region."""

import dataclasses
import importlib

import pandas as pd
import pytest

pytest.importorskip("sagemaker.train")
pytest.importorskip("moto")

import boto3
import botocore.client
from botocore.exceptions import ClientError
from moto import mock_aws

from kdhelpers import models
from kdhelpers.sagemaker import JobPlan, cloud
from tests import loopback
from tests.tiny import save_model, teachable_rows, tiny_tokenizer, trained_tiny_teacher

rehearse = importlib.import_module("kdhelpers.sagemaker.rehearse")  # the room offers a function of this name
ROLE = "arn:aws:iam::123456789012:role/training"
PLACE = JobPlan({"recipe": "sst2"}, role=ROLE, bucket="mine")
QUOTA = {"QuotaName": "ml.g5.xlarge for training job usage", "Value": 1.0}


def with_options(plan, **options):
    return dataclasses.replace(plan, hyperparameters=plan.hyperparameters | options)


def as_argv(plan):
    return [part for name, value in plan.hyperparameters.items() for part in (f"--{name}", str(value))]


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.delenv("KD_ROLE_ARN", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session", autouse=True)
def guarded_jobs():
    """A rehearsed job has an environment and a start-up file of its own: the guard goes into that."""
    patch = pytest.MonkeyPatch()
    patch.setattr(rehearse, "ONLY_THE_UPLOADED_CODE", rehearse.ONLY_THE_UPLOADED_CODE + loopback.START_UP)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def plan(tmp_path_factory):
    """A job on files that tiny models can learn from, three checkpoints long."""
    folder = tmp_path_factory.mktemp("files")
    teacher = models.set_labels(trained_tiny_teacher(), ["bad", "good"])
    files = {"teacher": str(save_model(folder / "teacher", teacher, tiny_tokenizer()))}
    for seed, (name, n) in enumerate((("train", 256), ("validation", 64), ("test", 64))):
        rows = teachable_rows(n, seed=seed)
        table = pd.DataFrame({"text": [r["text"] for r in rows], "label": [["bad", "good"][r["label"]] for r in rows]})
        table.to_csv(folder / f"{name}.csv", index=False)
        files[name] = str(folder / f"{name}.csv")
    options = {"student_layers": 1, "epochs": 3, "batch_size": 16, "drop_leaks": True, "alpha": 0.5}
    return JobPlan(files | {"controls": "none", "precision": "fp32"} | options)


@pytest.fixture(scope="session")
def staged(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    rehearse.stage(dataclasses.replace(plan, network_isolation=True), folder)  # it needs none, and gets none
    return folder


@pytest.fixture(scope="session")
def rehearsed(staged):
    lines = []
    result = rehearse.run(staged, say=lines.append)
    assert result.exit_code == 0, result.log.read_text()[-3000:]
    return result, lines


def counted(session):
    client = session.client("sagemaker")
    return [
        len(client.list_endpoints()["Endpoints"]),
        len(client.list_endpoint_configs()["EndpointConfigs"]),
        len(client.list_models()["Models"]),
    ]


def stand(session, name, **tags):
    """A model, a configuration and an endpoint of one name."""
    client, tags = session.client("sagemaker"), [{"Key": key, "Value": value} for key, value in tags.items()]
    image = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/i:1"}
    client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=image, Tags=tags)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
    client.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tags)


@pytest.fixture
def student(tmp_path):
    """A folder that looks like a run's."""
    (tmp_path / "run" / "student").mkdir(parents=True)
    (tmp_path / "run" / "student" / "config.json").write_text("{}")
    return tmp_path / "run"


def tagged(session, wanted):
    """What moto's SageMaker holds under a tag, as the tagging service would list it."""
    client, found = session.client("sagemaker"), []
    lists = {
        "training_jobs": ("TrainingJobSummaries", "TrainingJobArn"),
        "endpoints": ("Endpoints", "EndpointArn"),
        "endpoint_configs": ("EndpointConfigs", "EndpointConfigArn"),
        "models": ("Models", "ModelArn"),
    }
    for kind, (summaries, arn) in lists.items():
        for item in getattr(client, f"list_{kind}")()[summaries]:
            tags = client.list_tags(ResourceArn=item[arn])["Tags"]
            if {"Key": wanted["Key"], "Value": wanted["Values"][0]} in tags:
                found.append({"ResourceARN": item[arn], "Tags": tags})
    return found


@pytest.fixture
def aws(monkeypatch):
    """A fake account with a role and a bucket."""
    with mock_aws():
        session = boto3.Session("nobody", "nothing", region_name="us-east-1")
        session.client("s3").create_bucket(Bucket="mine")
        monkeypatch.setattr(cloud, "boto_session", lambda region: session)
        send = botocore.client.BaseClient._make_api_call

        def without_empty_fields(client, name, parameters):
            if name == "GetResources":  # moto does not know SageMaker's there
                return {"ResourceTagMappingList": tagged(session, parameters["TagFilters"][0])}
            if "WarmPoolStatusEquals" in parameters:  # moto has none, and lists every job
                return {"TrainingJobSummaries": []}
            if name == "ListServiceQuotas":
                return {"Quotas": [QUOTA]}
            if name == "ListAWSDefaultServiceQuotas":
                return {"Quotas": []}
            # moto answers {} where AWS leaves a field out, and the SDK's models refuse that
            return {key: value for key, value in send(client, name, parameters).items() if value != {}}

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", without_empty_fields)
        yield session


@pytest.fixture
def interrupt_after(monkeypatch):
    """interrupt_after(operation): AWS does it, and Ctrl-C comes before the answer."""

    def replace(operation):
        send = botocore.client.BaseClient._make_api_call

        def one(client, name, parameters):
            answer = send(client, name, parameters)
            if name == operation:
                raise KeyboardInterrupt
            return answer

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", one)

    return replace


@pytest.fixture
def respond(monkeypatch):
    """respond(operation, *answers): from now on one AWS operation gives these, one a call and the last for ever.

    An answer that is text is a refusal. Returns a list that the calls end up in.
    """

    def replace(operation, *answers):
        send, calls, answers = botocore.client.BaseClient._make_api_call, [], list(answers)

        def one(client, name, parameters):
            if name != operation:
                return send(client, name, parameters)
            calls.append(parameters)
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is ...:
                return send(client, name, parameters)
            if isinstance(answer, str):
                code, _, message = answer.partition(": ")
                raise ClientError({"Error": {"Code": code, "Message": message}}, name)
            return answer

        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", one)
        return calls

    return replace
