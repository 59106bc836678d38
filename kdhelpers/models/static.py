"""A student that is no transformer: the mean of its tokens' vectors, and one linear layer."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class StaticConfig(PreTrainedConfig):
    """Vocabulary, width of the vectors, labels; it has no layers and no positions."""

    model_type = "kd-static"

    def __init__(self, vocab_size: int = 30522, hidden_size: int = 384, **options: Any):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, 0
        super().__init__(**options)


class StaticForSequenceClassification(PreTrainedModel):
    """Logits from the mean of a text's token vectors (a deep averaging network without a hidden layer, Iyyer 2015)."""

    config_class = StaticConfig
    kind = StaticConfig.model_type
    base_model_prefix = _input_embed_layer = "embeddings"

    def __init__(self, config: StaticConfig):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits [rows, classes] of tokens [rows, tokens]; padding, where the mask is 0, does not count."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weights = mask.to(self.embeddings.weight.dtype).unsqueeze(-1)
        mean = (self.embeddings(input_ids) * weights).sum(1) / weights.sum(1).clamp(min=1)
        logits = self.classifier(mean)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(StaticConfig.model_type, StaticConfig)
AutoModelForSequenceClassification.register(StaticConfig, StaticForSequenceClassification)


def static_student(parent: PreTrainedModel) -> StaticForSequenceClassification:
    """A static student with the token vectors of any classifier, its labels, and a new head; after `set_seed`."""
    table = parent.get_input_embeddings().get_parameter("weight").detach()
    names = ("id2label", "label2id", "pad_token_id", "problem_type")
    kept: dict[str, Any] = {name: getattr(parent.config, name, None) for name in names}
    student = StaticForSequenceClassification(StaticConfig(*table.shape, **kept))
    with torch.no_grad():
        student.embeddings.weight.copy_(table)
    return student
