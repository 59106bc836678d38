"""One training job on Amazon SageMaker: what it is, what it uploads, what is wrong with it, what it costs at most.

Nothing here needs AWS or its SDK.
"""

import dataclasses
import json
import logging
import math
import re
import typing
from dataclasses import dataclass
from pathlib import Path

from kdhelpers import data, distillation, models
from kdhelpers.errors import UserError, refuse
from kdhelpers.settings import FILES, OTHER_NAMES, ROW_FILES, dashed, read_value, settings_from
from kdhelpers.storage import cache_home

PROJECT_TAG = ("project", "distilling-bert")
OUR_TAGS = ("project", "owner", "continues")  # for AWS's rules capitals are the same
CHECKPOINTS = "/opt/ml/checkpoints"
INPUTS = "/opt/ml/input/data"

# USD an hour, on demand, us-east-1, as passed on to us in November 2026: edit them, or give --price.
PRICES = {"ml.g4dn.xlarge": 0.74, "ml.g6.xlarge": 1.13, "ml.g5.xlarge": 1.41}
PRICES_OF = "November 2026, us-east-1"
HOSTING = {"ml.m5.large": 0.115, "ml.m5.xlarge": 0.23, "ml.c5.large": 0.102}  # of endpoints' machines
SERVERLESS_SECOND = 0.00002  # USD a second of answering and GB of memory

MODELS = ("teacher", "student")
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
NOT_FOR_A_JOB = ("output", "checkpoints", "resume", "overwrite", "seeds")
SECRET_NAME = re.compile(r"(^|[_\W])(token|passw(or)?d|secret|credentials?|(api|access)[_-]?key)($|[_\W])", re.I)
SECRET_VALUE = re.compile(r"hf_\w{20,}|(AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,}|-----BEGIN")
ROLE_ARN = r"arn:aws[a-z\-]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+"
# what someone who signed in by SSO has, with its path and, where iam:GetRole is denied, without: not SageMaker's to use
RESERVED_ROLE = r"/aws-reserved/|role/AWSReservedSSO_"
TRACKING_SERVER = r"arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]+:\d{12}:mlflow-(app|tracking-server)/[\w\-]+|https?://\S+"
LONGEST = 28 * 24 * 60  # minutes
REGION = r"[a-z]{2,4}(-[a-z]+)+-\d+"
BUCKET = r"(?!(\d+\.){3}\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
RANGES = {  # the least and the most that can be given; of machines and prices that is our guess
    "shard_rows": (1, 10**9), "max_minutes": (1, LONGEST), "max_wait_minutes": (1, LONGEST), "volume_gb": (1, 16384),
    "keep_alive_minutes": (0, 360), "instances": (1, 1000), "price": (0.01, 10_000),
}  # fmt: skip
STAGES = ("distill", "label")
GPU_ONLY = ("tf32", "deepspeed", "fsdp", "fsdp_config")  # transformers refuses them on the reader's processor
LOOKED_AT = 1000  # so many rows are tokenised by a check: enough for what can be wrong


def _option(default: object, text: str) -> typing.Any:
    """A field of JobPlan with the help text that the command line shows."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class JobPlan:
    """A job, in full. Raises UserError for a value of the wrong kind; `check` says what else is wrong.

    `hyperparameters` are options of `distill`. Local files and folders among them are uploaded; what lies at an s3://
    address stays there: rows are files, teacher and student are folders.

    >>> JobPlan({"recipe": "sst2", "temperature": 4}, max_minutes=30).instance
    'ml.g5.xlarge'
    """

    hyperparameters: dict[str, object] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    stage: str = _option("distill", "What the job does: distill, or label (the teacher answers, and no more).")
    logits: str | None = _option(None, "The teacher's answers, from a label job or kdhelpers logits: s3:// or folder.")
    shard_rows: int = _option(10_000, "With --stage label: rows a shard; a finished shard stays.")
    instance: str = _option("ml.g5.xlarge", "Machine, with at least one GPU.")
    instances: int = _option(1, "With --stage label: how many machines share the rows.")
    processes: int | None = _option(None, "Processes under torchrun, one a GPU (default: as many as it has GPUs).")
    spot: bool = _option(False, "A spot machine: cheaper, and may be taken away.")
    max_minutes: int = _option(60, "Stop after so many minutes.")
    max_wait_minutes: int | None = _option(None, "With --spot: minutes of waiting and training together.")
    keep_checkpoints: bool = _option(False, "Keep checkpoints in S3 without --spot, too, for launch --from JOB.")
    keep_alive_minutes: int = _option(0, "Keep the machine, and pay, so long for a next job that starts at once.")
    volume_gb: int = _option(30, "Disk in GB, of a machine without one of its own.")
    name: str = _option("distilling-bert", "What the job's name begins with.")
    price: float | None = _option(None, "USD an hour of the machine, where yours differs from the table's.")
    region: str = _option("us-east-1", "AWS region (default: your configuration's, else us-east-1).")
    role: str | None = _option(None, "ARN of the job's role (default: KD_ROLE_ARN, or Studio's).")
    bucket: str | None = _option(None, "S3 bucket (default: your administrator's, else SageMaker's).")
    subnets: str | None = _option(None, "Subnets of your VPC to run in, separated by commas.")
    security_groups: str | None = _option(None, "Security groups there, separated by commas.")
    kms_key: str | None = _option(None, "KMS key that encrypts the results (and a disk that is no machine's own).")
    network_isolation: bool = _option(False, "No network for the container; the default recipe needs none.")
    mlflow: str | None = _option(None, "With --report-to mlflow: ARN of SageMaker's tracking server, or an address.")

    hub_secret: str | None = _option(None, "Name of the AWS secret with your Hugging Face token, for private models.")

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(JobPlan).items():
            value = getattr(self, name)
            if value is not None and name not in ("hyperparameters", "tags", "environment"):
                object.__setattr__(self, name, read_value(name, value, kind))

    def sound(self) -> "JobPlan":
        """The plan, for a command that uses some of its options. Raises UserError where one of these cannot be."""
        refuse([*_text_problems(self), *_account_problems(self)])
        return self

    @property
    def process_count(self) -> int:
        """The processes that the job starts: those that are asked for, else one a GPU."""
        return self.processes or gpus(self.instance) or 1

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the checkpoint folder is kept in S3: what a spot job goes on from, and where a label job answers."""
        return self.spot or self.keep_checkpoints or self.stage == "label"

    @property
    def all_environment(self) -> dict[str, str]:
        """The container's variables: the plan's own, the stage, and where MLflow is."""
        own = {} if self.stage == "distill" else {"KD_STAGE": self.stage, "KD_SHARD_ROWS": str(self.shard_rows)}
        if self.mlflow:
            own |= {"MLFLOW_TRACKING_URI": self.mlflow, "MLFLOW_EXPERIMENT_NAME": self.name}
        if self.hub_secret:
            own |= {"KD_HUB_SECRET": self.hub_secret, "AWS_DEFAULT_REGION": self.region}
        return self.environment | own

    @property
    def all_tags(self) -> dict[str, str]:
        """The plan's own tags and the project's, by which `clean` finds what is left."""
        return self.tags | dict([PROJECT_TAG])

    @property
    def vpc(self) -> dict[str, list[str]]:
        """The plan's own network, as AWS names its parts; {} for none."""
        both = {"Subnets": self.subnets, "SecurityGroupIds": self.security_groups}
        return {name: listed(text) for name, text in both.items() if text}

    @property
    def hourly_price(self) -> float | None:
        """USD an hour: the plan's own price, else the table's, else None."""
        return self.price if self.price is not None else PRICES.get(self.instance)


def quota_kinds(plan: JobPlan) -> list[str]:
    """What AWS calls the uses of the machine that have a quota each, for jobs like the plan's."""
    job = "spot training job" if plan.spot else "training job"
    return [job, "training warm pool"] if plan.keep_alive_minutes else [job]


def gpus(instance: str) -> int | None:
    """How many GPUs a machine has (AWS's instance pages, November 2026); None where that is not known here."""
    family, _, size = instance.removeprefix("ml.").partition(".")
    if family in ("g4dn", "g5", "g6", "g6e", "g7e"):
        return {"12xlarge": 2 if family == "g7e" else 4, "24xlarge": 4, "48xlarge": 8}.get(size, 1)
    if family in ("p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300"):
        return 1 if size == "4xlarge" else 8
    return None


def channels(plan: JobPlan, fetch: bool = False) -> dict[str, Path | str]:
    """What the job reads, by channel name: local files and folders, and s3:// addresses. Raises UserError.

    The snippets and the embedded backbone go with the job, so that the container has to download nothing. Without
    `fetch` an empty folder stands for a large model that is not on this machine yet.
    """
    settings = settings_from(plan.hyperparameters)
    # without a teacher's model the student is cut from the embedded one
    student = settings.student or (models.EMBEDDED_BACKBONE if settings.teacher_answers else None)
    named = {name: getattr(settings, name) for name in FILES} | settings.teachers
    named |= {"student": student, "logits": plan.logits}
    found = {name: _input(name, value, fetch) for name, value in named.items() if value is not None}
    if (settings.dataset_id or settings.source) in data.DATA_SETS:  # each is made from the snippets
        found["snippets"] = data.fetch_movie_snippets()
    return {name: place for name, place in found.items() if place is not None}


def _input(name: str, value: str, fetch: bool) -> Path | str | None:
    """Where an input lies, here or in S3; None for a model of the Hub. Raises UserError where it cannot be one."""
    if not fetch and _to_come(value):
        place = cache_home() / "models" / f"{value}-to-come"
        place.mkdir(parents=True, exist_ok=True)
        return place
    if name in FILES and value in data.OF_THE_PACKAGE:
        return data.located(value)
    endings = (*ENDINGS, ".txt") if name == "unlabelled" else ENDINGS
    if name in FILES and not value.lower().endswith(endings):
        raise UserError(f"{dashed(name)} {value}: rows are a file whose name ends in {' or '.join(endings)}")
    if value.startswith("s3://"):
        if not re.fullmatch("s3://[a-z0-9][a-z0-9.-]*" + ("/.+" if name in FILES else "(/.*)?"), value):
            raise UserError(f"{dashed(name)} {value}: an address is s3://, a bucket's name, and a place in it")
        return value
    place = Path(value if name in (*FILES, "logits") else models.locate(value)).expanduser()
    if name in FILES and not place.is_file():
        raise UserError(f"no file {value}")
    if name == "logits" and not any((*place.glob("*/dataset_info.json"), *place.glob("shards-*/*.npy"))):
        raise UserError(f"{value} holds no logits: name the --output of python -m kdhelpers logits")
    return place if place.exists() else None


def _to_come(value: str) -> bool:
    """Whether this is the large model that we name, and it has yet to be downloaded."""
    return value == models.MPNET_BASE and not models.mpnet_is_cached()


def _of_the_hub(plan: JobPlan) -> list[str]:
    settings, inputs = settings_from(plan.hyperparameters), channels(plan)
    models_of = settings.teachers | ({"student": settings.student} if settings.student else {})
    found = [value for name, value in models_of.items() if name not in inputs and value != "static"]
    return found + ([str(settings.dataset_id)] if settings.source == "hub" and "snippets" not in inputs else [])


def downloads(plan: JobPlan) -> list[str]:
    """What the job would have to fetch from the Hub, or install, while it runs: impossible without a network."""
    more = {"sagemaker-mlflow": plan.mlflow, "the secret": plan.hub_secret}
    return _of_the_hub(plan) + [name for name, wanted in more.items() if wanted]


def not_looked_at(plan: JobPlan) -> list[str]:
    """What of the plan is not on this machine, and so is not checked before the job; in words. Raises UserError."""
    settings, inputs = settings_from(plan.hyperparameters), channels(plan)
    found = [f"{name} of the Hub" for name in _of_the_hub(plan)]
    found += [path for path in inputs.values() if isinstance(path, str)]
    named = [*settings.teachers.values(), settings.student or ""]
    found += [f"{name}, which is downloaded at the launch" for name in dict.fromkeys(named) if _to_come(name)]
    return found + [f"{dashed(name)}, which needs a GPU" for name in settings.trainer_options if name in GPU_ONLY]


def _look(plan: JobPlan) -> None:
    """All that `distill` refuses before it trains, as far as what it reads is on this machine. Raises UserError.

    Nothing is said meanwhile, in no precision but fp32, and without a tracking server or options that need a GPU.
    """
    settings, inputs = settings_from(plan.hyperparameters), channels(plan)
    away = [*_of_the_hub(plan), *(name for name, path in inputs.items() if isinstance(path, str) and name != "logits")]
    if away or any(map(_to_come, (*settings.teachers.values(), settings.student or ""))):
        for name in ROW_FILES:
            if isinstance(inputs.get(name), Path):
                label = None if name == "unlabelled" else settings.label_column
                columns = settings.text_column, label, settings.text_pair_column, settings.separator
                data.read_file(str(inputs[name]), *columns)
        return
    aside = (*GPU_ONLY, "report_to") if plan.mlflow else GPU_ONLY
    options = {name: value for name, value in settings.trainer_options.items() if name not in aside}
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        distillation.look(dataclasses.replace(settings, precision="fp32", trainer_options=options), most=LOOKED_AT)
    finally:
        logging.disable(level)


def option_name(spelt: str) -> str:
    """An option's one name, however it is spelt: teacher-id -> teacher."""
    name = spelt.replace("-", "_")
    return OTHER_NAMES.get(name, name)


def container_hyperparameters(plan: JobPlan) -> dict[str, str]:
    """The hyperparameters as the container reads them: inputs by their place in it, and where checkpoints go."""
    text = {option_name(name): str(value) for name, value in plan.hyperparameters.items() if value is not None}
    inputs, settings = channels(plan), settings_from(plan.hyperparameters)
    for name, path in inputs.items():
        if name in FILES:
            text[name] = f"{INPUTS}/{name}/{Path(path).name}"
        elif name in MODELS:
            text[name] = f"{INPUTS}/{name}"
    # there a model has another name, which would put the recipe's word aside
    kept = ["student_layers"] if "student" in inputs else []
    if {*MODELS} & {*inputs}:
        kept += ["control_learning_rate", "control_dropout"]
    text |= {name: str(value) for name in kept if (value := getattr(settings, name)) is not None}
    if settings.ensemble:
        text.pop("ensemble", None)
        places = [f"{INPUTS}/{key}" if key in inputs else name for key, name in settings.teachers.items()]
        text["teacher"] = json.dumps(places)
    return text | {"checkpoints": CHECKPOINTS}


def plan_problems(plan: JobPlan) -> list[str]:
    """What AWS, the SDK or the training script would refuse, a sentence each, as far as it shows here.

    Rows and models, which take seconds, are looked at when all else is right.
    """
    problems = [*_run_problems(plan), *_text_problems(plan), *_machine_problems(plan), *_account_problems(plan)]
    try:
        if not problems:
            _look(plan)
    except UserError as error:
        problems.append(str(error))
    return problems


def _run_problems(plan: JobPlan) -> list[str]:
    """What `distill` would say once the machine is paid for."""
    try:
        settings, inputs = settings_from(plan.hyperparameters), channels(plan)
        settings_from(container_hyperparameters(plan))
        parent = inputs.get("student" if settings.student else "teacher")
        if settings.student_layers and isinstance(parent, Path) and any(parent.iterdir()):
            models.evenly_spaced_layers(models.load_config(str(parent)).num_hidden_layers, settings.student_layers)
        if plan.stage == "label" and (settings.ensemble or settings.teacher_answers):
            return ["a label job asks one teacher: label with each, and teach their mean afterwards"]
        teacher = inputs.get("teacher")
        if plan.stage == "label" and isinstance(teacher, Path) and any(teacher.iterdir()):
            distillation.require_head(str(teacher))
        reports = "mlflow" in str(settings.trainer_options.get("report_to", "none"))
        if reports != (plan.mlflow is not None):
            return ["--report-to mlflow and --mlflow go together: the second says where the tracking server is"]
    except UserError as error:
        return [str(error)]
    return []


def _text_problems(plan: JobPlan) -> list[str]:
    """What may not stand in hyperparameters and tags, which everyone who may describe the job can read."""
    problems = []
    for name, value in plan.hyperparameters.items():
        if option_name(name) in NOT_FOR_A_JOB:
            problems.append(f"hyperparameter {name} is not for a job: leave it out")
        if "'" in f"{name}{value}" or len(str(value)) > 2500:
            problems.append(f"hyperparameter {name} has a single quote, which the SDK cannot pass on, or is too long")
    for name, value in plan.tags.items():
        ours = name.lower() in OUR_TAGS and name != "owner" and (name, value) != PROJECT_TAG
        if ours or name.lower().startswith("aws:"):
            problems.append(f"tag {name} is AWS's or this project's own: choose another name")
        if not re.fullmatch(r"[\w .:/=+@-]{1,128}", name) or not re.fullmatch(r"[\w .:/=+@-]{0,256}", value):
            problems.append(f"tag {name} is too long, or has letters that AWS does not take")
    for name in plan.environment:
        if not re.fullmatch(r"(?a)[A-Za-z_]\w{0,511}", name) or name.startswith("KD_") or "'" in plan.environment[name]:
            problems.append(f"environment {name} is the job's own, or no name, or has a quote in its value")
    for name, value in [*plan.hyperparameters.items(), *plan.tags.items(), *plan.environment.items()]:
        if SECRET_NAME.search(name) or SECRET_VALUE.search(str(value)):
            problems.append(f"{name} looks like a secret, and whoever may describe the job can read it: leave it out")
    return problems


def _machine_problems(plan: JobPlan) -> list[str]:
    has, wait = gpus(plan.instance), plan.max_wait_minutes
    dropped = plan.instance.startswith(("ml.p2.", "ml.p3.", "ml.p3dn."))
    wrong = {
        f"--stage {plan.stage}: it is one of {', '.join(STAGES)}": plan.stage not in STAGES,
        f"--instances {plan.instances}: a job that trains has one machine; more than one is for --stage label":
            plan.instances > 1 and plan.stage != "label",
        f"{plan.instance} has {has} GPUs, and a label job uses one of each machine: take more machines with one GPU":
            plan.stage == "label" and has not in (None, 1),
        f"--keep-alive-minutes {plan.keep_alive_minutes}: AWS takes none with --spot":
            plan.spot and plan.keep_alive_minutes > 0,
        f"{plan.instance} has a GPU that the image's CUDA 13 has dropped: take one of {', '.join(PRICES)}": dropped,
        f"--processes {plan.processes}, and {plan.instance} has {has} GPU(s): one process a GPU; leave --processes out":
            plan.processes is not None and (plan.processes < 1 or has not in (None, plan.processes)),
        f"how many GPUs {plan.instance} has is not known here: say it with --processes, one process a GPU":
            plan.processes is None and has is None and bool(re.match(r"ml\.[gp]\d", plan.instance)) and not dropped,
        f"--max-wait-minutes {wait} without --spot: only a spot job waits": wait is not None and not plan.spot,
        f"--max-wait-minutes {wait}: a spot job needs it, {plan.max_minutes} or more, waiting and training together":
            plan.spot and (wait or 0) < plan.max_minutes,
    }  # fmt: skip
    return [sentence for sentence, is_so in wrong.items() if is_so]


def _account_problems(plan: JobPlan) -> list[str]:
    given = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    found = [f"{dashed(name)} is empty: leave it out, or fill it in" for name, value in given.items() if value == ""]
    for name, (least, most) in RANGES.items():
        if given[name] is not None and not least <= given[name] <= most:
            found.append(f"{dashed(name)} {given[name]}: it can be {least} to {most}")
    return found or _name_problems(plan)


def _name_problems(plan: JobPlan) -> list[str]:
    groups = {"subnet": plan.subnets, "sg": plan.security_groups}
    wrong = {
        f"the job's name {plan.name!r} may have small letters, digits and hyphens, 42 at most: the time is added to it":
            not re.fullmatch(r"[a-z0-9](-*[a-z0-9]){0,41}", plan.name),
        f"the role {plan.role!r} is no ARN such as arn:aws:iam::123456789012:role/NAME":
            plan.role is not None and not re.fullmatch(ROLE_ARN, plan.role),
        f"{plan.role} is for signing in by SSO, and SageMaker may not use it: sagemaker rights makes another":
            plan.role is not None and bool(re.search(RESERVED_ROLE, plan.role)),
        f"--kms-key {plan.kms_key}: it is an id, an ARN or alias/NAME":
            plan.kms_key is not None and not re.fullmatch(r"[\w:/-]+", plan.kms_key, re.ASCII),
        f"{plan.bucket!r} is no bucket's name: give it without s3://, in small letters, digits, dots and hyphens":
            plan.bucket is not None and not re.fullmatch(BUCKET, plan.bucket),
        f"{plan.region!r} is no region such as us-east-1: check --region and AWS_DEFAULT_REGION":
            not re.fullmatch(REGION, plan.region),
        "--subnets and --security-groups go together, e.g. subnet-0a1b2c3d and sg-0a1b2c3d":
            (plan.subnets is None) != (plan.security_groups is None)
            or any(not re.fullmatch(rf"{kind}-[0-9a-f]+", part)
                   for kind, text in groups.items() if text is not None for part in listed(text)),
        f"--hub-secret {plan.hub_secret}: a name or ARN of AWS Secrets Manager's, not the token itself":
            plan.hub_secret is not None and (not re.fullmatch(r"[\w/+=.@:-]{1,512}", plan.hub_secret)
                                             or bool(SECRET_VALUE.search(plan.hub_secret))),
        f"--mlflow {plan.mlflow}: it is the ARN of a tracking server or app of SageMaker's, or an http address":
            plan.mlflow is not None and not re.fullmatch(TRACKING_SERVER, plan.mlflow),
    }  # fmt: skip
    return [sentence for sentence, is_so in wrong.items() if is_so]


def listed(text: str) -> list[str]:
    """The parts of "a, b": ["a", "b"]."""
    return [part.strip() for part in text.split(",")]


def most_expensive(plan: JobPlan) -> float | None:
    """USD that the machines can cost at most, to the next full cent: time limit and warm pool at the full price.

    Spot is cheaper, never dearer. None where the price is not known.
    """
    price, minutes = plan.hourly_price, plan.max_minutes + plan.keep_alive_minutes
    return None if price is None else math.ceil(round(100 * price * plan.instances * minutes / 60, 6)) / 100


def plan_lines(plan: JobPlan) -> list[str]:
    """The plan, for the reader to look at before anything happens."""
    kind = f"spot, {plan.max_wait_minutes} minutes at most with waiting" if plan.spot else "on demand"
    processes = f", {plan.process_count} processes under torchrun" if plan.process_count > 1 else ""
    kept = f", then kept {plan.keep_alive_minutes} minutes for a next job" if plan.keep_alive_minutes else ""
    uploads, there = ["the code"], ""
    for name, path in channels(plan).items():
        if isinstance(path, str):
            there += f"; {name} stays at {path}"
        else:
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            size = f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"
            uploads.append(f"{name} {size if files else 'which is downloaded first (405 MB)'}")
    options = [f"--{name} {value}" for name, value in plan.hyperparameters.items()]
    return [
        f"job       {plan.name}-(time), in {plan.region}, role {plan.role or '(found at launch)'}",
        f"machine   {plan.instances} x {plan.instance}, {kind}{processes}, "
        f"stopped after {plan.max_minutes} minutes{kept}",
        " ".join([f"runs      {plan.stage}", *options]),
        f"uploads   {', '.join(uploads)}, to {plan.bucket or 'your SageMaker bucket'}{there}",
        *_network_lines(plan),
        f"tags      {', '.join(f'{name}={value}' for name, value in ({'owner': '(you)'} | plan.all_tags).items())}",
        "time      not known before a run: one on 5 % of the rows (--rows N) tells you; the limit bounds it",
        *cost_lines(plan),
    ]


def _network_lines(plan: JobPlan) -> list[str]:
    place = f"in {plan.subnets} of your VPC" if plan.subnets else ""
    words = [place, "no network for the container" if plan.network_isolation else ""]
    lines = [f"network   {', '.join(filter(None, words))}"] if any(words) else []
    return lines + bucket_lines(plan.bucket or "sagemaker")


def bucket_lines(bucket: str) -> list[str]:
    """What is to be known of a bucket that AWS's own policy for SageMaker does not open."""
    if "sagemaker" in bucket:
        return []
    return [
        "note      AmazonSageMakerFullAccess opens only buckets with sagemaker in their name:",
        f"          {bucket} needs a policy of its own (sagemaker rights)",
    ]


def cost_lines(plan: JobPlan) -> list[str]:
    """What the plan's machines can cost at most, and what that leaves out."""
    if plan.hourly_price is None:
        return [f"cost      not known: the price of {plan.instance} is not in the table; give --price"]
    minutes = plan.max_minutes + plan.keep_alive_minutes
    hours = f"{minutes} minutes at {plan.instances * plan.hourly_price:.2f} an hour"
    kept = "what was uploaded, the checkpoints" if plan.keeps_checkpoints else "what was uploaded"
    dated = [] if plan.price is not None else [f"          by prices of {PRICES_OF}: look yours up, and give --price"]
    return [
        f"cost      at most {most_expensive(plan):.2f} USD ({hours})",
        *dated,
        "          not in it: 2 minutes in which AWS lets a stopped job end, and the upload of its model,",
        "          which are billed like the rest; and S3, cents a month:",
        f"          {kept} and the results stay until sagemaker clean --s3 --yes",
    ]
