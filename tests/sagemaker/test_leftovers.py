"""What is left in the account, as far as moto and answers of ours can play it: whose it is, and how it goes."""

from dataclasses import replace
from unittest import mock

from moto.sagemaker.models import sagemaker_backends

from kdhelpers.sagemaker import check, clean, cloud, leftovers, mine
from tests.sagemaker import conftest
from tests.sagemaker.conftest import PLACE, counted, stand


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


def test_files_in_s3_are_listed_and_deleted_when_asked_for(aws, respond):
    """All but what a running job reads, which may lie in the folder of the job that it goes on from."""
    over, running = cloud.launch(PLACE), cloud.launch(replace(PLACE, name="second"))
    assert [item for item in leftovers() if item.kind == "files"] == [], "only when asked for"
    jobs = sagemaker_backends["123456789012"]["us-east-1"].training_jobs
    jobs[running].training_job_status = "InProgress"
    (files,) = (item for item in leftovers(files=True) if item.kind == "files")
    assert files.name == f"s3://mine/distilling-bert/{over}/"
    assert files.megabytes > 0.1
    assert files.owner == cloud.owner()
    assert f"{files.megabytes:.1f} MB" in str(files)
    jobs[running].input_data_config = jobs[over].input_data_config
    assert [item for item in leftovers(files=True) if item.kind == "files"] == [], "the running job needs them"
    jobs[running].training_job_status = "Completed"
    clean([files])
    left = aws.client("s3").list_objects_v2(Bucket="mine").get("Contents", [])
    assert {item["Key"].split("/")[0] for item in left} == {"second"}


def test_what_was_deleted_a_moment_ago_is_not_left(aws):
    stand(aws, "mine", project="distilling-bert", owner=cloud.owner())
    tags = [{"Key": "project", "Value": "distilling-bert"}]
    gone = [{"ResourceARN": f"arn:aws:sagemaker:us-east-1:123456789012:{kind}/gone", "Tags": tags}
            for kind in ("endpoint", "endpoint-config", "model", "training-job")]  # fmt: skip
    with_gone = [*conftest.tagged(aws, {"Key": "project", "Values": ["distilling-bert"]}), *gone]
    with mock.patch.object(conftest, "tagged", return_value=with_gone):
        assert {item.name for item in leftovers(files=True)} == {"mine"}
