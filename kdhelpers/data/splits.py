"""One path from a run's settings to its rows, whatever their source; then leaks, subsamples and tokens."""

import hashlib
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, DatasetDict

from kdhelpers.data.files import file_rows
from kdhelpers.data.hub import hub_rows
from kdhelpers.data.rows import Rows, drop_rows, fold, require_scorable
from kdhelpers.data.snippets import movie_snippets
from kdhelpers.errors import UserError
from kdhelpers.settings import RunSettings


def load_rows(settings: RunSettings, label_names: list[str] | None = None) -> Rows:
    """The run's rows, checked for leaks and hidden test labels. `label_names` (a teacher's) settle the class order.

    Raises UserError for anything wrong with a file, a Hub data set, or the labels.
    """
    if settings.source == "movie-snippets":
        rows = movie_snippets()
    elif settings.source == "hub":
        rows = hub_rows(
            settings.dataset_id, settings.dataset_config, settings.text_column, settings.label_column
        )
    else:
        rows = file_rows(
            settings.train, settings.validation, settings.test, settings.text_column, settings.label_column,
            settings.unlabelled, label_names,
        )  # fmt: skip
    if settings.rows is not None:
        rows = thin_out(rows, settings.rows)
    require_scorable(rows.splits["test"], rows.test_name)
    return check_leakage(rows, settings.drop_leaks)


def digests(settings: RunSettings) -> dict[str, str]:
    """The sha256 of every file that the settings name: a run is only resumed with the rows that it began with."""
    named = {name: getattr(settings, name) for name in ("train", "validation", "test", "unlabelled")}
    found = {}
    for name, path in named.items():
        if path is not None and Path(path).expanduser().is_file():
            with open(Path(path).expanduser(), "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def thin_out(rows: Rows, train_rows: int) -> Rows:
    """About `train_rows` training rows and the same share of every other split, taken at even distances.

    Even distances keep the share of labels, which stand at the front of the default recipe's training rows.
    """
    step = max(1, len(rows.splits["train"]) // train_rows)
    splits = DatasetDict({name: part.select(range(0, len(part), step)) for name, part in rows.splits.items()})
    return replace(rows, splits=splits, notes=[*rows.notes, f"a rehearsal: only every {step}th row is used"])


def leaking_rows(splits: DatasetDict) -> list[int]:
    """Indices of training rows (labelled or not) whose text, folded, stands in validation or test."""
    held_out = {fold(text) for name in splits if name != "train" for text in splits[name]["text"]}
    return [index for index, text in enumerate(splits["train"]["text"]) if fold(text) in held_out]


def check_leakage(rows: Rows, drop: bool) -> Rows:
    """Find training texts that stand in validation or test; leave them out (`drop`) or raise UserError."""
    leaks = leaking_rows(rows.splits)
    if not leaks:
        return rows
    example = rows.splits["train"][leaks[0]]["text"]
    if not drop:
        raise UserError(
            f"{len(leaks)} training row(s) stand in validation or test too, e.g. {example[:60]!r}: "
            "remove them, or let --drop-leaks leave them out of training"
        )
    splits = rows.splits.copy()
    splits["train"] = drop_rows(rows.splits["train"], leaks)
    note = f"{len(leaks)} training rows that stand in validation or test too were left out"
    return Rows(type(rows.splits)(splits), rows.label_names, rows.test_name, rows.revision, [*rows.notes, note])


def padding_share(lengths: list[int], batch_size: int) -> float:
    """Share of slots that are padding when consecutive rows form batches, each padded to its own longest row."""
    starts = range(0, len(lengths), batch_size)
    slots = sum(len(lengths[i : i + batch_size]) * max(lengths[i : i + batch_size]) for i in starts)
    return 1 - sum(lengths) / slots


def tokenise(rows: Dataset | DatasetDict, tokenizer, max_length: int) -> Dataset | DatasetDict:
    """The same rows with the tokenizer's columns, `labels` and `length` (word pieces, no padding).

    Padding is left to the batch: each is padded to its own longest row. The column `label` is renamed, not copied:
    where both are there, transformers' collator puts `label` in the place of `labels` without a word.
    """

    def encode(batch: dict) -> dict:
        tokens = dict(tokenizer(list(batch["text"]), truncation=True, max_length=max_length))
        return tokens | {"labels": batch["label"], "length": [len(ids) for ids in tokens["input_ids"]]}

    return rows.map(encode, batched=True, remove_columns=["label"])
