"""The distillation loss: pure functions on tensors, nothing else.

Shapes: `logits` are [batch, classes], `labels` are [batch] with -100 for a row whose label is withheld.
"""

import torch
import torch.nn.functional as F

from kdhelpers.data import UNLABELLED
from kdhelpers.errors import UserError


def check_alpha(alpha: float) -> None:
    """Raise UserError (a ValueError) unless 0 <= alpha <= 1."""
    if not 0.0 <= alpha <= 1.0:
        raise UserError(f"alpha must lie between 0 and 1 (share of the hard-label loss), not {alpha}")


def check_temperature(temperature: float) -> None:
    """Raise UserError (a ValueError) unless temperature > 0 and finite."""
    if not 0.0 < temperature < float("inf"):
        raise UserError(f"temperature must be greater than 0 and finite, not {temperature}")


def _check_logits(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise UserError(
            f"student logits have shape {tuple(student_logits.shape)}, teacher logits {tuple(teacher_logits.shape)}: "
            "both need the same rows and the same number of classes"
        )
    if not torch.isfinite(teacher_logits).all():
        raise UserError("teacher logits hold NaN or infinite values: the teacher (or its cache) is broken")


def soft_targets(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """softmax(logits / T): the class probabilities a model spreads at temperature T (Hinton et al. 2015, eq. 1)."""
    check_temperature(temperature)
    return F.softmax(logits.float() / temperature, dim=-1)


def soft_target_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * KL(teacher || student) at temperature T, averaged over the rows (Hinton et al. 2015, section 2).

    The gradient of the KL term shrinks with 1 / T^2; the factor T^2 undoes that, so that changing T does not
    change how much the soft targets weigh against the labels. The teacher's side carries no gradient, and all
    is computed in fp32: in half precision a logit of 1e4 would overflow.

    Raises UserError for a temperature <= 0, teacher logits that are not finite, or shapes that differ.
    """
    check_temperature(temperature)
    _check_logits(student_logits, teacher_logits)
    with torch.autocast(student_logits.device.type, enabled=False):
        student = F.log_softmax(student_logits.float() / temperature, dim=-1)
        teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def hard_label_loss(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy summed over the labelled rows and divided by all rows of the batch.

    Dividing by all rows, not by the labelled ones, gives each label the same weight whatever company it is in:
    a lone labelled row among 31 unlabelled ones does not count 32 times. With every row labelled this is the plain
    mean cross-entropy; with none it is 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        total = F.cross_entropy(
            logits.float(), labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=label_smoothing
        )
    return total / len(labels)


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """alpha * cross-entropy + (1 - alpha) * T^2 * KL: the article's loss, and Hinton et al.'s.

    A row with label -100 adds only the soft-target term. Terms with weight 0 are left out rather than multiplied
    by 0. Raises UserError for alpha outside [0, 1], and what `soft_target_loss` raises.
    """
    check_alpha(alpha)
    loss = student_logits.new_zeros((), dtype=torch.float32)
    if alpha > 0:
        loss = loss + alpha * hard_label_loss(student_logits, labels, label_smoothing)
    if alpha < 1:
        loss = loss + (1 - alpha) * soft_target_loss(student_logits, teacher_logits, temperature)
    return loss
