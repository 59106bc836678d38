"""Which calls the commands make to AWS, and the least rights that they and the job's role need.

`CALLS` is held against the calls that a recorded run of every command makes (`tests.tools.aws_calls`).
"""

import json
from pathlib import Path
from typing import NamedTuple

from kdhelpers.errors import UserError
from kdhelpers.sagemaker.plan import PROJECT_TAG, JobPlan
from kdhelpers.storage import require_free

ROLE_NAME = "distilling-bert"


class Call(NamedTuple):
    """One kind of call to AWS. `operation`: service and operation, as botocore names them."""

    operation: str
    right: str  # IAM's name for it
    commands: str
    cost: str = ""


JOBS, MAKE = "launch, label", "launch, label, endpoint"
CALLS = (
    Call("sts GetCallerIdentity", "none is needed", MAKE + ", clean"),
    Call("iam SimulatePrincipalPolicy", "none is needed", JOBS + ": the SDK, which goes on where it is refused"),
    Call("s3 ListBuckets", "s3:ListAllMyBuckets", MAKE + ": the SDK"),
    Call("s3 HeadBucket", "s3:ListBucket", MAKE),
    Call("s3 CreateBucket", "s3:CreateBucket", MAKE + ", where SageMaker's bucket is missing"),
    Call("s3 PutObject", "s3:PutObject", MAKE, "cents a month until clean --s3"),
    Call("s3 ListObjectsV2", "s3:ListBucket", MAKE + ", with an administrator's prefix"),
    Call("s3 ListObjects", "s3:ListBucket", "clean --s3, endpoint"),
    Call("s3 DeleteObjects", "s3:DeleteObject", "clean --s3, endpoint"),
    Call("s3 HeadObject", "s3:GetObject", "status --output"),
    Call("s3 GetObject", "s3:GetObject", "status --output", "traffic out of AWS: cents a GB"),
    Call("service-quotas ListServiceQuotas", "servicequotas:ListServiceQuotas", JOBS + "; left out where refused"),
    Call("sagemaker CreateTrainingJob", "sagemaker:CreateTrainingJob", JOBS, "the machines, by time"),
    Call("sagemaker DescribeTrainingJob", "sagemaker:DescribeTrainingJob", JOBS + ", status, clean"),
    Call("sagemaker ListTags", "sagemaker:ListTags", "status"),
    Call("sagemaker ListTrainingJobs", "sagemaker:ListTrainingJobs", "clean"),
    Call("sagemaker StopTrainingJob", "sagemaker:StopTrainingJob", "clean --yes"),
    Call("resourcegroupstaggingapi GetResources", "tag:GetResources", "clean"),
    Call("sagemaker CreateModel", "sagemaker:CreateModel", "endpoint"),
    Call("sagemaker CreateEndpointConfig", "sagemaker:CreateEndpointConfig", "endpoint"),
    Call("sagemaker CreateEndpoint", "sagemaker:CreateEndpoint", "endpoint",
         "serverless: by the second of answering; with --instance: the machine until it is deleted"),
    Call("sagemaker DescribeEndpoint", "sagemaker:DescribeEndpoint", "endpoint, clean"),
    Call("sagemaker DescribeEndpointConfig", "sagemaker:DescribeEndpointConfig", "clean"),
    Call("sagemaker DescribeModel", "sagemaker:DescribeModel", "clean"),
    Call("sagemaker-runtime InvokeEndpoint", "sagemaker:InvokeEndpoint", "endpoint", "serverless: its seconds"),
    Call("sagemaker DeleteEndpoint", "sagemaker:DeleteEndpoint", "endpoint, clean --yes"),
    Call("sagemaker DeleteEndpointConfig", "sagemaker:DeleteEndpointConfig", "endpoint, clean --yes"),
    Call("sagemaker DeleteModel", "sagemaker:DeleteModel", "endpoint, clean --yes"),
)  # fmt: skip

# rights that are not of one resource
LISTS = ("s3:ListAllMyBuckets", "sagemaker:ListTrainingJobs", "tag:GetResources", "servicequotas:ListServiceQuotas")
ENDING = ("sagemaker:Stop", "sagemaker:Delete")


def _statement(actions: list[str], resource: str | list[str], condition: dict | None = None) -> dict:
    more = {"Condition": condition} if condition else {}
    return {"Effect": "Allow", "Action": sorted(set(actions)), "Resource": resource} | more


def _bucket(bucket: str) -> list[str]:
    return [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


def trust() -> dict:
    """Who may use the role: SageMaker, and nobody else."""
    statement = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def role_policy(bucket: str) -> dict:
    """What the job's and the endpoint's role may do: files of the bucket, the image, logs and metrics."""
    s3 = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation"]
    image = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
    logs = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
    statements = [
        _statement(s3, _bucket(bucket)),
        _statement(image, "arn:aws:ecr:*:*:repository/huggingface-pytorch-*"),
        _statement(["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"], "*"),
        _statement(logs, "arn:aws:logs:*:*:log-group:/aws/sagemaker/*"),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def user_policy(bucket: str) -> dict:
    """What the person at the keyboard may do: the calls of this package; end only what carries its tag."""
    rights = [call.right for call in CALLS if ":" in call.right]
    s3 = [right for right in rights if right.startswith("s3:") and right not in LISTS]
    ending = [right for right in rights if right.startswith(ENDING)]
    other = [right for right in (*rights, "sagemaker:AddTags") if right not in (*s3, *ending, *LISTS)]
    pass_on = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    tagged = {"StringEquals": {f"aws:ResourceTag/{PROJECT_TAG[0]}": PROJECT_TAG[1]}}
    statements = [
        _statement([*s3, "s3:GetBucketLocation"], _bucket(bucket)),
        _statement(other, "arn:aws:sagemaker:*:*:*"),
        _statement(ending, "arn:aws:sagemaker:*:*:*", tagged),
        _statement(list(LISTS), "*"),
        _statement(["iam:PassRole"], f"arn:aws:iam::*:role/{ROLE_NAME}", pass_on),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def write_rights(folder: Path, plan: JobPlan) -> list[str]:
    """Write the three policies as JSON, and return the commands that make bucket, role and quota with them.

    Nothing is sent to AWS: whoever runs the account reads the files, and runs the commands. Raises UserError.
    """
    bucket = plan.bucket or "sagemaker-distilling-bert-CHANGE-ME"
    if plan.bucket and "*" in plan.bucket:
        raise UserError("name one bucket: rights to all of them are more than a job needs")
    require_free(folder, overwrite=False)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"trust": trust(), "role": role_policy(bucket), "user": user_policy(bucket)}
    for name, policy in files.items():
        (folder / f"{name}.json").write_text(json.dumps(policy, indent=2) + "\n", encoding="utf-8")
    kind = "spot training job" if plan.spot else "training job"
    return [
        f"# a bucket, in {plan.region}; with sagemaker in its name AWS's own policies open it, too",
        f"aws s3 mb s3://{bucket} --region {plan.region}",
        "# the role that jobs and endpoints run as",
        f"aws iam create-role --role-name {ROLE_NAME} --assume-role-policy-document file://{folder}/trust.json",
        f"aws iam put-role-policy --role-name {ROLE_NAME} --policy-name job --policy-document file://{folder}/role.json",
        "# your own rights, where you are not the account's administrator",
        f"aws iam put-user-policy --user-name YOU --policy-name {ROLE_NAME} --policy-document file://{folder}/user.json",
        f"# a new account's quota for GPUs is 0: look for the code of '{plan.instance} for {kind} usage', ask for 1",
        "aws service-quotas list-service-quotas --service-code sagemaker --region " + plan.region
        + f" --query \"Quotas[?QuotaName=='{plan.instance} for {kind} usage'].[QuotaCode,Value]\"",
        f"aws service-quotas request-service-quota-increase --service-code sagemaker --region {plan.region} "
        "--quota-code CODE --desired-value 1",
        "# then, for this package",
        f"export KD_ROLE_ARN=$(aws iam get-role --role-name {ROLE_NAME} --query Role.Arn --output text)",
    ]  # fmt: skip


def calls_table() -> list[str]:
    """The calls as a Markdown table."""
    rows = [f"| {call.operation} | {call.right} | {call.commands} | {call.cost or 'nothing'} |" for call in CALLS]
    return ["| call | right | commands | what it can cost |", "| --- | --- | --- | --- |", *rows]
