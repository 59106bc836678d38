"""The loss, as statements."""

import pytest
import torch
import torch.nn.functional as F

from kdhelpers.data import UNLABELLED
from kdhelpers.distillation import distillation_loss, hard_label_loss, soft_target_loss, soft_targets
from kdhelpers.errors import UserError

TEMPERATURES = (0.5, 1.0, 2.0, 3.0, 10.0)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(16, 4, generator=generator), 3 * torch.randn(16, 4, generator=generator)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_equal_logits_give_zero_loss_and_gradient(logits, temperature):
    student = logits[0].clone().requires_grad_()
    loss = soft_target_loss(student, logits[0], temperature)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_teachers_term_is_never_negative(logits, temperature):
    assert soft_target_loss(*logits, temperature) > 0.01
    nearly = logits[1] + 1e-4 * torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    rounding = 1e-7 * temperature**2  # of fp32, times the factor T^2
    assert soft_target_loss(nearly, logits[1], temperature) > -rounding


def test_doubling_a_batch_changes_nothing_and_the_mean_is_over_rows_not_over_logits(logits):
    student, teacher = logits
    once = soft_target_loss(student, teacher, 2.0)
    twice = soft_target_loss(student.repeat(2, 1), teacher.repeat(2, 1), 2.0)
    assert twice.item() == pytest.approx(once.item(), rel=1e-6)
    mean = 4.0 * F.kl_div(F.log_softmax(student / 2, -1), F.softmax(teacher / 2, -1), reduction="mean")
    assert once.item() == pytest.approx(student.shape[1] * mean.item(), rel=1e-5)


def test_high_temperature_becomes_the_squared_logit_difference(logits):
    student, teacher = (tensor.double() for tensor in logits)
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    limit = centred.pow(2).sum(-1).mean() / (2 * student.shape[1])
    assert soft_target_loss(student, teacher, 300.0).item() == pytest.approx(limit.item(), rel=0.02)


def test_gradient_keeps_its_size_between_temperatures(logits):
    norms = []
    for temperature in (10.0, 100.0):
        student = logits[0].clone().requires_grad_()
        soft_target_loss(student, logits[1], temperature).backward()
        norms.append(student.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_alpha_one_is_cross_entropy(logits):
    labels = torch.arange(16) % 4
    ours, plain = logits[0].clone().requires_grad_(), logits[0].clone().requires_grad_()
    loss = distillation_loss(ours, logits[1], labels, alpha=1.0, temperature=2.0)
    expected = F.cross_entropy(plain, labels)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, plain.grad)


def test_alpha_zero_ignores_labels(logits):
    labels = torch.arange(16) % 4
    losses = [distillation_loss(*logits, y, alpha=0.0, temperature=2.0) for y in (labels, labels.flip(0))]
    assert losses[0] == losses[1]


def test_alpha_weighs_labels_and_teacher_as_the_article_says(logits):
    labels = torch.arange(16) % 4
    mixed = distillation_loss(*logits, labels, alpha=0.3, temperature=3.0)
    expected = 0.3 * F.cross_entropy(logits[0], labels) + 0.7 * soft_target_loss(*logits, 3.0)
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_a_nonsensical_temperature_is_refused_by_value(logits, temperature):
    with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
        soft_target_loss(*logits, temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_a_nonsensical_alpha_is_refused_by_value(logits, alpha):
    with pytest.raises(ValueError, match=f"alpha.*{alpha}"):
        distillation_loss(*logits, torch.zeros(16, dtype=torch.long), alpha=alpha, temperature=2.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_teacher_logits_are_refused(logits, bad):
    logits[1][3, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        soft_target_loss(*logits, 2.0)


def test_another_number_of_classes_is_refused(logits):
    with pytest.raises(ValueError, match=r"\(16, 4\).*\(16, 3\)"):
        soft_target_loss(logits[0], logits[1][:, :3], 2.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(logits, dtype):
    student = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4], [-1e4, 1e4]], dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distillation_loss(student, teacher, torch.tensor([0, 1]), alpha=0.5, temperature=2.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = soft_target_loss(*logits, 2.0)
    torch.testing.assert_close(inside, soft_target_loss(*logits, 2.0))


def test_soft_targets_carry_no_gradient(logits):
    student, teacher = (tensor.clone().requires_grad_() for tensor in logits)
    soft_target_loss(student, teacher, 2.0).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_unlabelled_rows_add_only_the_teachers_term(logits):
    student, teacher = logits
    labels = torch.full((16,), UNLABELLED)
    loss = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    torch.testing.assert_close(loss, 0.5 * soft_target_loss(student, teacher, 2.0))
    assert hard_label_loss(student, labels) == 0


def test_a_labels_weight_does_not_depend_on_its_company(logits):
    gradients = []
    for unlabelled in (0, 12):
        student = logits[0].clone().requires_grad_()
        labels = torch.arange(16) % 4
        labels[16 - unlabelled :] = UNLABELLED
        hard_label_loss(student, labels).backward()
        gradients.append(student.grad[0])
    torch.testing.assert_close(*gradients)


def test_label_smoothing_is_honoured(logits):
    labels = torch.arange(16) % 4
    smoothed = distillation_loss(*logits, labels, alpha=1.0, temperature=2.0, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, F.cross_entropy(logits[0], labels, label_smoothing=0.1))


def test_soft_targets_flatten_with_temperature(logits):
    peaks = [soft_targets(logits[0], t).max(-1).values.mean().item() for t in TEMPERATURES]
    assert peaks == sorted(peaks, reverse=True)
    torch.testing.assert_close(soft_targets(logits[0], 3.0).sum(-1), torch.ones(16))


def test_alpha_zero_needs_no_labels_and_alpha_one_no_teacher(logits):
    student, teacher = logits
    labels = torch.arange(16) % 4
    soft = distillation_loss(student, teacher, None, alpha=0.0, temperature=2.0)
    torch.testing.assert_close(soft, soft_target_loss(student, teacher, 2.0))
    hard = distillation_loss(student, None, labels, alpha=1.0, temperature=2.0)
    torch.testing.assert_close(hard, F.cross_entropy(student, labels))
    with pytest.raises(UserError, match="labels are needed"):
        distillation_loss(student, teacher, None, alpha=0.5, temperature=2.0)
    with pytest.raises(UserError, match="a teacher is needed"):
        distillation_loss(student, None, labels, alpha=0.5, temperature=2.0)


def test_one_output_is_refused_where_its_loss_would_be_zero():
    """A softmax over one class is always 1: the loss would be exactly 0 and no weight would move."""
    with pytest.raises(UserError, match="two classes"):
        soft_target_loss(torch.randn(8, 1), torch.randn(8, 1), 2.0)
