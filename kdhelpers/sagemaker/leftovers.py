"""What this project has left in an account: whose it is, what it costs, and how it goes."""

import contextlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kdhelpers.errors import UserError
from kdhelpers.sagemaker import cloud
from kdhelpers.sagemaker.plan import HOSTING, PRICES, PROJECT_TAG
from kdhelpers.sagemaker.sdk import aws_errors

TAGS_LAG = timedelta(hours=1)  # AWS's list of tags is minutes behind; with room to spare
# In the order in which they have to go.
KINDS = {"training_job": "TrainingJob", "endpoint": "Endpoint", "endpoint_config": "EndpointConfig", "model": "Model"}


@dataclass(frozen=True)
class Leftover:
    """Something in the account that carries this project's tag.

    `kind`: training_job, warm_pool, endpoint, endpoint_config, model, or files, with an s3:// folder as their name.
    `price`: USD an hour, None where it is not known or nothing is billed by the hour. `megabytes`: of files, and what
    they hold.
    """

    kind: str
    name: str
    owner: str | None
    created: datetime
    price: float | None = None
    megabytes: float | None = None
    holds: str = ""

    def __str__(self) -> str:
        size = "" if self.megabytes is None else f", {self.megabytes:.1f} MB: {self.holds}"
        price = "" if self.price is None else f", {self.price:.2f} USD an hour"
        return f"{self.kind} {self.name} {cloud.of_whom(self.owner, self.created)}{size}{price}"


@aws_errors()
def leftovers(region: str | None = None, files: bool = False) -> list[Leftover]:
    """Everybody's running jobs, warm pools, endpoints, configurations and models with this project's tag.

    With `files` also what jobs and models that are over have in S3, apart from what running jobs and endpoints read.
    AWS's list of tags can be minutes behind: what runs is looked up beside it. Raises UserError.
    """
    session = cloud.boto_session(region)
    client = session.client("sagemaker")
    running = _jobs(client, StatusEquals=("InProgress", "Stopping"))
    warm = _jobs(client, WarmPoolStatusEquals=("Available",))
    tagged = _tagged(session)
    _add_what_runs(client, tagged, running)
    found: list[Leftover] = []
    places: dict[str, tuple] = {}
    for kind in KINDS:
        for name, tags in tagged[kind].items():
            is_job, billed = kind == "training_job", name in running or name in warm
            if is_job and not (billed or files):
                continue
            facts = _describe(client, kind, name)
            if facts is None:  # deleted a moment ago, and its tags are still listed
                continue
            whose, created = tags.get("owner"), facts["CreationTime"]
            if billed or not is_job:
                what = "warm_pool" if is_job and name not in running else kind
                found.append(Leftover(what, name, whose, created, _price(client, kind, facts)))
            if files and not (is_job and name in running):
                places |= dict.fromkeys(_folders(kind, name, facts), (whose, created))
    return found + (_files(session, tagged, running, places) if files else [])


def _jobs(client: Any, **states: tuple[str, ...]) -> dict[str, dict]:
    """All jobs that are in one of some states: by name, AWS's summary of them."""
    ((field, values),) = states.items()
    pages = [page for value in values for page in client.get_paginator("list_training_jobs").paginate(**{field: value})]
    return {job["TrainingJobName"]: job for page in pages for job in page["TrainingJobSummaries"]}


def _tagged(session: Any) -> dict[str, dict[str, dict[str, str]]]:
    """All that carries the project's tag: by kind and name, its tags. One question for a hundred of them."""
    found: dict[str, dict] = {kind: {} for kind in KINDS}
    types = {f"sagemaker:{kind.replace('_', '-')}": kind for kind in KINDS}
    pages = session.client("resourcegroupstaggingapi").get_paginator("get_resources")
    wanted = {"Key": PROJECT_TAG[0], "Values": [PROJECT_TAG[1]]}
    for page in pages.paginate(TagFilters=[wanted], ResourceTypeFilters=list(types)):
        for item in page["ResourceTagMappingList"]:
            kind, _, name = item["ResourceARN"].split(":", 5)[5].partition("/")
            found[types[f"sagemaker:{kind}"]][name] = {tag["Key"]: tag["Value"] for tag in item["Tags"]}
    return found


def _add_what_runs(client: Any, tagged: dict, running: dict[str, dict]) -> None:
    """Add running jobs and endpoints of the last hour, which the list of tags may not have yet.

    Of what is older the list is complete: no question is asked about other projects' jobs and endpoints.
    """
    since = datetime.now(UTC) - TAGS_LAG
    for name, job in running.items():
        if job["CreationTime"] >= since:
            _add(client, tagged["training_job"], name, job["TrainingJobArn"])
    for page in client.get_paginator("list_endpoints").paginate(CreationTimeAfter=since):
        for item in page["Endpoints"]:
            _add(client, tagged["endpoint"], item["EndpointName"], item["EndpointArn"])


def _add(client: Any, known: dict, name: str, arn: str) -> None:
    tags = {} if name in known else cloud.tags_of(client, arn)
    if tags.get(PROJECT_TAG[0]) == PROJECT_TAG[1]:
        known[name] = tags


def _describe(client: Any, kind: str, name: str) -> dict | None:
    from botocore.exceptions import ClientError

    try:
        return getattr(client, f"describe_{kind}")(**{f"{KINDS[kind]}Name": name})
    except ClientError as error:
        if "ould not find" in str(error) or "not found" in str(error):
            return None
        raise


def _price(client: Any, kind: str, facts: dict) -> float | None:
    if kind == "training_job":
        machines = facts["ResourceConfig"]
        price = PRICES.get(machines.get("InstanceType", ""))
        return None if price is None else price * machines.get("InstanceCount", 1)
    if kind == "endpoint":
        config = _describe(client, "endpoint_config", facts["EndpointConfigName"]) or {}
        machines = [variant.get("InstanceType") for variant in config.get("ProductionVariants", [])]
        prices = [0.0 if name is None else HOSTING.get(name) for name in machines]  # serverless: nothing while idle
        return None if None in prices or not prices else sum(filter(None, prices))
    return None


# --- files


def _addresses(facts: dict) -> list[str]:
    """Every s3:// address that a job reads or writes, or that a model is unpacked from."""
    found = [channel["DataSource"].get("S3DataSource", {}).get("S3Uri") for channel in facts.get("InputDataConfig", [])]
    found += [facts.get("CheckpointConfig", {}).get("S3Uri"), facts.get("PrimaryContainer", {}).get("ModelDataUrl")]
    if "OutputDataConfig" in facts:
        found.append(f"{facts['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{facts.get('TrainingJobName')}/")
    return [address for address in found if address]


def _folders(kind: str, name: str, facts: dict) -> set[str]:
    """The s3:// folders of a job's or a model's own: those of its name, and no other."""
    if kind not in ("training_job", "model"):
        return set()
    return {address.split(f"/{name}/")[0] + f"/{name}/" for address in _addresses(facts) if f"/{name}/" in address}


def _files(session: Any, tagged: dict, running: Collection[str], places: dict) -> list[Leftover]:
    """The folders that hold something which nothing that runs will read."""
    client, needed = session.client("sagemaker"), []
    for name in set(running) & set(tagged["training_job"]):
        needed += _addresses(_describe(client, "training_job", name) or {})
    for name in tagged["endpoint"]:
        needed += _addresses(_describe(client, "model", name) or {})
    found = []
    for place, (whose, created) in places.items():
        if any(address.startswith(place) for address in needed):
            continue
        with contextlib.suppress(UserError), aws_errors():  # a bucket that is gone, or is not ours to see
            keys = [(item.key, item.size) for item in cloud.objects_below(session, place)]
            if keys:
                size = sum(size for _, size in keys) / 1e6
                found.append(Leftover("files", place, whose, created, megabytes=size, holds=_contents(place, keys)))
    return found


def _contents(place: str, keys: list[tuple[str, int]]) -> str:
    """What of value a folder holds, in words."""
    names = [key.split(place.split("/", 3)[3], 1)[1] for key, _ in keys]
    kinds = {
        "a student": any(name.endswith("model.tar.gz") for name in names),
        "a teacher's answers": any("/shards-" in name for name in names),
        "checkpoints": any(name.startswith("checkpoints/run") for name in names),
    }
    return " and ".join(kind for kind, there in kinds.items() if there) or "what was uploaded"


# --- cleaning up


@aws_errors()
def clean(items: Collection[Leftover], region: str | None = None) -> None:
    """Stop running jobs, end warm pools, and delete the rest of `items`, in the order in which they can go.

    A model's archive goes with it. Raises UserError for what could not be deleted, after all the rest.
    """
    session = cloud.boto_session(region)
    client = session.client("sagemaker")
    folders = [item.name for item in items if item.kind == "files"]
    for item in items:
        if item.kind == "model":
            folders += _folders("model", item.name, _describe(client, "model", item.name) or {})
    try:
        delete_all(client, [(item.kind, item.name) for item in items if item.kind != "files"])
    finally:
        for folder in folders:
            cloud.delete_folder(session, folder)


@aws_errors()
def mine(items: Collection[Leftover], region: str | None = None, whose: str | None = None) -> list[Leftover]:
    """Those of `items` that are one's own, or of the owner `whose`."""
    name = whose or cloud.owner(region)
    return [item for item in items if item.owner == name]


def delete_all(client: Any, items: list[tuple[str, str]]) -> None:
    """Delete one after the other. What an endpoint needs stays as long as the endpoint: without it, it gets stuck."""
    left: dict[str, str] = {}
    for kind, name in items:
        problem = None if name in left else _delete(client, kind, name)
        if problem:
            left[name] = f"{kind} {name} ({problem})"
    if left:
        raise UserError(
            f"not deleted, and perhaps costing money: {'; '.join(left.values())}; afterwards "
            f"python -m kdhelpers sagemaker clean {' '.join(left)} --region {client.meta.region_name} --yes"
        )


def _delete(client: Any, kind: str, name: str) -> str | None:
    """Stop a job, or delete anything else; returns why it could not be done, None where it is gone.

    AWS does not delete an endpoint that is still being made: that is waited for.
    """
    from botocore.exceptions import BotoCoreError, ClientError, WaiterError

    for _ in range(2):
        try:
            if kind == "warm_pool":
                client.update_training_job(TrainingJobName=name, ResourceConfig={"KeepAlivePeriodInSeconds": 0})
            else:
                verb = "stop" if kind == "training_job" else "delete"
                getattr(client, f"{verb}_{kind}")(**{f"{KINDS[kind]}Name": name})
            return None
        except (ClientError, BotoCoreError) as error:
            problem = str(error)
            if re.search("ould not find|not found|job is in status", problem):  # gone, or over, meanwhile
                return None
        if kind != "endpoint" or "progress" not in problem:
            break
        print(f"{name} is still being made, and can be deleted only then: waiting, some minutes", flush=True)
        try:
            with contextlib.suppress(WaiterError):
                client.get_waiter("endpoint_in_service").wait(EndpointName=name)
        except KeyboardInterrupt:
            return "still being made, and no longer waited for"
    return problem
