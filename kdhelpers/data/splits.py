"""One path from a run's settings to its rows, whatever their source; then leaks, subsamples and tokens."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from sklearn.model_selection import train_test_split
from transformers import PreTrainedTokenizerBase

from kdhelpers.data.files import file_rows
from kdhelpers.data.hub import hub_rows
from kdhelpers.data.rows import SPLIT_SEED, UNLABELLED, Rows, class_names, fold, normal_label
from kdhelpers.data.snippets import movie_snippets
from kdhelpers.errors import UserError
from kdhelpers.settings import RunSettings

DATA_SETS: dict[str, Callable[[], Rows]] = {"movie-snippets": movie_snippets}  # by the name that --dataset-id takes
Table = TypeVar("Table", Dataset, DatasetDict)


def load_rows(settings: RunSettings, label_names: list[str] | None = None) -> Rows:
    """The run's rows, checked: fields, texts, labels, leaks. `label_names` (a teacher's) settle the order of classes.

    Splits that the source lacks are carved out of the labelled training rows, by a fixed seed, each class its share.
    Raises UserError for anything wrong with a file, a Hub data set, or the labels.
    """
    own = DATA_SETS.get(settings.dataset_id or settings.source)
    if own:
        rows = own()
    else:
        rows = hub_rows(settings) if settings.source == "hub" else file_rows(settings)
        rows = _carved(_with_class_ids(rows, label_names or []))
    rows = check_leakage(rows, settings.drop_leaks)
    learnt_from_teacher = label_names and settings.alpha == 0  # then no label is needed, and there is no control
    if len(set(rows.splits["train"]["label"][:]) - {UNLABELLED}) < 2 and not learnt_from_teacher:
        raise UserError("fewer than two classes are among the labelled training rows: there is nothing to learn")
    return rows if settings.rows is None else thin_out(rows, settings.rows)


def _with_class_ids(rows: Rows, teacher: list[str]) -> Rows:
    """The rows with an id for each label's name. Raises UserError for held-out labels that training does not know."""
    found = set(rows.splits["train"]["label"][:]) - {None}
    names = class_names(found, rows.label_names, teacher)
    apart = len(set(map(normal_label, names))) == len(names)  # else names are declared that differ only in case
    form = normal_label if apart else str
    ids: dict[str | None, int] = {form(name): index for index, name in enumerate(names)}
    splits = DatasetDict()
    for split, part in rows.splits.items():
        labels = [UNLABELLED if label is None else ids.get(form(label)) for label in part["label"][:]]
        if None in labels:
            row = part[labels.index(None)]
            known = f"which no labelled training row has; training knows: {', '.join(names)}"
            raise UserError(f"{row['where']} has the label {row['label']!r}, {known}")
        if split != "train" and UNLABELLED in labels and (found or set(labels) != {UNLABELLED}):
            raise UserError(f"{part[labels.index(UNLABELLED)]['where']} has no label: only training rows may lack one")
        row_ids = [f"{split}-{index}" for index in range(len(part))]
        splits[split] = Dataset.from_dict({"id": row_ids, "text": part["text"][:], "label": labels})
    return replace(rows, splits=splits, label_names=names)


def _carved(rows: Rows) -> Rows:
    """The rows with the splits that the source lacks, each taken out of a tenth (at most 1,000) of the labelled rows.

    Repeated texts, and classes of a single row, stay in training.
    """
    splits, notes = DatasetDict(rows.splits), list(rows.notes)
    take = min(1000, rows.counts()["labelled"] // 10)
    for split in ("validation", "test") if rows.test_name == "test" else ("test",):
        if split in splits:
            continue
        train = splits["train"]
        labels, texts = pd.Series(train["label"][:]), pd.Series(map(fold, train["text"][:]))
        free = (labels != UNLABELLED) & ~texts.duplicated(keep=False)
        free &= labels.groupby([labels, free]).transform("size") > 1
        classes = labels[free].nunique()
        if not 0 < take < free.sum():
            raise UserError(f"there are no {split} rows, and too few labelled training rows to set some aside for it")
        by_class = labels[free] if classes <= take <= free.sum() - classes else None
        # of scikit-learn: that of datasets reads the labels row by row, which takes minutes for 100,000
        _, chosen = train_test_split(np.flatnonzero(free), test_size=take, stratify=by_class, random_state=SPLIT_SEED)
        splits[split] = train.select(sorted(chosen))
        splits["train"] = train.select(np.setdiff1d(np.arange(len(train)), chosen))
        how = "at random" if by_class is None else "each class its share"
        notes.append(f"no {split} rows were given: {take:,} labelled training rows were set aside for it, {how}")
    return replace(rows, splits=splits, notes=notes)


def thin_out(rows: Rows, train_rows: int) -> Rows:
    """About `train_rows` training rows and the same share of every other split, taken at even distances.

    Even distances keep the share of labels, which stand at the front of the default recipe's training rows.
    """
    step = max(1, len(rows.splits["train"]) // train_rows)
    splits = DatasetDict({name: part.shard(step, 0, contiguous=False) for name, part in rows.splits.items()})
    note = f"a subsample: {len(splits['train']):,} of {len(rows.splits['train']):,} training rows"
    return replace(rows, splits=splits, notes=[*rows.notes, note])


def leaking_rows(
    splits: DatasetDict, split: str = "train", into: tuple[str, ...] = ("validation", "test")
) -> list[int]:
    """Indices of the rows of `split` (labelled or not) whose text, folded, is in the splits `into` too."""
    known = {fold(text) for name in into if name in splits for text in splits[name]["text"][:]}
    return [index for index, text in enumerate(splits[split]["text"][:]) if fold(text) in known]


def check_leakage(rows: Rows, drop: bool) -> Rows:
    """Find texts that two splits share; raise UserError, or leave them out (`drop`) of training and validation.

    Test rows always stay. Raises UserError, too, where nothing to train or to choose on would be left.
    """
    splits, found = DatasetDict(rows.splits), []
    for one, two in (("validation", "test"), ("train", "test"), ("train", "validation")):
        leaks = leaking_rows(splits, one, (two,)) if one in splits else []
        if leaks:
            found.append(f"{len(leaks)} {one} rows are in {two} too, e.g. {splits[one][leaks[0]]['text'][:60]!r}")
            splits[one] = splits[one].select(np.setdiff1d(np.arange(len(splits[one])), leaks))
    if found and not drop:
        raise UserError(f"{'; '.join(found)}: remove them, or let --drop-leaks leave them out (test rows stay)")
    if not all(map(len, splits.values())):
        raise UserError(f"{'; '.join(found)}: without them, nothing is left to train or to choose on")
    return replace(rows, splits=splits, notes=rows.notes + [f"{said}: they were left out" for said in found])


def padding_share(lengths: list[int], batch_size: int) -> float:
    """Share of slots that are padding when consecutive rows form batches, each padded to its own longest row."""
    starts = range(0, len(lengths), batch_size)
    slots = sum(len(lengths[i : i + batch_size]) * max(lengths[i : i + batch_size]) for i in starts)
    return 1 - sum(lengths) / slots


def tokenise(rows: Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Table:
    """The same rows with the tokenizer's columns, `labels`, and `length` in tokens (no padding).

    Padding is left to the batch: each is padded to its own longest row. The column `label` is renamed, not copied:
    where both are there, transformers' collator puts `label` in the place of `labels` without a word.
    """

    def encode(batch: dict) -> dict:
        tokens = dict(tokenizer(list(batch["text"]), truncation=True, max_length=max_length))
        return tokens | {"labels": batch["label"], "length": [len(ids) for ids in tokens["input_ids"]]}

    return rows.map(encode, batched=True, remove_columns=["label"])
