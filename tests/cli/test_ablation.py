"""`python -m kdhelpers ablation` on the recorded runs: nothing is trained."""

import shutil
from pathlib import Path

import pytest

from kdhelpers import experiments
from kdhelpers.__main__ import main

RECORDED = Path(experiments.__file__).with_name("ablation.csv")


@pytest.fixture
def runs(tmp_path):
    return str(shutil.copy(RECORDED, tmp_path / "runs.csv"))


def test_a_complete_file_is_printed_and_trains_nothing(runs, capsys):
    assert main(["ablation", "--output", runs]) == 0
    said = capsys.readouterr().out
    assert "0 of 51 students" in said
    runs_of = experiments.recorded()
    for name in experiments.of_main_groups(runs_of)["variant"].unique():
        assert name in said
    assert [line.split()[-1] for line in said.splitlines() if line.startswith(("TF-IDF ", "6 layers "))] == [
        "82.1",
        "85.2",
    ]
    assert "MPNet itself: 91.4" in said
    row = next(line for line in said.splitlines() if line.startswith("+ logits on all texts"))
    assert row.split()[-5:] == ["83.3", "1.0", "99.2", "3", "3"], "mean, spread, of the teacher, layers, seeds"
    assert Path(runs).read_bytes() == RECORDED.read_bytes()


def test_a_group_that_is_asked_for_is_printed_with_its_teacher(runs, capsys):
    assert main(["ablation", "--groups", "settings", "--output", runs]) == 0
    said = capsys.readouterr().out.partition("settings: mean accuracy")[2]
    row = next(line for line in said.splitlines() if line.startswith("labels, learning rate 0.0001, dropout 0.1"))
    assert row.split()[-4::3] == ["78.9", "3"], "validation, seeds"
    assert "teacher of settings" in said


def test_the_former_name_still_works_and_says_the_new_one(runs, capsys):
    assert main(["ladder", "--output", runs]) == 0
    captured = capsys.readouterr()
    assert "+ logits on all texts" in captured.out
    assert "ablation" in captured.err


def test_the_figure_is_drawn_where_it_is_asked_for(runs, tmp_path):
    assert main(["ablation", "--output", runs, "--figure", str(tmp_path / "ablation.png")]) == 0
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--groups", "helps", "nothing"], "no group 'nothing'"),
        (["--seeds", "0"], "not 0"),
        (["--seed", "3"], "did you mean --seeds?"),
        (["--seeds", "three"], "three"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_a_sentence(options, words, capsys):
    assert main(["ablation", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_file_that_is_no_ablations_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    assert main(["ablation", "--output", str(tmp_path / "mine.csv")]) == 2
    assert "is not an ablation's file" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"
