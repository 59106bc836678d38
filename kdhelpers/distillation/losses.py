"""The distillation loss: pure functions on tensors, nothing else.

Shapes: `logits` are [batch, classes], `labels` are [batch] with -100 for a row whose label is withheld. Of several
labels at once `labels` are [batch, labels] of 0 and 1, of a number [batch] with logits [batch, 1]; there a row whose
label is withheld is NaN. `loss_for` chooses by task.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from kdhelpers.data import UNLABELLED, Task
from kdhelpers.errors import UserError
from kdhelpers.settings import check_option

Loss = Callable[..., torch.Tensor]  # takes what `distillation_loss` takes


def soft_targets(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """softmax(logits / T): the class probabilities a model spreads at temperature T (Hinton et al. 2015, eq. 1).

    >>> soft_targets(torch.tensor([2.0, 0.0]), temperature=2.0)
    tensor([0.7311, 0.2689])
    """
    check_option("temperature", temperature)
    return F.softmax(logits.float() / temperature, dim=-1)


def soft_target_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * KL(teacher || student) at temperature T, averaged over the rows (Hinton et al. 2015, section 2).

    The gradient of the KL term shrinks with 1 / T^2; the factor T^2 undoes that, so that changing T does not change
    how much the soft targets weigh against the labels. The teacher's side carries no gradient, and all is computed in
    fp32: in half precision a logit of 1e4 would overflow. Raises UserError for a temperature <= 0, fewer than two
    classes, shapes that differ, and teacher logits that are not finite.
    """
    check_option("temperature", temperature)
    _check_answers(student_logits, teacher_logits)
    if student_logits.shape[-1] < 2:
        raise UserError("logits of one class teach nothing, their softmax is always 1: give two classes or more")
    with torch.autocast(student_logits.device.type, enabled=False):
        student = F.log_softmax(student_logits.float() / temperature, dim=-1)
        teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _check_answers(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> None:
    ours, theirs = tuple(student_logits.shape), tuple(teacher_logits.shape)
    if ours != theirs:
        raise UserError(f"student logits have shape {ours}, teacher's {theirs}: give both the same rows and classes")
    if not torch.isfinite(teacher_logits).all():
        raise UserError("teacher logits hold NaN or infinite values: the teacher (or its cache) is broken")


def soft_labels_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 times the binary KL(teacher || student) at temperature T, averaged over rows and labels.

    With p = sigmoid(teacher / T) and q = sigmoid(student / T), of each label for itself,

        T^2 * mean(p * log(p / q) + (1 - p) * log((1 - p) / (1 - q)))

    which is `soft_target_loss` for the two classes "has it" and "has it not". The rest is as there.
    """
    check_option("temperature", temperature)
    _check_answers(student_logits, teacher_logits)
    with torch.autocast(student_logits.device.type, enabled=False):
        student, teacher = student_logits.float() / temperature, teacher_logits.detach().float() / temperature
        yes, no = F.logsigmoid(teacher), F.logsigmoid(-teacher)
        gain = yes.exp() * (yes - F.logsigmoid(student)) + no.exp() * (no - F.logsigmoid(-student))
        return temperature**2 * gain.mean()


def soft_number_loss(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean squared distance to the teacher's number, in fp32, whatever the temperature. Raises UserError as above."""
    _check_answers(student_logits, teacher_logits)
    with torch.autocast(student_logits.device.type, enabled=False):
        return F.mse_loss(student_logits.float(), teacher_logits.detach().float())


def hard_label_loss(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy summed over the labelled rows and divided by all rows of the batch.

    So each label has the same weight whatever company it is in: a lone labelled row among 31 unlabelled ones does not
    count 32 times. With every row labelled this is the plain mean cross-entropy; with none it is 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        total = F.cross_entropy(
            logits, labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=label_smoothing
        )
        return total / len(labels)


def hard_labels_loss(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Binary cross-entropy, averaged over a row's labels, then as `hard_label_loss`: divided by all rows of the batch.

    `label_smoothing` s makes 1 - s / 2 of a 1 and s / 2 of a 0.
    """
    known = ~labels.isnan().any(-1)
    with torch.autocast(logits.device.type, enabled=False):
        smooth = labels.float() * (1 - label_smoothing) + label_smoothing / 2
        rows = F.binary_cross_entropy_with_logits(logits.float()[known], smooth[known], reduction="none").mean(-1)
        return rows.sum() / len(labels)


def hard_number_loss(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Squared error summed over the labelled rows and divided by all rows, as above. Raises UserError if smoothed."""
    if label_smoothing:
        raise UserError("a number has no other classes to smooth its label with: leave label smoothing out")
    known = ~labels.isnan()
    with torch.autocast(logits.device.type, enabled=False):
        return F.mse_loss(logits[:, 0].float()[known], labels.float()[known], reduction="sum") / len(labels)


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor | None,
    labels: torch.Tensor | None,
    *,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """alpha * cross-entropy + (1 - alpha) * T^2 * KL: the article's loss, and Hinton et al.'s.

    A row with label -100 adds only the soft-target term. A term with weight 0 is left out, so alpha 0 needs no labels
    and alpha 1 no teacher. Raises UserError for alpha outside [0, 1], for what a term needs and is not there, and what
    `soft_target_loss` raises.
    """
    numbers = {"alpha": alpha, "temperature": temperature, "label_smoothing": label_smoothing}
    return _weighted(Task.ONE, student_logits, teacher_logits, labels, **numbers)


HARD: dict[Task, Loss] = {
    Task.ONE: hard_label_loss,
    Task.SEVERAL: hard_labels_loss,
    Task.NUMBER: hard_number_loss,
}
SOFT: dict[Task, Loss] = {
    Task.ONE: soft_target_loss,
    Task.SEVERAL: soft_labels_loss,
    Task.NUMBER: soft_number_loss,
}


def loss_for(task: Task) -> Loss:
    """`distillation_loss` with the two terms of a task: alpha * hard + (1 - alpha) * soft."""
    return distillation_loss if task is Task.ONE else functools.partial(_weighted, task)


def _weighted(
    task: Task,
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor | None,
    labels: torch.Tensor | None,
    **numbers: float,
) -> torch.Tensor:
    alpha, temperature = numbers["alpha"], numbers["temperature"]
    check_option("alpha", alpha)
    loss = student_logits.new_zeros((), dtype=torch.float32)
    if alpha > 0:
        if labels is None:
            raise UserError(f"alpha is {alpha}, so labels are needed: give the column 'labels', or set alpha to 0")
        loss = loss + alpha * HARD[task](student_logits, labels, numbers.get("label_smoothing", 0.0))
    if alpha < 1:
        if teacher_logits is None:
            raise UserError(f"alpha is {alpha}, so a teacher is needed: pass teacher=, or rows with 'teacher_logits'")
        loss = loss + (1 - alpha) * SOFT[task](student_logits, teacher_logits, temperature)
    return loss
