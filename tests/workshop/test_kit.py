"""The notebooks' short cuts, on tiny models and made-up rows."""

import numpy as np
import pandas as pd
import pytest
import torch

from kdhelpers import data, distillation, workshop


def test_logits_of_a_few_sentences_are_the_models_own_in_the_sentences_order(kit):
    sentences = ["a dull plot", "a great and lovely film about the river", "fine", "poor " * 200]
    found = workshop.logits_of(kit.teacher, kit.tokenizer, sentences)
    assert found.shape == (4, 2)
    assert found.dtype == torch.float32
    for sentence, logits in zip(sentences, found, strict=True):
        batch = kit.tokenizer(sentence, truncation=True, return_tensors="pt")
        with torch.no_grad():
            assert torch.allclose(logits, kit.teacher(**batch).logits[0], atol=1e-4)


def test_a_brief_training_says_its_settings_and_takes_one_epoch(kit, capsys):
    rows = kit.splits["train"].select(range(32))
    fit = workshop.train_briefly(kit, rows, learning_rate=3e-3, seed=1)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 96
    said = " ".join(said.split())
    assert said.startswith("student: 4 steps on 32 rows; batch size 8, learning rate 0.003, warm-up 0.1, alpha 0, T 4,")
    assert said.endswith("seed 1")
    assert not np.allclose(kit.logits(fit.model, "test"), kit.logits(untrained(kit), "test"))


def untrained(kit):
    return distillation.build_student(kit)


def test_a_brief_training_with_a_live_teacher_ends_where_its_cached_answers_end(kit):
    """Same answers, same seed, same steps: the same student."""
    rows = kit.splits["train"].select(range(32))
    cached = workshop.train_briefly(kit, rows)
    live = workshop.train_briefly(kit, rows.remove_columns(data.TEACHER_LOGITS), teacher=kit.teacher)
    assert np.allclose(kit.logits(cached.model, "test"), kit.logits(live.model, "test"), atol=1e-3)


def test_a_command_says_here_what_it_says_in_a_terminal(capsys):
    assert workshop.command("distill --temparature 3") == 2
    captured = capsys.readouterr()
    assert "did you mean --temperature?" in captured.out
    assert captured.err == ""
    assert workshop.command('ablation --groups "a b"') == 2
    assert "no group 'a b'" in capsys.readouterr().out, "a quoted value is one"


@pytest.fixture
def snippets(monkeypatch):
    draw = np.random.default_rng(0)
    rows = [{"id": str(i), "rating": float(r), "text": f"text {i}"} for i, r in enumerate(draw.uniform(-4, 4, 300))]
    monkeypatch.setattr(data, "read_movie_snippets", lambda: rows + [{"id": "x", "rating": 1.0, "text": "TEXT  1"}])
    return rows


def test_three_class_files_share_no_text_and_label_what_they_say(snippets, tmp_path):
    workshop.three_class_files(tmp_path, train_rows=200, labelled=50, held_out=40)
    tables = {
        name: pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False) for name in ("train", "validation", "test")
    }
    assert [len(table) for table in tables.values()] == [200, 40, 40]
    texts = [data.fold(text) for table in tables.values() for text in table["text"]]
    assert len(set(texts)) == len(texts)
    assert (tables["train"]["label"] != "").sum() == 50
    ratings = {row["text"]: row["rating"] for row in snippets}
    for row in tables["test"].itertuples():
        if row.text in ratings:
            rating = ratings[row.text]
            assert row.label == ("bad" if rating <= -1.5 else "mixed" if rating <= 1.5 else "good")
