"""The article's recipe with the real clients against a Hub on loopback, and how it fails without one."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from kdhelpers import models
from kdhelpers.recipes import SST2
from tests.hub_server import COMMIT, running_hub
from tests.tiny import save_model, teachable_rows, tiny_distilbert, tiny_tokenizer

GLUE_CARD = """---
dataset_info:
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
  - name: idx
    dtype: int32
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
  - split: test
    path: sst2/test-*
---
A tiny stand-in of invented sentences.
"""


@pytest.fixture(scope="session")
def hub_root(tmp_path_factory, trained_teacher):
    """Folders under the article's names: a teacher that knows its task, a student without a head, rows."""
    root = tmp_path_factory.mktemp("hub")
    generic = models.set_labels(trained_teacher, ["LABEL_0", "LABEL_1"])
    save_model(root / "models" / SST2.teacher, generic, tiny_tokenizer())
    models.set_labels(trained_teacher, ["bad", "good"])
    torch.manual_seed(1)
    student = tiny_distilbert().distilbert
    student.config.architectures = ["DistilBertForMaskedLM"]
    save_model(root / "models" / SST2.student, student, tiny_tokenizer())
    glue = root / "datasets" / SST2.dataset_id
    features = Features(sentence=Value("string"), label=ClassLabel(names=["negative", "positive"]), idx=Value("int32"))
    (glue / "sst2").mkdir(parents=True)
    seen = set()
    for seed, (split, n) in enumerate((("train", 192), ("validation", 64), ("test", 16))):
        rows = {row["text"]: row for row in teachable_rows(4 * n, seed=seed + 10)}
        rows = [row for text, row in rows.items() if text not in seen][:n]
        seen |= {row["text"] for row in rows}
        columns = {
            "sentence": [row["text"] for row in rows],
            "label": [-1 if split == "test" else row["label"] for row in rows],
            "idx": list(range(n)),
        }
        Dataset.from_dict(columns, features=features).to_parquet(str(glue / f"sst2/{split}-00000-of-00001.parquet"))
    (glue / "README.md").write_text(GLUE_CARD, encoding="utf-8")
    return root


# One process runs many commands: starting one costs seconds. Prints a JSON line per command.
# The clients wait between their tries; here nobody needs to.
DRIVER = """
import contextlib, io, json, sys, time
time.sleep = lambda seconds: None
from kdhelpers.__main__ import main
for command in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
"""


def run(commands, endpoint, home, **environment):
    """Run commands with the clients pointed at `endpoint`; gives back code, out and err of each."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "KD_HOME": str(home / "kd"),
        "OMP_NUM_THREADS": "1",
    }
    settings |= {"HF_HUB_DISABLE_XET": "1"} | environment
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", DRIVER, json.dumps(commands)]
    done = subprocess.run(command, env=clean | settings, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def sst2(output, *more):
    return ["distill", "--recipe", "sst2", "--precision", "fp32", "--output", str(output), *more]


def test_the_recipe_is_the_articles():
    assert (SST2.teacher, SST2.student) == ("textattack/bert-base-uncased-SST-2", "distilbert/distilbert-base-uncased")
    assert (SST2.dataset_id, SST2.dataset_config) == ("nyu-mll/glue", "sst2")
    assert (SST2.epochs, SST2.batch_size, SST2.learning_rate, SST2.alpha, SST2.temperature) == (3, 64, 5e-5, 0.5, 3.0)


@pytest.fixture(scope="module")
def finished(hub_root, tmp_path_factory):
    """The recipe run once with its own numbers; then again with the Hub gone and the clients' cache warm."""
    home = tmp_path_factory.mktemp("home")
    with running_hub(hub_root) as hub:
        (first,) = run([sst2(home / "run")], hub.url, home)
        asked = list(hub.log)
    offline = sst2(home / "again", "--epochs", "1", "--no-control")
    (second,) = run([offline], "http://127.0.0.1:9", home, HF_HUB_OFFLINE="1")
    return home, first, second, asked


def test_the_article_end_to_end(finished):
    home, first, _, asked = finished
    assert first["code"] == 0, first
    metrics = json.loads((home / "run" / "metrics.json").read_text())
    assert metrics["rows"] == {"labelled": 192, "unlabelled": 0, "validation": 0, "test": 64}
    assert "hidden" in metrics["test_rows"]
    assert "hidden" in first["out"]
    assert metrics["revisions"] == {"teacher": COMMIT, "student": COMMIT, "dataset": COMMIT}
    assert metrics["teacher"]["train_seconds"] == 0, "a teacher with a head is used as it is"
    assert len(pd.read_csv(home / "run" / "predictions.csv")) == 64
    student = models.load_classifier(str(home / "run" / "student"), None)
    assert student.has_head
    assert student.model.config.model_type == "distilbert"
    assert student.model.config.id2label == {0: "negative", 1: "positive"}
    assert "student: training for 9 steps" in first["out"], "192 rows, batch 64, 3 epochs"
    assert not any(path.endswith((".bin", ".py")) for path in asked if path.startswith("GET"))


def test_with_a_warm_cache_the_hub_may_be_gone(finished):
    _, _, second, _ = finished
    assert second["code"] == 0, second


FAILURES = {
    "404": ("does not exist", "check the spelling"),
    "429": ("too many requests", "wait"),
    "503": ("HTTP 503", "try again later"),
    "cut": ("Hub", "network"),
}


@pytest.mark.parametrize("mode", FAILURES)
def test_the_hub_fails(hub_root, tmp_path, mode):
    """One sentence, exit code 2, no traceback, no output; for the teacher and for the data set alike."""
    local = hub_root / "models" / SST2.teacher
    with running_hub(hub_root, mode) as hub:
        commands = [sst2(tmp_path / "run"), sst2(tmp_path / "run", "--teacher", str(local))]
        for answer, what in zip(run(commands, hub.url, tmp_path), (SST2.teacher, SST2.dataset_id), strict=True):
            assert answer["code"] == 2, answer
            assert answer["err"].startswith("error: "), answer
            assert answer["err"].count("\n") == 1, answer
            for word in (what, *FAILURES[mode]):
                assert word in answer["err"], answer
    assert not (tmp_path / "run").exists()


def test_no_hub_at_all(hub_root, tmp_path):
    local = hub_root / "models" / SST2.teacher
    commands = [sst2(tmp_path / "run"), sst2(tmp_path / "run", "--teacher", str(local))]
    for answer in run(commands, "http://127.0.0.1:9", tmp_path):
        assert answer["code"] == 2, answer
        assert answer["err"].count("\n") == 1, answer
        assert "cannot be reached" in answer["err"], answer
    assert not (tmp_path / "run").exists()
