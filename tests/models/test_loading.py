"""A model is loaded in fp32 and whole, or refused in one sentence that names what is wrong."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ViTConfig,
    set_seed,
)

from kdhelpers import models, runtime
from kdhelpers.errors import UserError
from kdhelpers.models import loading
from tests.tiny import FAMILIES, family_tokenizer, save_model, tiny_bert, tiny_distilbert, tiny_model, tiny_tokenizer


@pytest.fixture(params=FAMILIES)
def family(request):
    set_seed(0)
    return request.param


@pytest.fixture
def folder(tmp_path):
    """A tiny BERT classifier on disk, to be damaged."""
    set_seed(0)
    return save_model(tmp_path / "model", tiny_bert(), tiny_tokenizer())


def rewrite(folder: Path, change) -> None:
    """Let `change` edit the dictionary of weights."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file(change(weights) or weights, file, metadata={"format": "pt"})


def edit_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(folder: Path, *words: str, names=None) -> None:
    with pytest.raises(UserError) as caught:
        models.load_classifier(str(folder), names)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(folder), *words):
        assert word in message


def renamed(prefix: str):
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


# --- what is loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_checkpoint_is_loaded_in_fp32_and_answers_as_its_fp32_copy(family, dtype, tmp_path):
    tokenizer, half = family_tokenizer(family), tiny_model(family).to(dtype)
    save_model(tmp_path / "half", half, tokenizer)
    save_model(tmp_path / "full", half.float(), tokenizer)
    ours, copy = (models.load_classifier(str(tmp_path / name), None).model.eval() for name in ("half", "full"))
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    batch = tokenizer(["this film was lovely", "bad"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert torch.equal(ours(**batch).logits, copy(**batch).logits)
    assert models.weights_fingerprint(ours) == models.weights_fingerprint(copy)


def test_a_classifier_has_its_head(family, tmp_path):
    save_model(tmp_path, tiny_model(family, labels=3), family_tokenizer(family))
    loaded = models.load_classifier(str(tmp_path), ["a", "b", "c"])
    assert loaded.has_head
    assert loaded.missing == ()


@pytest.mark.parametrize("kind", ["bare", "mlm"])
def test_a_bare_encoder_gets_a_random_head_with_the_datas_labels(family, kind, tmp_path):
    model = tiny_model(family)
    bare = model.base_model if kind == "bare" else AutoModelForMaskedLM.from_config(model.config)
    save_model(tmp_path, bare, family_tokenizer(family))
    loaded = models.load_classifier(str(tmp_path), ["a", "b", "c"])
    assert not loaded.has_head
    assert loaded.missing
    assert loaded.model.config.id2label == {0: "a", 1: "b", 2: "c"}
    for name, weight in bare.base_model.state_dict().items():
        if "pooler" not in name:
            torch.testing.assert_close(loaded.model.base_model.state_dict()[name], weight)


@pytest.mark.parametrize("old", [True, False])
def test_old_names_of_layer_norms_and_torch_files_are_read(old, folder):
    whole = models.load_classifier(str(folder), None).model
    weights = load_file(folder / "model.safetensors")
    if old:
        ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, former in ends.items():
            weights = {name.replace(new, former): weight for name, weight in weights.items()}
    weights["bert.embeddings.position_ids"] = torch.arange(64)[None]  # older releases wrote it
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert models.weights_fingerprint(models.load_classifier(str(folder), None).model) == models.weights_fingerprint(
        whole
    )


def test_safetensors_come_before_a_pickle(folder):
    (folder / "pytorch_model.bin").write_bytes(b"not a model")
    assert models.load_classifier(str(folder), None).has_head


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "student."])
@pytest.mark.parametrize("family_name", ["bert", "distilbert", "roberta", "deberta-v2"])
def test_weights_under_a_wrappers_prefix_are_counted_and_refused(prefix, family_name, tmp_path):
    model = tiny_model(family_name)
    save_model(tmp_path, model, family_tokenizer(family_name))
    rewrite(tmp_path, renamed(prefix))
    refused(tmp_path, f"0 of {len(model.state_dict())} weights", prefix)


def test_a_bare_encoder_under_a_prefix_is_refused_too(tmp_path):
    save_model(tmp_path, tiny_bert().bert, tiny_tokenizer())
    rewrite(tmp_path, renamed("_orig_mod."))
    refused(tmp_path, "0 of 41 weights", names=["a", "b"])


@pytest.mark.parametrize("lost", ["layer.1.", "layer.0.attention.self.query.weight", "word_embeddings", "LayerNorm"])
def test_any_missing_weight_of_the_encoder_is_an_error(lost, folder):
    rewrite(folder, lambda weights: {name: w for name, w in weights.items() if lost not in name})
    refused(folder, "of 41 weights", lost)


def test_a_classifier_without_its_pooler_is_refused(folder):
    rewrite(folder, lambda weights: {name: w for name, w in weights.items() if "pooler" not in name})
    refused(folder, "pooler")


@pytest.mark.parametrize("there", ["", "cls_head"])
def test_a_classifier_whose_head_is_gone_or_renamed_is_refused(there, folder):
    def change(weights):
        head = {name: weights.pop(name) for name in list(weights) if name.startswith("classifier")}
        if there:
            weights |= {name.replace("classifier", there): weight for name, weight in head.items()}
        return weights

    rewrite(folder, change)
    refused(folder, "classifier")


@pytest.mark.parametrize("lost", ["pre_classifier", "pooler", "classifier.dense"])
def test_half_a_head_is_refused(lost, tmp_path):
    name = {"pre_classifier": "distilbert", "pooler": "deberta-v2", "classifier.dense": "roberta"}[lost]
    save_model(tmp_path, tiny_model(name), family_tokenizer(name))
    rewrite(tmp_path, lambda weights: {key: w for key, w in weights.items() if not key.startswith(lost)})
    refused(tmp_path, lost)


def test_weights_of_another_architecture_are_refused(folder, tmp_path):
    save_model(tmp_path / "other", tiny_distilbert(), tiny_tokenizer())
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    refused(folder, "of 41 weights")


def test_layers_that_the_config_leaves_out_are_not_dropped_in_silence(family, tmp_path):
    if family == "albert":
        pytest.skip("its layers are one")
    save_model(tmp_path, tiny_model(family, layers=4), family_tokenizer(family))
    edit_config(tmp_path, **{"n_layers" if family == "distilbert" else "num_hidden_layers": 2})
    if family == "modernbert":
        edit_config(tmp_path, layer_types=["full_attention", "sliding_attention"])
    refused(tmp_path)


def test_an_adapter_that_would_be_left_out_is_refused(folder):
    rewrite(
        folder, lambda weights: weights | {"bert.encoder.layer.0.attention.self.query.lora_A.weight": torch.ones(2)}
    )
    refused(folder, "lora_A")


@pytest.mark.parametrize(
    "auto", [AutoModelForTokenClassification, AutoModelForQuestionAnswering, AutoModelForMultipleChoice]
)
@pytest.mark.parametrize("family_name", ["bert", "distilbert", "roberta", "modernbert"])
@pytest.mark.parametrize("names", [None, ["no", "yes"]])
def test_a_model_of_another_task_is_refused(auto, family_name, names, tmp_path):
    save_model(tmp_path, auto.from_config(tiny_model(family_name, labels=2).config), family_tokenizer(family_name))
    refused(tmp_path, names=names)


def test_a_token_classifier_is_refused_without_its_name_too(tmp_path):
    for name in ("bert", "distilbert", "deberta-v2", "albert"):
        folder = tmp_path / name
        save_model(folder, AutoModelForTokenClassification.from_config(tiny_model(name).config), family_tokenizer(name))
        edit_config(folder, architectures=None)
        refused(folder)


@pytest.mark.parametrize("changes", [{"hidden_size": 64}, {"vocab_size": 99}, {"num_labels": 3}])
def test_shapes_that_do_not_fit_the_config_are_named(changes, folder):
    if "num_labels" in changes:
        changes = {"id2label": {"0": "a", "1": "b", "2": "c"}}
    edit_config(folder, **changes)
    refused(folder, "shape")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["classifier.bias", "bert.embeddings.word_embeddings.weight"])
def test_a_weight_that_is_no_number_is_refused(value, name, folder):
    def damage(weights):
        weights[name].view(-1)[0] = value

    rewrite(folder, damage)
    refused(folder, name)


@pytest.mark.parametrize(
    "changes",
    [
        {"problem_type": "regression"},
        {"problem_type": "ordinal_regression"},
        {"problem_type": "single_label_classification", "id2label": {"0": "score"}, "label2id": {"score": 0}},
    ],
)
def test_a_model_whose_outputs_are_for_no_task_is_refused(changes, tmp_path):
    save_model(tmp_path, tiny_bert(labels=1 if "id2label" in changes else 2), tiny_tokenizer())
    edit_config(tmp_path, **changes)
    refused(tmp_path)
    with pytest.raises(UserError):
        models.label_names_of(str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "problem_type", "task"),
    [
        (2, None, "one-label"),
        (3, "single_label_classification", "one-label"),
        (1, None, "number"),
        (1, "regression", "number"),
        (3, "multi_label_classification", "several-labels"),
        (1, "multi_label_classification", "several-labels"),
    ],
)
def test_a_models_task_is_what_its_config_says(labels, problem_type, task, tmp_path):
    save_model(tmp_path, tiny_bert(labels=labels, layers=1), tiny_tokenizer())
    edit_config(tmp_path, problem_type=problem_type)
    assert models.load_classifier(str(tmp_path), None).has_head
    assert models.task_of_model(str(tmp_path)) == task


def test_what_transformers_cannot_load_is_told_in_one_sentence(folder, tmp_path):
    edit_config(folder, model_type="nonesuch")
    refused(folder, "nonesuch")
    edit_config(folder, auto_map={"AutoConfig": "code.Config"})
    with pytest.raises(UserError) as caught:
        models.load_classifier(str(folder), None)
    assert "trust_remote_code" not in str(caught.value)
    ViTConfig().save_pretrained(tmp_path / "vit")
    refused(tmp_path / "vit")
    (folder / "config.json").write_text("{")
    refused(folder)


def test_damaged_or_missing_weights_are_told_in_one_sentence(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refused(folder)
    file.unlink()
    refused(folder)


def test_code_that_comes_with_a_model_is_never_run(folder):
    (folder / "code.py").write_text("raise SystemExit('this code ran')\n")
    edit_config(folder, auto_map={"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"})
    assert type(models.load_classifier(str(folder), None).model).__name__ == "BertForSequenceClassification"


def test_nobody_is_asked_whether_code_may_run(folder, monkeypatch):
    ran = folder / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    edit_config(folder, model_type="nonesuch", auto_map={"AutoConfig": "code.Config"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    refused(folder)
    assert not ran.exists()


def test_a_path_that_is_none_is_told_from_a_hub_id(tmp_path):
    for name in (str(tmp_path / "nothing"), "./nothing", "~/nothing", "a/b/c"):
        with pytest.raises(UserError):
            models.locate(name)
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(UserError):
        models.locate(str(tmp_path / "empty"))
    assert models.locate("owner/name") == "owner/name"


def test_what_is_wrong_with_a_hub_models_files_is_quoted(monkeypatch):
    def fail(*args, **options):
        raise ValueError("something about its config is odd")

    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", fail)
    with pytest.raises(UserError) as caught:
        models.load_config("owner/name")
    assert "odd" in str(caught.value)
    assert "owner/name" in str(caught.value)
    assert "cannot be reached" not in str(caught.value)


# --- what is chosen -------------------------------------------------------------------------------------------


def test_attention_is_left_to_transformers_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert runtime.attention_options() == {}
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert runtime.attention_options() == {"attn_implementation": "eager"}


@pytest.mark.parametrize("accelerator", [True, False])
def test_every_family_loads_with_the_machines_attention(family, accelerator, tmp_path, monkeypatch):
    save_model(tmp_path, tiny_model(family), family_tokenizer(family))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    assert models.load_classifier(str(tmp_path), None).has_head


def test_the_embedded_backbone_is_hashed_once_for_each_state_of_its_file(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    weights = package / "model" / "model.safetensors"
    weights.write_bytes(b"weights")
    (package / "model" / "config.json").write_text("{}")
    reads, true_digest = [], loading.hashlib.file_digest

    def counted(*args):
        reads.append(args)
        return true_digest(*args)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(loading, "EMBEDDED_PACKAGE", "some_package")
    monkeypatch.setattr(loading, "EMBEDDED_SHA256", loading.hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setattr(loading.hashlib, "file_digest", counted)
    for _ in range(3):
        assert models.locate(models.EMBEDDED_BACKBONE) == str(package / "model")
    assert len(reads) == 1
    weights.write_bytes(b"damaged")
    os.utime(weights, (1, 1))
    for _ in range(2):
        with pytest.raises(UserError):
            models.locate(models.EMBEDDED_BACKBONE)
    assert len(reads) == 2
    monkeypatch.setattr(loading, "EMBEDDED_PACKAGE", "no_such_package")
    with pytest.raises(UserError):
        models.locate(models.EMBEDDED_BACKBONE)


# --- fingerprint ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 4},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-5},
        {"hidden_dropout_prob": 0.3},
        {"id2label": {"0": "b", "1": "a"}},
        {"pad_token_id": 1},
    ],
)
def test_the_fingerprint_changes_with_the_configuration(changes, folder):
    before = models.weights_fingerprint(models.load_classifier(str(folder), None).model)
    edit_config(folder, **changes)
    assert models.weights_fingerprint(models.load_classifier(str(folder), None).model) != before


def test_the_fingerprint_changes_with_any_weight(family):
    model = tiny_model(family)
    before = models.weights_fingerprint(model)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        now = models.weights_fingerprint(model)
        assert now != before
        before = now


def test_the_fingerprint_stays_over_saving_loading_and_training(family, tmp_path):
    tokenizer, model = family_tokenizer(family), tiny_model(family)
    save_model(tmp_path, model, tokenizer)
    before = models.weights_fingerprint(models.load_classifier(str(tmp_path), None).model)
    again = models.load_classifier(str(tmp_path), None).model
    again(**tokenizer(["good"], return_tensors="pt"), labels=torch.tensor([1]))
    assert models.weights_fingerprint(again) == before
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert models.weights_fingerprint(models.load_classifier(str(tmp_path / "copy"), None).model) == before


def test_the_fingerprint_is_taken_without_a_second_copy_of_the_weights(family):
    model = tiny_model(family)
    hashed = []
    true_sha256 = loading.hashlib.sha256

    class Watched:
        def __init__(self, start):
            self.inner = true_sha256(start)

        def update(self, part):
            if not isinstance(part, bytes):
                hashed.append(part.__array_interface__["data"][0])
            self.inner.update(part)

        def hexdigest(self):
            return self.inner.hexdigest()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading.hashlib, "sha256", Watched)
        models.weights_fingerprint(model)
    assert {parameter.data_ptr() for parameter in model.parameters()} <= set(hashed)


def test_gpt2_is_refused_for_want_of_a_padding_token(tmp_path):
    tokenizer = tiny_tokenizer("bpe")
    model = GPT2ForSequenceClassification(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2))
    tokenizer.pad_token = None
    save_model(tmp_path, model, tokenizer)
    with pytest.raises(UserError) as caught:
        models.load_tokenizer(str(tmp_path))
    assert "pad" in str(caught.value)


def test_a_tokenizer_that_pads_on_the_left_pads_on_the_right_here(tmp_path):
    """Padding on the left would move every token to another position: answers would depend on who shares the batch."""
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    save_model(tmp_path, tiny_bert(), tokenizer)
    read = models.load_tokenizer(str(tmp_path))(["good", "a good film"], padding=True)
    assert [row[-1] for row in read["attention_mask"]] == [0, 1]
