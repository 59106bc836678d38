"""Which calls the commands make to AWS, and the least rights that they and the job's role need.

`CALLS` is held against the calls that a recorded run of every command makes (tests/sagemaker/test_life.py).
"""

import json
from pathlib import Path
from typing import NamedTuple

from kdhelpers.sagemaker.plan import PROJECT_TAG, JobPlan, quota_kinds
from kdhelpers.storage import require_free

ROLE_NAME, BUCKET = "distilling-bert", "sagemaker-distilling-bert-CHANGE-ME"


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
    Call("s3 ListObjects", "s3:ListBucket", "clean, endpoint"),
    Call("s3 DeleteObjects", "s3:DeleteObject", "clean, endpoint"),
    Call("s3 HeadObject", "s3:GetObject", "status --output"),
    Call("s3 GetObject", "s3:GetObject", "status --output", "traffic out of AWS: cents a GB"),
    Call("service-quotas ListServiceQuotas", "servicequotas:ListServiceQuotas", JOBS + "; left out where refused"),
    Call("service-quotas ListAWSDefaultServiceQuotas", "servicequotas:ListAWSDefaultServiceQuotas",
         JOBS + "; for quotas that the former leaves out"),
    Call("sagemaker CreateTrainingJob", "sagemaker:CreateTrainingJob", JOBS, "the machines, by time"),
    Call("sagemaker DescribeTrainingJob", "sagemaker:DescribeTrainingJob", JOBS + ", status, clean"),
    Call("iam GetRole", "none is needed", MAKE + ", without --role: the SDK"),
    Call("sagemaker ListTags", "sagemaker:ListTags", "launch --from, status, clean"),
    Call("sagemaker ListTrainingJobs", "sagemaker:ListTrainingJobs", "launch --from, clean"),
    Call("sagemaker ListEndpoints", "sagemaker:ListEndpoints", "clean"),
    Call("sagemaker StopTrainingJob", "sagemaker:StopTrainingJob", "clean --yes"),
    Call("sagemaker UpdateTrainingJob", "sagemaker:UpdateTrainingJob", "clean --yes, of a warm pool"),
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
LISTS = ("s3:ListAllMyBuckets", "sagemaker:ListTrainingJobs", "sagemaker:ListEndpoints", "tag:GetResources",
         "servicequotas:ListServiceQuotas", "servicequotas:ListAWSDefaultServiceQuotas")  # fmt: skip
ENDING = ("sagemaker:Stop", "sagemaker:Delete", "sagemaker:Update")


def _policy(region: str, *statements: dict) -> dict:
    """A policy in the region's part of AWS: China and the government have names of their own."""
    partition = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    part = next((name for start, name in partition.items() if region.startswith(start)), "aws")
    policy = {"Version": "2012-10-17", "Statement": list(statements)}
    return json.loads(json.dumps(policy).replace("arn:aws:", f"arn:{part}:"))


def _statement(actions: list[str], resource: str | list[str], condition: dict | None = None) -> dict:
    more = {"Condition": condition} if condition else {}
    return {"Effect": "Allow", "Action": sorted(set(actions)), "Resource": resource} | more


def _bucket(bucket: str) -> list[str]:
    return [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]


def _asked_for(plan: JobPlan) -> list[dict]:
    """What the plan's key needs of whoever reads and writes: the role, and the person who uploads."""
    key = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:CreateGrant"]
    return [_statement(key, plan.kms_key if plan.kms_key.startswith("arn:") else "*")] if plan.kms_key else []


def trust(plan: JobPlan) -> dict:
    """Who may use the role: SageMaker, and nobody else."""
    statement = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return _policy(plan.region, statement)


def role_policy(plan: JobPlan) -> dict:
    """What the job's and the endpoint's role may do: files of the bucket, the image, logs and metrics.

    And what --subnets, --kms-key, --mlflow and --hub-secret need, where the plan has them.
    """
    s3 = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation"]
    image = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
    logs = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
    looks = ["NetworkInterfaces", "Vpcs", "DhcpOptions", "Subnets", "SecurityGroups"]
    network = ["CreateNetworkInterface", "CreateNetworkInterfacePermission", "DeleteNetworkInterface",
               "DeleteNetworkInterfacePermission", *(f"Describe{what}" for what in looks)]  # fmt: skip
    statements = [
        _statement(s3, _bucket(plan.bucket or BUCKET)),
        _statement(image, "arn:aws:ecr:*:*:repository/huggingface-pytorch-*"),
        _statement(["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"], "*"),
        _statement(logs, "arn:aws:logs:*:*:log-group:/aws/sagemaker/*"),
        *_asked_for(plan),
    ]
    if plan.subnets:
        statements.append(_statement([f"ec2:{name}" for name in network], "*"))
    if plan.hub_secret:
        secret = plan.hub_secret if plan.hub_secret.startswith("arn:") else "arn:aws:secretsmanager:*:*:secret:"
        name = "" if plan.hub_secret.startswith("arn:") else f"{plan.hub_secret}-*"
        statements.append(_statement(["secretsmanager:GetSecretValue"], secret + name))
    if plan.mlflow and plan.mlflow.startswith("arn:"):
        statements.append(_statement(["sagemaker-mlflow:*"], plan.mlflow))
    return _policy(plan.region, *statements)


def user_policy(plan: JobPlan) -> dict:
    """What the person at the keyboard may do: the calls of this package; end only what carries its tag."""
    rights = [call.right for call in CALLS if ":" in call.right]
    s3 = [right for right in rights if right.startswith("s3:") and right not in LISTS]
    ending = [right for right in rights if right.startswith(ENDING)]
    making = [right for right in rights if right.startswith("sagemaker:Create")]
    other = [right for right in rights if right not in (*s3, *ending, *LISTS)]
    tagged = {"StringEquals": {f"aws:ResourceTag/{PROJECT_TAG[0]}": PROJECT_TAG[1]}}
    when_made = {"StringEquals": {"sagemaker:TaggingAction": [right.split(":")[1] for right in making]}}
    pass_on = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    return _policy(
        plan.region,
        _statement([*s3, "s3:GetBucketLocation"], _bucket(plan.bucket or BUCKET)),
        _statement(other, "arn:aws:sagemaker:*:*:*"),
        _statement(ending, "arn:aws:sagemaker:*:*:*", tagged),
        _statement(["sagemaker:AddTags"], "arn:aws:sagemaker:*:*:*", when_made),
        _statement(list(LISTS), "*"),
        _statement(["iam:PassRole"], f"arn:aws:iam::*:role/{ROLE_NAME}", pass_on),
        *_asked_for(plan),
    )


def write_rights(folder: Path, plan: JobPlan) -> list[str]:
    """Write the three policies as JSON, and return the commands that make bucket, role and quota with them.

    Nothing is sent to AWS: whoever runs the account reads the files, and runs the commands. Raises UserError.
    """
    bucket = plan.bucket or BUCKET
    require_free(folder, overwrite=False)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"trust": trust(plan), "role": role_policy(plan), "user": user_policy(plan)}
    for name, policy in files.items():
        (folder / f"{name}.json").write_text(json.dumps(policy, indent=2) + "\n", encoding="utf-8")
    quotas = "aws service-quotas {} --service-code sagemaker --region " + plan.region
    asked = [f"{plan.instance} for {kind} usage" for kind in quota_kinds(plan)]
    return [
        f"# a bucket, in {plan.region}; with sagemaker in its name AWS's own policies open it, too",
        f"aws s3 mb s3://{bucket} --region {plan.region}",
        "# the role that jobs and endpoints run as",
        f"aws iam create-role --role-name {ROLE_NAME} --assume-role-policy-document file://{folder}/trust.json",
        f"aws iam put-role-policy --role-name {ROLE_NAME} --policy-name job --policy-document file://{folder}/role.json",
        "# your own rights, where you are no administrator (with SSO: put user.json into a permission set)",
        f"aws iam put-user-policy --user-name YOU --policy-name {ROLE_NAME} --policy-document file://{folder}/user.json",
        "# quotas: a new account's is 0 for GPUs. Look for the code, then ask",
        *(quotas.format("list-service-quotas") + f" --query \"Quotas[?QuotaName=='{name}'].[QuotaCode,Value]\""
          for name in asked),
        quotas.format("request-service-quota-increase") + f" --quota-code CODE --desired-value {plan.instances}",
        "# then, for this package",
        f"export KD_ROLE_ARN=$(aws iam get-role --role-name {ROLE_NAME} --query Role.Arn --output text)",
        f"# and give --bucket {bucket} to launch, label and endpoint",
    ]  # fmt: skip


def calls_table() -> list[str]:
    """The calls as a Markdown table."""
    rows = [f"| {call.operation} | {call.right} | {call.commands} | {call.cost or 'nothing'} |" for call in CALLS]
    return ["| call | right | commands | what it can cost |", "| --- | --- | --- | --- |", *rows]
