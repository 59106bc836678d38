"""Hugging Face Trainer with one thing added: the distillation loss."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from kdhelpers import models
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.distillation.hidden_states import HiddenStatesLoss, Inside, look_inside
from kdhelpers.distillation.losses import HARD, Loss, loss_for
from kdhelpers.errors import UserError
from kdhelpers.settings import OPTIONS, check_option


def _option(name: str, default: Any) -> Any:
    return field(default=default, metadata={"help": OPTIONS[name].metadata["help"]})


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """TrainingArguments with the numbers of distillation. Raises UserError for what they cannot be.

    They are dataclass fields, so they reach `to_dict()`, `HfArgumentParser` and the saved `training_args.bin`;
    set in `__init__`, as in the article, they would be lost on the way.
    """

    alpha: float = _option("alpha", 0.5)
    temperature: float = _option("temperature", 2.0)
    hidden_states: str = _option("hidden_states", "none")
    hidden_states_weight: float = _option("hidden_states_weight", 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "temperature", "hidden_states", "hidden_states_weight"):
            # A hyperparameter search casts a trial's value to the type of the old one: an int here would
            # turn a trial's alpha of 0.12 into 0.
            value = getattr(self, name) if name == "hidden_states" else float(getattr(self, name))
            check_option(name, value)
            setattr(self, name, value)

    @property
    def n_gpu(self) -> int:
        """At most one GPU a process: Trainer would split batches among all, and train that many times the epochs."""
        return min(1, super().n_gpu)


class ShuffledLengthSampler(LengthGroupedSampler):
    """Batches of like length, in an order that is random and depends on seed and epoch alone.

    Trainer's own sampler gives each group's longest batch first, so that an epoch ends with the shortest rows: that
    cost our students a point of validation accuracy. It also draws from the global random state, so that a resumed
    run would see other batches than a run that was never interrupted.
    """

    def __init__(self, *args: Any, seed: int, **kwargs: Any):
        super().__init__(*args, generator=torch.Generator(), **kwargs)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of every epoch."""
        self.generator.manual_seed(self.seed + 10_007 * epoch)

    def __iter__(self) -> Iterator[int]:
        """Row indices, batch after batch; a batch that is not full stays at the end."""
        rows, size = list(super().__iter__()), self.batch_size
        whole = torch.randperm(len(rows) // size, generator=self.generator).tolist()
        batches = [rows[size * index : size * (index + 1)] for index in [*whole, len(whole)]]
        return iter([row for batch in batches for row in batch])


class DistillationTrainer(Trainer):
    """Trains a student on labels and on a teacher's logits.

    The teacher's logits come from the dataset column `teacher_logits` where there is one, else from `teacher`, run on
    every training batch as in the article. With alpha = 1 neither is needed, with alpha = 0 no label.

    Evaluation reports the plain cross-entropy on the labels and never runs the teacher, so that `eval_loss`
    can be compared between runs whatever their alpha and temperature.
    """

    # The loss below is a mean per batch: Trainer has to divide it by the accumulation steps. (From transformers
    # 5.2x on this attribute says so; earlier releases look at model_accepts_loss_kwargs, set in __init__.)
    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, teacher: PreTrainedModel | None = None, loss: Loss | None = None, **kwargs: Any):
        """Takes what Trainer takes. `teacher`: a classifier of the student's task, with as many outputs.

        `loss` is by default that of the task which the student's config names.
        """
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False
        student, self.teacher = self.accelerator.unwrap_model(self.model), teacher
        self.task = models.task_of(student.config, "the student")
        self.distillation_loss = loss or loss_for(self.task)
        kind = self.args.hidden_states
        if teacher is None and kind != "none":
            raise UserError(f"hidden_states is {kind!r}, which needs the live teacher: pass teacher=")
        if teacher is not None:
            models.require_task(teacher.config, self.task, "the teacher")
            ours, theirs = student.config.num_labels, teacher.config.num_labels
            if ours != theirs:
                raise UserError(f"the teacher has {theirs} labels, the student {ours}")
            teacher.to(self.args.device).eval().requires_grad_(False)
        self._hidden_states_loss = None if kind == "none" else HiddenStatesLoss(kind, student, teacher)

    def _set_signature_columns_if_needed(self) -> None:
        # Trainer drops columns that the student's forward does not name. Three kinds must stay: the teacher's
        # logits, the lengths that batches are grouped by, and inputs that only the teacher reads (BERT's
        # token_type_ids when the student is a DistilBERT).
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            theirs = _columns(type(self.teacher)) if self.teacher is not None else frozenset()
            kept = [TEACHER_LOGITS, self.args.length_column_name, *sorted(theirs)]
            self._signature_columns: list[str] = [*(self._signature_columns or []), *kept]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            # as a list: a column of datasets reads the table anew for each row
            return ShuffledLengthSampler(sampler.batch_size, lengths=sampler.lengths[:], seed=seed)
        return sampler

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The distillation loss in training, the labels' plain loss in evaluation. A mean over the batch's rows."""
        args, labels = self.args, inputs.get("labels")
        deep = self._hidden_states_loss if model.training else None
        student = _run(model, self.accelerator.unwrap_model(model), inputs, bool(deep))
        logits = student[0].logits
        if not model.training:
            loss = HARD[self.task](logits, inputs["labels"])
            return (loss, student[0]) if return_outputs else loss
        answers = inputs.get(TEACHER_LOGITS)
        if deep or (self.teacher is not None and args.alpha < 1 and answers is None):
            with torch.no_grad():
                teacher = _run(self.teacher, self.teacher, inputs, bool(deep))
            answers = teacher[0].logits
        numbers = {"temperature": args.temperature, "label_smoothing": args.label_smoothing_factor}
        loss = self.distillation_loss(logits, answers, labels, alpha=args.alpha, **numbers)
        if deep:
            loss = loss + args.hidden_states_weight * deep(student, teacher, inputs["attention_mask"])
        return (loss, student[0]) if return_outputs else loss


def _columns(kind: Any) -> frozenset[str]:
    """What a kind of model's forward takes, its labels left out."""
    return frozenset(inspect.signature(kind.forward).parameters) - {"labels"}


def _run(model: Any, unwrapped: Any, inputs: dict, inside: bool) -> tuple[Any, Inside]:
    """A model's output on those columns of a batch that it takes, and what it computes inside, if asked."""
    own = {name: value for name, value in inputs.items() if name in _columns(type(unwrapped))}
    if inside:
        return look_inside(model, own)
    with models.first_token_only(unwrapped):
        return model(**own), []
