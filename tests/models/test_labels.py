"""A model's labels and the data's: same number, same names, in any spelling and order; or a refusal."""

import unicodedata

import pytest
import torch

from kdhelpers import models
from kdhelpers.data import Task
from kdhelpers.errors import UserError
from tests.tiny import save_model, tiny_bert, tiny_tokenizer


def teacher(*names: str) -> models.LoadedModel:
    return models.LoadedModel(models.set_labels(tiny_bert(labels=len(names)), list(names)), True)


def names_of(loaded) -> list[str]:
    config = loaded.model.config
    assert config.label2id == {name: index for index, name in config.id2label.items()}
    return [config.id2label[index] for index in range(config.num_labels)]


@pytest.mark.parametrize(
    ("theirs", "datas"),
    [
        (("bad", "good"), ["bad", "good"]),
        (("BAD", "GOOD"), ["bad", "good"]),
        (("False", "True"), ["FALSE", "TRUE"]),
        ((unicodedata.normalize("NFD", "été"), "hiver"), [unicodedata.normalize("NFC", "été"), "hiver"]),
        (("Straße", "Weg"), ["STRASSE", "weg"]),
        (("bad ", "good"), ["bad", "good"]),
        (("LABEL_0", "LABEL_1"), ["bad", "good"]),
        (("label_0", "label_1"), ["bad", "good"]),
        (("0", "1"), ["bad", "good"]),
        (("0", "1", "2"), ["0", "1", "2"]),
    ],
)
def test_names_that_are_the_same_or_say_nothing_become_the_datas(theirs, datas):
    loaded = teacher(*theirs)
    models.align_labels(loaded, datas)
    assert names_of(loaded) == datas


def test_the_datas_numbers_leave_the_teachers_names_standing():
    loaded = teacher("bad", "good")
    models.align_labels(loaded, ["0", "1"])
    assert names_of(loaded) == ["bad", "good"]


@pytest.mark.parametrize("theirs", [("good", "bad", "fine"), ("GOOD", "Bad", "fine")])
def test_outputs_in_another_order_are_put_into_the_datas(theirs):
    loaded, texts = teacher(*theirs), {"input_ids": torch.arange(8).reshape(2, 4)}
    before = loaded.model.eval()(**texts).logits
    models.align_labels(loaded, ["bad", "fine", "good"])
    assert names_of(loaded) == ["bad", "fine", "good"]
    assert torch.equal(loaded.model(**texts).logits, before[:, [1, 2, 0]])


def test_a_config_may_list_its_labels_in_any_order():
    loaded = teacher("bad", "good")
    loaded.model.config.id2label = {1: "good", 0: "bad"}
    assert models.names_in_order(loaded.model.config) == ["bad", "good"]


@pytest.mark.parametrize(
    ("theirs", "datas"),
    [
        (("positive", "negative"), ["bad", "good"]),
        (("bad", "good", "fine"), ["bad", "good"]),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ["bad", "good"]),
    ],
)
def test_other_names_or_another_number_are_refused(theirs, datas):
    with pytest.raises(UserError) as caught:
        models.align_labels(teacher(*theirs), datas)
    assert theirs[0] in str(caught.value)
    assert datas[0] in str(caught.value)


@pytest.mark.parametrize("back", [{"bad": 1, "good": 0}, {"bad": "0", "good": "0"}, {"bad": 0}, {}])
def test_a_config_that_contradicts_itself_is_refused(back):
    loaded = teacher("bad", "good")
    loaded.model.config.label2id = back
    with pytest.raises(UserError):
        models.align_labels(loaded, ["bad", "good"])


def test_ids_as_strings_are_understood():
    loaded = teacher("bad", "good")
    loaded.model.config.label2id = {"bad": "0", "good": "1"}
    models.align_labels(loaded, ["bad", "good"])
    assert names_of(loaded) == ["bad", "good"]


def test_a_config_whose_ids_start_at_one_is_refused():
    loaded = teacher("bad", "good")
    loaded.model.config.id2label = {1: "bad", 2: "good"}
    with pytest.raises(UserError):
        models.align_labels(loaded, ["bad", "good"])


def test_another_task_is_refused():
    loaded = teacher("bad", "good")
    loaded.model.config.problem_type = "multi_label_classification"
    with pytest.raises(UserError, match="for several-labels .* the rows for one-label"):
        models.align_labels(loaded, ["bad", "good"])
    models.align_labels(loaded, ["bad", "good"], task=Task.SEVERAL)
    with pytest.raises(UserError, match="for number .* the rows for one-label"):
        models.align_labels(teacher("score"), ["score"])


def test_a_number_may_have_any_name():
    loaded = teacher("stars")
    models.align_labels(loaded, ["rating"], task=Task.NUMBER)
    assert names_of(loaded) == ["rating"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bad", "good"], ["bad", "good"]),
        (["LABEL_0", "LABEL_1"], None),
        (["0", "1"], None),
        (["Label_0", "x"], ["Label_0", "x"]),
    ],
)
def test_a_classifiers_names_are_offered_where_they_say_something(names, expected, tmp_path):
    save_model(tmp_path, models.set_labels(tiny_bert(), names), tiny_tokenizer())
    assert models.label_names_of(str(tmp_path)) == expected


def test_a_bare_encoder_has_no_label_names(tmp_path):
    save_model(tmp_path, models.set_labels(tiny_bert(), ["bad", "good"]).bert, tiny_tokenizer())
    assert models.label_names_of(str(tmp_path)) is None
