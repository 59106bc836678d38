"""What an export promises: the same answers, its labels, its length, and nothing written where it cannot keep that."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdhelpers import models
from kdhelpers.data import Task
from kdhelpers.deployment import export, exported_logits, graph, load_runner, openvino_runners, predict, trim_vocabulary
from kdhelpers.deployment import export as export_function
from kdhelpers.errors import UserError
from kdhelpers.models import first_token
from tests.tiny import save_model, teachable_rows, tiny_bert, tiny_model, tiny_tokenizer, trained_tiny_teacher

NAMES = ["negative", "positive"]
export_module = sys.modules[export_function.__module__]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    model = models.set_labels(trained_tiny_teacher(), NAMES)
    return save_model(tmp_path_factory.mktemp("student"), model, tiny_tokenizer())


def once(to_onnx):
    """`to_onnx` for one model: torch takes seconds, and the second time the first one's graph is copied."""
    made = []

    def copied(model, path, token_types=False):
        if not made:
            to_onnx(model, path)
            made.append(path.read_bytes())
        path.write_bytes(made[0])

    return copied


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "to_onnx", once(graph.to_onnx))
        return folder, {
            kind: export(str(student), folder / kind, kind) for kind in ("onnx", "onnx-int8", "onnx-int8-weights")
        }


@pytest.fixture
def exported_as(exported, monkeypatch):
    """Exports that cost nothing: whatever the student is, the graph is that of the trained one."""
    graph_file = exported[0] / "onnx" / "model.onnx"
    monkeypatch.setattr(export_module, "to_onnx", lambda model, path, *_: shutil.copy(graph_file, path))


def torch_logits(folder, texts, max_length=64):
    """transformers alone, one text after the other, so that nothing is padded."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        batches = [tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt") for text in texts]
        return np.concatenate([model(batch["input_ids"]).logits.numpy() for batch in batches])


def test_fp32_agrees_with_pytorch_whatever_batch_and_length(student, exported):
    folder, facts = exported
    assert facts["onnx"]["largest_logit_difference"] < 1e-4
    for texts in (["good film"], ["bad " * 200, "a", "the lovely town"], [row["text"] for row in teachable_rows(70)]):
        assert np.abs(torch_logits(student, texts) - exported_logits(folder / "onnx", texts)).max() < 1e-4


def test_int8_is_smaller_and_changes_few_answers(student, exported):
    folder, facts = exported
    assert facts["onnx-int8"]["bytes"] < 0.8 * facts["onnx"]["bytes"]
    texts = [row["text"] for row in teachable_rows(200)]
    theirs = exported_logits(folder / "onnx-int8", texts)
    assert np.mean(torch_logits(student, texts).argmax(-1) == theirs.argmax(-1)) > 0.95


def test_int8_weights_are_rounded_once_and_summed_in_fp32(student, exported):
    """The answers of PyTorch with the rounded weights: no processor's 8-bit arithmetic has a part in them."""
    folder, facts = exported
    assert facts["onnx-int8-weights"]["bytes"] < 0.8 * facts["onnx"]["bytes"]
    kinds = {node.op_type for node in onnx.load(folder / "onnx-int8-weights" / "model.onnx").graph.node}
    assert not kinds & {"MatMulInteger", "DynamicQuantizeLinear", "DequantizeLinear"}
    model, tokenizer = models.load_classifier(str(student), None).model.eval(), models.load_tokenizer(str(student))
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            scale = module.weight.data.abs().amax(1, keepdim=True).clamp(min=1e-38) / 127
            module.weight.data = (module.weight.data / scale).round() * scale
    for text in ("a lovely film", "the plot was dull", "bad " * 200):
        batch = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            rounded = model(**batch).logits.numpy()
        theirs = exported_logits(folder / "onnx-int8-weights", [text])
        assert np.abs(rounded - theirs).max() < 1e-5
        assert np.abs(torch_logits(student, [text]) - theirs).max() > 1e-5


def test_the_folder_says_what_it_holds(exported):
    folder, facts = exported
    written = json.loads((folder / "onnx" / "export.json").read_text())
    assert written == facts["onnx"]
    assert written["labels"] == NAMES
    assert written["max_length"] == 64
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == [
        "export.json", "model.onnx", "predict.py", "tokenizer.json",
    ]  # fmt: skip


@pytest.mark.parametrize(("said", "meant"), [(16, 16), (10**30, 64), (512, 64)])
def test_the_length_is_the_students_and_never_more_than_its_positions(said, meant, student, exported_as, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = said
    folder = save_model(tmp_path / "student", models.load_classifier(str(student), None).model, tokenizer)
    assert export(str(folder), tmp_path / "out")["max_length"] == meant
    for answering in (folder, tmp_path / "out"):
        assert load_runner(str(answering)).encode(["film " * 100])["input_ids"].shape == (1, meant)


def test_a_student_that_reads_the_end_of_a_text_does_so_when_exported(student, exported_as, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side = tokenizer.init_kwargs["truncation_side"] = "left"
    folder = save_model(tmp_path / "student", models.load_classifier(str(student), None).model, tokenizer)
    texts = ["good " + "the film " * 60 + "bad awful", "bad " + "the film " * 60 + "good lovely"]
    assert list(torch_logits(folder, texts).argmax(-1)) == [0, 1]
    export(str(folder), tmp_path / "out")
    assert np.abs(torch_logits(folder, texts) - exported_logits(tmp_path / "out", texts)).max() < 1e-4


@pytest.mark.parametrize("length", [16, 62, 64, 128, 256, 512])
def test_the_check_on_a_long_text_sees_on_which_side_it_is_cut(length):
    tokens = tiny_tokenizer()(export_module.LONG, verbose=False)["input_ids"]
    assert sorted(tokens[:length]) != sorted(tokens[-length:])
    assert len(tokens) > 512


def test_the_folder_speaks_for_itself_without_torch(exported):
    """predict.py runs where importing torch or transformers fails."""
    folder = exported[0] / "onnx-int8"
    block = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import runpy; "
    block += f"sys.argv = ['predict.py', 'a lovely film', 'an awful film']; file = {str(folder / 'predict.py')!r}; "
    block += "runpy.run_path(file, run_name='__main__')"
    said = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True, cwd="/").stdout
    assert said == "positive\ta lovely film\nnegative\tan awful film\n"
    lines = [line.strip() for line in Path(predict.__file__).read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith('"""')]) < 45, "short enough to be read"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert"])  # of the others tests/models/test_first_token.py
def test_the_last_layer_is_computed_for_the_first_token_only(family, tmp_path, monkeypatch):
    """The same logits as from the whole layer, and the model that came in stays as it was."""
    torch.manual_seed(0)
    model = tiny_model(family, layers=1)
    attention, slices, logits = model.config._attn_implementation, {}, {}
    batch = {"input_ids": np.array([[2, 7, 9, 3], [2, 8, 3, 0]]), "attention_mask": np.array([[1] * 4, [1, 1, 1, 0]])}
    for name, table in (("short", first_token.FIRST_TOKEN), ("whole", {})):
        monkeypatch.setattr(first_token, "FIRST_TOKEN", table)
        path = tmp_path / f"{name}.onnx"
        graph.to_onnx(model, path)
        slices[name] = sum(node.op_type == "Slice" for node in onnx.load(path).graph.node)
        logits[name] = onnxruntime.InferenceSession(path).run(None, batch)[0]
    assert np.abs(logits["short"] - logits["whole"]).max() < 1e-5
    assert slices["short"] > slices["whole"]
    assert model.config._attn_implementation == attention
    assert model.base_model(torch.as_tensor(batch["input_ids"])).last_hidden_state.shape[1] == 4, "the hook is gone"


# --- a smaller vocabulary ---------------------------------------------------------------------------------------


def test_a_trimmed_vocabulary_answers_alike_and_can_still_spell(student):
    model, tokenizer = models.load_classifier(str(student), None).model.eval(), models.load_tokenizer(str(student))
    small, trimmed = trim_vocabulary(model, tokenizer, ["a lovely film", "the plot was dull"])
    kept = trimmed.get_vocab()
    assert len(kept) == small.config.vocab_size < tokenizer.vocab_size
    assert kept["[MASK]"] == tokenizer.mask_token_id
    with torch.inference_mode():
        for text in ("a lovely film", "the plot was dull"):
            before, after = (
                m(**t(text, return_tensors="pt")).logits for m, t in ((model, tokenizer), (small, trimmed))
            )
            assert torch.allclose(before, after, atol=1e-6)
    assert "garden" not in kept
    spelt = trimmed.convert_ids_to_tokens(trimmed("garden")["input_ids"])
    assert spelt[1:-1] == ["g", *(f"##{letter}" for letter in "arden")]
    assert models.count_parameters(model) - models.count_parameters(small) == 32 * (model.config.vocab_size - len(kept))
    assert model.config.vocab_size > len(kept), "the model that came in is not touched"


@pytest.mark.parametrize("rows", [0, 5])
def test_tokens_added_to_the_vocabulary_keep_their_rows_when_it_is_trimmed(rows):
    """`rows`: a table of embeddings may also have more rows than the tokenizer has tokens."""
    torch.manual_seed(0)
    tokenizer, model = tiny_tokenizer(), tiny_bert()
    tokenizer.add_tokens(["kinoesque", ":-)"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[MOVIE]"]})
    model.resize_token_embeddings(len(tokenizer) + rows, mean_resizing=False)
    small, trimmed = trim_vocabulary(model, tokenizer, ["a lovely film", "dull :-)"])
    assert small.config.vocab_size == len(trimmed) < len(tokenizer)
    for text in ("kinoesque", "lovely :-) film", "[MOVIE] dull", "a kinoesque film :-)"):
        assert trimmed.tokenize(text) == tokenizer.tokenize(text)
        with torch.inference_mode():
            before, after = (
                m(**t(text, return_tensors="pt")).logits for m, t in ((model, tokenizer), (small, trimmed))
            )
        assert torch.allclose(before, after, atol=1e-6), text


def test_only_wordpiece_vocabularies_are_trimmed():
    with pytest.raises(UserError, match="BPE"):
        trim_vocabulary(tiny_bert(), tiny_tokenizer("bpe"), ["a film"])


# --- what is refused, before anything is written -------------------------------------------------------------------


def blinded(model):
    """The same answers in fp32; in 8 bits one huge, unused feature drowns all others."""
    with torch.no_grad():
        model.base_model.encoder.layer[-1].output.LayerNorm.bias[0] = 3e4
        model.base_model.pooler.dense.weight[:, 0] = 0
    return model


def test_an_export_that_changes_many_predictions_is_refused_unless_it_is_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "to_onnx", once(graph.to_onnx))
    folder = save_model(tmp_path / "student", blinded(trained_tiny_teacher()), tiny_tokenizer())
    texts = [row["text"] for row in teachable_rows(40)]
    with pytest.raises(UserError, match="--accept-changes"):
        export(str(folder), tmp_path / "out", "onnx-int8", texts)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
    facts = export(str(folder), tmp_path / "out", "onnx-int8", texts, accept_changes=1.0)
    assert facts["changed_predictions"] > 10
    assert (tmp_path / "out" / "model.onnx").is_file()


@pytest.mark.parametrize(("probe", "moved", "changed"), [((1, 9), 0.1, 0), ((1, 9), 1, 1), ((5, 5), 1e-6, 0)])
def test_a_number_has_changed_where_it_moves_by_much_among_others(probe, moved, changed):
    before = np.array([[5.0], *([value] for value in probe)])
    assert export_module._changed(before, before[:1] + moved, Task.NUMBER) == changed


def test_a_student_of_numbers_in_8_bits_can_be_compared_on_one_text(tmp_path):
    teacher, model = trained_tiny_teacher(), tiny_bert(labels=1)
    model.bert.load_state_dict(teacher.bert.state_dict())
    model.classifier.weight.data = teacher.classifier.weight.data[1:]
    folder = save_model(tmp_path / "student", model, tiny_tokenizer())
    facts = export(str(folder), tmp_path / "out", "onnx-int8", ["a lovely film"])
    assert facts["largest_logit_difference"] > 1e-4
    assert facts["changed_predictions"] == 0


def test_a_graph_that_answers_otherwise_is_refused(exported_as, tmp_path):
    torch.manual_seed(1)
    folder = save_model(tmp_path / "student", tiny_bert(), tiny_tokenizer())
    for kind in ("onnx", "onnx-int8"):
        with pytest.raises(UserError, match="stray"):
            export(str(folder), tmp_path / "out", kind, accept_changes=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_family_that_torch_cannot_export_is_refused_in_one_sentence(student, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("line one\nline two")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(UserError, match="BertForSequenceClassification") as error:
        export(str(student), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_quantised_are_one_sentence(exported, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("line one\nline two")

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", fails)
    with pytest.raises(UserError, match="8 bits") as error:
        graph.quantize(exported[0] / "onnx" / "model.onnx", tmp_path / "int8.onnx")
    assert "\n" not in str(error.value)


def nan_weight(model):
    model.classifier.weight.data[0, 0] = float("nan")


def no_task(model):
    model.config.problem_type = "regression"


@pytest.mark.parametrize("damage", [nan_weight, no_task])
def test_a_model_that_cannot_answer_is_neither_exported_nor_timed(damage, tmp_path):
    model = tiny_bert()
    damage(model)
    folder = save_model(tmp_path / "student", model, tiny_tokenizer())
    for use in (load_runner, lambda name: export(name, tmp_path / "out")):
        with pytest.raises(UserError) as error:
            use(str(folder))
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_failed_export_leaves_nothing(student, exported_as, tmp_path, monkeypatch):
    def fails(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export_module.IN_8_BITS, "onnx-int8", fails)
    with pytest.raises(UserError, match="No space left"):
        export(str(student), tmp_path / "out", "onnx-int8")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_anything_else_is_not_replaced(student, exported_as, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="no export"):
        export(str(student), tmp_path)
    export(str(student), tmp_path / "out")
    export(str(student), tmp_path / "out")
    assert (tmp_path / "thesis.txt").is_file()


@pytest.mark.parametrize("damage", ["model.onnx", "tokenizer.json", "export.json"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_export_is_one_sentence(damage, how, exported, tmp_path):
    folder = Path(shutil.copytree(exported[0] / "onnx", tmp_path / "copy"))
    file = folder / damage
    file.write_bytes(file.read_bytes()[:100]) if how == "cut" else file.unlink()
    with pytest.raises(UserError) as error:
        load_runner(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [["negative"], ["negative", "positive", "neutral"]])
def test_an_export_has_one_logit_for_each_of_its_labels(labels, exported, tmp_path):
    folder = Path(shutil.copytree(exported[0] / "onnx", tmp_path / "copy"))
    card = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(card | {"labels": labels}))
    with pytest.raises(UserError, match="2 logits"):
        load_runner(str(folder))


def test_openvino_answers_as_onnx_runtime_does(exported):
    pytest.importorskip("openvino", reason="pip install -e '.[openvino]'")
    pytest.importorskip("nncf", reason="pip install -e '.[openvino]'")
    folder, texts = str(exported[0] / "onnx"), [row["text"] for row in teachable_rows(40, 7)]
    given = load_runner(folder, 1, "onnx")
    fp32, int8 = openvino_runners(folder, texts, 1, "onnx")
    assert (fp32.name, int8.kind) == ("onnx OV fp32", "OpenVINO int8")
    assert np.abs(fp32.logits(texts) - given.logits(texts)).max() < 1e-4
    assert (int8.logits(texts).argmax(-1) == given.logits(texts).argmax(-1)).mean() > 0.9
    assert int8.bytes < fp32.bytes


def test_without_openvino_one_sentence_names_the_extra(exported, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"openvino and nncf: not installed; pip install -e '.\[openvino\]'"):
        openvino_runners(str(exported[0] / "onnx"), ["a text"], 1, "onnx")
