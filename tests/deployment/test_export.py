"""Export to ONNX and int8, on a tiny model that has learnt its task."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kdhelpers import export, models, predict
from kdhelpers.__main__ import main
from kdhelpers.errors import UserError
from tests.tiny import save_model, teachable_rows, tiny_distilbert, tiny_tokenizer, trained_tiny_teacher

NAMES = ["negative", "positive"]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    model = models.set_labels(trained_tiny_teacher(), NAMES)
    return save_model(tmp_path_factory.mktemp("student"), model, tiny_tokenizer())


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    facts = {kind: export.export(str(student), folder / kind, kind) for kind in export.FORMATS}
    return folder, facts


def torch_logits(student, texts):
    model, tokenizer = models.load_classifier(str(student), None).model.eval(), models.load_tokenizer(str(student))
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**batch).logits.numpy()


def test_fp32_agrees_with_pytorch_whatever_batch_and_length(student, exported):
    folder, facts = exported
    assert facts["onnx"]["largest_logit_difference"] < 1e-4
    for texts in (["good film"], ["bad " * 200, "a", "the lovely town"], [row["text"] for row in teachable_rows(70)]):
        ours, theirs = torch_logits(student, texts), export.exported_logits(folder / "onnx", texts)
        assert np.abs(ours - theirs).max() < 1e-4


def test_int8_is_smaller_and_changes_few_answers(student, exported):
    folder, facts = exported
    assert facts["onnx-int8"]["bytes"] < 0.8 * facts["onnx"]["bytes"]
    texts = [row["text"] for row in teachable_rows(200)]
    ours, theirs = torch_logits(student, texts), export.exported_logits(folder / "onnx-int8", texts)
    assert np.mean(ours.argmax(-1) == theirs.argmax(-1)) > 0.95


def test_a_trimmed_vocabulary_answers_alike_and_can_still_spell(student):
    model, tokenizer = models.load_classifier(str(student), None).model.eval(), models.load_tokenizer(str(student))
    texts = ["a lovely film", "the plot was dull"]
    small, trimmed = export.trim_vocabulary(model, tokenizer, texts)
    kept = trimmed.get_vocab()
    assert len(kept) == small.config.vocab_size < tokenizer.vocab_size
    assert kept["[MASK]"] == tokenizer.mask_token_id
    assert np.array_equal(export.torch_logits(small, trimmed, texts), export.torch_logits(model, tokenizer, texts))
    assert "garden" not in kept
    spelt = trimmed.convert_ids_to_tokens(trimmed("garden")["input_ids"])
    assert spelt[1:-1] == ["g", *(f"##{letter}" for letter in "arden")]
    assert models.count_parameters(model) - models.count_parameters(small) == 32 * (model.config.vocab_size - len(kept))
    assert model.config.vocab_size > len(kept), "the model that came in is not touched"


def test_a_trimmed_export_is_compared_with_the_whole_model(student, tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("a lovely film\nthe plot was dull\n")
    assert main(["export", str(student), "--output", str(tmp_path / "small"), "--vocabulary-of", str(texts)]) == 0
    assert "word pieces" in capsys.readouterr().out
    ours = torch_logits(student, ["a lovely film", "an awful garden"])
    theirs = export.exported_logits(tmp_path / "small", ["a lovely film", "an awful garden"])
    assert np.abs(ours[0] - theirs[0]).max() < 1e-4
    assert np.abs(ours[1] - theirs[1]).max() > 1e-4, "words that are gone are read otherwise"


def test_the_folder_speaks_for_itself_without_torch(exported):
    """predict.py runs where importing torch or transformers fails."""
    folder = exported[0] / "onnx-int8"
    block = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import runpy; "
    block += (
        f"sys.argv = ['predict.py', 'a lovely film', 'an awful film']; runpy.run_path({str(folder / 'predict.py')!r}, "
    )
    block += "run_name='__main__')"
    said = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True, cwd="/").stdout
    assert said == "positive\ta lovely film\nnegative\tan awful film\n"
    lines = [line.strip() for line in Path(predict.__file__).read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith('"""')]) < 35, "short enough to be read"


def test_distilbert_too(tmp_path):
    torch.manual_seed(0)
    folder = save_model(tmp_path / "student", models.set_labels(tiny_distilbert(), NAMES), tiny_tokenizer())
    assert export.export(str(folder), tmp_path / "out")["largest_logit_difference"] < 1e-4


@pytest.mark.parametrize("make", [trained_tiny_teacher, tiny_distilbert])
def test_the_last_layer_is_computed_for_the_first_token_only(make, tmp_path, monkeypatch):
    """The same logits as from the whole layer, and the model that came in stays as it was."""
    model = make().eval()
    attention, slices, logits = model.config._attn_implementation, {}, {}
    batch = {"input_ids": np.array([[2, 7, 9, 3], [2, 8, 3, 0]]), "attention_mask": np.array([[1] * 4, [1, 1, 1, 0]])}
    for name, table in (("short", export.AFTER_ATTENTION), ("whole", {})):
        monkeypatch.setattr(export, "AFTER_ATTENTION", table)
        path = tmp_path / f"{name}.onnx"
        export.to_onnx(model, path)
        slices[name] = sum(node.op_type == "Slice" for node in onnx.load(path).graph.node)
        logits[name] = onnxruntime.InferenceSession(path).run(None, batch)[0]
    assert np.abs(logits["short"] - logits["whole"]).max() < 1e-5
    assert slices["short"] > slices["whole"]
    assert model.config._attn_implementation == attention
    states = model.base_model(torch.as_tensor(batch["input_ids"])).last_hidden_state
    assert states.shape[1] == 4, "the hook is gone"


def test_a_failed_export_leaves_nothing(student, tmp_path, monkeypatch):
    def fails(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "quantize", fails)
    with pytest.raises(UserError, match="No space left"):
        export.export(str(student), tmp_path / "out", "onnx-int8")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_end_in_one_sentence(student, tmp_path, capsys):
    (tmp_path / "kept").mkdir()
    for arguments, sign in (
        ([str(student), "--format", "onyx"], "onnx, onnx-int8"),
        ([str(tmp_path / "nowhere")], "no model folder"),
        ([str(student), "--output", str(tmp_path / "kept")], "--overwrite"),
        ([models.EMBEDDED_BACKBONE, "--output", str(tmp_path / "x")], "no classification head"),
    ):
        assert main(["export", *arguments]) == 2
        said = capsys.readouterr().err
        assert sign in said
        assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_the_command_says_what_it_made(student, tmp_path, capsys):
    assert main(["export", str(student), "--format", "onnx-int8", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "MB" in said
    assert "predict.py" in said
