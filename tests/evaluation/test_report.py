"""What a run leaves to read."""

import numpy as np
import pytest

from kdhelpers import evaluation


@pytest.fixture
def metrics():
    def model(parameters, accuracy):
        return {
            "parameters": parameters,
            "layers": 3,
            "test_accuracy": accuracy,
            "test_interval95": (accuracy - 0.02, accuracy + 0.02),
            "test_ece": 0.07,
            "test_agreement": 0.9,
            "validation_accuracy": accuracy,
            "train_seconds": 10.0,
        }

    return {
        "rows": {"labelled": 2000, "unlabelled": 6000, "validation": 1000, "test": 1000},
        "test_rows": "test",
        "recipe": "movie-snippets",
        "seed": 42,
        "alpha": 0.0,
        "max_length": 128,
        "teacher": model(22_713_986, 0.84),
        "control": model(17_390_594, 0.79),
        "student": model(17_390_594, 0.83) | {"teacher_logits_seconds": 12.0},
        "verdict": {"text": "the student is better"},
    }


def test_the_table_says_what_was_measured(metrics, tmp_path):
    text = "\n".join(evaluation.result_lines(metrics, tmp_path))
    for wanted in (
        "22,713,986",
        "83.0 %",
        "81.0 to 85.0",
        "8,000 texts",
        "7.0 %",
        "90.0 %",
        "98.8 %",
        "Verdict: the student",
    ):
        assert wanted in text


def test_every_line_fits_a_terminal_of_100_columns(metrics):
    metrics["verdict"]["text"] = "short"
    for name in ("baseline", "taught_baseline", "second_control", "hard_answers"):
        metrics[name] = metrics["control"]
    lines = "\n".join(evaluation.result_lines(metrics, "runs/x")).splitlines()
    assert max(map(len, lines)) <= 100
    heads = [" ".join(line.split()) for line in lines if line.endswith(("student", "taught baseline"))]
    wanted = ["teacher control second control hard answers student", "baseline taught baseline"]
    assert heads == wanted, "no model stands alone below the others"


def test_what_a_model_learnt_from_is_said_as_it_was(metrics):
    def said(**changes):
        lines = evaluation.result_lines(metrics | changes, "runs/x")
        (line,) = (line for line in "\n".join(lines).splitlines() if line.startswith("learnt from"))
        return line.split("  ")

    assert said(alpha=0.5)[-1] == "2,000 labels, 8,000 texts"
    assert [part.strip() for part in said(alpha=1) if part][1:] == ["2,000 labels"] * 3
    metrics["teacher"] |= {"train_seconds": 0.0, "model": "some/where"}
    assert "came trained" in " ".join(said())
    metrics["teacher"] |= {"model": None}
    assert "(its answers)" in " ".join(said()), "of a file or a function nobody knows what it has learnt"


def test_a_run_without_labels_shows_what_it_can(metrics):
    for name in ("teacher", "student"):
        metrics[name] = {key: value for key, value in metrics[name].items() if key not in ("test_accuracy", "test_ece")}
        del metrics[name]["test_interval95"]
    del metrics["control"], metrics["verdict"]
    text = "\n".join(evaluation.result_lines(metrics, "runs/x"))
    assert "90.0 %" in text
    assert "accuracy" not in text
    assert "without a control" in text


def test_the_table_over_seeds_shows_spread_and_one_verdict(metrics):
    import pandas as pd

    runs = [metrics | {"seed": seed} for seed in (42, 43, 44)]
    rows = pd.DataFrame({"label": ["a", "b"] * 50, "student": ["a", "b"] * 50, "control": ["a", "a"] * 50})
    summary = evaluation.over_seeds(runs, [rows] * 3)
    text = "\n".join(evaluation.seeds_lines(summary, "runs/x"))
    assert "standard deviation" in text
    assert "3 seeds (+50.0, +50.0, +50.0)" in " ".join(text.split())
    assert text.count("Verdict") == 1


def test_the_model_card_has_data_numbers_verdict_and_limits(metrics, tmp_path):
    evaluation.write_model_card(tmp_path / "README.md", metrics, ["negative", "positive"])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    for wanted in ("negative, positive", "6,000 unlabelled", "83.0 %", "the student is better", "128 tokens"):
        assert wanted in text, wanted
    del metrics["verdict"]
    evaluation.write_model_card(tmp_path / "README.md", metrics, ["negative", "positive"])
    assert "without a control" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_predictions_hold_names_and_the_students_probability(tmp_path):
    import pandas as pd
    from datasets import Dataset

    test = Dataset.from_dict({"id": ["1", "2"], "text": ["x", "y"], "labels": [0, 1]})
    logits = {"teacher": np.array([[2.0, 0], [0, 2.0]]), "student": np.array([[0.0, 0.0], [0, np.log(3)]])}
    evaluation.write_predictions(tmp_path / "p.csv", test, logits, ["bad", "good"])
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["teacher"].tolist() == table["label"].tolist() == ["bad", "good"]
    assert table["probability"].tolist() == [0.5, 0.75]
