"""A student as one ONNX file: the same answers, no torch, no transformers; in int8 a quarter of the size."""

import contextlib
import copy
import io
import json
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from kdhelpers import checks, data, files, models, predict
from kdhelpers.console import Parser
from kdhelpers.errors import UserError
from kdhelpers.logits import predict_logits, save_folder_atomically
from kdhelpers.recipes import MOVIE_SNIPPETS

log = logging.getLogger(__name__)

FORMATS = ("onnx", "onnx-int8")
# Written for the check after an export: short, long, empty of sense, punctuation, and one with rare pieces.
PROBE = (
    "A wonderful film.",
    "Dull.",
    "Not once in its two long hours does it dare to be anything but loud, and yet I stayed to the very end of it.",
    "?!",
    "Zebras, xylophones & naïve jazz: unexpectedly moving.",
)


# What stands right behind the last layer's attention, by family: from there on a classifier needs [CLS] alone.
AFTER_ATTENTION = {"bert": "attention.output", "distilbert": "sa_layer_norm"}


def _onnx_attention(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention as ONNX's own operator, which splits the heads itself: no transposing around it.

    query, key, value: [batch, heads, length, width]; gives back [batch, length, heads, width], as transformers asks.
    """
    heads = query.shape[1]
    joined = (states.transpose(1, 2).flatten(2) for states in (query, key, value))
    output, *_ = torch.onnx.ops.attention(*joined, attention_mask, q_num_heads=heads, kv_num_heads=heads, scale=scaling)
    return output.unflatten(2, (heads, -1)), None


AttentionInterface.register("onnx", _onnx_attention)


def _first_token(module: nn.Module, inputs: tuple) -> tuple:
    """A forward pre-hook: [batch, length, width] to [batch, 1, width], the place of [CLS]."""
    return tuple(states[:, :1] for states in inputs)


class _LogitsOnly(nn.Module):
    """A classifier that takes two tensors and gives back one, as ONNX wants it."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        # [batch, 1, length, length], true where a piece may be read: the shape that ONNX's attention operator takes
        mask = attention_mask.bool()[:, None, None, :].expand(-1, -1, input_ids.shape[1], -1)
        return self.model(input_ids=input_ids, attention_mask=mask).logits


def export(
    student: str,
    output: Path,
    kind: str = "onnx",
    overwrite: bool = False,
    texts: list[str] | None = None,
    vocabulary_of: list[str] | None = None,
) -> dict:
    """Write `output`/: model.onnx, tokenizer.json, export.json, predict.py. All or nothing.

    `student` is a folder or hub id of a sequence classifier, `kind` one of `FORMATS`. Batch size and length stay
    free. `vocabulary_of` trims the vocabulary to what these texts use (see `trim_vocabulary`). The answers to `texts`
    (default: a few sentences) are compared with PyTorch's. Gives back what export.json holds. Raises UserError where
    the student cannot be loaded, where the output exists, and where the exported model's fp32 logits stray more than
    1e-4 from PyTorch's.
    """
    if kind not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, not {kind!r}")
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists already: choose another --output, or replace it with --overwrite")
    loaded = models.load_classifier(student, None, "student")
    if not loaded.has_head:
        raise UserError(f"{student} has no classification head: export a student that was trained, e.g. RUN/student")
    tokenizer = models.load_tokenizer(student)
    model = loaded.model.float().eval()
    facts = {}

    def save(folder: str) -> None:
        facts.update(_write(model, tokenizer, Path(folder), kind, texts or list(PROBE), vocabulary_of))

    try:
        save_folder_atomically(output, save)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    return facts


def _write(
    model: PreTrainedModel, tokenizer, folder: Path, kind: str, texts: list[str], vocabulary_of: list[str] | None
) -> dict:
    """Export into an existing folder and check the result against PyTorch."""
    answers = torch_logits(model, tokenizer, texts).argmax(-1)
    if vocabulary_of is not None:
        model, tokenizer = trim_vocabulary(model, tokenizer, vocabulary_of)
    fp32, target = folder / "fp32.onnx", folder / "model.onnx"
    to_onnx(model, fp32)
    if kind == "onnx-int8":
        quantize(fp32, target)
        fp32.unlink()
    else:
        fp32.rename(target)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    shutil.copy(predict.__file__, folder / "predict.py")
    card = {
        "format": kind,
        "parameters": models.count_parameters(model),
        "word_pieces": model.config.vocab_size,
        "labels": [model.config.id2label[index] for index in range(model.config.num_labels)],
        "max_length": min(tokenizer.model_max_length, model.config.max_position_embeddings),
        "pad_id": tokenizer.pad_token_id,
        "pad_token": tokenizer.pad_token,
    }
    (folder / "export.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    ours, exported = torch_logits(model, tokenizer, texts), exported_logits(folder, texts)
    card |= {
        "bytes": target.stat().st_size,
        "largest_logit_difference": float(np.abs(ours - exported).max()),
        "compared_texts": len(texts),
        "changed_predictions": int((answers != exported.argmax(-1)).sum()),
    }
    if kind == "onnx" and card["largest_logit_difference"] > 1e-4:
        raise UserError(
            f"the exported model's logits stray {card['largest_logit_difference']:.1g} from PyTorch's: "
            "nothing was written; try another version of torch or onnxruntime"
        )
    (folder / "export.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def trim_vocabulary(model: PreTrainedModel, tokenizer, texts: list[str]) -> tuple[PreTrainedModel, object]:
    """A copy of model and tokenizer that knows only the word pieces which `texts` use; the input stays as it is.

    Special pieces and every ASCII character stay, so that any English word can still be spelt: a word whose piece is
    gone is read as shorter ones. The ids of the special pieces do not change. Raises UserError for a tokenizer that
    is not WordPiece.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "WordPiece":
        raise UserError(f"only a WordPiece vocabulary can be trimmed, this one is {state['model']['type']}")
    used = {piece for row in tokenizer(texts)["input_ids"] for piece in row}
    used |= set(range(max(tokenizer.all_special_ids) + 1))
    vocabulary = sorted(state["model"]["vocab"].items(), key=lambda entry: entry[1])
    kept = [(p, i) for p, i in vocabulary if i in used or (len(p.removeprefix("##")) == 1 and p.isascii())]
    state["model"]["vocab"] = {piece: new for new, (piece, _) in enumerate(kept)}
    smaller = copy.deepcopy(model)
    table = model.get_input_embeddings()
    rows = table.weight.detach()[[old for _, old in kept]]
    smaller.set_input_embeddings(nn.Embedding.from_pretrained(rows, padding_idx=table.padding_idx))
    smaller.config.vocab_size = len(kept)
    return smaller, checks.rebuilt_tokenizer(tokenizer, state)


def to_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write a classifier as one ONNX file, batch size and length left free.

    The last layer is computed for [CLS] only, wherever its other rows would be thrown away: the same logits.
    """
    ids = torch.tensor([[101, 2023, 102], [101, 2003, 102]]) % model.config.vocab_size
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    attention, hooks = model.config._attn_implementation, contextlib.ExitStack()
    if name := AFTER_ATTENTION.get(model.config.model_type):
        module = models.encoder_layers(model)[-1].get_submodule(name)
        hooks.callback(module.register_forward_pre_hook(_first_token).remove)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with hooks, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter thinks aloud
        warnings.simplefilter("ignore")
        model.set_attn_implementation("onnx")
        hooks.callback(model.set_attn_implementation, attention)
        torch.onnx.export(
            _LogitsOnly(model).eval(),
            (ids, torch.ones_like(ids)),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            dynamo=True,
            opset_version=23,  # the first that has the attention operator
            external_data=False,
            verbose=False,
        )


def quantize(source: Path, target: Path) -> None:
    """Weights to 8 bits, activations quantised on the fly (onnxruntime's dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it logs a warning about pre-processing on the root logger
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["Gather", "Gemm", "MatMul"],  # what holds weights; attention has none: fp32
            weight_type=QuantType.QInt8,
            per_channel=True,  # a scale for every output instead of one for the matrix: a quarter less error, same size
        )
    finally:
        logging.getLogger().setLevel(level)


def torch_logits(model: PreTrainedModel, tokenizer, texts: list[str]) -> np.ndarray:
    """PyTorch's logits, float32 [texts, classes], in the texts' own order."""
    rows = Dataset.from_dict(dict(tokenizer(texts, truncation=True)))
    return predict_logits(model, rows, tokenizer)


def exported_logits(folder: Path, texts: list[str], batch_size: int = 64, threads: int = 0) -> np.ndarray:
    """An exported student's logits, float32 [texts, classes], in the texts' own order."""
    session, tokenizer, _ = predict.load(folder, threads)
    order = np.argsort([len(text) for text in texts], kind="stable")
    parts = [
        predict.logits([texts[i] for i in order[start : start + batch_size]], session, tokenizer)
        for start in range(0, len(texts), batch_size)
    ]
    logits = np.concatenate(parts)
    return logits[np.argsort(order)]


def main(argv: list[str]) -> None:
    """`python -m kdhelpers export STUDENT --format onnx|onnx-int8 --output DIR`."""
    parser = Parser(prog="python -m kdhelpers export", description=__doc__)
    parser.add_argument("student", help="folder or hub id of a trained student, e.g. runs/movie-snippets/student")
    parser.add_argument("--format", default="onnx", help="onnx (fp32, default) or onnx-int8")
    parser.add_argument("--output", help="folder to write (default: beside the student, named after the format)")
    parser.add_argument(
        "--rows", help="texts to compare on: .csv, .tsv, .jsonl, .parquet (default: the run's test rows)"
    )
    parser.add_argument("--text-column", default="text", help="name of their text column (default: text)")
    parser.add_argument(
        "--vocabulary-of",
        metavar="TEXTS",
        help="keep only the word pieces that these texts use: a file like --rows or .txt, or movie-snippets",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder, once the new one is done")
    options = parser.parse_args(argv)
    student = Path(options.student)
    output = Path(options.output).expanduser() if options.output else student.with_name(f"student-{options.format}")
    predictions = student.parent / "predictions.csv"  # where the student lies in a run's folder
    rows = options.rows or (predictions if student.is_dir() and predictions.is_file() else None)
    texts = [row["text"] for row in files.read_file(str(rows), options.text_column, None)] if rows else None
    vocabulary_of = None
    if options.vocabulary_of == MOVIE_SNIPPETS.name:
        vocabulary_of = list(data.movie_snippets().splits["train"]["text"])
    elif options.vocabulary_of:
        vocabulary_of = [row["text"] for row in files.read_file(options.vocabulary_of, options.text_column, None)]
    facts = export(options.student, output, options.format, options.overwrite, texts, vocabulary_of)
    changed, compared = facts["changed_predictions"], facts["compared_texts"]
    size, pieces = f"{facts['bytes'] / 1e6:.1f} MB", f"{facts['word_pieces']:,} word pieces"
    print(f"{output}/model.onnx: {size}, {pieces}, labels {', '.join(facts['labels'])}")
    print(
        f"against PyTorch on {compared:,} texts: largest difference in logits {facts['largest_logit_difference']:.2g},"
    )
    print(f"  {changed:,} predictions changed ({100 * changed / compared:.1f} %)")
    print(f'try it: python {output}/predict.py "A wonderful film."')
