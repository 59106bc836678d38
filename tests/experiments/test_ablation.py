"""The ladder of students, and the search, on tiny models and made-up runs."""

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from transformers import DataCollatorWithPadding

from kdhelpers import data, fitting, ladder, models, search, workshop
from kdhelpers.errors import UserError
from kdhelpers.logits import add_teacher_logits
from kdhelpers.recipes import MOVIE_SNIPPETS
from tests.tiny import save_model, teachable_rows, tiny_tokenizer, trained_tiny_teacher


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """The tiny task in the clothes of the default recipe: 40 labelled rows, 24 without, 64 to validate and to test."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "home"))
    tokenizer, names = tiny_tokenizer(), ["negative", "positive"]
    teacher = models.set_labels(trained_tiny_teacher(), names)
    folder = save_model(tmp_path / "teacher", teacher, tokenizer)
    parts = {}
    for seed, (name, count) in enumerate({"train": 64, "validation": 64, "test": 64}.items()):
        rows = teachable_rows(count, seed)
        parts[name] = Dataset.from_list([row | {"id": str(index)} for index, row in enumerate(rows)])
    parts["train"] = data.withhold_labels(parts["train"], keep=40)
    rows = data.Rows(DatasetDict(parts), names)
    recipe = replace(MOVIE_SNIPPETS, teacher=str(folder), student_layers=1, batch_size=8, max_length=32)
    splits = data.tokenise(rows.splits, tokenizer, 32)
    splits["train"], _ = add_teacher_logits(splits["train"], teacher, tokenizer)
    return workshop.Prepared(recipe, rows, splits, tokenizer, teacher)


def test_every_rung_takes_the_same_steps_and_sees_the_rows_it_says(kit, monkeypatch):
    seen, seen_rows = {}, {}

    def fit(name, model, rows, validation, tokenizer, arguments, *, teacher=None):
        columns = {"input_ids", "attention_mask", "label", "label_ids", "labels"}  # what Trainer keeps
        seen_rows[name] = rows.select_columns([c for c in rows.column_names if c in columns])
        seen[name] = (len(rows), sum(label >= 0 for label in rows["labels"]), arguments, teacher)
        return fitting.Fit(model, 1.0, 0.5)

    monkeypatch.setattr(fitting, "fit", fit)
    monkeypatch.setattr(ladder, "int8_accuracy", lambda *_: 0.5)
    monkeypatch.setattr(ladder, "all_labels", lambda ids: [int(row_id) % 2 for row_id in ids])
    for rung in (*ladder.WHAT_HELPS, *ladder.STATES):
        row, _ = ladder.run_rung(replace(rung, layers=1, texts=rung.texts and 10), kit, seed=0)
        assert row["steps"] == 8 * kit.recipe.epochs
        assert np.isnan(row["int8_accuracy"])  # measured for what one would deploy only
    rows = {name: (count, labelled) for name, (count, labelled, _, _) in seen.items()}
    assert rows["labels only"] == rows["+ teacher's layers"] == rows["+ logits on labelled rows"] == (40, 40)
    assert rows["+ logits on 2,000 texts"] == (50, 40)
    assert rows["+ logits on all texts"] == (64, 40)
    assert rows["all 8,070 labels, no teacher"] == rows["all 8,070 labels + logits"] == (64, 64)
    batch = DataCollatorWithPadding(kit.tokenizer)([seen_rows["all 8,070 labels, no teacher"][i] for i in (50, 51)])
    assert batch["labels"].tolist() == [0, 1], "withheld labels that come back must reach the model"
    alphas = {name: arguments.alpha for name, (_, _, arguments, _) in seen.items()}
    assert alphas["labels only"] == alphas["all 8,070 labels, no teacher"] == 1.0
    assert alphas["+ logits on all texts"] == 0.0
    assert seen["+ PKD"][3] is kit.teacher
    assert seen["+ logits on all texts"][3] is None


def test_a_student_comes_from_the_cache_the_second_time(kit, monkeypatch):
    rung = ladder.Rung("tiny", layers=1, epochs=1)
    first = ladder.student(kit, rung)
    monkeypatch.setattr(ladder, "run_rung", lambda *_: pytest.fail("trained again"))
    again = ladder.student(kit, rung)
    # near, not equal: the two attention kernels round differently; half precision would be 100 times further off
    assert np.abs(kit.logits(first, "test") - kit.logits(again, "test")).max() < 1e-5


def test_an_interrupted_ladder_goes_on_where_it_stopped(kit, tmp_path, monkeypatch):
    asked = []

    def run_rung(rung, kit, seed):
        asked.append((rung.name, seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        row = ladder.teacher_row(kit, seed) | {"rung": rung.name, "layers": rung.layers}
        return row, None

    monkeypatch.setattr(ladder, "run_rung", run_rung)
    monkeypatch.setattr(ladder, "estimate_minutes", lambda rungs: 1.0)
    monkeypatch.setattr(workshop, "prepare", lambda seed: kit)
    with pytest.raises(KeyboardInterrupt):
        ladder.climb(["sizes"], 2, tmp_path / "runs.csv")
    assert len(ladder.read(tmp_path / "runs.csv")) == 3, "the teacher and two students"
    runs = ladder.climb(["sizes"], 2, tmp_path / "runs.csv")
    assert len(asked) == 7, "one was asked for twice"
    assert len(runs) == 8
    assert ladder.summary(runs).loc["2 layers", "count"] == 2
    assert not runs.duplicated(["rung", "seed"]).any()


def test_right_rows_survive_the_file():
    right = np.random.default_rng(0).random(1000) < 0.8
    assert np.array_equal(ladder.unpack(ladder.pack(right)), right)


def made_up_runs(difference):
    import pandas as pd

    draw, rows = np.random.default_rng(1), []
    for seed in (1, 2, 3):
        base = draw.random(1000) < 0.75
        better = base | (draw.random(1000) < difference)
        rows += [{"rung": name, "seed": seed, "right": ladder.pack(r)} for name, r in (("a", better), ("b", base))]
    return pd.DataFrame(rows)


def test_rungs_are_compared_row_by_row_over_seeds():
    gain = ladder.paired_over_seeds(made_up_runs(0.2), "a", "b")
    assert gain.interval95[0] > 0.02
    assert "is better than" in gain.text
    same = ladder.paired_over_seeds(made_up_runs(0.0), "a", "b")
    assert same.difference == 0
    assert "no evidence of a difference" in same.text
    with pytest.raises(UserError, match="no seed has both"):
        ladder.paired_over_seeds(made_up_runs(0.0), "a", "c")


def test_a_file_that_is_no_ladder_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column rung"):
        ladder.read(tmp_path / "x.csv")


def test_search_keeps_every_trial_and_cuts_the_depth_that_was_asked_for(kit, monkeypatch):
    depths = []
    cut = models.student_from_layers
    monkeypatch.setattr(
        models, "student_from_layers", lambda parent, layers: depths.append(len(layers)) or cut(parent, layers)
    )

    def space(trial):
        return {
            "alpha": trial.suggest_float("alpha", 0.0, 1.0),
            "temperature": trial.suggest_float("temperature", 1.0, 8.0),
            "layers": trial.suggest_int("layers", 1, 2),
        }

    study = search.search(kit, kit.splits["train"], kit.splits["validation"], space, trials=4)
    table = search.table(study)
    assert len(table) == 4
    assert table["accuracy"].is_monotonic_decreasing
    assert {trial.params["layers"] for trial in study.trials} == set(depths) == {1, 2}
