"""`python -m kdhelpers sagemaker plan|check|rehearse|launch|status|endpoint|clean`."""

import argparse
import difflib
import sys
import tempfile
from pathlib import Path

from kdhelpers import arguments
from kdhelpers import sagemaker_cloud as cloud
from kdhelpers import sagemaker_job as job
from kdhelpers import sagemaker_rehearse as rehearsal
from kdhelpers.console import Parser, options_of
from kdhelpers.errors import UserError

USAGE = """usage: python -m kdhelpers sagemaker COMMAND [options]

without AWS:
  plan      what the job is, what it uploads, how long it takes, what it can cost at most
  check     refuse what AWS would refuse: the SDK's own request against AWS's own service model
  rehearse  the whole job on this machine, on some of the rows, under the SDK's own driver
on AWS:
  launch    start the job (with --yes); --follow and --output as for status
  status    how a job stands; --follow waits for its end, --output DIR brings the student home
  endpoint  deploy the student of a run or an export, ask it, measure, delete it again (with --yes)
  clean     what this project left in your account; --yes deletes it

plan, check, rehearse and launch take the job's options (COMMAND --help) and, beside them, every option of distill."""


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, e.g. team=search")
    return name, value


def _tag_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tag", action="append", type=_tag, default=[], metavar="NAME=VALUE", help="a tag of your own; may be repeated"
    )


def _follow_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow", action="store_true", help="wait for the end")
    parser.add_argument("--output", help="folder for what the job made")


def _job_options(parser: argparse.ArgumentParser) -> None:
    default = job.JobPlan()
    parser.add_argument("--instance", default=default.instance, help="machine (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="processes under torchrun, one a GPU")
    parser.add_argument("--spot", action="store_true", help="spot machine: cheaper, may be interrupted")
    parser.add_argument(
        "--max-minutes", type=int, default=default.max_minutes, help="stop after (default: %(default)s)"
    )
    parser.add_argument("--max-wait-minutes", type=int, help="with --spot: waiting and training together")
    parser.add_argument("--name", default=default.name, help="what the job's name begins with")
    parser.add_argument("--price", type=float, help="USD an hour of the machine, where yours differs")
    parser.add_argument("--logits", help="what `kdhelpers logits --output` wrote: a folder, or its s3:// address")
    _tag_option(parser)


def _place_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", help="AWS region (default: your configuration's, else us-east-1)")
    parser.add_argument("--role", help="ARN of the job's role (default: KD_ROLE_ARN, or Studio's)")
    parser.add_argument("--bucket", help="S3 bucket (default: SageMaker's)")


def _require_spelling(unknown: list[str], parser: argparse.ArgumentParser) -> None:
    """Refuse what is no option of distill, and nearly one of the job's."""
    theirs = options_of(arguments.distill_parser())
    for given in unknown:
        name = given.split("=")[0]
        near = difflib.get_close_matches(name, options_of(parser), n=1, cutoff=0.8)
        if name.startswith("--") and name not in theirs and near:
            raise UserError(f"unknown argument {name}: did you mean {near[0]}?")


def _planned(options: argparse.Namespace, rest: list[str]) -> job.JobPlan:
    values = {f.name: getattr(options, f.name) for f in job.dataclasses.fields(job.JobPlan) if hasattr(options, f.name)}
    values |= {"region": cloud.find_region(options.region), "tags": dict(options.tag)}
    return job.JobPlan(job.as_hyperparameters(rest), **values)


def _plan(plan: job.JobPlan, options) -> list[str]:
    job.check(plan)
    return job.plan_lines(plan)


def _check(plan: job.JobPlan, options) -> list[str]:
    request = job.check(plan)
    return [f"AWS would take this request: {len(request)} fields, {len(request['HyperParameters'])} hyperparameters."]


def _rehearse(plan: job.JobPlan, options) -> list[str]:
    if options.rows and "rows" not in plan.hyperparameters:
        plan = job.dataclasses.replace(plan, hyperparameters=plan.hyperparameters | {"rows": options.rows})
    python = rehearsal.image_python() if options.image_versions else sys.executable
    folder = Path(options.folder or tempfile.mkdtemp(prefix="rehearsal-"))
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"the folder {folder} is not empty: choose another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    result = rehearsal.rehearse(plan, folder, python, say=lambda line: print(line, flush=True))
    return [*rehearsal.result_lines(result), f"The model folder: {result.model}"]


def _launch(plan: job.JobPlan, options) -> list[str]:
    print(*_plan(plan, options), sep="\n")
    if not options.yes:
        raise UserError("nothing was launched: repeat the command with --yes to start, and pay for, this job")
    if options.output:
        cloud.require_empty(options.output)
    name = cloud.launch(plan)
    print(f"launched {name}", flush=True)
    later = f"python -m kdhelpers sagemaker status {name} --region {plan.region} --follow --output DIR"
    if not (options.follow or options.output):
        return [f"wait for it and bring the student home: {later}"]
    return _reported(name, plan.region, True, options.output, plan.price)


def _status(options) -> list[str]:
    return _reported(options.job, cloud.find_region(options.region), options.follow, options.output)


def _reported(name: str, region: str, wait: bool, output: str | None, price: float | None = None) -> list[str]:
    """How a job stands, or has ended; with `output`, what it made is brought there."""
    if output:
        cloud.require_empty(output)
    try:
        found = cloud.follow(name, region) if wait else cloud.describe(name, region)
    except KeyboardInterrupt as error:
        raise UserError(
            f"no longer followed, but {name} runs on and is billed: python -m kdhelpers sagemaker status {name} looks "
            "again, clean --yes stops it"
        ) from error
    lines = cloud.status_lines(found, price)
    if output:
        if found["TrainingJobStatus"] != "Completed":
            raise UserError(f"{name} is {found['TrainingJobStatus']}: there is no student to bring home yet")
        lines.append(f"brought home to {cloud.bring_home(found, output, region)}")
    return lines


def _endpoint(options) -> list[str]:
    if not options.yes:
        raise UserError("nothing was deployed: an endpoint costs money while it is there; repeat with --yes")
    place = {"region": cloud.find_region(options.region), "role": options.role, "bucket": options.bucket}
    plan = job.JobPlan(tags=dict(options.tag), **place)
    with cloud.endpoint(Path(options.model), plan, options.instance) as ask:
        answers = ask(options.text)
        median, late = cloud.latency(ask, options.text * 20)
    lines = [f"{answer}  {text}" for answer, text in zip(answers, options.text, strict=False)]
    return [
        *lines,
        f"median {median:.0f} ms, 95 % within {late:.0f} ms",
        "endpoint, configuration and model are deleted",
    ]


def _clean(options) -> list[str]:
    region = cloud.find_region(options.region)
    found = cloud.clean(region) if options.yes else cloud.leftovers(region)
    if not found:
        return [f"nothing of this project is left in {region}"]
    done = "deleted or stopped" if options.yes else "found (--yes deletes)"
    return [f"{done}: {item.kind} {item.name}" for item in found]


PLANNED = {"plan": _plan, "check": _check, "rehearse": _rehearse, "launch": _launch}
OTHERS = {"status": _status, "endpoint": _endpoint, "clean": _clean}


def _options(command: str, parser: argparse.ArgumentParser) -> None:
    """Give a command's parser its own options."""
    if command in PLANNED:
        _job_options(parser)
    if command == "rehearse":
        parser.add_argument("--folder", help="where (default: a temporary folder)")
        parser.add_argument("--rows", type=int, default=2000, help="training rows, 0 for all (default: %(default)s)")
        parser.add_argument("--image-versions", action="store_true", help="with the training image's library versions")
    if command in ("launch", "endpoint", "clean"):
        parser.add_argument("--yes", action="store_true", help="do it")
    if command == "status":
        parser.add_argument("job", help="the job's name")
    if command in ("launch", "status"):
        _follow_options(parser)
    if command == "endpoint":
        parser.add_argument("model", help="the output folder of a run (PyTorch), or of an export (ONNX, int8)")
        parser.add_argument("--instance", default="ml.m5.large", help="machine (default: %(default)s)")
        parser.add_argument("--text", nargs="+", default=["A wonderful film."], help="what to ask")
        _tag_option(parser)
    _place_options(parser)


def main(argv: list[str]) -> None:
    """Run one command. Raises UserError."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    command, *rest = argv
    commands = PLANNED | OTHERS
    if command not in commands:
        near = difflib.get_close_matches(command, commands, n=1)
        raise UserError(
            f"no command sagemaker {command}: " + (f"did you mean {near[0]}?" if near else ", ".join(commands))
        )
    job.require_sdk()
    more = "Every option of distill can be given too." if command in PLANNED else None
    parser = Parser(prog=f"python -m kdhelpers sagemaker {command}", epilog=more)
    _options(command, parser)
    if command in OTHERS:
        print(*OTHERS[command](parser.parse_args(rest)), sep="\n")
        return
    options, unknown = parser.parse_known_args(rest)
    _require_spelling(unknown, parser)
    print(*PLANNED[command](_planned(options, unknown), options), sep="\n")
