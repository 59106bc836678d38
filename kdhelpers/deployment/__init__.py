"""A student in use: exported as ONNX or int8, checked against PyTorch, and what an answer of it costs."""

from kdhelpers.deployment.export import (
    ACCEPTED_CHANGES,
    FORMATS,
    export,
    export_folder,
    exported_logits,
    student_folder,
    teacher_folder,
    trim_vocabulary,
)
from kdhelpers.deployment.latency import WARM_UP, Timing, measure
from kdhelpers.deployment.openvino import openvino_runners
from kdhelpers.deployment.runners import BATCH, KINDS, NamedModel, Runner, baseline_runner, load_runner, models_of
from kdhelpers.deployment.web import SOURCES, export_web
from kdhelpers.evaluation import dollars_per_million

__all__ = [
    "ACCEPTED_CHANGES", "BATCH", "FORMATS", "KINDS", "NamedModel", "Runner", "SOURCES", "Timing", "WARM_UP",
    "baseline_runner", "dollars_per_million", "export", "export_folder", "export_web", "exported_logits",
    "load_runner", "measure", "models_of", "openvino_runners", "student_folder", "teacher_folder", "trim_vocabulary",
]  # fmt: skip
