"""One student, several back ends side by side: PyTorch, ONNX Runtime and OpenVINO, one and two threads.

    pip install -e .[openvino]
    make small && python -m tests.tools.benchmark_engines runs/small

OpenVINO's int8 is nncf's: weights and activations, calibrated on 300 training texts. ONNX Runtime's is the export's.
"""

import logging
import sys
from pathlib import Path

import numpy as np
import torch

from kdhelpers import data, deployment
from kdhelpers.cli.benchmark import SIZES, SPEEDS, table
from kdhelpers.deployment import Runner, predict

CALIBRATION = 300
SENTENCES = 300


def openvino_runner(folder: Path, threads: int, calibration: list[str] | None = None) -> Runner:
    """An export in ONNX fp32 as OpenVINO runs it; with calibration texts quantised to int8 by nncf."""
    import openvino

    card, (session, tokenizer, labels) = predict.card(folder), predict.load(folder, 1)
    names = predict.inputs_of(session)
    model = openvino.Core().read_model(folder / "model.onnx")
    if calibration:
        import nncf

        rows = nncf.Dataset([predict.encode([text], tokenizer, names) for text in calibration])
        model = nncf.quantize(model, rows, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    size = sum(constant.get_byte_size() for constant in model.get_ops() if constant.get_type_name() == "Constant")
    kind = "OpenVINO int8" if calibration else "OpenVINO fp32"
    return Runner(
        kind, kind, size, card["parameters"], labels, lambda texts: predict.encode(texts, tokenizer, names),
        lambda inputs: np.array(compiled(inputs)[0]),
    )  # fmt: skip


def runners(run: Path, threads: int, calibration: list[str]) -> list[Runner]:
    """The run's student in every back end."""
    torch.set_num_threads(threads)
    found = [deployment.load_runner(str(run / "student"), threads, "PyTorch fp32")]
    found += [deployment.load_runner(str(run / name), threads, f"ONNX {kind}")
              for name, kind in (("onnx", "fp32"), ("int8", "int8"))]  # fmt: skip
    return [*found, openvino_runner(run / "onnx", threads), openvino_runner(run / "onnx", threads, calibration)]


def main(run: Path) -> None:
    """Print a table for one thread and one for two."""
    logging.disable(logging.WARNING)
    rows = data.movie_snippets()
    texts, test = rows.splits["train"]["text"][:CALIBRATION], rows.splits["test"]
    labels = [rows.label_names[index] for index in test["label"]]
    for threads in (1, 2):
        models = runners(run, threads, list(texts))
        timings = deployment.measure(models, list(test["text"]), labels, SENTENCES)
        print(f"\nthreads: {threads}; a second: at batch 32, with the tokenizer; {len(labels):,} test rows")
        print(table(timings, {name: SIZES[name] for name in ("MB", "accuracy")} | SPEEDS), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
