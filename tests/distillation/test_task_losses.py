"""The losses of several labels at once and of a number, against formulas written out by hand."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from kdhelpers.data import Task
from kdhelpers.distillation import (
    distillation_loss,
    hard_labels_loss,
    hard_number_loss,
    loss_for,
    soft_labels_loss,
    soft_number_loss,
)
from kdhelpers.errors import UserError

NAN = float("nan")
STUDENT, TEACHER = ([[0.5, -1.0], [2.0, 0.0], [-3.0, 1.5]], [[1.0, -2.0], [0.0, 0.3], [-1.0, 4.0]])
LABELS = [[1.0, 0.0], [NAN, NAN], [0.0, 1.0]]


def tensors(*values):
    return [torch.tensor(value, requires_grad=index == 0) for index, value in enumerate(values)]


def test_binary_cross_entropy_is_a_mean_over_labels_and_divided_by_all_rows():
    student, labels = tensors(STUDENT, LABELS)
    p, y = expit(np.array(STUDENT)), np.array(LABELS)
    by_hand = np.nansum(-(y * np.log(p) + (1 - y) * np.log(1 - p))) / 2 / 3
    assert hard_labels_loss(student, labels).item() == pytest.approx(by_hand, rel=1e-5)
    smooth = 0.8 * y + 0.1
    by_hand = np.nansum(-(smooth * np.log(p) + (1 - smooth) * np.log(1 - p))) / 2 / 3
    assert hard_labels_loss(student, labels, 0.2).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_binary_kl_is_the_formula_of_its_docstring(temperature):
    student, teacher = tensors(STUDENT, TEACHER)
    p, q = (expit(np.array(value) / temperature) for value in (TEACHER, STUDENT))
    by_hand = temperature**2 * np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert soft_labels_loss(student, teacher, temperature).item() == pytest.approx(by_hand, rel=1e-4)
    assert soft_labels_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-6)


def test_numbers_have_squared_errors():
    student, teacher, labels = tensors([[0.5], [2.0], [-1.0]], [[1.0], [0.0], [-1.0]], [1.0, NAN, -3.0])
    assert hard_number_loss(student, labels).item() == pytest.approx((0.25 + 4) / 3)
    assert soft_number_loss(student, teacher, 4.0).item() == pytest.approx((0.25 + 4 + 0) / 3)
    with pytest.raises(UserError, match="label smoothing"):
        hard_number_loss(student, labels, 0.1)


CASES = {
    Task.SEVERAL: (STUDENT, TEACHER, LABELS),
    Task.NUMBER: ([[0.5], [2.0], [-1.0]], [[1.0], [0.0], [-1.0]], [1.0, NAN, -3.0]),
}


@pytest.mark.parametrize("task", CASES)
def test_both_terms_are_weighed_by_alpha_and_an_unlabelled_row_adds_only_the_teachers(task):
    student, teacher, labels = tensors(*CASES[task])
    loss = loss_for(task)
    ends = [loss(student, teacher, labels, alpha=alpha, temperature=2.0) for alpha in (0.0, 1.0)]
    middle = loss(student, teacher, labels, alpha=0.3, temperature=2.0)
    assert middle.item() == pytest.approx(0.7 * ends[0].item() + 0.3 * ends[1].item())
    nothing = loss(student, None, torch.full_like(labels, NAN), alpha=1.0, temperature=2.0)
    nothing.backward()
    assert nothing.item() == 0
    assert student.grad.abs().sum() == 0, "no NaN, no gradient"
    for wrong in ({"alpha": 0.0, "teacher_logits": None}, {"alpha": 1.0, "labels": None}):
        given = {"teacher_logits": teacher, "labels": labels, "temperature": 2.0} | wrong
        with pytest.raises(UserError, match="needed"):
            loss(student, **given)


@pytest.mark.parametrize("task", CASES)
def test_large_logits_in_half_precision_give_finite_losses_and_gradients(task):
    student, teacher, labels = tensors(*CASES[task])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        large = (student * 3e3).to(torch.bfloat16)
        loss = loss_for(task)(large, teacher * 3e3, labels, alpha=0.5, temperature=2.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("task", CASES)
def test_answers_that_do_not_fit_are_refused(task):
    student, teacher, labels = tensors(*CASES[task])
    for answers, words in ((teacher[:2], "same rows"), (teacher * NAN, "NaN")):
        with pytest.raises(UserError, match=words):
            loss_for(task)(student, answers, labels, alpha=0.5, temperature=2.0)


def test_one_label_has_the_loss_it_had():
    assert loss_for(Task.ONE) is distillation_loss
