"""Options: one place for defaults, help texts and checks; what cannot be meant is refused in one sentence."""

import dataclasses

import pytest

from kdhelpers.errors import UserError
from kdhelpers.settings import OPTIONS, RECIPES, RunSettings, recipe, settings_from


def test_the_articles_numbers_are_the_recipes():
    article = recipe("sst2")
    assert (article.epochs, article.batch_size, article.learning_rate) == (3, 64, 5e-5)
    assert (article.alpha, article.temperature) == (0.5, 3.0)
    assert (article.teacher, article.student) == (
        "textattack/bert-base-uncased-SST-2", "distilbert/distilbert-base-uncased",
    )  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_only_options(name):
    assert set(RECIPES[name]) <= set(OPTIONS)
    assert recipe(name).name == name


def test_controls_have_settings_of_their_own_for_what_they_were_chosen_for():
    """A reader's rows, models or learning rate are another matter: there a control is trained as the student."""
    own = recipe("movie-snippets", temperature=2, seed=7)
    assert (own.control_learning_rate, own.control_dropout) == (1e-4, 0.1)
    for given in ({"train": "a.csv"}, {"student_layers": 0}, {"learning_rate": 1e-5}, {"teacher": "bert"}):
        other = recipe("movie-snippets", **given)
        assert (other.control_learning_rate, other.control_dropout) == (None, None)
    assert recipe("movie-snippets", dropout=0.2, control_dropout=0.3).control_dropout == 0.3
    same = recipe("movie-snippets", teacher="minilm-l6-h384", student_layers="3", epochs=3)
    assert same.control_learning_rate == 1e-4, "what the recipe says anyway is no other"
    taught = recipe("movie-snippets-base", teacher="fine-tuned")
    assert taught.control_learning_rate == 1e-4, "the student's network is the recipe's, whoever teaches it"


def test_every_option_has_a_help_text():
    for name, field in OPTIONS.items():
        assert field.metadata["help"].endswith("."), name


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"temperature": "4"}, "temperature", 4.0),
        ({"temperature": 4}, "temperature", 4.0),
        ({"batch-size": "16"}, "batch_size", 16),
        ({"batch_size": 16.0}, "batch_size", 16),
        ({"drop-leaks": "False"}, "drop_leaks", False),
        ({"drop-leaks": "true"}, "drop_leaks", True),
        ({"drop_leaks": "false"}, "drop_leaks", False),
        ({"teacher_id": "a/b"}, "teacher", "a/b"),
        ({"num_train_epochs": "2"}, "epochs", 2.0),
        ({"states": "pkd"}, "hidden_states", "pkd"),
        ({"label_column": "1.10"}, "label_column", "1.10"),
    ],
)
def test_values_are_read_by_the_type_of_their_option(given, name, value):
    found = getattr(settings_from(given), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"temparature": 3}, "did you mean --temperature"),
        ({"output_dir": "x"}, "--output"),
        ({"alpha": 7}, "alpha must lie between 0 and 1"),
        ({"alpha": "nan"}, "alpha"),
        ({"temperature": -1}, "temperature must be greater than 0"),
        ({"temperature": "inf"}, "temperature"),
        ({"dropout": 2}, "dropout"),
        ({"rows": 0}, "rows must be greater than 0"),
        ({"student_layers": -1}, "student layers must be 0 or more"),
        ({"seeds": 0}, "seeds"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"hidden_states": "all"}, "hidden states must be one of"),
        ({"epochs": "three"}, "--epochs must be a number"),
        ({"batch_size": "3.5"}, "--batch-size must be a whole number"),
        ({"drop_leaks": "maybe"}, "--drop-leaks must be true or false"),
        ({"recipe": "sst"}, "did you mean sst2"),
        ({"train": "a.csv", "dataset_id": "x/y"}, "not both"),
        ({"test": "a.csv"}, "goes with --train"),
        ({"save_strategy": "no"}, "set by distill itself"),
        ({"bf16": "true"}, "--precision"),
        ({"teacher": "a", "teacher_id": "b"}, "given twice"),
        ({"batch-size": 3, "batch_size": 4}, "given twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        settings_from(given)


def test_a_changed_copy_is_checked_too():
    with pytest.raises(UserError, match="alpha"):
        dataclasses.replace(recipe(), alpha=1.5)


def test_trainer_fields_are_read_by_their_types():
    options = settings_from({"weight_decay": "0.01", "gradient-accumulation-steps": "4"})
    assert options.trainer_options == {"weight_decay": 0.01, "gradient_accumulation_steps": 4}


def test_own_data_replaces_the_recipes():
    own = settings_from({"recipe": "sst2", "train": "my.csv"})
    assert (own.source, own.name, own.text_column, own.dataset_id) == ("files", "files", "text", None)
    hub = settings_from({"dataset_id": "a/b"})
    assert (hub.source, hub.name, str(hub.output)) == ("hub", "a--b", "runs/a--b")
    assert settings_from({"recipe": "sst2", "dataset_id": "a/b"}).dataset_config is None


def test_a_student_of_its_own_is_not_cut_unless_asked_for():
    assert recipe(student="a/b").student_layers is None
    both = recipe(student="a/b", student_layers=3)
    assert (both.student, both.student_layers) == ("a/b", 3)
    assert recipe("sst2", student_layers=3).student is None


def test_a_recipe_that_cuts_another_model_cuts_it_to_other_sizes_too():
    plain, smaller = recipe("movie-snippets-base"), recipe("movie-snippets-base", student_layers=2)
    assert (plain.teacher, plain.student, plain.student_layers) == ("mpnet-base", "minilm-l6-h384", 3)
    assert (smaller.student, smaller.student_layers) == ("minilm-l6-h384", 2)
    assert recipe("movie-snippets-base", student="a/b").student_layers is None


def test_every_option_is_one_of_the_dataclass():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(RunSettings)} - {"trainer_options", "ensemble"}


def test_teachers_are_one_or_several_however_they_are_given():
    for given in (["a", "b/c"], '["a", "b/c"]'):
        settings = settings_from({"teacher": given})
        assert (settings.teacher, settings.ensemble) == ("a", ["b/c"])
    assert settings_from({"teacher_id": "a"}).ensemble == []


def test_the_former_name_of_no_control_is_understood(caplog):
    caplog.set_level("INFO", logger="kdhelpers")
    assert settings_from({"no_control": "true"}).controls == "none"
    assert "--no-control is now --controls none" in caplog.text
    assert settings_from({"no_control": "false"}).controls == "two"
