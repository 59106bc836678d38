"""`distill`: whole runs, options read strictly, and bad input as one sentence and exit code 2."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdhelpers import models
from kdhelpers.__main__ import main
from kdhelpers.cli.parsing import read_options
from kdhelpers.distillation import pipeline, prepared, training
from kdhelpers.settings import settings_from
from tests.tiny import save_model, teachable_rows, tiny_bert, tiny_tokenizer, trained_tiny_teacher

FAST = ["--epochs", "1", "--batch_size", "16", "--precision", "fp32"]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """train.csv (a third of it unlabelled), validation.csv and test.csv of the task that tiny models can learn."""
    folder = tmp_path_factory.mktemp("files")
    seen = set()
    for seed, (name, n) in enumerate((("train", 240), ("validation", 80), ("test", 80))):
        rows = [row for row in teachable_rows(4 * n, seed=seed) if row["text"] not in seen]
        rows = list({row["text"]: row for row in rows}.values())[:n]
        seen |= {row["text"] for row in rows}
        frame = pd.DataFrame(
            {"sentence": [r["text"] for r in rows], "label": [["bad", "good"][r["label"]] for r in rows]}
        )
        if name == "train":
            frame.loc[160:, "label"] = ""
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """A folder with a tiny fine-tuned teacher whose labels are named."""
    folder = tmp_path_factory.mktemp("teacher")
    model = models.set_labels(trained_tiny_teacher(), ["bad", "good"])
    return save_model(folder, model, tiny_tokenizer())


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_HOME", str(tmp_path / "kd"))


def own_rows(files, teacher, output, *more):
    command = ["distill", "--text-column", "sentence", "--label-column", "label", "--teacher", str(teacher)]
    for name in ("train", "validation", "test"):
        command += [f"--{name}", str(files / f"{name}.csv")]
    given = [*command, "--output", str(output), *FAST]
    for option in more:
        if str(option).startswith("--") and str(option) in given:  # what is named anew takes the place of the usual
            del given[given.index(str(option)) : given.index(str(option)) + 2]
    return [*given, *map(str, more)]


def refused(capsys, command, *words):
    """The command ends with 2, one line on standard error that holds the words, and no traceback."""
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error, error


# --- a whole run


def test_own_rows_end_to_end(files, teacher, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(own_rows(files, teacher, output, "--student-layers", 1, "--alpha", "0.5", "--temperature", "4")) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["rows"] == {"labelled": 160, "unlabelled": 80, "validation": 80, "test": 80}
    assert metrics["student"]["layers"] == 1
    assert set(metrics["verdict"]) >= {"difference", "interval95", "mcnemar_p", "text"}
    assert metrics["verdict"]["text"] in " ".join(printed.split())
    predictions = pd.read_csv(output / "predictions.csv")
    assert list(predictions.columns) == ["id", "text", "label", "teacher", "control", "student", "probability"]
    right = (predictions["label"] == predictions["student"]).mean()
    assert right == pytest.approx(metrics["student"]["test_accuracy"])
    student = models.load_classifier(str(output / "student"), None)
    assert student.has_head
    assert models.num_layers(student.model) == student.model.config.num_hidden_layers == 1
    assert student.model.config.id2label == {0: "bad", 1: "good"}
    assert models.load_tokenizer(str(output / "student")).get_vocab() == tiny_tokenizer().get_vocab()
    assert sorted(path.name for path in output.iterdir()) == [
        "metrics.json",
        "predictions.csv",
        "result.png",
        "run.log",
        "student",
    ]
    assert not Path(f"{output}.incomplete").exists()

    # the control takes as many steps as the student
    log = (output / "run.log").read_text()
    steps = {name: re.search(rf"{name}: training for (\d+) steps", log)[1] for name in ("control", "student")}
    assert steps["control"] == steps["student"] == "15"

    # again: the logits come from the cache; without --overwrite nothing is touched
    before = (output / "metrics.json").read_bytes()
    refused(capsys, own_rows(files, teacher, output, "--student-layers", 1), "already holds a run", "--overwrite")
    assert (output / "metrics.json").read_bytes() == before
    assert main(own_rows(files, teacher, output, "--student-layers", 1, "--overwrite", "--no-control")) == 0
    assert "from the cache" in capsys.readouterr().out
    assert "control" not in json.loads((output / "metrics.json").read_text())


def test_a_bare_encoder_is_fine_tuned_and_kept(files, trained_teacher, tmp_path, capsys):
    encoder = save_model(tmp_path / "encoder", trained_teacher.bert, tiny_tokenizer())
    more = ("--student-layers", 1, "--teacher-epochs", 6, "--teacher-learning-rate", "3e-3", "--no-control")
    assert main(own_rows(files, encoder, tmp_path / "a", *more)) == 0
    assert "is fine-tuned" in capsys.readouterr().out
    assert main(own_rows(files, encoder, tmp_path / "b", *more)) == 0
    assert "teacher: from the cache" in capsys.readouterr().out
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    assert first["teacher"]["test_accuracy"] == second["teacher"]["test_accuracy"]


def test_live_teacher_and_cached_logits_train_the_same_student(files, teacher, tmp_path):
    accuracies = []
    for name, more in (("cached", ()), ("live", ("--live-teacher",))):
        assert main(own_rows(files, teacher, tmp_path / name, "--student-layers", 1, "--no-control", *more)) == 0
        accuracies.append(pd.read_csv(tmp_path / name / "predictions.csv")["student"])
    assert (accuracies[0] == accuracies[1]).mean() > 0.97


def test_seeds_print_mean_and_spread(files, teacher, tmp_path, capsys):
    assert main(own_rows(files, teacher, tmp_path / "run", "--student-layers", 1, "--seeds", 2)) == 0
    summary = json.loads((tmp_path / "run" / "metrics.json").read_text())
    scores = [run["student"]["test_accuracy"] for run in summary["runs"]]
    assert [run["seed"] for run in summary["runs"]] == [42, 43]
    assert summary["mean"]["student"] == pytest.approx(np.mean(scores))
    assert "standard deviation" in capsys.readouterr().out


# --- parsing


def options_of(argv):
    return settings_from(read_options(argv))


def test_misspelt_arguments_suggest_the_right_one(capsys):
    refused(capsys, ["distill", "--temparature", "3"], "--temparature", "did you mean --temperature?")
    refused(capsys, ["distill", "--student-layer=3"], "did you mean --student-layers?")
    refused(capsys, ["distill", "--states", "nonsense"], "one of none, pkd, tinybert, minilm", "nonsense")
    refused(capsys, ["distill", "--weight_decai", "0.1"], "did you mean --weight")
    refused(capsys, ["distill", "--recipe", "movie-snipets"], "did you mean movie-snippets?")
    assert main(["distil"]) == 2
    assert "did you mean distill?" in capsys.readouterr().err


def test_no_abbreviations(capsys):
    refused(capsys, ["distill", "--temp", "3"], "unknown argument --temp")
    settings = options_of(["--output", "here"])
    assert settings.output == Path("here")


@pytest.mark.parametrize(("text", "value"), [("false", False), ("False", False), ("true", True), ("True", True)])
def test_booleans_mean_what_they_say(text, value):
    assert options_of(["--live-teacher", text]).live_teacher is value
    assert options_of(["--train_embeddings", text]).train_embeddings is value


def test_a_boolean_without_a_value_is_true():
    settings = options_of(["--drop-leaks", "--train-embeddings", "--overwrite"])
    assert settings.drop_leaks is settings.train_embeddings is settings.overwrite is True
    assert options_of([]).drop_leaks is False


def test_four_and_four_point_zero_are_temperatures():
    for text in ("4", "4.0"):
        assert options_of(["--temperature", text]).temperature == 4.0


def test_the_articles_hyperparameters_are_understood():
    command = (
        "--teacher_id a/t --student_id a/s --dataset_id nyu-mll/glue --dataset_config sst2 --alpha 0.5 --temperature 3"
    )
    recipe = options_of(["--recipe", "sst2", *command.split()])
    assert (recipe.teacher, recipe.student, recipe.dataset_config) == ("a/t", "a/s", "sst2")
    assert (recipe.alpha, recipe.temperature) == (0.5, 3.0)


def test_training_arguments_can_be_given_by_their_own_name():
    options = options_of(["--weight_decay", "0.01", "--gradient-accumulation-steps", "2"]).trainer_options
    assert options == {"weight_decay": 0.01, "gradient_accumulation_steps": 2}


def test_help_names_every_option(capsys):
    assert main(["distill", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--recipe", "--student-layers", "--temperature", "--live-teacher", "--overwrite", "--resume"):
        assert option in text


def test_nothing_is_chosen_on_the_rows_that_are_reported(files, teacher, tmp_path, monkeypatch):
    """Every model of a run, searched for or not, is chosen by `fit`; it must never see a test row."""
    chosen_on = []
    fit = prepared.fit

    def watch(model, how):
        chosen_on.append((set(how.rows["text"]), set(how.validation["text"])))
        return fit(model, how)

    monkeypatch.setattr(prepared, "fit", watch)
    assert main(own_rows(files, teacher, tmp_path / "run", "--student-layers", 1)) == 0
    reported = set(pd.read_csv(tmp_path / "run" / "predictions.csv")["text"])
    assert len(chosen_on) == 2, "control and student"
    for learnt_from, chosen in chosen_on:
        assert not reported & (learnt_from | chosen)
        assert not learnt_from & chosen


# --- bad input, before anything is trained


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--alpha", "1.5"], ["alpha", "1.5"]),
        (["--temperature", "0"], ["temperature", "0"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["--batch_size", "-1"], ["batch size", "-1"]),
        (["--precision", "int4"], ["precision", "int4"]),
        (["--student-layers", "9"], ["9 layers", "model of 2"]),
        (["--seeds", "0"], ["seeds"]),
        (["--alpha", "much"], ["alpha"]),
        (["--train", "none.csv"], ["no file none.csv"]),
        (["--text-column", "body"], ["no column 'body'", "sentence, label"]),
        (["--teacher", "./nowhere"], ["no model folder at ./nowhere"]),
    ],
)
def test_bad_values_stop_the_run(files, teacher, tmp_path, capsys, more, words):
    cut = [] if "--student-layers" in more else ["--student-layers", "1"]
    refused(capsys, own_rows(files, teacher, tmp_path / "run", *cut, *more), *words)
    assert not (tmp_path / "run").exists()


def test_output_that_cannot_be_written(files, teacher, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    refused(capsys, own_rows(files, teacher, tmp_path / "file" / "run", "--student-layers", 1), "cannot write to")


def test_a_folder_of_other_things_is_never_replaced(files, teacher, tmp_path, capsys):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    command = own_rows(files, teacher, tmp_path / "home", "--student-layers", 1, "--overwrite")
    refused(capsys, command, "not a run")
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_leaking_rows_stop_the_run(files, teacher, tmp_path, capsys):
    frame = pd.concat([pd.read_csv(files / "train.csv"), pd.read_csv(files / "test.csv").head(2)])
    frame.to_csv(tmp_path / "leaky.csv", index=False)
    command = own_rows(files, teacher, tmp_path / "run", "--student-layers", 1, "--train", tmp_path / "leaky.csv")
    refused(capsys, command, "2 train rows are in test too", "--drop-leaks")
    assert main([*command, "--drop-leaks", "--no-control"]) == 0
    assert "2 train rows" in capsys.readouterr().out


# --- two tokenizers


def another_tokenizer():
    tokens = sorted(p for p in tiny_tokenizer().get_vocab() if p.isalpha() and len(p) > 2)
    return models.swap_tokens(tiny_tokenizer(), tokens[0], tokens[-1])


def test_a_live_teacher_needs_the_students_tokenizer(files, teacher, tmp_path, capsys):
    student = save_model(
        tmp_path / "student", models.set_labels(tiny_bert(layers=1), ["bad", "good"]), another_tokenizer()
    )
    command = own_rows(files, teacher, tmp_path / "run", "--student", student, "--live-teacher")
    refused(capsys, command, "tokenizer", "2 of", "another id")


def test_a_column_of_answers_needs_no_common_tokenizer(files, teacher, tmp_path, capsys):
    student = save_model(
        tmp_path / "student", models.set_labels(tiny_bert(layers=1), ["bad", "good"]), another_tokenizer()
    )
    assert main(own_rows(files, teacher, tmp_path / "run", "--student", student, "--no-control")) == 0
    assert "different tokenizers" in capsys.readouterr().out
    kept = models.load_tokenizer(str(tmp_path / "run" / "student"))
    assert kept.get_vocab() == another_tokenizer().get_vocab()


# --- teachers that load without a word


def test_another_number_of_labels(files, tmp_path, capsys):
    teacher = save_model(tmp_path / "t", tiny_bert(labels=3), tiny_tokenizer())
    refused(
        capsys, own_rows(files, teacher, tmp_path / "run", "--student-layers", 1), "LABEL_2", "number must be the same"
    )


def test_swapped_names_are_seen_in_the_scores(trained_teacher, files, tmp_path, capsys):
    swapped = models.set_labels(trained_teacher, ["good", "bad"])
    teacher = save_model(tmp_path / "t", swapped, tiny_tokenizer())
    command = own_rows(files, teacher, tmp_path / "run", "--student-layers", 1)
    refused(capsys, command, "look swapped", "id2label")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_guesses_stops_the_run(files, tmp_path, capsys):
    teacher = save_model(tmp_path / "t", models.set_labels(tiny_bert(), ["bad", "good"]), tiny_tokenizer())
    refused(capsys, own_rows(files, teacher, tmp_path / "run", "--student-layers", 1), "guessing")


def test_damaged_weights_stop_the_run(files, teacher, tmp_path, capsys):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(teacher, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    refused(capsys, own_rows(files, broken, tmp_path / "run", "--student-layers", 1), "damaged", "broken")


# --- secrets, interruption, full disk


def test_no_secret_reaches_the_output(files, teacher, tmp_path, monkeypatch):
    token = "hf_" + "x" * 30
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(own_rows(files, teacher, tmp_path / "run", "--student-layers", 1, "--no-control")) == 0
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


def test_ctrl_c_keeps_checkpoints_and_resume_ends_as_if_unbroken(files, teacher, tmp_path, capsys):
    def command(output, *more):
        return own_rows(files, teacher, output, "--student-layers", "1", "--epochs", "8", *more)

    # a real signal in a real process, sent the moment the student's first checkpoint is whole
    press = (
        "import os, signal, sys; from kdhelpers import __main__; from kdhelpers.distillation import training; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background job ignores it
        "training.EpochLines.on_save = lambda lines, *_, **__: "
        "os.kill(os.getpid(), signal.SIGINT) if lines.name == 'student' else None; "
        "sys.exit(__main__.main(sys.argv[1:]))"
    )
    process = subprocess.run([sys.executable, "-c", press, *command(tmp_path / "cut")], capture_output=True, text=True)
    error = process.stderr
    assert process.returncode == 130, error
    (folder,) = (tmp_path / "cut.incomplete" / "checkpoints").iterdir()
    assert training.last_whole_checkpoint(folder / "student")
    assert "Traceback" not in error
    assert "--resume" in error
    assert not (tmp_path / "cut").exists()
    assert main(command(tmp_path / "cut", "--resume")) == 0
    printed = capsys.readouterr().out
    assert "student: going on from checkpoint" in printed
    assert "control: already trained" in printed
    assert main(command(tmp_path / "whole")) == 0
    cut, whole = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("cut", "whole"))
    for name in ("teacher", "control", "student"):
        assert cut[name]["test_accuracy"] == whole[name]["test_accuracy"]


def test_resume_needs_the_same_settings(files, teacher, tmp_path, capsys, monkeypatch):
    refused(capsys, own_rows(files, teacher, tmp_path / "run", "--student-layers", 1, "--resume"), "nothing to resume")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train_both", stop)
    assert main(own_rows(files, teacher, tmp_path / "run", "--student-layers", 1)) == 130
    assert "--resume" in capsys.readouterr().err
    command = own_rows(files, teacher, tmp_path / "run", "--student-layers", 1, "--resume", "--alpha", "0.9")
    refused(capsys, command, "other settings")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB, where this machine lets us mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_the_earlier_run_stays(files, teacher, small_disk, capsys):
    earlier = small_disk / "run"
    earlier.mkdir()
    (earlier / "metrics.json").write_text('{"earlier": true}')
    refused(capsys, own_rows(files, teacher, earlier, "--student-layers", 2, "--overwrite"), "disk is full", "--resume")
    assert json.loads((earlier / "metrics.json").read_text()) == {"earlier": True}


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["export", "x", "--formt", "onnx"], "--format"),
        (["ablation", "--sedes", "1"], "--seeds"),
        (["benchmark", "x", "--prise", "1"], "--price"),
        (["doctor", "--prepair"], "--prepare"),
        (["sagemaker", "clean", "--regiom", "x"], "--region"),
    ],
)
def test_every_command_suggests(capsys, command, word):
    refused(capsys, command, f"did you mean {word}?")
