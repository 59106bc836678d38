"""A student as one ONNX file: the same answers, no torch, no transformers; in int8 a quarter of the size."""

import copy
import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import save_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdhelpers import evaluation, models
from kdhelpers.data import Task, predictions
from kdhelpers.deployment import predict, predict_static
from kdhelpers.deployment.graph import quantize, quantize_weights, to_onnx
from kdhelpers.deployment.runners import load_runner, load_trained, models_of, run_metrics, torch_runner
from kdhelpers.errors import UserError
from kdhelpers.storage import write_folder

IN_8_BITS = {"onnx-int8": quantize, "onnx-int8-weights": quantize_weights}
FORMATS = ("onnx", *IN_8_BITS, "numpy")
TOLERANCE = 1e-4  # how far an fp32 export's logits may stray from PyTorch's
ACCEPTED_CHANGES = 0.05  # the share of predictions that an export may change
# Written for the check after an export: short and long, with rare words and rare signs.
PROBE = [
    f"{start} {word}"
    for start in ("", "A film both loud and", "Not once in its two hours is it", "Zebras & naïve jazz:", "Is the plot")
    for word in ("wonderful.", "awful!", "dull", "unexpectedly moving,", "fine?", "a waste of time", "(xylophonic)")
]
LONG = " ".join(" ".join(PROBE[:n]) for n in range(0, len(PROBE), 5))  # it ends otherwise than it begins


def export(
    student: str,
    output: Path,
    kind: str = "onnx",
    texts: list | None = None,
    vocabulary_of: list[str] | None = None,
    accept_changes: float = ACCEPTED_CHANGES,
) -> dict:
    """Write model, tokenizer.json, export.json and predict.py to `output`, all or nothing; an earlier export goes.

    `student` is the folder of a run or of a classifier, or a hub id; `kind` one of `FORMATS`, of which "numpy" is
    for a static student and needs no ONNX. Batch size and length stay free, up to the student's max_length.
    `vocabulary_of`: see `trim_vocabulary`. Returns what export.json holds: task, labels, max_length in tokens,
    bytes, changed_predictions on `texts` (default: some sentences of ours), ... A student that was trained on pairs
    is exported for pairs, and so is one whose `texts` are tuples of two. Of a number a prediction has changed where
    it moves by more than a twentieth of the numbers' standard deviation.

    Raises UserError where the student cannot be loaded or exported, where `output` holds anything else, where fp32
    logits stray more than 1e-4 from PyTorch's, and where more predictions change than the share `accept_changes`.
    """
    _require_free(output, "export.json", "export")
    model, tokenizer = load_trained(student_folder(student))
    runner, facts = torch_runner(model, tokenizer), {}
    _require_format(kind, model)
    texts = _texts_to_compare(model, texts)
    answers = runner.logits([*texts, *_probe(not isinstance(texts[0], str))])
    if vocabulary_of is not None:
        model, tokenizer = trim_vocabulary(model, tokenizer, vocabulary_of)

    def save(path: str) -> None:
        facts.update(_write(model, tokenizer, Path(path), kind, texts))
        facts["changed_predictions"] = _changed(answers, exported_logits(Path(path), texts), runner.task)
        Path(path, "export.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        _require_few_changes(facts, accept_changes)

    _write_whole(output, save)
    return facts


def export_folder(model_id: str, output: Path) -> dict:
    """Write a trained classifier and its tokenizer as PyTorch has them, all or nothing: `--teacher` takes the folder.

    `model_id` is a folder or hub id. Returns labels, max_length in tokens, and the bytes of the weights. Raises
    UserError where it cannot be loaded, and where `output` holds anything but a model.
    """
    _require_free(output, "config.json", "model")
    model, tokenizer = load_trained(model_id)
    _write_whole(output, lambda path: [part.save_pretrained(path) for part in (model, tokenizer)])
    size = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    labels = torch_runner(model, tokenizer).labels
    return {"labels": labels, "max_length": tokenizer.model_max_length, "bytes": size}


def _require_free(output: Path, mark: str, what: str) -> None:
    """Raise UserError where a folder holds files, and not the one that an earlier export has left."""
    if output.is_dir() and any(output.iterdir()) and not (output / mark).is_file():
        raise UserError(f"{output} holds files that are no {what}: choose another output folder")


def _write_whole(output: Path, save: Callable[[str], object]) -> None:
    try:
        write_folder(output, save)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error


def _require_format(kind: str, model: PreTrainedModel) -> None:
    """Raise UserError for a format that is none, and for a student that numpy alone cannot be."""
    if kind not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, not {kind!r}")
    if kind == "numpy" and not isinstance(model, models.StaticForSequenceClassification):
        raise UserError(f"a {type(model).__name__} needs --format onnx or onnx-int8: numpy is for --student static")


def _texts_to_compare(model: PreTrainedModel, texts: list | None) -> list:
    """`texts`, or some of ours; pairs where the student reads them. Raises UserError for texts without a second."""
    pairs = bool(getattr(model.config, "text_pairs", False) or texts and not isinstance(texts[0], str))
    if pairs and texts and isinstance(texts[0], str):
        raise UserError("this student reads pairs of texts: name the second's column, too, with --text-pair-column")
    return texts or _probe(pairs)


def _probe(pairs: bool) -> list:
    return list(zip(PROBE, PROBE[::-1], strict=True)) if pairs else PROBE


def _changed(before: np.ndarray, after: np.ndarray, task: Task) -> int:
    """The rows whose answer is another one; a number's, where it moves by over a twentieth of their deviation.

    `before` goes on with the probe's answers: one text has no deviation. A student may answer all of them alike:
    what an fp32 export may stray is no change.
    """
    least, before = max(0.05 * before.std(), TOLERANCE), before[: len(after)]
    if task is Task.NUMBER:
        return int((np.abs(after - before) > least).sum())
    said = (predictions(before, task), predictions(after, task))
    return round(len(before) * (1 - evaluation.agreement(*said)))


def _reads_types(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a model reads to which text of a pair a token belongs: not DistilBERT, RoBERTa, MPNet or ModernBERT."""
    taken = "token_type_ids" in inspect.signature(model.forward).parameters
    return taken and getattr(model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in tokenizer.model_input_names


def _require_few_changes(facts: dict, accepted: float) -> None:
    changed, texts = facts["changed_predictions"], facts["compared_texts"]
    if changed > accepted * texts:
        raise UserError(
            f"the export answers {changed} of {texts} texts otherwise than the student, more than {accepted:.0%}, and "
            "was not written: choose --format onnx, other --rows to compare on, or pass it with --accept-changes"
        )


def student_folder(given: str) -> str:
    """A run's student where `given` is the folder of a run, else `given`. Raises UserError for several seeds."""
    return next((model.folder for model in models_of([given]) if model.name == "student"), given)


def teacher_folder(run: str) -> str:
    """The folder, or hub id, of a run's teacher. Raises UserError where it is no run, or its teacher only answered."""
    found = next((model.folder for model in models_of([run]) if model.name == "teacher"), "None")
    if found == "None":
        raise UserError(f"--teacher wants the folder of a run whose teacher is a model, not {run}")
    several = run_metrics(Path(run).expanduser())["teacher"].get("models", [])
    if len(several) > 1:
        raise UserError(f"the run's teacher is the mean of {len(several)} models: export one by folder: {several[0]}")
    return found


def _write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, kind: str, texts: list) -> dict:
    """Export into an existing folder; in fp32 first, which has to answer as PyTorch does. Returns its facts."""
    alone, runner = kind == "numpy", torch_runner(model, tokenizer)
    target = folder / ("model.safetensors" if alone else "model.onnx")
    pairs = not isinstance(texts[0], str)
    facts = {
        "format": kind, "task": runner.task, "pairs": pairs, "parameters": runner.parameters,
        "vocabulary": model.config.vocab_size, "labels": runner.labels,
        "max_length": tokenizer.model_max_length, "truncation_side": tokenizer.truncation_side,
        "pad_id": tokenizer.pad_token_id, "pad_token": tokenizer.pad_token,
    }  # fmt: skip
    (folder / "export.json").write_text(json.dumps(facts), encoding="utf-8")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    shutil.copy(str((predict_static if alone else predict).__file__), folder / "predict.py")
    if alone:
        save_model(model, str(target))
    else:
        to_onnx(model, target, pairs and _reads_types(model, tokenizer))
    for probe in (_probe(pairs), [(LONG, LONG) if pairs else LONG], *([] if kind in IN_8_BITS else [texts])):
        difference = float(np.abs(runner.logits(probe) - exported_logits(folder, probe)).max())
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported model's logits stray {difference:.1g} from PyTorch's: nothing was written; export "
                "another student, or try another version of torch or onnxruntime"
            )
    if kind in IN_8_BITS:
        IN_8_BITS[kind](target, folder / "int8.onnx")
        (folder / "int8.onnx").replace(target)
        difference = float(np.abs(runner.logits(texts) - exported_logits(folder, texts)).max())
    facts |= {"bytes": target.stat().st_size, "compared_texts": len(texts)}
    return facts | {"largest_logit_difference": difference}


def exported_logits(folder: Path, texts: list) -> np.ndarray:
    """An exported student's logits, float32 [texts, classes]. Raises UserError for a folder that holds none."""
    return load_runner(str(folder)).logits(texts)


def trim_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A copy of model and tokenizer that knows only the tokens which `texts` use; the input stays as it is.

    Special and added tokens and every ASCII character stay, so that any English word can still be spelt: a word whose
    token is gone is read as shorter ones. The ids of the special tokens do not change. Raises UserError for a
    tokenizer that is not WordPiece, or that would read `texts` otherwise.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "WordPiece":
        raise UserError(f"only a WordPiece vocabulary can be trimmed, this one is {state['model']['type']}")
    vocabulary, inside = state["model"]["vocab"], state["model"]["continuing_subword_prefix"]
    rows = tokenizer(texts, truncation=True)["input_ids"]
    added = {entry["id"] for entry in state["added_tokens"]}
    used = added | {token for row in rows for token in row}
    used |= set(range(1 + max(index for index in tokenizer.all_special_ids if index < len(vocabulary))))
    used |= {i for token, i in vocabulary.items() if len(token.removeprefix(inside)) == 1 and token.isascii()}
    kept = sorted(used & (added | set(vocabulary.values())))
    new = {old: index for index, old in enumerate(kept)}
    state["model"]["vocab"] = {token: new[index] for token, index in vocabulary.items() if index in new}
    state["added_tokens"] = [entry | {"id": new[entry["id"]]} for entry in state["added_tokens"]]
    trimmed = models.rebuilt_tokenizer(tokenizer, state)
    if trimmed(texts, truncation=True)["input_ids"] != [[new[token] for token in row] for row in rows]:
        raise UserError("this tokenizer's vocabulary cannot be trimmed: the texts would be read otherwise")
    smaller, table = copy.deepcopy(model), model.get_input_embeddings()
    weights = table.get_parameter("weight").detach()[kept]
    smaller.set_input_embeddings(nn.Embedding.from_pretrained(weights, padding_idx=table.padding_idx))
    smaller.config.vocab_size = len(kept)
    return smaller, trimmed
