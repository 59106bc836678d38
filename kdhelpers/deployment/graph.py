"""A classifier as an ONNX graph, in fp32 or with its weights in 8 bits."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from kdhelpers import models
from kdhelpers.errors import UserError


def _onnx_attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, None]:
    """ONNX's own operator; [batch, heads, length, width] to [batch, length, heads, width], as transformers asks."""
    heads = query.shape[1]
    query, key, value = (states.transpose(1, 2).flatten(2) for states in (query, key, value))
    scale = options.get("scaling")
    output, *_ = torch.onnx.ops.attention(query, key, value, mask, q_num_heads=heads, kv_num_heads=heads, scale=scale)
    return output.unflatten(2, (heads, -1)), None


AttentionInterface.register("onnx", _onnx_attention)


class _LogitsOnly(nn.Module):
    """A classifier that takes two tensors, of pairs a third, and returns one, as ONNX wants it."""

    def __init__(self, model: PreTrainedModel, whole_mask: bool):
        super().__init__()
        self.model, self.whole_mask = model, whole_mask

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        mask = attention_mask
        if self.whole_mask:  # [batch, 1, length, length], true where a token may be read: the operator's shape
            mask = mask.bool()[:, None, None, :].expand(-1, -1, input_ids.shape[1], -1)
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=mask, **types).logits


@contextlib.contextmanager
def _in_one_sentence(what: str) -> Iterator[None]:
    """Keep the libraries' progress and advice to programmers off the screen; their errors become a UserError."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    except OSError:  # a full disk is said elsewhere
        raise
    except Exception as error:
        how = "export a BERT-like student, or try other versions of torch, onnxscript and onnxruntime"
        raise UserError(f"{what} here ({type(error).__name__}): {how}") from error
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _ready_for_onnx(model: PreTrainedModel) -> Iterator[bool]:
    """Give a model ONNX's attention operator for a while, and its last layer the first token only.

    False, and plain matrix products, for families that cannot take the operator: DeBERTa and MPNet compute attention
    themselves, and transformers leaves their config as it was; ModernBERT's layers have a mask each (`layer_types`).
    """
    config = model.config
    with contextlib.ExitStack() as stack:
        stack.callback(model.set_attn_implementation, config._attn_implementation)
        model.set_attn_implementation("eager")
        if models.num_layers(model) and not hasattr(config, "layer_types"):
            model.set_attn_implementation("onnx")
        operator = config._attn_implementation == "onnx"
        stack.enter_context(models.first_token_only(model))
        yield operator


def to_onnx(model: PreTrainedModel, path: Path, token_types: bool = False) -> None:
    """Write a classifier as one ONNX file in fp32: int64 input_ids and attention_mask [rows, tokens] to float32 logits.

    With `token_types` it takes token_type_ids, too, which say of a pair's tokens to which text they belong. The
    model is left as it came. Raises UserError for a family that torch cannot export.
    """
    ids = torch.tensor([[101, 2023, 102], [101, 2003, 102]]) % model.config.vocab_size
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]
    inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(names)]
    free = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)  # a named Dim refuses a length of 1 in torch 2.9
    what = f"a {type(model).__name__} cannot be written as ONNX"
    with _in_one_sentence(what), _ready_for_onnx(model) as operator:
        torch.onnx.export(
            _LogitsOnly(model, operator).eval(), inputs, str(path), dynamo=True, verbose=False,
            input_names=names, output_names=["logits"], external_data=False, dynamic_shapes=dict.fromkeys(names, free),
            opset_version=23 if operator else 20,  # 23 is the first that has the attention operator
        )  # fmt: skip


def quantize(source: Path, target: Path) -> None:
    """Weights to 8 bits, activations quantised on the fly (onnxruntime's dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # the operators that hold weights (attention has none), with a scale for every output instead of one for the
    # matrix: a quarter less error, same size
    operators = ["Gather", "Gemm", "MatMul"]
    with _in_one_sentence("this model cannot be written in 8 bits"):
        model = onnx.load(source)
        del model.graph.value_info[:]  # shapes of before, over which onnxruntime up to 1.30 stumbles
        quantize_dynamic(model, target, op_types_to_quantize=operators, weight_type=QuantType.QInt8, per_channel=True)


def quantize_weights(source: Path, target: Path) -> None:
    """Weights to 8 bits in the file, sums in fp32: the size of int8, the speed of fp32, its rounding on any processor.

    What int8 arithmetic answers depends on the processor (its 8-bit products, its rounding of activations); of this the
    last digits do. ONNX Runtime makes fp32 weights of the 8 bits once, when the file is loaded.
    """
    model = onnx.load(source)
    graph, fp32 = model.graph, onnx.TensorProto.FLOAT
    tables = {table.name: table for table in graph.initializer if len(table.dims) == 2 and table.data_type == fp32}
    across = {"MatMul": 0, "Gemm": 1, "Gather": 1}  # a scale for every output of a product, every row of embeddings
    back = []
    for node in [node for node in graph.node if node.op_type in across]:
        for name in [name for name in node.input if name in tables]:
            table = tables.pop(name)
            weights = numpy_helper.to_array(table)
            scale = (
                np.maximum(np.abs(weights).max(across[node.op_type], keepdims=True), np.finfo(np.float32).tiny) / 127
            )
            graph.initializer.remove(table)
            for part, value in {"int8": np.rint(weights / scale).astype(np.int8), "scale": scale}.items():
                graph.initializer.append(numpy_helper.from_array(value, f"{name}_{part}"))
            # not DequantizeLinear, which ONNX Runtime would compute anew for every answer
            back.append(onnx.helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], to=fp32))
            back.append(onnx.helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]))
    nodes = [*back, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, target)
