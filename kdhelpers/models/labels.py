"""A model's labels against the data's: names, order, and both directions of the config."""

from transformers import PreTrainedModel

from kdhelpers.errors import UserError
from kdhelpers.models.loading import LoadedModel, label_maps, load_config


def label_names_of(model_id: str) -> list[str] | None:
    """The label names that a fine-tuned classifier brings; None for a bare encoder or names like LABEL_0."""
    config = load_config(model_id)
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    classifier = any("SequenceClassification" in name for name in config.architectures or [])
    return names if classifier and names[0] != "LABEL_0" else None


def set_labels(model: PreTrainedModel, label_names: list[str]) -> PreTrainedModel:
    """Write label names into the model's config; the number of labels must already fit."""
    maps = label_maps(label_names)
    model.config.id2label, model.config.label2id = maps["id2label"], maps["label2id"]
    return model


def align_labels(loaded: LoadedModel, label_names: list[str], what: str = "teacher") -> None:
    """Check a model's labels against the data's, and write the data's names into it where its own say nothing.

    Raises UserError for another number of labels, other names, the same names in another order, or a config whose
    two directions (id2label, label2id) contradict each other.
    """
    config = loaded.model.config
    if config.num_labels != len(label_names):
        raise UserError(
            f"the {what} has {config.num_labels} labels ({', '.join(map(str, config.id2label.values()))}), "
            f"the data {len(label_names)} ({', '.join(label_names)})"
        )
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    back = {str(name): int(index) for name, index in config.label2id.items()}
    generic = names == [f"LABEL_{index}" for index in range(len(names))]
    numbers = all(name.lstrip("-").isdigit() for name in label_names)
    if not generic and len(set(names)) == len(names) and any(back.get(name) != i for i, name in enumerate(names)):
        raise UserError(f"the {what}'s config contradicts itself: id2label says {names}, label2id says {back}")
    if not generic and not numbers:
        folded, wanted = [name.lower() for name in names], [name.lower() for name in label_names]
        if folded != wanted:
            how = "in another order" if sorted(folded) == sorted(wanted) else "other names"
            raise UserError(f"the {what}'s labels are {names}, the data's {label_names} ({how}): map one to the other")
    if generic or not numbers:
        set_labels(loaded.model, label_names)
