"""Options are read strictly; whatever is wrong is one sentence and exit code 2."""

import contextlib

import pytest

from kdhelpers.__main__ import COMMANDS, main
from kdhelpers.cli.parsing import read_options
from kdhelpers.errors import UserError
from kdhelpers.settings import OPTIONS, OTHER_NAMES, dashed, settings_from
from tests.runs import refused


def read(*argv):
    return settings_from(read_options(list(argv)))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["distill", "--temparature", "3"], ["--temparature", "did you mean --temperature?"]),
        (["distill", "--student-layer=3"], ["did you mean --student-layers?"]),
        (["distill", "--states", "nonsense"], ["one of none, pkd, tinybert, minilm", "nonsense"]),
        (["distill", "--weight_decai", "0.1"], ["did you mean --weight-decay?"]),
        (["distill", "--recipe", "movie-snipets"], ["did you mean movie-snippets?"]),
        (["distill", "--lr_scheduler_type", "linnear"], ["--lr-scheduler-type", "linear", "linnear"]),
        (["distill", "--lr_scheduler_kwargs", '{"a": '], ["--lr-scheduler-kwargs", "JSON"]),
        (["distill", "--save_strategy", "no"], ["set by distill itself"]),
        (["distill", "--push_to_hub"], ["set by distill itself"]),
        (["distill", "--gradient_accumulation_steps", "0"], ["1 or more"]),
        (["distill", "--alpha", "0.1", "--alpha", "0.2"], ["given twice"]),
        (["distill", "--alpha", "0.1", "0.2"], ["0.2", "follows its option"]),
        (["distill", "--temp", "3"], ["unknown argument --temp"]),
        (["distill", "--dropout", "2"], ["dropout", "less than 1"]),
        (["distil"], ["did you mean distill?"]),
        (["ablation", "--sedes", "1"], ["did you mean --seeds?"]),
        (["doctor", "--prepair"], ["did you mean --prepare?"]),
        (["sagemaker", "clean", "--regiom", "x"], ["did you mean --region?"]),
        (["logits", "--temparature", "2"], ["did you mean --temperature?"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_misspelt_or_meant_for_nothing_is_answered_in_one_sentence(capsys, argv, words):
    refused(capsys, argv, *words)


def test_output_is_not_taken_for_output_dir():
    assert str(read("--output", "here").output) == "here"


@pytest.mark.parametrize(("text", "value"), [("false", False), ("False", False), ("true", True), ("True", True)])
def test_booleans_mean_what_they_say(text, value):
    assert read("--live-teacher", text).live_teacher is value
    assert read("--train_embeddings", text).train_embeddings is value


def test_a_boolean_without_a_value_is_true():
    settings = read("--drop-leaks", "--train-embeddings", "--overwrite")
    assert settings.drop_leaks is settings.train_embeddings is settings.overwrite is True
    assert read().drop_leaks is False


@pytest.mark.parametrize("text", ["4", "4.0"])
def test_four_and_four_point_zero_are_temperatures(text):
    assert read("--temperature", text).temperature == 4.0
    assert read(f"--temperature={text}").temperature == 4.0


def test_the_articles_hyperparameters_are_understood():
    line = "--recipe sst2 --teacher_id a/t --student_id a/s --dataset_id nyu-mll/glue --dataset_config sst2 --alpha 0.5"
    settings = read(*line.split(), "--num_train_epochs", "2", "--per_device_train_batch_size", "8", "--states", "pkd")
    assert (settings.teacher, settings.student, settings.dataset_config) == ("a/t", "a/s", "sst2")
    assert (settings.alpha, settings.epochs, settings.batch_size, settings.hidden_states) == (0.5, 2.0, 8, "pkd")


def test_training_arguments_are_read_by_their_own_types():
    options = read("--weight_decay", "0.01", "--gradient-accumulation-steps", "2", "--lr_scheduler_type", "cosine")
    assert options.trainer_options == {
        "weight_decay": 0.01, "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    options = read("--lr_scheduler_kwargs", '{"num_cycles": 0.5}', "--gradient_checkpointing", "--tf32", "false")
    wanted = {"lr_scheduler_kwargs": {"num_cycles": 0.5}, "gradient_checkpointing": True, "tf32": False}
    assert options.trainer_options == wanted
    assert read("--report_to", '["none"]').trainer_options == {"report_to": ["none"]}


def test_help_is_made_of_the_options_themselves(capsys):
    assert main(["distill", "--help"]) == 0
    text = capsys.readouterr().out
    words = " ".join(text.split())
    for name, field in OPTIONS.items():
        assert dashed(name) in text
        assert " ".join(field.metadata["help"].split()) in words, name
    assert max(map(len, text.splitlines())) <= 100
    assert OTHER_NAMES["states"] == "hidden_states", "former names still work, and need no line"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command, capsys):
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m kdhelpers {command}")


def test_a_value_without_an_option_is_refused():
    with pytest.raises(UserError, match="every value follows its option"):
        read_options(["3"])


def test_a_teacher_may_be_given_again_and_nothing_else():
    given = settings_from(read_options(["--teacher", "a", "--seed", "1", "--teacher=b", "--teacher", "c"]))
    assert (given.teacher, given.ensemble) == ("a", ["b", "c"])
    with pytest.raises(UserError, match="--seed is given twice"):
        read_options(["--seed", "1", "--seed", "2"])
