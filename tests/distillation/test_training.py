"""One training: its arguments, its steps, its checkpoints and what is kept of it."""

import copy
import dataclasses
import stat
import weakref

import pytest
import torch
from transformers import TrainerCallback, set_seed

from kdhelpers import models
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.distillation import Fit, Training, fit, load_fit, ready_to_train, save_fit, steps_for
from kdhelpers.distillation import training as module
from kdhelpers.distillation.training import last_whole_checkpoint, rehearse, settings_line, training_arguments
from kdhelpers.errors import UserError
from kdhelpers.runtime import this_machine
from kdhelpers.settings import recipe
from tests.distillation.test_trainer import rows, tokenizer  # noqa: F401  (fixtures)
from tests.tiny import FAMILIES, family_tokenizer, tiny_bert, tiny_model

FP32 = this_machine("fp32")


@pytest.fixture
def how(rows, tokenizer, tmp_path):  # noqa: F811
    """A short training on labels, with validation rows; checkpoints are kept."""
    settings = recipe(batch_size=4, epochs=3, alpha=1, learning_rate=1e-3, warmup=0, dropout=0.1)
    return Training("student", rows, tokenizer, settings, FP32, rows, folder=tmp_path / "checkpoints")


def changed(training, **changes):
    """The training with other settings."""
    return dataclasses.replace(training, settings=dataclasses.replace(training.settings, **changes))


def weights(result):
    return torch.cat([parameter.flatten() for parameter in result.model.parameters()])


@pytest.mark.parametrize(("precision", "wanted"), [("bf16", (True, False)), ("fp32", (False, False))])
def test_precision_steps_and_the_choice_of_a_checkpoint_reach_trainer(how, precision, wanted):
    machine = dataclasses.replace(FP32, precision=precision)
    made = training_arguments(dataclasses.replace(changed(how, warmup=0.25), machine=machine))
    assert made.run_name == how.name, "a tracker shows control and student apart"
    assert (made.bf16, made.fp16) == wanted
    assert (made.max_steps, made.eval_steps, made.save_steps, made.warmup_steps) == (12, 4, 4, 3)
    assert (made.load_best_model_at_end, made.metric_for_best_model) == (True, "accuracy")
    assert not training_arguments(dataclasses.replace(how, validation=None)).load_best_model_at_end


def test_the_line_of_settings_says_what_a_training_is_given_and_no_temperature_that_nobody_reads():
    said = settings_line(recipe(), 759, 8070)
    assert said == (
        "759 steps on 8,070 rows; batch size 32, learning rate 0.0003, warm-up 0.1, alpha 0, T 4, dropout 0, seed 42"
    )
    assert settings_line(recipe(alpha=1), 759, 8070) == said.replace("alpha 0, T 4", "alpha 1")
    assert settings_line(recipe("sst2", hidden_states="pkd"), 1, 8).endswith(
        "alpha 0.5, T 3, dropout 0, seed 42, word embeddings trained, hidden states pkd"
    )
    assert "dropout of the model" in settings_line(recipe("sst2"), 1, 8)


@pytest.mark.parametrize("family", [*FAMILIES, "static"])
def test_a_trained_model_has_the_fingerprint_with_which_it_comes_back_from_disk(how, family, tmp_path):
    """Else what was computed with it in memory, its logits first of all, is computed a second time."""
    model = models.static_student(tiny_bert()) if family == "static" else tiny_model(family)
    result = fit(model, changed(how, epochs=1))
    save_fit(tmp_path / "kept", result, family_tokenizer("bert" if family == "static" else family))
    assert models.weights_fingerprint(load_fit(tmp_path / "kept").model) == models.weights_fingerprint(result.model)


def test_steps_count_processes_and_accumulation():
    settings = recipe(batch_size=10, epochs=2)
    assert steps_for(settings, FP32, 101) == 22
    assert steps_for(settings, dataclasses.replace(FP32, processes=2), 101) == 12
    assert steps_for(recipe(batch_size=10, epochs=2, gradient_accumulation_steps=5), FP32, 101) == 6
    assert steps_for(recipe(epochs=0.01), FP32, 5) == 1


def test_a_token_reaches_no_checkpoint(how):
    """Trainer saves its arguments with every checkpoint, hub_token in clear."""
    arguments = training_arguments(changed(how, trainer_options={"hub_token": "hf_secret", "weight_decay": 0.1}))
    assert (arguments.hub_token, arguments.weight_decay) == (None, 0.1)


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    """A killed run leaves one: without its trainer_state.json, or with a piece of it."""
    assert last_whole_checkpoint(tmp_path / "none") is None
    for step, state in ((16, '{"global_step": 16}'), (9, '{"global_step": 9}'), (32, '{"global_s'), (48, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path).name == "checkpoint-16"


def test_a_torn_checkpoint_changes_nothing(how):
    """A run that was killed while it wrote its very first checkpoint starts anew, and ends as if unbroken."""

    def trained():
        set_seed(0)
        return weights(fit(tiny_bert(), dataclasses.replace(how, validation=None, resume=True)))

    unbroken = trained()
    (checkpoint,) = how.folder.glob("checkpoint-*")
    (checkpoint / "trainer_state.json").unlink()
    (checkpoint / "model.safetensors").write_bytes(b"torn")
    checkpoint.rename(how.folder / "checkpoint-3")
    assert torch.equal(trained(), unbroken)


class Kill(TrainerCallback):
    """Ends a training the moment its checkpoint of a step is whole."""

    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [2, 4, 6, 8])
def test_early_stopping_goes_on_counting_after_an_interruption(how, monkeypatch, step, caplog):
    """Nothing is gained, so it stops at the third evaluation, wherever it was interrupted before."""
    how = dataclasses.replace(changed(how, epochs=10), steps=20, patience=3, options={"learning_rate": 0.0})
    set_seed(0)
    start = tiny_bert()
    with caplog.at_level("INFO", logger="kdhelpers"):
        whole = weights(fit(copy.deepcopy(start), dataclasses.replace(how, folder=how.folder / "whole")))
        assert "stopped early, no longer gaining; step 2 was the best" in caplog.text
        lines = module.EpochLines
        monkeypatch.setattr(module, "EpochLines", lambda *_: Kill(step))
        with pytest.raises(KeyboardInterrupt):
            fit(copy.deepcopy(start), how)
        monkeypatch.setattr(module, "EpochLines", lines)
        evaluated = []
        monkeypatch.setattr(lines, "on_evaluate", lambda *_, **__: evaluated.append(1))
        resumed = fit(copy.deepcopy(start), dataclasses.replace(how, resume=True))
    assert len(evaluated) == 4 - step // 2, "four evaluations in all: the best, and three without gain"
    assert torch.equal(weights(resumed), whole)


def test_a_model_trained_in_half_precision_is_scored_in_fp32(how, rows, tokenizer):  # noqa: F811
    set_seed(0)
    result = fit(tiny_bert(), dataclasses.replace(how, machine=this_machine("bf16")))
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    batch = dict(tokenizer.pad(rows.select_columns(["input_ids", "attention_mask"])[:4], return_tensors="pt"))
    assert result.model(**batch).logits.dtype == torch.float32
    assert not result.model.training


def test_what_a_training_took_is_kept_with_its_model(tmp_path, tokenizer):  # noqa: F811
    set_seed(0)
    save_fit(tmp_path / "kept", Fit(tiny_bert(), 12.5, 0.75), tokenizer)
    again = load_fit(tmp_path / "kept")
    assert (again.seconds, again.validation_accuracy, again.source) == (12.5, 0.75, str(tmp_path / "kept"))
    assert load_fit(tmp_path / "none") is None
    (tmp_path / "kept" / "model.safetensors").write_bytes(b"torn")
    assert load_fit(tmp_path / "kept") is None


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "fit.json"])
def test_a_kept_model_that_lacks_a_file_is_made_again(tmp_path, tokenizer, lost):  # noqa: F811
    save_fit(tmp_path / "kept", Fit(tiny_bert(), 1.0, None), tokenizer)
    (tmp_path / "kept" / lost).unlink()
    assert load_fit(tmp_path / "kept") is None


def test_others_may_read_a_kept_model(tmp_path, tokenizer):  # noqa: F811
    save_fit(tmp_path / "kept", Fit(tiny_bert(), 1.0, None), tokenizer)
    for path in [tmp_path / "kept", *(tmp_path / "kept").iterdir()]:
        wanted = 0o555 if path.is_dir() else 0o444
        assert stat.S_IMODE(path.stat().st_mode) & wanted == wanted, path


OPTIONS = [
    {"lr_scheduler_kwargs": {"cycles": 1}},
    {"report_to": "no_such_tracker"},
    {"prediction_loss_only": True},
    {"optim_args": "nonsense"},
    {"gradient_checkpointing_kwargs": {"nonsense": 1}, "gradient_checkpointing": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_options_that_cannot_work_end_a_rehearsal(how, options):
    with pytest.raises(UserError, match=f"cannot begin.*{next(iter(options))}"):
        rehearse(tiny_bert(), changed(how, trainer_options=options))


def test_a_rehearsal_passes_what_works(how):
    options = {"weight_decay": 0.1, "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}}
    rehearse(tiny_bert(), changed(how, trainer_options=options))


def test_settings_decide_dropout_and_frozen_embeddings():
    table = ready_to_train(tiny_bert(), recipe(dropout=0.3)).get_input_embeddings().weight
    assert not table.requires_grad
    model = ready_to_train(tiny_bert(), recipe(dropout=0.3, train_embeddings=True))
    assert model.get_input_embeddings().weight.requires_grad
    assert {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)} == {0.3}
    deep = ready_to_train(models.set_dropout(tiny_bert(), 0.3), recipe("sst2", hidden_states="pkd"))
    assert {part.p for part in deep.modules() if isinstance(part, torch.nn.Dropout)} == {0.0}


def test_checkpoints_are_thrown_away_where_no_folder_is_given(how, tmp_path):
    fit(tiny_bert(), dataclasses.replace(how, folder=None))
    assert not how.folder.exists()


def test_the_teachers_column_is_what_a_student_learns_from(how, rows):  # noqa: F811
    set_seed(0)
    start = tiny_bert()
    plain = changed(how, alpha=0.0)
    other = rows.remove_columns(TEACHER_LOGITS).add_column(TEACHER_LOGITS, [[3.0, -3.0]] * len(rows))
    learnt = [fit(copy.deepcopy(start), dataclasses.replace(plain, rows=table, folder=None)) for table in (rows, other)]
    assert not torch.equal(weights(learnt[0]), weights(learnt[1]))


def test_memory_goes_back_after_every_evaluation_and_when_the_optimizer_is_gone(how, monkeypatch):
    optimizers, gone = [], []

    class Watch(TrainerCallback):
        def on_train_end(self, args, state, control, optimizer=None, **_):
            optimizers.append(weakref.ref(optimizer))

    def watched(*args, **model):
        trainer = trainer_for(*args, **model)
        trainer.add_callback(Watch)
        return trainer

    trainer_for = module.trainer_for
    monkeypatch.setattr(module, "trainer_for", watched)
    monkeypatch.setattr(module, "give_memory_back", lambda: gone.append([ref() is None for ref in optimizers]))
    fit(tiny_bert(), how)
    assert gone == [[], [], [], [True]]
