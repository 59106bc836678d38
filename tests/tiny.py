"""Tiny random models and a task that they can learn, all made in code."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD = ["good", "great", "fine", "lovely"], ["bad", "awful", "poor", "dull"]
FILLER = """the a this that film story actor scene music plot ending camera voice light town river train winter garden
letter was is felt seemed looked sounded quite rather very almost never always here there again today""".split()
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'"]
VOCABULARY = [*SPECIAL, *GOOD, *BAD, *FILLER, *LETTERS, *("##" + letter for letter in LETTERS)]


def tiny_tokenizer() -> BertTokenizerFast:
    """A lower-casing WordPiece tokenizer of some 130 pieces that reads any ASCII text."""
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=64)


def tiny_bert(labels: int = 2, layers: int = 2, hidden: int = 32) -> BertForSequenceClassification:
    """A random BERT classifier in eval mode; seed before calling."""
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        num_labels=labels,
    )
    return BertForSequenceClassification(config).eval()


def tiny_distilbert(labels: int = 2, layers: int = 2, hidden: int = 32) -> DistilBertForSequenceClassification:
    """A random DistilBERT classifier in eval mode; seed before calling."""
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=hidden,
        n_layers=layers,
        n_heads=2,
        hidden_dim=2 * hidden,
        max_position_embeddings=64,
        num_labels=labels,
    )
    return DistilBertForSequenceClassification(config).eval()


def save_model(folder: Path, model, tokenizer) -> Path:
    """Write both as from_pretrained wants them; gives back the folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def teachable_rows(n: int, seed: int = 0) -> list[dict]:
    """n rows {"text", "label"}: one word of praise (1) or blame (0) among words that mean nothing."""
    draw = random.Random(seed)
    rows = []
    for index in range(n):
        label = index % 2
        words = [draw.choice(FILLER) for _ in range(draw.randint(4, 12))]
        words.insert(draw.randrange(len(words)), draw.choice(GOOD if label else BAD))
        rows.append({"text": " ".join(words), "label": label})
    return rows


def trained_tiny_teacher() -> BertForSequenceClassification:
    """A tiny BERT that has learnt `teachable_rows`, in a few seconds."""
    torch.manual_seed(0)
    model, tokenizer = tiny_bert().train(), tiny_tokenizer()
    rows = teachable_rows(512, seed=99)
    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([row["label"] for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        part = slice((step * 64) % 512, (step * 64) % 512 + 64)
        loss = model(**{name: tensor[part] for name, tensor in batch.items()}, labels=labels[part]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(**batch).logits.argmax(-1) == labels).float().mean().item()
    assert accuracy > 0.95, f"the tiny teacher has not learnt its task: {accuracy}"
    return model
