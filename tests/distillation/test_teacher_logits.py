"""Trap 23 and its kin: the cached column is the live teacher's, row by row, and never another teacher's."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding

from kdhelpers import checks, data, logits
from kdhelpers.trainer import TEACHER_LOGITS, DistillationTrainer, DistillationTrainingArguments
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


@pytest.fixture
def cached(rows, teacher, tokenizer, tmp_path):
    return logits.add_teacher_logits(rows, teacher, tokenizer, cache=tmp_path)[0]


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
def test_trap_23_cached_logits_are_the_live_ones(cached, teacher, tokenizer, order):
    table = ORDERS[order](cached)
    assert len(table) > 5
    for row in table:
        np.testing.assert_allclose(row[TEACHER_LOGITS], live(teacher, tokenizer, row["text"]), atol=1e-5)


def test_trap_23_the_second_time_nothing_is_computed(rows, teacher, tokenizer, tmp_path, monkeypatch):
    first, seconds = logits.add_teacher_logits(rows, teacher, tokenizer, cache=tmp_path)
    assert seconds > 0
    monkeypatch.setattr(logits, "predict_logits", lambda *args, **kwargs: pytest.fail("the teacher ran again"))
    second, seconds = logits.add_teacher_logits(rows, teacher, tokenizer, cache=tmp_path)
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
    return teacher, checks.swap_pieces(tokenizer, "winter", "river"), rows


def another_length(teacher, tokenizer, rows):
    return teacher, tokenizer, data.tokenise(Dataset.from_list(teachable_rows(60)), tokenizer, 8)


def another_order(teacher, tokenizer, rows):
    return teacher, tokenizer, rows.select(range(len(rows) - 1, -1, -1))


CHANGES = [another_teacher, swapped_labels, another_tokenizer, another_length, another_order]


@pytest.mark.parametrize("change", CHANGES)
def test_trap_23_a_cache_that_is_not_its_own_is_never_used(rows, teacher, tokenizer, change):
    changed = change(teacher, tokenizer, rows)
    before = logits.logits_fingerprint(teacher, rows, tokenizer)
    assert logits.logits_fingerprint(changed[0], changed[2], changed[1]) != before
    assert logits.logits_fingerprint(teacher, rows, tokenizer) == before


def test_withheld_labels_share_the_cache(rows, teacher, tokenizer):
    hidden = rows.map(lambda row: {"labels": -100})
    assert logits.logits_fingerprint(teacher, hidden, tokenizer) == logits.logits_fingerprint(teacher, rows, tokenizer)


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
    first, _ = logits.add_teacher_logits(rows, teacher, tokenizer, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    expected = first[TEACHER_LOGITS][:]
    damage(folder)
    second, seconds = logits.add_teacher_logits(rows, teacher, tokenizer, cache=tmp_path)
    assert seconds > 0
    np.testing.assert_allclose(second[TEACHER_LOGITS][:], expected, atol=1e-6)


def test_trap_23_trainer_keeps_the_column(cached, tokenizer, tmp_path):
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
    teacher.train()
    predicted = logits.predict_logits(teacher, rows, tokenizer, batch_size=7)
    assert teacher.training
    teacher.eval()
    for row, found in zip(rows, predicted, strict=True):
        np.testing.assert_allclose(found, live(teacher, tokenizer, row["text"]), atol=1e-5)
