"""`python -m kdhelpers benchmark`: which models of which runs, on which rows, and a table that fits a terminal."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict

from kdhelpers import data, deployment, models
from kdhelpers.__main__ import main
from tests.tiny import save_model, teachable_rows, tiny_tokenizer, trained_tiny_teacher

NAMES = ["negative", "positive"]
QUICK = ["--threads", "1", "--sentences", "10"]


def make_run(folder, names=NAMES, seed=0, teacher=None):
    """A run's folder, as `distill` leaves it, whose teacher and student know `teachable_rows` by these names."""
    model = models.set_labels(trained_tiny_teacher(), names)
    save_model(folder / "student", model, tiny_tokenizer())
    if teacher is None:
        teacher = str(shutil.copytree(folder / "student", folder.with_name(f"{folder.name}-teacher")))
    (folder / "metrics.json").write_text(json.dumps({"teacher": {"model": teacher}}))
    rows = teachable_rows(40, seed)
    table = {"text": [row["text"] for row in rows], "label": [names[row["label"]] for row in rows]}
    pd.DataFrame(table).to_csv(folder / "predictions.csv", index_label="id")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    return make_run(home / "ours", NAMES, 1), make_run(home / "theirs", ["bad", "good"], 2)


def benchmark(*arguments, capsys):
    """The exit code, and what was printed."""
    code = main(["benchmark", *map(str, arguments), *QUICK])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_two_runs_keep_their_own_models_and_are_scored_on_their_own_rows(runs, tmp_path, capsys):
    code, said, _ = benchmark(*runs, "--output", tmp_path / "out.json", capsys=capsys)
    assert code == 0
    timed = json.loads((tmp_path / "out.json").read_text())["models"]
    assert [model["name"] for model in timed] == ["ours/teacher", "ours/student", "theirs/teacher", "theirs/student"]
    assert min(model["accuracy"] for model in timed) > 0.9
    for run in runs:
        assert f"40 rows, {run / 'predictions.csv'}" in said


def test_one_run_keeps_its_plain_names_and_what_is_named_twice_is_timed_once(runs, tmp_path, capsys):
    code, *_ = benchmark(runs[0], runs[0] / "student", "--output", tmp_path / "out.json", capsys=capsys)
    assert code == 0
    assert [model["name"] for model in json.loads((tmp_path / "out.json").read_text())["models"]] == [
        "teacher", "student",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_with_int8_students_and_no_teacher_in_int8_is_told_how_to_make_one(tmp_path, capsys):
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other")
    small = models.cut_layers(trained_tiny_teacher(), 1)
    save_model(run / "student", models.set_labels(small, NAMES), tiny_tokenizer())
    export = ["export", str(run), "--format", "onnx-int8", "--accept-changes"]
    assert main([*export, "--output", str(run / "int8")]) == 0
    _, said, _ = benchmark(run, other, capsys=capsys)
    (line,) = [line for line in said.splitlines() if line.startswith("No int8 model has")]
    assert line.startswith("No int8 model has run/teacher's size")
    command = line.partition("python -m kdhelpers ")[2].split()
    assert main([*command, "--accept-changes"]) == 0
    code, said, _ = benchmark(run, other, capsys=capsys)
    assert (code, "No int8 model has" in said) == (0, False)
    assert "teacher-int8" in said


def test_a_baseline_is_fitted_on_labelled_rows_and_timed_beside_the_models(runs, tmp_path, capsys):
    train = tmp_path / "train.csv"
    rows = teachable_rows(60, 5)
    table = {"text": [row["text"] for row in rows], "label": [NAMES[row["label"]] for row in rows]}
    pd.DataFrame(table).to_csv(train, index=False)
    code, said, _ = benchmark(runs[0], "--baseline", train, "--output", tmp_path / "out.json", capsys=capsys)
    assert code == 0
    timed = json.loads((tmp_path / "out.json").read_text())["models"]
    assert [model["name"] for model in timed] == ["teacher", "student", "TF-IDF"]
    assert timed[-1]["accuracy"] > 0.8
    assert timed[-1]["kind"] == "scikit-learn"
    assert "accuracy of TF-IDF: on 40 rows" in said.lower().replace("tf-idf", "TF-IDF")
    train.write_text("text,label\nfine,good\n")
    code, _, said = benchmark(runs[0], "--baseline", train, capsys=capsys)
    assert code == 2
    assert "does not know the label 'good'" in said


def answers_file(path, names=NAMES):
    """A teacher's probabilities for texts of its own, in a file as `distill --teacher-answers` takes it."""
    rows = {row["text"]: row["label"] for row in teachable_rows(80, 6)}
    shares = {name: [0.1 + 0.8 * (label == i) for label in rows.values()] for i, name in enumerate(names)}
    table = {"text": list(rows)} | shares
    pd.DataFrame(table).to_csv(path, index=False)
    return path


def test_a_baseline_is_fitted_on_a_teachers_answers_too(runs, tmp_path, capsys):
    path, out = answers_file(tmp_path / "answers.csv", NAMES), tmp_path / "out.json"
    code, said, _ = benchmark(runs[0], "--baseline-answers", path, "--output", out, capsys=capsys)
    assert code == 0
    timed = json.loads(out.read_text())["models"]
    assert [model["name"] for model in timed] == ["teacher", "student", "TF-IDF taught"]
    assert timed[-1]["accuracy"] > 0.8
    assert "TF-IDF taught: on 40 rows" in said
    turned = answers_file(tmp_path / "turned.csv", NAMES[::-1])
    assert benchmark(runs[0], "--baseline-answers", turned, "--output", out, capsys=capsys)[0] == 0
    assert json.loads(out.read_text())["models"][-1]["accuracy"] < 0.2, "each column counts by its name"
    others = answers_file(tmp_path / "others.csv", ["cat", "dog"])
    code, _, problem = benchmark(runs[0], "--baseline-answers", others, capsys=capsys)
    assert code == 2
    assert "answers for the classes cat, dog" in problem


@pytest.mark.slow
def test_teacher_int8_static_and_baselines_stand_in_one_table(tmp_path, capsys):
    """All that notebook 11 draws: the teacher in PyTorch first, its int8, a static student for numpy, bags of words."""
    run, static = make_run(tmp_path / "run"), tmp_path / "static" / "student"
    parent = models.load_classifier(str(run / "student"), None).model
    student = models.static_student(parent)
    torch.nn.init.normal_(student.classifier.weight)
    save_model(static, student, tiny_tokenizer())
    any_change = ["--accept-changes", "--overwrite"]
    assert main(["export", str(run), "--teacher", "--format", "onnx-int8", *any_change]) == 0
    assert main(["export", str(static), "--format", "numpy", *any_change, "--output", str(run / "numpy")]) == 0
    train = rows_file(tmp_path, NAMES)
    more = ["--baseline", train, "--baseline-answers", answers_file(tmp_path / "answers.csv")]
    code, said, _ = benchmark(run, *more, "--output", tmp_path / "out.json", capsys=capsys)
    assert code == 0
    timed = {model["name"]: model for model in json.loads((tmp_path / "out.json").read_text())["models"]}
    assert {name: model["kind"] for name, model in timed.items()} == {
        "teacher": "PyTorch fp32", "student": "PyTorch fp32", "numpy": "numpy fp32", "teacher-onnx-int8": "ONNX int8",
        "TF-IDF": "scikit-learn", "TF-IDF taught": "scikit-learn",
    }  # fmt: skip
    assert next(iter(timed)) == "teacher"
    assert timed["teacher"]["faster"] == timed["teacher"]["smaller"] == 1
    assert timed["numpy"]["smaller"] > 1
    for name in timed:
        assert f"ccuracy of {name}: on 40 rows" in said


def test_runs_of_the_same_name_are_told_apart(tmp_path, capsys):
    for home in ("monday", "tuesday"):
        make_run(tmp_path / home / "run")
    code, said, _ = benchmark(tmp_path / "monday" / "run", tmp_path / "tuesday" / "run", capsys=capsys)
    assert code == 0
    for name in ("monday/run/teacher", "tuesday/run/student"):
        assert name in said


@pytest.mark.parametrize("teacher", ["/opt/ml/input/data/teacher", "/root/.cache/kdhelpers/teachers/abc"])
def test_a_run_brought_home_is_timed_without_its_teacher(teacher, tmp_path, capsys):
    code, said, _ = benchmark(make_run(tmp_path / "run", teacher=teacher), capsys=capsys)
    assert code == 0
    assert [line for line in said.splitlines() if "left out" in line and teacher in line]
    assert "student" in said


def test_a_missing_model_that_was_named_is_an_error(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "student")
    for named in (run, tmp_path / "teacher"):
        code, _, problem = benchmark(named, capsys=capsys)
        assert code == 2
        assert problem.count("\n") == 1


@pytest.fixture
def snippets(monkeypatch):
    """The default recipe's rows, without a download."""
    part = Dataset.from_dict({"text": ["a lovely film", "an awful plot"] * 10, "label": [1, 0] * 10})
    monkeypatch.setattr(data, "movie_snippets", lambda: data.Rows(DatasetDict(test=part), NAMES))


def test_a_lone_model_is_scored_on_movie_snippets_only_aloud(snippets, tmp_path, capsys):
    folder = save_model(tmp_path / "model", models.set_labels(trained_tiny_teacher(), NAMES), tiny_tokenizer())
    code, said, _ = benchmark(folder, capsys=capsys)
    assert code == 0
    assert "movie snippets" in said


def test_a_lone_model_with_other_labels_is_not_scored_on_movie_snippets(snippets, tmp_path, capsys):
    folder = save_model(tmp_path / "model", models.set_labels(trained_tiny_teacher(), ["0", "1"]), tiny_tokenizer())
    code, said, problem = benchmark(folder, capsys=capsys)
    assert code == 2
    assert "--rows" in problem
    assert " 0.0%" not in said


def rows_file(folder, names):
    path = folder / "rows.csv"
    pd.DataFrame([{"text": row["text"], "label": names[row["label"]]} for row in teachable_rows(30)]).to_csv(path)
    return path


def test_rows_that_are_named_count_for_every_model(runs, tmp_path, capsys):
    path = rows_file(tmp_path, ["NEGATIVE", "Positive"])
    code, said, _ = benchmark(runs[0], "--rows", path, capsys=capsys)
    assert code == 0
    assert said.count(f"30 rows, {path}") == 2
    assert " 0.0%" not in said
    code, _, problem = benchmark(*runs, "--rows", path, capsys=capsys)
    assert code == 2
    assert "bad, good" in problem
    code, _, problem = benchmark(runs[0], "--rows", rows_file(tmp_path, ["0", "1"]), capsys=capsys)
    assert code == 2
    assert "'1'" in problem or "'0'" in problem


def test_a_row_without_a_label_is_refused_with_its_line(runs, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("text,label\ngood,positive\nbad,\n")
    code, _, problem = benchmark(runs[0], "--rows", tmp_path / "rows.csv", capsys=capsys)
    assert code == 2
    assert "line 3" in problem


def test_tables_fit_110_columns_whatever_the_folders_are_called(tmp_path, capsys):
    run = make_run(tmp_path / ("a-run-with-a-name-that-goes-on-" * 2))
    other = make_run(tmp_path / "b")
    code, said, _ = benchmark(run, other, "--price", "0.1", "--figure", tmp_path / "out.png", capsys=capsys)
    assert code == 0
    tables = said[said.index("parameters") : said.index("One sentence")]
    assert max(len(line.rstrip()) for line in tables.splitlines()) <= 110
    for word in ("p95 ms", "PyTorch fp32", "a million", "$"):
        assert word in said
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_the_json_has_the_keys_that_it_always_had(runs, tmp_path, capsys):
    benchmark(runs[0], "--output", tmp_path / "out.json", capsys=capsys)
    facts = json.loads((tmp_path / "out.json").read_text())
    assert set(facts) >= {"threads", "sentences", "models"}
    assert set(facts["models"][0]) == {
        "name", "kind", "megabytes", "parameters", "accuracy", "p50_ms", "p95_ms", "with_tokeniser_p50_ms",
        "sentences_per_second", "faster", "faster_interval95", "smaller",
    }  # fmt: skip


def test_former_names_still_lead_somewhere(runs, capsys):
    code, said, _ = benchmark("inference", runs[0], capsys=capsys)
    assert code == 0
    assert "benchmark MODEL" in said
    assert main(["benchmark", "training", "--rows", "10"]) == 2
    assert "python -m tests.tools.benchmark_training" in capsys.readouterr().err


def test_mistakes_end_in_one_sentence(runs, tmp_path, capsys):
    (tmp_path / "metrics.json").write_text(json.dumps({"runs": []}))
    for command, sign in (
        ([tmp_path / "none"], "no model folder"),
        ([runs[0], "--threads", "0"], "--threads"),
        ([models.EMBEDDED_BACKBONE], "no classification head"),
        ([runs[0], "--rows", "none.csv"], "no file none.csv"),
        ([runs[0], "--price", "0"], "price"),
        ([tmp_path], "seed-42"),
    ):
        assert main(["benchmark", *QUICK, *map(str, command)]) == 2
        said = capsys.readouterr().err
        assert sign in said
        assert said.count("\n") == 1


def test_damaged_metrics_are_one_sentence(runs, tmp_path, capsys):
    shutil.copytree(runs[0], tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text('{"teacher": ')
    code, _, problem = benchmark(tmp_path / "run", capsys=capsys)
    assert code == 2
    assert "metrics.json" in problem
    assert problem.count("\n") == 1


def test_openvino_stands_behind_the_onnx_export_that_it_reads(runs, tmp_path, monkeypatch, capsys):
    asked = []

    def beside(folder, texts, threads, name):
        asked.append((folder, texts))
        return [replace(deployment.load_runner(folder, threads), name=f"{name} OV", kind="OpenVINO int8")]

    monkeypatch.setattr(deployment, "openvino_runners", beside)
    texts = tmp_path / "texts.txt"
    texts.write_text("one text\nanother\n")
    code, _, said = benchmark(runs[0], "--openvino", texts, capsys=capsys)
    assert code == 2
    assert "none is here: export RUN --format onnx" in said
    student = tmp_path / "onnx"
    deployment.export(str(runs[0]), student, "onnx")
    code, _, _ = benchmark(runs[0], student, "--openvino", texts, "--output", tmp_path / "out.json", capsys=capsys)
    assert code == 0
    timed = json.loads((tmp_path / "out.json").read_text())["models"]
    assert [model["name"] for model in timed] == ["teacher", "student", "onnx", "onnx OV"]
    assert asked == [(str(student), ["one text", "another"])]
