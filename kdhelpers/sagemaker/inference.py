"""What runs behind a SageMaker endpoint: four functions that the Hugging Face inference container calls by name.

They need nothing of this package: the file is copied into the model's archive as `code/inference.py`. The archive of
a PyTorch student holds student/, that of an exported one export.json, and `predict.py` beside this file. Both cut a
text, or a pair of texts, at the length that the student was trained with.
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

LONGEST_BATCH = 64
Texts = list[str] | list[tuple[str, str]]
Loaded = tuple[list[str], Callable[[Texts], np.ndarray], str]  # labels, from texts to logits, the task
TASKS = {"multi_label_classification": "several-labels", "regression": "number"}


def model_fn(model_dir: str, context: object = None) -> Loaded:
    """Load the student once, when the endpoint starts: its label names, a function from texts to logits, its task.

    `model_dir`: the unpacked archive.
    """
    folder = Path(model_dir)
    return _exported(folder) if (folder / "export.json").is_file() else _pytorch(folder / "student")


def _pytorch(folder: Path) -> Loaded:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    accepted = inspect.signature(model.forward).parameters  # a DistilBERT takes no token_type_ids

    def logits(texts: Texts) -> np.ndarray:
        columns = [texts] if isinstance(texts[0], str) else map(list, zip(*texts, strict=True))
        batch = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            return model(**{name: batch[name] for name in batch if name in accepted}).logits.float().numpy()

    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    task = "number" if len(labels) == 1 else TASKS.get(str(model.config.problem_type), "one-label")
    return labels, _of_its_kind(logits, bool(getattr(model.config, "text_pairs", False))), task


def _of_its_kind(logits: Callable[[Texts], np.ndarray], pairs: bool) -> Callable[[Texts], np.ndarray]:
    """The same, and ValueError for pairs of texts where single ones are wanted, or the other way round."""

    def checked(texts: Texts) -> np.ndarray:
        if isinstance(texts[0], str) == pairs:
            raise ValueError(f"this student reads {'pairs of texts' if pairs else 'single texts'}: send such")
        return logits(texts)

    return checked


def _exported(folder: Path) -> Loaded:
    import predict  # the export's own, in the same folder as this file; it needs neither torch nor transformers

    session, tokenizer, labels = predict.load(folder)
    card = predict.card(folder)
    logits = _of_its_kind(lambda texts: predict.logits(texts, session, tokenizer), card.get("pairs", False))
    return labels, logits, card.get("task", "one-label")


def input_fn(body: str | bytes, content_type: str, context: object = None) -> Texts:
    """A request's texts: the JSON object {"inputs": "a text"} or {"inputs": ["a text", ...]}.

    For a student of pairs {"inputs": [["a text", "its second"], ...]}, or objects of "text" and "text_pair".
    Raises ValueError for anything else, which the caller gets to read.
    """
    if (content_type or "").split(";")[0].strip() != "application/json":
        raise ValueError(f"send application/json, not {content_type}")
    try:
        request = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the request is not JSON: {error}") from error
    texts = request.get("inputs") if isinstance(request, dict) else None
    texts = texts if isinstance(texts, list) else [texts]
    texts = [_pair(text) for text in texts]
    whole = all(isinstance(text, str) for text in texts) or all(
        isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text) for text in texts
    )
    if not texts or not whole:
        raise ValueError('send {"inputs": ["a text", ...]}, or for pairs {"inputs": [["a text", "its second"], ...]}')
    json.dumps(texts, ensure_ascii=False).encode()  # half an emoji is a UnicodeEncodeError, which is a ValueError
    if request.get("parameters"):
        raise ValueError(f"parameters are not read: leave {json.dumps(request['parameters'])} out")
    if len(texts) > LONGEST_BATCH:
        raise ValueError(f"{len(texts)} texts in one request: at most {LONGEST_BATCH}")
    return texts


def _pair(text: object) -> object:
    if isinstance(text, dict):
        return text.get("text"), text.get("text_pair")
    return tuple(text) if isinstance(text, list) else text


def predict_fn(texts: Texts, loaded: Loaded, context: object = None) -> list[dict]:
    """An answer for each text; `loaded` is what `model_fn` returned.

    {"label", "score"} with its probability; of several labels {"labels", "scores"}, of a number {"value"}.
    """
    labels, logits, task = loaded
    found = logits(texts)
    if task == "number":
        return [{"value": round(float(row[0]), 4)} for row in found]
    if task == "several-labels":
        shares = 1 / (1 + np.exp(-found.astype(float)))
        scores = [dict(zip(labels, row.round(4).tolist(), strict=True)) for row in shares]
        return [{"labels": [name for name in row if row[name] >= 0.5], "scores": row} for row in scores]
    powers = np.exp(found - found.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    return [{"label": labels[row.argmax()], "score": round(float(row.max()), 4)} for row in shares]


def output_fn(answers: list[dict], accept: str, context: object = None) -> str:
    """The answers as JSON, whatever is asked for."""
    return json.dumps(answers)
