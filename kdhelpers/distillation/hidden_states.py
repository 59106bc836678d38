"""Distilling more than answers: losses on the teacher's hidden states, attention and value relations.

Shapes: hidden states [batch, pieces, width], attention probabilities [batch, heads, pieces, pieces], `mask`
[batch, pieces] with 1 for real pieces. All are means over real pieces, computed in fp32; the teacher's side carries
no gradient. A student's layers are paired with evenly spaced layers of the teacher's.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from kdhelpers import models
from kdhelpers.errors import UserError
from kdhelpers.settings import HIDDEN_STATES



def check_hidden_states(kind: str) -> None:
    """Raise UserError unless `kind` is one of HIDDEN_STATES."""
    if kind not in HIDDEN_STATES:
        raise UserError(f"hidden_states must be one of {', '.join(HIDDEN_STATES)}, not {kind!r}")


def pkd_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared distance of the [CLS] states, each scaled to length 1 (Sun et al. 2019, eq. 7). Hidden states in."""
    student, teacher = (F.normalize(states[:, 0].float(), dim=-1) for states in (student, teacher.detach()))
    return (student - teacher).square().sum(-1).mean()


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the hidden states of all real pieces (Jiao et al. 2020, eq. 8, without its projection)."""
    error = (student.float() - teacher.detach().float()).square().mean(-1)
    return (error * mask).sum() / mask.sum()


def attention_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of the rows of attention, mean over heads and real pieces (Wang et al. 2020, eq. 5)."""
    return _relation_kl(student.float().clamp_min(1e-9).log(), teacher.detach().float().clamp_min(1e-9).log(), mask)


def value_relation_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL of the softmax of scaled products of value vectors, [batch, heads, pieces, head width] in (eq. 6 to 8)."""
    padding = torch.where(mask.bool(), 0.0, -1e9)[:, None, None, :]

    def log_relation(values):
        scores = values.float() @ values.float().transpose(-1, -2) / values.shape[-1] ** 0.5
        return F.log_softmax(scores + padding, dim=-1)

    return _relation_kl(log_relation(student), log_relation(teacher.detach()), mask)


def _relation_kl(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL between two stacks of row distributions given as logarithms; rows and columns of padding count nothing."""
    terms = teacher.exp() * (teacher - student) * mask[:, None, None, :]
    per_piece = terms.sum(-1).mean(1)
    return (per_piece * mask).sum() / mask.sum()


class HiddenStatesLoss:
    """One of the losses above for a given pair of models: `pkd`, `tinybert` (hidden states and attention of every
    student layer) or `minilm` (attention and value relation of the last layer).

    Raises UserError where widths or numbers of heads differ, as they cannot where the student was cut out of the
    teacher; a pair of other widths would need a learnt projection.
    """

    def __init__(self, kind: str, student: PreTrainedModel, teacher: PreTrainedModel):
        check_hidden_states(kind)
        for name in ("hidden_size", "num_attention_heads"):
            mine, other = getattr(student.config, name), getattr(teacher.config, name)
            if mine != other:
                raise UserError(
                    f"hidden_states={kind!r} needs a student as wide as its teacher, but {name} is {mine} and {other}"
                )
        self.kind = kind
        self.pairs = models.evenly_spaced_layers(models.num_layers(teacher), models.num_layers(student))
        self.asks = {"output_hidden_states": kind != "minilm", "output_attentions": kind != "pkd"}
        if self.asks["output_attentions"]:  # the fused kernels keep no attention
            for model in (student, teacher):
                model.set_attn_implementation("eager")
        self.values = {"student": _keep_last_values(student), "teacher": _keep_last_values(teacher)}

    def __call__(self, student, teacher, mask: torch.Tensor) -> torch.Tensor:
        """The loss from both models' outputs, made with `asks`."""
        mask = mask.float()
        with torch.autocast(mask.device.type, enabled=False):
            if self.kind == "minilm":
                values = (self.values[name]["values"] for name in ("student", "teacher"))
                last = attention_loss(student.attentions[-1], teacher.attentions[-1], mask)
                return last + value_relation_loss(*values, mask)
            loss = torch.zeros((), device=mask.device)
            for mine, other in enumerate(self.pairs, start=1):
                states = student.hidden_states[mine], teacher.hidden_states[other]
                if self.kind == "pkd":
                    loss = loss + pkd_loss(*states)
                else:
                    loss = loss + hidden_loss(*states, mask)
                    loss = loss + attention_loss(student.attentions[mine - 1], teacher.attentions[other - 1], mask)
            return loss / len(self.pairs)


def _keep_last_values(model: PreTrainedModel) -> dict:
    """A dictionary that holds, after each forward pass, the last layer's value vectors, a head at a time."""
    block = models.encoder_layers(model)[-1]
    layer = next(module for name, module in block.named_modules() if name.endswith(("self.value", "attention.v_lin")))
    kept: dict[str, torch.Tensor] = {}

    def keep(module: nn.Module, inputs, output: torch.Tensor) -> None:
        heads = model.config.num_attention_heads
        kept["values"] = output.unflatten(-1, (heads, -1)).transpose(1, 2)

    layer.register_forward_hook(keep)
    return kept
