"""Ask an exported static student about sentences, or pairs of them. Needs numpy, safetensors and tokenizers alone."""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer


def card(folder: str | Path) -> dict:
    """What the folder says of itself: task, labels, whether it reads pairs, longest input in tokens."""
    return json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))


def load(folder: str | Path, threads: int = 0) -> tuple[dict[str, np.ndarray], Tokenizer, list[str]]:
    """(weights, tokenizer, label names) of an exported student; `threads` are not needed."""
    tokenizer, facts = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), card(folder)
    tokenizer.no_padding()
    tokenizer.enable_truncation(facts["max_length"], direction=facts.get("truncation_side", "right"))
    return load_file(Path(folder) / "model.safetensors"), tokenizer, facts["labels"]


def encode(sentences: list, tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    """Each sentence's tokens; a pair is a tuple of two texts."""
    return {"input_ids": [row.ids for row in tokenizer.encode_batch(sentences)]}


def run(weights: dict[str, np.ndarray], inputs: dict[str, list[list[int]]]) -> np.ndarray:
    """Logits, float32 [sentences, classes]: one linear layer on the mean of a sentence's token vectors."""
    means = np.stack([weights["embeddings.weight"][ids].sum(0) / max(len(ids), 1) for ids in inputs["input_ids"]])
    return means @ weights["classifier.weight"].T + weights["classifier.bias"]


def logits(sentences: list, weights: dict[str, np.ndarray], tokenizer: Tokenizer) -> np.ndarray:
    """The student's logits, float32 [sentences, classes]."""
    return run(weights, encode(sentences, tokenizer))


def answer(row: np.ndarray, labels: list[str], task: str = "one-label") -> str:
    """Logits [classes] in words: the likeliest label, all labels that are likelier than not, or a number."""
    if task == "number":
        return f"{row[0]:.3f}"
    if task == "several-labels":
        return "|".join(label for label, value in zip(labels, row, strict=True) if value > 0) or "|"
    return labels[int(row.argmax())]


if __name__ == "__main__":
    here = Path(__file__).parent
    weights, tokenizer, labels = load(here)
    facts, asked = card(here), [text.encode(errors="replace").decode() for text in sys.argv[1:]]  # ?: no UTF-8
    if facts.get("pairs") and len(asked) % 2:
        sys.exit("this student reads pairs of texts: give two for each answer")
    for sentence in zip(asked[::2], asked[1::2], strict=True) if facts.get("pairs") else asked:
        said = answer(logits([sentence], weights, tokenizer)[0], labels, facts.get("task", "one-label"))
        print(said, *([sentence] if isinstance(sentence, str) else sentence), sep="\t")
