"""Ask an exported student about sentences, or pairs of them. Needs onnxruntime and tokenizers, no torch."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}  # of tokenizers


def card(folder: str | Path) -> dict:
    """What the folder says of itself: task, labels, whether it reads pairs, longest input in tokens, padding."""
    return json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))


def load(folder: str | Path, threads: int = 0) -> tuple[onnxruntime.InferenceSession, Tokenizer, list[str]]:
    """(session, tokenizer, label names) of an exported student; `threads` 0 leaves their number to the runtime."""
    folder, options, facts = Path(folder), onnxruntime.SessionOptions(), card(folder)
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads leave the cores to others
    slow = ["SkipLayerNormFusion"]  # on a CPU slower than the two operators that it joins
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"], disabled_optimizers=slow
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(facts["max_length"], direction=facts.get("truncation_side", "right"))
    tokenizer.enable_padding(pad_id=facts["pad_id"], pad_token=facts["pad_token"])
    return session, tokenizer, facts["labels"]


def encode(sentences: list, tokenizer: Tokenizer, names: Sequence[str] = tuple(FIELDS)[:2]) -> dict[str, np.ndarray]:
    """The model's inputs of these names, int64 [sentences, tokens]; a pair is a tuple of two texts."""
    rows = tokenizer.encode_batch(sentences)
    return {name: np.array([getattr(row, FIELDS[name]) for row in rows], np.int64) for name in names}


def inputs_of(session: onnxruntime.InferenceSession) -> list[str]:
    """The names of a model's inputs; a student of pairs may read token_type_ids, too."""
    return [each.name for each in session.get_inputs()]


def logits(sentences: list, session: onnxruntime.InferenceSession, tokenizer: Tokenizer) -> np.ndarray:
    """The student's logits, float32 [sentences, classes]."""
    return session.run(None, encode(sentences, tokenizer, inputs_of(session)))[0]


def answer(row: np.ndarray, labels: list[str], task: str = "one-label") -> str:
    """Logits [classes] in words: the likeliest label, all labels that are likelier than not, or a number."""
    if task == "number":
        return f"{row[0]:.3f}"
    if task == "several-labels":
        return "|".join(label for label, value in zip(labels, row, strict=True) if value > 0) or "|"
    return labels[int(row.argmax())]


if __name__ == "__main__":
    here = Path(__file__).parent
    session, tokenizer, labels = load(here)
    facts, asked = card(here), [text.encode(errors="replace").decode() for text in sys.argv[1:]]  # ?: no UTF-8
    if facts.get("pairs") and len(asked) % 2:
        sys.exit("this student reads pairs of texts: give two for each answer")
    for sentence in zip(asked[::2], asked[1::2], strict=True) if facts.get("pairs") else asked:
        said = answer(logits([sentence], session, tokenizer)[0], labels, facts.get("task", "one-label"))
        print(said, *([sentence] if isinstance(sentence, str) else sentence), sep="\t")
