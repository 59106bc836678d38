"""Hugging Face Trainer with one thing added: the distillation loss."""

import inspect
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.distillation.hidden_states import HiddenStatesLoss, check_hidden_states
from kdhelpers.distillation.losses import check_alpha, check_temperature, distillation_loss, hard_label_loss
from kdhelpers.errors import UserError


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """TrainingArguments with the two numbers of distillation.

    They are dataclass fields, so they reach `to_dict()`, `HfArgumentParser` and the saved `training_args.bin`;
    set in `__init__`, as in the article, they would be lost on the way.
    """

    alpha: float = field(default=0.5, metadata={"help": "Weight of the labels' loss; 1 - alpha goes to the teacher."})
    temperature: float = field(default=2.0, metadata={"help": "Softens teacher and student logits alike; > 0."})

    hidden_states: str = field(
        default="none",
        metadata={"help": "Also distil what is inside the live teacher: none, pkd, tinybert or minilm."},
    )
    hidden_states_weight: float = field(default=1.0, metadata={"help": "Weight of that loss, on top of the others."})

    def __post_init__(self):
        super().__post_init__()
        # A hyperparameter search casts a trial's value to the type of the old one: an int here would
        # turn a trial's alpha of 0.12 into 0.
        self.alpha = float(self.alpha)
        self.temperature = float(self.temperature)
        check_alpha(self.alpha)
        check_temperature(self.temperature)
        check_hidden_states(self.hidden_states)


class ShuffledLengthSampler(LengthGroupedSampler):
    """Batches of like length, in an order that is random and depends on seed and epoch alone.

    Trainer's own sampler gives each group's longest batch first, so that an epoch ends with the shortest rows: that
    cost our students a point of validation accuracy. It also draws from the global random state, so that a resumed
    run would see other batches than a run that was never interrupted.
    """

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, generator=torch.Generator(), **kwargs)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Trainer at the start of every epoch."""
        self.generator.manual_seed(self.seed + 10_007 * epoch)

    def __iter__(self):
        """Row indices, batch after batch; a batch that is not full stays at the end."""
        rows, size = list(super().__iter__()), self.batch_size
        whole = torch.randperm(len(rows) // size, generator=self.generator).tolist()
        batches = [rows[size * index : size * (index + 1)] for index in [*whole, len(whole)]]
        return iter([row for batch in batches for row in batch])


class DistillationTrainer(Trainer):
    """Trains a student on labels and on a teacher's logits.

    The teacher's logits come from the dataset column `teacher_logits` where there is one (see `kdhelpers.logits`),
    else from `teacher`, run on every training batch as in the article. With alpha = 1 neither is needed.

    Evaluation reports the plain cross-entropy on the labels and never runs the teacher, so that `eval_loss`
    can be compared between runs whatever their alpha and temperature.
    """

    # The loss below is a mean per batch: Trainer has to divide it by the accumulation steps. (From transformers
    # 5.2x on this attribute says so; earlier releases look at model_accepts_loss_kwargs, set in __init__.)
    loss_is_scaled_for_ga = False

    def __init__(self, *args, teacher: PreTrainedModel | None = None, **kwargs):
        """Takes what Trainer takes. `teacher`: a sequence classifier with as many labels as the student."""
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False
        student = self.accelerator.unwrap_model(self.model)
        self._student_inputs = set(inspect.signature(student.forward).parameters)
        self.teacher = teacher
        self._hidden_states_loss = None
        if self.args.hidden_states != "none":
            if teacher is None:
                raise UserError(f"hidden_states is {self.args.hidden_states!r}, which needs the live teacher: pass teacher=")
            self._hidden_states_loss = HiddenStatesLoss(self.args.hidden_states, student, teacher)
        if teacher is not None:
            if teacher.config.num_labels != student.config.num_labels:
                raise UserError(
                    f"the teacher has {teacher.config.num_labels} labels, the student {student.config.num_labels}"
                )
            teacher.to(self.args.device).eval().requires_grad_(False)
            self._teacher_inputs = set(inspect.signature(teacher.forward).parameters) - {"labels"}

    def _set_signature_columns_if_needed(self):
        # Trainer drops columns that the student's forward does not name. Three kinds must stay: the teacher's
        # logits, the lengths that batches are grouped by, and inputs that only the teacher reads (BERT's
        # token_type_ids when the student is a DistilBERT).
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            self._signature_columns += [TEACHER_LOGITS, self.args.length_column_name]
            if self.teacher is not None:
                self._signature_columns += sorted(self._teacher_inputs - set(self._signature_columns))

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return ShuffledLengthSampler(sampler.batch_size, lengths=sampler.lengths, seed=seed)
        return sampler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The distillation loss in training, plain cross-entropy in evaluation. A mean over the batch's rows."""
        labels = inputs["labels"]
        deep = self._hidden_states_loss if model.training else None
        asks = deep.asks if deep else {}
        outputs = model(**{k: v for k, v in inputs.items() if k in self._student_inputs and k != "labels"}, **asks)
        if model.training:
            teacher = self._run_teacher(inputs, asks) if deep else None
            loss = distillation_loss(
                outputs.logits,
                self._teacher_logits(inputs, like=outputs.logits) if teacher is None else teacher.logits,
                labels,
                alpha=self.args.alpha,
                temperature=self.args.temperature,
                label_smoothing=self.args.label_smoothing_factor,
            )
            if deep:
                loss = loss + self.args.hidden_states_weight * deep(outputs, teacher, inputs["attention_mask"])
        else:
            loss = hard_label_loss(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss

    def _teacher_logits(self, inputs: dict, like: torch.Tensor) -> torch.Tensor:
        if self.args.alpha == 1:  # labels only: any finite tensor will do, it is not looked at
            return like.detach()
        if TEACHER_LOGITS in inputs:
            return inputs[TEACHER_LOGITS]
        if self.teacher is None:
            raise UserError(
                f"alpha is {self.args.alpha}, so a teacher is needed: pass teacher=, "
                f"or a training dataset with the column {TEACHER_LOGITS!r}"
            )
        return self._run_teacher(inputs, {}).logits

    def _run_teacher(self, inputs: dict, asks: dict):
        with torch.no_grad():
            return self.teacher(**{k: v for k, v in inputs.items() if k in self._teacher_inputs}, **asks)
