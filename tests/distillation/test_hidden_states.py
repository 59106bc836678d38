"""Losses on hidden states, attention and value relations, on tiny random models."""

import copy

import pytest
import torch
from transformers import set_seed

from kdhelpers import models, states
from kdhelpers.errors import UserError
from kdhelpers.trainer import DistillationTrainingArguments
from tests.test_trainer import rows, tokenizer, trainer_for  # noqa: F401  (fixtures)
from tests.tiny import tiny_bert, tiny_distilbert

KINDS = states.STATES[1:]


@pytest.fixture
def batch():
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def loss_of(kind, student, teacher, batch):
    deep = states.StatesLoss(kind, student, teacher)
    with torch.no_grad():
        other = teacher(**batch, **deep.asks)
    return deep(student(**batch, **deep.asks), other, batch["attention_mask"]).detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [tiny_bert, tiny_distilbert])
def test_a_copy_loses_nothing_and_another_model_something(kind, make, batch):
    set_seed(0)
    teacher = make()
    assert float(loss_of(kind, copy.deepcopy(teacher), teacher, batch)) == pytest.approx(0, abs=1e-6)
    assert float(loss_of(kind, make(), teacher, batch)) > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_padding_counts_nothing(kind, batch):
    set_seed(0)
    teacher, student = tiny_bert(), tiny_bert()
    longer = {name: torch.nn.functional.pad(tensor, (0, 4)) for name, tensor in batch.items()}
    short, long = (float(loss_of(kind, student, teacher, given)) for given in (batch, longer))
    assert short == pytest.approx(long, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_training_brings_the_student_nearer(kind, rows, tokenizer, tmp_path):  # noqa: F811
    set_seed(0)
    teacher = tiny_bert(layers=4)
    student = models.student_from_layers(teacher, (1, 3))
    batch = tokenizer.pad(rows.select_columns(["input_ids", "attention_mask"])[:], return_tensors="pt")
    options = {"states": kind, "states_weight": 1.0, "max_steps": 20, "learning_rate": 1e-3}
    before = float(loss_of(kind, copy.deepcopy(student), copy.deepcopy(teacher), batch))
    trainer = trainer_for(student, rows, tokenizer, tmp_path, teacher, **options)
    trainer.train()
    assert float(loss_of(kind, student.eval(), teacher, batch)) < 0.9 * before


def test_other_widths_and_unknown_kinds_are_refused(rows, tokenizer, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="hidden_size is 32 and 64"):
        states.StatesLoss("pkd", tiny_bert(), tiny_bert(hidden=64))
    with pytest.raises(UserError, match="none, pkd, tinybert, minilm"):
        DistillationTrainingArguments(output_dir=str(tmp_path), states="tinybart")
    with pytest.raises(UserError, match="live teacher"):
        trainer_for(tiny_bert(), rows, tokenizer, tmp_path, states="pkd")
