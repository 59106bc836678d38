"""What is left in the account, as far as moto and answers of ours can play it: whose it is, and how it goes."""

import importlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from moto.sagemaker.models import sagemaker_backends

from kdhelpers.errors import UserError
from kdhelpers.sagemaker import check, clean, cloud, leftovers, mine
from tests.sagemaker import conftest
from tests.sagemaker.conftest import PLACE, counted, stand

module = importlib.import_module("kdhelpers.sagemaker.leftovers")  # the room offers a function of this name


def test_clean_deletes_ones_own_and_nobody_elses(aws):
    stand(aws, "mine", project="distilling-bert", owner=cloud.owner())
    stand(aws, "anns", project="distilling-bert", owner="user/ann")
    stand(aws, "nobodys", project="distilling-bert")
    stand(aws, "another", project="other", owner=cloud.owner())
    assert [item.owner for item in leftovers() if item.kind == "model"].count("user/ann") == 1
    found = mine(leftovers())
    assert [(item.kind, item.name) for item in found] == [
        ("endpoint", "mine"), ("endpoint_config", "mine"), ("model", "mine")
    ]  # fmt: skip
    clean(found)
    assert counted(aws) == [3, 3, 3]
    clean(mine(leftovers(), whose="user/ann"))
    assert {item.name for item in leftovers()} == {"nobodys"}
    clean(leftovers())
    assert [model["ModelName"] for model in aws.client("sagemaker").list_models()["Models"]] == ["another"]


def test_clean_stops_ones_own_running_jobs(aws, respond):
    request = check(PLACE)
    ours = [*request["Tags"], {"Key": "owner", "Value": cloud.owner()}]
    for name, status, tags in (
        ("done", "Completed", ours),
        ("mine", "InProgress", ours),
        ("anns", "InProgress", [*request["Tags"], {"Key": "owner", "Value": "user/ann"}]),
    ):
        aws.client("sagemaker").create_training_job(**request | {"TrainingJobName": name, "Tags": tags})
        sagemaker_backends["123456789012"]["us-east-1"].training_jobs[name].training_job_status = status
    stopped = respond("StopTrainingJob", {})
    (job,) = mine(leftovers())
    assert (job.kind, job.name, job.price) == ("training_job", "mine", 1.41)
    clean([job])
    assert stopped == [{"TrainingJobName": "mine"}]
    for meanwhile in ("the training job is in status Completed.", "Requested resource not found."):
        respond("StopTrainingJob", f"ValidationException: {meanwhile}")
        clean([job])


def test_files_in_s3_are_listed_and_deleted_when_asked_for(aws, respond):
    """All but what a running job reads, which may lie in the folder of the job that it goes on from."""
    over, running = cloud.launch(PLACE), cloud.launch(replace(PLACE, name="second"))
    assert [item for item in leftovers() if item.kind == "files"] == [], "only when asked for"
    jobs = sagemaker_backends["123456789012"]["us-east-1"].training_jobs
    jobs[running].training_job_status = "InProgress"
    (files,) = (item for item in leftovers(files=True) if item.kind == "files")
    assert re.fullmatch(rf"s3://mine/distilling-bert-[0-9a-f]{{4}}/{over}/", files.name)
    assert files.megabytes > 0.1
    assert files.owner == cloud.owner()
    assert f"{files.megabytes:.1f} MB: what was uploaded" in str(files)
    jobs[running].input_data_config = jobs[over].input_data_config
    assert [item for item in leftovers(files=True) if item.kind == "files"] == [], "the running job needs them"
    jobs[running].training_job_status = "Completed"
    clean([files])
    left = aws.client("s3").list_objects_v2(Bucket="mine").get("Contents", [])
    assert {item["Key"].split("-")[0] for item in left} == {"second"}


def test_what_a_folder_holds_is_said_before_it_is_deleted():
    keys = [("p/j/output/model.tar.gz", 1), ("p/j/checkpoints/shards-a-5/0-of-1.npy", 1), ("p/j/checkpoints/run/x", 1)]
    assert module._contents("s3://b/p/j/", keys) == "a student and a teacher's answers and checkpoints"
    assert module._contents("s3://b/p/j/", [("p/j/input/code/a.py", 1)]) == "what was uploaded"


def test_only_folders_of_a_things_own_name_are_its_own(aws):
    """A model that somebody tagged and that lies at a bucket's root must not take the bucket with it."""
    for address in ("s3://mine/model.tar.gz", "s3://mine/models/model.tar.gz"):
        assert module._folders("model", "m", {"PrimaryContainer": {"ModelDataUrl": address}}) == set()
    mine_ = {"PrimaryContainer": {"ModelDataUrl": "s3://mine/a/m/model.tar.gz"}}
    assert module._folders("model", "m", mine_) == {"s3://mine/a/m/"}
    for address in ("s3://mine/", "s3://mine", "s3://mine/a"):
        with pytest.raises(UserError, match="no folder of this project's"):
            cloud.delete_folder(aws, address)


def test_a_models_archive_goes_with_it(aws):
    """An endpoint's, whose command was killed: it has no other owner, and `clean --s3` is not asked for."""
    for key in ("a/m/model.tar.gz", "a/other/model.tar.gz"):
        aws.client("s3").put_object(Bucket="mine", Key=key, Body=b"x")
    archive = {
        "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/i:1",
        "ModelDataUrl": "s3://mine/a/m/model.tar.gz",
    }
    tags = [{"Key": "project", "Value": "distilling-bert"}, {"Key": "owner", "Value": cloud.owner()}]
    aws.client("sagemaker").create_model(
        ModelName="m", ExecutionRoleArn=conftest.ROLE, PrimaryContainer=archive, Tags=tags
    )
    clean(mine(leftovers()))
    assert counted(aws) == [0, 0, 0]
    left = aws.client("s3").list_objects_v2(Bucket="mine")["Contents"]
    assert [item["Key"] for item in left] == ["a/other/model.tar.gz"]


def test_an_administrators_output_path_is_found_beside_the_inputs():
    facts = {
        "TrainingJobName": "j", "OutputDataConfig": {"S3OutputPath": "s3://corp/out"},
        "CheckpointConfig": {"S3Uri": "s3://mine/b/j/checkpoints"},
        "InputDataConfig": [
            {"DataSource": {"S3DataSource": {"S3Uri": "s3://mine/b/j/input/code"}}},
            {"DataSource": {"S3DataSource": {"S3Uri": "s3://somebody/rows/train.csv"}}},
        ],
    }  # fmt: skip
    assert module._folders("training_job", "j", facts) == {"s3://corp/out/j/", "s3://mine/b/j/"}


def test_files_that_were_not_deleted_are_told(aws, respond):
    aws.client("s3").put_object(Bucket="mine", Key="a/m/x", Body=b"x")
    respond("DeleteObjects", {"Errors": [{"Key": "a/m/x", "Message": "Access Denied"}]})
    with pytest.raises(UserError, match="1 files of s3://mine/a/m/ were not deleted: AWS says Access Denied"):
        cloud.delete_folder(aws, "s3://mine/a/m/")


def test_a_bucket_that_is_gone_does_not_hide_the_rest(aws):
    name = cloud.launch(PLACE)
    stand(aws, "mine", project="distilling-bert", owner=cloud.owner())
    objects = aws.resource("s3").Bucket("mine")
    objects.objects.delete()
    objects.delete()
    assert {item.kind for item in leftovers(files=True)} == {"endpoint", "endpoint_config", "model"}
    assert name


def test_a_warm_pool_is_listed_with_its_price_and_ended(aws, respond):
    name = cloud.launch(replace(PLACE, keep_alive_minutes=60))
    send, summary = module._jobs, {name: {}}
    with mock.patch.object(module, "_jobs", lambda client, **state: summary if "WarmPoolStatusEquals" in state else {}):
        (pool,) = (item for item in leftovers() if item.kind == "warm_pool")
    assert (pool.name, pool.price) == (name, 1.41)
    updated = respond("UpdateTrainingJob", {})
    clean([pool])
    assert updated == [{"TrainingJobName": name, "ResourceConfig": {"KeepAlivePeriodInSeconds": 0}}]
    assert send(aws.client("sagemaker"), StatusEquals=("InProgress", "Stopping")) == {}


def test_what_runs_is_listed_before_aws_lists_its_tags(aws):
    """Its list of tags can be minutes behind: right after Ctrl-C is when one cleans."""
    stand(aws, "mine", project="distilling-bert", owner=cloud.owner())
    name = cloud.launch(PLACE)
    sagemaker_backends["123456789012"]["us-east-1"].training_jobs[name].training_job_status = "InProgress"
    with mock.patch.object(conftest, "tagged", return_value=[]):
        assert {(item.kind, item.name) for item in leftovers()} == {("training_job", name), ("endpoint", "mine")}


def test_nothing_is_asked_about_the_jobs_and_endpoints_of_other_projects(aws, respond):
    """What is older than an hour has its tags in AWS's list: in a busy account every other question takes minutes."""
    old = datetime.now(UTC) - timedelta(hours=2)
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job"
    jobs = [{"TrainingJobName": f"job-{n}", "TrainingJobArn": f"{arn}/job-{n}", "CreationTime": old} for n in range(50)]
    respond("ListTrainingJobs", {"TrainingJobSummaries": jobs}, {"TrainingJobSummaries": []})
    listed = respond("ListEndpoints", {"Endpoints": []})
    calls = [respond(operation, ...) for operation in ("ListTags", "DescribeTrainingJob")]
    assert leftovers() == []
    assert calls == [[], []]
    assert listed[-1]["CreationTimeAfter"] > old
    respond("ListTrainingJobs", {"TrainingJobSummaries": [job | {"CreationTime": datetime.now(UTC)} for job in jobs]})
    tags = respond("ListTags", {"Tags": [{"Key": "project", "Value": "other"}]})
    with mock.patch.object(conftest, "tagged", return_value=[]):
        assert leftovers() == []
    assert len(tags) == 50, "of the last hour's each is looked at"


def test_what_was_deleted_a_moment_ago_is_not_left(aws):
    stand(aws, "mine", project="distilling-bert", owner=cloud.owner())
    tags = [{"Key": "project", "Value": "distilling-bert"}]
    gone = [{"ResourceARN": f"arn:aws:sagemaker:us-east-1:123456789012:{kind}/gone", "Tags": tags}
            for kind in ("endpoint", "endpoint-config", "model", "training-job")]  # fmt: skip
    with_gone = [*conftest.tagged(aws, {"Key": "project", "Values": ["distilling-bert"]}), *gone]
    with mock.patch.object(conftest, "tagged", return_value=with_gone):
        assert {item.name for item in leftovers(files=True)} == {"mine"}
