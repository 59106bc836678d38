"""Every family of encoders, with its own kind of tokenizer, in ONNX and in int8."""

import shutil

import numpy as np
import onnxruntime
import pytest
import torch

from kdhelpers import deployment
from kdhelpers.deployment import graph
from tests.deployment.test_export import torch_logits
from tests.tiny import FAMILIES, POSITIONS, family_tokenizer, save_model, tiny_model

pytestmark = pytest.mark.slow

TEXTS = ["good", "an awful film with a dull plot, and 3 lovely scenes", "never " * 300, "?!"]


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_has_pytorchs_logits_and_int8_runs(family, tmp_path):
    torch.manual_seed(0)
    model = tiny_model(family, labels=3, layers=2 if family == "modernbert" else 1)
    for weights in model.parameters():  # large enough for the logits to depend on every token
        if weights.dim() > 1:
            weights.data.normal_(0, 0.3)
    tokenizer = family_tokenizer(family)
    tokenizer.model_max_length = 10**30
    folder, out = save_model(tmp_path / "student", model, tokenizer), tmp_path / "out"
    facts = deployment.export(str(folder), out)
    assert facts["max_length"] == POSITIONS
    ours, exported = torch_logits(folder, TEXTS), deployment.exported_logits(out, TEXTS)
    assert ours.std(0).min() > 0.05, "texts that are answered alike would show nothing"
    assert np.abs(ours - exported).max() < 1e-4
    assert np.abs(ours - deployment.load_runner(str(folder)).logits(TEXTS)).max() < 1e-4
    graph.quantize(out / "model.onnx", tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < facts["bytes"]
    shutil.copy(tmp_path / "int8.onnx", out / "model.onnx")
    assert np.abs(ours - deployment.exported_logits(out, TEXTS)).max() < 2
    assert onnxruntime.InferenceSession(out / "model.onnx").get_outputs()[0].name == "logits"
