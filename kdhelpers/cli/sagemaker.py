"""`python -m kdhelpers sagemaker plan|check|rehearse|rights|launch|label|status|endpoint|clean`."""

import dataclasses
import sys
import tempfile
import timeit
from argparse import SUPPRESS, Namespace
from pathlib import Path

import numpy as np

from kdhelpers import sagemaker
from kdhelpers.cli.parsing import Parser, options_of, read_options
from kdhelpers.errors import UserError
from kdhelpers.sagemaker import JobPlan
from kdhelpers.settings import OPTIONS, OTHER_NAMES, dashed, nearest, settings_from, trainer_kinds
from kdhelpers.storage import require_free

USAGE = """usage: python -m kdhelpers sagemaker COMMAND [options]

without AWS:
  plan      what the job is, what it uploads, what it can cost at most
  check     refuse what AWS, or the training script, would refuse
  rehearse  the whole job on this machine, on some of the rows, under the SDK's own driver
  rights    write the least rights that this needs, and say how bucket, role and quota are made
on AWS:
  launch    start the job (with --yes); --follow and --output as for status; --from JOB goes on with a stopped one
  label     launch, of a job in which the teacher answers, on --instances machines, and no student is trained
  status    how a job stands; --follow waits for its end, --output DIR brings the student home
  endpoint  deploy the student of a run or an export, ask it, measure, delete it again (with --yes)
  clean     what you left in the account, or what you name of it; --s3 for files, too; --yes deletes it

plan, check, rehearse, launch and label take the job's options (COMMAND --help) and every option of distill."""

FLAG = {"action": "store_true"}
YES = FLAG | {"help": "do it; without it the command says what it would do"}
FOLLOW = FLAG | {"help": "wait for the job's end, with a line whenever its state changes"}
HOME = {"help": "where the student is brought home to"}
OWN: dict[str, dict[str, dict]] = {
    "plan": {},
    "check": {},
    "rehearse": {
        "--folder": {"help": "a new one (default: below the folder for temporary files)"},
        "--image-versions": {"nargs": "?", "const": "current", "choices": list(sagemaker.IMAGE_VERSIONS),
                             "help": "with the training image's versions, or the next one's, but with your torch"},
    },
    "rights": {"--output": {"default": "sagemaker-rights", "help": "folder (default: %(default)s)"}},
    "launch": {
        "--yes": YES, "--follow": FOLLOW, "--output": HOME,
        "--from": {"dest": "job", "metavar": "JOB", "help": "go on with a stopped job, with all it was sent"},
    },
    "label": {"--yes": YES, "--follow": FOLLOW},
    "status": {"job": {"metavar": "JOB"}, "--follow": FOLLOW, "--output": HOME,
               "--price": {"help": "USD an hour of the machine"}},
    "endpoint": {"model": {"help": "the output folder of a run, or of an export"}, "--yes": YES,
                 "--instance": {"help": "a machine that stands until it is deleted (default: serverless)"},
                 "--text": {"nargs": "+", "default": ["A wonderful film."]}},
    "clean": {"names": {"nargs": "*", "metavar": "NAME", "help": "only these"}, "--yes": YES,
              "--s3": FLAG | {"help": "also what jobs that are over have in S3"},
              "--everyone": FLAG | {"help": "the others', too"}, "--owner": {"help": "whose (default: yours)"},
              "--everybody": FLAG | {"help": SUPPRESS}},  # its former name
}  # fmt: skip


def _parser(command: str) -> Parser:
    """A command's own options, and those of JobPlan with its help texts; JobPlan reads their values."""
    parser = Parser(prog=f"python -m kdhelpers sagemaker {command}", epilog=USAGE.split("\n\n")[-1])
    parser.set_defaults(offline=command in ("plan", "check", "rehearse", "rights"))
    for name, how in OWN[command].items():
        parser.add_argument(name, **how)
    if command in (*PLANNED, "endpoint"):
        parser.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="a tag; repeatable")
    if command in PLANNED:
        told = "a variable of the container; repeatable"
        parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help=told)
    for field in dataclasses.fields(JobPlan):
        if "help" in field.metadata and (command in PLANNED or field.name in PLACES.get(command, ("region",))):
            kind: dict = FLAG if field.default is False else {}
            names = ("--logits", "--answers") if field.name == "logits" else (dashed(field.name),)
            known = "" if field.default in (None, False) or field.name == "region" else f" (default: {field.default})"
            parser.add_argument(*names, default=None, help=field.metadata["help"].rstrip(".") + known, **kind)
    return parser


def _pairs(given: list[str], what: str) -> dict[str, str]:
    pairs = dict(one.partition("=")[::2] for one in given)
    if len(pairs) < len(given) or not all((*pairs, *pairs.values())):
        raise UserError(f"{what} is NAME=VALUE, e.g. --tag team=search, and each once, not {' '.join(given)}")
    return pairs


def _planned(options: Namespace, hyperparameters: dict) -> JobPlan:
    given = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(JobPlan)}
    region = sagemaker.find_region(options.region, offline=options.offline)
    given |= {"hyperparameters": hyperparameters, "region": region}
    given |= {"tags": _pairs(getattr(options, "tag", []), "a tag")}
    given |= {"environment": _pairs(getattr(options, "env", []), "a variable")}
    return JobPlan(**{name: value for name, value in given.items() if value is not None})


def _plan(plan: JobPlan, options: Namespace) -> list[str]:
    sagemaker.check(plan)
    return sagemaker.plan_lines(plan)


def _check(plan: JobPlan, options: Namespace) -> list[str]:
    sagemaker.check(plan)
    done = "Nothing in this request is refused, by AWS's own description of it or by the training script's checks."
    away = ", ".join(sagemaker.not_looked_at(plan))
    later = "the training script checks this, and what depends on it, when it starts"
    return [done, f"Not looked at: {away}; {later}."] if away else [done]


def _rehearse(plan: JobPlan, options: Namespace) -> list[str]:
    plan = dataclasses.replace(plan, hyperparameters={"rows": 2000} | plan.hyperparameters)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="rehearsal-"))
    require_free(folder, overwrite=False)
    python = sagemaker.image_python(options.image_versions) if options.image_versions else sys.executable
    result = sagemaker.rehearse(plan, folder, python, say=lambda line: print(line, flush=True))
    left = f"The model folder: {result.model}"
    if plan.stage == "label":
        left = f"The teacher's answers, for --answers: {result.model.parent / 'checkpoints'}"
    return [f"The rehearsal is done in {result.seconds:.0f} s.", sagemaker.PROVES, left]


def _rights(options: Namespace) -> list[str]:
    plan, folder = _planned(options, {}), Path(options.output)
    told = f"# three policies are in {folder}: read them, then run what follows, or hand it to your administrator"
    return [told, *sagemaker.write_rights(folder, plan)]


def _go_on(options: Namespace) -> list[str]:
    free = ("region", "max_minutes", "price")
    fields = [field.name for field in dataclasses.fields(JobPlan) if field.name not in free]
    given = [dashed(name) for name in ("tag", "env", *fields) if getattr(options, name, None) not in (None, [])]
    if given:
        raise UserError(f"--from JOB goes on with the plan of that job: leave out {', '.join(given)}")
    region, price = sagemaker.find_region(options.region), JobPlan(price=options.price).sound().price
    minutes = None if options.max_minutes is None else JobPlan(max_minutes=options.max_minutes).max_minutes
    if options.output:
        require_free(Path(options.output), overwrite=False)
    request = sagemaker.again(options.job, region, minutes)
    plan = sagemaker.resumed(request, price)
    what = f"{request['TrainingJobName']}: {plan.instances} x {plan.instance}, stopped after {plan.max_minutes} minutes"
    print(f"goes on with {options.job}, as {what}", *sagemaker.cost_lines(plan), sep="\n", flush=True)
    if not options.yes:
        raise UserError("nothing was launched: repeat the command with --yes to go on with, and pay for, this job")
    name = sagemaker.go_on(request, region)
    print(f"launched {name}, which goes on where {options.job} stopped", flush=True)
    if options.follow or options.output:
        return _status(Namespace(**vars(options) | {"job": name, "follow": True, "region": region}))
    return [f"wait for it: python -m kdhelpers sagemaker status {name} --region {region} --follow"]


def _label(plan: JobPlan, options: Namespace) -> list[str]:
    return _launch(dataclasses.replace(plan, stage="label"), Namespace(**vars(options) | {"output": None}))


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
    later = f"python -m kdhelpers sagemaker status {name} --region {plan.region} --follow"
    if plan.stage == "label":
        return [f"wait for its end, and see where the answers are: {later}"]
    return [f"wait for it and bring the student home: {later} --output DIR"]


def _status(options: Namespace) -> list[str]:
    region, price = sagemaker.find_region(options.region), JobPlan(price=options.price).sound().price
    if options.output:
        require_free(Path(options.output), overwrite=False)
    found = (sagemaker.follow if options.follow else sagemaker.describe)(options.job, region)
    lines = sagemaker.status_lines(found, price)
    if options.output:
        lines.append(f"brought home to {sagemaker.bring_home(found, options.output, region)}")
    return lines


def _endpoint(options: Namespace) -> list[str]:
    instance, options.instance = options.instance, None  # the plan's own is the job's machine
    plan = _planned(options, {})
    print(*sagemaker.endpoint_lines(plan, instance), sep="\n", flush=True)
    if not options.yes:
        raise UserError("nothing was deployed: repeat the command with --yes to deploy, and pay for, this endpoint")
    with sagemaker.endpoint(Path(options.model), plan, instance) as ask:
        begun = timeit.default_timer()
        answers = ask(options.text)
        first = timeit.default_timer() - begun
        lines = [f"{answer}  {text}" for answer, text in zip(answers, options.text, strict=True)]
        seconds = timeit.repeat(lambda: ask(options.text[:1]), number=1, repeat=20)
    median, late = np.percentile(seconds, [50, 95]) * 1000
    spread = f"median {median:.0f} ms, 95 % within {late:.0f} ms"
    return [*lines, f"the first answer took {first:.1f} s, the next ones {spread}", "the endpoint is deleted"]


def _clean(options: Namespace) -> list[str]:
    region = sagemaker.find_region(options.region)
    everything = sagemaker.leftovers(region, files=options.s3)
    me = options.owner or sagemaker.owner(region)
    if options.everybody:
        print("note: --everybody is now --everyone", flush=True)
    everyone = options.everyone or options.everybody
    found = everything if everyone else sagemaker.mine(everything, region, me)
    if options.names:
        missing = ", ".join(sorted(set(options.names) - {item.name for item in found}))
        if missing:
            raise UserError(f"nothing of {me} is called {missing}; without a name, clean lists what there is")
        found = [item for item in found if item.name in options.names]
    if options.yes:
        sagemaker.clean(found, region)
    done = "deleted or stopped" if options.yes else "found (--yes deletes)"
    lines = [f"{done}: {item}" for item in found] or [f"nothing of {me} is left in {region}"]
    if "/" in me and me.count("/") == 1 and me.startswith("assumed-role/"):
        lines.append(f"note: everybody who signs in as {me} counts as you; name what is yours")
    if options.s3 and options.yes and any(item.kind == "training_job" for item in found):
        lines.append("the files of a job that is being stopped stay for now: repeat this when it has stopped")
    others = len(everything) - len(sagemaker.mine(everything, region, me))
    if others and not everyone:
        lines.append(f"{others} more are others' (--everyone means them, too)")
    return lines if options.s3 else [*lines, "files in S3 were not looked at: --s3 does"]


PLANNED = {"plan": _plan, "check": _check, "rehearse": _rehearse, "launch": _launch, "label": _label}
OTHERS = {"rights": _rights, "status": _status, "endpoint": _endpoint, "clean": _clean}
NETWORK = ("subnets", "security_groups", "kms_key", "network_isolation")
COUNTS = ("instance", "instances", "spot", "keep_alive_minutes")
PLACES: dict[str, tuple[str, ...]] = {
    "endpoint": ("region", "role", "bucket", "name", "price", *NETWORK),
    "rights": ("region", "bucket", *COUNTS, "subnets", "kms_key", "mlflow", "hub_secret"),
}


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
    if "" in rest:  # mostly a variable that is not set
        raise UserError(f"{['the name', *rest][rest.index('')]} is empty: leave it out, or fill it in")
    if command in OTHERS:
        print(*OTHERS[command](parser.parse_args(rest)), sep="\n")
        return
    options, unknown = parser.parse_known_args(rest)
    hyperparameters = read_options(unknown)
    if command == "launch" and options.job is not None:
        settings_from(hyperparameters)  # what is misspelt is said first
        if hyperparameters:
            raise UserError(f"--from JOB goes on with what it was sent: leave out --{', --'.join(hyperparameters)}")
        print(*_go_on(options), sep="\n")
        return
    for name in hyperparameters:
        near = nearest(dashed(name), options_of(parser))
        if near and name.replace("-", "_") not in {*OPTIONS, *OTHER_NAMES, *trainer_kinds()}:
            raise UserError(f"unknown argument --{name}: did you mean {near}?")
    print(*PLANNED[command](_planned(options, hyperparameters), options), sep="\n")
