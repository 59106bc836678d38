"""The search for settings, on tiny models."""

from kdhelpers import experiments, models


def space(trial):
    return {
        "alpha": trial.suggest_float("alpha", 0.0, 1.0),
        "temperature": trial.suggest_float("temperature", 1.0, 8.0),
        "layers": trial.suggest_int("layers", 1, 2),
    }


def test_a_search_keeps_every_trial_and_cuts_the_depth_that_was_asked_for(kit, monkeypatch, capsys):
    depths, cut = [], models.cut_layers
    monkeypatch.setattr(models, "cut_layers", lambda parent, keep: depths.append(keep) or cut(parent, keep))
    study = experiments.search(kit, kit.splits["train"], kit.splits["validation"], space, trials=4)
    assert capsys.readouterr().out.startswith("each trial, where the space says nothing else: 8 steps on 64 rows;")
    table = experiments.search_table(study)
    assert len(table) == 4
    assert table["accuracy"].is_monotonic_decreasing
    assert table["alpha"].between(0, 1).all()
    assert table["alpha"].nunique() == 4
    assert {trial.params["layers"] for trial in study.trials} == set(depths) == {1, 2}


def test_a_search_without_a_depth_takes_the_recipes(kit, monkeypatch):
    depths, cut = [], models.cut_layers
    monkeypatch.setattr(models, "cut_layers", lambda parent, keep: depths.append(keep) or cut(parent, keep))
    flat = {"alpha": 0.5}
    experiments.search(kit, kit.splits["train"], kit.splits["validation"], lambda trial: flat, trials=1)
    assert set(depths) == {kit.settings.student_layers}
