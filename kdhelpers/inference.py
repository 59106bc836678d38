"""What runs behind a SageMaker endpoint: four functions that the Hugging Face inference container calls by name.

They need nothing of this package: the file is copied into the model's archive as `code/inference.py`.
"""

import inspect
import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

LONGEST_BATCH = 64
LONGEST_TEXT = 128  # word pieces


def model_fn(model_dir: str, context=None) -> dict:
    """Load student and tokenizer once, when the endpoint starts. `model_dir`: the unpacked archive of a job."""
    folder = Path(model_dir, "student")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return {"model": model, "tokenizer": AutoTokenizer.from_pretrained(folder)}


def input_fn(body: str | bytes, content_type: str, context=None) -> list[str]:
    """A request's texts: the JSON object {"inputs": "a text"} or {"inputs": ["a text", ...]}.

    Raises ValueError for anything else, which the caller gets to read.
    """
    if content_type.split(";")[0].strip() != "application/json":
        raise ValueError(f"send application/json, not {content_type}")
    try:
        request = json.loads(body)
    except json.JSONDecodeError as error:
        raise ValueError(f"the request is not JSON: {error.msg}") from error
    texts = request.get("inputs") if isinstance(request, dict) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError('send {"inputs": ["a text", ...]}')
    if len(texts) > LONGEST_BATCH:
        raise ValueError(f"{len(texts)} texts in one request: at most {LONGEST_BATCH}")
    return texts


def predict_fn(texts: list[str], loaded: dict, context=None) -> list[dict]:
    """Label and probability for each text."""
    model, tokenizer = loaded["model"], loaded["tokenizer"]
    longest = min(LONGEST_TEXT, model.config.max_position_embeddings)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    accepted = inspect.signature(model.forward).parameters  # a DistilBERT takes no token_type_ids
    with torch.inference_mode():
        probabilities = model(**{name: batch[name] for name in batch if name in accepted}).logits.softmax(-1)
    best = probabilities.max(-1)
    return [
        {"label": model.config.id2label[int(label)], "score": round(float(score), 4)}
        for score, label in zip(best.values, best.indices, strict=True)
    ]


def output_fn(answers: list[dict], accept: str, context=None) -> str:
    """The answers as JSON, whatever is asked for."""
    return json.dumps(answers)
