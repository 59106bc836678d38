"""Every family with every kind of tokenizer and every task: trained a step, saved, loaded, exported, asked."""

import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from datasets import Dataset, DatasetDict

from kdhelpers import data, deployment, models
from kdhelpers.deployment import graph, predict
from kdhelpers.deployment.export import _reads_types
from kdhelpers.distillation import Training, fit, save_fit
from kdhelpers.distillation.teacher_logits import with_column
from kdhelpers.errors import UserError
from kdhelpers.runtime import this_machine
from kdhelpers.settings import recipe
from tests.deployment.test_export import torch_logits
from tests.tiny import FAMILIES, KINDS, POSITIONS, family_tokenizer, save_model, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.slow

ONE = ["good", "an awful film with a dull plot, and 3 lovely scenes", "never " * 100]
TWO = ["the story is fine", "it was a lovely winter", "always " * 100]
PAIRS = list(zip(ONE, TWO, strict=True))
TYPED = {"bert", "electra", "albert", "roberta", "xlm-roberta"}  # to which text a token belongs, if they are told
LABELS = {  # of rows of a task, outputs of its model
    "one-label": ([0, 2, -100], 3),
    "pairs": ([0, 1, -100], 2),
    "several-labels": ([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [float("nan")] * 3], 3),
    "number": ([0.5, -1.25, float("nan")], 1),
}
# each family meets every kind of tokenizer in some task, and each task every kind
EXPORTS = [
    (family, KINDS[(one + two) % len(KINDS)], task)
    for one, family in enumerate(FAMILIES)
    for two, task in enumerate(LABELS)
]
PROGRAMS = {("roberta", "one-label"), ("deberta-v2", "pairs"), ("mpnet", "several-labels"), ("modernbert", "number")}


def task_of(name: str) -> data.Task:
    return data.Task.ONE if name == "pairs" else data.Task(name)


def rows_of(task: str) -> DatasetDict:
    columns = {"id": ["a", "b", "c"], "text": ONE, "label": LABELS[task][0]}
    return DatasetDict(train=Dataset.from_dict(columns | ({"text_pair": TWO} if task == "pairs" else {})))


def model_of(family: str, task: str, kind: str | None = None):
    """A model whose weights are so large that its logits depend on every token."""
    torch.manual_seed(0)
    layers = 2 if (family, task) == ("modernbert", "one-label") else 1  # of its two kinds of attention one each
    model = tiny_model(family, labels=LABELS[task][1], layers=layers, hidden=16, tokenizer=kind)
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.data.normal_(0, 0.3)
    if task == "pairs":
        model.config.text_pairs = True
    else:
        model.config.problem_type = data.Task(task).problem_type
    return model


def trained(family: str, kind: str, task: str, folder):
    """One step on labels and answers, saved; the logits of the rows before it was saved."""
    tokenizer, model = tiny_tokenizer(kind), model_of(family, task, kind)
    settings = recipe(batch_size=3, alpha=0.5, precision="fp32")
    rows = data.tokenise(rows_of(task), tokenizer, POSITIONS)["train"]
    before = models.predict_logits(model, rows, tokenizer)
    answers = np.random.default_rng(0).normal(size=(3, LABELS[task][1])).astype(np.float32)
    machine = this_machine("fp32")
    how = Training("tiny", with_column(rows, answers), tokenizer, settings, machine, steps=1, task=task_of(task))
    result = fit(model, how)
    save_fit(folder, result, tokenizer)
    after = models.predict_logits(result.model, rows, tokenizer)
    assert np.abs(after - before).max() > 1e-6, "a step that changes nothing"
    return after


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_task_is_trained_saved_loaded_and_answered_alike(family, kind, tmp_path):
    for task in LABELS:
        ours = trained(family, kind, task, tmp_path / task)
        loaded = deployment.load_runner(str(tmp_path / task))
        assert loaded.task is task_of(task)
        logits = loaded.logits(PAIRS if task == "pairs" else ONE)
        assert logits.shape == (3, LABELS[task][1])
        assert np.abs(logits - ours).max() < 1e-5, task
        assert np.ptp(logits, axis=0).min() > 0, "each text has an answer of its own"


@pytest.mark.parametrize(("family", "kind", "task"), EXPORTS)
def test_a_student_is_trained_saved_exported_and_asked(family, kind, task, tmp_path):
    student, out, texts = tmp_path / "student", tmp_path / "out", PAIRS if task == "pairs" else ONE
    ours = trained(family, kind, task, student)
    facts = deployment.export(str(student), out, texts=texts)
    assert (facts["task"], facts["pairs"], facts["max_length"]) == (task_of(task), task == "pairs", POSITIONS)
    runner = deployment.load_runner(str(out))
    assert np.abs(ours - runner.logits(texts)).max() < 1e-4
    assert runner.truths([["1"]] if task == "several-labels" else ["1"]).shape[0] == 1
    names = predict.inputs_of(onnxruntime.InferenceSession(out / "model.onnx"))
    assert ("token_type_ids" in names) == (task == "pairs" and kind == "wordpiece" and family in TYPED)
    if (family, task) in PROGRAMS:
        asked = [text for pair in texts for text in pair] if task == "pairs" else texts
        command = [sys.executable, "-I", str(out / "predict.py"), *asked]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        words = [predict.answer(row, facts["labels"], facts["task"]) for row in ours]
        assert [line.split("\t")[0] for line in said] == words
    if task == "one-label":
        assert np.abs(ours - torch_logits(student, texts)).max() < 1e-4, "transformers alone"
        graph.quantize(out / "model.onnx", tmp_path / "int8.onnx")
        assert (tmp_path / "int8.onnx").stat().st_size < facts["bytes"]
        shutil.copy(tmp_path / "int8.onnx", out / "model.onnx")
        assert np.abs(ours - deployment.exported_logits(out, texts)).max() < 2


def test_the_order_of_a_pair_matters_where_its_types_are_read(tmp_path):
    folder = save_model(tmp_path / "student", model_of("bert", "pairs"), family_tokenizer("bert"))
    model, tokenizer = models.load_classifier(str(folder), None).model, models.load_tokenizer(str(folder))
    assert _reads_types(model, tokenizer)
    deployment.export(str(folder), tmp_path / "out")
    runner = deployment.load_runner(str(tmp_path / "out"))
    inputs = runner.encode([("good film", "bad film")])
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    flat = inputs | {"token_type_ids": np.zeros_like(inputs["token_type_ids"])}
    assert np.abs(runner.run(inputs) - runner.run(flat)).max() > 1e-3


def test_a_tokenizer_gives_no_types_to_a_model_that_knows_but_one(tmp_path):
    """RoBERTa's own has a table of one type: a second would be out of its range."""
    torch.manual_seed(0)
    model = tiny_model("roberta")
    model.config.type_vocab_size = 1
    model.roberta.embeddings.token_type_embeddings = torch.nn.Embedding(1, 32)
    folder = save_model(tmp_path / "student", model, family_tokenizer("bert"))  # which gives types
    tokens = data.tokenise(rows_of("pairs"), models.load_tokenizer(str(folder)), 64)["train"]
    assert "token_type_ids" not in tokens.column_names
    assert deployment.load_runner(str(folder)).logits([("good", "bad")]).shape == (1, 2)


def test_a_student_of_pairs_is_not_compared_on_single_texts(tmp_path):
    folder = save_model(tmp_path / "student", model_of("bert", "pairs"), family_tokenizer("bert"))
    with pytest.raises(UserError, match="--text-pair-column"):
        deployment.export(str(folder), tmp_path / "out", texts=["one text"])
