"""Losses on hidden states, attention scores and value relations, on tiny random models."""

import copy

import pytest
import torch
from transformers import set_seed

from kdhelpers import models
from kdhelpers.distillation import DistillationTrainingArguments
from kdhelpers.distillation.hidden_states import HiddenStatesLoss, look_inside
from kdhelpers.errors import UserError
from kdhelpers.settings import HIDDEN_STATES, recipe
from tests.distillation.test_trainer import rows, tokenizer, trainer_for  # noqa: F401  (fixtures)
from tests.tiny import tiny_bert, tiny_model

KINDS = HIDDEN_STATES[1:]
SHOWN = ("bert", "distilbert", "roberta", "electra", "modernbert", "albert", "xlm-roberta")


@pytest.fixture
def batch():
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 1, 1]])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def loss_of(kind, student, teacher, batch):
    deep = HiddenStatesLoss(kind, student, teacher)
    with torch.no_grad():
        other = look_inside(teacher, batch)
    return deep(look_inside(student, batch), other, batch["attention_mask"]).detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", SHOWN)
def test_a_copy_in_training_loses_nothing_and_another_model_something(kind, family, batch):
    """Read after dropout, a perfect copy's attention would be some 2 nats away."""
    set_seed(0)
    teacher, another = tiny_model(family), tiny_model(family)
    assert float(loss_of(kind, copy.deepcopy(teacher).train(), teacher, batch)) == pytest.approx(0, abs=1e-6)
    assert float(loss_of(kind, another.train(), teacher, batch)) > 1e-5


def scores_by_hand(model, hidden, layer):
    attention = model.bert.encoder.layer[layer].attention.self
    query, key = (
        part(hidden).unflatten(-1, (2, -1)).transpose(1, 2).float() for part in (attention.query, attention.key)
    )
    return query @ key.transpose(2, 3) / query.shape[-1] ** 0.5


def test_tinybert_is_the_papers(batch):
    """Embeddings, hidden states and the attention scores before the softmax (Jiao et al. 2020), written out."""
    set_seed(0)
    student, teacher = tiny_bert(layers=1), tiny_bert(layers=2)
    inputs = {name: tensor[:1] for name, tensor in batch.items()}  # without padding
    with torch.no_grad():
        mine, other = (model(**inputs, output_hidden_states=True).hidden_states for model in (student, teacher))
        expected = (mine[0] - other[0]).square().mean() + (mine[1] - other[2]).square().mean()
        expected += (scores_by_hand(student, mine[0], 0) - scores_by_hand(teacher, other[1], 1)).square().mean()
        assert float(loss_of("tinybert", student, teacher, inputs)) == pytest.approx(float(expected), rel=1e-5)


def test_looking_inside_changes_no_answer_and_leaves_no_trace(batch):
    set_seed(0)
    for family in SHOWN:
        model = tiny_model(family)
        usual, expected = model.config._attn_implementation, model(**batch).logits
        output, inside = look_inside(model, batch)
        torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)
        assert [scores.shape for scores, _ in inside] == [(2, 2, 5, 5)] * 2
        assert model.config._attn_implementation == usual


@pytest.mark.parametrize("kind", KINDS)
def test_padding_counts_nothing(kind, batch):
    set_seed(0)
    teacher, student = tiny_bert(), tiny_bert()
    longer = {name: torch.nn.functional.pad(tensor, (0, 4)) for name, tensor in batch.items()}
    short, long = (float(loss_of(kind, student, teacher, given)) for given in (batch, longer))
    assert short == pytest.approx(long, rel=1e-3), "up to rounding, which differs by processor"


@pytest.mark.parametrize("kind", KINDS)
def test_training_brings_the_student_nearer(kind, rows, tokenizer, tmp_path):  # noqa: F811
    set_seed(0)
    teacher = tiny_bert(layers=4)
    student = models.student_from_layers(teacher, (1, 3))
    batch = dict(tokenizer.pad(rows.select_columns(["input_ids", "attention_mask"])[:], return_tensors="pt"))
    options = {"hidden_states": kind, "hidden_states_weight": 100, "max_steps": 20, "learning_rate": 1e-3}
    before = float(loss_of(kind, copy.deepcopy(student), teacher, batch))
    trainer_for(student, rows, tokenizer, tmp_path, teacher, **options).train()
    assert float(loss_of(kind, student.eval(), teacher, batch)) < 0.9 * before


def test_what_cannot_be_imitated_is_refused(rows, tokenizer, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="hidden_size is 32 and 64"):
        HiddenStatesLoss("pkd", tiny_bert(), tiny_bert(hidden=64))
    with pytest.raises(UserError, match="none, pkd, tinybert, minilm"):
        DistillationTrainingArguments(output_dir=str(tmp_path), hidden_states="tinybart")
    with pytest.raises(UserError, match="live teacher"):
        trainer_for(tiny_bert(), rows, tokenizer, tmp_path, hidden_states="pkd")
    with pytest.raises(UserError, match="without dropout"):
        recipe(hidden_states="pkd", dropout=0.1)


def test_a_family_whose_attention_cannot_be_read_is_told_to_use_pkd():
    set_seed(0)
    for family in ("deberta-v2", "mpnet"):
        pair = tiny_model(family), tiny_model(family)
        with pytest.raises(UserError, match="use pkd"):
            HiddenStatesLoss("tinybert", *pair)
        HiddenStatesLoss("pkd", *pair)
