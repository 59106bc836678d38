"""The article's recipe from the Hub to the card, with the real clients against a Hub on loopback."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from kdhelpers import models
from kdhelpers.settings import recipe
from tests.data.test_hub import CARD
from tests.hub_server import COMMIT, running_hub
from tests.tiny import save_model, teachable_rows, tiny_distilbert, tiny_tokenizer

pytestmark = pytest.mark.slow

SST2 = recipe("sst2")


@pytest.fixture(scope="module")
def hub_root(tmp_path_factory):
    """Folders under the article's names: a teacher that knows its task, a student without a head, rows."""
    from tests.tiny import trained_tiny_teacher

    root = tmp_path_factory.mktemp("hub")
    teacher = models.set_labels(trained_tiny_teacher(), ["LABEL_0", "LABEL_1"])
    save_model(root / "models" / SST2.teacher, teacher, tiny_tokenizer())
    torch.manual_seed(1)
    student = tiny_distilbert().distilbert
    student.config.architectures = ["DistilBertForMaskedLM"]
    save_model(root / "models" / str(SST2.student), student, tiny_tokenizer())
    folder = root / "datasets" / str(SST2.dataset_id)
    features = Features(sentence=Value("string"), label=ClassLabel(names=["negative", "positive"]), idx=Value("int32"))
    rows = list({row["text"]: row for row in teachable_rows(400, seed=10)}.values())
    for name, part in {"train": rows[:192], "validation": rows[192:256], "test": rows[256:272]}.items():
        labels = [-1 if name == "test" else row["label"] for row in part]
        columns = {"sentence": [row["text"] for row in part], "label": labels, "idx": range(len(part))}
        Dataset.from_dict(columns, features=features).to_parquet(str(folder / f"sst2/{name}-00000-of-00001.parquet"))
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return root


def distil(home, endpoint, output, *more, **environment):
    """The command in a process of its own, with the clients pointed at `endpoint`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    kept |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "KD_HOME": str(home / "kd"), "OMP_NUM_THREADS": "1"}
    kept |= {"HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-m", "kdhelpers", "distill", "--recipe", "sst2", "--precision", "fp32"]
    return subprocess.run(
        [*command, "--output", str(output), *more], env=kept, capture_output=True, text=True, timeout=150
    )


@pytest.fixture(scope="module")
def finished(hub_root, tmp_path_factory):
    """The recipe run once with its own numbers; then again with the Hub gone and the clients' cache warm."""
    home = tmp_path_factory.mktemp("home")
    with running_hub(hub_root) as hub:
        first = distil(home, hub.url, home / "run")
        asked = list(hub.log)
    offline = {"HF_HUB_OFFLINE": "1"}
    second = distil(home, "http://127.0.0.1:9", home / "again", "--epochs", "1", "--controls", "none", **offline)
    return home, first, second, asked


def test_the_recipe_is_the_articles():
    assert (SST2.teacher, SST2.student) == ("textattack/bert-base-uncased-SST-2", "distilbert/distilbert-base-uncased")
    assert (SST2.dataset_id, SST2.dataset_config) == ("nyu-mll/glue", "sst2")
    assert (SST2.epochs, SST2.batch_size, SST2.learning_rate, SST2.alpha, SST2.temperature) == (3, 64, 5e-5, 0.5, 3.0)


def test_the_article_end_to_end(finished):
    home, first, _, asked = finished
    assert first.returncode == 0, first.stderr
    metrics = json.loads((home / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rows"] == {"labelled": 192, "unlabelled": 0, "validation": 0, "test": 64}
    assert "hidden" in metrics["test_rows"]
    assert metrics["revisions"] == {"teacher": COMMIT, "student": COMMIT, "dataset": COMMIT}
    assert metrics["teacher"]["train_seconds"] == 0, "a teacher with a head is used as it is"
    assert len(pd.read_csv(home / "run" / "predictions.csv")) == 64
    student = models.load_classifier(str(home / "run" / "student"), None)
    assert student.has_head
    assert student.model.config.model_type == "distilbert"
    assert student.model.config.id2label == {0: "negative", 1: "positive"}
    assert "student: training for 9 steps" in first.stdout + first.stderr, "192 rows, batch 64, 3 epochs"
    assert not any(path.endswith((".bin", ".py")) for path in asked if path.startswith("GET"))


def test_with_a_warm_cache_the_hub_may_be_gone(finished):
    home, _, second, _ = finished
    assert second.returncode == 0, second.stderr
    first, again = (json.loads((home / run / "metrics.json").read_text(encoding="utf-8")) for run in ("run", "again"))
    for name in ("rows", "test_rows", "revisions"):
        assert again[name] == first[name]
