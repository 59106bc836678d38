"""What stands behind an endpoint: called as the inference container calls it, which knows nothing of this package."""

import json
import re
import subprocess
import sys
import tarfile

import pytest

from kdhelpers.__main__ import main
from kdhelpers.sagemaker import endpoints, inference
from tests.tiny import save_model, tiny_bert, tiny_tokenizer

pytestmark = pytest.mark.slow  # on what a rehearsed job has left

AS_THE_CONTAINER_CALLS_IT = """
import importlib, json, sys
folder, *texts = sys.argv[1:]
sys.modules["torch"] = sys.modules["transformers"] = None  # neither is needed
sys.path.insert(0, folder + "/code")
inference = importlib.import_module("inference")
loaded = inference.model_fn(folder)
texts = inference.input_fn(json.dumps({"inputs": texts}), "application/json")
print(inference.output_fn(inference.predict_fn(texts, loaded), "application/json"))
"""


def test_a_request_is_answered_text_by_text(rehearsed):
    loaded = inference.model_fn(str(rehearsed[0].model))
    body = json.dumps({"inputs": ["good film", "bad film " * 200]})
    texts = inference.input_fn(body, "application/json; charset=utf-8")
    answers = json.loads(inference.output_fn(inference.predict_fn(texts, loaded), "application/json"))
    assert [answer["label"] for answer in answers] == ["good", "bad"]
    assert all(0.5 <= answer["score"] <= 1 for answer in answers)
    assert inference.input_fn(b'{"inputs": "one"}', "application/json") == ["one"]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("x", "text/csv", "send application/json"),
        ("{", "application/json", "not JSON"),
        (b"\xff", "application/json", "not JSON"),
        ('{"inputs": [1]}', "application/json", "a text"),
        ('{"inputs": []}', "application/json", "a text"),
        ('{"text": "a"}', "application/json", "a text"),
        (json.dumps({"inputs": ["a"] * 65}), "application/json", "at most 64"),
        (
            '{"inputs": "a", "parameters": {"top_k": null}}',
            "application/json",
            "parameters are not read: leave .*top_k",
        ),
        ('{"inputs": "\\ud83d"}', "application/json", "surrogates"),
        ('{"inputs": "a"}', None, "send application/json"),
        ('{"inputs": ["a", ["b", "c"]]}', "application/json", "a text"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(body, kind, words):
    with pytest.raises(ValueError, match=words):
        inference.input_fn(body, kind)


@pytest.mark.parametrize("pairs", [True, False])
def test_single_texts_and_pairs_are_not_taken_for_one_another(tmp_path, pairs):
    model = tiny_bert()
    model.config.text_pairs = pairs
    save_model(tmp_path / "student", model, tiny_tokenizer())
    loaded = inference.model_fn(str(tmp_path))
    single, pair = ["good film"], [("good film", "bad film")]
    assert len(inference.predict_fn(pair if pairs else single, loaded)) == 1
    with pytest.raises(ValueError, match="this student reads " + ("pairs" if pairs else "single texts")):
        inference.predict_fn(single if pairs else pair, loaded)


def test_one_output_is_a_number_whatever_the_config_says(tmp_path):
    save_model(tmp_path / "student", tiny_bert(labels=1), tiny_tokenizer())
    assert list(inference.predict_fn(["good film"], inference.model_fn(str(tmp_path)))[0]) == ["value"]


def test_a_text_is_cut_where_training_cut_it(rehearsed):
    """The length is the student's own: what stands beyond it changes no answer, what stands before it does."""
    from transformers import AutoTokenizer

    longest = AutoTokenizer.from_pretrained(rehearsed[0].model / "student").model_max_length
    fits = " ".join(["the"] * (longest - 3))
    loaded = inference.model_fn(str(rehearsed[0].model))
    inside, outside, long = inference.predict_fn([f"{fits} awful", f"{fits} the awful", f"{fits} the"], loaded)
    assert inside != long
    assert outside == long


def test_an_int8_student_answers_like_the_pytorch_one(rehearsed, tmp_path):
    pytest.importorskip("kdhelpers.cli.export")
    student = rehearsed[0].model / "student"
    assert main(["export", str(student), "--format", "onnx-int8", "--output", str(tmp_path / "int8")]) == 0
    with tarfile.open(endpoints.pack(tmp_path / "int8", tmp_path)) as tar:
        tar.extractall(tmp_path / "model", filter="data")
    files = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*.*")}
    assert files == {
        "code/inference.py", "code/predict.py", "code/requirements.txt",
        "export.json", "model.onnx", "tokenizer.json",
    }  # fmt: skip
    assert re.fullmatch(r"onnxruntime==[\d.]+\n", (tmp_path / "model" / "code" / "requirements.txt").read_text())
    texts = ["good film", "the awful plot " * 200, "a lovely winter garden"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", AS_THE_CONTAINER_CALLS_IT, str(tmp_path / "model"), *texts],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = json.loads(done.stdout), inference.predict_fn(texts, inference.model_fn(str(rehearsed[0].model)))
    assert [answer["label"] for answer in ours] == [answer["label"] for answer in theirs] == ["good", "bad", "good"]
    assert [answer["score"] for answer in ours] == pytest.approx([answer["score"] for answer in theirs], abs=0.05)
