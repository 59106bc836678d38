"""The exercises' checks: three answers, and a message of its own for each mistake that readers make."""

import nbformat
import numpy as np
import pytest
import torch.nn.functional as F

from kdhelpers import check, data, evaluation, latency
from tests.test_notebooks import NOTEBOOKS, code_cells, tags


def differ(first, second, texts):
    return [t for t in texts if first(t)["input_ids"] != second(t)["input_ids"]]


def loss(swapped=False, squared=True):
    def function(student, teacher, labels, alpha, temperature):
        hard = F.cross_entropy(student, labels)
        soft = F.kl_div(
            F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1), reduction="batchmean"
        )
        soft = soft * (temperature**2 if squared else 1)
        return (1 - alpha) * hard + alpha * soft if swapped else alpha * hard + (1 - alpha) * soft

    return function


def wrong_way_round(student, teacher, labels, alpha, temperature):
    hard = F.cross_entropy(student, labels)
    soft = F.kl_div(
        F.log_softmax(teacher / temperature, -1), F.softmax(student / temperature, -1), reduction="batchmean"
    )
    return alpha * hard + (1 - alpha) * temperature**2 * soft


def space(high=0.25, log=True, ranged=True):
    def function(trial):
        return {
            "alpha": trial.suggest_float("alpha", 0.0, high),
            "temperature": trial.suggest_float("temperature", 2.0, 6.0),
            "layers": trial.suggest_int("layers", 2, 3) if ranged else trial.suggest_categorical("layers", [2, 3]),
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 6e-4, log=log),
        }

    return function


def padded_to_longest_of_all(lengths, batch_size):
    return 1 - sum(lengths) / (max(lengths) * len(lengths))


TABLE, STUDENT, TEACHER = 30522 * 384, 17_390_594, 22_713_986
LIVE = "--train train.csv --student-layers 4 --temperature 4 --live-teacher"
DOLLARS, SPENT = (50 * latency.dollars_per_million(ms, 0.2) for ms in (11.4, 0.6))
P = evaluation.mcnemar_p(np.arange(44) < 30, np.arange(44) >= 30)
# check: (right answer, then wrong ones, each with a word of its message)
EXERCISES = {
    "embedding_share": (TABLE / STUDENT, [(100 * TABLE / STUDENT, "percentage"), (TABLE / TEACHER, "of the teacher")]),
    "read_differently": (differ, [(lambda a, b, t: [], "not found"), (lambda a, b, t: t, "token_type_ids")]),
    "padding_share": (
        data.padding_share,
        [(padded_to_longest_of_all, "longest of all"), (lambda *a: 1 - data.padding_share(*a), "that is text")],
    ),
    "calibration_gap": (
        lambda confidence, correct: confidence.mean() - correct.mean(),
        [
            (lambda confidence, correct: correct.mean() - confidence.mean(), "sign"),
            (lambda confidence, correct: confidence.mean(), "0.25"),
        ],
    ),
    "distillation_loss": (
        loss(),
        [
            (loss(swapped=True), "changed places"),
            (loss(squared=False), "T^2 is missing"),
            (loss(swapped=True, squared=False), "both mistakes"),
            (lambda student, teacher, *rest: loss()(teacher, student, *rest), "expected"),
            (wrong_way_round, "the teacher is the target"),
        ],
    ),
    "mcnemar": (P, [(P / 2, "one direction"), (0.5, "too large")]),
    "search_space": (
        space(),
        [
            (space(high=1.0), "alpha goes from 0 to 1"),
            (space(log=False), "log=True"),
            (space(ranged=False), "suggest_int"),
        ],
    ),
    "dollars_saved": (
        DOLLARS,
        [(DOLLARS / 50, "fifty"), (SPENT, "student costs"), (DOLLARS * 2, "too large")],
    ),
    "distill_command": (
        LIVE,
        [(LIVE.replace(" --live-teacher", ""), "cache"), (LIVE.replace("temperature 4", "temperature 2"), "not 4")],
    ),
}


@pytest.mark.parametrize("name", EXERCISES)
def test_three_answers(name, capsys):
    right, wrong = EXERCISES[name]
    judge = getattr(check, name)
    judge(...)
    assert capsys.readouterr().out.startswith("not attempted")
    judge(right)
    assert capsys.readouterr().out == "passed\n"
    messages = []
    for answer, sign in wrong:
        judge(answer)
        messages.append(capsys.readouterr().out)
        assert messages[-1].startswith("not yet")
        assert sign in messages[-1]
    assert len(set(messages)) == len(wrong) >= 2


@pytest.mark.parametrize("name", EXERCISES)
def test_an_answer_that_raises_is_told_so(name, capsys):
    def careless(*_):
        raise KeyError("nothing here")

    getattr(check, name)(careless)
    assert capsys.readouterr().out.startswith("not yet: ")


def test_every_exercise_of_the_series_is_tested_here():
    used = {
        call.split("(")[0]
        for path in NOTEBOOKS
        for cell in code_cells(nbformat.read(path, as_version=4))
        if "solution" in tags(cell)
        for call in cell.source.split("kd.check.")[1:]
    }
    assert used
    assert used <= {*EXERCISES, "spot_plan"}, "that one is tested with the rest of notebook 08, in test_sagemaker.py"
