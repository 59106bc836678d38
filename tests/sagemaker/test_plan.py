"""What a plan says, and what it refuses, long before a machine is paid for."""

import json
import re
from dataclasses import replace

import botocore.session
import pandas as pd
import pytest

from kdhelpers import data, models
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import JobPlan, cost_lines, gpus, most_expensive, not_looked_at, plan_lines
from kdhelpers.sagemaker.plan import channels, container_hyperparameters, plan_problems
from kdhelpers.settings import settings_from
from tests.sagemaker.conftest import with_options
from tests.tiny import save_model, tiny_bert, tiny_model, tiny_tokenizer

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
    "a price without end": (lambda p: replace(p, price=float("inf")), "--price inf: it can be 0.01 to"),
    "a price of nothing": (lambda p: replace(p, price=1e-9), "--price 1e-09"),
    "a wait of years": (lambda p: replace(p, spot=True, max_wait_minutes=10**6), "--max-wait-minutes 1000000"),
    "a million machines": (lambda p: replace(p, stage="label", instances=10**6), "--instances 1000000"),
    "no machine": (lambda p: replace(p, instances=0), "--instances 0"),
    "no region": (lambda p: replace(p, region="EU-WEST-1"), "'EU-WEST-1' is no region"),
    "a bucket with two dots": (lambda p: replace(p, bucket="a..b"), "no bucket's name"),
    "a bucket like an address": (lambda p: replace(p, bucket="192.168.1.1"), "no bucket's name"),
    "an empty key": (lambda p: replace(p, kms_key=""), "--kms-key is empty"),
    "a key with a space": (lambda p: replace(p, kms_key="a b"), "--kms-key a b"),
    "our tag in capitals": (lambda p: replace(p, tags={"Owner": "ann"}), "tag Owner"),
    "the tag of a job that goes on": (lambda p: replace(p, tags={"continues": "job"}), "tag continues"),
    "a variable in other letters": (lambda p: replace(p, environment={"AÜ": "x"}), "environment AÜ"),
    "a seed below 0": (lambda p: with_options(p, seed=-1), "seed must be 0 or more"),
    "a seed beyond numpy's": (lambda p: with_options(p, seed=10**10), "seed must be"),
    "rows without a bucket": (lambda p: with_options(p, train="s3://.csv"), "--train s3://.csv: an address is"),
    "rows that are a bucket": (lambda p: with_options(p, train="s3://rows.csv"), "an address is s3://"),
    "a teacher without a bucket": (lambda p: with_options(p, teacher="s3://"), "--teacher s3://: an address"),
    "answers in no bucket": (lambda p: replace(p, logits="s3://Bad_Bucket/x"), "an address is s3://"),
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


def test_a_students_layers_are_looked_at_where_the_rows_are_elsewhere(plan):
    away = with_options(plan, train="s3://bucket/train.csv")
    assert plan_problems(away) == []
    (problem,) = plan_problems(with_options(away, student_layers=9))
    assert "9 layers" in problem


ROWS = {
    "no such text column": ({"text_column": "review"}, "no column 'review'"),
    "no such label column": ({"label_column": "stars"}, "no column 'stars'"),
    "alpha without a label": (
        {"alpha": 0.5, "train": "UNLABELLED"},
        "labelled training rows: there is nothing to learn",
    ),
    "an empty file": ({"train": "EMPTY"}, "has no rows"),
    "rows that are measured on": ({"train": "LEAKING", "drop_leaks": False}, "are in test too"),
    "numbers that are text": ({"task": "number"}, "is no number"),
    "an optimizer's options": ({"optim_args": "nonsense"}, "cannot begin with the options given (optim_args)"),
    "a schedule's options": ({"lr_scheduler_kwargs": '{"cycles": 1}'}, "(lr_scheduler_kwargs)"),
    "a tracker": ({"report_to": "no_such_tracker"}, "(report_to)"),
    "tokens of another kind": ({"live_teacher": True, "student": "OTHER"}, "tokenizer"),
    "a misspelt model": ({"teacher": "minilm-l6-h38"}, "did you mean minilm-l6-h384?"),
    "answers for other classes": ({"teacher": None, "teacher_answers": "ANSWERS"}, "the rows' are bad, good"),
    "a further teacher's classes": ({"teacher": "SEVERAL"}, "their number must be the same"),
}


@pytest.fixture(scope="module")
def made(plan, tmp_path_factory):
    """What the faults below name in capitals."""
    folder, given = tmp_path_factory.mktemp("faults"), plan.hyperparameters
    train, test = pd.read_csv(given["train"]), pd.read_csv(given["test"])
    tables = {"UNLABELLED": train.assign(label=""), "EMPTY": train[:0], "LEAKING": pd.concat([train, test])}
    tables["ANSWERS"] = pd.DataFrame({"text": train["text"], "yes": 1.0, "no": 0.0})
    places = {name: str(folder / f"{name}.csv") for name in tables}
    for name, table in tables.items():
        table.to_csv(places[name], index=False)
    other = save_model(folder / "other", tiny_model("roberta"), tiny_tokenizer("bpe"))
    third = save_model(folder / "third", tiny_bert(labels=3), tiny_tokenizer())
    return places | {"OTHER": str(other), "SEVERAL": json.dumps([given["teacher"], str(third)])}


@pytest.mark.parametrize("fault", ROWS)
def test_what_the_training_script_would_refuse_is_refused_by_its_own_code(plan, made, fault):
    more, words = ROWS[fault]
    more = {name: made.get(value, value) if isinstance(value, str) else value for name, value in more.items()}
    (problem,) = plan_problems(with_options(plan, **more))
    assert words in problem
    assert "\n" not in problem


def test_what_only_the_jobs_machine_can_do_is_not_refused_here(plan):
    """No GPU, no bf16 and no tracking server is asked for: a check runs on anything."""
    there = replace(with_options(plan, precision="fp16", tf32=True, report_to="mlflow"), mlflow="http://127.0.0.1:1")
    assert plan_problems(there) == []
    assert not_looked_at(there) == ["--tf32, which needs a GPU"]
    assert not_looked_at(plan) == []


def test_what_is_elsewhere_is_named_and_the_rest_is_looked_at(plan, made):
    away = with_options(plan, teacher="s3://mine/teacher", student="owner/name")
    assert plan_problems(away) == []
    assert not_looked_at(away) == ["owner/name of the Hub", "s3://mine/teacher"]
    assert "no column 'review'" in plan_problems(with_options(away, text_column="review"))[0]
    assert not_looked_at(ABOVE) == [
        f"{name} of the Hub"
        for name in ("textattack/bert-base-uncased-SST-2", "distilbert/distilbert-base-uncased", "nyu-mll/glue")
    ]
    answers = replace(plan, logits="s3://mine/logits")
    assert not_looked_at(answers) == ["s3://mine/logits"]
    assert plan_problems(with_options(answers, optim_args="nonsense")), "they come in when all else is right"


def test_a_large_model_is_not_downloaded_to_look_at_a_plan(monkeypatch, tmp_path):
    locate = models.locate
    monkeypatch.setattr(models, "mpnet_is_cached", lambda: False)
    monkeypatch.setattr(models, "locate", lambda name: pytest.fail("fetched") if name == "mpnet-base" else locate(name))
    monkeypatch.setattr(data, "fetch_movie_snippets", lambda: tmp_path)
    large = JobPlan({"recipe": "movie-snippets-base"})
    assert plan_problems(large) == []
    assert not_looked_at(large) == ["mpnet-base, which is downloaded at the launch"]
    assert "teacher which is downloaded first" in "\n".join(plan_lines(large))


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
    unknown = replace(ABOVE, instance="ml.g7.48xlarge")
    assert "say it with --processes" in plan_problems(unknown)[0]
    assert plan_problems(replace(unknown, processes=8)) == []


def test_no_machine_with_gpus_trains_on_one_of_them_without_a_word():
    """Of every family that AWS trains on the GPUs are known here, or their number is asked for."""
    shape = botocore.session.get_session().get_service_model("sagemaker").shape_for("TrainingInstanceType")
    with_gpus = [name for name in shape.enum if re.match(r"ml\.[gp]\d", name)]
    assert len({name.split(".")[1] for name in with_gpus}) >= 15
    for name in with_gpus:
        assert gpus(name) or plan_problems(replace(ABOVE, instance=name)), name


def test_machines_whose_gpus_the_image_cannot_use_are_refused():
    for name in ("ml.p2.xlarge", "ml.p2.16xlarge", "ml.p3.2xlarge", "ml.p3dn.24xlarge"):
        (problem,) = plan_problems(replace(ABOVE, instance=name))
        assert "CUDA 13 has dropped" in problem


def test_a_machine_that_is_not_known_takes_the_processes_that_are_named():
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
    for name in ("control_learning_rate", "control_dropout"):
        assert getattr(there, name) == getattr(planned, name)
    assert (there.learning_rate, there.train_embeddings) == (planned.learning_rate, planned.train_embeddings)


def test_a_plan_says_what_its_cost_leaves_out():
    lines = "\n".join(plan_lines(replace(ABOVE, keep_alive_minutes=30, network_isolation=True)))
    assert "at most 2.12 USD (90 minutes at 1.41 an hour" in lines
    assert "not in it: 2 minutes" in lines
    assert "the upload of its model" in lines
    assert all(len(line) <= 100 for line in cost_lines(replace(ABOVE, spot=True, max_wait_minutes=60)))
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
