"""OpenVINO, another back end for an exported student, beside ONNX Runtime: pip install -e '.[openvino]'."""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdhelpers.deployment.runners import Runner, load_runner
from kdhelpers.errors import UserError

CALIBRATION = 300  # texts, nncf's own default


def openvino_runners(folder: str, texts: list, threads: int, name: str) -> list[Runner]:
    """A student in ONNX fp32 (its folder) answered by OpenVINO: as it is, and in int8.

    The int8 model is made by nncf's quantization after training, of weights and activations, whose ranges the first
    300 `texts` set (https://docs.openvino.ai, "Basic Quantization Flow"). Raises UserError where openvino or nncf is
    not installed.
    """
    missing = [package for package in ("openvino", "nncf") if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)}: not installed; pip install -e '.[openvino]', or leave --openvino out"
        )
    import nncf
    import openvino

    given = load_runner(folder, threads, name)
    model = openvino.Core().read_model(Path(folder) / "model.onnx")
    ranges = nncf.Dataset([given.encode([text]) for text in texts[:CALIBRATION]])
    kinds = {"fp32": model, "int8": nncf.quantize(model, ranges, model_type=nncf.ModelType.TRANSFORMER)}
    return [
        replace(given, name=f"{name} OV {kind}", kind=f"OpenVINO {kind}", bytes=_size(one), run=_run(one, threads))
        for kind, one in kinds.items()
    ]


def _size(model: Any) -> int:
    """Bytes of a model's weights as OpenVINO saves them."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder, "model.xml"), compress_to_fp16=False)
        return Path(folder, "model.bin").stat().st_size


def _run(model: Any, threads: int) -> Callable[[dict], np.ndarray]:
    """The model's logits; fp32 stays fp32, where OpenVINO would take bf16 on a processor that has it."""
    import openvino

    how = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", how)
    return lambda inputs: compiled(inputs)[0]
