"""Timing models: that the figures are about what they say they are about, not how large they are."""

import json
import time

import numpy as np
import pytest

from kdhelpers import export, latency, models
from kdhelpers.__main__ import main
from kdhelpers.errors import UserError
from tests.tiny import save_model, teachable_rows, tiny_tokenizer, trained_tiny_teacher

NAMES = ["negative", "positive"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "teacher", models.set_labels(trained_tiny_teacher(), NAMES), tiny_tokenizer())
    export.export(str(folder / "teacher"), folder / "int8", "onnx-int8")
    return folder


def sleeper(name, seconds, size):
    def run(inputs):
        time.sleep(seconds)
        return np.array([[0.0, 1.0]] * len(inputs["texts"]))

    return latency.Runner(name, "PyTorch fp32", size, size // 4, NAMES, lambda texts: {"texts": texts}, run)


def test_ratios_are_against_the_first_model():
    texts = ["a text"] * 60
    slow, fast = latency.measure(
        [sleeper("slow", 0.008, 4000), sleeper("fast", 0.002, 1000)], texts, ["positive"] * 45 + ["negative"] * 15
    )
    assert slow.faster == slow.smaller == 1.0
    assert fast.smaller == 4.0
    assert fast.faster_interval95[0] <= fast.faster <= fast.faster_interval95[1]
    assert 1.5 < fast.faster < 5
    assert slow.accuracy == fast.accuracy == 0.75
    assert slow.p95_ms >= slow.p50_ms >= 8.0


def test_pytorch_and_onnx_answer_alike(folders):
    rows = teachable_rows(80)
    texts, labels = [row["text"] for row in rows], [NAMES[row["label"]] for row in rows]
    runners = [latency.load_runner(str(folders / name), 1) for name in ("teacher", "int8")]
    timings = latency.measure(runners, texts, labels, sentences=20)
    assert [timing.kind for timing in timings] == ["PyTorch fp32", "ONNX int8"]
    assert min(timing.accuracy for timing in timings) > 0.9
    assert timings[0].parameters == timings[1].parameters
    assert timings[1].smaller == pytest.approx(timings[0].megabytes / timings[1].megabytes)


def test_the_command_prints_writes_and_draws(folders, tmp_path, capsys):
    table = ["text,label", *(f"{row['text']},{NAMES[row['label']]}" for row in teachable_rows(40))]
    (tmp_path / "rows.csv").write_text("\n".join(table))
    command = ["benchmark", "inference", str(folders / "teacher"), str(folders / "int8"), "--threads", "1"]
    command += ["--sentences", "20", "--rows", str(tmp_path / "rows.csv"), "--price", "0.1"]
    command += ["--output", str(tmp_path / "out.json"), "--figure", str(tmp_path / "out.png")]
    assert main(command) == 0
    said = capsys.readouterr().out
    for word in ("p95 ms", "ONNX int8", "a million", "$"):
        assert word in said
    assert len(json.loads((tmp_path / "out.json").read_text())["models"]) == 2
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_dollars():
    """3.6 ms each: a million take an hour."""
    assert latency.dollars_per_million(3.6, 0.25) == pytest.approx(0.25)
    with pytest.raises(UserError, match="greater than 0"):
        latency.dollars_per_million(3.6, 0)


def test_mistakes(folders, tmp_path, capsys):
    for command, sign in (
        ([str(tmp_path / "none")], "no model folder"),
        ([str(folders / "teacher"), "--threads", "0"], "--threads"),
        ([models.EMBEDDED_BACKBONE], "no classification head"),
        ([str(folders / "teacher"), "--rows", "none.csv"], "no file none.csv"),
    ):
        assert main(["benchmark", "inference", *command]) == 2
        assert sign in capsys.readouterr().err
