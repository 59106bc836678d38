"""The same run on Amazon SageMaker: planned, checked and rehearsed at home; launched and cleaned up there."""

from kdhelpers.sagemaker.cloud import (
    Leftover,
    bring_home,
    clean,
    describe,
    endpoint,
    find_region,
    follow,
    launch,
    leftovers,
    owner,
    status_lines,
)
from kdhelpers.sagemaker.plan import PRICES, JobPlan, gpus, most_expensive, plan_lines
from kdhelpers.sagemaker.rehearse import PROVES, Rehearsal, image_python, rehearse, show_steps
from kdhelpers.sagemaker.sdk import build_trainer, check, require_sdk

__all__ = [
    "PRICES", "PROVES", "JobPlan", "Leftover", "Rehearsal", "bring_home", "build_trainer", "check", "clean",
    "describe", "endpoint", "find_region", "follow", "gpus", "image_python", "launch", "leftovers", "most_expensive",
    "owner", "plan_lines", "rehearse", "require_sdk", "show_steps", "status_lines",
]  # fmt: skip
