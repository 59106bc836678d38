"""A static student in every format: PyTorch, ONNX, int8, and numpy alone."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from transformers import set_seed

from kdhelpers import deployment, models
from kdhelpers.data import Task
from kdhelpers.deployment import predict
from kdhelpers.errors import UserError
from tests.tiny import save_model, teachable_rows, tiny_model, tiny_tokenizer

TEXTS = ["good", "an awful film with a dull plot, and 3 lovely scenes", "never " * 300, "?!", ""]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    set_seed(0)
    parent = tiny_model("bert")
    parent.get_input_embeddings().weight.data.normal_(0, 3)
    model = models.set_labels(models.static_student(parent), ["bad", "good"])
    model.classifier.bias.data.normal_()
    return save_model(tmp_path_factory.mktemp("static"), model, tiny_tokenizer())


# In 8 bits sums of products overflow on a processor with AVX2 alone: 0.15 there, below 0.1 elsewhere.
@pytest.mark.parametrize(("kind", "error"), [("numpy", 1e-5), ("onnx", 1e-5), ("onnx-int8", 0.3)])
def test_every_format_answers_as_pytorch(student, tmp_path, kind, error):
    facts = deployment.export(str(student), tmp_path / kind, kind)
    ours = deployment.load_runner(str(student)).logits(TEXTS)
    assert ours.std(0).min() > 0.05, "texts that are answered alike would show nothing"
    runner = deployment.load_runner(str(tmp_path / kind))
    assert np.abs(runner.logits(TEXTS) - ours).max() < error
    assert np.abs(runner.logits(TEXTS[:1]) - ours[:1]).max() < error
    assert runner.kind == {"numpy": "numpy fp32", "onnx": "ONNX fp32", "onnx-int8": "ONNX int8"}[kind]
    assert facts["bytes"] == runner.bytes > 0


def test_the_folder_answers_where_neither_torch_nor_onnxruntime_can_be_imported(student, tmp_path):
    deployment.export(str(student), tmp_path / "out", "numpy")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["export.json", "model.safetensors", "predict.py", "tokenizer.json"]
    block = "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'onnxruntime'))); import runpy; "
    block += f"sys.argv = ['predict.py', 'good', 'bad']; file = {str(tmp_path / 'out' / 'predict.py')!r}; "
    block += "runpy.run_path(file, run_name='__main__')"
    said = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True, cwd="/").stdout
    answers = deployment.load_runner(str(student)).logits(["good", "bad"]).argmax(-1)
    assert said == "".join(f"{['bad', 'good'][a]}\t{text}\n" for a, text in zip(answers, ["good", "bad"], strict=True))


@pytest.mark.parametrize("kind", ["numpy", "onnx"])
def test_a_text_without_tokens_is_answered_as_pytorch_does(kind, student, tmp_path):
    """By the bias alone, where not even special tokens are read."""
    state = json.loads(tiny_tokenizer().backend_tokenizer.to_str()) | {"post_processor": None}
    folder = shutil.copytree(student, tmp_path / "student")
    models.rebuilt_tokenizer(tiny_tokenizer(), state).save_pretrained(folder)
    deployment.export(str(folder), tmp_path / "out", kind)
    ours, theirs = (deployment.load_runner(str(each)) for each in (folder, tmp_path / "out"))
    for texts in (["good", ""], [""]):
        assert np.abs(theirs.logits(texts) - ours.logits(texts)).max() < 1e-5


def test_its_vocabulary_can_be_trimmed(student, tmp_path):
    texts = [row["text"] for row in teachable_rows(20)]
    facts = deployment.export(str(student), tmp_path / "out", "numpy", texts, texts)
    assert facts["vocabulary"] < json.loads((student / "config.json").read_text())["vocab_size"]
    assert facts["changed_predictions"] == 0


def test_numpy_alone_is_for_a_static_student(tmp_path):
    folder = save_model(tmp_path / "bert", tiny_model("bert"), tiny_tokenizer())
    with pytest.raises(UserError, match="numpy is for --student static"):
        deployment.export(str(folder), tmp_path / "out", "numpy")
    assert not (tmp_path / "out").exists()


def test_a_static_student_is_not_packed_where_no_package_could_load_it(student, tmp_path):
    from kdhelpers.sagemaker import endpoints

    shutil.copytree(student, tmp_path / "run" / "student")
    with pytest.raises(UserError, match="deploy the export"):
        endpoints.pack(tmp_path / "run", tmp_path / "packed")


@pytest.mark.parametrize("kind", ["numpy", "onnx"])
def test_what_cannot_be_asked_of_pairs_is_one_sentence_and_bytes_that_are_no_text_are_read(kind, student, tmp_path):
    deployment.export(str(student), tmp_path / "out", kind, [("good", "bad")])
    command = [sys.executable, "-I", str(tmp_path / "out" / "predict.py"), "good", b"\xff bad"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.endswith("\tgood\t? bad\n")
    done = subprocess.run([*command, "a third"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "this student reads pairs of texts: give two for each answer\n"


@pytest.mark.parametrize("task", ["pairs", "several-labels", "number"])
def test_numpy_alone_answers_every_task_as_pytorch_and_says_it_in_words(task, tmp_path):
    set_seed(0)
    names = {"pairs": ["bad", "good"], "several-labels": ["long", "dull", "loud"], "number": ["value"]}[task]
    parent = tiny_model("bert", labels=len(names))
    parent.get_input_embeddings().weight.data.normal_(0, 3)[:5] = 0  # [CLS] and [SEP] are in every text
    if task != "pairs":
        parent.config.problem_type = Task(task).problem_type
    model = models.set_labels(models.static_student(parent), names)
    model.classifier.weight.data.normal_()
    folder = save_model(tmp_path / "student", model, tiny_tokenizer())
    single = ["good", "a dull plot", "lovely", "the train", "awful winter", "never again"]
    texts = list(zip(single[::2], single[1::2], strict=True)) if task == "pairs" else single
    facts = deployment.export(str(folder), tmp_path / "out", "numpy", texts)
    ours, runner = deployment.load_runner(str(folder)), deployment.load_runner(str(tmp_path / "out"))
    assert runner.task is ours.task is (Task.ONE if task == "pairs" else Task(task))
    assert np.abs(runner.logits(texts) - (logits := ours.logits(texts))).max() < 1e-5
    command = [sys.executable, "-I", str(tmp_path / "out" / "predict.py"), *single]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = [predict.answer(row, facts["labels"], facts["task"]) for row in logits]
    told = ["\t".join(text) for text in texts] if task == "pairs" else texts
    assert said == [f"{word}\t{text}" for word, text in zip(words, told, strict=True)]
    assert len(set(words)) > 1, "texts that are answered alike would show nothing"
