"""A model's labels against the data's: names, order, and both directions of the config."""

from transformers import PreTrainedModel

from kdhelpers.data import normal_label
from kdhelpers.errors import UserError
from kdhelpers.models.loading import LoadedModel, label_maps, load_config, require_single_label


def _names(config) -> tuple[list[str], bool]:
    """The label names in the order of their ids, and whether they say something: LABEL_1 and 1 do not."""
    names = [str(config.id2label.get(index)) for index in range(config.num_labels)]
    numbered = all(normal_label(name) in (f"label_{i}", str(i)) for i, name in enumerate(names))
    return names, not numbered


def label_names_of(model_id: str) -> list[str] | None:
    """The label names that a fine-tuned classifier brings; None for a bare encoder or names like LABEL_0."""
    config = load_config(model_id)
    if not any("SequenceClassification" in name for name in config.architectures or []):
        return None
    require_single_label(config, model_id)
    names, telling = _names(config)
    return names if telling else None


def set_labels(model: PreTrainedModel, label_names: list[str]) -> PreTrainedModel:
    """Write label names into the model's config; the number of labels must already fit."""
    maps = label_maps(label_names)
    model.config.id2label, model.config.label2id = maps["id2label"], maps["label2id"]
    return model


def align_labels(loaded: LoadedModel, label_names: list[str], what: str = "teacher") -> None:
    """Check a model's labels against the data's, and write the data's names into it where its own say nothing.

    Names are compared in one spelling (case, Unicode). Raises UserError for another task or number of labels, other
    names, the same in another order, or a config whose two directions (id2label, label2id) contradict each other.
    """
    config = loaded.model.config
    require_single_label(config, f"the {what}")
    names, telling = _names(config)
    if len(names) != len(label_names):
        raise UserError(
            f"the {what} has {len(names)} labels ({', '.join(names)}), the data {len(label_names)} "
            f"({', '.join(label_names)})"
        )
    if not telling:
        set_labels(loaded.model, label_names)
        return
    back = {str(name): str(index) for name, index in config.label2id.items()}
    if any(back.get(name) != str(index) for index, name in enumerate(names)):
        raise UserError(f"the {what}'s config contradicts itself: id2label says {names}, label2id says {back}")
    ours, wanted = ([normal_label(name) for name in each] for each in (names, label_names))
    if all(name.lstrip("-").isdigit() for name in wanted) and sorted(ours) != sorted(wanted):
        return  # the data's numbers stand for the teacher's names, in their order
    if ours != wanted:
        how = "in another order" if sorted(ours) == sorted(wanted) else "other names"
        raise UserError(f"the {what}'s labels are {names}, the data's {label_names} ({how}): map one to the other")
    set_labels(loaded.model, label_names)
