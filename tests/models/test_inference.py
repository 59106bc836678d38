"""What predict_logits returns, and that an answer that is no number stops a run."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import set_seed

from kdhelpers import models
from kdhelpers.errors import UserError
from tests.tiny import FAMILIES, family_tokenizer, tiny_bert, tiny_model, tiny_tokenizer

TEXTS = ["this film was lovely and great", "bad", "", "dull plot " * 9, "one more"]


def tokenised(tokenizer, texts=TEXTS) -> Dataset:
    return Dataset.from_dict(dict(tokenizer(texts, truncation=True)))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_keep_their_order_and_padding_changes_nothing(family):
    set_seed(0)
    model, tokenizer = tiny_model(family, labels=3), family_tokenizer(family)
    logits = models.predict_logits(model, tokenised(tokenizer), tokenizer, batch_size=2)
    assert logits.dtype == np.float32
    assert logits.shape == (len(TEXTS), 3)
    for text, row in zip(TEXTS, logits, strict=True):
        with torch.inference_mode():
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(row, alone, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_left_as_it_was(training):
    model, tokenizer = tiny_bert().train(training), tiny_tokenizer()
    first, second = (models.predict_logits(model, tokenised(tokenizer), tokenizer) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training == training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_stop_a_run_and_name_the_model(value):
    model, tokenizer = tiny_bert(), tiny_tokenizer()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("dull")] = value
    with pytest.raises(UserError) as caught:
        models.predict_logits(model, tokenised(tokenizer), tokenizer)
    assert "1 of 5 rows" in str(caught.value)
    assert "BertForSequenceClassification" in str(caught.value)
