"""Cutting a student out of a model's layers, and what is set before a training: for every family of encoders."""

import copy

from torch import nn
from transformers import PreTrainedModel

from kdhelpers.errors import UserError
from kdhelpers.models.static import static_student

PER_LAYER = ("layer_types", "attention_window")  # lists in a config with one entry a layer (ModernBERT, Longformer)


def num_layers(model: PreTrainedModel) -> int:
    """How many transformer blocks a text passes through, as the config says."""
    return model.config.num_hidden_layers


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer blocks. Raises UserError for a family whose layers are shared or lie in several lists."""
    lists = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    inner = {id(part) for outer in lists for part in outer.modules() if part is not outer}
    found = [part for part in lists if len(part) == num_layers(model) and id(part) not in inner]
    if len(found) != 1 or hasattr(model.config, "num_hidden_groups"):
        raise UserError(f"a {type(model).__name__} has no list of layers of its own: take another teacher or student")
    return found[0]


def evenly_spaced_layers(total: int, keep: int) -> tuple[int, ...]:
    """Which layers to keep, counted from 1: evenly spaced and ending with the last. Raises UserError for too many.

    >>> evenly_spaced_layers(6, 3)
    (2, 4, 6)
    """
    if not 1 <= keep <= total:
        raise UserError(f"a student of {keep} layers cannot be cut from a model of {total}: choose 1 to {total}")
    return tuple(round((index + 1) * total / keep) for index in range(keep))


def student_from_layers(parent: PreTrainedModel, layers: tuple[int, ...]) -> PreTrainedModel:
    """A smaller classifier made of a choice of the parent's layers (counted from 1); all other weights are copied.

    Nothing is shared with the parent afterwards, and the student loads anywhere (PKD, Sun et al. 2019, and
    DistilBERT, Sanh et al. 2019, start theirs this way). ModernBERT's first layer has no norm before its attention,
    whichever layer it is copied from.
    """
    total = num_layers(parent)
    if not layers or not all(1 <= layer <= total for layer in layers):
        raise UserError(f"layers {layers}: this model has layers 1 to {total}")
    config = copy.deepcopy(parent.config)
    shared = getattr(config, "num_hidden_groups", None) == 1  # ALBERT: all layers are one
    blocks = None if shared else encoder_layers(parent)
    config.num_hidden_layers = len(layers)  # DistilBERT maps this to its own n_layers
    for name in PER_LAYER:
        if isinstance(entries := getattr(config, name, None), list):
            setattr(config, name, [entries[layer - 1] for layer in layers])
    student = type(parent)(config)
    student.set_attn_implementation(parent.config._attn_implementation)
    student.load_state_dict(parent.state_dict(), strict=False)
    if blocks is not None:
        for block, layer in zip(encoder_layers(student), layers, strict=True):
            block.load_state_dict(blocks[layer - 1].state_dict(), strict=False)
    return student


def cut_layers(parent: PreTrainedModel, keep: int) -> PreTrainedModel:
    """`student_from_layers` with `keep` evenly spaced layers of the parent, or a `static_student` for 0.

    Raises UserError for too many.
    """
    if keep == 0:
        return static_student(parent)
    return student_from_layers(parent, evenly_spaced_layers(num_layers(parent), keep))


def reset_head(model: PreTrainedModel) -> PreTrainedModel:
    """Give a classifier a new random head (all that is not the encoder), as its family draws it; after `set_seed`."""
    fresh = type(model)(copy.deepcopy(model.config))
    for name, module in model.named_children():
        if module is not model.base_model:
            module.load_state_dict(fresh.get_submodule(name).state_dict())
    return model


def freeze_word_embeddings(model: PreTrainedModel) -> PreTrainedModel:
    """Stop training the token table: most of a small student's weights, and the optimizer's largest bill."""
    model.get_input_embeddings().weight.requires_grad_(False)
    return model


def set_dropout(model: PreTrainedModel, probability: float) -> PreTrainedModel:
    """Set every dropout of a model for this training; its config, and so what it is saved with, stays as it is.

    Drawing its random numbers is a sixth of a step on a CPU, and in trainings of students as short as ours (a few
    epochs, the best checkpoint kept) we saw no loss of validation accuracy without it.
    """
    for module in list(model.modules()):
        if isinstance(module, nn.Dropout):
            module.p = probability
            continue
        for name, value in {**vars(module), **module._modules}.items():
            if "drop" in name and isinstance(value, float):  # ModernBERT's attention keeps its own as a number
                setattr(module, name, probability)
            elif "drop" in name and isinstance(value, nn.Identity):  # and no dropout as this
                setattr(module, name, nn.Dropout(probability))
    return model


def count_parameters(model: nn.Module) -> int:
    """All parameters, trained or frozen."""
    return sum(parameter.numel() for parameter in model.parameters())
