"""Every task from a file to an answer, by the command line: distil, export, benchmark, ask, and the endpoint's code."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdhelpers.__main__ import main
from kdhelpers.deployment import load_runner
from kdhelpers.sagemaker import inference
from tests.runs import FAST, bare, refused  # noqa: F401
from tests.tasks import TASKS, write_task

HEADINGS = {
    "pairs": ("accuracy", "McNemar p"),
    "several-labels": ("exact match", "points of exact match"),
    "number": ("Spearman", "RMSE"),
}


@pytest.fixture(scope="module", params=TASKS)
def done(request, bare, tmp_path_factory):  # noqa: F811
    """(task, run's folder, what was printed): a run with everything beside the student, and its int8 export."""
    folder = tmp_path_factory.mktemp(request.param)
    given = write_task(folder, request.param) | FAST
    given |= {"teacher": str(bare), "student_layers": 1, "controls": "all", "output": str(folder / "run")}
    given |= {"teacher_epochs": 3, "teacher_learning_rate": 3e-3, "learning_rate": 3e-3, "accept_teacher": "true"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_HOME", str(folder / "kd"))
        argv = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        assert main(["distill", *argv]) == 0
        assert main(["export", str(folder / "run"), "--format", "onnx-int8", "--accept-changes"]) == 0
    return request.param, folder / "run"


def test_a_run_scores_and_judges_by_its_task(done):
    task, run = done
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task"] == ("one-label" if task == "pairs" else task)
    assert metrics["rows"] == {"labelled": 64, "unlabelled": 32, "validation": 32, "test": 32}
    wanted = {"baseline", "taught_baseline", "teacher", "control", "second_control", "student"}
    assert wanted | ({"hard_answers"} if task != "number" else set()) == wanted | {"hard_answers"} & metrics.keys()
    card = (run / "student" / "README.md").read_text()
    for word in HEADINGS[task]:
        assert word in card
    assert any(
        verdict in metrics["verdict"]["text"] for verdict in ("no evidence of a difference", " than the control")
    )
    assert (run / "result.png").stat().st_size > 1000
    assert ("a number has none" in (run / "run.log").read_text()) == (task == "number")


def test_every_row_is_in_the_predictions_with_all_that_was_read_and_said(done):
    task, run = done
    table, rows = pd.read_csv(run / "predictions.csv"), pd.read_csv(run.parent / "test.csv")
    assert (table["text"] == rows["text"]).all()
    assert ("text_pair" in table) == (task == "pairs")
    if task == "number":
        np.testing.assert_allclose(table["label"], rows["label"])
        assert table["student"].dtype == float
    else:
        sets = [set(label.strip("|").split("|")) for label in rows["label"]]
        assert [set(label.strip("|").split("|")) for label in table["label"]] == sets
    assert len([name for name in table if name.startswith("probability of ")]) == 2 * (task == "several-labels")


def test_the_students_config_says_what_it_is_for(done):
    task, run = done
    config = AutoConfig.from_pretrained(run / "student")
    types = {"several-labels": "multi_label_classification", "number": "regression"}
    assert config.problem_type == types.get(task, "single_label_classification")
    assert getattr(config, "text_pairs", False) == (task == "pairs")
    assert config.num_labels == (1 if task == "number" else 2)
    AutoModelForSequenceClassification.from_pretrained(run / "student")


def test_what_was_exported_answers_alike_by_hand_and_behind_an_endpoint(done):
    task, run = done
    texts = [("good film", "awful film"), ("a story", "a story")] if task == "pairs" else ["good film", "a bad story"]
    folder = run / "student-onnx-int8"
    asked = [text for pair in texts for text in pair] if task == "pairs" else texts
    said = subprocess.run(
        [sys.executable, "-I", str(folder / "predict.py"), *asked], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(said) == 2
    body = json.dumps({"inputs": texts})
    (run / "model.onnx").unlink(missing_ok=True)
    loaded = inference.model_fn(str(run))
    answers = inference.predict_fn(inference.input_fn(body, "application/json"), loaded)
    runner = load_runner(str(folder))
    np.testing.assert_allclose(loaded[1](texts), runner.logits(texts), atol=0.5)
    for line, answer in zip(said, answers, strict=True):
        word = line.split("\t")[0]
        if task == "number":
            assert float(word) == pytest.approx(answer["value"], abs=0.3)
        else:
            assert word in (answer["label"],) if task == "pairs" else set(answer) == {"labels", "scores"}


def test_a_benchmark_has_the_tasks_own_score(done, capsys):
    task, run = done
    assert main(["benchmark", str(run / "student"), str(run / "student-onnx-int8"), "--sentences", "10"]) == 0
    printed = capsys.readouterr().out
    assert {"pairs": "accuracy", "several-labels": "exact match", "number": "RMSE"}[task] in printed
    metrics = json.loads((run / "metrics.json").read_text())["student"]
    key = {"pairs": "test_accuracy", "several-labels": "test_exact_match", "number": "test_rmse"}[task]
    shown = f"{metrics[key]:.3f}" if task == "number" else f"{metrics[key]:.1%}"
    assert shown in printed


@pytest.mark.slow
def test_several_seeds_are_summed_up_by_the_same_score(bare, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    given = (
        write_task(tmp_path, "number") | FAST | {"teacher": str(bare), "student_layers": 1, "output": tmp_path / "run"}
    )
    argv = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["distill", *argv, "--seeds", "2", "--accept-teacher"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for word in ("Test RMSE on 32 rows", "RMSE over 2 seeds", "times the teacher's"):
        assert word in printed


def test_what_clashes_with_the_task_is_one_sentence(bare, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))
    given = write_task(tmp_path, "pairs")
    rows = ["--train", given["train"], "--teacher", str(bare), "--output", str(tmp_path / "run")]
    refused(capsys, ["distill", *rows, "--task", "number"], "train.csv, line 2", "which is no number")
    refused(capsys, ["distill", *rows, "--text-pair-column", "third"], "no column 'third'")
    refused(capsys, ["distill", *rows, "--task", "stars"], "must be one of auto, one-label")
