"""Tiny random models of nine families, their tokenizers, and a task that they can learn: all made in code.

>>> save_model(folder, tiny_model("roberta"), tiny_tokenizer("bpe"))  # or family_tokenizer("roberta")
"""

import copy
import functools
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertTokenizerFast,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

# family: the kind of its tokenizer
FAMILIES = {
    "bert": "wordpiece",
    "distilbert": "wordpiece",
    "electra": "wordpiece",
    "mpnet": "mpnet",
    "roberta": "bpe",
    "modernbert": "bpe",
    "albert": "unigram",
    "deberta-v2": "unigram",
    "xlm-roberta": "unigram",
}
KINDS = ("wordpiece", "bpe", "unigram")  # of tokenizers
POSITIONS = 64  # usable ones, in every family
_OFFSET = ("roberta", "mpnet", "xlm-roberta")  # their first two positions are never used: 514 positions read 512 tokens

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPECIAL_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
GOOD, BAD = ["good", "great", "fine", "lovely"], ["bad", "awful", "poor", "dull"]
FILLER = """the a this that film story actor scene music plot ending camera voice light town river train winter garden
letter was is felt seemed looked sounded quite rather very almost never always here there again today""".split()
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'"]
WORDS = [*GOOD, *BAD, *FILLER]
VOCABULARY = list(dict.fromkeys([*SPECIAL, *WORDS, *LETTERS, *("##" + letter for letter in LETTERS)]))


def tiny_tokenizer(kind: str = "wordpiece") -> PreTrainedTokenizerFast:
    """A tokenizer of a few hundred tokens: "wordpiece" (BERT), "mpnet" (its special tokens), "bpe" or "unigram".

    WordPiece lower-cases, the others do not. Every word of the task is one token; other ASCII text is spelt out.
    """
    special = SPECIAL if kind == "wordpiece" else SPECIAL_ROBERTA
    build = {"bpe": _bpe, "unigram": _unigram}.get(kind, _wordpiece)
    tokenizer = build(special)
    roles = ("pad", "unk", "cls", "sep", "mask") if kind == "wordpiece" else ("cls", "pad", "sep", "unk", "mask")
    names = {f"{role}_token": token for role, token in zip(roles, special, strict=True)}
    ends = [(names[name], special.index(names[name])) for name in ("sep_token", "cls_token")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    make = BertTokenizerFast if kind == "wordpiece" else PreTrainedTokenizerFast
    return make(tokenizer_object=tokenizer, model_max_length=POSITIONS, **names)


def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer that goes with `tiny_model(family)`."""
    return tiny_tokenizer(FAMILIES[family])


def _wordpiece(special: list[str]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate([*special, *VOCABULARY[len(SPECIAL) :]])}
    unknown = next(token for token in special if "unk" in token.lower())
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _bpe(special: list[str]) -> Tokenizer:
    """Byte-level, as in GPT-2: every merge adds one letter to the beginning of a word."""
    merges = dict.fromkeys(("Ġ" + word[:end], word[end]) for word in WORDS for end in range(len(word)))
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _unigram(special: list[str]) -> Tokenizer:
    """As SentencePiece makes them: a word costs less than its letters."""
    words = [(token, -1.0) for token in ["▁", *("▁" + word for word in WORDS)]]
    letters = [(letter, -5.0) for letter in [*LETTERS, *(letter.upper() for letter in LETTERS if letter.isalpha())]]
    scores = [*((token, 0.0) for token in special), *words, *letters]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def tiny_model(
    family: str, labels: int = 2, layers: int = 2, hidden: int = 32, tokenizer: str | None = None
) -> PreTrainedModel:
    """A random classifier of a family in eval mode, for its own kind of tokenizer or another; seed before calling."""
    tokenizer = tiny_tokenizer(tokenizer or FAMILIES[family])
    options = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": POSITIONS + 2 * (family in _OFFSET),
        "num_labels": labels,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")},
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if family == "distilbert":  # it has names of its own
        options |= {"dim": hidden, "n_layers": layers, "n_heads": 2, "hidden_dim": 2 * hidden}
    elif family in ("albert", "electra"):
        options["embedding_size"] = 16
    elif family == "deberta-v2":
        options |= {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
        options |= {"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 16, "type_vocab_size": 0}
    elif family == "modernbert":
        options |= {"local_attention": 16, "global_attn_every_n_layers": 2}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **options)).eval()


def tiny_bert(labels: int = 2, layers: int = 2, hidden: int = 32) -> BertForSequenceClassification:
    """A random BERT classifier in eval mode; seed before calling."""
    return tiny_model("bert", labels, layers, hidden)


def tiny_distilbert(labels: int = 2, layers: int = 2, hidden: int = 32) -> DistilBertForSequenceClassification:
    """A random DistilBERT classifier in eval mode; seed before calling."""
    return tiny_model("distilbert", labels, layers, hidden)


def save_model(folder: Path, model, tokenizer) -> Path:
    """Write both as from_pretrained wants them; returns the folder."""
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
    """A tiny BERT that has learnt `teachable_rows`: a new copy each time, of one trained once a process in seconds."""
    return copy.deepcopy(_trained_once())


@functools.cache
def _trained_once() -> BertForSequenceClassification:
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
