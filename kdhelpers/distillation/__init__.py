"""Distillation itself: the losses, the Trainer, the column of the teacher's answers, and whole runs."""

from kdhelpers.distillation.answers import Answers, answers_from, answers_from_file, ask
from kdhelpers.distillation.hidden_states import pkd_loss
from kdhelpers.distillation.losses import (
    distillation_loss,
    hard_label_loss,
    hard_labels_loss,
    hard_number_loss,
    loss_for,
    soft_labels_loss,
    soft_number_loss,
    soft_target_loss,
    soft_targets,
)
from kdhelpers.distillation.pipeline import distill
from kdhelpers.distillation.prepared import (
    Prepared,
    build_control,
    build_student,
    labelled,
    look,
    of_teacher,
    prepare,
    train_student,
)
from kdhelpers.distillation.scoring import baseline_on
from kdhelpers.distillation.shards import join_delivered, label, require_head
from kdhelpers.distillation.teacher_logits import (
    add_teacher_logits,
    as_array,
    as_column,
    hard_answers,
    logits_fingerprint,
    mean_of_probabilities,
    table_hash,
    with_column,
)
from kdhelpers.distillation.trainer import DistillationTrainer, DistillationTrainingArguments
from kdhelpers.distillation.training import (
    Fit,
    Training,
    fit,
    length_grouping,
    load_fit,
    print_settings,
    ready_to_train,
    save_fit,
    steps_for,
    trainer_for,
)

__all__ = [
    "Answers", "DistillationTrainer", "DistillationTrainingArguments", "Fit", "Prepared", "Training",
    "add_teacher_logits", "answers_from", "answers_from_file", "as_array", "as_column", "ask", "baseline_on",
    "build_control", "build_student", "distill", "distillation_loss", "fit", "hard_answers", "hard_label_loss",
    "hard_labels_loss", "hard_number_loss", "join_delivered", "label", "labelled", "length_grouping",
    "load_fit", "logits_fingerprint", "look", "loss_for", "mean_of_probabilities", "of_teacher", "pkd_loss",
    "prepare", "print_settings", "ready_to_train", "require_head", "save_fit", "soft_labels_loss",
    "soft_number_loss", "soft_target_loss", "soft_targets", "steps_for", "table_hash", "train_student",
    "trainer_for", "with_column",
]  # fmt: skip
