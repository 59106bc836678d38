"""`distill` as it is typed: what it prints, and whatever goes wrong as one sentence and exit code 2."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from kdhelpers.__main__ import main
from kdhelpers.distillation import pipeline
from kdhelpers.distillation.training import last_whole_checkpoint
from tests.runs import command, files, own_cache, refused, teacher  # noqa: F401  (fixtures)

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_run_prints_its_table_and_verdict_and_is_not_replaced_unasked(files, teacher, tmp_path, capsys):  # noqa: F811
    line = command(files, teacher, tmp_path / "run")
    assert main(line) == 0
    printed = capsys.readouterr().out
    before = (tmp_path / "run" / "metrics.json").read_bytes()
    assert json.loads(before)["verdict"]["text"] in " ".join(printed.split())
    assert max(map(len, printed[printed.index("Scores on") : printed.index("Verdict")].splitlines())) <= 100
    refused(capsys, line, "already holds a run", "--overwrite")
    assert (tmp_path / "run" / "metrics.json").read_bytes() == before
    assert main([*line, "--overwrite", "--controls", "none"]) == 0
    assert "from the cache" in capsys.readouterr().out
    assert "control" not in json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_seeds_print_mean_and_spread(files, teacher, tmp_path, capsys):  # noqa: F811
    assert main(command(files, teacher, tmp_path / "run", seeds=2)) == 0
    printed = capsys.readouterr().out
    assert "standard deviation" in printed
    assert "over 2 seeds" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"alpha": 1.5}, ["alpha", "1.5"]),
        ({"temperature": 0}, ["temperature", "0"]),
        ({"epochs": 0}, ["epochs", "0"]),
        ({"batch_size": -1}, ["batch size", "-1"]),
        ({"precision": "int4"}, ["precision", "int4"]),
        ({"dropout": 2}, ["dropout", "2"]),
        ({"student_layers": 9}, ["9 layers", "model of 2"]),
        ({"seeds": 0}, ["seeds"]),
        ({"alpha": "much"}, ["alpha"]),
        ({"train": "none.csv"}, ["no file none.csv"]),
        ({"text_column": "body"}, ["no column 'body'", "sentence, label"]),
        ({"teacher": "./nowhere"}, ["no model folder at ./nowhere"]),
        ({"resume": True}, ["nothing to resume"]),
        ({"optim": "sdg"}, ["--optim", "sgd"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_values_stop_the_run(files, teacher, tmp_path, capsys, more, words):  # noqa: F811
    refused(capsys, command(files, teacher, tmp_path / "run", **more), *words)
    assert not (tmp_path / "run").exists()


def test_output_that_cannot_be_written(files, teacher, tmp_path, capsys):  # noqa: F811
    (tmp_path / "file").write_text("in the way")
    refused(capsys, command(files, teacher, tmp_path / "file" / "run"), "cannot write to")


def test_a_folder_of_other_things_is_never_replaced(files, teacher, tmp_path, capsys):  # noqa: F811
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    refused(capsys, command(files, teacher, tmp_path / "home", overwrite=True), "not a run")
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_leaking_rows_stop_the_run(files, teacher, tmp_path, capsys):  # noqa: F811
    table = pd.concat([pd.read_csv(files / "train.csv"), pd.read_csv(files / "test.csv").head(2)])
    table.to_csv(tmp_path / "leaky.csv", index=False)
    line = command(files, teacher, tmp_path / "run", train=tmp_path / "leaky.csv", controls="none")
    refused(capsys, line, "2 train", "--drop-leaks")
    assert main([*line, "--drop-leaks"]) == 0
    assert "were left out" in capsys.readouterr().out


def test_damaged_weights_stop_the_run(files, teacher, tmp_path, capsys):  # noqa: F811
    shutil.copytree(teacher, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    refused(capsys, command(files, tmp_path / "broken", tmp_path / "run"), "broken")


# --- interruption, full disk


PRESS = (  # a real signal in a real process, sent the moment the student's first checkpoint is whole
    "import os, signal, sys; from kdhelpers import __main__; from kdhelpers.distillation import training; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background job ignores it
    "training.EpochLines.on_save = lambda lines, *_, **__: "
    "os.kill(os.getpid(), signal.SIGINT) if lines.name == 'student' else None; "
    "sys.exit(__main__.main(sys.argv[1:]))"
)


@pytest.mark.slow
def test_ctrl_c_keeps_checkpoints_and_resume_ends_as_if_unbroken(files, teacher, tmp_path, capsys):  # noqa: F811
    line = command(files, teacher, tmp_path / "cut", epochs=3)
    done = subprocess.run([sys.executable, "-c", PRESS, *line], capture_output=True, text=True, timeout=240)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "--resume" in done.stderr
    assert not (tmp_path / "cut").exists()
    (kept,) = (tmp_path / "cut.incomplete" / "checkpoints").glob("*/student")
    assert last_whole_checkpoint(kept)
    assert main([*line, "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "student: going on from checkpoint" in printed
    assert "control: already trained" in printed
    assert main(command(files, teacher, tmp_path / "whole", epochs=3)) == 0
    cut, whole = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("cut", "whole"))
    pd.testing.assert_frame_equal(cut, whole)


def test_resume_needs_the_same_settings(files, teacher, tmp_path, capsys, monkeypatch):  # noqa: F811
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    line = command(files, teacher, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train_all", stop)
        assert main(line) == 130
    assert "--resume" in capsys.readouterr().err
    refused(capsys, [*line, "--resume", "--alpha", "0.9"], "other settings")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB, where this machine lets us mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_the_earlier_run_stays(files, teacher, small_disk, capsys):  # noqa: F811
    earlier = small_disk / "run"
    earlier.mkdir()
    (earlier / "metrics.json").write_text('{"earlier": true}')
    line = command(files, teacher, earlier, student_layers=2, overwrite=True)
    refused(capsys, line, "disk is full", "--resume")
    assert json.loads((earlier / "metrics.json").read_text()) == {"earlier": True}


@pytest.mark.slow
def test_a_student_without_layers_is_trained_judged_and_exported(files, teacher, tmp_path, capsys):  # noqa: F811
    run = tmp_path / "run"
    assert main(command(files, teacher, run, student="static", epochs=8, learning_rate=0.02)) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["student"]["layers"], metrics["control"]["layers"]) == (0, 0)
    assert metrics["student"]["test_accuracy"] > 0.9, "words of praise and blame are all there is to learn"
    assert metrics["student"]["parameters"] == metrics["control"]["parameters"] < metrics["teacher"]["parameters"]
    assert main(["export", str(run), "--format", "onnx-int8"]) == 0
    assert "predictions changed" in capsys.readouterr().out
