"""Every family with every task: trained a step, saved, loaded, exported, asked; pairs with their tokens' types."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from datasets import Dataset, DatasetDict

from kdhelpers import data, deployment, models
from kdhelpers.deployment.export import _reads_types
from kdhelpers.distillation import Training, fit, save_fit
from kdhelpers.distillation.teacher_logits import with_column
from kdhelpers.errors import UserError
from kdhelpers.runtime import this_machine
from kdhelpers.settings import recipe
from tests.tiny import FAMILIES, family_tokenizer, save_model, tiny_model

pytestmark = pytest.mark.slow

ONE = ["good", "an awful film with a dull plot", "never " * 100]
TWO = ["the story is fine", "it was a lovely winter", "always " * 100]
READ = {"bert", "electra"}  # to which text a token belongs: with the tokenizers of the tests, the others are not told
LABELS = {  # of rows of a task, outputs of its model
    "pairs": ([0, 1, -100], 2),
    "several-labels": ([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [float("nan")] * 3], 3),
    "number": ([0.5, -1.25, float("nan")], 1),
}


def rows_of(task: str) -> DatasetDict:
    columns = {"id": ["a", "b", "c"], "text": ONE, "label": LABELS[task][0]}
    return DatasetDict(train=Dataset.from_dict(columns | ({"text_pair": TWO} if task == "pairs" else {})))


def model_of(family: str, task: str):
    torch.manual_seed(0)
    model = tiny_model(family, labels=LABELS[task][1], layers=2 if family == "modernbert" else 1)
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.data.normal_(0, 0.3)
    if task == "pairs":
        model.config.text_pairs = True
    else:
        model.config.problem_type = data.Task(task).problem_type
    return model


def trained(family: str, task: str, folder):
    """One step on labels and answers, saved; the folder."""
    tokenizer, model = family_tokenizer(family), model_of(family, task)
    settings = recipe(batch_size=3, alpha=0.5, precision="fp32")
    rows = data.tokenise(rows_of(task), tokenizer, 64)["train"]
    answers = np.random.default_rng(0).normal(size=(3, LABELS[task][1])).astype(np.float32)
    rows = with_column(rows, answers)
    kind = data.Task.ONE if task == "pairs" else data.Task(task)
    result = fit(model, Training("tiny", rows, tokenizer, settings, this_machine("fp32"), steps=1, task=kind))
    save_fit(folder, result, tokenizer)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_task_is_trained_saved_and_answered_from_its_folder(family, tmp_path):
    for task in LABELS:
        folder = trained(family, task, tmp_path / task)
        loaded = deployment.load_runner(str(folder))
        assert loaded.task is (data.Task.ONE if task == "pairs" else data.Task(task))
        logits = loaded.logits(list(zip(ONE, TWO, strict=True)) if task == "pairs" else ONE)
        assert logits.shape == (3, LABELS[task][1])
        assert np.ptp(logits, axis=0).min() > 0, "each text has an answer of its own"


@pytest.mark.parametrize(
    ("family", "task"),
    # pairs for each; the graphs of the others differ in their outputs alone, whose number is three in test_families.py
    [*((family, "pairs") for family in FAMILIES), ("distilbert", "several-labels"), ("deberta-v2", "number")],
)
def test_a_student_is_trained_saved_exported_and_asked(family, task, tmp_path):
    folder = trained(family, task, tmp_path / "student")
    texts = list(zip(ONE, TWO, strict=True)) if task == "pairs" else ONE
    facts = deployment.export(str(folder), tmp_path / "out", texts=texts)
    assert (facts["task"], facts["pairs"]) == ("one-label" if task == "pairs" else task, task == "pairs")
    loaded = models.load_classifier(str(folder), None).model.eval()
    tokenizer = models.load_tokenizer(str(folder))
    ours = models.predict_logits(loaded, data.tokenise(rows_of(task), tokenizer, 64)["train"], tokenizer)
    runner = deployment.load_runner(str(tmp_path / "out"))
    assert np.abs(ours - runner.logits(texts)).max() < 1e-4
    assert np.abs(ours - deployment.load_runner(str(folder)).logits(texts)).max() < 1e-4
    assert runner.truths([["1"]] if task == "several-labels" else ["1"]).shape[0] == 1
    names = {each.name for each in onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").get_inputs()}
    assert ("token_type_ids" in names) == (task == "pairs" and family in READ)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["task"] == facts["task"]


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
