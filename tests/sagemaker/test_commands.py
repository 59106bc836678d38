"""`python -m kdhelpers sagemaker ...`, and what the notebook's cells do."""

from dataclasses import replace

import pytest

from kdhelpers import sagemaker
from kdhelpers.__main__ import main
from kdhelpers.sagemaker import cloud
from tests.sagemaker.conftest import PLACE, ROLE, as_argv, counted, stand
from tests.sagemaker.test_cloud import deliver

REGION = ["--region", "us-east-1"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["plam"], "did you mean plan?"),
        (["clean", "--foo"], "unknown argument --foo"),
        (["check", "--recipe", "sst2", "--temparature", "3"], "did you mean --temperature?"),
        (["check", "--recipe", "sst2", "--instence", "ml.g5.xlarge"], "did you mean --instance?"),
        (["check", "--recipe", "sst2", "--max-minutes", "0"], "--max-minutes 0"),
        (["check", "--recipe", "sst2", "--max-minutes", "soon"], "--max-minutes must be a whole number"),
        (["check", "--recipe", "sst2", "--alpha", "7"], "alpha"),
        (["endpoint", "run"], "repeat the command with --yes"),
        (["plan", "--tag", "team"], "NAME=VALUE"),
        (["plan", "--env", "A"], "NAME=VALUE"),
        (["launch", "--from", "job", "--temperature", "3"], "leave out --temperature"),
        (["launch", "--from", "job", "--spot", "--role", "r"], "leave out --spot, --role"),
        (["label", "--recipe", "sst2", "--instances", "0"], "--instances 0"),
        (["endpoint", "run", "--instance", "ml.g4dn.xlarge"], "a GPU would idle"),
        (["endpoint", "run", "--price", "1"], "a serverless endpoint has none"),
        (["endpoint", "run", "--instance", "ml.m5.large", "--price", "0"], "--price 0.0: it can be 0.01 to"),
        (["check", "--recipe", "sst2", "--instance", "ml.g7.48xlarge"], "say it with --processes"),
        (["launch", "--from", "job", "--max-minutes", "0"], "--max-minutes 0: it can be 1 to"),
        (["launch", "--from", "job", "--max-minutes", "50000"], "--max-minutes 50000: it can be 1 to"),
        (["launch", "--from", "job", "--price", "-3"], "--price -3.0: it can be 0.01 to"),
        (["launch", "--from", "job", "--price", "inf"], "--price inf"),
        (["launch", "--from", "job", "--tag", "a=b", "--env", "a=b"], "leave out --tag, --env"),
        (["launch", "--from", "job", "--output", "/dev/null"], "/dev/null is no folder"),
        (["launch", "--from", ""], "--from is empty"),
        (["launch", "--from", "a_b"], "'a_b' is no job's name"),
        (["label", "--recipe", "sst2", "--price", "-3"], "--price -3.0"),
        (["rehearse", "--recipe", "sst2", "--price", "-3"], "--price -3.0"),
        (["plan", "--recipe", "sst2", "--price", "1e308"], "--price 1e+308"),
        (["plan", "--tag", "a=b", "--tag", "a=c"], "each once"),
        (["status", "job", "--price", "-3"], "--price -3.0"),
        (["status", "job", "--price", "nan"], "--price must be a number"),
        (["status", "a b"], "'a b' is no job's name"),
        (["status", "job", "--region", "moon"], "'moon' is no region"),
        (["clean", "--region", "eu_west_1"], "'eu_west_1' is no region"),
        (["clean", "--owner", ""], "--owner is empty"),
        (["endpoint", "run", "--role", ""], "--role is empty"),
        (["endpoint", "run", "--name", "Bad_Name"], "'Bad_Name' may have small letters"),
        (["endpoint", "run", "--tag", "aws:x=y"], "tag aws:x"),
        (["endpoint", "run", "--instance", "m5.large"], "did you mean ml.m5.large?"),
        (["rights", "--bucket", "Bad_Bucket"], "no bucket's name"),
        (["rights", "--instance", "ml.G5.xlarge"], "did you mean ml.g5.xlarge?"),
        (["rights", "--instances", "-2"], "--instances -2"),
        (["rights", "--keep-alive-minutes", "-2"], "--keep-alive-minutes -2"),
        (["rights", "--output", "/dev/null"], "/dev/null is no folder"),
        (["rights", "--output", "/dev/null/x"], "cannot use /dev/null/x: Not a directory"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(command, words, capsys):
    assert main(["sagemaker", *command]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_every_command_has_its_help(capsys):
    assert main(["sagemaker"]) == 0
    said = capsys.readouterr().out
    for command in ("plan", "check", "rehearse", "rights", "launch", "label", "status", "endpoint", "clean"):
        assert f"\n  {command}" in said
        with pytest.raises(SystemExit):
            main(["sagemaker", command, "--help"])
        assert "--region" in capsys.readouterr().out


def test_plan_and_check_need_no_aws(capsys):
    assert main(["sagemaker", "check", "--recipe", "sst2", "--weight_decay", "0.01", "--rows", "300"]) == 0
    said = capsys.readouterr().out
    assert "Nothing in this request is refused" in said
    assert "Not looked at: textattack/bert-base-uncased-SST-2 of the Hub" in said
    assert main(["sagemaker", "plan", "--recipe", "sst2", "--instance", "ml.g5.12xlarge", "--price", "7.09"]) == 0
    said = capsys.readouterr().out
    assert "4 processes" in said
    assert "at most 7.09 USD" in said


@pytest.fixture
def delivering(aws, rehearsed, monkeypatch):
    """moto's jobs are completed at once and leave nothing: when one is described, it has left what it would have."""
    describe = cloud.describe

    def described(name, region=None):
        return describe(name, region) | deliver(aws, rehearsed[0].model)

    monkeypatch.setattr(cloud, "describe", described)


@pytest.mark.slow
def test_launch_follow_and_bring_home(aws, delivering, plan, rehearsed, tmp_path, capsys):
    options = ["--role", ROLE, "--bucket", "mine", "--tag", "team=a", *as_argv(plan)]
    home, full = tmp_path / "home", tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    for refused, words in (([], "repeat the command with --yes"), (["--yes", "--output", str(full)], "--output")):
        assert main(["sagemaker", "launch", *options, *refused]) == 2
        said = capsys.readouterr()
        assert "at most 1.41 USD" in said.out
        assert words in said.err
        assert aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []

    assert main(["sagemaker", "launch", "--yes", "--output", str(home), *options]) == 0
    said = capsys.readouterr().out
    name = said.split("launched ")[1].split()[0]
    assert "Completed" in said
    assert f"brought home to {home}" in said
    assert (home / "predictions.csv").read_bytes() == (rehearsed[0].model / "predictions.csv").read_bytes()
    assert cloud.describe(name)["Tags"]["team"] == "a"
    assert main(["sagemaker", "status", name, "--follow", "--output", str(home)]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.slow
def test_launching_and_following_are_two_steps_too(aws, delivering, capsys):
    assert main(["sagemaker", "launch", "--yes", "--recipe", "sst2", "--role", ROLE, "--bucket", "mine"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "status" in line]
    assert main(line.split("kdhelpers ")[1].split()[:-2]) == 0  # less --output DIR
    assert "Completed" in capsys.readouterr().out


def test_going_on_says_the_most_that_it_can_cost(aws, respond, capsys):
    """The machine's hours and the warm pool's, which the new job has as the old one had."""
    name = cloud.launch(replace(PLACE, keep_checkpoints=True, keep_alive_minutes=360))
    found = aws.client("sagemaker").describe_training_job(TrainingJobName=name)
    respond("DescribeTrainingJob", found | {"TrainingJobStatus": "Stopped"})
    sent = respond("CreateTrainingJob", ...)
    assert main(["sagemaker", "launch", "--from", name, *REGION]) == 2
    said = capsys.readouterr()
    assert "at most 9.87 USD (420 minutes at 1.41 an hour" in said.out
    assert f"goes on with {name}, as distilling-bert-" in said.out, "whoever stops it while AWS answers has its name"
    assert "not in it: 2 minutes" in said.out
    assert "repeat the command with --yes" in said.err
    assert main(["sagemaker", "launch", "--from", name, *REGION, "--price", "2", "--max-minutes", "30"]) == 2
    assert "at most 13.00 USD (390 minutes at 2.00 an hour)" in capsys.readouterr().out
    assert sent == []


def test_nothing_starts_without_credentials(capsys):
    assert main(["sagemaker", "launch", "--yes", "--bucket", "mybucket", "--recipe", "sst2"]) == 2
    assert "aws configure" in capsys.readouterr().err


def test_clean_lists_ones_own_with_owner_and_age_and_counts_the_others(aws, capsys):
    me = cloud.owner()
    stand(aws, "mine", project="distilling-bert", owner=me)
    stand(aws, "anns", project="distilling-bert", owner="user/ann")
    assert main(["sagemaker", "clean", *REGION]) == 0
    said = capsys.readouterr().out
    assert said.count("found (--yes deletes)") == 3
    assert said.count(f"mine of {me}, 0.0 h old") == 3
    assert "anns" not in said
    assert "3 more are others'" in said
    assert counted(aws) == [2, 2, 2]
    assert main(["sagemaker", "clean", *REGION, "--everyone"]) == 0
    assert capsys.readouterr().out.count("anns of user/ann") == 3
    assert main(["sagemaker", "clean", *REGION, "--everybody"]) == 0
    said = capsys.readouterr().out
    assert said.count("anns of user/ann") == 3
    assert "--everybody is now --everyone" in said
    assert main(["sagemaker", "clean", *REGION, "--yes"]) == 0
    assert counted(aws) == [1, 1, 1]
    assert main(["sagemaker", "clean", *REGION]) == 0
    assert "nothing of" in capsys.readouterr().out
    assert main(["sagemaker", "clean", *REGION, "--everyone", "--yes"]) == 0
    assert counted(aws) == [0, 0, 0]


def test_clean_with_names_ends_these_and_nothing_else_of_ones_own_or_of_others(aws, capsys):
    for name, owner in (("mine", cloud.owner()), ("old", cloud.owner()), ("anns", "user/ann")):
        stand(aws, name, project="distilling-bert", owner=owner)
    assert main(["sagemaker", "clean", "old", *REGION]) == 0
    said = capsys.readouterr().out
    assert (said.count(" old of "), said.count(" mine of ")) == (3, 0)
    assert "files in S3 were not looked at: --s3 does" in said
    assert main(["sagemaker", "clean", "old", *REGION, "--yes"]) == 0
    for named in (["anns"], ["mine", "old"]):
        assert main(["sagemaker", "clean", *named, *REGION, "--yes"]) == 2
        assert f"is called {named[-1]}" in capsys.readouterr().err
    left = {model["ModelName"] for model in aws.client("sagemaker").list_models()["Models"]}
    assert (left, counted(aws)) == ({"mine", "anns"}, [2, 2, 2])


def test_an_endpoints_price_is_said_before_anything_is_deployed(capsys):
    for machine, words in (([], "nothing while nobody asks"), (["--instance", "ml.m5.large"], "0.12 USD an hour")):
        assert main(["sagemaker", "endpoint", "run", *machine]) == 2
        said = capsys.readouterr()
        assert words in said.out
        assert "nothing was deployed" in said.err


def test_the_room_offers_what_it_lists():
    assert [name for name in sagemaker.__all__ if not hasattr(sagemaker, name)] == []
    assert callable(sagemaker.rehearse)
