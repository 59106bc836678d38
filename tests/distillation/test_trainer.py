"""The trainer, on tiny random models."""

import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from kdhelpers import models
from kdhelpers.data import TEACHER_LOGITS, UNLABELLED
from kdhelpers.distillation import (
    DistillationTrainer,
    DistillationTrainingArguments,
    build_student,
    distillation_loss,
    length_grouping,
    train_student,
)
from kdhelpers.distillation.trainer import ShuffledLengthSampler
from kdhelpers.errors import UserError
from tests.tiny import tiny_bert, tiny_distilbert, tiny_tokenizer

ROWS = 16


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def made_rows():
    """16 rows of word pieces of several lengths, with labels and made-up teacher logits."""
    draw = np.random.default_rng(0)
    ids = [[2, *draw.integers(5, 60, length).tolist(), 3] for length in draw.integers(3, 12, ROWS)]
    return Dataset.from_dict(
        {
            "input_ids": ids,
            "attention_mask": [[1] * len(row) for row in ids],
            "token_type_ids": [[0] * len(row) for row in ids],
            "labels": draw.integers(0, 2, ROWS).tolist(),
            "length": [len(row) for row in ids],
            TEACHER_LOGITS: draw.normal(0, 2, (ROWS, 2)).tolist(),
        }
    )


@pytest.fixture
def rows():
    return made_rows()


@pytest.fixture
def student():
    set_seed(0)
    return tiny_bert()


def arguments(folder, **changes):
    fields = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "alpha": 0.5,
        "temperature": 3.0,
    }
    return DistillationTrainingArguments(**(fields | changes))


def trainer_for(model, rows, tokenizer, folder, teacher=None, cls=DistillationTrainer, **changes):
    extra = {} if cls is Trainer else {"teacher": teacher}
    return cls(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        **extra,
    )


def batch_of(rows, tokenizer, padding=True, **pad):
    batch = rows.remove_columns("length")
    return tokenizer.pad(batch[:], return_tensors="pt", padding=padding, **pad)


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def no_dropout(model):
    return models.set_dropout(model, 0.0)


def test_extra_padding_leaves_the_loss_unchanged(student, rows, tokenizer, tmp_path):
    trainer = trainer_for(no_dropout(student).train(), rows, tokenizer, tmp_path)
    short = trainer.compute_loss(student, batch_of(rows, tokenizer))
    long = trainer.compute_loss(student, batch_of(rows, tokenizer, padding="max_length", max_length=30))
    assert short.item() == pytest.approx(long.item(), abs=1e-5)


def test_no_teacher_parameter_moves(student, rows, tokenizer, tmp_path):
    teacher = tiny_bert()
    before = copy.deepcopy(teacher.state_dict())
    trainer_for(student, rows.remove_columns(TEACHER_LOGITS), tokenizer, tmp_path, teacher, max_steps=3).train()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("use_teacher_column", [True, False])
def test_accumulating_over_small_batches_changes_nothing(rows, tokenizer, tmp_path, use_teacher_column):
    """One step on 8 rows at once, and on 4 micro-batches of 2: same loss, same weights."""
    weights, losses = [], []
    data = rows.select(range(8))
    teacher = None if use_teacher_column else tiny_bert()
    data = data if use_teacher_column else data.remove_columns(TEACHER_LOGITS)
    for batch_size, accumulation in ((8, 1), (2, 4)):
        set_seed(0)
        trainer = trainer_for(
            no_dropout(tiny_bert()), data, tokenizer, tmp_path, teacher,
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
            optim="sgd", max_grad_norm=0.0, logging_steps=1,
        )  # fmt: skip
        trainer.train()
        losses.append(losses_of(trainer)[0])
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_num_items_in_batch_is_accepted(student, rows, tokenizer, tmp_path):
    trainer = trainer_for(no_dropout(student).train(), rows, tokenizer, tmp_path)
    batch = batch_of(rows, tokenizer)
    with_items = trainer.compute_loss(student, batch, num_items_in_batch=torch.tensor(99))
    assert with_items.item() == pytest.approx(trainer.compute_loss(student, batch).item())


def test_the_teacher_stays_in_eval_mode(student, rows, tokenizer, tmp_path):
    teacher = tiny_bert().train()
    modes = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            modes.append(teacher.training)

        def on_evaluate(self, *args, **kwargs):
            modes.append(teacher.training)

    trainer = trainer_for(student, rows.remove_columns(TEACHER_LOGITS), tokenizer, tmp_path, teacher, max_steps=2)
    trainer.add_callback(Watch())
    trainer.train()
    trainer.evaluate()
    assert modes == [False] * 3
    assert not teacher.training


def test_eval_loss_is_plain_cross_entropy_and_runs_no_teacher(rows, tokenizer, tmp_path):
    class Loud(torch.nn.Module):
        def forward(self, *args, **kwargs):
            raise AssertionError("the teacher ran in evaluation")

    seen = []
    for alpha, temperature in ((1.0, 1.0), (0.0, 2.0), (0.5, 10.0)):
        set_seed(0)
        teacher = tiny_bert()
        trainer = trainer_for(
            tiny_bert(), rows.remove_columns(TEACHER_LOGITS), tokenizer, tmp_path, teacher,
            alpha=alpha, temperature=temperature,
        )  # fmt: skip
        teacher.bert = Loud()
        seen.append(trainer.evaluate()["eval_loss"])
        with torch.no_grad():
            logits = trainer.model(**{k: v for k, v in batch_of(rows, tokenizer).items() if k != TEACHER_LOGITS}).loss
        assert seen[-1] == pytest.approx(logits.item(), rel=1e-4)
    assert seen == pytest.approx([seen[0]] * 3, rel=1e-6), "one student, one loss, whatever alpha and temperature"


def test_a_checkpoint_holds_the_student_alone(rows, tokenizer, tmp_path):
    teacher = tiny_bert(layers=4)
    student = models.student_from_layers(teacher, (2, 4))
    trainer = trainer_for(
        student, rows.remove_columns(TEACHER_LOGITS), tokenizer, tmp_path, teacher, save_strategy="steps", save_steps=1
    )
    trainer.train()
    folder = get_last_checkpoint(str(tmp_path))
    assert set(load_file(f"{folder}/model.safetensors")) == set(student.state_dict())
    loaded = models.load_classifier(folder, None).model
    assert loaded.config.num_hidden_layers == models.num_layers(loaded) == 2


@pytest.mark.parametrize("by_length", [False, True])
def test_killed_and_resumed_is_never_interrupted(rows, tokenizer, tmp_path, by_length):
    """Stopped in the middle of the second epoch; dropout stays on, so the random states must come back too."""

    class Kill(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    def run(folder, kill=False, resume=None):
        set_seed(0)
        trainer = trainer_for(
            tiny_bert(), rows, tokenizer, folder, per_device_train_batch_size=4, max_steps=12, logging_steps=1,
            save_strategy="steps", save_steps=1, **length_grouping(by_length),
        )  # fmt: skip
        if kill:
            trainer.add_callback(Kill())
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
        else:
            trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", kill=True)
    resumed = run(tmp_path / "cut", resume=get_last_checkpoint(str(tmp_path / "cut")))
    assert losses_of(resumed) == losses_of(whole)
    assert len(losses_of(whole)) == 12
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_alpha_and_temperature_are_fields(tmp_path):
    ours = arguments(tmp_path, alpha=0.25, temperature=4)
    assert (ours.to_dict()["alpha"], ours.to_dict()["temperature"]) == (0.25, 4.0)
    assert dataclasses.replace(ours, learning_rate=1e-3).alpha == 0.25
    command = ["--output_dir", str(tmp_path), "--alpha", "0.1", "--temperature", "7", "--use_cpu", "true"]
    (parsed,) = HfArgumentParser(DistillationTrainingArguments).parse_args_into_dataclasses(command)
    assert (parsed.alpha, parsed.temperature) == (0.1, 7.0)


def test_alpha_and_temperature_reach_the_saved_arguments(student, rows, tokenizer, tmp_path):
    trainer = trainer_for(student, rows, tokenizer, tmp_path, alpha=0.25, temperature=4)
    trainer.save_model(str(tmp_path / "saved"))
    saved = torch.load(tmp_path / "saved" / "training_args.bin", weights_only=False)
    assert (saved.alpha, saved.temperature) == (0.25, 4.0)


@pytest.mark.parametrize(("name", "value"), [("alpha", 2), ("alpha", -0.5), ("temperature", 0)])
def test_nonsense_is_refused_at_once(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        arguments(tmp_path, **{name: value})


def test_a_search_keeps_floats(tmp_path):
    """Trainer casts a trial's value to the old one's type: with ints, 0.1247 would become 0 and 3.5 would become 3."""
    ours = arguments(tmp_path, alpha=1, temperature=4)
    assert type(ours.alpha)(0.1247) == 0.1247
    assert type(ours.temperature)(3.5) == 3.5


def test_label_smoothing_reaches_the_loss(rows, tokenizer, tmp_path):
    losses = []
    for smoothing in (0.0, 0.2):
        set_seed(0)
        model = no_dropout(tiny_bert()).train()
        trainer = trainer_for(model, rows, tokenizer, tmp_path, label_smoothing_factor=smoothing)
        batch = batch_of(rows, tokenizer)
        losses.append(trainer.compute_loss(model, batch).item())
        logits = model(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}).logits
        expected = distillation_loss(
            logits, batch[TEACHER_LOGITS], batch["labels"], alpha=0.5, temperature=3.0, label_smoothing=smoothing
        )
        assert losses[-1] == pytest.approx(expected.item(), rel=1e-5)
    assert losses[0] != losses[1]


def test_alpha_one_trains_as_plain_trainer_does(rows, tokenizer, tmp_path):
    """Without dropout, that is: ours draws fewer random numbers for a last layer of which it computes less."""
    weights = []
    for cls in (DistillationTrainer, Trainer):
        set_seed(0)
        model = models.set_dropout(tiny_bert(), 0.0)
        trainer = trainer_for(model, rows, tokenizer, tmp_path, cls=cls, alpha=1.0, max_steps=4)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def test_the_teacher_gets_inputs_that_the_student_does_not_read(rows, tokenizer, tmp_path):
    """A DistilBERT student knows no token_type_ids; its BERT teacher must still see those of the second segment."""
    teacher, student = tiny_bert(), tiny_distilbert()
    segments = rows.remove_columns([TEACHER_LOGITS, "token_type_ids"]).add_column(
        "token_type_ids", [[0] * (len(ids) // 2) + [1] * (len(ids) - len(ids) // 2) for ids in rows["input_ids"]]
    )
    trainer = trainer_for(no_dropout(student).train(), segments, tokenizer, tmp_path, teacher, alpha=0.0)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["token_type_ids"].max() == 1
    with torch.no_grad():
        expected_teacher = teacher(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}).logits
        logits = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = distillation_loss(logits, expected_teacher, batch["labels"], alpha=0.0, temperature=3.0)
    assert trainer.compute_loss(student, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_without_labels_trains(student, rows, tokenizer, tmp_path):
    unlabelled = rows.remove_columns("labels").add_column("labels", [UNLABELLED] * ROWS)
    trainer = trainer_for(student, unlabelled, tokenizer, tmp_path, max_steps=2, logging_steps=1)
    trainer.train()
    assert all(np.isfinite(losses_of(trainer)))


def test_without_any_teacher_the_error_says_what_to_do(student, rows, tokenizer, tmp_path):
    trainer = trainer_for(student, rows.remove_columns(TEACHER_LOGITS), tokenizer, tmp_path)
    with pytest.raises(ValueError, match="teacher=.*teacher_logits"):
        trainer.train()


def test_a_teacher_with_other_labels_is_refused(student, rows, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="3 labels, the student 2"):
        trainer_for(student, rows, tokenizer, tmp_path, teacher=tiny_bert(labels=3))


def test_rows_without_a_label_column_train_where_alpha_is_zero(student, rows, tokenizer, tmp_path):
    trainer = trainer_for(student, rows.remove_columns("labels"), tokenizer, tmp_path, alpha=0.0, logging_steps=1)
    trainer.train()
    assert losses_of(trainer)[0] > 0.01
    trainer = trainer_for(student, rows.remove_columns("labels"), tokenizer, tmp_path, alpha=0.5)
    with pytest.raises(UserError, match="labels are needed"):
        trainer.train()


def for_task(problem_type, labels=2):
    model = tiny_bert(labels=labels)
    model.config.problem_type = problem_type
    return model


@pytest.mark.parametrize("make", [lambda: for_task("multi_label_classification"), lambda: tiny_bert(labels=1)])
def test_a_teacher_of_another_task_is_refused(rows, tokenizer, tmp_path, make):
    """Several labels a text, or one number: their distillation by softmax would train without an error."""
    for student, teacher in ((tiny_bert(), make()), (make(), tiny_bert())):
        with pytest.raises(UserError, match="the teacher is for"):
            trainer_for(student, rows, tokenizer, tmp_path, teacher=teacher)


@pytest.mark.parametrize(("problem_type", "labels"), [("regression", 2), ("single_label_classification", 1)])
def test_outputs_that_no_task_has_are_refused(rows, tokenizer, tmp_path, problem_type, labels):
    with pytest.raises(UserError, match="the student is for .* which is no task"):
        trainer_for(for_task(problem_type, labels), rows, tokenizer, tmp_path)


def test_one_process_uses_one_gpu(student, rows, tokenizer, tmp_path):
    """With four GPUs Trainer would take batches of 32 rows, and 2 steps on 16 rows would be two epochs."""
    args = arguments(tmp_path, max_steps=2)
    args.device  # noqa: B018  (Trainer counts the GPUs when it is first asked)
    args._n_gpu = 4
    trainer = DistillationTrainer(
        student, args, DataCollatorWithPadding(tokenizer), train_dataset=rows, processing_class=tokenizer
    )
    trainer.train()
    assert (args.n_gpu, args.train_batch_size) == (1, 8)
    assert trainer.state.epoch == 1
    assert not isinstance(trainer.model_wrapped, torch.nn.DataParallel)


def test_batches_of_like_length_come_in_random_order():
    lengths = [random.Random(seed).randint(4, 60) for seed in range(1003)]
    sampler = ShuffledLengthSampler(16, lengths=lengths, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(1003)), "every row once"
    longest = [max(lengths[row] for row in first[i : i + 16]) for i in range(0, 1003, 16)]
    spread = [longest[i] - min(lengths[row] for row in first[16 * i : 16 * i + 16]) for i in range(62)]
    assert np.mean(spread) < 10, "rows of a batch are of like length"
    assert np.mean(longest[:31]) == pytest.approx(np.mean(longest[31:62]), abs=8), "no half has the short ones"
    assert np.corrcoef(longest[:-1], longest[1:])[0, 1] < 0.5, "neighbours are not sorted"
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_another_loss_can_be_trained_with(kit):
    """It takes what distillation_loss takes, and is handed on by train_student."""
    seen = []

    def opposite(student_logits, teacher_logits, labels, *, alpha, temperature, label_smoothing=0.0):
        seen.append((tuple(student_logits.shape), tuple(labels.shape), alpha, temperature))
        return (student_logits + teacher_logits).square().mean()

    student, answers = build_student(kit), kit.logits(kit.teacher, "train")
    before = np.square(kit.logits(student, "train") + answers).mean()
    how = {"loss": opposite, "steps": 40, "options": {"learning_rate": 1e-2}, "validation": None}
    trained = train_student(kit, student, kit.splits["train"], **how).model
    assert seen == [((8, 2), (8,), kit.settings.alpha, kit.settings.temperature)] * 40
    assert np.square(kit.logits(trained, "train") + answers).mean() < before / 2
