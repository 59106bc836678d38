"""`python -m kdhelpers sagemaker plan|check|rehearse|launch|status|endpoint|clean`."""

import dataclasses
import sys
import tempfile
import timeit
from argparse import Namespace
from pathlib import Path

import numpy as np

from kdhelpers import sagemaker
from kdhelpers.cli.parsing import Parser, options_of, read_options
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import JobPlan
from kdhelpers.settings import OPTIONS, OTHER_NAMES, dashed, nearest, trainer_kinds
from kdhelpers.storage import require_free

USAGE = """usage: python -m kdhelpers sagemaker COMMAND [options]

without AWS:
  plan      what the job is, what it uploads, what it can cost at most
  check     refuse what AWS, or the training script, would refuse
  rehearse  the whole job on this machine, on some of the rows, under the SDK's own driver
on AWS:
  launch    start the job (with --yes); --follow and --output as for status
  status    how a job stands; --follow waits for its end, --output DIR brings the student home
  endpoint  deploy the student of a run or an export, ask it, measure, delete it again (with --yes)
  clean     what you left in the account; --yes deletes it, --everybody means the others' too

plan, check, rehearse and launch take the job's options (COMMAND --help) and, beside them, every option of distill."""

FLAG = {"action": "store_true"}
OWN: dict[str, dict[str, dict]] = {
    "plan": {},
    "check": {},
    "rehearse": {"--folder": {}, "--image-versions": FLAG | {"help": "with the library versions of the image"}},
    "launch": {"--yes": FLAG, "--follow": FLAG, "--output": {}},
    "status": {"job": {}, "--follow": FLAG, "--output": {}, "--price": {"type": float}},
    "endpoint": {"model": {}, "--yes": FLAG, "--instance": {"default": "ml.m5.large"},
                 "--text": {"nargs": "+", "default": ["A wonderful film."]}},
    "clean": {"--yes": FLAG, "--everybody": FLAG, "--owner": {"help": "whose (default: yours)"}},
}  # fmt: skip


def _parser(command: str) -> Parser:
    """A command's own options, and those of JobPlan with its help texts; JobPlan reads their values."""
    parser = Parser(prog=f"python -m kdhelpers sagemaker {command}", epilog=USAGE.split("\n\n")[-1])
    for name, how in OWN[command].items():
        parser.add_argument(name, **how)
    parser.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="a tag of yours; repeatable")
    for field in dataclasses.fields(JobPlan):
        if "help" in field.metadata and (command in PLANNED or field.name in ("region", "role", "bucket")):
            kind: dict = FLAG if field.default is False else {}
            parser.add_argument(dashed(field.name), default=None, help=field.metadata["help"], **kind)
    return parser


def _planned(options: Namespace, hyperparameters: dict) -> JobPlan:
    given = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(JobPlan)}
    tags = dict(tag.partition("=")[::2] for tag in options.tag)
    if not all((*tags, *tags.values())):
        raise UserError(f"a tag is NAME=VALUE, e.g. --tag team=search, not {' '.join(options.tag)}")
    given |= {"hyperparameters": hyperparameters, "tags": tags, "region": sagemaker.find_region(options.region)}
    return JobPlan(**{name: value for name, value in given.items() if value is not None})


def _plan(plan: JobPlan, options: Namespace) -> list[str]:
    sagemaker.check(plan)
    return sagemaker.plan_lines(plan)


def _check(plan: JobPlan, options: Namespace) -> list[str]:
    return [f"AWS would take this request: {len(sagemaker.check(plan))} fields."]


def _rehearse(plan: JobPlan, options: Namespace) -> list[str]:
    plan = dataclasses.replace(plan, hyperparameters={"rows": 2000} | plan.hyperparameters)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="rehearsal-"))
    require_free(folder, overwrite=False)
    python = sagemaker.image_python() if options.image_versions else sys.executable
    result = sagemaker.rehearse(plan, folder, python, say=lambda line: print(line, flush=True))
    return [f"The rehearsal is done in {result.seconds:.0f} s.", sagemaker.PROVES, f"The model folder: {result.model}"]


def _launch(plan: JobPlan, options: Namespace) -> list[str]:
    print(*_plan(plan, options), sep="\n")
    if not options.yes:
        raise UserError("nothing was launched: repeat the command with --yes to start, and pay for, this job")
    if options.output:
        require_free(Path(options.output), overwrite=False)
    name = sagemaker.launch(plan)
    print(f"launched {name}", flush=True)
    if options.follow or options.output:
        return _status(Namespace(**vars(options) | {"job": name, "follow": True, "region": plan.region}))
    later = f"python -m kdhelpers sagemaker status {name} --region {plan.region} --follow --output DIR"
    return [f"wait for it and bring the student home: {later}"]


def _status(options: Namespace) -> list[str]:
    region = sagemaker.find_region(options.region)
    if options.output:
        require_free(Path(options.output), overwrite=False)
    found = (sagemaker.follow if options.follow else sagemaker.describe)(options.job, region)
    lines = sagemaker.status_lines(found, options.price)
    if options.output:
        lines.append(f"brought home to {sagemaker.bring_home(found, options.output, region)}")
    return lines


def _endpoint(options: Namespace) -> list[str]:
    if not options.yes:
        raise UserError("nothing was deployed: an endpoint costs money while it is there; repeat with --yes")
    with sagemaker.endpoint(Path(options.model), _planned(options, {}), options.instance) as ask:
        lines = [f"{answer}  {text}" for answer, text in zip(ask(options.text), options.text, strict=True)]
        seconds = timeit.repeat(lambda: ask(options.text[:1]), number=1, repeat=20)
    median, late = np.percentile(seconds, [50, 95]) * 1000
    return [*lines, f"median {median:.0f} ms, 95 % within {late:.0f} ms", "the endpoint is deleted"]


def _clean(options: Namespace) -> list[str]:
    region = sagemaker.find_region(options.region)
    me = options.owner or sagemaker.owner(region)
    everything = sagemaker.leftovers(region)
    found = [item for item in everything if options.everybody or item.owner == me]
    if options.yes:
        sagemaker.clean(region, me, options.everybody)
    done = "deleted or stopped" if options.yes else "found (--yes deletes)"
    lines = [f"{done}: {item}" for item in found] or [f"nothing of {me} is left in {region}"]
    others = len(everything) - len(found)
    return [*lines, f"{others} more are others' (--everybody means them, too)"] if others else lines


PLANNED = {"plan": _plan, "check": _check, "rehearse": _rehearse, "launch": _launch}
OTHERS = {"status": _status, "endpoint": _endpoint, "clean": _clean}


def main(argv: list[str]) -> None:
    """Run one command. Raises UserError."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    command, *rest = argv
    if command not in OWN:
        near = nearest(command, OWN)
        raise UserError(f"no command sagemaker {command}: " + (f"did you mean {near}?" if near else ", ".join(OWN)))
    sagemaker.require_sdk()
    parser = _parser(command)
    if command in OTHERS:
        print(*OTHERS[command](parser.parse_args(rest)), sep="\n")
        return
    options, unknown = parser.parse_known_args(rest)
    hyperparameters = read_options(unknown)
    for name in hyperparameters:
        near = nearest(dashed(name), options_of(parser))
        if near and name.replace("-", "_") not in {*OPTIONS, *OTHER_NAMES, *trainer_kinds()}:
            raise UserError(f"unknown argument --{name}: did you mean {near}?")
    print(*PLANNED[command](_planned(options, hyperparameters), options), sep="\n")
