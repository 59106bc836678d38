"""What this project has left in an account: whose it is, what it costs, and how it goes."""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kdhelpers.errors import UserError
from kdhelpers.sagemaker import cloud
from kdhelpers.sagemaker.plan import HOSTING, PRICES, PROJECT_TAG
from kdhelpers.sagemaker.sdk import aws_errors

# In the order in which they have to go.
KINDS = {"training_job": "TrainingJob", "endpoint": "Endpoint", "endpoint_config": "EndpointConfig", "model": "Model"}


@dataclass(frozen=True)
class Leftover:
    """Something in the account that carries this project's tag.

    `kind`: training_job, endpoint, endpoint_config, model, or files, with an s3:// folder as their name. `price`:
    USD an hour, None where it is not known or nothing is billed by the hour. `megabytes`: of files.
    """

    kind: str
    name: str
    owner: str | None
    created: datetime
    price: float | None = None
    megabytes: float | None = None

    def __str__(self) -> str:
        size = "" if self.megabytes is None else f", {self.megabytes:.1f} MB"
        price = "" if self.price is None else f", {self.price:.2f} USD an hour"
        return f"{self.kind} {self.name} {cloud.of_whom(self.owner, self.created)}{size}{price}"


@aws_errors()
def leftovers(region: str | None = None, files: bool = False) -> list[Leftover]:
    """Everybody's running jobs, endpoints, configurations and models with this project's tag.

    With `files` also what jobs and models that are over have in S3, apart from what a running job reads. Raises
    UserError.
    """
    session = cloud.boto_session(region)
    client, tagged = session.client("sagemaker"), _tagged(session)
    running = _running(client)
    found, places = [], {}
    for kind in KINDS:
        for name, tags in tagged[kind].items():
            if kind == "training_job" and name not in running and not files:
                continue
            facts = _describe(client, kind, name)
            if facts is None:  # deleted a moment ago, and its tags are still listed
                continue
            if kind != "training_job" or name in running:
                whose, price = tags.get("owner"), _price(client, kind, facts)
                found.append(Leftover(kind, name, whose, facts["CreationTime"], price))
            place = _folder(kind, name, facts)
            if files and place and name not in running:
                places[place] = tags.get("owner"), facts["CreationTime"]
    needed = [address for name in running & set(tagged["training_job"]) for address in _reads(client, name)]
    for place, (whose, created) in places.items():
        size = sum(item.size for item in _objects(session, place))
        if size and not any(address.startswith(place) for address in needed):
            found.append(Leftover("files", place, whose, created, megabytes=size / 1e6))
    return found


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


def _running(client: Any) -> set[str]:
    pages = client.get_paginator("list_training_jobs").paginate(StatusEquals="InProgress")
    return {job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]}


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


def _folder(kind: str, name: str, facts: dict) -> str | None:
    """The s3:// folder in which all lies that a job, or a model, has left."""
    if kind == "training_job":
        return f"{facts['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/"
    if kind == "model" and "ModelDataUrl" in facts.get("PrimaryContainer", {}):
        return facts["PrimaryContainer"]["ModelDataUrl"].rpartition("/")[0] + "/"
    return None


def _reads(client: Any, job: str) -> Iterator[str]:
    """The s3:// addresses that a running job needs, also where an earlier job has put them."""
    facts = _describe(client, "training_job", job) or {}
    for channel in facts.get("InputDataConfig", []):
        yield channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")
    yield facts.get("CheckpointConfig", {}).get("S3Uri", "")


def _objects(session: Any, folder: str) -> Any:
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    return session.resource("s3").Bucket(bucket).objects.filter(Prefix=prefix)


def delete_folder(session: Any, folder: str) -> None:
    """Delete all below an s3:// address that ends in a slash. `session`: boto3's."""
    _objects(session, folder).delete()


@aws_errors()
def clean(items: Collection[Leftover], region: str | None = None) -> None:
    """Stop running jobs, and delete the rest of `items`, in the order in which they can go.

    Raises UserError for what could not be deleted, after all the rest.
    """
    session = cloud.boto_session(region)
    delete_all(session.client("sagemaker"), [(item.kind, item.name) for item in items if item.kind != "files"])
    for item in items:
        if item.kind == "files":
            delete_folder(session, item.name)


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
            "python -m kdhelpers sagemaker clean --yes"
        )


def _delete(client: Any, kind: str, name: str) -> str | None:
    """Stop a job, or delete anything else; returns why it could not be done, None where it is gone.

    AWS does not delete an endpoint that is still being made: that is waited for.
    """
    from botocore.exceptions import BotoCoreError, ClientError, WaiterError

    verb = "stop" if kind == "training_job" else "delete"
    for _ in range(2):
        try:
            getattr(client, f"{verb}_{kind}")(**{f"{KINDS[kind]}Name": name})
            return None
        except (ClientError, BotoCoreError) as error:
            if "ould not find" in str(error):
                return None
            problem = str(error)
        if kind != "endpoint" or "progress" not in problem:
            break
        print(f"{name} is still being made, and can be deleted only then: waiting, some minutes", flush=True)
        with contextlib.suppress(WaiterError):
            client.get_waiter("endpoint_in_service").wait(EndpointName=name)
    return problem
