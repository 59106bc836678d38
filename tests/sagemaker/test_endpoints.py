"""Endpoints on AWS, as far as moto and answers of ours can play it: what they are, cost, and that they go."""

import io
import tarfile
from dataclasses import replace

import pytest

from kdhelpers.errors import UserError
from kdhelpers.sagemaker import clean, cloud, endpoint, endpoint_lines, leftovers, mine
from tests.sagemaker.conftest import PLACE, counted, stand


def test_an_endpoint_is_deleted_even_when_the_cell_fails(aws, student):
    seen = []

    def cell():
        with endpoint(student, replace(PLACE, tags={"team": "a"})):
            seen.append(counted(aws))
            (key,) = [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket="mine")["Contents"]]
            archive = io.BytesIO(aws.client("s3").get_object(Bucket="mine", Key=key)["Body"].read())
            with tarfile.open(fileobj=archive) as tar:
                names = {name.removeprefix("./") for name in tar.getnames()}
            assert {"student/config.json", "code/inference.py"} <= names
            (item,) = (item for item in leftovers() if item.kind == "endpoint")
            seen.append(item.owner)
            raise ZeroDivisionError

    pytest.raises(ZeroDivisionError, cell)
    assert seen == [[1, 1, 1], cloud.owner()]
    assert counted(aws) == [0, 0, 0]
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket="mine"), "the archive goes, too"
    with pytest.raises(UserError, match="holds no student"), endpoint(student / "student", PLACE):
        pass
    assert counted(aws) == [0, 0, 0]


def test_an_endpoint_that_never_comes_up_is_deleted(aws, student, respond):
    failed = {"EndpointStatus": "Failed", "FailureReason": "The primary container did not pass the ping health check."}
    respond("DescribeEndpoint", failed)
    with (
        pytest.raises(UserError, match="did not come into service: The primary container did not pass"),
        endpoint(student, PLACE),
    ):
        pytest.fail("it never was in service")
    assert counted(aws) == [0, 0, 0]


def test_an_endpoint_that_is_still_being_made_is_waited_for(aws, student, respond, monkeypatch, capsys):
    """Ctrl-C while it is made: AWS refuses to delete it then, and what it needs may not go before it. Both are said."""
    deleted = respond("DeleteEndpoint", "ValidationException: Cannot update in-progress endpoint", ...)
    asked = respond("DescribeEndpoint", {"EndpointStatus": "Creating"}, {"EndpointStatus": "Creating"}, ...)
    naps, configs = [], respond("DeleteEndpointConfig", ...)

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 1:
            raise KeyboardInterrupt
        assert configs == [], "the endpoint needs it"

    monkeypatch.setattr("botocore.waiter.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt), endpoint(student, PLACE):
        pytest.fail("it never was in service")
    assert (len(deleted), len(configs), len(naps)) == (2, 1, 2)
    begun, waiting = capsys.readouterr().out.splitlines()[-2:]
    assert begun.endswith("is being made, some minutes; Ctrl-C deletes it")
    assert waiting.endswith("is still being made, and can be deleted only then: waiting, some minutes")
    assert len(asked) >= 3
    assert counted(aws) == [0, 0, 0]


def test_what_could_not_be_deleted_is_told_even_when_the_cell_fails(aws, student, respond, monkeypatch):
    respond("DeleteEndpoint", "AccessDeniedException: User: a is not authorized to perform: it")

    def cell():
        with endpoint(student, PLACE):
            raise ZeroDivisionError

    with pytest.raises(UserError, match="not deleted, and perhaps costing money: endpoint distilling-bert-") as told:
        cell()
    assert isinstance(told.value.__context__, ZeroDivisionError)
    assert counted(aws) == [1, 1, 1], "without these it would be stuck"
    stand(aws, "another", project="distilling-bert", owner=cloud.owner())
    with pytest.raises(UserError, match="not deleted"):
        clean(mine(leftovers()))
    monkeypatch.undo()


def test_an_endpoint_is_serverless_unless_a_machine_is_named(aws, student, respond):
    configs, models = respond("CreateEndpointConfig", ...), respond("CreateModel", ...)
    with endpoint(student, PLACE):
        (item,) = (item for item in leftovers() if item.kind == "endpoint")
        assert item.price == 0
    (variant,) = configs[0]["ProductionVariants"]
    assert variant["ServerlessConfig"]["MemorySizeInMB"] in range(1024, 6145, 1024)
    assert "InstanceType" not in variant
    inside = replace(PLACE, subnets="subnet-0a", security_groups="sg-0b", network_isolation=True, kms_key="alias/k")
    with endpoint(student, inside, "ml.m5.large"):
        (item,) = (item for item in leftovers() if item.kind == "endpoint")
        assert "0.12 USD an hour" in str(item)
    assert configs[1]["ProductionVariants"][0]["InstanceType"] == "ml.m5.large"
    assert configs[1]["KmsKeyId"] == "alias/k"
    assert models[1]["VpcConfig"] == {"Subnets": ["subnet-0a"], "SecurityGroupIds": ["sg-0b"]}
    assert models[1]["EnableNetworkIsolation"] is True


def test_an_endpoint_says_what_it_costs_and_what_makes_no_sense():
    assert "nothing while nobody asks" in "\n".join(endpoint_lines(PLACE))
    assert "0.12 USD an hour" in "\n".join(endpoint_lines(PLACE, "ml.m5.large"))
    assert "not known (not in the table: give --price)" in "\n".join(endpoint_lines(PLACE, "ml.m7i.large"))
    assert "about 0.20 USD an hour" in "\n".join(endpoint_lines(replace(PLACE, price=0.2), "ml.m7i.large"))
    with pytest.raises(UserError, match="a GPU would idle"):
        endpoint_lines(PLACE, "ml.g4dn.xlarge")
    with pytest.raises(UserError, match="no VPC and no isolation"):
        endpoint_lines(replace(PLACE, subnets="subnet-0a", security_groups="sg-0b"))


def test_only_what_was_made_is_deleted(aws, student, respond):
    """Where the first step is refused there is nothing to delete, and the refusal is what one reads."""
    respond("CreateModel", "AccessDeniedException: not authorized to perform: sagemaker:CreateModel")
    deleted = [respond(f"Delete{kind}", ...) for kind in ("Endpoint", "EndpointConfig", "Model")]
    with pytest.raises(UserError, match="does not allow this"), endpoint(student, PLACE):
        pytest.fail("it never was")
    assert deleted == [[], [], []]
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket="mine"), "the archive was made, and goes"


def test_ctrl_c_before_aws_has_answered_leaves_nothing(aws, student, interrupt_after):
    """The endpoint is there, and its name was not noted: what it needs may not go alone."""
    interrupt_after("CreateEndpoint")
    with pytest.raises(KeyboardInterrupt), endpoint(student, PLACE):
        pytest.fail("it never was in service")
    assert counted(aws) == [0, 0, 0]


def test_a_folder_that_cannot_be_deployed_is_refused_before_aws_is_asked(student):
    with pytest.raises(UserError, match="holds no student"), endpoint(student / "student", PLACE):
        pytest.fail("nobody has signed in here")


def test_a_second_interruption_leaves_a_sentence(aws, student, respond, monkeypatch):
    respond("DeleteEndpoint", "ValidationException: Cannot update in-progress endpoint")
    respond("DescribeEndpoint", {"EndpointStatus": "Creating"})

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("botocore.waiter.time.sleep", interrupt)
    told = pytest.raises(UserError, match=r"no longer waited for.*clean distilling-bert-\S+ --region us-east-1 --yes")
    with told, endpoint(student, PLACE):
        pytest.fail("it never was in service")


def test_an_endpoint_takes_an_administrators_defaults(aws, student, respond, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("""
SchemaVersion: "1.0"
SageMaker:
  TrainingJob: {Tags: [{Key: cost-centre, Value: "7"}]}
  Model: {EnableNetworkIsolation: true, VpcConfig: {Subnets: [subnet-0a], SecurityGroupIds: [sg-0b]}}
  EndpointConfig: {KmsKeyId: alias/corp}
""")
    monkeypatch.setenv("SAGEMAKER_ADMIN_CONFIG_OVERRIDE", str(tmp_path / "config.yaml"))
    models, configs = respond("CreateModel", ...), respond("CreateEndpointConfig", ...)
    with endpoint(student, PLACE, "ml.m5.large"):
        pass
    assert models[0]["VpcConfig"] == {"Subnets": ["subnet-0a"], "SecurityGroupIds": ["sg-0b"]}
    assert models[0]["EnableNetworkIsolation"] is True
    assert configs[0]["KmsKeyId"] == "alias/corp"
    assert {"Key": "cost-centre", "Value": "7"} in configs[0]["Tags"]
    (student / "model.onnx").touch()
    told, alone = pytest.raises(UserError, match="needs onnxruntime"), replace(PLACE, network_isolation=True)
    with told, endpoint(student, alone, "ml.m5.large"):
        pytest.fail("its container could not fetch it")
