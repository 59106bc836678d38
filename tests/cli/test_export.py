"""`python -m kdhelpers export`: from a run's folder to an ONNX folder beside its student."""

import csv
import json

import numpy as np
import pytest

from kdhelpers import deployment, models
from kdhelpers.__main__ import main
from kdhelpers.cli import export
from kdhelpers.distillation import prepare
from tests.runs import bare, command, files, settings, spoken  # noqa: F401
from tests.tiny import save_model, teachable_rows, tiny_tokenizer, trained_tiny_teacher

NAMES = ["negative", "positive"]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    model = models.set_labels(trained_tiny_teacher(), NAMES)
    return save_model(tmp_path_factory.mktemp("run") / "student", model, tiny_tokenizer())


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of `deployment.export`, which is not run."""
    calls = []

    def export(*arguments):
        calls.append(arguments)
        facts = {"changed_predictions": 0, "compared_texts": 1, "largest_logit_difference": 0.0}
        return facts | {"bytes": 1, "vocabulary": 1, "labels": NAMES, "max_length": 64, "pairs": False}

    monkeypatch.setattr(deployment, "export", export)
    return calls


def test_a_runs_folder_means_its_student_and_its_test_rows(student, capsys):
    run = student.parent
    (run / "metrics.json").write_text(json.dumps({"teacher": {"model": "nowhere"}}))
    rows = [
        {"id": str(i), "text": row["text"], "label": NAMES[row["label"]]} for i, row in enumerate(teachable_rows(30))
    ]
    with open(run / "predictions.csv", "w", newline="") as file:
        table = csv.DictWriter(file, ["id", "text", "label"])
        table.writeheader()
        table.writerows(rows)
    assert main(["export", str(run), "--format", "onnx-int8"]) == 0
    said = capsys.readouterr().out
    assert "on 30 texts" in said
    assert "negative, positive" in said
    assert f"{run}/student-onnx-int8/predict.py" in said
    assert (run / "student-onnx-int8" / "model.onnx").is_file()
    texts = tuple(row["text"] for row in rows)
    assert np.isfinite(deployment.exported_logits(run / "student-onnx-int8", texts)).all()


def test_texts_to_compare_on_and_to_trim_for_come_from_files(student, tmp_path, asked):
    (tmp_path / "texts.txt").write_text("a lovely film\nthe plot was dull\n")
    (tmp_path / "rows.csv").write_text("satz\nein film\n")
    command = ["export", str(student), "--output", str(tmp_path / "out"), "--accept-changes", "0.2"]
    assert main([*command, "--rows", str(tmp_path / "rows.csv"), "--text-column", "satz"]) == 0
    assert main([*command, "--vocabulary-of", str(tmp_path / "texts.txt")]) == 0
    (_, _, _, texts, _, share), (*_, vocabulary_of, _) = asked
    assert texts == ["ein film"]
    assert vocabulary_of == ["a lovely film", "the plot was dull"]
    assert share == 0.2


def test_accept_changes_without_a_number_accepts_any(student, tmp_path, asked):
    assert main(["export", str(student), "--output", str(tmp_path / "out"), "--accept-changes"]) == 0
    assert asked[0][-1] == 1.0


def test_a_hub_student_is_exported_into_the_folder_where_one_is(asked):
    assert main(["export", "someone/some-model"]) == 0
    assert str(asked[0][1]) == "student-onnx"


def test_a_page_is_made_of_the_int8_student_and_the_command_says_what_it_needs(student, tmp_path, monkeypatch, capsys):
    calls = []

    def export_web(*arguments):
        calls.append(arguments)
        facts = {"changed_predictions": 1, "compared_texts": 2, "largest_logit_difference": 0.1, "bytes": 5_000_000}
        facts |= {"labels": NAMES, "max_length": 64, "page_bytes": 50_000_000, "vocabulary": 9}
        facts |= {"javascript_bytes": 15_000_000, "single_file_bytes": 30_000_000}
        return facts | {"libraries": arguments[-1], "no_npm": "" if arguments[-1] == "npm" else "npm is not installed"}

    monkeypatch.setattr(deployment, "export_web", export_web)
    (tmp_path / "texts.txt").write_text("a lovely film\nthe plot was dull\n")
    command = ["export", str(student), "--format", "web", "--rows", str(tmp_path / "texts.txt")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert calls[0][1:3] == (student.parent / "student-web", ["a lovely film", "the plot was dull"])
    for part in (
        "50.0 MB, of which the student 5.0",
        "JavaScript 15.0",
        "one file, 30.0",
        "needs no network",
        "student.html",
        "http.server",
        "--rows",
    ):
        assert part in said
    assert main([*command, "--libraries", "cdn", "--output", str(tmp_path / "web")]) == 0
    assert "cdn.jsdelivr.net, whenever it is opened (npm is not installed)" in capsys.readouterr().out


def test_of_a_static_student_the_page_is_one_file_and_the_command_says_so(tmp_path, capsys):
    static = models.static_student(trained_tiny_teacher())
    folder = save_model(tmp_path / "static", models.set_labels(static, NAMES), tiny_tokenizer())
    assert main(["export", str(folder), "--format", "web", "--output", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    for part in (f"{tmp_path / 'page'}/index.html: 0.0 MB, all in one file", "0 predictions changed", "no library"):
        assert part in said


def test_mistakes_end_in_one_sentence(student, tmp_path, capsys):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "letter.txt").write_text("dear")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "metrics.json").write_text(json.dumps({"runs": []}))
    out = ["--output", str(tmp_path / "x")]
    for arguments, sign in (
        ([str(student), "--format", "onyx", *out], "onnx, onnx-int8, onnx-int8-weights, numpy, web, folder"),
        ([str(tmp_path / "nowhere"), *out], "no model folder"),
        ([str(student), "--output", str(tmp_path / "kept")], "--overwrite"),
        ([str(student), "--output", str(tmp_path / "kept"), "--overwrite"], "no export"),
        ([models.EMBEDDED_BACKBONE, *out], "no classification head"),
        ([str(tmp_path / "seeds")], "seed-42"),
        ([str(student), *out, "--accept-changes", "7"], "between 0 and 1"),
        ([str(student), *out, "--rows", "none.csv"], "no file none.csv"),
        ([str(student), *out, "--format", "web", "--libraries", "elsewhere"], "npm, cdn"),
    ):
        assert main(["export", *arguments]) == 2
        said = capsys.readouterr().err
        assert sign in said
        assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "kept" / "letter.txt").is_file()


def test_a_runs_teacher_is_exported_beside_its_student(student, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps({"teacher": {"model": str(student)}}))
    assert main(["export", str(run), "--teacher"]) == 0
    assert (run / "teacher-onnx" / "model.onnx").is_file()
    capsys.readouterr()
    (run / "metrics.json").write_text(json.dumps({"teacher": {"model": None}}))
    for given in (run, student):
        assert main(["export", str(given), "--teacher"]) == 2
        assert "whose teacher is a model" in capsys.readouterr().err


def test_of_several_teachers_none_is_exported_in_the_name_of_all(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps({"teacher": {"model": "a", "models": ["a", "b"]}}))
    assert main(["export", str(run), "--teacher"]) == 2
    assert "the mean of 2 models" in capsys.readouterr().err


def test_a_fine_tuned_teacher_travels_as_a_folder(files, bare, tmp_path, monkeypatch, spoken, capsys):  # noqa: F811
    """Trained on one machine, given to another whose cache is empty: the same answers, and nothing is trained."""
    monkeypatch.setenv("KD_HOME", str(tmp_path / "here"))
    given = {"accept_teacher": "true", "controls": "none"}
    assert main(command(files, bare, tmp_path / "run", **given)) == 0
    there = prepare(settings(files, bare, tmp_path / "x", accept_teacher=True))
    folder = tmp_path / "fine-tuned"
    assert main(["export", str(tmp_path / "run"), "--teacher", "--format", "folder", "--output", str(folder)]) == 0
    assert f"--teacher {folder}" in capsys.readouterr().out
    monkeypatch.setenv("KD_HOME", str(tmp_path / "elsewhere"))
    spoken()
    here = prepare(settings(files, folder, tmp_path / "x", accept_teacher=True))
    said = spoken()
    assert f"{folder} is used as it is" in said
    assert "training for" not in said
    assert here.teacher_came_trained
    assert not (tmp_path / "elsewhere" / "teachers").exists()
    for split in ("validation", "test"):
        np.testing.assert_array_equal(here.teacher_logits(split), there.teacher_logits(split))
    assert here.splits["train"]["teacher_logits"][:] == there.splits["train"]["teacher_logits"][:]


def test_a_label_with_a_comma_is_quoted_and_one_prediction_is_no_predictions(capsys):
    facts = {"changed_predictions": 1, "compared_texts": 2, "largest_logit_difference": 0.0, "max_length": 64}
    export.report(facts | {"labels": ["bad", "good, or better"]})
    said = capsys.readouterr().out
    assert "labels bad, 'good, or better', texts" in said
    assert "1 prediction changed" in said


def test_a_model_replaces_a_model_and_nothing_else(student, tmp_path, capsys):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "letter.txt").write_text("dear")
    export = ["export", str(student), "--format", "folder", "--overwrite", "--output"]
    for _ in range(2):
        assert main([*export, str(tmp_path / "model")]) == 0
    assert "labels negative, positive, texts of up to 64 tokens" in capsys.readouterr().out
    assert main([*export, str(tmp_path / "kept")]) == 2
    assert "holds files that are no model" in capsys.readouterr().err
    assert (tmp_path / "kept" / "letter.txt").is_file()
