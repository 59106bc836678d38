"""The whole job on this machine, on tiny models: it really runs, under the SDK's own driver."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pandas as pd
import pytest

from kdhelpers import models, sagemaker
from kdhelpers.__main__ import main
from kdhelpers.distillation.training import last_whole_checkpoint
from kdhelpers.errors import UserError
from kdhelpers.sagemaker.sdk import METRICS
from tests.sagemaker.conftest import as_argv, rehearse, with_options

pytestmark = pytest.mark.slow


def fresh_copy(staged, folder):
    """What `stage` laid out, again: the drivers name their folder, so the text is changed with it."""
    shutil.copytree(staged, folder, ignore=shutil.ignore_patterns("cache", "checkpoints", "model", "output", "*.log"))
    for file in folder.rglob("*"):
        if file.suffix in (".py", ".sh", ".json") and file.is_file():
            file.write_text(file.read_text().replace(str(staged), str(folder)))
    for name in ("model", "output/data", "checkpoints"):
        (folder / "ml" / name).mkdir(parents=True, exist_ok=True)
    return folder


def test_a_rehearsed_job_reaches_nothing(staged):
    """The environment and the interpreter that its scripts have; the tests' own guard is tested in test_guard.py."""
    request = json.loads((staged / "request.json").read_text())
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    environment = rehearse.container_environment(request, staged, sys.executable)
    done = subprocess.run([staged / "bin" / "python3", "-c", code], env=environment, capture_output=True, text=True)
    assert "RefusedConnection" in done.stderr


def test_a_rehearsal_fills_the_model_folder(rehearsed):
    result, lines = rehearsed
    metrics = result.metrics()
    assert metrics["student"]["test_accuracy"] > 0.9
    assert metrics["student"]["layers"] == 1
    assert {path.name for path in result.model.iterdir()} >= {"code", "metrics.json", "predictions.csv", "student"}
    assert (result.model / "code" / "inference.py").is_file()
    assert models.load_classifier(str(result.model / "student"), None).has_head
    assert any("student: step" in line for line in lines)
    assert not any("SM_HP" in line for line in lines), "the driver's own lines are not the reader's"


def test_what_is_shown_of_a_job_says_with_which_settings_it_trains(capsys):
    hidden = "Written to /opt/ml/model: metrics.json"
    shown = ["rows: 6 labelled", "student: training for 6 steps on 6 rows; seed 42", "student: step 1 of 6, loss 0.1"]
    for line in [*shown, hidden]:
        sagemaker.show_steps(line)
    assert capsys.readouterr().out.splitlines() == shown


def test_the_log_lines_feed_the_metric_definitions(rehearsed):
    log = rehearsed[0].log.read_text()
    assert float(re.findall(METRICS["student:validation_accuracy"], log)[-1]) > 90
    losses = re.findall(METRICS["student:training_loss"], log)
    assert [math.isfinite(float(loss)) for loss in losses] == [True] * 3  # one an epoch
    assert re.findall(METRICS["student:training_loss"], "student: step 1 of 2, training loss -0.000, valid")


def test_the_same_at_home(rehearsed, plan, tmp_path, monkeypatch):
    """The job computes what `distill` computes with these options."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    assert main(["distill", *as_argv(plan), "--output", str(tmp_path / "run")]) == 0
    at_home = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert at_home.equals(pd.read_csv(rehearsed[0].model / "predictions.csv"))


def test_interrupted_and_resumed_equals_unbroken(rehearsed, staged, tmp_path):
    """SIGTERM in the middle, as soon as one checkpoint is whole. (One that is torn: see the trainer's tests.)"""
    folder = fresh_copy(staged, tmp_path / "again")
    home = folder / "ml" / "checkpoints" / "run.incomplete" / "checkpoints"

    def wait_for_a_checkpoint(line):
        if "student: step 16 of 48" not in line:
            return None
        deadline = time.monotonic() + 60
        while not any(map(last_whole_checkpoint, home.glob("*/student"))):
            assert time.monotonic() < deadline, "no checkpoint in a minute"
            time.sleep(0.005)
        return "stop"

    stopped = rehearse.run(folder, say=wait_for_a_checkpoint)
    assert stopped.exit_code != 0
    assert "student: step 48 of 48" not in stopped.log.read_text()
    assert not (stopped.model / "metrics.json").exists()
    lines = []
    resumed = rehearse.run(folder, say=lines.append)
    assert resumed.exit_code == 0, resumed.log.read_text()[-3000:]
    assert any("student: going on from checkpoint-" in line for line in lines)
    assert not any("student: step 16 of 48" in line for line in lines)
    ours, theirs = resumed.metrics()["student"], rehearsed[0].metrics()["student"]
    assert {k: v for k, v in ours.items() if "seconds" not in k} == {
        k: v for k, v in theirs.items() if "seconds" not in k
    }
    weights = [(result.model / "student" / "model.safetensors").read_bytes() for result in (resumed, rehearsed[0])]
    assert weights[0] == weights[1]


def test_two_processes_under_torchrun_on_logits_that_were_made_before(rehearsed, plan, tmp_path):
    """A machine with two GPUs gets two processes without being told; the logits are those of another job."""
    made = rehearsed[0].model.parent / "checkpoints" / "cache" / "logits"
    two = replace(with_options(plan, batch_size=8, epochs=2), instance="ml.g7e.12xlarge", logits=str(made))
    result = sagemaker.rehearse(two, tmp_path / "two")
    log = result.log.read_text()
    assert "--nproc_per_node=2" in log
    assert log.count("teacher's logits for 256 rows: from the cache") == 1
    assert not any((tmp_path / "two" / "ml" / "checkpoints").rglob("dataset_info.json")), "SageMaker would upload them"
    assert "student: training for 32 steps" in log  # 256 rows, 2 epochs, 2 processes of 8 rows
    assert log.count("student: training for") == 1, "one of the two speaks"
    assert result.metrics()["student"]["test_accuracy"] > 0.9


def test_a_failing_jobs_own_words_are_the_rehearsals(plan, tmp_path, monkeypatch):
    failed = rehearse.Rehearsal(2, 1.0, tmp_path, tmp_path / "job.log", "error: train.csv has no column 'review'")
    monkeypatch.setattr(rehearse, "run", lambda *given: failed)
    with pytest.raises(UserError, match="failed: train.csv has no column 'review'"):
        sagemaker.rehearse(plan, tmp_path / "bad")


def test_an_incomplete_bundle_is_noticed(staged, tmp_path):
    folder = fresh_copy(staged, tmp_path / "torn")
    (folder / "ml" / "input" / "data" / "code" / "kdhelpers" / "errors.py").unlink()
    result = rehearse.run(folder)
    assert result.exit_code == 1
    assert "No module named 'kdhelpers.errors'" in result.log.read_text()


def test_what_cannot_be_rehearsed_is_refused(plan, tmp_path):
    with pytest.raises(UserError, match="without spaces"):
        rehearse.stage(plan, tmp_path / "a b")
    with pytest.raises(UserError, match="reads nothing from S3"):
        rehearse.stage(with_options(plan, train="s3://mine/corpus.csv"), tmp_path / "job")


def test_four_machines_label_one_is_killed_meanwhile_and_a_student_learns_from_their_shards(plan, tmp_path):
    """The SDK's own driver on each; they share the checkpoint folder as they share S3. Then all start again."""
    label, fleet = replace(plan, stage="label", instances=4, shard_rows=1), tmp_path / "fleet"

    def shards():
        return {path.name: path.stat().st_mtime_ns for path in fleet.glob("checkpoints/shards-*/[0-9]*.npy")}

    with pytest.raises(UserError, match="the rehearsed job failed"):
        sagemaker.rehearse(label, fleet, say=lambda line: "stop" if line.startswith("shard") else None)
    before = shards()
    of_the_killed = [name for name in before if int(name.split("-")[0]) % 4 == 0]
    assert 0 < len(of_the_killed) < 64, "killed in the middle of its 256 / 4 shards"
    assert len(before) - len(of_the_killed) == 192, "the three others went on to their end"
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(rehearse.run, [fleet / host for host in rehearse.hosts(label)]))
    assert [one.exit_code for one in again] == [0, 0, 0, 0]
    after = shards()
    assert len(after) == 256
    assert before.items() <= after.items(), "what was labelled is not labelled again"
    lines = []
    delivered = again[0].model.parent / "checkpoints"
    trained = sagemaker.rehearse(replace(plan, logits=str(delivered)), tmp_path / "train", say=lines.append)
    assert any("256 shards of 1 rows joined" in line for line in lines)
    assert any("256 rows: from the cache" in line for line in lines)
    assert trained.metrics()["student"]["test_accuracy"] > 0.9


def test_a_job_without_a_network_is_rehearsed_without_one(staged, monkeypatch):
    request = json.loads((staged / "request.json").read_text())
    assert request["EnableNetworkIsolation"] is True
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    with monkeypatch.context() as patch:
        patch.setattr(rehearse, "ONLY_THE_UPLOADED_CODE", "")  # the tests' own guard would be first
        environment = rehearse.container_environment(request, staged, sys.executable)
        done = subprocess.run([staged / "bin" / "python3", "-c", code], env=environment, capture_output=True, text=True)
    rehearse.container_environment(request, staged, sys.executable)
    assert "the container has no network" in done.stderr


@pytest.fixture
def tracking_server(tmp_path):
    """The address of an MLflow server of this test's own, on this machine."""
    pytest.importorskip("mlflow", reason="needs mlflow, which the SageMaker SDK brings")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/runs.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    with open(log, "w") as file:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not answers(f"{address}/health"):
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # it has a worker, too
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:  # a busy machine
            os.killpg(server.pid, signal.SIGKILL)


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_a_jobs_curves_reach_a_tracking_server(tracking_server, plan, tmp_path):
    """MLflow's own; SageMaker's is the same behind a plugin, and nobody can rehearse that."""
    from mlflow.tracking import MlflowClient

    tracked = replace(with_options(plan, report_to="mlflow", controls="one"), mlflow=tracking_server)
    sagemaker.rehearse(tracked, tmp_path / "tracked")
    client = MlflowClient(tracking_server)
    runs = client.search_runs([client.get_experiment_by_name(plan.name).experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2, "control and student"
    for run in runs:
        assert {"loss", "eval_accuracy"} <= run.data.metrics.keys()
        assert math.isfinite(run.data.metrics["loss"])
        assert run.data.metrics["epoch"] == 3
