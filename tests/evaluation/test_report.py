"""What a run leaves to read."""

import numpy as np
import pandas as pd
import pytest

from kdhelpers import data, evaluation
from kdhelpers.evaluation.report import ABOUT


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


def test_a_single_runs_verdict_says_what_it_compares_and_what_luck_does(metrics):
    metrics |= {kind: {"text": f"the {kind} text"} for kind in ("soft_or_hard", "two_controls")}
    lines = evaluation.result_lines(metrics, "runs/x")
    first = lines.index("Verdict: the student is better.")
    assert lines[first + 1] == "It is about these two models; --seeds 3 is about the two ways of training."
    assert lines[first + 2] == "Soft against hard answers: the soft_or_hard text."
    assert lines[first + 3] == "Luck of the seed: the two_controls text."


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


def of_seeds(metrics, **answers):
    """A summary of seeds 42 to 44 and all of its words; each answer is the share of 100 rows that is right, by seed."""
    runs = [metrics | {"seed": seed} for seed in (42, 43, 44)]
    rows = [
        pd.DataFrame(
            {"label": 1, **{name: np.arange(100) < share for name, share in zip(answers, shares, strict=True)}}
        )
        for shares in zip(*answers.values(), strict=True)
    ]
    summary = evaluation.over_seeds(runs, rows)
    return summary, " ".join("\n".join(evaluation.seeds_lines(summary, "runs/x")).split())


def test_the_table_over_seeds_shows_spread_and_one_verdict(metrics):
    summary, text = of_seeds(metrics, student=(90, 90, 90), control=(40, 40, 40))
    assert "standard deviation" in text
    assert "3 seeds (+50.0, +50.0, +50.0)" in text
    assert text.count("Verdict") == 1
    assert ABOUT not in text
    assert "soft_or_hard" not in summary


def test_over_seeds_each_control_is_compared_with_the_next_seeds(metrics):
    summary, text = of_seeds(metrics, student=(90, 90, 90), control=(40, 46, 43))
    luck = summary["two_controls"]
    assert list(luck["by_seed"].values()) == pytest.approx([0.06, -0.03])
    assert f"Luck of the seed: {luck['text']}." in text
    assert "a control with another seed shows no evidence of a difference from the control without" in luck["text"]


def test_over_seeds_what_every_run_has_is_compared_as_in_a_run(metrics):
    metrics |= dict.fromkeys(("second_control", "hard_answers"), metrics["control"])
    given = {"student": (90, 90, 90), "control": (40, 46, 43), "second_control": (50, 50, 50)}
    summary, text = of_seeds(metrics, **given, hard_answers=(70, 80, 75))
    assert list(summary["two_controls"]["by_seed"].values()) == pytest.approx([0.10, 0.04, 0.07])
    assert "the distilled student is better than the student on hard answers: +15.0 points over 3 seeds" in text
    assert list(summary["soft_or_hard"]["by_seed"].values()) == pytest.approx([0.2, 0.1, 0.15])


def test_of_a_teacher_that_is_never_right_there_is_no_share(metrics):
    metrics["teacher"]["test_accuracy"] = 0.0
    summary, text = of_seeds(metrics, student=(90, 90, 90), control=(40, 40, 40))
    assert summary["share_of_teacher"] is None
    assert "of the teacher's" not in text + "".join(evaluation.result_lines(metrics, "runs/x"))


def test_a_student_that_is_never_right_has_a_share_of_nought(metrics):
    metrics["student"]["test_accuracy"] = 0.0
    assert (
        "The student has 0.0 % of the teacher's accuracy."
        in of_seeds(metrics, student=(0, 0, 0), control=(40, 40, 40))[1]
    )


def test_without_a_control_several_seeds_have_no_verdict(metrics):
    del metrics["control"]
    summary, text = of_seeds(metrics, student=(90, 90, 90))
    assert not {"verdict", "two_controls"} & set(summary)
    assert "Verdict: without a control" in text


def test_the_model_card_has_data_numbers_verdicts_and_limits(metrics, tmp_path):
    metrics["two_controls"] = {"text": "another seed shows nothing"}
    evaluation.write_model_card(tmp_path / "README.md", metrics, ["negative", "positive"])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    for wanted in (
        "`negative`, `positive`", "6,000 unlabelled", "83.0 %", "\nVerdict: the student is better.\n", f"\n{ABOUT}\n",
        "\nLuck of the seed: another seed shows nothing.\n", "128 tokens",
    ):  # fmt: skip
        assert wanted in text, wanted
    del metrics["verdict"], metrics["two_controls"]
    evaluation.write_model_card(tmp_path / "README.md", metrics, ["negative", "positive"])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Verdict: without a control" in text
    assert ABOUT not in text


def test_predictions_hold_names_and_the_students_probability(tmp_path):
    from datasets import Dataset

    test = Dataset.from_dict({"id": ["1", "2"], "text": ["x", "y"], "labels": [0, 1]})
    logits = {"teacher": np.array([[2.0, 0], [0, 2.0]]), "student": np.array([[0.0, 0.0], [0, np.log(3)]])}
    evaluation.write_predictions(tmp_path / "p.csv", test, logits, ["bad", "good"])
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["teacher"].tolist() == table["label"].tolist() == ["bad", "good"]
    assert table["probability"].tolist() == [0.5, 0.75]


def test_a_carriage_return_in_a_text_is_no_new_row_of_the_predictions(tmp_path):
    from datasets import Dataset

    texts = ["one\rtwo", "three", 'a "b", c\nd']
    test = Dataset.from_dict({"id": ["1", "2", "3"], "text": texts, "labels": [0, 1, 1]})
    evaluation.write_predictions(tmp_path / "p.csv", test, {"student": np.eye(3)[:, :2]}, ["bad", "good"])
    assert pd.read_csv(tmp_path / "p.csv")["text"].tolist() == texts
    assert [row["text"] for row in data.read_file(str(tmp_path / "p.csv"), "text", "label")] == texts


def test_the_model_card_shows_names_as_they_are(metrics, tmp_path):
    metrics["student"]["layers"] = 1
    evaluation.write_model_card(tmp_path / "README.md", metrics, ["good, or better", "<script>", "a`b"])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Classes: `good, or better`, `<script>`, `a'b`." in text
    assert "1 layers" not in text
