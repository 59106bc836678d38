"""What a plan says, and what it refuses, long before a machine is paid for."""

import json
from dataclasses import replace

import pytest

from kdhelpers import data
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import JobPlan, gpus, most_expensive, plan_lines
from kdhelpers.sagemaker.plan import channels, container_hyperparameters, plan_problems
from kdhelpers.settings import settings_from
from tests.sagemaker.conftest import with_options

ABOVE = JobPlan({"recipe": "sst2"})  # needs no file and no download


def test_a_plan_says_what_it_costs_at_most():
    lines = "\n".join(plan_lines(replace(ABOVE, max_minutes=30, spot=True, max_wait_minutes=40, tags={"team": "a"})))
    assert "at most 0.71 USD (30 minutes at 1.41 an hour" in lines  # 0.705, and a limit is rounded up
    assert "spot, 40 minutes at most with waiting" in lines
    assert "team=a" in lines
    assert "project=distilling-bert" in lines
    assert "--rows N" in lines
    assert most_expensive(replace(ABOVE, price=1.41)) == 1.41
    assert most_expensive(replace(ABOVE, price=6.0, max_minutes=90)) == 9.0
    unknown = replace(ABOVE, instance="ml.p5.48xlarge")
    assert most_expensive(unknown) is None
    assert "give --price" in "\n".join(plan_lines(unknown))


def test_values_of_the_wrong_kind_are_refused_where_the_plan_is_made():
    assert JobPlan(max_minutes="30", price="2", spot="true").max_minutes == 30
    for wrong in ({"max_minutes": "soon"}, {"max_minutes": 1.5}, {"price": "dear"}, {"spot": "perhaps"}):
        with pytest.raises(UserError):
            JobPlan(**wrong)


FAULTS = {
    "job name": (lambda p: replace(p, name="my_job"), "'my_job' may have small letters"),
    "role": (lambda p: replace(p, role="MyRole"), "'MyRole' is no ARN"),
    "bucket with its scheme": (lambda p: replace(p, bucket="s3://mine"), "no bucket's name"),
    "bucket in capitals": (lambda p: replace(p, bucket="Bad_Bucket"), "no bucket's name"),
    "no time": (lambda p: replace(p, max_minutes=0), "--max-minutes 0"),
    "a month": (lambda p: replace(p, max_minutes=50_000), "--max-minutes 50000"),
    "negative price": (lambda p: replace(p, price=-3), "--price"),
    "no max_wait": (lambda p: replace(p, spot=True), "--max-wait-minutes"),
    "short max_wait": (lambda p: replace(p, spot=True, max_wait_minutes=30), "60 or more"),
    "max_wait without spot": (lambda p: replace(p, max_wait_minutes=90), "only a spot job waits"),
    "no process": (lambda p: replace(p, processes=0), "--processes 0"),
    "two processes on a GPU": (lambda p: replace(p, processes=2), "has 1 GPU"),
    "idle GPUs": (lambda p: replace(p, instance="ml.g5.12xlarge", processes=1), "has 4 GPU"),
    "a GPU that CUDA 13 dropped": (lambda p: replace(p, instance="ml.p3.2xlarge"), "CUDA 13"),
    "quote": (lambda p: with_options(p, text_column="reader's"), "single quote"),
    "secret by name": (lambda p: with_options(p, hub_token="abc"), "looks like a secret"),
    "secret by value": (lambda p: with_options(p, text_column="hf_" + "a" * 30), "looks like a secret"),
    "secret tag": (lambda p: replace(p, tags={"team": "AKIA" + "A" * 16}), "looks like a secret"),
    "secret tag by name": (lambda p: replace(p, tags={"api-key": "x"}), "looks like a secret"),
    "AWS's tag": (lambda p: replace(p, tags={"aws:team": "a"}), "AWS's or this project's"),
    "our tag": (lambda p: replace(p, tags={"Project": "other"}), "AWS's or this project's"),
    "the job's own": (lambda p: with_options(p, output="here"), "not for a job"),
    "the job's own, dashed": (lambda p: with_options(p, seeds=3), "not for a job"),
    "misspelt": (lambda p: with_options(p, temparature=3), "did you mean --temperature?"),
    "given twice": (lambda p: with_options(p, **{"teacher_id": "a/b", "teacher": "a/b"}), "given twice"),
    "alpha": (lambda p: with_options(p, alpha=7), "alpha"),
    "temperature": (lambda p: with_options(p, temperature=-1), "temperature"),
    "precision": (lambda p: with_options(p, precision="fp8"), "precision"),
    "rows": (lambda p: with_options(p, rows=0), "rows"),
    "dropout": (lambda p: with_options(p, dropout=2), "dropout"),
    "a trainer's option": (lambda p: with_options(p, save_strategy="no"), "save_strategy"),
    "stage": (lambda p: replace(p, stage="teach"), "distill, label"),
    "several machines that train": (lambda p: replace(p, instances=2), "one machine"),
    "a label job's idle GPUs": (lambda p: replace(p, stage="label", instance="ml.g5.12xlarge"), "has 4 GPUs"),
    "no rows a shard": (lambda p: replace(p, shard_rows=0), "--shard-rows"),
    "a warm pool for a day": (lambda p: replace(p, keep_alive_minutes=1440), "--keep-alive-minutes 1440"),
    "a warm pool of spot": (
        lambda p: replace(p, spot=True, max_wait_minutes=60, keep_alive_minutes=5),
        "none with --spot",
    ),
    "no disk": (lambda p: replace(p, volume_gb=0), "--volume-gb 0"),
    "subnets alone": (lambda p: replace(p, subnets="subnet-0a"), "go together"),
    "no subnet": (lambda p: replace(p, subnets="mine", security_groups="sg-0a"), "e.g. subnet-"),
    "no tracking server": (lambda p: replace(with_options(p, report_to="mlflow"), mlflow="mine"), "--mlflow mine"),
    "reports to nowhere": (lambda p: with_options(p, report_to="mlflow"), "go together"),
    "reports nothing": (lambda p: replace(p, mlflow="http://127.0.0.1:5000"), "go together"),
    "the token itself": (lambda p: replace(p, hub_secret="hf_" + "a" * 30), "not the token itself"),
    "our variable": (lambda p: replace(p, environment={"KD_HOME": "x"}), "environment KD_HOME"),
    "a quote in a variable": (lambda p: replace(p, environment={"A": "it's"}), "environment A"),
    "a secret variable": (lambda p: replace(p, environment={"HF_TOKEN": "hf"}), "looks like a secret"),
    "no logits": (lambda p: replace(p, logits="nowhere"), "nowhere holds no logits"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_be_refused_later_is_refused_here(fault):
    spoil, words = FAULTS[fault]
    assert plan_problems(ABOVE) == []
    (problem,) = plan_problems(spoil(ABOVE))
    assert words in problem
    assert "\n" not in problem


def test_a_students_layers_and_the_inputs_are_looked_at(plan, tmp_path):
    (tmp_path / "rows").write_text("text,label\n")
    (tmp_path / "empty").mkdir()
    for wrong in (
        {"student_layers": 3},  # the tiny teacher has 2
        {"student-layers": 3, "student": plan.hyperparameters["teacher"]},
        {"teacher": "./nofolder"},
        {"teacher": "runs/x/typo"},
        {"teacher": str(tmp_path / "empty")},
        {"test": "nowhere.csv"},
        {"train": str(tmp_path / "rows")},
        {"train": "s3://bucket/data/train"},
        {"unlabelled": "s3://bucket/corpus/"},
        {"train": "s3://bucket/folder.csv/"},
    ):
        options = {name: value for name, value in plan.hyperparameters.items() if name != "student_layers"}
        assert len(plan_problems(replace(plan, hyperparameters=options | wrong))) == 1, wrong
    assert plan_problems(with_options(plan, student_layers=2)) == []
    assert plan_problems(with_options(plan, unlabelled="s3://bucket/corpus.txt")) == []


def test_text_of_the_package_goes_with_the_job(plan, monkeypatch, tmp_path):
    there = tmp_path / "other_snippets.txt"
    there.write_text("one\n")
    monkeypatch.setitem(data.OF_THE_PACKAGE, "other-snippets", lambda: there)
    named = with_options(plan, unlabelled="other-snippets")
    assert plan_problems(named) == []
    assert channels(named)["unlabelled"] == there
    assert container_hyperparameters(named)["unlabelled"].endswith("/unlabelled/other_snippets.txt")


def test_teacher_and_student_are_folders_whatever_their_names_look_like(plan):
    """The ".5" of a name is no file's ending."""
    there = {"teacher-id": "s3://bucket/minilm-v1.5", "student_id": "s3://bucket/v2.0", "train": "s3://b/v1/Rows.CSV"}
    options = {name: value for name, value in plan.hyperparameters.items() if name not in ("teacher", "train")}
    given = container_hyperparameters(replace(plan, hyperparameters=options | there))
    assert given["teacher"] == "/opt/ml/input/data/teacher"
    assert given["student"] == "/opt/ml/input/data/student"
    assert given["train"] == "/opt/ml/input/data/train/Rows.CSV"
    assert not {"teacher-id", "teacher_id", "student_id"} & set(given), "each option has one name in the container"


def test_answers_travel_as_a_file_and_their_student_as_a_folder(plan, tmp_path):
    (tmp_path / "answers.csv").write_text("text,bad,good\n")
    options = {name: value for name, value in plan.hyperparameters.items() if name not in ("teacher", "student")}
    own = replace(plan, hyperparameters=options | {"teacher_answers": str(tmp_path / "answers.csv")})
    given = container_hyperparameters(own)
    assert given["teacher_answers"] == "/opt/ml/input/data/teacher_answers/answers.csv"
    assert given["student"] == "/opt/ml/input/data/student", "the embedded one, without which there would be none"
    assert "teacher" not in given
    wrong = replace(own, hyperparameters=own.hyperparameters | {"teacher_answers": "answers"})
    assert "--teacher-answers answers" in plan_problems(wrong)[0]


def test_several_teachers_travel_each_in_a_channel_of_its_own(plan):
    local = plan.hyperparameters["teacher"]
    several = replace(plan, hyperparameters=plan.hyperparameters | {"teacher": [local, "owner/name", "s3://b/third"]})
    assert set(channels(several)) >= {"teacher", "teacher3"}
    given = json.loads(container_hyperparameters(several)["teacher"])
    assert given == ["/opt/ml/input/data/teacher", "owner/name", "/opt/ml/input/data/teacher3"]


def test_options_left_open_stay_open():
    assert "student" not in container_hyperparameters(with_options(ABOVE, student=None))


def test_the_default_recipe_downloads_nothing_in_its_container():
    assert set(channels(JobPlan())) == {"teacher", "snippets"}
    assert channels(ABOVE) == {}, "the Hub's stay there"


def test_a_process_for_each_gpu():
    several = {"ml.g5.xlarge": 1, "ml.g5.16xlarge": 1, "ml.g6.12xlarge": 4, "ml.g5.24xlarge": 4, "ml.g5.48xlarge": 8,
               "ml.g7e.12xlarge": 2, "ml.p4d.24xlarge": 8, "ml.p5.4xlarge": 1}  # fmt: skip
    for instance, count in several.items():
        assert gpus(instance) == count
        assert JobPlan(instance=instance).process_count == count
        assert plan_problems(replace(ABOVE, instance=instance, processes=count)) == []
    assert gpus("ml.x9.large") is None
    assert JobPlan(instance="ml.x9.large", processes=3).process_count == 3


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"recipe": "movie-snippets-base"}, 3),
        ({"recipe": "movie-snippets-base", "student": "static"}, 0),
        ({"student": "static"}, 0),
        ({"recipe": "movie-snippets-base", "student_layers": 2}, 2),
    ],
)
def test_the_container_trains_the_student_that_is_planned(options, layers):
    """A student that is uploaded is named by its place, and a named student puts the recipe's layers aside."""
    planned = settings_from(options)
    there = settings_from(container_hyperparameters(JobPlan(options)))
    assert there.student_layers == planned.student_layers == layers
    assert (there.learning_rate, there.train_embeddings) == (planned.learning_rate, planned.train_embeddings)


def test_a_plan_says_what_its_cost_leaves_out():
    lines = "\n".join(plan_lines(replace(ABOVE, keep_alive_minutes=30, network_isolation=True)))
    assert "at most 2.12 USD (90 minutes at 1.41 an hour" in lines
    assert "not in it: 2 minutes" in lines
    assert "clean --s3" in lines
    assert "kept 30 minutes" in lines
    assert "no network" in lines
    fleet = replace(ABOVE, stage="label", instances=8)
    assert most_expensive(fleet) == 11.28
    assert "8 x ml.g5.xlarge" in "\n".join(plan_lines(fleet))


def test_a_bucket_that_the_usual_role_does_not_open_is_noted():
    assert "needs a policy of its own" in "\n".join(plan_lines(replace(ABOVE, bucket="mine")))
    assert "policy" not in "\n".join(plan_lines(replace(ABOVE, bucket="sagemaker-mine")))


def test_a_label_job_needs_a_teacher_that_can_answer(plan):
    label = replace(plan, stage="label")
    assert plan_problems(label) == []
    assert "no classification head" in plan_problems(replace(JobPlan(), stage="label"))[0]
    teacher = plan.hyperparameters["teacher"]
    assert "one teacher" in plan_problems(with_options(label, teacher=[teacher, teacher]))[0]
