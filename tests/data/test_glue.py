"""GLUE's tasks by their names, asked of a Hub on loopback: each one's columns, labels, and rows to score on."""

import json
import os
import subprocess
import sys

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from kdhelpers.settings import GLUE, settings_from
from tests.hub_server import running_hub

PAIRS = ["mrpc", "qnli", "qqp", "rte", "mnli", "stsb"]
PROGRAM = """
import json, sys
from kdhelpers import data
from kdhelpers.settings import settings_from
for name in sys.argv[1:]:
    rows = data.load_rows(settings_from({"dataset_id": "nyu-mll/glue", "dataset_config": name}))
    first = rows.splits["test"][0]
    print(json.dumps([rows.task, rows.label_names, rows.counts(), rows.test_name, first]), flush=True)
"""


def columns_of(config, split, labels):
    texts = [name for name in GLUE[config] if name]
    return {name: [f"{name} of {split} {index}" for index in range(len(labels))] for name in texts} | {"label": labels}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What a process of its own makes of each configuration."""
    root, lines = tmp_path_factory.mktemp("hub"), ["---", "configs:"]
    folder = root / "datasets" / "nyu-mll" / "glue"
    for config in PAIRS:
        number = config == "stsb"
        feature = Value("float32") if number else ClassLabel(names=["yes", "no", "maybe"][: 2 + (config == "mnli")])
        held_out = ["validation_matched", "validation_mismatched", "test_matched", "test_mismatched"]
        splits = ["train", *(held_out if config == "mnli" else ["validation", "test"])]
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in splits:
            labels = [0.5, 1] * 8 if number else [0, 1] * 8
            columns = columns_of(config, split, [-1] * 4 if split.startswith("test") else labels)
            kinds = {name: Value("string") for name in columns if name != "label"} | {"label": feature}
            table = Dataset.from_dict(columns, features=Features(kinds))
            table.to_parquet(str(folder / f"{config}/{split}-00000-of-00001.parquet"))
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    kept |= {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    with running_hub(root) as hub:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *PAIRS], env=kept | {"HF_ENDPOINT": hub.url}, text=True, capture_output=True
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(PAIRS, map(json.loads, done.stdout.strip().splitlines()), strict=True))


@pytest.mark.parametrize("config", PAIRS)
def test_a_configuration_needs_no_columns_named(config, loaded):
    task, names, counts, test_name, row = loaded[config]
    assert counts == {"labelled": 16, "unlabelled": 0, "validation": 0, "test": 16}
    split = "validation_matched" if config == "mnli" else "validation"
    assert test_name == f"{split} (test labels are hidden)"
    one, two = GLUE[config]
    assert (row["text"], row["text_pair"]) == (f"{one} of {split} 0", f"{two} of {split} 0")
    if config == "stsb":
        assert (task, names, row["label"]) == ("number", ["label"], 0.5)
    else:
        assert (task, names[:2], row["label"]) == ("one-label", ["yes", "no"], 0)


def test_columns_that_are_named_are_those_that_count_and_others_are_as_before():
    glue = {"dataset_id": "nyu-mll/glue", "dataset_config": "mrpc"}
    assert settings_from(glue).text_pair_column == "sentence2"
    own = settings_from(glue | {"text_column": "a", "text_pair_column": "b"})
    assert (own.text_column, own.text_pair_column) == ("a", "b")
    for config in ("sst2", "cola"):
        single = settings_from(glue | {"dataset_config": config})
        assert (single.text_column, single.text_pair_column) == ("sentence", None)
    assert settings_from({"recipe": "sst2"}).text_pair_column is None
    assert settings_from({"dataset_id": "a/b", "dataset_config": "mrpc"}).text_pair_column is None
