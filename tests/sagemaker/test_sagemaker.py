"""The SageMaker job: planned, checked, rehearsed, launched and cleaned up, all without AWS (see loopback.py)."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("sagemaker.train")
pytest.importorskip("moto")

import boto3
import botocore.client
from botocore.exceptions import ClientError, UnauthorizedSSOTokenError
from botocore.stub import Stubber
from moto import mock_aws
from moto.sagemaker.models import sagemaker_backends

from kdhelpers import data, fitting, inference, ladder, models, train
from kdhelpers import sagemaker_cloud as cloud
from kdhelpers import sagemaker_job as job
from kdhelpers import sagemaker_rehearse as rehearsal
from kdhelpers.__main__ import main
from kdhelpers.errors import UserError
from tests import loopback
from tests.tiny import save_model, teachable_rows, tiny_tokenizer

ROLE = "arn:aws:iam::123456789012:role/training"
replace = dataclasses.replace


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    """No keys, no profile and no region are at hand."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session", autouse=True)
def guarded_jobs():
    """A rehearsed job has an environment and a start-up file of its own: the guard goes into that."""
    patch = pytest.MonkeyPatch()
    patch.setattr(rehearsal, "ONLY_THE_UPLOADED_CODE", rehearsal.ONLY_THE_UPLOADED_CODE + loopback.START_UP)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def plan(tmp_path_factory, trained_teacher):
    """A job on files that tiny models can learn from, three checkpoints long."""
    folder = tmp_path_factory.mktemp("files")
    teacher = save_model(folder / "teacher", models.set_labels(trained_teacher, ["bad", "good"]), tiny_tokenizer())
    files = {}
    for seed, (name, n) in enumerate((("train", 256), ("validation", 64), ("test", 64))):
        rows = teachable_rows(n, seed=seed)
        table = pd.DataFrame({"text": [r["text"] for r in rows], "label": [["bad", "good"][r["label"]] for r in rows]})
        table.to_csv(folder / f"{name}.csv", index=False)
        files[name] = str(folder / f"{name}.csv")
    options = {"student_layers": 1, "epochs": 3, "batch_size": 16, "drop_leaks": True, "precision": "fp32"}
    return job.JobPlan(files | {"teacher": str(teacher), "no_control": True} | options)


@pytest.fixture(scope="session")
def staged(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    rehearsal.stage(plan, folder)
    return folder


@pytest.fixture(scope="session")
def rehearsed(staged):
    lines = []
    result = rehearsal.run(staged, say=lines.append)
    assert result.exit_code == 0, result.log.read_text()[-3000:]
    return result, lines


def fresh_copy(staged, folder):
    """What `stage` laid out, again: the drivers name their folder, so the text is changed with it."""
    shutil.copytree(staged, folder, ignore=shutil.ignore_patterns("checkpoints", "model", "output", "*.log"))
    for file in folder.rglob("*"):
        if file.suffix in (".py", ".sh", ".json") and file.is_file():
            file.write_text(file.read_text().replace(str(staged), str(folder)))
    for name in ("model", "output/data", "checkpoints"):
        (folder / "ml" / name).mkdir(parents=True, exist_ok=True)
    return folder


# --- the guard


def test_a_rehearsed_job_reaches_nothing(rehearsed, staged):
    """The environment and the interpreter that its scripts had; the tests' own guard is tested in test_guard.py."""
    request = json.loads((staged / "request.json").read_text())
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    environment = rehearsal.container_environment(request, staged, sys.executable)
    done = subprocess.run([staged / "bin" / "python3", "-c", code], env=environment, capture_output=True, text=True)
    assert "RefusedConnection" in done.stderr


# --- plan


def test_a_plan_says_what_it_costs_at_most(plan):
    lines = "\n".join(job.plan_lines(replace(plan, max_minutes=30, spot=True, max_wait_minutes=40)))
    assert "at most 0.71 USD (30 minutes at 1.41 an hour" in lines  # 0.705, and a limit is rounded up
    assert job.rounded_up(1.41) == 1.41
    assert "spot, 40 minutes at most with waiting" in lines
    assert "teacher" in lines
    assert job.most_expensive(replace(plan, price=6.0, max_minutes=90)) == 9.0
    assert job.most_expensive(replace(plan, instance="ml.p5.48xlarge")) is None
    assert "give --price" in "\n".join(job.plan_lines(replace(plan, instance="ml.p5.48xlarge")))
    assert "tags      team=a, project=distilling-bert" in "\n".join(job.plan_lines(replace(plan, tags={"team": "a"})))
    assert job.expected_minutes(plan) is None
    short = job.JobPlan({"recipe": "sst2", "epochs": 1})
    long = job.JobPlan({"recipe": "sst2", "epochs": 3})
    assert job.START_UP_MINUTES < job.expected_minutes(short) < job.expected_minutes(long) < 30


def test_expected_minutes_are_the_ladders_seconds_scaled(monkeypatch):
    plan = job.JobPlan({"recipe": "movie-snippets"})
    before, runs = job.training_minutes(plan), ladder.recorded()
    student = runs[runs.rung == "+ logits on all texts"].seconds.mean() / 60
    at_home = before * job.TIMES_THE_LADDER[plan.instance]
    assert 2 * student < at_home < 4 * student  # control and student, and the teacher's fine-tuning and logits
    monkeypatch.setattr(ladder, "recorded", lambda: runs.assign(seconds=2 * runs.seconds))
    assert job.training_minutes(plan) == pytest.approx(2 * before)


def test_command_line_and_hyperparameters_are_two_spellings_of_one_thing():
    argv = ["--temperature", "4", "--epochs=2", "--no-control", "--teacher", "a/b"]
    found = job.as_hyperparameters(argv)
    assert found == {"temperature": "4", "epochs": "2", "no-control": "true", "teacher": "a/b"}
    assert job.as_argv({"drop_leaks": True, "alpha": 0.5}) == ["--drop_leaks", "true", "--alpha", "0.5"]
    with pytest.raises(UserError, match="unexpected value"):
        job.as_hyperparameters(["4"])


# --- the request and its check


def with_options(plan, **options):
    return replace(plan, hyperparameters=plan.hyperparameters | options)


FAULTS = {
    "instance name": (lambda p: replace(p, instance="ml.g5.tiny"), "does not exist"),
    "job name": (lambda p: replace(p, name="my_job"), "'my_job' may have letters"),
    "no max_wait": (lambda p: replace(p, spot=True), "--max-wait-minutes"),
    "short max_wait": (lambda p: replace(p, spot=True, max_wait_minutes=30), "shorter than"),
    "max_wait without spot": (lambda p: replace(p, max_wait_minutes=90), "goes with spot only"),
    "long value": (lambda p: with_options(p, label_column="x" * 2501), "2501 long, 2500 is the most"),
    "quote": (lambda p: with_options(p, text_column="reader's"), "single quote"),
    "secret by name": (lambda p: with_options(p, hub_token="abc"), "looks like a secret"),
    "secret by value": (lambda p: with_options(p, text_column="hf_" + "a" * 30), "looks like a secret"),
    "misspelt": (lambda p: with_options(p, temparature=3), "did you mean --temperature?"),
    "CPU machine": (lambda p: replace(p, instance="ml.m5.xlarge"), "without a GPU"),
    "role": (lambda p: replace(p, role="MyRole"), "'MyRole' is no ARN"),
    "region": (lambda p: replace(p, region="xx-moon-1"), "not in region xx-moon-1"),
    "processes": (lambda p: replace(p, processes=0), "at least 1"),
    "AWS's tag": (lambda p: replace(p, tags={"aws:team": "a"}), "AWS's own"),
    "our tag": (lambda p: replace(p, tags={"project": "other"}), "this project's own"),
    "long tag": (lambda p: replace(p, tags={"team": "v" * 300}), "256 is the most"),
    "secret tag": (lambda p: replace(p, tags={"team": "AKIA" + "A" * 16}), "looks like a secret"),
    "no logits": (lambda p: replace(p, logits="nowhere"), "nowhere holds no logits"),
    "None": (lambda p: with_options(p, student=None), "'null'"),
    "the job's own": (lambda p: with_options(p, output="here"), "leave it out"),
    "no file": (lambda p: with_options(p, test="nowhere.csv"), "no file nowhere.csv"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_be_refused_later_is_refused_here(plan, fault):
    spoil, words = FAULTS[fault]
    with pytest.raises(UserError) as refused:
        job.check(spoil(plan))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_several_faults_are_told_together(plan):
    with pytest.raises(UserError, match=r"temperature.*; also: .*may have letters"):
        job.check(replace(with_options(plan, temparature=3), name="my_job"))


def test_the_request_that_the_sdk_would_send(plan):
    request = job.check(replace(plan, spot=True, max_wait_minutes=90, processes=2, tags={"team": "a"}))
    given = request["HyperParameters"]
    assert given["teacher"] == "/opt/ml/input/data/teacher"
    assert given["train"] == "/opt/ml/input/data/train/train.csv"
    assert given["checkpoints"] == request["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert given["drop_leaks"] == "true"
    channels = {channel["ChannelName"] for channel in request["InputDataConfig"]}
    assert channels == {"train", "validation", "test", "teacher", "code", "sm_drivers"}
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 5400}
    assert request["EnableManagedSpotTraining"] is True
    tags = [{"Key": "team", "Value": "a"}, {"Key": "project", "Value": "distilling-bert"}]
    assert request["Tags"] == tags
    assert len(request["AlgorithmSpecification"]["MetricDefinitions"]) == len(job.METRICS)


def test_the_walk_through_botocores_model_finds_planted_faults(plan):
    right = job.training_request(plan)
    assert job.request_problems(right) == []
    for spoilt, words in (
        ({"RoleArn": None}, "lacks RoleArn"),
        ({"Colour": "blue"}, "AWS does not know"),
        ({"TrainingJobName": "a_b"}, "does not have the form"),
        ({"ResourceConfig": right["ResourceConfig"] | {"InstanceCount": -1}}, "is the least"),
        ({"Tags": [{"Key": "k", "Value": "v" * 300}]}, "256 is the most"),
    ):
        request = {key: value for key, value in (right | spoilt).items() if value is not None}
        problems = job.request_problems(request)
        assert len(problems) == 1, problems
        assert words in problems[0]


def test_what_lies_in_s3_stays_there(plan, tmp_path):
    there = {"train": "s3://mine/corpus.parquet", "teacher": "s3://mine/teacher"}
    distant = replace(with_options(plan, **there), logits="s3://mine/logits")
    request = job.check(distant)
    addresses = {c["ChannelName"]: c["DataSource"]["S3DataSource"]["S3Uri"] for c in request["InputDataConfig"]}
    assert there | {"logits": "s3://mine/logits"} == {name: addresses[name] for name in (*there, "logits")}
    given = request["HyperParameters"]
    assert given["train"] == "/opt/ml/input/data/train/corpus.parquet"
    assert given["teacher"] == "/opt/ml/input/data/teacher"
    assert "; logits stays at s3://mine/logits" in "\n".join(job.plan_lines(distant))
    with pytest.raises(UserError, match="reads nothing from S3"):
        rehearsal.stage(distant, tmp_path / "job")


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
    assert job.training_image("eu-west-1", "ml.g5.xlarge") == training
    ours = [cloud.inference_image("eu-west-1", instance) for instance in ("ml.m5.large", "ml.g5.xlarge")]
    assert ours == inference_images


def test_telemetry_is_off_unless_asked_for(monkeypatch):
    session = boto3.Session("nobody", "nothing", region_name="us-east-1")

    def opted_out():
        config = job.sdk_session("us-east-1", "b", session).sagemaker_config
        return config["SageMaker"]["PythonSDK"]["Modules"]["TelemetryOptOut"]

    assert opted_out() is True
    monkeypatch.setenv("KD_TELEMETRY", "on")
    assert opted_out() is False


def test_a_check_leaves_no_client_with_empty_credentials_behind(plan):
    """SDK 3.7 keeps one client for the whole process: a launch after a check would be signed by nobody."""
    from sagemaker.core.utils.utils import SageMakerClient

    job.training_request(plan)
    mine = boto3.Session("mine", "secret", region_name="us-east-1")
    client = SageMakerClient(session=mine, region_name="us-east-1").get_client("sagemaker")
    assert client._request_signer._credentials.access_key == "mine"
    job.forget_clients()


# --- rehearsal


def test_a_rehearsal_fills_the_model_folder(rehearsed, plan):
    result, lines = rehearsed
    metrics = result.metrics()
    assert metrics["student"]["test_accuracy"] > 0.9
    assert metrics["student"]["layers"] == 1
    assert sorted(path.name for path in result.model.iterdir()) == [
        "code", "metrics.json", "predictions.csv", "result.png", "run.log", "student",
    ]  # fmt: skip
    assert models.load_classifier(str(result.model / "student"), None).has_head
    assert any("student: step" in line for line in lines)
    assert not any("SM_HP" in line for line in lines)
    proof = "\n".join(rehearsal.result_lines(result))
    assert "proves not  GPU" in proof


def test_the_log_lines_feed_the_metric_definitions(rehearsed):
    log = rehearsed[0].log.read_text()
    assert float(re.findall(job.METRICS["student:validation_accuracy"], log)[-1]) > 90
    losses = re.findall(job.METRICS["student:training_loss"], log)
    assert len(losses) == 3  # one an epoch
    assert float(losses[0]) > float(losses[-1])


def test_the_same_at_home(rehearsed, plan, tmp_path, monkeypatch):
    """The job computes what `distill` computes with these options."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    assert main(["distill", *job.as_argv(plan.hyperparameters), "--output", str(tmp_path / "run")]) == 0
    at_home = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert at_home.equals(pd.read_csv(rehearsed[0].model / "predictions.csv"))


def test_interrupted_and_resumed_equals_unbroken(rehearsed, staged, tmp_path):
    """SIGTERM in the middle, as soon as one checkpoint is whole. (One that is torn: see test_trainer.py.)"""
    folder = fresh_copy(staged, tmp_path / "again")
    checkpoints = folder / "ml" / "checkpoints" / "run.incomplete" / "checkpoints" / "student"

    def wait_for_a_checkpoint(line):
        deadline = time.monotonic() + 60
        while "student: step 16 of 48" in line and not fitting.last_whole_checkpoint(checkpoints):
            assert time.monotonic() < deadline, "no checkpoint in a minute"
            time.sleep(0.005)

    stopped = rehearsal.run(folder, say=wait_for_a_checkpoint, interrupt_at="student: step 16 of 48")
    assert stopped.exit_code != 0
    assert "student: step 48 of 48" not in stopped.log.read_text()
    assert not (stopped.model / "metrics.json").exists()
    lines = []
    resumed = rehearsal.run(folder, say=lines.append)
    assert resumed.exit_code == 0, resumed.log.read_text()[-3000:]
    assert any("student: going on from checkpoint-" in line for line in lines)
    assert not any("student: step 16 of 48" in line for line in lines)
    ours, theirs = resumed.metrics()["student"], rehearsed[0].metrics()["student"]
    assert {k: v for k, v in ours.items() if "seconds" not in k} == {
        k: v for k, v in theirs.items() if "seconds" not in k
    }
    weights = [(result.model / "student" / "model.safetensors").read_bytes() for result in (resumed, rehearsed[0])]
    assert weights[0] == weights[1]


def test_two_processes_under_torchrun_on_logits_that_were_made_before(plan, tmp_path, monkeypatch):
    """A corpus is labelled once, as a stage of its own; the job's students train from that, on two processes."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    options = [*job.as_argv(plan.hyperparameters), "--output", str(tmp_path / "logits")]
    assert main(["logits", "--shard-rows", "100", *options]) == 0
    two = replace(with_options(plan, batch_size=8, epochs=2), processes=2, logits=str(tmp_path / "logits"))
    result = rehearsal.rehearse(two, tmp_path / "two")
    log = result.log.read_text()
    assert "--nproc_per_node=2" in log
    assert log.count("teacher's logits for 256 rows: from the cache") == 1
    assert "student: training for 32 steps" in log  # 256 rows, 2 epochs, 2 processes of 8 rows
    assert log.count("student: training for") == 1
    assert result.metrics()["student"]["test_accuracy"] > 0.9


def test_a_failing_job_leaves_its_own_words(plan, tmp_path):
    with pytest.raises(UserError) as failed:
        rehearsal.rehearse(with_options(plan, text_column="review"), tmp_path / "bad")
    assert "has no column 'review'; it has: text, label" in str(failed.value)
    said = (tmp_path / "bad" / "ml" / "output" / "failure").read_text()
    assert said.startswith("error: ")
    assert "Traceback" not in said


def test_an_incomplete_bundle_is_noticed(staged, tmp_path):
    folder = fresh_copy(staged, tmp_path / "torn")
    (folder / "ml" / "input" / "data" / "code" / "kdhelpers" / "losses.py").unlink()
    result = rehearsal.run(folder)
    assert result.exit_code == 1
    assert "No module named 'kdhelpers.losses'" in result.log.read_text()


def test_a_folder_that_the_start_script_cannot_quote_is_refused(plan, tmp_path):
    with pytest.raises(UserError, match="without blanks"):
        rehearsal.stage(plan, tmp_path / "a b")


def test_thinned_rows_keep_the_share_of_labels():
    table = data.Dataset.from_dict({"id": list("abcdefgh"), "text": list("abcdefgh"), "label": [1, 0, -100, -100] * 2})
    rows = data.Rows(data.DatasetDict(train=table, test=table), ["bad", "good"])
    thin = data.thin_out(rows, 4)
    assert len(thin.splits["train"]) == len(thin.splits["test"]) == 4
    assert thin.splits["train"]["id"] == ["a", "c", "e", "g"]
    assert "every 2th" in thin.notes[-1] or "2" in thin.notes[-1]
    settings = train.RunSettings(train.Recipe("x", "files", "t"), Path("o"), rows=0)
    with pytest.raises(UserError, match="rows must be greater than 0"):
        train.check_settings(settings)


# --- behind the endpoint


def test_inference_functions(rehearsed):
    loaded = inference.model_fn(str(rehearsed[0].model))
    texts = inference.input_fn(
        json.dumps({"inputs": ["good film", "bad film " * 200]}), "application/json; charset=utf-8"
    )
    answers = json.loads(inference.output_fn(inference.predict_fn(texts, loaded), "application/json"))
    assert [answer["label"] for answer in answers] == ["good", "bad"]
    assert all(0.5 <= answer["score"] <= 1 for answer in answers)
    assert inference.input_fn(b'{"inputs": "one"}', "application/json") == ["one"]
    for body, kind, words in (
        ("x", "text/csv", "send application/json"),
        ("{", "application/json", "not JSON"),
        ('{"inputs": [1]}', "application/json", "a text"),
        ('{"text": "a"}', "application/json", "a text"),
        (json.dumps({"inputs": ["a"] * 65}), "application/json", "at most 64"),
    ):
        with pytest.raises(ValueError, match=words):
            inference.input_fn(body, kind)


AS_THE_CONTAINER_CALLS_IT = """
import importlib, json, sys
folder, *texts = sys.argv[1:]
sys.modules["torch"] = sys.modules["transformers"] = None  # neither is needed
sys.path.insert(0, folder + "/code")
inference = importlib.import_module("inference")
loaded = inference.model_fn(folder)
texts = inference.input_fn(json.dumps({"inputs": texts}), "application/json")
print(inference.output_fn(inference.predict_fn(texts, loaded), "application/json"))
"""


def test_an_int8_student_answers_like_the_pytorch_one(rehearsed, tmp_path):
    """Packed, unpacked, and called as the container does, which knows nothing of this package."""
    student = rehearsed[0].model / "student"
    assert main(["export", str(student), "--format", "onnx-int8", "--output", str(tmp_path / "int8")]) == 0
    with tarfile.open(cloud.pack(tmp_path / "int8", tmp_path / "model.tar.gz")) as tar:
        tar.extractall(tmp_path / "model", filter="data")
    files = sorted(str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*.*"))
    assert files == [
        "code/inference.py", "code/predict.py", "code/requirements.txt",
        "export.json", "model.onnx", "tokenizer.json",
    ]  # fmt: skip
    assert re.fullmatch(r"onnxruntime==[\d.]+\n", (tmp_path / "model" / "code" / "requirements.txt").read_text())
    texts = ["good film", "the awful plot " * 200, "a lovely winter garden"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", AS_THE_CONTAINER_CALLS_IT, str(tmp_path / "model"), *texts],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = json.loads(done.stdout), inference.predict_fn(texts, inference.model_fn(str(rehearsed[0].model)))
    assert [answer["label"] for answer in ours] == [answer["label"] for answer in theirs] == ["good", "bad", "good"]
    assert [answer["score"] for answer in ours] == pytest.approx([answer["score"] for answer in theirs], abs=0.05)


@pytest.fixture
def aws(monkeypatch):
    """A fake account with a role and a bucket."""
    with mock_aws():
        session = boto3.Session("nobody", "nothing", region_name="us-east-1")
        session.client("s3").create_bucket(Bucket="mine")
        monkeypatch.setattr(cloud, "boto_session", lambda region: session)
        yield session


def counted(session):
    client = session.client("sagemaker")
    return [
        len(client.list_endpoints()["Endpoints"]),
        len(client.list_endpoint_configs()["EndpointConfigs"]),
        len(client.list_models()["Models"]),
    ]


def test_an_endpoint_is_deleted_even_when_the_cell_fails(aws, rehearsed):
    place = job.JobPlan(role=ROLE, bucket="mine")
    seen = []

    def cell():
        with cloud.endpoint(rehearsed[0].model, place):
            seen.append(counted(aws))
            raise ZeroDivisionError

    pytest.raises(ZeroDivisionError, cell)
    assert seen == [[1, 1, 1]]
    assert counted(aws) == [0, 0, 0]
    (key,) = [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket="mine")["Contents"]]
    archive = io.BytesIO(aws.client("s3").get_object(Bucket="mine", Key=key)["Body"].read())
    with tarfile.open(fileobj=archive) as tar:
        assert {"student/config.json", "code/inference.py"} <= set(tar.getnames())
    with pytest.raises(UserError, match="holds no student"), cloud.endpoint(rehearsed[0].model / "code", place):
        pass
    assert counted(aws) == [0, 0, 0]


def refuse(monkeypatch, operation, answer=None, message="User: a is not authorized to perform: it"):
    """From now on one AWS operation gives `answer`, or is not allowed; gives a list that its calls end up in."""
    send, calls = botocore.client.BaseClient._make_api_call, []

    def respond(client, name, parameters):
        if name != operation:
            return send(client, name, parameters)
        calls.append(parameters)
        if answer is None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, name)
        return answer

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", respond)
    return calls


def test_what_could_not_be_deleted_is_told_even_when_the_cell_fails(aws, rehearsed, monkeypatch):
    refuse(monkeypatch, "DeleteEndpoint")

    def cell():
        with cloud.endpoint(rehearsed[0].model, job.JobPlan(role=ROLE, bucket="mine", tags={"team": "a"})):
            raise ZeroDivisionError

    with pytest.raises(UserError, match="not deleted, and perhaps costing money: endpoint distilling-bert-") as told:
        cell()
    assert isinstance(told.value.__context__, ZeroDivisionError)
    assert counted(aws) == [1, 0, 0], "the others are deleted all the same"
    (endpoint,) = aws.client("sagemaker").list_endpoints()["Endpoints"]
    tags = aws.client("sagemaker").list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
    assert {"Key": "team", "Value": "a"} in tags
    with pytest.raises(UserError, match="not deleted"):
        cloud.clean()
    monkeypatch.undo()


def test_an_endpoint_that_never_comes_up_is_deleted(aws, rehearsed, monkeypatch):
    failed = {"EndpointStatus": "Failed", "FailureReason": "The primary container did not pass the ping health check."}
    refuse(monkeypatch, "DescribeEndpoint", failed)
    with (
        pytest.raises(UserError, match="did not come into service: The primary container did not pass"),
        cloud.endpoint(rehearsed[0].model, job.JobPlan(role=ROLE, bucket="mine")),
    ):
        pytest.fail("it never was in service")
    assert counted(aws) == [0, 0, 0]


def test_clean_deletes_what_is_ours_and_nothing_else(aws, capsys):
    client = aws.client("sagemaker")
    ours = [{"Key": "project", "Value": "distilling-bert"}]
    for name, tags in (("ours", ours), ("theirs", [{"Key": "project", "Value": "other"}])):
        image = {"Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/i:1"}
        client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=image, Tags=tags)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
        client.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=tags)
    assert main(["sagemaker", "clean", "--region", "us-east-1"]) == 0
    assert capsys.readouterr().out.count("found (--yes deletes)") == 3
    assert counted(aws) == [2, 2, 2]
    assert main(["sagemaker", "clean", "--region", "us-east-1", "--yes"]) == 0
    assert counted(aws) == [1, 1, 1]
    assert client.list_models()["Models"][0]["ModelName"] == "theirs"


def test_clean_stops_our_running_jobs(aws, plan, monkeypatch):
    request = job.training_request(plan)
    for name, status, tags in (
        ("done", "Completed", request["Tags"]),
        ("ours", "InProgress", request["Tags"]),
        ("theirs", "InProgress", [{"Key": "project", "Value": "other"}]),
    ):
        aws.client("sagemaker").create_training_job(**request | {"TrainingJobName": name, "Tags": tags})
        sagemaker_backends["123456789012"]["us-east-1"].training_jobs[name].training_job_status = status
    stopped = refuse(monkeypatch, "StopTrainingJob", answer={})
    assert cloud.clean("us-east-1") == [cloud.Leftover("training_job", "ours")]
    assert stopped == [{"TrainingJobName": "ours"}]


# --- launching and following


@pytest.fixture
def delivering(aws, rehearsed, monkeypatch):
    """moto's jobs are completed at once and leave nothing: when one is followed, put there what it would have made."""
    follow = cloud.follow

    def deliver(name, *options, **more):
        found = cloud.describe(name)
        bucket, _, key = found["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            tar.add(rehearsed[0].model, ".")
        aws.client("s3").put_object(Bucket=bucket, Key=key, Body=packed.getvalue())
        return follow(name, *options, **more)

    monkeypatch.setattr(cloud, "follow", deliver)


def test_launch_follow_and_bring_home(aws, delivering, plan, rehearsed, tmp_path, capsys):
    options = ["--role", ROLE, "--bucket", "mine", "--tag", "team=a", *job.as_argv(plan.hyperparameters)]
    home, full = tmp_path / "home", tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    for refused, words in (([], "repeat the command with --yes"), (["--yes", "--output", str(full)], "is not empty")):
        assert main(["sagemaker", "launch", *options, *refused]) == 2
        said = capsys.readouterr()
        assert "at most 1.41 USD" in said.out
        assert words in said.err
        assert aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []

    assert main(["sagemaker", "launch", "--yes", "--output", str(home), *options]) == 0
    said = capsys.readouterr().out
    name = said.split("launched ")[1].split()[0]
    assert "Completed" in said
    assert f"brought home to {home}" in said
    assert json.loads((home / "metrics.json").read_text()) == rehearsed[0].metrics()
    found = aws.client("sagemaker").describe_training_job(TrainingJobName=name)
    assert found["RoleArn"] == ROLE
    assert {"Key": "team", "Value": "a"} in aws.client("sagemaker").list_tags(ResourceArn=found["TrainingJobArn"])[
        "Tags"
    ]
    assert main(["sagemaker", "status", name, "--follow", "--output", str(home)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_launching_and_following_are_two_steps_too(aws, plan, monkeypatch, capsys):
    options = ["--role", ROLE, "--bucket", "mine", *job.as_argv(plan.hyperparameters)]
    assert main(["sagemaker", "launch", "--yes", *options]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "status" in line]
    command = line.split("kdhelpers ")[1].split()[:-2]  # less --output DIR

    def interrupted(*given):
        raise KeyboardInterrupt

    assert main(command) == 0
    assert "Completed" in capsys.readouterr().out
    monkeypatch.setattr(cloud, "follow", interrupted)
    assert main(command) == 2
    assert "runs on and is billed" in capsys.readouterr().err


def test_the_notebooks_launch_cell(aws, delivering, plan, tmp_path, monkeypatch, capsys):
    """It is False in the notebook; here it is what a reader in Studio makes of it, with a role that is found."""
    notebook = json.loads((Path(__file__).parent.parent / "notebooks" / "08_sagemaker.ipynb").read_text())
    (cell,) = [cell for cell in notebook["cells"] if "LAUNCH = False" in "".join(cell["source"])]
    monkeypatch.setenv("KD_ROLE_ARN", ROLE)
    monkeypatch.chdir(tmp_path)
    exec(
        "".join(cell["source"]).replace("LAUNCH = False", "LAUNCH = True"),
        {"jobs": job, "replace": replace, "plan": plan},
    )
    said = capsys.readouterr().out
    assert "at most 1.41 USD" in said
    assert "Completed" in said
    assert models.load_classifier("home/student", None).has_head


def test_in_studio_role_region_and_bucket_are_found(tmp_path, monkeypatch):
    from sagemaker.core.helper import session_helper

    (tmp_path / "resource-metadata.json").write_text(json.dumps({"DomainId": "d-1", "ExecutionRoleArn": ROLE}))
    monkeypatch.setattr(session_helper, "NOTEBOOK_METADATA_FILE", str(tmp_path / "resource-metadata.json"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        found, _ = cloud.located(job.JobPlan(region=cloud.find_region()))
    assert (found.region, found.role, found.bucket) == ("eu-west-1", ROLE, "sagemaker-eu-west-1-123456789012")
    assert cloud.find_region("ap-south-1") == "ap-south-1"


def test_a_bucket_that_is_not_there_or_elsewhere_is_refused_before_anything_is_sent(aws, plan):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    with pytest.raises(UserError, match=r"another region \(eu-west-1\)"):
        cloud.launch(replace(plan, role=ROLE, bucket="far"))
    with pytest.raises(UserError, match="cannot find it"), cloud.aws_errors():
        cloud.located(replace(plan, role=ROLE, bucket="nowhere"))
    assert sorted(bucket["Name"] for bucket in s3.list_buckets()["Buckets"]) == ["far", "mine"], "none is made"
    assert "Contents" not in s3.list_objects_v2(Bucket="far")


def test_without_a_role_or_credentials_nothing_starts(plan, monkeypatch, capsys):
    from sagemaker.core.helper import session_helper

    assert main(["sagemaker", "launch", "--yes", "--bucket", "b", *job.as_argv(plan.hyperparameters)]) == 2
    assert "no AWS credentials here" in capsys.readouterr().err

    def is_a_user(**options):
        raise ValueError("The current AWS identity is not a role")

    monkeypatch.setattr(session_helper, "get_execution_role", is_a_user)
    with pytest.raises(UserError, match="KD_ROLE_ARN"):
        cloud.find_role(plan, None)
    monkeypatch.setenv("KD_ROLE_ARN", ROLE)
    assert cloud.find_role(plan, None) == ROLE


QUOTA = (
    "The account-level service limit 'ml.g5.xlarge for training job usage' is 0 Instances, with current utilization "
    "of 0 Instances and a request delta of 1 Instances."
)
DENIED = "User: arn:aws:iam::123456789012:user/a is not authorized to perform: sagemaker:CreateTrainingJob on resource"
ELSEWHERE = "The bucket is in this region: eu-west-1. Please use this region to retry the request"
NO_IMAGE = "Requested image 763104351884.dkr.ecr.us-east-1.amazonaws.com/x:y not found."
ERRORS = [
    ("ExpiredTokenException", "The security token included in the request is expired", "log in again"),
    ("UnrecognizedClientException", "The security token is invalid", "does not know these keys"),
    ("AccessDeniedException", DENIED, "sagemaker:CreateTrainingJob"),
    ("ResourceLimitExceeded", QUOTA, "'ml.g5.xlarge for training job usage' is 0"),
    ("CapacityError", "Unable to provision requested ML compute capacity", "no such machine free"),
    ("ValidationException", ELSEWHERE, "another region (eu-west-1)"),
    ("PermanentRedirect", "The bucket must be addressed using the specified endpoint", "another region than the job"),
    ("ValidationException", NO_IMAGE, "image is not in this region"),
    ("ValidationException", "Could not find requested job with name: x.", "check the name"),
    ("403", "Forbidden", "does not allow this"),
    ("SomethingNew", "what\never", "AWS says SomethingNew: what ever"),
]


@pytest.mark.parametrize(
    ("code", "message", "words"), ERRORS, ids=[f"{code}-{i}" for i, (code, *_) in enumerate(ERRORS)]
)
def test_aws_says_no_in_one_sentence(monkeypatch, code, message, words):
    session = boto3.Session("nobody", "nothing", region_name="us-east-1")
    client = session.client("sagemaker")
    monkeypatch.setattr(session, "client", lambda *given, **options: client)
    monkeypatch.setattr(cloud, "boto_session", lambda region: session)
    with Stubber(client) as stub:
        stub.add_client_error("describe_training_job", code, message)
        with pytest.raises(UserError) as refused:
            cloud.describe("x")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_boto3_raises_is_one_sentence_too(aws):
    """Not every no comes as a ClientError."""
    with pytest.raises(UserError, match="cannot find it"), cloud.aws_errors():
        aws.client("s3").upload_file(__file__, "nowhere", "key")
    with pytest.raises(UserError, match="log in again"), cloud.aws_errors():
        raise UnauthorizedSSOTokenError
    with (
        pytest.raises(UserError, match="AWS says ParamValidationError: .*Missing required") as told,
        cloud.aws_errors(),
    ):
        aws.client("sagemaker").create_model()
    assert "\n" not in str(told.value)


def described(**more):
    return {
        "TrainingJobName": "j", "TrainingJobStatus": "Failed", "SecondaryStatus": "Failed",
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600}, "ResourceConfig": {"InstanceType": "ml.g5.xlarge"}, **more,
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
    assert 'said: File "train.py", line 7, in fit | x / 0 | ZeroDivisionError: division' in cloud.ending(
        described(FailureReason=crash)
    )
    assert "no such machine free" in cloud.ending(described(FailureReason="CapacityError: Unable to provision"))
    stopped = described(TrainingJobStatus="Stopped", SecondaryStatus="MaxRuntimeExceeded")
    assert "60 minutes: give --max-minutes more" in cloud.ending(stopped)
    assert "--max-wait-minutes" in cloud.ending(stopped | {"SecondaryStatus": "MaxWaitTimeExceeded"})
    assert cloud.ending(described(TrainingJobStatus="Completed")) is None
    done = described(
        TrainingJobStatus="Completed", SecondaryStatus="Completed", EnableManagedSpotTraining=True,
        TrainingTimeInSeconds=600, BillableTimeInSeconds=180,
        FinalMetricDataList=[{"MetricName": "student:validation_accuracy", "Value": 83.1}],
    )  # fmt: skip
    lines = "\n".join(cloud.status_lines(done))
    assert "3.0 minutes billed, about 0.07 USD, spot saved 70%" in lines
    assert "student:validation_accuracy 83.1" in lines


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


# --- the command line


def test_the_commands_speak_plainly(capsys):
    assert main(["sagemaker"]) == 0
    assert "rehearse" in capsys.readouterr().out
    for command, words in (
        (["sagemaker", "plam"], "did you mean plan?"),
        (["sagemaker", "clean", "--foo"], "unknown argument --foo"),
        (["sagemaker", "check", "--recipe", "sst2", "--temparature", "3"], "did you mean --temperature?"),
        (["sagemaker", "check", "--recipe", "sst2", "--instence", "ml.g5.xlarge"], "did you mean --instance?"),
        (["sagemaker", "endpoint", "run"], "repeat with --yes"),
        (["sagemaker", "plan", "--tag", "team"], "'team' is not NAME=VALUE"),
    ):
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert main(["sagemaker", "check", "--recipe", "sst2"]) == 0
    assert "AWS would take this request" in capsys.readouterr().out


# --- the exercise of notebook 08


def test_the_exercise_tells_what_is_wrong(capsys):
    from kdhelpers import check

    right = job.JobPlan(
        {"recipe": "sst2", "temperature": 4}, instance="ml.g4dn.xlarge", spot=True, max_minutes=60, max_wait_minutes=90
    )
    for answer, words in (
        (..., "not attempted"),
        (right, "passed"),
        (replace(right, max_wait_minutes=30), "not yet: the maximum waiting time (1800 s) is shorter"),
        (replace(right, spot=False, max_wait_minutes=None), "not yet: spot is False"),
        (replace(right, hyperparameters={"recipe": "sst2"}), "not yet: it would run sst2 at temperature 3"),
        (replace(right, hyperparameters={"temparature": 4}), "did you mean --temperature?"),
        ("ml.g4dn.xlarge", "not yet: your answer raised"),
    ):
        check.spot_plan(answer)
        assert words in capsys.readouterr().out
