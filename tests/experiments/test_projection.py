"""A teacher's hidden state as a column, and an assistant's answers in its teacher's place, on tiny models."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdhelpers import data, distillation, experiments, models
from kdhelpers.experiments import ablation, projection
from tests.tiny import family_tokenizer, tiny_model

TINY = experiments.Variant("tiny", start="backbone", layers=1, epochs=1)


@pytest.mark.parametrize("family", ["bert", "mpnet", "roberta"])
def test_a_hidden_state_stands_behind_its_rows_logits(kit, family):
    teacher, tokenizer = tiny_model(family).eval(), family_tokenizer(family)
    read = data.tokenise(kit.rows.splits, tokenizer, 32)
    own = replace(
        kit, teacher_fit=replace(kit.teacher_fit, model=teacher), teacher_splits=read, teacher_tokenizer=tokenizer
    )
    column = distillation.as_array(projection.rows_with_states(own, kit.splits["train"]))
    logits = models.predict_logits(teacher, read["train"], tokenizer)
    assert np.allclose(column[:, :2], logits, atol=1e-5)
    assert teacher.config.num_labels == 2, "the teacher stays as it was"
    batch = tokenizer.pad(read["train"].select_columns(["input_ids", "attention_mask"])[:8], return_tensors="pt")
    with torch.no_grad():
        last = teacher.base_model(**batch)
    first = last.pooler_output if family == "bert" else last.last_hidden_state[:, 0]
    assert np.allclose(column[:8, 2:], first, atol=1e-4)


def test_a_projection_of_weight_0_trains_the_student_without_one(kit):
    run, model, how = ablation.begin(TINY, kit)
    usual = distillation.train_student(run, model, **how).model
    run, model, how = ablation.begin(TINY, kit)
    fit = projection.train_with_projection(run, model, 0.0, **how)
    assert isinstance(fit.model.classifier, torch.nn.Linear), "the projection is gone"
    assert np.allclose(kit.logits(fit.model, "test"), kit.logits(usual, "test"), atol=1e-5)


def test_a_student_comes_nearer_to_its_teachers_states_as_they_weigh_more(kit):
    torch.manual_seed(0)
    state = torch.randn(16, 6)
    student = torch.cat([torch.zeros(16, 2), torch.randn(16, 6)], dim=1).requires_grad_()
    answers = torch.cat([torch.zeros(16, 2), state], dim=1)
    numbers = {"alpha": 0.0, "temperature": 2.0}
    losses = [
        projection.loss_with_states(student, answers, None, classes=2, weight=weight, **numbers) for weight in (0, 1, 3)
    ]
    apart = distillation.pkd_loss(student[:, None, 2:], answers[:, None, 2:])
    assert [loss.item() for loss in losses] == pytest.approx([0.0, apart.item(), 3 * apart.item()])
    losses[1].backward()
    assert student.grad[:, 2:].abs().sum() > 0
    assert torch.allclose(student.grad[:, :2], torch.zeros(16, 2), atol=1e-6), "equal logits teach nothing"


def test_a_variant_with_a_projection_is_trained_with_it_and_is_another_student(kit, monkeypatch):
    asked = []
    monkeypatch.setattr(
        ablation,
        "train_with_projection",
        lambda run, model, weight, **how: asked.append(weight) or distillation.train_student(run, model, **how),
    )
    experiments.student(kit, TINY)
    for _ in range(2):
        experiments.student(kit, replace(TINY, projection=3.0))
    assert asked == [3.0], "once, and then from the cache"


def test_an_assistant_answers_in_its_teachers_place(kit, monkeypatch):
    first = replace(TINY, name="first")
    monkeypatch.setitem(experiments.GROUPS, "sizes", (first,))
    monkeypatch.setattr(distillation, "prepare", lambda settings: kit)
    assert ablation.with_assistant(kit, TINY) is kit
    taught = ablation.with_assistant(kit, replace(TINY, assistant="first"))
    answers = kit.logits(experiments.student(kit, first), "train")
    assert np.allclose(distillation.as_array(taught.splits["train"]), answers, atol=1e-4)
    assert not np.allclose(distillation.as_array(kit.splits["train"]), answers, atol=0.1)
    assert taught.splits["train"]["id"] == kit.splits["train"]["id"]
