"""What a model says to rows of text, in one place for teacher, student and control."""

import inspect
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from kdhelpers import runtime
from kdhelpers.errors import UserError
from kdhelpers.models.first_token import first_token_only


def predict_logits(
    model: PreTrainedModel,
    rows: Dataset,
    tokenizer: Any,
    machine: runtime.Machine | None = None,
    *,
    batch_size: int = 64,
    progress: str | None = None,
) -> np.ndarray:
    """The model's logits for tokenised rows: float32 [rows, classes], in the rows' own order.

    Rows are read longest first, so that a batch holds rows of like length and little padding, and fits into the memory
    of the one before. (Trainer's own `predict` returns them in that shuffled order when batches are grouped by length,
    hence this function.)
    The model is left in the mode it came in. It computes in fp32, or with a `machine` in its precision.
    `progress` names the bar; None shows none. Raises UserError where a logit is NaN or infinite.
    """
    accepted = set(inspect.signature(model.forward).parameters) - {"labels"}
    columns = [name for name in rows.column_names if name in accepted]
    tokens = rows.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
    order = np.argsort(pc.list_value_length(tokens).to_numpy(), kind="stable")
    table = rows.select_columns(columns).select(order)
    was_training, device = model.training, model.device
    logits = np.empty((len(table), model.config.num_labels), dtype=np.float32)
    model.eval()
    watched = runtime.progress_bar(len(table), progress) if progress else nullcontext()
    autocast = machine.autocast() if machine else nullcontext()
    with torch.inference_mode(), first_token_only(model), autocast, watched as bar:
        for start in reversed(range(0, len(table), batch_size)):
            batch = tokenizer.pad(table[start : start + batch_size], return_tensors="pt").to(device)
            here = order[start : start + batch_size]
            logits[here] = model(**batch).logits.float().cpu().numpy()
            if bar is not None:
                bar.update(len(here))
    model.train(was_training)
    broken = len(logits) - int(np.isfinite(logits).all(axis=1).sum())
    if broken:
        who = f"{type(model).__name__} {model.name_or_path}".strip()
        raise UserError(f"{who} answers NaN or infinity for {broken} of {len(logits)} rows: train it again, in fp32")
    return logits
