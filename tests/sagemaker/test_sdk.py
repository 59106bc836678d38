"""The request that the SDK would send for a plan, held against AWS's own description of it."""

import importlib
import json
import re
from dataclasses import replace

import boto3
import botocore.session
import pytest
from botocore.exceptions import UnauthorizedSSOTokenError

from kdhelpers.__main__ import main
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import JobPlan, Rehearsal, check, find_region, sdk
from tests.sagemaker.conftest import ROLE, with_options

ABOVE = JobPlan({"recipe": "sst2"})


def test_the_request_that_the_sdk_would_send(plan):
    spot = {"spot": True, "max_wait_minutes": 90, "instance": "ml.g5.12xlarge"}
    request = check(replace(plan, tags={"team": "a"}, role=ROLE, **spot))
    given = request["HyperParameters"]
    assert given["teacher"] == "/opt/ml/input/data/teacher"
    assert given["train"] == "/opt/ml/input/data/train/train.csv"
    assert given["checkpoints"] == request["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    channels = {channel["ChannelName"] for channel in request["InputDataConfig"]}
    assert channels == {"train", "validation", "test", "teacher", "code", "sm_drivers"}
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 5400}
    assert request["EnableManagedSpotTraining"] is True
    assert request["RoleArn"] == ROLE
    assert request["Tags"] == [{"Key": "team", "Value": "a"}, {"Key": "project", "Value": "distilling-bert"}]
    assert len(request["AlgorithmSpecification"]["MetricDefinitions"]) == len(sdk.METRICS)


def test_a_machine_with_several_gpus_gets_torchrun_with_a_process_for_each(plan):
    told = []
    several = replace(plan, instance="ml.g5.12xlarge")
    sdk.training_request(several, lambda path, channel: told.extend(file.read_text() for file in path.rglob("*.json")))
    assert [json.loads(text)["process_count_per_node"] for text in told if "process_count_per_node" in text] == [4]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: replace(p, instance="ml.g5.tiny"), "no machine ml.g5.tiny"),
        (lambda p: replace(p, instance="ml.g5.2xlarg"), "did you mean ml.g5.2xlarge?"),
        (lambda p: replace(p, instance="ml.m5.xlarge"), "a machine with a GPU"),
        (lambda p: replace(p, region="xx-moon-1"), "in xx-moon-1"),
        (lambda p: replace(p, instance="g5.2xlarge"), "did you mean ml.g5.2xlarge?"),
        (lambda p: replace(p, tags={"team": "v" * 300}), "tag team"),
        (lambda p: with_options(p, label_column="x" * 2501), "hyperparameter label_column"),
        (lambda p: replace(with_options(p, temparature=3), name="my_job"), "--temperature?; also: "),
    ],
)
def test_what_aws_would_refuse_is_refused_here(spoil, words):
    with pytest.raises(UserError) as refused:
        check(spoil(ABOVE))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_lies_in_s3_stays_there(plan):
    there = {"train": "s3://mine/corpus.parquet", "teacher": "s3://mine/minilm-v1.5"}
    request = check(replace(with_options(plan, **there), logits="s3://mine/logits"))
    addresses = {c["ChannelName"]: c["DataSource"]["S3DataSource"]["S3Uri"] for c in request["InputDataConfig"]}
    assert there | {"logits": "s3://mine/logits"} == {name: addresses[name] for name in (*there, "logits")}
    assert request["HyperParameters"]["teacher"] == "/opt/ml/input/data/teacher"


def test_the_image_is_the_one_that_the_sdk_knows():
    from sagemaker.core import image_uris

    def known(version, torch, instance, scope):
        return image_uris.retrieve(
            "huggingface", region="eu-west-1", version=version, py_version="py312", instance_type=instance,
            image_scope=scope, base_framework_version=torch,
        )  # fmt: skip

    try:
        training = known("5.3.0", "pytorch2.9.0", "ml.g5.xlarge", "training")
        inference_images = [known("5.5.3", "pytorch2.6.0", i, "inference") for i in ("ml.m5.large", "ml.g5.xlarge")]
    except ValueError:
        pytest.skip("this SDK is older than the images")
    assert sdk.image_address("training", "eu-west-1", "ml.g5.xlarge") == training
    ours = [sdk.image_address("inference", "eu-west-1", instance) for instance in ("ml.m5.large", "ml.g5.xlarge")]
    assert ours == inference_images


def test_telemetry_is_off_unless_asked_for(monkeypatch):
    session = boto3.Session("nobody", "nothing", region_name="us-east-1")

    def opted_out():
        return sdk.sdk_session(session, "b").sagemaker_config["SageMaker"]["PythonSDK"]["Modules"]["TelemetryOptOut"]

    assert opted_out() is True
    monkeypatch.setenv("KD_TELEMETRY", "on")
    assert opted_out() is False


def test_a_check_leaves_no_client_with_empty_credentials_behind():
    """SDK 3.7 keeps one client for the whole process: a launch after a check would be signed by nobody."""
    from sagemaker.core.utils.utils import SageMakerClient

    sdk.training_request(ABOVE)
    mine = boto3.Session("mine", "secret", region_name="us-east-1")
    with sdk.quiet_sdk():
        client = SageMakerClient(session=mine, region_name="us-east-1").get_client("sagemaker")
    assert client._request_signer._credentials.access_key == "mine"
    assert SageMakerClient not in type(SageMakerClient)._instances


# --- what AWS says no to

QUOTA = "The account-level service limit 'ml.g5.xlarge for training job usage' is 0 Instances"
DENIED = "User: arn:aws:iam::123456789012:user/a is not authorized to perform: sagemaker:CreateTrainingJob on resource"
ELSEWHERE = "The bucket is in this region: eu-west-1. Please use this region to retry the request"


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        ("NoCredentialsError", "Unable to locate credentials", ["aws configure"]),
        ("ExpiredTokenException", "The security token included in the request is expired", ["aws sso login"]),
        ("UnrecognizedClientException", "The security token is invalid", ["aws configure"]),
        ("AccessDeniedException", DENIED, ["does not allow", "sagemaker:CreateTrainingJob"]),
        ("403", "Forbidden", ["does not allow"]),
        ("ResourceLimitExceeded", QUOTA, ["Service Quotas", "'ml.g5.xlarge for training job usage' is 0"]),
        ("ValidationException", ELSEWHERE, ["--bucket and --region", "eu-west-1"]),
        ("NoSuchBucket", "The specified bucket does not exist", ["--bucket and --region"]),
        ("CapacityError", "Unable to provision requested ML compute capacity", ["no such machine free"]),
        ("SomethingNew", "what\never", ["AWS says SomethingNew: what ever"]),
        ("ValidationException", "Could not find requested job", ["nothing of this name", "--region"]),
        ("ValidationException", "Requested resource not found.", ["nothing of this name"]),
        ("EndpointConnectionError", 'Could not connect to the endpoint URL: "https://x"', ["check the network"]),
        ("ConnectTimeoutError", "Connect timeout on endpoint URL", ["cannot be reached"]),
        ("ThrottlingException", "Rate exceeded", ["repeat the command"]),
        ("the job failed", "ClientError: it could not find train.csv: Timeout", ["AWS says the job failed"]),
    ],
)
def test_aws_says_no_in_one_sentence(code, message, words):
    said = sdk.explain(code, message)
    assert all(word in said for word in words)
    assert "\n" not in said


def test_what_boto3_raises_is_one_sentence_too(aws, monkeypatch):
    """Not every no comes as a ClientError."""
    for attempt, words in (
        (lambda: aws.client("s3").upload_file(__file__, "nowhere", "key"), "--bucket and --region"),
        (lambda: aws.client("sagemaker").create_model(), "AWS says ParamValidationError: .*Missing required"),
        (lambda: boto3.Session(profile_name="nope"), "AWS_PROFILE"),
    ):
        with pytest.raises(UserError, match=words) as told, sdk.aws_errors():
            attempt()
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="aws sso login"), sdk.aws_errors():
        raise UnauthorizedSSOTokenError
    with pytest.raises(ZeroDivisionError), sdk.aws_errors():
        1 / 0  # noqa: B018


@pytest.fixture(params=["profile", "file", "region"])
def broken(request, tmp_path, monkeypatch):
    """An AWS configuration that botocore or boto3 stops at."""
    (tmp_path / "config").write_text("[default\nregion")
    name, value = {
        "profile": ("AWS_PROFILE", "nope"),
        "file": ("AWS_CONFIG_FILE", str(tmp_path / "config")),
        "region": ("AWS_DEFAULT_REGION", "eu_west_1"),
    }[request.param]
    monkeypatch.setenv(name, value)


@pytest.mark.parametrize("command", ["plan", "check", "rehearse", "rights"])
def test_what_needs_no_aws_works_with_a_broken_aws_configuration(broken, command, capsys, monkeypatch, tmp_path):
    there = Rehearsal(0, 1.0, tmp_path / "model", tmp_path / "log", "")
    monkeypatch.setattr(importlib.import_module("kdhelpers.sagemaker.rehearse"), "run", lambda *given: there)
    for number, given in enumerate(([], ["--region", "eu-west-1"])):
        place = {"rehearse": "--folder", "rights": "--output"}.get(command)
        more = [place, str(tmp_path / f"new-{number}")] if place else []
        more += [] if command == "rights" else ["--recipe", "sst2"]
        assert main(["sagemaker", command, *given, *more]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        assert ("note: the region is us-east-1" in said) == (not given)
        if command == "plan":
            assert f"in {'eu-west-1' if given else 'us-east-1'}, role" in said


def test_what_needs_aws_says_in_a_sentence_what_is_broken(broken, capsys):
    with pytest.raises(UserError) as told:
        find_region()
    assert "\n" not in str(told.value)
    assert main(["sagemaker", "launch", "--recipe", "sst2", "--yes"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


DEFAULTS = """
SchemaVersion: "1.0"
SageMaker:
  PythonSDK: {Modules: {Session: {DefaultS3Bucket: corp-bucket, DefaultS3ObjectKeyPrefix: teams/a}}}
  TrainingJob:
    RoleArn: ROLE
    EnableNetworkIsolation: ISOLATED
    VpcConfig: {Subnets: [subnet-0a], SecurityGroupIds: [sg-0b]}
    OutputDataConfig: {KmsKeyId: alias/corp}
    ResourceConfig: {VolumeKmsKeyId: alias/disk}
    Environment: {PROXY_OF: corp}
    Tags: [{Key: cost-centre, Value: "7"}]
"""


@pytest.fixture
def administrator(tmp_path, monkeypatch):
    def write(isolated):
        path = tmp_path / "config.yaml"
        path.write_text(DEFAULTS.replace("ROLE", ROLE).replace("ISOLATED", str(isolated).lower()))
        monkeypatch.setenv("SAGEMAKER_ADMIN_CONFIG_OVERRIDE", str(path))
        return path

    return write


def test_an_administrators_defaults_hold(administrator, plan):
    administrator(isolated=True)
    request = check(plan)
    assert request["RoleArn"] == ROLE
    assert request["VpcConfig"] == {"Subnets": ["subnet-0a"], "SecurityGroupIds": ["sg-0b"]}
    assert request["EnableNetworkIsolation"] is True
    assert request["OutputDataConfig"]["KmsKeyId"] == "alias/corp"
    assert "VolumeKmsKeyId" not in request["ResourceConfig"], "AWS refuses it for a disk of the machine's own"
    assert request["Environment"] == {"PROXY_OF": "corp"}
    assert {"Key": "cost-centre", "Value": "7"} in request["Tags"]
    address = request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    assert address.startswith("s3://corp-bucket/teams/a/distilling-bert-")
    own = check(replace(plan, subnets="subnet-0c, subnet-0d", security_groups="sg-0e", kms_key="alias/own"))
    assert own["VpcConfig"] == {"Subnets": ["subnet-0c", "subnet-0d"], "SecurityGroupIds": ["sg-0e"]}
    assert own["OutputDataConfig"]["KmsKeyId"] == "alias/own"


def test_a_key_encrypts_the_disk_of_a_machine_that_is_not_known_to_have_one_of_its_own(plan):
    encrypted = replace(plan, kms_key="alias/own")
    unknown = replace(encrypted, instance="ml.g7.48xlarge", processes=8)
    assert check(unknown)["ResourceConfig"]["VolumeKmsKeyId"] == "alias/own"
    assert "VolumeKmsKeyId" not in check(encrypted)["ResourceConfig"]


def test_an_administrators_defaults_do_not_switch_telemetry_on(administrator):
    administrator(isolated=False)
    session = sdk.sdk_session(boto3.Session("nobody", "nothing", region_name="us-east-1"), None)
    assert session.sagemaker_config["SageMaker"]["PythonSDK"]["Modules"]["TelemetryOptOut"] is True
    assert session.default_bucket_prefix == "teams/a"


def test_defaults_that_cannot_be_read_are_one_sentence(administrator):
    administrator(isolated=False).write_text("SageMaker: [")
    with pytest.raises(UserError, match="defaults cannot be read"):
        check(ABOVE)


def test_a_job_without_a_network_may_not_need_one(administrator, plan):
    assert check(replace(plan, network_isolation=True))["EnableNetworkIsolation"] is True
    with pytest.raises(UserError, match=r"would have to fetch textattack/.*glue"):
        check(replace(ABOVE, network_isolation=True))
    administrator(isolated=True)
    with pytest.raises(UserError, match="SDK's defaults"):
        check(ABOVE)


def test_on_demand_nobody_pays_for_checkpoints_that_nobody_needs(plan):
    assert "CheckpointConfig" not in check(plan)
    for more in ({"keep_checkpoints": True}, {"spot": True, "max_wait_minutes": 60}, {"stage": "label"}):
        assert check(replace(plan, **more))["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"


def test_a_label_job_of_several_machines(plan):
    request = check(replace(plan, stage="label", instances=8, shard_rows=500, environment={"A": "b"}))
    assert request["ResourceConfig"]["InstanceCount"] == 8
    assert request["Environment"] == {"A": "b", "KD_STAGE": "label", "KD_SHARD_ROWS": "500"}


def test_a_warm_pool_a_disk_and_a_tracking_server(plan):
    assert check(replace(plan, keep_alive_minutes=10))["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert check(replace(plan, volume_gb=100))["ResourceConfig"]["VolumeSizeInGB"] == 100
    server = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/mine"
    uploaded = []
    tracked = replace(with_options(plan, report_to="mlflow"), mlflow=server)
    request = sdk.training_request(tracked, lambda path, channel: uploaded.extend(path.rglob("requirements.txt")))
    assert request["Environment"]["MLFLOW_TRACKING_URI"] == server
    assert len(uploaded) == 1


def test_the_next_image_is_taken_where_the_sdk_lists_it(monkeypatch):
    from sagemaker.core import image_uris

    look_up = image_uris.retrieve
    listed = "1.dkr.ecr.us-east-1.amazonaws.com/hf:2.11.0-transformers5.13.1-gpu-py312-cu130-amzn2023"

    def retrieve(framework, *, version, **more):
        if version == sdk.NEXT_TRAINING[0] and more["region"] == "us-east-1":
            return listed
        return look_up(framework, version=version, **more)

    monkeypatch.setattr(image_uris, "retrieve", retrieve)
    assert sdk.image_address("training", "us-east-1", "ml.g5.xlarge") == listed
    assert sdk.image_address("training", "eu-west-1", "ml.g5.xlarge").endswith(sdk.TRAINING_TAG)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ValidationException: Could not assume role arn:aws:iam::1:role/x. Please ensure", "trust sagemaker"),
        ("ClientError: Data download failed:NoSuchKey (404): No S3 objects found under S3 URL", "s3:ListBucket"),
    ],
)
def test_a_first_timers_failures_are_named_by_their_cause(said, words):
    assert words in sdk.explain(*said.split(": ", 1))


def test_two_launches_of_the_same_second_have_names_of_their_own(plan):
    names = {check(plan)["TrainingJobName"] for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch(r"distilling-bert-[0-9a-f]{4}-\d{14}", name) for name in names)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: r.update(TrainingJobName="a_b"), "TrainingJobName: 'a_b' does not match"),
        (lambda r: r.update(TrainingJobName="a" * 64), "TrainingJobName: 64, and at most 63"),
        (lambda r: r["ResourceConfig"].update(InstanceType="ml.g5.tiny"), "'ml.g5.tiny' is none of AWS's"),
        (lambda r: r["ResourceConfig"].update(KeepAlivePeriodInSeconds=10**6), "KeepAlivePeriodInSeconds: 1000000"),
        (lambda r: r["HyperParameters"].update(text="x" * 2501), "HyperParameters.text: 2501"),
        (lambda r: r.update(RoleArn="arn:aws:iam::1:user/ann"), "RoleArn"),
    ],
)
def test_what_botocore_does_not_look_at_is_looked_at(spoil, words):
    """Its validator knows kinds and minima only: no name, no pattern, no maximum."""
    shape = botocore.session.get_session().get_service_model("sagemaker")
    shape = shape.operation_model("CreateTrainingJob").input_shape
    request = check(ABOVE)
    assert list(sdk.beyond_limits(request, shape)) == []
    spoil(request)
    (said,) = list(sdk.beyond_limits(request, shape))[:1]
    assert words in said


def test_who_signs_in_by_sso_and_lacks_a_right_is_not_sent_to_sign_in_again():
    who = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_PowerUser_0123/ann"
    said = sdk.explain("AccessDeniedException", f"User: {who} is not authorized to perform: iam:PassRole")
    assert "does not allow this" in said
    assert "aws sso login" in sdk.explain("UnauthorizedSSOTokenError", "The SSO session has expired")
