"""Cutting a student out of a model's layers, and what is set before a training."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from kdhelpers.errors import UserError


def encoder_layers(model: PreTrainedModel):
    """The ModuleList of transformer blocks, for BERT and DistilBERT alike. Raises UserError for other families."""
    body = model.base_model
    for stack in (getattr(body, "encoder", None), getattr(body, "transformer", None)):
        if hasattr(stack, "layer"):
            return stack.layer
    raise UserError(f"cannot cut layers out of a {type(model).__name__}: BERT-like encoders only; name a --student")


def num_layers(model: PreTrainedModel) -> int:
    """How many transformer blocks the model has."""
    return len(encoder_layers(model))


def evenly_spaced_layers(total: int, keep: int) -> tuple[int, ...]:
    """Which layers to keep, counted from 1: evenly spaced and ending with the last, so 3 of 6 gives (2, 4, 6)."""
    if not 1 <= keep <= total:
        raise UserError(f"a student of {keep} layers cannot be cut from a model of {total}: choose 1 to {total}")
    return tuple(round((index + 1) * total / keep) for index in range(keep))


def student_from_layers(parent: PreTrainedModel, layers: tuple[int, ...]) -> PreTrainedModel:
    """A smaller classifier made of a choice of the parent's layers (counted from 1); embeddings and head are copied.

    Nothing is shared with the parent afterwards, and the config says the new number of layers, so the student
    loads anywhere (PKD, Sun et al. 2019, and DistilBERT, Sanh et al. 2019, start their students this way).
    """
    config = copy.deepcopy(parent.config)
    config.num_hidden_layers = len(layers)  # DistilBERT maps this to its own n_layers
    student = type(parent)(config)
    parent_blocks, student_blocks = encoder_layers(parent), encoder_layers(student)
    if not all(1 <= layer <= len(parent_blocks) for layer in layers):
        raise UserError(f"layers {layers}: this model has layers 1 to {len(parent_blocks)}")
    in_blocks = {id(parameter) for parameter in student_blocks.parameters()}
    source = parent.state_dict()
    rest = {
        name: source[name]
        for name, value in student.named_parameters(remove_duplicate=False)
        if id(value) not in in_blocks
    }
    student.load_state_dict(rest, strict=False)
    student.set_attn_implementation(parent.config._attn_implementation)
    for block, layer in zip(student_blocks, layers, strict=True):
        block.load_state_dict(parent_blocks[layer - 1].state_dict())
    return student


def reset_head(model: PreTrainedModel) -> PreTrainedModel:
    """Give a classifier a new random head; draw it after `set_seed`."""
    for name in ("pre_classifier", "classifier"):
        if hasattr(model, name):
            layer = getattr(model, name)
            layer.weight.data.normal_(mean=0.0, std=model.config.initializer_range)
            layer.bias.data.zero_()
    return model


def freeze_word_embeddings(model: PreTrainedModel) -> PreTrainedModel:
    """Stop training the word-piece table: most of a small student's weights, and the optimizer's largest bill."""
    model.get_input_embeddings().weight.requires_grad_(False)
    return model


def set_dropout(model: PreTrainedModel, probability: float) -> PreTrainedModel:
    """Set every dropout of a model for this training; its config, and so what it is saved with, stays as it is.

    Drawing its random numbers is a sixth of a step on a CPU, and in trainings of students as short as ours (a few
    epochs, the best checkpoint kept) we saw no loss of validation accuracy without it.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
    return model


def count_parameters(model: nn.Module) -> int:
    """All parameters, trained or frozen."""
    return sum(parameter.numel() for parameter in model.parameters())


def cut_layers(parent: PreTrainedModel, keep: int) -> PreTrainedModel:
    """`student_from_layers` with `keep` evenly spaced layers of the parent. Raises UserError for too many."""
    return student_from_layers(parent, evenly_spaced_layers(num_layers(parent), keep))
