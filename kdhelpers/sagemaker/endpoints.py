"""A student behind an endpoint: serverless unless a machine is named, and gone at the end of the `with` block."""

import contextlib
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kdhelpers import models
from kdhelpers.errors import UserError, refuse
from kdhelpers.sagemaker import sdk
from kdhelpers.sagemaker.cloud import delete_folder, located
from kdhelpers.sagemaker.leftovers import delete_all
from kdhelpers.sagemaker.plan import HOSTING, SERVERLESS_SECOND, JobPlan
from kdhelpers.sagemaker.sdk import aws_errors, explain

MEMORY_MB = 3072  # a PyTorch student's worker takes 0.8 GiB; more memory is more of a processor, too


def endpoint_lines(plan: JobPlan, instance: str | None = None) -> list[str]:
    """What an endpoint will be and cost, before there is one. Raises UserError for one that makes no sense."""
    if plan.sound().price is not None and instance is None:
        raise UserError("--price is of the machine that --instance names: a serverless endpoint has none")
    if instance is None:
        if plan.subnets or plan.network_isolation:
            raise UserError("a serverless endpoint has no VPC and no isolation: name a machine, --instance ml.m5.large")
        thousand = 1000 * SERVERLESS_SECOND * MEMORY_MB / 1024
        return [
            f"endpoint  serverless, {MEMORY_MB} MB, in {plan.region}; the first answer after a pause takes longer",
            f"cost      nothing while nobody asks; about {thousand:.2f} USD for 1,000 seconds of answering",
        ]
    if instance.removeprefix("ml.").startswith(("g", "p", "inf", "trn")):
        raise UserError(f"{instance}: the student answers on the processor, and a GPU would idle: leave --instance out")
    refuse(sdk.machine_problems(instance, "ProductionVariantInstanceType"))
    price = HOSTING.get(instance) if plan.price is None else plan.price
    said = f"about {price:.2f} USD an hour" if price is not None else "not known (not in the table: give --price),"
    return [
        f"endpoint  1 x {instance}, in {plan.region}, deleted by this command at its end",
        f"cost      {said} from the moment it is in service until it is deleted, asked or not",
    ]


def pack(model: Path, folder: Path) -> Path:
    """A run's or an exported student's folder as the archive, below `folder`, that an endpoint unpacks.

    A run gives student/, an export its model and what reads it; beside them lies code/inference.py. The container
    has no onnxruntime: its start script installs what code/requirements.txt names. Raises UserError for other folders.
    """
    model, code = Path(model), folder / "archive" / "code"
    code.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("inference.py"), code)
    if (model / "export.json").is_file():
        for path in (*model.glob("model.*"), model / "tokenizer.json", model / "export.json"):
            shutil.copy(path, code.parent)
        shutil.copy(model / "predict.py", code)
        if (model / "model.onnx").is_file():  # for a static student the container has all that is needed
            (code / "requirements.txt").write_text(f"onnxruntime=={version('onnxruntime')}\n")  # what checked it
    elif (model / "student" / "config.json").is_file():
        config = json.loads((model / "student" / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") == models.StaticForSequenceClassification.kind:
            raise UserError(f"the container cannot load a static student: export {model}, and deploy the export")
        shutil.copytree(model / "student", code.parent / "student")
    else:
        raise UserError(f"{model} holds no student: name the output folder of a run, or of an export")
    return Path(shutil.make_archive(str(folder / "model"), "gztar", code.parent))


@contextlib.contextmanager
def endpoint(model: Path, plan: JobPlan, instance: str | None = None) -> Iterator[Callable[[list[str]], list[dict]]]:
    """Deploy the student of a run's or an export's folder (see `pack`); gives a function from texts to answers.

    Serverless, or on `instance`. At the end of the `with` block endpoint, configuration, model and archive are
    deleted, also when the block fails and when the endpoint never came up. Raises UserError.
    """
    endpoint_lines(plan, instance)
    if (plan.network_isolation or plan.subnets) and Path(model, "model.onnx").is_file():
        raise UserError(f"{model} needs onnxruntime, which its container fetches: without a network deploy the run")
    with tempfile.TemporaryDirectory() as place, aws_errors():
        packed = str(pack(model, Path(place)))
        plan, session = located(plan)
        client = session.boto_session.client("sagemaker")
        runtime = session.boto_session.client("sagemaker-runtime")
        name = f"{plan.name}-{secrets.token_hex(2)}-{time.strftime('%Y%m%d%H%M%S')}"
        folder = "/".join(filter(None, (session.default_bucket_prefix, plan.name, name)))

        def ask(texts: list[str]) -> list[dict]:
            body = json.dumps({"inputs": texts})
            answer = runtime.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=body)
            return json.loads(answer["Body"].read())

        made: list[tuple[str, str]] = []
        try:
            archive = _upload(packed, session.boto_session, plan, folder)
            for kind, request in _requests(plan, instance, name, archive, session).items():
                made.insert(0, (kind, name))  # before: Ctrl-C may come when AWS has made it, and not yet said so
                try:
                    getattr(client, f"create_{kind}")(**request)
                except client.exceptions.ClientError:
                    del made[0]
                    raise
            _wait(client, name)
            yield ask
        finally:
            try:
                delete_all(client, made)
            finally:
                delete_folder(session.boto_session, f"s3://{plan.bucket}/{folder}/")


def _upload(archive: str, session: Any, plan: JobPlan, folder: str) -> str:
    more = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": plan.kms_key} if plan.kms_key else {}
    session.client("s3").upload_file(archive, plan.bucket, f"{folder}/model.tar.gz", ExtraArgs=more)
    return f"s3://{plan.bucket}/{folder}/model.tar.gz"


def _requests(plan: JobPlan, instance: str | None, name: str, archive: str, session: Any) -> dict[str, dict]:
    """What model, configuration and endpoint of this name are made with, in their order: the plan's, else an
    administrator's defaults."""
    ours, theirs = sdk.defaults(session, "Model"), sdk.defaults(session, "EndpointConfig")
    tags = [{"Key": key, "Value": value} for key, value in (sdk.default_tags(session) | plan.all_tags).items()]
    image = sdk.image_address("inference", plan.region, instance or "ml.m5.large")
    model: dict[str, Any] = {
        "ExecutionRoleArn": plan.role,
        "PrimaryContainer": {"Image": image, "ModelDataUrl": archive},
    }
    place = plan.vpc or ours.get("VpcConfig")
    if place and instance:  # a serverless endpoint has none
        model["VpcConfig"] = place
    if instance and (plan.network_isolation or ours.get("EnableNetworkIsolation")):
        model["EnableNetworkIsolation"] = True
    how: dict[str, Any] = {"InstanceType": instance, "InitialInstanceCount": 1}
    if instance is None:
        how = {"ServerlessConfig": {"MemorySizeInMB": MEMORY_MB, "MaxConcurrency": 5}}
    config: dict[str, Any] = {"ProductionVariants": [{"VariantName": "all", "ModelName": name, **how}]}
    key = plan.kms_key or theirs.get("KmsKeyId")
    if key and instance:
        config["KmsKeyId"] = key
    return {
        "model": {"ModelName": name, "Tags": tags, **model},
        "endpoint_config": {"EndpointConfigName": name, "Tags": tags, **config},
        "endpoint": {"EndpointName": name, "EndpointConfigName": name, "Tags": tags},
    }


def _wait(client: Any, name: str) -> None:
    """Wait until an endpoint answers. Raises UserError."""
    from botocore.exceptions import WaiterError

    print(f"{name} is being made, some minutes; Ctrl-C deletes it", flush=True)
    try:
        client.get_waiter("endpoint_in_service").wait(EndpointName=name)
    except WaiterError as error:
        reason = client.describe_endpoint(EndpointName=name).get("FailureReason", str(error))
        raise UserError(explain("the endpoint did not come into service", reason)) from error
