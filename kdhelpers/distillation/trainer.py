"""Hugging Face Trainer with one thing added: the distillation loss."""

import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from kdhelpers import models
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.distillation.hidden_states import HiddenStatesLoss, look_inside
from kdhelpers.distillation.losses import distillation_loss, hard_label_loss
from kdhelpers.errors import UserError
from kdhelpers.settings import check_option


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """TrainingArguments with the numbers of distillation. Raises UserError for what they cannot be.

    They are dataclass fields, so they reach `to_dict()`, `HfArgumentParser` and the saved `training_args.bin`;
    set in `__init__`, as in the article, they would be lost on the way.
    """

    alpha: float = field(default=0.5, metadata={"help": "Weight of the labels' loss; 1 - alpha goes to the teacher."})
    temperature: float = field(default=2.0, metadata={"help": "Softens teacher and student logits alike; > 0."})
    hidden_states: str = field(
        default="none", metadata={"help": "none, pkd, tinybert or minilm: see HiddenStatesLoss."}
    )
    hidden_states_weight: float = field(default=1.0, metadata={"help": "Weight of that loss, on top of the others."})

    def __post_init__(self) -> None:
        super().__post_init__()
        # A hyperparameter search casts a trial's value to the type of the old one: an int here would
        # turn a trial's alpha of 0.12 into 0.
        for name in ("alpha", "temperature", "hidden_states_weight"):
            setattr(self, name, float(getattr(self, name)))
        for name in ("alpha", "temperature", "hidden_states", "hidden_states_weight"):
            check_option(name, getattr(self, name))

    @property
    def n_gpu(self) -> int:
        """At most one GPU a process: Trainer would split each batch among all, and train that many times the epochs."""
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

    def __init__(self, *args: Any, teacher: PreTrainedModel | None = None, **kwargs: Any):
        """Takes what Trainer takes. `teacher`: a sequence classifier with as many labels as the student."""
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False
        student = self.accelerator.unwrap_model(self.model)
        models.require_single_label(student.config, "the student")
        self.teacher = teacher
        kind = self.args.hidden_states
        if teacher is None and kind != "none":
            raise UserError(f"hidden_states is {kind!r}, which needs the live teacher: pass teacher=")
        if teacher is not None:
            models.require_single_label(teacher.config, "the teacher")
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
            self._signature_columns: list[str]  # Trainer has just filled it
            self._signature_columns += [TEACHER_LOGITS, self.args.length_column_name]
            if self.teacher is not None:
                self._signature_columns += sorted(_columns_of(type(self.teacher)) - set(self._signature_columns))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return ShuffledLengthSampler(sampler.batch_size, lengths=sampler.lengths, seed=seed)
        return sampler

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The distillation loss in training, plain cross-entropy in evaluation. A mean over the batch's rows."""
        args, labels = self.args, cast(Any, inputs.get("labels"))
        deep = self._hidden_states_loss if model.training else None
        own = _read_by(self.accelerator.unwrap_model(model), inputs)
        outputs, inside = look_inside(model, own) if deep else (model(**own), [])
        if model.training:
            teacher, teacher_inside = (
                self._run_teacher(inputs) if deep or self._teacher_is_asked(inputs) else (None, [])
            )
            answers = inputs.get(TEACHER_LOGITS) if teacher is None else teacher.logits
            numbers = {"temperature": args.temperature, "label_smoothing": args.label_smoothing_factor}
            loss = distillation_loss(outputs.logits, answers, labels, alpha=args.alpha, **numbers)
            if deep:
                difference = deep((outputs, inside), (teacher, teacher_inside), inputs["attention_mask"])
                loss = loss + args.hidden_states_weight * difference
        else:
            loss = hard_label_loss(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss

    def _teacher_is_asked(self, inputs: dict) -> bool:
        return self.teacher is not None and self.args.alpha < 1 and TEACHER_LOGITS not in inputs

    def _run_teacher(self, inputs: dict) -> tuple[Any, list]:
        assert self.teacher is not None
        own = _read_by(self.teacher, inputs)
        with torch.no_grad():
            return look_inside(self.teacher, own) if self._hidden_states_loss else (self.teacher(**own), [])


@functools.cache
def _columns_of(kind: Any) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters) - {"labels"}


def _read_by(model: PreTrainedModel, inputs: dict) -> dict:
    """Those of a batch's columns that a model's forward takes, its labels left out."""
    return {name: value for name, value in inputs.items() if name in _columns_of(cast(Any, type(model)))}
