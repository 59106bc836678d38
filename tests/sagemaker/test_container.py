"""What the training script does with the container's folders."""

import json
import os

import boto3
import numpy as np
import pytest
from moto import mock_aws

from kdhelpers import distillation
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import JobPlan, check, container, rights
from kdhelpers.settings import settings_from


def test_channels_are_used_where_they_lie(tmp_path):
    """What a channel brings is not copied into the checkpoint folder, which SageMaker would upload again."""
    environment = {"SM_MODEL_DIR": str(tmp_path / "model")}
    for name in ("snippets", "logits"):
        environment[f"SM_CHANNEL_{name.upper()}"] = str(tmp_path / "channels" / name)
        (tmp_path / "channels" / name).mkdir(parents=True)
    (tmp_path / "channels" / "snippets" / "movie_snippets.tsv").write_text("rows")
    (tmp_path / "channels" / "logits" / "abc").mkdir()
    for _ in range(2):  # the second time it is the resumed job
        cache = container.prepare_cache(tmp_path / "checkpoints", environment)
        assert (cache / "data" / "movie_snippets.tsv").read_text() == "rows"
        assert [path.name for path in (cache / "logits").iterdir()] == ["abc"]
    assert [name for _, _, files in os.walk(tmp_path / "checkpoints") for name in files] == []
    assert tmp_path / "checkpoints" not in cache.parents


def test_what_the_job_makes_outlives_an_interruption(tmp_path):
    """A spot machine loses everything but the checkpoint folder."""
    cache = container.prepare_cache(tmp_path / "checkpoints", {"SM_MODEL_DIR": str(tmp_path / "first" / "model")})
    for kind in ("teachers", "logits"):
        (cache / kind / "made").mkdir()
    again = container.prepare_cache(tmp_path / "checkpoints", {"SM_MODEL_DIR": str(tmp_path / "second" / "model")})
    assert (again / "teachers" / "made").is_dir()
    assert (again / "logits" / "made").is_dir()


@pytest.mark.parametrize(
    ("sent", "code", "begins"),
    [({"temparature": "3"}, 2, "error: unknown argument --temparature"), (None, 1, "Traceback")],
)
def test_a_failing_script_leaves_its_own_words(tmp_path, monkeypatch, capsys, sent, code, begins):
    """The failure file is all that the job's page shows: a mistake is one sentence there, a fault its traceback."""
    if sent is not None:
        (tmp_path / "hyperparameters.json").write_text(json.dumps(sent))
    for name, place in (("SM_INPUT_CONFIG_DIR", tmp_path), ("SM_OUTPUT_FAILURE", tmp_path / "failure")):
        monkeypatch.setenv(name, str(place))
    assert container.main() == code
    said = (tmp_path / "failure").read_text()
    assert said.startswith(begins) or (code == 1 and said.rstrip().splitlines()[-1].startswith("FileNotFoundError"))
    assert len(said) <= container.FAILURE_CHARACTERS
    assert said in capsys.readouterr().err or code == 1


def test_hyperparameters_arrive_as_they_were_sent(tmp_path, monkeypatch):
    """On the command line the SDK's driver makes 1.1 of 1.10, and a truth of a column that is called true."""
    seen = []
    monkeypatch.setattr("kdhelpers.distillation.distill", lambda settings: seen.append(settings) or {})
    monkeypatch.setenv("KD_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.copytree", lambda *given, **more: None)
    monkeypatch.setattr("shutil.copy", lambda *given, **more: None)
    sent = {"label_column": "1.10", "text_column": "true", "checkpoints": str(tmp_path / "ck"), "drop_leaks": "True"}
    (tmp_path / "hyperparameters.json").write_text(json.dumps(sent))
    (tmp_path / "model").mkdir()
    container.run({"SM_INPUT_CONFIG_DIR": str(tmp_path), "SM_MODEL_DIR": str(tmp_path / "model")})
    (settings,) = seen
    assert (settings.label_column, settings.text_column, settings.drop_leaks) == ("1.10", "true", True)
    assert settings.output == tmp_path / "ck" / "run"


def test_the_hubs_token_is_there_before_anything_is_loaded(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(container, "read_hub_token", lambda environment: order.append("token"))
    monkeypatch.setattr(container, "_distil", lambda settings, environment: order.append("run"))
    (tmp_path / "hyperparameters.json").write_text("{}")
    container.run({"SM_INPUT_CONFIG_DIR": str(tmp_path)})
    assert order == ["token", "run"]


def test_answers_that_do_not_fit_are_not_paid_for_again(plan, tmp_path, monkeypatch):
    """Another precision is enough: the teacher would read the whole corpus once more, on one machine."""
    monkeypatch.setenv("KD_HOME", str(tmp_path))
    monkeypatch.setenv("KD_ANSWERS", "given")
    with pytest.raises(UserError, match=r"not of this run's rows: .* precision \(here fp32\)"):
        distillation.prepare(settings_from(plan.hyperparameters))


def test_the_processes_of_a_machine_join_delivered_shards_once(tmp_path):
    folder = tmp_path / "delivered" / "shards-abc-2"
    folder.mkdir(parents=True)
    for index in range(2):
        np.save(folder / f"{index:05d}-of-00002.npy", np.zeros((2, 3), np.float32))
    for _ in range(2):
        assert distillation.join_delivered(tmp_path / "delivered", tmp_path / "joined") == ["abc"]
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "joined").rglob("*")}
    distillation.join_delivered(tmp_path / "delivered", tmp_path / "joined")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "joined").rglob("*")}
    (folder / "00001-of-00002.npy").unlink()
    assert distillation.join_delivered(tmp_path / "delivered", tmp_path / "elsewhere") == []


def test_a_part_of_a_finished_run_is_not_taken_for_one(tmp_path, monkeypatch):
    """S3 keeps the unfinished run beside it: the restarted job goes on with that."""
    seen = []
    monkeypatch.setattr("kdhelpers.distillation.distill", lambda settings: seen.append(settings) or {})
    monkeypatch.setattr("shutil.copytree", lambda *given, **more: None)
    monkeypatch.setattr("shutil.copy", lambda *given, **more: None)
    monkeypatch.setenv("KD_HOME", str(tmp_path))
    (tmp_path / "hyperparameters.json").write_text(json.dumps({"checkpoints": str(tmp_path / "ck")}))
    (tmp_path / "model").mkdir()
    for part in ("run.incomplete/settings.json", "run/metrics.json"):
        (tmp_path / "ck" / part).parent.mkdir(parents=True)
        (tmp_path / "ck" / part).write_text("{}")
    container.run({"SM_INPUT_CONFIG_DIR": str(tmp_path), "SM_MODEL_DIR": str(tmp_path / "model")})
    assert [settings.resume for settings in seen] == [True]
    assert not (tmp_path / "ck" / "run").exists()


def test_a_job_names_a_secret_and_its_container_reads_the_token(monkeypatch):
    plan = JobPlan({"recipe": "sst2"}, hub_secret="team/hub", region="eu-west-1")
    assert check(plan)["Environment"] == {"KD_HUB_SECRET": "team/hub", "AWS_DEFAULT_REGION": "eu-west-1"}
    assert "secret:team/hub-*" in json.dumps(rights.role_policy(plan))
    monkeypatch.setenv("HF_TOKEN", "before")
    with mock_aws():
        session = boto3.Session("nobody", "nothing", region_name="eu-west-1")
        session.client("secretsmanager").create_secret(Name="team/hub", SecretString="hf_of_the_secret")
        monkeypatch.setattr(boto3, "client", session.client)
        container.read_hub_token(plan.all_environment | {"HF_TOKEN": "a rehearsal's"})
        assert os.environ["HF_TOKEN"] == "before", "the reader's own, in a rehearsal"
        container.read_hub_token(plan.all_environment)
    assert os.environ["HF_TOKEN"] == "hf_of_the_secret"
