"""Which calls the commands make to AWS, and the least rights that they and the job's role need.

`CALLS` has a right and a cost for each call of a recorded run of every command (tests/sagemaker/calls.json).
"""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

from kdhelpers.errors import refuse
from kdhelpers.sagemaker.plan import PROJECT_TAG, JobPlan, quota_kinds
from kdhelpers.sagemaker.sdk import machine_problems
from kdhelpers.storage import require_free

ROLE_NAME, BUCKET = "distilling-bert", "sagemaker-distilling-bert-CHANGE-ME"


class Call(NamedTuple):
    """One kind of call to AWS. `operation`: service and operation, as botocore names them."""

    operation: str
    right: str  # IAM's name for it
    cost: str = ""
    by_the_job: bool = False  # under the role's rights, not the person's


CALLS = (
    Call("sts GetCallerIdentity", "none is needed"),
    Call("iam GetRole", "none is needed"),
    Call("iam SimulatePrincipalPolicy", "none is needed", "nothing; the SDK asks, and goes on where it is refused"),
    Call("s3 ListBuckets", "s3:ListAllMyBuckets"),
    Call("s3 HeadBucket", "s3:ListBucket"),
    Call("s3 CreateBucket", "s3:CreateBucket"),
    Call("s3 PutObject", "s3:PutObject", "cents a month until clean --s3"),
    Call("s3 CreateMultipartUpload", "s3:PutObject"),
    Call("s3 UploadPart", "s3:PutObject", "as PutObject, of more than 8 MB"),
    Call("s3 CompleteMultipartUpload", "s3:PutObject"),
    Call("s3 AbortMultipartUpload", "s3:AbortMultipartUpload", "nothing; it deletes parts, which cost as files do"),
    Call("s3 ListObjectsV2", "s3:ListBucket"),
    Call("s3 ListObjects", "s3:ListBucket"),
    Call("s3 DeleteObjects", "s3:DeleteObject"),
    Call("s3 HeadObject", "s3:GetObject"),
    Call("s3 GetObject", "s3:GetObject", "traffic out of AWS: cents a GB"),
    Call("service-quotas ListServiceQuotas", "servicequotas:ListServiceQuotas", "nothing; left out where refused"),
    Call("service-quotas ListAWSDefaultServiceQuotas", "servicequotas:ListAWSDefaultServiceQuotas",
         "nothing; asked for what the former leaves out"),
    Call("sagemaker CreateTrainingJob", "sagemaker:CreateTrainingJob", "the machines, by time"),
    Call("sagemaker DescribeTrainingJob", "sagemaker:DescribeTrainingJob"),
    Call("sagemaker ListTags", "sagemaker:ListTags"),
    Call("sagemaker ListTrainingJobs", "sagemaker:ListTrainingJobs"),
    Call("sagemaker ListEndpoints", "sagemaker:ListEndpoints"),
    Call("sagemaker StopTrainingJob", "sagemaker:StopTrainingJob"),
    Call("sagemaker UpdateTrainingJob", "sagemaker:UpdateTrainingJob"),
    Call("resourcegroupstaggingapi GetResources", "tag:GetResources"),
    Call("sagemaker CreateModel", "sagemaker:CreateModel"),
    Call("sagemaker CreateEndpointConfig", "sagemaker:CreateEndpointConfig"),
    Call("sagemaker CreateEndpoint", "sagemaker:CreateEndpoint",
         "serverless: by the second of answering; with --instance: the machine until it is deleted"),
    Call("sagemaker DescribeEndpoint", "sagemaker:DescribeEndpoint"),
    Call("sagemaker DescribeEndpointConfig", "sagemaker:DescribeEndpointConfig"),
    Call("sagemaker DescribeModel", "sagemaker:DescribeModel"),
    Call("sagemaker-runtime InvokeEndpoint", "sagemaker:InvokeEndpoint", "serverless: its seconds"),
    Call("sagemaker DeleteEndpoint", "sagemaker:DeleteEndpoint"),
    Call("sagemaker DeleteEndpointConfig", "sagemaker:DeleteEndpointConfig"),
    Call("sagemaker DeleteModel", "sagemaker:DeleteModel"),
    Call("secretsmanager GetSecretValue", "secretsmanager:GetSecretValue", "a fraction of a cent", by_the_job=True),
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
    s3 = [f"s3:{name}" for name in ("GetObject", "PutObject", "AbortMultipartUpload", "DeleteObject", "ListBucket",
                                    "GetBucketLocation")]  # fmt: skip
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
    rights = [call.right for call in CALLS if ":" in call.right and not call.by_the_job]
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
    dataclasses.replace(plan, security_groups="sg-0" if plan.subnets else None).sound()
    refuse(machine_problems(plan.instance))
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
