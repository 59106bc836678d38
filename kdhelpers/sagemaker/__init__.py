"""The same run on Amazon SageMaker: planned, checked and rehearsed at home; launched and cleaned up there."""

from kdhelpers.sagemaker.cloud import (
    again,
    bring_home,
    describe,
    find_region,
    follow,
    go_on,
    launch,
    owner,
    resumed,
    status_lines,
)
from kdhelpers.sagemaker.endpoints import endpoint, endpoint_lines
from kdhelpers.sagemaker.leftovers import Leftover, clean, leftovers, mine
from kdhelpers.sagemaker.plan import PRICES, JobPlan, cost_lines, gpus, most_expensive, not_looked_at, plan_lines
from kdhelpers.sagemaker.rehearse import IMAGE_VERSIONS, PROVES, Rehearsal, image_python, rehearse, show_steps
from kdhelpers.sagemaker.rights import CALLS, write_rights
from kdhelpers.sagemaker.sdk import build_trainer, check, require_sdk

__all__ = [
    "CALLS", "IMAGE_VERSIONS", "JobPlan", "Leftover", "PRICES", "PROVES", "Rehearsal", "again", "bring_home",
    "build_trainer", "check", "clean", "cost_lines", "describe", "endpoint", "endpoint_lines",
    "find_region", "follow", "go_on", "gpus", "image_python", "launch", "leftovers", "mine", "most_expensive",
    "not_looked_at", "owner", "plan_lines", "rehearse", "require_sdk", "resumed", "show_steps", "status_lines",
    "write_rights",
]  # fmt: skip
