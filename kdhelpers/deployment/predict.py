"""Classify sentences with an exported student. Needs onnxruntime and tokenizers, neither torch nor transformers."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def card(folder: str | Path) -> dict:
    """What the folder says of itself: labels, longest input in tokens, padding."""
    return json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))


def load(folder: str | Path, threads: int = 0) -> tuple[onnxruntime.InferenceSession, Tokenizer, list[str]]:
    """(session, tokenizer, label names) of an exported student; `threads` 0 leaves their number to the runtime."""
    folder, options, facts = Path(folder), onnxruntime.SessionOptions(), card(folder)
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads leave the cores to others
    session = onnxruntime.InferenceSession(
        folder / "model.onnx",
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],  # on a CPU slower than the two operators that it joins
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(facts["max_length"])
    tokenizer.enable_padding(pad_id=facts["pad_id"], pad_token=facts["pad_token"])
    return session, tokenizer, facts["labels"]


def encode(sentences: list[str], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """The two inputs of the model, int64 [sentences, tokens]."""
    rows = tokenizer.encode_batch(sentences)
    return {
        "input_ids": np.array([row.ids for row in rows], np.int64),
        "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
    }


def run(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Logits, float32 [sentences, classes]."""
    return session.run(None, inputs)[0]


def logits(sentences: list[str], session: onnxruntime.InferenceSession, tokenizer: Tokenizer) -> np.ndarray:
    """The student's logits, float32 [sentences, classes]."""
    return run(session, encode(sentences, tokenizer))


if __name__ == "__main__":
    session, tokenizer, labels = load(Path(__file__).parent)
    for sentence in sys.argv[1:]:
        print(f"{labels[int(logits([sentence], session, tokenizer).argmax())]}\t{sentence}")
