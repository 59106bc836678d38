"""Any teacher for every task: files of answers, functions, several models, live ones; and pairs' types of tokens."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from scipy.special import expit

from kdhelpers import data, models
from kdhelpers.data import Task
from kdhelpers.distillation import (
    answers_from,
    answers_from_file,
    as_column,
    distill,
    hard_answers,
    logits_fingerprint,
    mean_of_probabilities,
    prepare,
)
from kdhelpers.distillation.teacher_logits import with_column
from kdhelpers.errors import UserError
from kdhelpers.settings import settings_from
from tests.runs import FAST, bare, own_cache, spoken  # noqa: F401
from tests.tasks import write_task
from tests.tiny import family_tokenizer, save_model, tiny_bert, tiny_distilbert

pytestmark = pytest.mark.usefixtures("own_cache")
PAIRS = Dataset.from_dict({"id": ["7", "8"], "text": ["one", "one"], "text_pair": ["good", "bad"]})
SHARES = np.array([[0.1, 0.9], [0.8, 0.2]])


def written(tmp_path, **columns) -> str:
    pd.DataFrame(columns).to_csv(tmp_path / "answers.csv", index=False)
    return str(tmp_path / "answers.csv")


@pytest.mark.parametrize("keys", [{"id": [8, 7]}, {"a": ["one", "one"], "b": ["bad", "good"]}])
def test_pairs_are_joined_by_id_or_by_both_texts(tmp_path, keys):
    path = written(tmp_path, **keys, no=SHARES[::-1, 0], yes=SHARES[::-1, 1])
    found = answers_from_file(path, "a", pair_column="b").of(PAIRS, ["no", "yes"])
    np.testing.assert_allclose(np.exp(found), SHARES, atol=1e-5)


def test_one_of_two_texts_is_nothing_to_join_by(tmp_path):
    with pytest.raises(UserError, match="neither a column 'id' nor both 'a' and 'b'"):
        answers_from_file(written(tmp_path, a=["one"], no=[0.1], yes=[0.9]), "a", pair_column="b")
    path = written(tmp_path, a=["one"] * 2, b=["bad"] * 2, no=[0.1] * 2, yes=[0.9] * 2)
    with pytest.raises(UserError, match="line 3 answers for a and b 'one', 'bad' again"):
        answers_from_file(path, "a", pair_column="b")


def test_several_labels_have_probabilities_of_their_own_and_a_number_has_one_column(tmp_path):
    path = written(tmp_path, id=[7, 8], sad=[0.9, 0.0], funny=[0.8, 0.5])
    found = answers_from_file(path, task=None).of(PAIRS, ["funny", "sad"], Task.SEVERAL)
    np.testing.assert_allclose(expit(found), [[0.8, 0.9], [0.5, 0.0]], atol=1e-5)
    path = written(tmp_path, id=[7, 8], stars=[3.5, -120])
    assert answers_from_file(path, task=None).of(PAIRS, ["rating"], Task.NUMBER).tolist() == [[3.5], [-120.0]]
    path = written(tmp_path, id=[7, 8], stars=[3.5, 1], points=[1, 2])
    with pytest.raises(UserError, match="answers for the classes stars, points; the rows' are rating"):
        answers_from_file(path, task=None).of(PAIRS, ["rating"], Task.NUMBER)


def test_a_function_is_given_tuples_of_two_each_pair_once():
    asked = []

    def says(texts):
        asked.extend(texts)
        return [[0.2, 0.8] for _ in texts]

    for _ in range(2):
        answers_from(says, "says").of(PAIRS, ["no", "yes"])
    assert asked == [("one", "good"), ("one", "bad")]


def test_several_teachers_are_a_mean_of_probabilities_or_of_numbers():
    one, other = np.array([[2.0, -1.0]]), np.array([[-1.0, 40.0]])
    together = mean_of_probabilities([one, other], Task.SEVERAL)
    np.testing.assert_allclose(expit(together), (expit(one) + expit(other)) / 2, rtol=1e-5)
    assert np.isfinite(mean_of_probabilities([other, other], Task.SEVERAL)).all()
    assert mean_of_probabilities([one, other], Task.NUMBER).tolist() == [[0.5, 19.5]]


def test_hard_answers_of_several_labels_are_those_likelier_than_not():
    rows = with_column(Dataset.from_dict({"labels": [[0.0, 0.0]]}), np.array([[1.5, -0.5]], dtype=np.float32))
    assert hard_answers(rows, Task.SEVERAL)["labels"][:] == [[1.0, 0.0]]
    assert as_column(np.zeros((2, 3))).num_rows == 2


def run(tmp_path, task, teacher, **more):
    given = write_task(tmp_path, task) | FAST | {"teacher_epochs": 2, "teacher_learning_rate": 3e-3}
    given |= {"student_layers": 1} if "student" not in more else {}
    teacher = json.dumps([str(teacher)] * 2) if more.pop("ensemble", False) else str(teacher)
    return settings_from(given | {"teacher": teacher, "output": str(tmp_path / "run"), "accept_teacher": True} | more)


@pytest.mark.parametrize("task", ["several-labels", "number"])
def test_hidden_states_and_the_live_teacher_go_with_every_task(task, bare, tmp_path):  # noqa: F811
    metrics = distill(run(tmp_path, task, bare, hidden_states="tinybert", alpha=0.5, controls="none"))
    assert metrics["task"] == task
    assert "verdict" not in metrics


def test_several_teachers_of_a_number_teach_their_mean(bare, tmp_path, spoken):  # noqa: F811
    ready = prepare(run(tmp_path, "number", bare, ensemble=True, student=str(bare)))
    assert "the mean of 2 teachers' answers is taught" in spoken()
    assert ready.answers["test"].shape == (32, 1)
    assert len(ready.further) == 1


def pair_teacher(folder):
    """A random BERT whose answers depend on every token, and on its type."""
    torch.manual_seed(0)
    model = models.set_labels(tiny_bert(), ["other", "same"])
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.data.normal_(0, 0.3)
    return save_model(folder, model, family_tokenizer("bert"))


def test_a_student_without_types_leaves_its_teacher_with_them(tmp_path):
    """DistilBERT's tokenizer gives none: read with it, a pair would be one text to the BERT that teaches."""
    teacher = pair_teacher(tmp_path / "teacher")
    student = save_model(tmp_path / "student", tiny_distilbert(labels=2), family_tokenizer("distilbert"))
    config = student / "tokenizer_config.json"
    config.write_text(config.read_text().replace("BertTokenizer", "DistilBertTokenizer"))
    for live in (False, True):
        ready = prepare(run(tmp_path, "pairs", teacher, student=str(student), live_teacher=live, alpha=0.5))
        read = ready.teacher_splits["test"]
        types = read["token_type_ids"][:]
        assert {value for row in types for value in row} == {0, 1}
        assert (ready.splits["test"] is ready.teacher_splits["test"]) == live
        flat = read.remove_columns("token_type_ids").add_column("token_type_ids", [[0] * len(row) for row in types])
        without = models.predict_logits(ready.teacher, flat, ready.teacher_tokenizer)
        assert np.abs(ready.logits(ready.teacher, "test") - without).max() > 0.01
        assert ("token_type_ids" in ready.splits["test"].column_names) == live
    names = (logits_fingerprint(ready.teacher, table, ready.teacher_tokenizer, "fp32") for table in (read, flat))
    assert len(set(names)) == 2, "answers to other types are other answers"


def test_a_pair_reaches_the_baseline_whole(tmp_path):
    texts = data.texts_of(PAIRS)
    model = models.fit_baseline(texts * 4, np.eye(2)[[1, 0] * 4])
    assert models.baseline_logits(model, texts).argmax(-1).tolist() == [1, 0]


def test_baselines_of_several_labels_and_of_a_number_learn_what_they_are_taught():
    texts = ["good film", "bad film", "good bad film", "film"] * 5
    wanted = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, dtype=float)
    several = models.fit_baseline(texts, wanted, Task.SEVERAL)
    assert ((models.baseline_logits(several, texts, Task.SEVERAL) > 0) == wanted).all()
    soft = models.fit_baseline(texts, np.full((20, 1), 0.25), Task.SEVERAL)
    np.testing.assert_allclose(expit(models.baseline_logits(soft, texts, Task.SEVERAL)), 0.25, atol=0.02)
    number = models.fit_baseline(texts, wanted[:, :1] - wanted[:, 1:], Task.NUMBER)
    found = models.baseline_logits(number, texts, Task.NUMBER)
    assert found.shape == (20, 1)
    assert np.corrcoef(found[:, 0], wanted[:, 0] - wanted[:, 1])[0, 1] > 0.95
    assert models.baseline_parameters(number) > 3


@pytest.mark.parametrize(("values", "words"), [(np.log(0.3), "no label would"), (70.0, "every label would")])
def test_log_probabilities_and_percentages_of_several_labels_are_no_logits(tmp_path, values, words):
    ids = [str(index) for index in range(30)]
    path = written(tmp_path, id=ids, no=np.full(30, values), yes=np.full(30, values / 2))
    rows = Dataset.from_dict({"id": ids, "text": ids})
    with pytest.raises(UserError, match=words):
        answers_from_file(path, task=None).of(rows, ["no", "yes"], Task.SEVERAL)


def test_training_rows_without_a_label_need_no_name_for_a_number(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "".join(f"text {index},\n" for index in range(20)))
    for name in ("validation", "test"):
        lines = [f"{name} {index},{index / 7:.2f}\n" for index in range(20)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(lines))
    held_out = {name: str(tmp_path / f"{name}.csv") for name in ("validation", "test")}
    settings = settings_from({"train": str(path), **held_out, "alpha": 0, "teacher": "x"})
    rows = data.load_rows(settings, None, Task.NUMBER)
    assert rows.task is Task.NUMBER
    assert len(rows.splits["test"]) == 20
