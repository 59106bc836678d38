"""Classify sentences with an exported static student. Needs numpy, safetensors and tokenizers, and nothing else."""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer


def card(folder: str | Path) -> dict:
    """What the folder says of itself: labels, longest input in tokens."""
    return json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))


def load(folder: str | Path, threads: int = 0) -> tuple[dict[str, np.ndarray], Tokenizer, list[str]]:
    """(weights, tokenizer, label names) of an exported student; `threads` are not needed."""
    tokenizer, facts = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), card(folder)
    tokenizer.no_padding()
    tokenizer.enable_truncation(facts["max_length"])
    return load_file(Path(folder) / "model.safetensors"), tokenizer, facts["labels"]


def encode(sentences: list, tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    """Each sentence's tokens; a pair is a tuple of two texts."""
    return {"input_ids": [row.ids for row in tokenizer.encode_batch(sentences)]}


def run(weights: dict[str, np.ndarray], inputs: dict[str, list[list[int]]]) -> np.ndarray:
    """Logits, float32 [sentences, classes]: one linear layer on the mean of a sentence's token vectors."""
    means = np.stack([weights["embeddings.weight"][ids].mean(0) for ids in inputs["input_ids"]])
    return means @ weights["classifier.weight"].T + weights["classifier.bias"]


def logits(sentences: list, weights: dict[str, np.ndarray], tokenizer: Tokenizer) -> np.ndarray:
    """The student's logits, float32 [sentences, classes]."""
    return run(weights, encode(sentences, tokenizer))


if __name__ == "__main__":
    weights, tokenizer, labels = load(Path(__file__).parent)
    texts = sys.argv[1:]
    asked = zip(texts[::2], texts[1::2], strict=True) if card(Path(__file__).parent)["pairs"] else [(t,) for t in texts]
    for text in asked:
        said = logits([text if len(text) == 2 else text[0]], weights, tokenizer)
        print(labels[int(said.argmax())], *text, sep="\t")
