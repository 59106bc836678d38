"""The cached column is the live teacher's, row by row, and never another teacher's."""

import copy
import tracemalloc

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding

from kdhelpers import data, models, runtime
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.distillation import (
    DistillationTrainer,
    DistillationTrainingArguments,
    add_teacher_logits,
    as_column,
    logits_fingerprint,
    table_hash,
)
from kdhelpers.distillation.teacher_logits import as_array
from tests.tiny import teachable_rows, tiny_bert, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(3)
    return tiny_bert(labels=3)


@pytest.fixture(scope="module")
def rows(tokenizer):
    table = Dataset.from_list(teachable_rows(60))
    return data.tokenise(table, tokenizer, 32)


def answered(rows, teacher, tokenizer, cache):
    return add_teacher_logits(rows, rows, teacher, tokenizer, runtime.this_machine("fp32"), cache)


def key(teacher, rows, tokenizer, precision="fp32"):
    return logits_fingerprint(teacher, rows, tokenizer, precision)


@pytest.fixture
def cached(rows, teacher, tokenizer, tmp_path):
    return answered(rows, teacher, tokenizer, tmp_path)[0]


def live(teacher, tokenizer, text):
    with torch.no_grad():
        return teacher(**tokenizer(text, return_tensors="pt")).logits[0].numpy()


ORDERS = {
    "as it is": lambda table: table,
    "shuffle": lambda table: table.shuffle(seed=1),
    "select": lambda table: table.select(range(50, 10, -3)),
    "filter": lambda table: table.filter(lambda row: row["labels"] == 1),
    "two workers": lambda table: table.map(lambda row: {"copy": row["text"]}, num_proc=2),
}


@pytest.mark.parametrize("order", ORDERS)
def test_cached_logits_are_the_live_ones(cached, teacher, tokenizer, order):
    table = ORDERS[order](cached)
    assert len(table) > 5
    for row in table:
        np.testing.assert_allclose(row[TEACHER_LOGITS], live(teacher, tokenizer, row["text"]), atol=1e-5)


def test_the_second_time_nothing_is_computed(rows, teacher, tokenizer, tmp_path, monkeypatch):
    first, seconds = answered(rows, teacher, tokenizer, tmp_path)
    assert seconds > 0
    monkeypatch.setattr(models, "predict_logits", lambda *args, **kwargs: pytest.fail("the teacher ran again"))
    second, seconds = answered(rows, teacher, tokenizer, tmp_path)
    assert seconds == 0
    assert first[TEACHER_LOGITS][:] == second[TEACHER_LOGITS][:]


def another_teacher(teacher, tokenizer, rows):
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.classifier.bias += 1e-3
    return other, tokenizer, rows


def swapped_labels(teacher, tokenizer, rows):
    other = copy.deepcopy(teacher)
    other.config.id2label = {0: "LABEL_2", 1: "LABEL_1", 2: "LABEL_0"}
    return other, tokenizer, rows


def another_tokenizer(teacher, tokenizer, rows):
    return teacher, models.swap_tokens(tokenizer, "winter", "river"), rows


def another_length(teacher, tokenizer, rows):
    return teacher, tokenizer, data.tokenise(Dataset.from_list(teachable_rows(60)), tokenizer, 8)


def another_order(teacher, tokenizer, rows):
    return teacher, tokenizer, rows.select(range(len(rows) - 1, -1, -1))


def another_activation(teacher, tokenizer, rows):
    """The same weights, read otherwise."""
    other = copy.deepcopy(teacher)
    other.config.hidden_act = "relu"
    return other, tokenizer, rows


CHANGES = [another_teacher, swapped_labels, another_activation, another_tokenizer, another_length, another_order]


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_that_is_not_its_own_is_never_used(rows, teacher, tokenizer, change):
    changed = change(teacher, tokenizer, rows)
    before = key(teacher, rows, tokenizer)
    assert key(changed[0], changed[2], changed[1]) != before
    assert key(teacher, rows, tokenizer) == before


def test_withheld_labels_share_the_cache(rows, teacher, tokenizer):
    hidden = rows.map(lambda row: {"labels": -100})
    assert key(teacher, hidden, tokenizer) == key(teacher, rows, tokenizer)


def test_another_precision_has_answers_of_its_own(rows, teacher, tokenizer):
    assert key(teacher, rows, tokenizer, "bf16") != key(teacher, rows, tokenizer, "fp32")


def test_a_tables_hash_follows_its_values_not_how_they_are_kept(rows):
    again = Dataset.from_dict({name: rows[name][:] for name in ("input_ids", "labels")})
    assert table_hash(rows.select(range(59, -1, -1)).select(range(59, -1, -1))) == table_hash(rows) == table_hash(again)
    assert table_hash(rows, ("labels",)) != table_hash(rows.select(range(59, -1, -1)), ("labels",))
    shifted = [[*rows[0]["input_ids"], rows[1]["input_ids"][0]], rows[1]["input_ids"][1:]]  # same numbers, other rows
    assert table_hash(Dataset.from_dict({"input_ids": shifted})) != table_hash(rows.select(range(2)))


def test_a_million_answers_become_a_column_without_a_python_number_each():
    logits = np.random.default_rng(0).normal(size=(1_000_000, 2)).astype(np.float32)  # 8 MB
    tracemalloc.start()
    column = as_column(logits)
    again = as_array(column)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(again, logits)
    assert peak < 60e6, f"{peak / 1e6:.0f} MB of Python objects for 8 MB of answers"


def damage_arrow(folder):
    file = next(folder.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_info(folder):
    (folder / "state.json").write_text("{")


def damage_values(folder):
    column = Dataset.from_dict({TEACHER_LOGITS: [[float("nan")] * 3] * 60})
    column.save_to_disk(str(folder))


@pytest.mark.parametrize("damage", [damage_arrow, damage_info, damage_values])
def test_a_damaged_cache_is_made_again(rows, teacher, tokenizer, tmp_path, damage):
    first, _ = answered(rows, teacher, tokenizer, tmp_path)
    (folder,) = tmp_path.iterdir()
    expected = first[TEACHER_LOGITS][:]
    damage(folder)
    second, seconds = answered(rows, teacher, tokenizer, tmp_path)
    assert seconds > 0
    np.testing.assert_allclose(second[TEACHER_LOGITS][:], expected, atol=1e-6)


def test_trainer_keeps_the_column_of_answers(cached, tokenizer, tmp_path):
    trainer = DistillationTrainer(
        model=tiny_bert(labels=3),
        args=DistillationTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"),
        train_dataset=cached,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch[TEACHER_LOGITS].shape == (8, 3)
    assert "text" not in batch


def test_predictions_come_in_the_rows_order_and_leave_the_mode_alone(rows, teacher, tokenizer):
    teacher = copy.deepcopy(teacher).train()
    predicted = models.predict_logits(teacher, rows, tokenizer, batch_size=7)
    assert teacher.training
    teacher.eval()
    for row, found in zip(rows, predicted, strict=True):
        np.testing.assert_allclose(found, live(teacher, tokenizer, row["text"]), atol=1e-5)
