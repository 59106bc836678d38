"""The teacher's answers as a stage of their own: shared by processes, resumable, and what `distill` then reads."""

import numpy as np
import pytest
from datasets import load_from_disk

from kdhelpers.__main__ import main
from kdhelpers.data import TEACHER_LOGITS
from tests.runs import bare, command, files, own_cache, refused, teacher  # noqa: F401  (fixtures)


@pytest.fixture
def stage(files, teacher, own_cache):  # noqa: F811
    """The command that names rows and teacher; the cache is empty."""
    line = command(files, teacher, "-")
    where = line.index("--output")
    return ["logits", *line[1:where], *line[where + 2 :]]


def columns(cache):
    found = [path for path in cache.glob("[0-9a-f]*") if path.is_dir()]
    return [np.array(load_from_disk(str(path))[TEACHER_LOGITS]) for path in found]


def test_two_processes_label_what_one_would_and_distill_reads_it(stage, own_cache, tmp_path, capsys):  # noqa: F811
    for rank in ("1", "0"):
        assert main([*stage, "--shard-rows", "32", "--rank", rank, "--world", "2"]) == 0
    assert capsys.readouterr().out.count("4 shards labelled") == 2
    (shared,) = columns(own_cache / "logits")
    assert main(["distill", *stage[1:], "--controls", "none", "--output", str(tmp_path / "run")]) == 0
    assert "rows: from the cache" in capsys.readouterr().out
    assert main([*stage, "--output", str(tmp_path / "alone")]) == 0
    (alone,) = columns(tmp_path / "alone")
    np.testing.assert_allclose(shared, alone, atol=1e-5)


def test_a_fleet_without_torchrun_goes_on_where_it_was(stage, tmp_path, capsys):
    """Machines that share a folder: no one joins before all shards are there, and none is made twice."""
    stage = [*stage, "--output", str(tmp_path / "out"), "--shard-rows", "32"]
    assert main([*stage, "--rank", "1", "--world", "2"]) == 0
    assert columns(tmp_path / "out") == []
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/shards-*/*.npy")}
    assert len(shards) == 4
    next(iter(shards)).unlink()
    capsys.readouterr()
    assert main(stage) == 0  # one process finishes for all
    assert "all 240 rows are labelled" in capsys.readouterr().out
    assert len(columns(tmp_path / "out")[0]) == 240
    kept = list(shards)[1:]
    assert [path.stat().st_mtime_ns for path in kept] == [shards[path] for path in kept]


def test_bad_numbers_and_a_bare_teacher_are_refused(stage, bare, capsys):  # noqa: F811
    refused(capsys, [*stage, "--rank", "2", "--world", "2"], "--rank from 0")
    refused(capsys, [*stage, "--shard-rows", "0"], "--shard-rows has to be 1")
    where = stage.index("--teacher")
    refused(capsys, [*stage[:where], "--teacher", str(bare), *stage[where + 2 :]], "no classification head")
