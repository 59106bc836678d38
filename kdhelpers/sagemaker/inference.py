"""What runs behind a SageMaker endpoint: four functions that the Hugging Face inference container calls by name.

They need nothing of this package: the file is copied into the model's archive as `code/inference.py`. The archive of
a PyTorch student holds student/, that of an exported one export.json, and `predict.py` beside this file. Both cut a
text at the length that the student was trained with.
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

LONGEST_BATCH = 64
Loaded = tuple[list[str], Callable[[list[str]], np.ndarray]]


def model_fn(model_dir: str, context: object = None) -> Loaded:
    """Load the student once, when the endpoint starts: its label names, and a function from texts to logits.

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

    def logits(texts: list[str]) -> np.ndarray:
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            return model(**{name: batch[name] for name in batch if name in accepted}).logits.float().numpy()

    return [model.config.id2label[index] for index in range(model.config.num_labels)], logits


def _exported(folder: Path) -> Loaded:
    import predict  # the export's own, in the same folder as this file; it needs neither torch nor transformers

    session, tokenizer, labels = predict.load(folder)
    return labels, lambda texts: predict.logits(texts, session, tokenizer)


def input_fn(body: str | bytes, content_type: str, context: object = None) -> list[str]:
    """A request's texts: the JSON object {"inputs": "a text"} or {"inputs": ["a text", ...]}.

    Raises ValueError for anything else, which the caller gets to read.
    """
    if content_type.split(";")[0].strip() != "application/json":
        raise ValueError(f"send application/json, not {content_type}")
    try:
        request = json.loads(body)
    except ValueError as error:
        raise ValueError(f"the request is not JSON: {error}") from error
    texts = request.get("inputs") if isinstance(request, dict) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError('send {"inputs": ["a text", ...]}')
    if len(texts) > LONGEST_BATCH:
        raise ValueError(f"{len(texts)} texts in one request: at most {LONGEST_BATCH}")
    return texts


def predict_fn(texts: list[str], loaded: Loaded, context: object = None) -> list[dict]:
    """Label and probability for each text; `loaded` is what `model_fn` returned."""
    labels, logits = loaded
    found = logits(texts)
    powers = np.exp(found - found.max(-1, keepdims=True))
    shares = powers / powers.sum(-1, keepdims=True)
    return [{"label": labels[row.argmax()], "score": round(float(row.max()), 4)} for row in shares]


def output_fn(answers: list[dict], accept: str, context: object = None) -> str:
    """The answers as JSON, whatever is asked for."""
    return json.dumps(answers)
