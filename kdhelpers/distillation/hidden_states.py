"""Distilling more than answers: losses on the teacher's hidden states, attention scores and value relations.

Shapes: hidden states [batch, tokens, width], attention scores [batch, heads, tokens, tokens], `mask` [batch, tokens]
with 1 for real tokens. All are means over real tokens, computed in fp32; the teacher's side carries no gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from kdhelpers import models
from kdhelpers.errors import UserError
from kdhelpers.settings import check_option

Inside = list[tuple[torch.Tensor, torch.Tensor]]  # attention scores and values, layer by layer


def pkd_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared distance of the hidden states of [CLS], each scaled to length 1 (Sun et al. 2019, eq. 7)."""
    student, teacher = (F.normalize(hidden[:, 0].float(), dim=-1) for hidden in (student, teacher.detach()))
    return (student - teacher).square().sum(-1).mean()


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of hidden states (Jiao et al. 2020, eq. 8 and 9, without their projection)."""
    error = (student.float() - teacher.detach().float()).square().mean(-1)
    return (error * mask).sum() / mask.sum()


def score_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of attention scores between real tokens, before the softmax (Jiao et al. 2020, eq. 7)."""
    error = (student.float() - teacher.detach().float()).square().mean(1)
    pairs = mask[:, :, None] * mask[:, None, :]
    return (error * pairs).sum() / pairs.sum()


def relation_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of the softmax of scores, mean over heads (Wang et al. 2020, eq. 5 and 8)."""
    padding = torch.where(mask.bool(), 0.0, -1e9)[:, None, None, :]
    student, teacher = (F.log_softmax(scores.float() + padding, dim=-1) for scores in (student, teacher.detach()))
    per_token = (teacher.exp() * (teacher - student)).sum(-1).mean(1)
    return (per_token * mask).sum() / mask.sum()


def value_relation(values: torch.Tensor) -> torch.Tensor:
    """Scaled products of value vectors, [batch, heads, tokens, head width] in, scores out (Wang et al. 2020, eq. 6)."""
    return values.float() @ values.float().transpose(-1, -2) / values.shape[-1] ** 0.5


_seen: Inside = []  # of the forward pass that runs


def _noted_attention(
    module: nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention that notes its scores, before mask, softmax and dropout, and its values."""
    scores = query @ key.transpose(2, 3) * (options.get("scaling") or query.shape[-1] ** -0.5)
    _seen.append((scores, value))
    masked = scores if attention_mask is None else scores + attention_mask
    weights = masked.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, options.get("dropout", 0.0), module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register("noted", _noted_attention)
AttentionMaskInterface.register("noted", eager_mask)


def look_inside(model: nn.Module, inputs: dict) -> tuple[Any, Inside]:
    """A forward pass: the model's output with its hidden states, and each layer's attention scores and values.

    `model` may be wrapped for several processes. The list is empty for families that compute attention in a way of
    their own (DeBERTa, MPNet).
    """
    inner: Any = getattr(model, "module", model)
    usual = inner.config._attn_implementation
    inner.set_attn_implementation("noted")
    _seen.clear()
    try:
        return model(**inputs, output_hidden_states=True), _seen.copy()
    finally:
        _seen.clear()
        inner.set_attn_implementation(usual)


class HiddenStatesLoss:
    """A loss between what two models compute inside: call it with what `look_inside` returns for each.

    `pkd`: [CLS] of every student layer. `tinybert`: embeddings, hidden states and attention scores of every layer.
    `minilm`: attention and value relation of the last layer. A student's layers are paired with evenly spaced ones of
    its teacher. The student's dropout is switched off: its noise would be taken for a difference.

    Raises UserError where widths or numbers of heads differ, as they cannot where the student was cut out of the
    teacher (a pair of other widths needs a learnt projection, as in `experiments.projection`), and for a family without
    readable attention.
    """

    def __init__(self, kind: str, student: PreTrainedModel, teacher: PreTrainedModel):
        check_option("hidden_states", kind)
        for name in ("hidden_size", "num_attention_heads"):
            mine, other = (getattr(model.config, name, None) for model in (student, teacher))
            if mine != other:
                raise UserError(
                    f"hidden states {kind!r} need a student as wide as its teacher: {name} is {mine} and {other}"
                )
        models.set_dropout(student, 0.0)
        for model in (student, teacher) if kind != "pkd" else ():
            probe = {name: tensor.to(model.device) for name, tensor in model.dummy_inputs.items()}
            with torch.no_grad():
                if len(look_inside(model, probe)[1]) != models.num_layers(model):
                    raise UserError(f"hidden states {kind!r}: a {type(model).__name__} shows no attention, use pkd")
        self.kind = kind
        self.pairs = models.evenly_spaced_layers(models.num_layers(teacher), models.num_layers(student))

    def __call__(self, student: tuple[Any, Inside], teacher: tuple[Any, Inside], mask: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar: its sum over layers is divided by their number."""
        (output, inside), (other_output, other_inside), mask = student, teacher, mask.float()
        with torch.autocast(mask.device.type, enabled=False):
            if self.kind == "minilm":
                (scores, values), (other_scores, other_values) = inside[-1], other_inside[-1]
                relations = relation_loss(value_relation(values), value_relation(other_values), mask)
                return relation_loss(scores, other_scores, mask) + relations
            mine, other = output.hidden_states, other_output.hidden_states
            pairs = list(enumerate(self.pairs, 1))
            if self.kind == "pkd":
                terms = [pkd_loss(mine[a], other[b]) for a, b in pairs]
            else:
                terms = [hidden_loss(mine[a], other[b], mask) for a, b in [(0, 0), *pairs]]
                terms += [score_loss(inside[a - 1][0], other_inside[b - 1][0], mask) for a, b in pairs]
            return torch.stack(terms).sum() / len(pairs)
