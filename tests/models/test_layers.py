"""Cutting, heads, embeddings and dropout, for every family of encoders."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

from kdhelpers import models
from kdhelpers.errors import UserError
from tests.tiny import FAMILIES, family_tokenizer, save_model, tiny_bert, tiny_model

TEXTS = ["this film was lovely", "a bad, dull story again", "x"]


@pytest.fixture(params=FAMILIES)
def family(request):
    set_seed(0)
    return request.param


def encoded(family, texts=TEXTS):
    return family_tokenizer(family)(texts, padding=True, return_tensors="pt")


def answers(model, batch):
    with torch.inference_mode():
        return model(**batch).logits


def test_a_student_of_all_layers_answers_as_its_parent_and_shares_nothing(family):
    parent = tiny_model(family, layers=3)
    student = models.student_from_layers(parent, (1, 2, 3)).eval()
    batch = encoded(family)
    before = answers(parent, batch)
    torch.testing.assert_close(answers(student, batch), before)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 1
    torch.testing.assert_close(answers(parent, batch), before)


def test_a_cut_student_survives_saving_and_loading(family, tmp_path):
    parent = tiny_model(family, layers=4)
    student = models.cut_layers(parent, 2).eval()
    save_model(tmp_path, student, family_tokenizer(family))
    loaded = models.load_classifier(str(tmp_path), None)
    assert loaded.has_head
    assert models.num_layers(loaded.model) == models.num_layers(student) == 2
    torch.testing.assert_close(answers(loaded.model.eval(), encoded(family)), answers(student, encoded(family)))
    shares = family == "albert"
    assert (models.count_parameters(student) < models.count_parameters(parent)) != shares


def test_the_chosen_layers_are_the_ones_copied(family):
    if family == "albert":
        pytest.skip("all of its layers are one")
    parent = tiny_model(family, layers=4)
    student = models.student_from_layers(parent, (2, 4))
    for block, layer in zip(models.encoder_layers(student), (2, 4), strict=True):
        origin = models.encoder_layers(parent)[layer - 1].state_dict()
        for name, weight in block.state_dict().items():
            torch.testing.assert_close(weight, origin[name], msg=name)


def test_what_is_neither_layer_nor_head_is_copied_too(family):
    parent = tiny_model(family, layers=4)
    with torch.no_grad():
        for parameter in parent.parameters():  # so that no weight can be equal by its initial value
            parameter.uniform_()
    student, source = models.cut_layers(parent, 1), parent.state_dict()
    blocks = set() if family == "albert" else {id(p) for p in models.encoder_layers(student).parameters()}
    others = [name for name, parameter in student.named_parameters() if id(parameter) not in blocks]
    assert any("embedding" in name for name in others)
    for name in others:
        torch.testing.assert_close(student.get_parameter(name).data, source[name], msg=name)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_student_computes_attention_as_its_parent_does(attention):
    parent = tiny_bert()
    parent.set_attn_implementation(attention)
    student = models.cut_layers(parent, 1)
    assert {student.config._attn_implementation, student.base_model.config._attn_implementation} == {attention}


def test_modernbert_keeps_each_layers_kind_of_attention():
    parent = tiny_model("modernbert", layers=4)
    kinds = parent.config.layer_types
    assert models.student_from_layers(parent, (2, 3)).config.layer_types == [kinds[1], kinds[2]]


def test_a_cut_student_trains(family):
    student = models.cut_layers(tiny_model(family, layers=2), 1)
    student.train()
    student(**encoded(family), labels=torch.tensor([1, 0, 1])).loss.backward()
    without = [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None and "pooler" not in n]
    assert without == []


def test_a_new_head_is_random_repeatable_and_leaves_the_encoder_alone(family):
    heads = []
    for seed in (1, 1, 2):
        set_seed(0)
        model = tiny_model(family)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(9.0)
        set_seed(seed)
        models.reset_head(model)
        body = {id(parameter) for parameter in model.base_model.parameters()}
        head = [parameter for parameter in model.parameters() if id(parameter) not in body]
        assert all((parameter == 9).all() for parameter in model.base_model.parameters())
        assert head
        assert all((parameter != 9).all() for parameter in head)
        heads.append(torch.cat([parameter.detach().flatten() for parameter in head]))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_new_head_is_drawn_as_the_family_draws_it_even_after_loading(family, tmp_path):
    save_model(tmp_path, tiny_model(family, hidden=64), family_tokenizer(family))
    model = models.load_classifier(str(tmp_path), None).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    models.reset_head(model)
    fresh = type(model)(model.config)
    heads = [name for name, module in fresh.named_children() if module is not fresh.base_model]
    drawn = [name for name, weight in fresh.named_parameters() if name.split(".")[0] in heads and weight.numel() > 100]
    assert drawn
    for name in drawn:
        ours, expected = (each.get_parameter(name).detach() for each in (model, fresh))
        assert not torch.equal(ours, before[name])
        assert ours.std().item() == pytest.approx(expected.std().item(), rel=0.5)


def test_frozen_word_embeddings_do_not_move_and_the_rest_does(family):
    model = models.freeze_word_embeddings(tiny_model(family)).train()
    table = model.get_input_embeddings().weight
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(**encoded(family), labels=torch.tensor([1, 0, 1])).loss.backward()
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    frozen = [name for name, parameter in model.named_parameters() if parameter is table]
    assert not moved.intersection(frozen)
    assert len(moved) > 5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_dropout_is_set_everywhere_and_the_config_stays(family, attention):
    config = tiny_model(family).config
    for name in vars(config):
        if "dropout" in name and name != "classifier_dropout":
            setattr(config, name, 0.5)
    kept = {name: value for name, value in config.to_dict().items() if "dropout" in name}
    if attention == "sdpa" and family in ("mpnet", "deberta-v2"):
        pytest.skip("it has no fused attention")
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).train()
    batch = encoded(family)
    assert not torch.equal(answers(model, batch), answers(model, batch))
    models.set_dropout(model, 0.0)
    torch.testing.assert_close(answers(model, batch), answers(model, batch), rtol=0, atol=0)
    torch.testing.assert_close(answers(model, batch), answers(model.eval(), batch))
    models.set_dropout(model.train(), 0.5)
    assert not torch.equal(answers(model, batch), answers(model, batch))
    assert {name: value for name, value in model.config.to_dict().items() if "dropout" in name} == kept


def test_dropout_can_be_switched_on_where_a_model_came_without_any():
    config = tiny_model("modernbert").config  # all of its dropouts are 0
    model = AutoModelForSequenceClassification.from_config(config).eval()
    names = set(model.state_dict())
    models.set_dropout(model, 0.3)
    attention = models.encoder_layers(model)[0].attn
    assert attention.attention_dropout == 0.3
    assert isinstance(attention.out_drop, torch.nn.Dropout)
    assert set(model.state_dict()) == names


def test_layers_are_counted_by_the_config(family):
    assert models.num_layers(tiny_model(family, layers=3)) == 3


def test_every_family_with_layers_of_its_own_shows_them(family):
    model = tiny_model(family, layers=3)
    if family == "albert":
        with pytest.raises(UserError):
            models.encoder_layers(model)
        return
    blocks = models.encoder_layers(model)
    seen = []
    for block in blocks:
        block.register_forward_hook(lambda module, *_: seen.append(module))
    answers(model, encoded(family))
    assert seen == list(blocks)


def test_a_family_without_a_single_list_of_layers_is_refused_in_a_sentence():
    options = {"vocab_size": 50, "d_model": 16, "d_head": 8, "n_head": 2, "d_inner": 16, "block_sizes": [2, 1, 1]}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("funnel", **options))
    with pytest.raises(UserError):
        models.cut_layers(model, 1)


@pytest.mark.parametrize("keep", [-1, 3])
def test_a_student_cannot_have_more_layers_than_its_parent(keep):
    with pytest.raises(UserError):
        models.cut_layers(tiny_bert(layers=2), keep)


@pytest.mark.parametrize("layers", [(), (0,), (3,), (-1, 1)])
def test_layers_that_are_not_there_cannot_be_chosen(layers):
    with pytest.raises(UserError):
        models.student_from_layers(tiny_bert(layers=2), layers)


@pytest.mark.parametrize(("total", "keep"), [(6, 3), (12, 6), (12, 5), (4, 4), (24, 1)])
def test_layers_are_evenly_spaced_and_end_with_the_last(total, keep):
    layers = models.evenly_spaced_layers(total, keep)
    assert len(set(layers)) == keep
    assert layers[-1] == total
    assert np.ptp(np.diff([0, *layers])) <= 1
