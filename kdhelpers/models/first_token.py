"""A classifier reads one place of its last layer, the first token: what the others would hold is not computed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from kdhelpers.models.layers import encoder_layers, num_layers

# By family, in the last layer: the modules that need the first token alone, where a sum with all tokens is cut by the
# next of them; and the projection that makes the queries.
_BERT = ("attention.output",), "attention.self.query"
FIRST_TOKEN: dict[str, tuple[tuple[str, ...], str | None]] = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": (("attention.out_lin", "sa_layer_norm"), "attention.q_lin"),
    "mpnet": (("attention.attn.o", "attention.LayerNorm"), "attention.attn.q"),
    "deberta-v2": (("attention.output",), None),  # its queries are made of positions too
    "modernbert": (("attn.Wo", "mlp_norm"), None),  # queries, keys and values come out of one product
}


@contextmanager
def first_token_only(model: PreTrainedModel | None) -> Iterator[None]:
    """Within the block the last layer of a classifier computes its first token alone; logits and gradients stay.

    They are the same up to rounding, at a sixth to a half less work for 3 to 1 layers. Nothing happens for a family
    that is not known to read the first token alone, for shared layers (ALBERT), and for None. Not for a model whose
    hidden states are looked at.
    """
    with ExitStack() as hooks:
        if model is not None and _reads_first_token(model):
            layer = encoder_layers(model)[-1]
            modules, query = FIRST_TOKEN[model.config.model_type]
            for name in modules:
                hooks.callback(layer.get_submodule(name).register_forward_pre_hook(_first_token).remove)
            if query:
                length: list[int] = []
                projection = layer.get_submodule(query)
                hooks.callback(projection.register_forward_pre_hook(partial(_first_query, length)).remove)
                hooks.callback(projection.register_forward_hook(partial(_for_all, length)).remove)
        yield


def _reads_first_token(model: PreTrainedModel) -> bool:
    config = model.config
    if config.model_type not in FIRST_TOKEN or getattr(config, "classifier_pooling", "cls") != "cls":
        return False
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return False  # it computes again for its gradients, behind the block
    # DeBERTa's convolution reads its neighbours, behind the first layer
    return not (getattr(config, "conv_kernel_size", 0) and num_layers(model) == 1)


def _first_token(module: nn.Module, inputs: tuple) -> tuple:
    """[batch, tokens, width] to [batch, 1, width]."""
    return tuple(states[:, :1] for states in inputs)


def _first_query(length: list[int], module: nn.Module, inputs: tuple) -> tuple:
    length[:] = [inputs[0].shape[1]]
    return _first_token(module, inputs)


def _for_all(length: list[int], module: nn.Module, inputs: tuple, output: torch.Tensor) -> Any:
    """Attention wants a query for every token: that of the first stands for all, without being copied."""
    return output if output.shape[1] > 1 else output.expand(-1, length[0], -1)  # within another block it is done
