"""Models ready to answer, PyTorch's and exported ones alike: which a folder holds, and what is checked before use."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdhelpers import data, models
from kdhelpers.deployment import predict
from kdhelpers.errors import UserError

BATCH = 32  # rows a step where throughput is measured
KINDS = {"onnx": "ONNX fp32", "onnx-int8": "ONNX int8"}


@dataclass(frozen=True)
class Runner:
    """A model ready to answer: `encode` turns sentences into inputs, `run` turns inputs into logits [rows, classes]."""

    name: str
    kind: str  # "PyTorch fp32", "ONNX fp32" or "ONNX int8"
    bytes: int  # of the weights' file
    parameters: int
    labels: list[str]
    encode: Callable[[list[str]], dict]
    run: Callable[[dict], np.ndarray]

    def logits(self, texts: list[str], batch_size: int = 64) -> np.ndarray:
        """Float32 [texts, classes], in the texts' own order; texts of like length are read together."""
        order = np.argsort([len(text) for text in texts], kind="stable")
        starts = range(0, len(texts), batch_size)
        batches = [[texts[i] for i in order[start : start + batch_size]] for start in starts]
        return np.concatenate([self.run(self.encode(batch)) for batch in batches])[np.argsort(order)]

    def accuracy(self, texts: list[str], labels: list[str]) -> float:
        """The share of the texts whose class is right. Raises UserError for a label that the model does not know."""
        return float((self.class_ids(labels) == self.logits(texts, BATCH).argmax(-1)).mean())

    def class_ids(self, labels: list[str]) -> np.ndarray:
        """The ids of these labels among the model's, int64 [rows]. Raises UserError for one that it does not know."""
        ids = {data.normal_label(name.removeprefix("LABEL_")): index for index, name in enumerate(self.labels)}
        found = [ids.get(data.normal_label(label)) for label in labels]
        if None in found:
            raise UserError(
                f"{self.name} does not know the label {labels[found.index(None)]!r} of the rows, only "
                f"{', '.join(self.labels)}: name rows with these labels, --rows FILE --label-column NAME"
            )
        return np.array(found)


def load_runner(folder: str, threads: int = 0, name: str = "model") -> Runner:
    """A trained PyTorch classifier, or an exported one, from its folder or hub id.

    `threads` are an exported model's (0: as many as there are); PyTorch's are set by `torch.set_num_threads`. Raises
    UserError where it is neither, and for logits that cannot be right.
    """
    path = Path(folder).expanduser()
    if not (path / "export.json").is_file():
        model, tokenizer = load_trained(folder)
        return torch_runner(model, tokenizer, name, path / "model.safetensors")
    try:
        card, (session, tokenizer, labels) = predict.card(path), predict.load(path, threads)
        runner = Runner(
            name, KINDS[card["format"]], (path / "model.onnx").stat().st_size, card["parameters"], labels,
            lambda sentences: predict.encode(sentences, tokenizer),
            lambda inputs: session.run(None, inputs)[0],
        )  # fmt: skip
        logits = runner.logits(["A text."])
    except Exception as error:  # onnxruntime's have no class in common
        raise UserError(f"the export in {folder} cannot be read ({type(error).__name__}): make it again") from error
    _require_right(logits, labels, folder)
    return runner


def load_trained(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A trained classifier in eval mode and its tokenizer, which cuts texts at what both can read.

    That is the run's max_length where the model comes from a run. Raises UserError for a model that is not a trained
    choice of one class, for a tokenizer that cannot go with it, and for logits that cannot be right.
    """
    loaded = models.load_classifier(folder, None, "model")
    if not loaded.has_head:
        raise UserError(f"{folder} has no classification head: name a model that was trained, e.g. RUN/student")
    model, tokenizer = loaded.model.float().eval(), models.load_tokenizer(folder)
    if not tokenizer.is_fast or tokenizer.pad_token is None:
        raise UserError(f"the tokenizer in {folder} has no fast form (tokenizer.json), or no padding token")
    tokenizer.model_max_length = models.usable_length(tokenizer, model.config)
    runner = torch_runner(model, tokenizer)
    _require_right(runner.logits(["A text.", "text " * 600]), runner.labels, folder)
    return model, tokenizer


def torch_runner(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str = "model", weights: Path | None = None
) -> Runner:
    """A PyTorch classifier in memory as a Runner; its size is that of the file `weights`, or of fp32 parameters."""
    accepted = set(inspect.signature(model.forward).parameters)
    parameters = models.count_parameters(model)

    def run(batch: dict) -> np.ndarray:
        with torch.inference_mode():
            return model(**batch).logits.numpy()

    def encode(sentences: list[str]) -> dict:
        batch = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        return {name: tensor for name, tensor in batch.items() if name in accepted}

    size = weights.stat().st_size if weights and weights.is_file() else 4 * parameters
    labels = [str(name) for _, name in sorted((model.config.id2label or {}).items())]
    return Runner(name, "PyTorch fp32", size, parameters, labels, encode, run)


def _require_right(logits: np.ndarray, labels: list[str], folder: str) -> None:
    columns = logits.shape[-1]
    if columns != len(labels) or columns < 2:
        raise UserError(f"{folder} has {columns} logits a text and {len(labels)} labels: one for each class is needed")
    if not np.isfinite(logits).all():
        raise UserError(f"the logits of {folder} hold NaN or infinite values: its weights are damaged, load others")


class NamedModel(NamedTuple):
    """A model to look at: its name, its folder or hub id, and the folder of the run that it belongs to."""

    name: str
    folder: str
    run: Path
    optional: bool = False  # a run's teacher may lie where the run was made


def models_of(given: list[str]) -> list[NamedModel]:
    """The models in these folders, each once: a run's teacher, student and exports, any other folder itself.

    Names that clash get the folder of their run in front. Raises UserError for the folder of several seeds.
    """
    found: dict[str, NamedModel] = {}
    for name in given:
        folder = Path(name).expanduser().resolve()
        parts, metrics = {folder.name: str(folder) if folder.is_dir() else name}, run_metrics(folder)
        if "runs" in metrics:
            raise UserError(f"{name} holds several runs: name one of them, e.g. {name}/seed-42")
        if is_run := "teacher" in metrics:
            parts = {"teacher": str(metrics["teacher"].get("model")), "student": str(folder / "student")}
            parts |= {path.parent.name: str(path.parent) for path in sorted(folder.glob("*/export.json"))}
        for part, where in parts.items():
            run = folder if is_run else folder.parent
            found.setdefault(where, NamedModel(part, where, run, is_run and part == "teacher"))
    depth, names = 0, [model.name for model in found.values()]
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join((*model.run.parts[-depth:], model.name)) for model in found.values()]
    return [model._replace(name=name) for model, name in zip(found.values(), names, strict=True)]


def run_metrics(folder: Path) -> dict:
    """What a run, or several seeds', says of itself; nothing for a folder of another kind. Raises UserError."""
    path = folder / "metrics.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged: name the student's folder") from error
