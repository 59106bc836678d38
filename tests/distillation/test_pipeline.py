"""Whole runs on tiny models: what they learn from, what they leave, and how they go on after an interruption."""

import dataclasses
import json
import os
import re
import shutil
import stat
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import set_seed

from kdhelpers import evaluation, models, storage
from kdhelpers.data import TEACHER_LOGITS, UNLABELLED
from kdhelpers.distillation import Answers, distill, fit, pipeline, prepare, prepared
from kdhelpers.distillation.prepared import train_teacher
from kdhelpers.errors import UserError
from tests.runs import bare, files, own_cache, settings, spoken, teacher  # noqa: F401  (fixtures)
from tests.tiny import save_model, tiny_bert, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def no_picture(monkeypatch):
    """For runs of which nobody looks at result.png: drawing it takes a quarter of their time."""
    monkeypatch.setattr(evaluation, "draw_result", lambda metrics, path: path.touch())


def read(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


# --- what a run leaves


def test_what_a_run_leaves_is_json_whatever_its_figures_are(tmp_path):
    pipeline._written({"share": float("inf"), "each": (float("nan"), 0.5)}, tmp_path)
    assert read(tmp_path) == {"share": None, "each": [None, 0.5]}


def test_a_run_leaves_what_it_says(files, teacher, tmp_path):  # noqa: F811
    output = tmp_path / "run"
    old = os.umask(0o022)
    try:
        metrics = distill(settings(files, teacher, output, alpha=0.5, max_length=12))
    finally:
        os.umask(old)
    wanted = ["metrics.json", "predictions.csv", "result.png", "run.log", "student"]
    assert sorted(path.name for path in output.iterdir()) == wanted
    assert not storage.incomplete(output).exists()
    assert read(output) == json.loads(json.dumps(metrics))
    assert metrics["rows"] == {"labelled": 160, "unlabelled": 80, "validation": 80, "test": 80}
    predictions = pd.read_csv(output / "predictions.csv")
    names = ["baseline", "taught_baseline", "teacher", "control", "second_control", "student"]
    columns = ["id", "text", "label", *names, "probability"]
    assert list(predictions.columns) == columns
    assert predictions["probability"].between(0.5, 1).all()
    assert (predictions["label"] == predictions["student"]).mean() == pytest.approx(metrics["student"]["test_accuracy"])
    student = models.load_classifier(str(output / "student"), None)
    assert student.has_head
    assert models.num_layers(student.model) == student.model.config.num_hidden_layers == 1
    assert student.model.config.id2label == {0: "bad", 1: "good"}
    tokenizer = models.load_tokenizer(str(output / "student"))
    assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    assert tokenizer.model_max_length == metrics["max_length"] == 12, "what it was trained at is what it is served at"
    card = " ".join((output / "student" / "README.md").read_text(encoding="utf-8").split())
    assert metrics["verdict"]["text"] in card
    assert metrics["two_controls"]["text"] in card
    for path in [output, *output.rglob("*"), *(tmp_path / "kd").rglob("*")]:
        open_to_all = 0o755 if path.is_dir() else 0o644
        if not path.name.endswith(".lock"):
            assert stat.S_IMODE(path.stat().st_mode) == open_to_all, path


@pytest.mark.usefixtures("no_picture")
def test_the_control_takes_as_many_steps_and_starts_where_the_teacher_did(files, teacher, tmp_path):  # noqa: F811
    distill(settings(files, teacher, tmp_path / "run"))
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    trained = re.findall(r"(\w+): training for (\d+) steps", log)
    assert trained == [("control", "15"), ("second_control", "15"), ("student", "15")]


@pytest.mark.usefixtures("no_picture")
def test_a_second_control_differs_in_its_seed_and_several_seeds_need_none(files, teacher, tmp_path):  # noqa: F811
    metrics = distill(settings(files, teacher, tmp_path / "run"))
    assert "a control with another seed" in metrics["two_controls"]["text"]
    several = distill(settings(files, teacher, tmp_path / "several", seeds=2))
    assert all("second_control" not in run for run in several["runs"])
    assert list(several["two_controls"]["by_seed"]) == [42]


def test_a_control_has_a_learning_rate_and_a_dropout_of_its_own(files, teacher, tmp_path):  # noqa: F811
    own = settings(files, teacher, tmp_path / "run", control_learning_rate=1e-5, control_dropout=0.3, dropout=0.0)
    plans = {name: how[0].settings for name, how in pipeline.planned(prepare(own), tmp_path).items()}
    assert [(plan.learning_rate, plan.dropout) for plan in plans.values()] == [
        (1e-5, 0.3), (1e-5, 0.3), (own.learning_rate, 0.0)
    ]  # fmt: skip
    assert [plan.seed for plan in plans.values()] == [42, 43, 42]
    control = prepared.build_control(dataclasses.replace(prepare(own), settings=plans["control"]))
    assert control.dropout.p == 0.3


def test_over_seeds_answers_are_compared_as_they_are_written(files, teacher, tmp_path):  # noqa: F811
    """A column of "0" alone is no column of numbers where the labels are "0" and "1+"."""
    labels = np.tile(["0", "1+"], 20)
    for seed, said in ((42, np.full(40, "0")), (43, labels)):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        scores = {name: {"test_accuracy": float((said == labels).mean())} for name in ("student", "control")}
        (folder / "metrics.json").write_text(json.dumps({"seed": seed, "recipe": "files", **scores}))
        pd.DataFrame({"label": labels, "student": said, "control": said}).to_csv(
            folder / "predictions.csv", index=False
        )
    summary = pipeline._several_runs(settings(files, teacher, tmp_path / "run", seeds=2), tmp_path, None)
    assert summary["two_controls"]["difference"] == 0.5, "right on every other row"


def test_a_teacher_with_its_labels_listed_in_another_order_keeps_their_names(files, teacher, tmp_path):  # noqa: F811
    for name in ("train", "validation", "test"):
        table = pd.read_csv(files / f"{name}.csv", keep_default_na=False)
        table.replace({"label": {"bad": "0", "good": "1"}}).to_csv(tmp_path / f"{name}.csv", index=False)
    shutil.copytree(teacher, tmp_path / "listed")
    config = json.loads((teacher / "config.json").read_text())
    names = {"id2label": {"1": "good", "0": "bad"}}
    (tmp_path / "listed" / "config.json").write_text(json.dumps(config | names))
    ready = prepare(settings(tmp_path, tmp_path / "listed", tmp_path / "run"))
    assert ready.label_names == ["bad", "good"]


@pytest.mark.usefixtures("no_picture")
@pytest.mark.slow
def test_several_seeds_make_one_summary_and_replace_all_of_an_earlier_run(files, teacher, tmp_path):  # noqa: F811
    wanted = settings(files, teacher, tmp_path / "run", seeds=2)
    summary = distill(wanted)
    scores = [run["student"]["test_accuracy"] for run in summary["runs"]]
    assert [run["seed"] for run in summary["runs"]] == [42, 43]
    assert summary["mean"]["student"] == pytest.approx(np.mean(scores))
    assert set(summary["verdict"]["by_seed"]) == {42, 43}
    distill(dataclasses.replace(wanted, seeds=1, overwrite=True))
    assert not list((tmp_path / "run").glob("seed-*"))


@pytest.mark.usefixtures("no_picture")
def test_nothing_is_chosen_on_the_rows_that_are_reported(files, teacher, tmp_path, monkeypatch):  # noqa: F811
    """Every model of a run is chosen by `fit`; it must never see a test row."""
    seen = []

    def watch(model, training):
        seen.append((set(training.rows["text"]), set(training.validation["text"])))
        return fit(model, training)

    monkeypatch.setattr(prepared, "fit", watch)
    distill(settings(files, teacher, tmp_path / "run"))
    reported = set(pd.read_csv(tmp_path / "run" / "predictions.csv")["text"])
    assert len(seen) == 3, "two controls and the student"
    for learnt_from, chosen_on in seen:
        assert not reported & (learnt_from | chosen_on)
        assert not learnt_from & chosen_on


# --- the teacher


@pytest.mark.usefixtures("no_picture")
def test_a_bare_encoder_is_fine_tuned_once(files, bare, tmp_path, spoken):  # noqa: F811
    own = {"teacher_epochs": 6, "teacher_learning_rate": 3e-3, "controls": "none"}
    first = distill(settings(files, bare, tmp_path / "a", **own))
    said = spoken()
    assert "is fine-tuned" in said
    assert "made in" in said
    assert "from the cache" not in said, "what was just made did not come from a cache"
    second = distill(settings(files, bare, tmp_path / "b", **own))
    assert spoken().count("from the cache") == 2, "the teacher and its answers"
    assert first["teacher"]["test_accuracy"] == second["teacher"]["test_accuracy"] > 0.9


def test_a_large_teacher_says_before_its_training_how_long_it_takes(files, bare, tmp_path, monkeypatch, spoken):  # noqa: F811
    monkeypatch.setattr(prepared, "fit", lambda model, training: prepared.Fit(model, 0.0, None))
    monkeypatch.setattr(prepared, "load_fit", lambda _: None)
    ready = prepare(settings(files, bare, tmp_path / "run", accept_teacher=True), answers=False)
    spoken()
    for parameters, device, says_so in ((49e6, "cpu", False), (109e6, "cuda", False), (109e6, "cpu", True)):
        monkeypatch.setattr(models, "count_parameters", lambda _, count=parameters: count)
        machine = dataclasses.replace(ready.machine, device=torch.device(device))
        train_teacher(dataclasses.replace(ready, machine=machine), None)
        assert ("109 M parameters" in spoken()) == says_so


def test_a_fine_tuned_teacher_is_never_taken_for_another(files, bare, tmp_path, monkeypatch):  # noqa: F811
    """Its key in the cache follows all that its training depends on."""
    asked = []
    monkeypatch.setattr(prepared, "load_fit", lambda folder: asked.append(folder.name))
    monkeypatch.setattr(prepared, "fit", lambda model, training: prepared.Fit(model, 0.0, None))
    own = settings(files, bare, tmp_path / "run", accept_teacher=True)
    ready = prepare(own, answers=False)
    shorter = {
        name: part.map(lambda row: {"input_ids": row["input_ids"][:4]}) for name, part in ready.teacher_splits.items()
    }
    unlike = [
        dataclasses.replace(ready, machine=dataclasses.replace(ready.machine, processes=2)),
        dataclasses.replace(ready, machine=dataclasses.replace(ready.machine, precision="bf16")),
        dataclasses.replace(ready, teacher_splits=shorter),
    ]
    for change in ({"seed": 7}, {"teacher_epochs": 1}, {"batch_size": 8}, {"warmup": 0.5}):
        unlike.append(dataclasses.replace(ready, settings=dataclasses.replace(own, **change)))
    other = prepare(own, answers=False)
    other.teacher.config.layer_norm_eps = 1e-3
    for one in (*unlike, other):
        train_teacher(one, None)
    assert len(set(asked)) == len(unlike) + 2, asked
    students = {"epochs": 9, "alpha": 0.5, "dropout": 0.3, "learning_rate": 1e-3, "train_embeddings": True}
    train_teacher(dataclasses.replace(ready, settings=dataclasses.replace(own, **students)), None)
    assert asked[-1] == asked[0], "what only students depend on makes no other teacher"


@pytest.mark.usefixtures("no_picture")
def test_live_teacher_and_cached_answers_train_the_same_student(files, teacher, tmp_path):  # noqa: F811
    said = []
    for name, live in (("cached", False), ("live", True)):
        distill(settings(files, teacher, tmp_path / name, controls="none", live_teacher=live))
        said.append(pd.read_csv(tmp_path / name / "predictions.csv"))
    assert (said[0]["student"] == said[1]["student"]).mean() > 0.97
    assert np.abs(said[0]["probability"] - said[1]["probability"]).max() < 0.02


@pytest.mark.usefixtures("no_picture")
def test_a_teacher_with_another_tokenizer_teaches_through_the_column(files, teacher, tmp_path, spoken):  # noqa: F811
    """Each reads every text with its own tokenizer; only what is fed one batch of ids has to share one."""
    set_seed(0)
    student = save_model(tmp_path / "student", tiny_model("roberta"), tiny_tokenizer("bpe"))
    own = {"student": student, "epochs": 8, "learning_rate": 5e-3, "train_embeddings": True, "controls": "none"}
    wanted = settings(files, teacher, tmp_path / "run", **own)
    ready = prepare(wanted)
    assert "each reads every text with its own" in spoken()
    assert ready.splits["train"]["input_ids"][:] != ready.teacher_splits["train"]["input_ids"][:]
    answers = np.array(ready.splits["train"][TEACHER_LOGITS][:])
    np.testing.assert_allclose(answers, ready.logits(ready.teacher, "train"), atol=1e-4)
    metrics = distill(wanted)
    assert metrics["teacher"]["test_accuracy"] > 0.95
    assert metrics["student"]["test_agreement"] > 0.9, "it has learnt from a column that its teacher read otherwise"
    for needs in ({"live_teacher": True}, {"hidden_states": "pkd"}):
        with pytest.raises(UserError, match="tokenizer"):
            prepare(dataclasses.replace(wanted, **needs))


def test_a_teacher_whose_names_are_swapped_or_that_guesses_stops_the_run(files, teacher, tmp_path):  # noqa: F811
    swapped = models.load_classifier(str(teacher), None).model
    folder = save_model(tmp_path / "swapped", models.set_labels(swapped, ["good", "bad"]), tiny_tokenizer())
    with pytest.raises(UserError, match="look swapped.*id2label"):
        prepare(settings(files, folder, tmp_path / "run"))
    guesses = models.set_labels(tiny_bert(), ["bad", "good"])
    guesses.classifier.weight.data.zero_()  # one class, whatever the text
    folder = save_model(tmp_path / "guess", guesses, tiny_tokenizer())
    with pytest.raises(UserError, match="guessing.*--accept-teacher"):
        prepare(settings(files, folder, tmp_path / "run"))
    assert prepare(settings(files, folder, tmp_path / "run", accept_teacher=True)).teacher


# --- refused before anything is trained


WIDER = {"student": "WIDER", "hidden_states": "pkd"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"student_layers": 9}, "9 layers"),
        (WIDER, "hidden_size is 64 and 32"),
        ({"lr_scheduler_kwargs": '{"nonsense": 1}'}, "cannot begin.*lr_scheduler_kwargs"),
        ({"student": "LABELS"}, "number must be the same"),
        ({"student": "NUMBER"}, "the student is for number .regression, 1 outputs."),
    ],
)
def test_what_can_be_known_before_is_refused_before(files, bare, tmp_path, monkeypatch, more, words):  # noqa: F811
    """Before the teacher's training, too: that one alone takes minutes."""
    make = {
        "WIDER": lambda: tiny_bert(hidden=64, layers=1),
        "LABELS": lambda: tiny_bert(labels=3, layers=1),
        "NUMBER": lambda: tiny_bert(labels=1, layers=1),
    }
    if more.get("student") in make:
        more = more | {"student": save_model(tmp_path / "student", make[more["student"]](), tiny_tokenizer())}
    monkeypatch.setattr(prepared, "fit", lambda *_: pytest.fail("a training began"))
    with pytest.raises(UserError, match=words):
        distill(settings(files, bare, tmp_path / "run", **more))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("answered", [False, True])
def test_a_look_trains_nothing_and_asks_nobody(files, bare, tmp_path, monkeypatch, answered):  # noqa: F811
    """It tokenises some of the training rows, and all that anything is measured on."""
    monkeypatch.setattr(prepared, "fit", lambda *_: pytest.fail("a training began"))
    asked = Answers("a service", lambda *_: pytest.fail("it was asked")) if answered else None
    more = {"student": str(bare)} if answered else {}
    seen = prepared.look(settings(files, bare, tmp_path / "run", **more), asked, most=60)
    assert {name: len(part) for name, part in seen.splits.items()} == {"train": 60, "validation": 80, "test": 80}
    assert "input_ids" in seen.splits["train"].column_names
    assert TEACHER_LOGITS not in seen.splits["train"].column_names
    with pytest.raises(UserError, match="9 layers"):
        prepared.look(settings(files, bare, tmp_path / "run", **more, student_layers=9), asked)


def test_a_teacher_that_learnt_nothing_is_refused_with_the_number_of_its_labels(files, tmp_path):  # noqa: F811
    untrained = save_model(tmp_path / "bare", tiny_bert().bert, tiny_tokenizer())
    words = "the teacher, fine-tuned on 160 labels, is not shown to be better than guessing"
    with pytest.raises(UserError, match=words):
        prepare(settings(files, untrained, tmp_path / "run", teacher_learning_rate=1e-12, teacher_epochs=1))


def test_two_runs_cannot_write_to_one_folder(files, teacher, tmp_path):  # noqa: F811
    wanted = settings(files, teacher, tmp_path / "run")
    with storage.locked(wanted.output), pytest.raises(UserError, match="another run is writing"):
        distill(wanted)
    assert not storage.incomplete(wanted.output).exists()


# --- interrupted


class Interrupt(Exception):
    """Stands for Ctrl-C, at a known place."""


def interrupted_after(name, wanted, monkeypatch):
    """Run `wanted` and stop it when that model is trained and kept."""
    keep = pipeline.save_fit

    def stop(folder, *args):
        keep(folder, *args)
        if folder.name == name:
            raise Interrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "save_fit", stop)
        with pytest.raises(Interrupt):
            distill(wanted)


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize("lost", [None, "model.safetensors"])
@pytest.mark.slow
def test_a_run_goes_on_where_it_was_and_ends_as_if_unbroken(files, teacher, tmp_path, monkeypatch, spoken, lost):  # noqa: F811
    """Also where a finished control lacks a file: a folder of checkpoints in S3 is sent file by file."""
    whole = distill(settings(files, teacher, tmp_path / "whole"))
    wanted = settings(files, teacher, tmp_path / "cut")
    interrupted_after("control", wanted, monkeypatch)
    if lost:
        (storage.incomplete(wanted.output) / "control" / lost).unlink()
    spoken()
    cut = distill(dataclasses.replace(wanted, resume=True))
    said = spoken()
    assert ("control: already trained" in said) == (lost is None)
    assert ("is made again" in said) == (lost is not None)
    for name in ("teacher", "control", "student"):
        assert cut[name]["test_accuracy"] == whole[name]["test_accuracy"]
        assert cut[name].get("test_ece") == whole[name].get("test_ece")


@pytest.mark.usefixtures("no_picture")
@pytest.mark.slow
def test_checkpoints_of_other_settings_are_neither_used_nor_touched(files, teacher, tmp_path, monkeypatch):  # noqa: F811
    """Run A is stopped; run B, with other settings and the same --checkpoints, is resumed and must be its own."""
    home = tmp_path / "checkpoints"
    first = settings(files, teacher, tmp_path / "a", checkpoints=home, alpha=1.0, learning_rate=3e-3)
    second = settings(files, teacher, tmp_path / "b", checkpoints=home, temperature=1.0)
    interrupted_after("student", first, monkeypatch)
    kept = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    assert kept
    interrupted_after("control", second, monkeypatch)
    resumed = distill(dataclasses.replace(second, resume=True))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    alone = distill(dataclasses.replace(second, output=tmp_path / "alone", checkpoints=None))
    assert resumed["student"] == alone["student"] | {"train_seconds": resumed["student"]["train_seconds"]}
    assert {path for path in home.rglob("*") if path.is_file()} == set(kept), "its own are gone when it is done"


@pytest.mark.usefixtures("no_picture")
def test_a_finished_model_leaves_memory_before_the_next_is_trained(files, teacher, tmp_path, monkeypatch):  # noqa: F811
    train, finished, still_there = pipeline.train_student, [], []

    def watched(own, model, **how):
        still_there.append(sum(reference() is not None for reference in finished))
        finished.append(weakref.ref(model))
        return train(own, model, **how)

    monkeypatch.setattr(pipeline, "train_student", watched)
    distill(settings(files, teacher, tmp_path / "run"))
    assert len(still_there) > 1
    assert set(still_there) == {0}


@pytest.mark.usefixtures("no_picture")
def test_seeds_and_settings_of_another_run_are_never_mixed_in(files, teacher, tmp_path, monkeypatch):  # noqa: F811
    wanted = settings(files, teacher, tmp_path / "run", seeds=2)
    score = pipeline.score

    def stop(ready, *args):
        if ready.settings.seed == 43:
            raise Interrupt
        return score(ready, *args)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "score", stop)
        with pytest.raises(Interrupt):
            distill(wanted)
    with pytest.raises(UserError, match="other settings"):
        distill(dataclasses.replace(wanted, resume=True, temperature=7.0))
    summary = distill(dataclasses.replace(wanted, resume=True))
    assert [run["seed"] for run in summary["runs"]] == [42, 43]


@pytest.mark.parametrize("changed", ["train.csv", "teacher"])
def test_what_a_run_reads_may_not_change_under_it(files, teacher, tmp_path, monkeypatch, changed):  # noqa: F811
    for path in files.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = models.load_classifier(str(teacher), None).model
    own = save_model(tmp_path / "teacher", model, tiny_tokenizer())
    wanted = settings(tmp_path, own, tmp_path / "run")
    interrupted_after("control", wanted, monkeypatch)
    if changed == "teacher":
        with torch.no_grad():
            model.classifier.bias += 0.1
        save_model(own, model, tiny_tokenizer())
    else:
        lines = (tmp_path / changed).read_text().splitlines()
        (tmp_path / changed).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match="other settings"):
        distill(dataclasses.replace(wanted, resume=True))


@pytest.mark.slow
def test_no_secret_is_written_down(files, teacher, tmp_path, monkeypatch):  # noqa: F811
    """Neither in the finished run nor in what an interruption leaves, checkpoints included."""
    secret = "hf_" + "x" * 30
    monkeypatch.setenv("HF_TOKEN", secret)
    wanted = settings(files, teacher, tmp_path / "run", hub_token=secret, checkpoints=tmp_path / "checkpoints")
    interrupted_after("student", wanted, monkeypatch)
    assert list((tmp_path / "checkpoints").rglob("training_args.bin"))
    distill(dataclasses.replace(wanted, output=tmp_path / "done", checkpoints=None))
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


# --- without labels


@pytest.mark.usefixtures("no_picture")
def test_a_trained_teacher_needs_no_labelled_row(files, teacher, tmp_path, spoken):  # noqa: F811
    for name in ("train", "test", "validation"):
        table = pd.read_csv(files / f"{name}.csv")
        table["label"] = ""
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    for rows in ("labelled test rows", "none"):
        if rows == "none":
            own = tmp_path
        else:
            own = tmp_path / "few"
            own.mkdir()
            for name in ("validation", "test"):
                (own / f"{name}.csv").write_bytes((files / f"{name}.csv").read_bytes())
            (own / "train.csv").write_bytes((tmp_path / "train.csv").read_bytes())
        metrics = distill(settings(own, teacher, tmp_path / rows, epochs=4))
        assert "no control, for want of labels" in spoken()
        assert metrics["student"]["test_agreement"] > 0.9
        assert "control" not in metrics
        assert ("test_accuracy" in metrics["student"]) == (rows != "none")
        with pytest.raises(UserError, match="label"):
            distill(settings(own, teacher, tmp_path / "weighed", alpha=0.5))


def test_a_bare_teacher_needs_labels(files, bare, tmp_path):  # noqa: F811
    table = pd.read_csv(files / "train.csv")
    table["label"] = UNLABELLED
    table.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(UserError, match="label"):
        distill(settings(files, bare, tmp_path / "run", train=str(tmp_path / "train.csv")))


def test_a_named_student_of_three_layers_is_cut_to_two_of_its_own(files, teacher, tmp_path):  # noqa: F811
    """--student FOLDER --student-layers 2: nothing comes from the teacher, which has layers of the same shape."""
    torch.manual_seed(7)
    parent = tiny_bert(layers=3).bert
    folder = save_model(tmp_path / "encoder", parent, tiny_tokenizer())
    own = settings(files, teacher, tmp_path / "run", student=str(folder), student_layers=2)
    ready = prepare(own, answers=False)
    for model in (prepared.build_student(ready), prepared.build_control(ready)):
        layers = models.encoder_layers(model)
        assert (len(layers), model.config.num_hidden_layers) == (2, 2)
        pairs = [(model.bert.embeddings, parent.embeddings)]
        pairs += [(layer, parent.encoder.layer[origin]) for layer, origin in zip(layers, (1, 2), strict=True)]
        for ours, origin in pairs:
            for name, weight in origin.state_dict().items():
                torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=0, msg=name)


def test_a_run_knows_its_models_by_all_their_files(files, teacher, tmp_path):  # noqa: F811
    """A pickle or a vocabulary that is replaced makes another model: its run is not resumed."""
    copy = shutil.copytree(teacher, tmp_path / "copy")
    for name in ("pytorch_model.bin", "vocab.txt", "spm.model"):
        (copy / name).write_bytes(b"one")
        before = pipeline.inputs(settings(files, copy, tmp_path / "run"))
        (copy / name).write_bytes(b"two")
        assert pipeline.inputs(settings(files, copy, tmp_path / "run")) != before, name
