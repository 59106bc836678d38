"""Teacher logits as a stage of their own: shared by processes, resumable, and what `distill` then reads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import load_from_disk

from kdhelpers import models
from kdhelpers.__main__ import main
from kdhelpers.data import TEACHER_LOGITS
from tests.tiny import save_model, teachable_rows, tiny_bert, tiny_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tmp_path, trained_teacher, monkeypatch):
    """The options that name rows and teacher; the cache is empty."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    teacher = save_model(tmp_path / "teacher", models.set_labels(trained_teacher, ["bad", "good"]), tiny_tokenizer())
    found = ["--teacher", str(teacher), "--student-layers", "1", "--precision", "fp32", "--drop-leaks"]
    for seed, (name, n) in enumerate((("train", 100), ("validation", 40), ("test", 40))):
        rows = teachable_rows(n, seed=seed)
        table = pd.DataFrame({"text": [r["text"] for r in rows], "label": [["bad", "good"][r["label"]] for r in rows]})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        found += [f"--{name}", str(tmp_path / f"{name}.csv")]
    return found


def columns(cache):
    return [np.array(load_from_disk(str(path))[TEACHER_LOGITS]) for path in cache.glob("[0-9a-f]*") if path.is_dir()]


def test_two_processes_label_what_one_would_and_distill_reads_it(options, tmp_path, capsys):
    cache = tmp_path / "kd" / "logits"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "kdhelpers", "logits"]
    done = subprocess.run([*torchrun, "--shard-rows", "16", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("shards labelled") == 1, "one process speaks"
    assert "rows are labelled" in done.stdout, done.stdout + done.stderr[-2000:]
    (shared,) = columns(cache)
    assert main(["distill", *options, "--no-control", "--epochs", "1", "--output", str(tmp_path / "run")]) == 0
    assert "rows: from the cache" in capsys.readouterr().out
    assert main(["logits", *options, "--output", str(tmp_path / "alone")]) == 0
    (alone,) = columns(tmp_path / "alone")
    np.testing.assert_allclose(shared, alone, atol=1e-5)


def test_a_fleet_without_torchrun_goes_on_where_it_was(options, tmp_path, capsys):
    """Machines that share a folder: no one joins before all shards are there, and none is made twice."""
    stage = ["logits", *options, "--output", str(tmp_path / "out"), "--shard-rows", "16"]
    assert main([*stage, "--rank", "1", "--world", "2"]) == 0
    assert columns(tmp_path / "out") == []
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/shards-*/*.npy")}
    assert len(shards) == 3
    next(iter(shards)).unlink()
    capsys.readouterr()
    assert main(stage) == 0  # one process finishes for all
    said = capsys.readouterr().out
    rows = len(columns(tmp_path / "out")[0])
    assert f"all {rows} rows are labelled" in said
    kept = list(shards)[1:]
    assert [path.stat().st_mtime_ns for path in kept] == [shards[path] for path in kept]


def test_bad_numbers_and_a_bare_teacher_are_refused(options, tmp_path, capsys):
    bare = save_model(tmp_path / "bare", tiny_bert().bert, tiny_tokenizer())
    for command, words in (
        (["logits", *options, "--rank", "2", "--world", "2"], "--rank from 0"),
        (["logits", *options, "--shard-rows", "0"], "--shard-rows has to be 1"),
        (["logits", *options[2:], "--teacher", str(bare)], "no classification head"),
        (["logits", "--temparature", "2"], "did you mean --temperature?"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
