"""A student that also learns its teacher's hidden state, through a projection that is learnt and then thrown away.

A hidden state is a column as an answer is: made once, by a teacher of any vocabulary and any width. Behind a text's
logits stand the numbers of the first token in the teacher's last layer; a student of another width is asked for them
through a linear map (Romero et al. 2015; Jiao et al. 2020, eq. 8), with the distance of Sun et al. 2019.
"""

import copy
import functools
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from kdhelpers import distillation, models
from kdhelpers.distillation import Fit, Prepared


class WithState(nn.Module):
    """A teacher's head that returns, behind its logits, the first token's hidden state: [batch, classes + width]."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`states`: [batch, tokens, width], or [batch, width] where the model has pooled them already."""
        return torch.cat([self.head(states), states[:, 0] if states.dim() == 3 else states], dim=-1)


class WithProjection(nn.Module):
    """A student's head that in training also guesses the teacher's hidden state: [batch, classes + width]."""

    def __init__(self, head: nn.Linear, width: int):
        super().__init__()
        self.head, self.projection = head, nn.Linear(head.in_features, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`features`: [batch, the student's width]."""
        logits = self.head(features)
        return torch.cat([logits, self.projection(features)], dim=-1) if self.training else logits


def rows_with_states(kit: Prepared, rows: Dataset) -> Dataset:
    """The kit's training rows with hidden states behind their teacher's logits, float32 [rows, classes + width]."""
    teacher: Any = copy.deepcopy(kit.teacher)
    teacher.config.num_labels += teacher.config.hidden_size
    teacher.classifier = WithState(teacher.classifier)
    table = kit.teacher_splits["train"]
    answers = models.predict_logits(teacher, table, kit.teacher_tokenizer, kit.machine, progress="hidden states")
    return distillation.with_column(rows, answers)


def loss_with_states(
    student: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor, *, classes: int, weight: float, **numbers: float
) -> torch.Tensor:
    """The distillation loss of the first columns, and `weight` times `pkd_loss` of the others."""
    logits = distillation.distillation_loss(student[:, :classes], answers[:, :classes], labels, **numbers)
    return logits + weight * distillation.pkd_loss(student[:, None, classes:], answers[:, None, classes:])


def train_with_projection(kit: Prepared, model: PreTrainedModel, weight: float, rows: Dataset, **how: Any) -> Fit:
    """As `distillation.train_student`, with hidden states of this weight beside the logits."""
    student: Any = model
    student.classifier = WithProjection(student.classifier, kit.teacher.config.hidden_size)
    loss = functools.partial(loss_with_states, classes=len(kit.label_names), weight=weight)
    fit = distillation.train_student(kit, student, rows_with_states(kit, rows), loss=loss, **how)
    trained: Any = fit.model
    trained.classifier = trained.classifier.head
    return fit
