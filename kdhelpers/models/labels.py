"""A model's labels against the data's: names, order, and both directions of the config."""

from typing import Any

from transformers import PreTrainedModel

from kdhelpers.data import Task, normal_label
from kdhelpers.errors import UserError
from kdhelpers.models.loading import LoadedModel, label_maps, load_config, reorder_outputs, require_task, task_of


def names_in_order(config: Any) -> list[str]:
    """The label names in the order of their ids, which need not be that of the config's entries."""
    return [str(config.id2label.get(index)) for index in range(config.num_labels)]


def _names(config: Any) -> tuple[list[str], bool]:
    """The label names, and whether they say something: LABEL_1 and 1 do not."""
    names = names_in_order(config)
    return names, any(normal_label(name) not in (f"label_{i}", str(i)) for i, name in enumerate(names))


def label_names_of(model_id: str) -> list[str] | None:
    """The label names that a fine-tuned classifier brings; None for a bare encoder or names like LABEL_0."""
    if task_of_model(model_id) is None:
        return None
    names, telling = _names(load_config(model_id))
    return names if telling else None


def task_of_model(model_id: str) -> Task | None:
    """The task that a fine-tuned classifier is for; None for a bare encoder. Raises UserError for one that is none."""
    config = load_config(model_id)
    fine_tuned = any("SequenceClassification" in name for name in config.architectures or [])
    return task_of(config, model_id) if fine_tuned else None


def set_labels(model: PreTrainedModel, label_names: list[str]) -> PreTrainedModel:
    """Write label names into the model's config; the number of labels must already fit."""
    model.config.update(label_maps(label_names))
    return model


def align_labels(loaded: LoadedModel, label_names: list[str], what: str = "teacher", task: Task = Task.ONE) -> None:
    """Check a model's labels against the data's, and write the data's names into it where its own say nothing.

    Where it has the same in another order, its outputs are put into the data's. Names are compared in one spelling
    (case, Unicode); `task` is the data's. Raises UserError for another task or number of labels, other names, or a
    config whose two directions (id2label, label2id) contradict each other.
    """
    config = loaded.model.config
    require_task(config, task, f"the {what}")
    names, telling = _names(config)
    telling = telling and task is not Task.NUMBER  # a number's name, as "score" or "stars", is of no consequence
    pair = f"the {what}'s labels are {names}, the data's {label_names}"
    if len(names) != len(label_names):
        raise UserError(f"{pair}: their number must be the same")
    back = {str(name): str(index) for name, index in config.label2id.items()}
    if telling and any(back.get(name) != str(index) for index, name in enumerate(names)):
        raise UserError(f"the {what}'s config contradicts itself: id2label says {names}, label2id says {back}")
    ours, wanted = ([str(normal_label(name)) for name in each] for each in (names, label_names))
    if telling and sorted(ours) != sorted(wanted):
        if all(name.lstrip("-").isdigit() for name in wanted):
            return  # the data's numbers stand for the teacher's names, in their order
        raise UserError(f"{pair}: map one to the other")
    if telling and ours != wanted:
        reorder_outputs(loaded.model, [ours.index(name) for name in wanted])
    set_labels(loaded.model, label_names)
