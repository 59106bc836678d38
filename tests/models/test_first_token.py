"""The last layer computes the first token alone, and nobody can tell from logits or gradients."""

import pytest
import torch
from transformers import set_seed

from kdhelpers import models
from kdhelpers.models.first_token import FIRST_TOKEN
from tests.tiny import FAMILIES, family_tokenizer, tiny_model

TEXTS = ["this film was lovely and the plot felt fine", "a bad, dull story again", "x"]


def strong(family, layers=2):
    """A tiny model with weights so large that every layer matters."""
    set_seed(0)
    model = tiny_model(family, layers=layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0 if parameter.dim() > 1 else 1.0)
    return model


def learn(model, family):
    """Logits and gradients of one batch with padding."""
    batch = family_tokenizer(family)(TEXTS, padding=True, return_tensors="pt")
    model.zero_grad()
    output = model(**batch, labels=torch.tensor([0, 1, 1]))
    output.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return output.logits.detach(), gradients


def tokens_of_the_last_layer(model, family):
    seen = []
    hook = models.encoder_layers(model)[-1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    learn(model, family)
    hook.remove()
    return seen[0].shape[1]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_the_whole_layer(family, layers):
    model = strong(family, layers)
    logits, gradients = learn(model, family)
    with models.first_token_only(model):
        fewer_logits, fewer_gradients = learn(model, family)
    torch.testing.assert_close(fewer_logits, logits, rtol=1e-5, atol=1e-6)
    assert fewer_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fewer_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert sum(gradient.abs().sum().item() for gradient in gradients.values()) > 0.1


def test_the_last_layer_holds_one_token_within_the_block_and_all_behind_it():
    for family in FIRST_TOKEN.keys() - {"camembert", "modernbert"}:
        model = strong(family)
        assert tokens_of_the_last_layer(model, family) > 1
        with models.first_token_only(model):
            assert tokens_of_the_last_layer(model, family) == 1, family
        assert tokens_of_the_last_layer(model, family) > 1


def test_a_classifier_that_reads_all_tokens_is_left_as_it_is():
    model = strong("modernbert")
    model.config.classifier_pooling = "mean"
    logits, _ = learn(model, "modernbert")
    with models.first_token_only(model):
        assert torch.equal(learn(model, "modernbert")[0], logits)
    with models.first_token_only(None), models.first_token_only(tiny_model("albert")):
        pass


def test_a_model_that_computes_again_for_its_gradients_is_left_as_it_is():
    model = strong("bert").train()
    model.gradient_checkpointing_enable()
    with models.first_token_only(model):
        assert tokens_of_the_last_layer(model, "bert") > 1


def test_a_block_within_a_block_changes_nothing():
    for family in FIRST_TOKEN.keys() - {"camembert"}:
        model = strong(family)
        with models.first_token_only(model):
            once = learn(model, family)[0]
            with models.first_token_only(model):
                torch.testing.assert_close(learn(model, family)[0], once)
