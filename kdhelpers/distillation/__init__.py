"""Distillation itself: the losses, the Trainer, the column of the teacher's answers, and whole runs."""

from kdhelpers.distillation.losses import distillation_loss, hard_label_loss, soft_target_loss, soft_targets
from kdhelpers.distillation.pipeline import distill
from kdhelpers.distillation.prepared import Prepared, build_control, build_student, labelled, prepare, train_student
from kdhelpers.distillation.shards import label
from kdhelpers.distillation.teacher_logits import add_teacher_logits, as_column, logits_fingerprint, table_hash
from kdhelpers.distillation.trainer import DistillationTrainer, DistillationTrainingArguments
from kdhelpers.distillation.training import (
    Fit,
    Training,
    fit,
    length_grouping,
    load_fit,
    ready_to_train,
    save_fit,
    steps_for,
    trainer_for,
)

__all__ = [
    "DistillationTrainer", "DistillationTrainingArguments", "Fit", "Prepared", "Training", "add_teacher_logits",
    "as_column", "build_control", "build_student", "distill", "distillation_loss", "fit", "hard_label_loss", "label",
    "labelled", "length_grouping", "load_fit", "logits_fingerprint", "prepare", "ready_to_train", "save_fit",
    "soft_target_loss", "soft_targets", "steps_for", "table_hash", "train_student", "trainer_for",
]  # fmt: skip
