"""Teachers and students: loading them, their labels, layers and tokenizers, and what they answer."""

from kdhelpers.models.baseline import baseline_logits, baseline_parameters, fit_baseline
from kdhelpers.models.first_token import first_token_only
from kdhelpers.models.inference import predict_logits
from kdhelpers.models.labels import align_labels, label_names_of, names_in_order, set_labels, task_of_model
from kdhelpers.models.layers import (
    count_parameters,
    cut_layers,
    encoder_layers,
    evenly_spaced_layers,
    freeze_word_embeddings,
    num_layers,
    reset_head,
    set_dropout,
    student_from_layers,
)
from kdhelpers.models.loading import (
    EMBEDDED_BACKBONE,
    LoadedModel,
    hub_revision,
    load_classifier,
    load_config,
    load_tokenizer,
    locate,
    require_task,
    task_of,
    weights_fingerprint,
)
from kdhelpers.models.mpnet import MPNET_BASE, mpnet_is_cached
from kdhelpers.models.static import StaticForSequenceClassification, static_student
from kdhelpers.models.tokenizers import (
    TokenizerReport,
    cased,
    compare_tokenizers,
    rebuilt_tokenizer,
    require_same_tokenizer,
    swap_tokens,
    usable_length,
)

__all__ = [
    "EMBEDDED_BACKBONE", "LoadedModel", "MPNET_BASE", "StaticForSequenceClassification", "TokenizerReport",
    "align_labels", "baseline_logits", "baseline_parameters", "cased", "compare_tokenizers", "count_parameters",
    "cut_layers", "encoder_layers", "evenly_spaced_layers", "first_token_only", "fit_baseline",
    "freeze_word_embeddings", "hub_revision", "label_names_of", "load_classifier", "load_config", "load_tokenizer",
    "locate", "mpnet_is_cached", "names_in_order", "num_layers", "predict_logits", "rebuilt_tokenizer",
    "require_same_tokenizer", "require_task", "reset_head", "set_dropout", "set_labels", "static_student",
    "student_from_layers", "swap_tokens", "task_of", "task_of_model", "usable_length", "weights_fingerprint",
]  # fmt: skip
