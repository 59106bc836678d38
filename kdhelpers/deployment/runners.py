"""Models ready to answer, PyTorch's and exported ones alike: which a folder holds, and what is checked before use."""

import inspect
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdhelpers import data, evaluation, models
from kdhelpers.deployment import predict, predict_static
from kdhelpers.errors import UserError

BATCH = 32  # rows a step where throughput is measured
KINDS = {
    "onnx": "ONNX fp32",
    "onnx-int8": "ONNX int8",
    "onnx-int8-weights": "ONNX int8 weights",
    "numpy": "numpy fp32",
}


@dataclass(frozen=True)
class Runner:
    """A model ready to answer: `encode` turns sentences into inputs, `run` turns inputs into logits [rows, classes].

    A sentence is a text, or a tuple of two texts for a model of pairs.
    """

    name: str
    kind: str  # "PyTorch fp32", or one of `KINDS`
    bytes: int  # of the weights' file
    parameters: int
    labels: list[str]
    encode: Callable[[list], dict]
    run: Callable[[dict], np.ndarray]
    task: data.Task = data.Task.ONE

    def logits(self, texts: list, batch_size: int = 64) -> np.ndarray:
        """Float32 [texts, classes], in the texts' own order; texts of like length are read together."""
        order = np.argsort([len(one) if isinstance(one, str) else sum(map(len, one)) for one in texts], kind="stable")
        starts = range(0, len(texts), batch_size)
        batches = [[texts[i] for i in order[start : start + batch_size]] for start in starts]
        return np.concatenate([self.run(self.encode(batch)) for batch in batches])[np.argsort(order)]

    def accuracy(self, texts: list, labels: list) -> float:
        """The share of the texts whose class, or whose labels, are right; of a number RMSE. Raises as `truths`."""
        return self.merit(self.logits(texts, BATCH), self.truths(labels))

    def merit(self, logits: np.ndarray, truths: np.ndarray) -> float:
        """The same of logits [rows, classes] and what `truths` returns."""
        said = data.predictions(logits, self.task)
        if self.task is data.Task.NUMBER:
            return evaluation.rmse(said, truths)
        return evaluation.agreement(said, truths)

    def truths(self, labels: list) -> np.ndarray:
        """Labels as arrays: class ids [rows], 0 and 1 [rows, labels], or numbers [rows]; several are lists of names.

        Raises UserError for a label that the model does not know.
        """
        if self.task is data.Task.SEVERAL:
            table = np.zeros((len(labels), len(self.labels)))
            for row, names in zip(table, labels, strict=True):
                row[self.class_ids(names)] = 1
            return table
        if self.task is data.Task.ONE:
            return self.class_ids(labels)
        try:
            return np.array(labels, dtype=float)
        except ValueError as error:
            raise UserError(f"{self.name} answers with numbers, and a label of the rows is none ({error})") from error

    def class_ids(self, labels: list[str]) -> np.ndarray:
        """The ids of these labels among the model's, int64 [rows]. Raises UserError for one that it does not know."""
        ids = {data.normal_label(name.removeprefix("LABEL_")): index for index, name in enumerate(self.labels)}
        ids |= {data.normal_label(name): index for index, name in enumerate(self.labels)}
        found = [ids.get(data.normal_label(label)) for label in labels]
        if None in found:
            raise UserError(
                f"{self.name} does not know the label {labels[found.index(None)]!r} of the rows, only "
                f"{data.listed(self.labels)}: name rows with these labels, --rows FILE --label-column NAME"
            )
        return np.array(found, dtype=int)


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
        card = predict.card(path)
        size = max(file.stat().st_size for file in path.glob("model.*"))
        runner = Runner(
            name, KINDS[card["format"]], size, card["parameters"], card["labels"], *_reader(path, threads, card),
            data.Task(card.get("task", data.Task.ONE)),
        )  # fmt: skip
        logits = runner.logits(["A text."])
    except Exception as error:  # onnxruntime's have no class in common
        raise UserError(f"the export in {folder} cannot be read ({type(error).__name__}): make it again") from error
    _require_right(logits, runner, folder)
    return runner


def load_trained(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A trained classifier in eval mode and its tokenizer, which cuts texts at what both can read.

    That is the run's max_length where the model comes from a run. Raises UserError for a model without a trained head,
    for a tokenizer that cannot go with it, and for logits that cannot be right.
    """
    loaded = models.load_classifier(folder, None, "model")
    if not loaded.has_head:
        raise UserError(f"{folder} has no classification head: name a model that was trained, e.g. RUN/student")
    model, tokenizer = loaded.model.float().eval(), models.load_tokenizer(folder)
    if not tokenizer.is_fast or tokenizer.pad_token is None:
        raise UserError(f"the tokenizer in {folder} has no fast form (tokenizer.json), or no padding token")
    tokenizer.model_max_length = models.usable_length(tokenizer, model.config)
    runner = torch_runner(model, tokenizer)
    _require_right(runner.logits(["A text.", "text " * 600]), runner, folder)
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

    def encode(sentences: list) -> dict:
        columns = [sentences] if isinstance(sentences[0], str) else map(list, zip(*sentences, strict=True))
        batch = tokenizer(*columns, padding=True, truncation=True, return_tensors="pt")
        return {name: tensor for name, tensor in batch.items() if name in accepted}

    size = weights.stat().st_size if weights and weights.is_file() else 4 * parameters
    labels = [str(name) for _, name in sorted((model.config.id2label or {}).items())]
    task = models.task_of(model.config, name)
    return Runner(name, "PyTorch fp32", size, parameters, labels, encode, run, task)


def _reader(path: Path, threads: int, card: dict) -> tuple[Callable, Callable]:
    """`encode` and `run` of an exported student."""
    if card["format"] == "numpy":
        weights, tokenizer, _ = predict_static.load(path)
        return lambda texts: predict_static.encode(texts, tokenizer), lambda inputs: predict_static.run(weights, inputs)
    session, tokenizer, _ = predict.load(path, threads)
    names = predict.inputs_of(session)
    return lambda texts: predict.encode(texts, tokenizer, names), lambda inputs: session.run(None, inputs)[0]


def baseline_runner(baseline: Pipeline, labels: list[str], name: str = "baseline") -> Runner:
    """TF-IDF and logistic regression (`models.fit_baseline`) as a Runner; its size is that of a pickle."""
    return Runner(
        name, "scikit-learn", len(pickle.dumps(baseline)), models.baseline_parameters(baseline), labels,
        lambda sentences: {"texts": sentences},
        lambda inputs: models.baseline_logits(baseline, inputs["texts"]),
    )  # fmt: skip


def _require_right(logits: np.ndarray, runner: Runner, folder: str) -> None:
    columns, labels = logits.shape[-1], len(runner.labels)
    if columns != labels or columns < 2 and runner.task is data.Task.ONE:
        raise UserError(f"{folder} has {columns} logits a text and {labels} labels: one for each class is needed")
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
