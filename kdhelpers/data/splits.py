"""One path from a run's settings to its rows, whatever their source; then leaks, subsamples and tokens."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, load_from_disk
from sklearn.model_selection import train_test_split
from transformers import PreTrainedTokenizerBase

from kdhelpers.data.augment import with_altered_copies
from kdhelpers.data.files import file_rows, with_more_text
from kdhelpers.data.hub import hub_rows
from kdhelpers.data.labels import coded
from kdhelpers.data.rows import SPLIT_SEED, Rows, columns_of, quoted, row_keys, texts_of
from kdhelpers.data.snippets import movie_ratings, movie_snippets
from kdhelpers.data.task import Task, has_label
from kdhelpers.errors import UserError
from kdhelpers.settings import RunSettings
from kdhelpers.storage import scratch

# by the name that --dataset-id takes
DATA_SETS: dict[str, Callable[[], Rows]] = {
    "movie-snippets": movie_snippets,
    "movie-snippets-labelled": partial(movie_snippets, labelled=10**9),  # no label withheld
    "movie-ratings": movie_ratings,
}
Table = TypeVar("Table", Dataset, DatasetDict)


def load_rows(settings: RunSettings, label_names: list[str] | None = None, task: Task | None = None) -> Rows:
    """The run's rows, checked: fields, texts, labels, leaks. `label_names` (a teacher's) settle the order of classes.

    `task` is the teacher's, for rows without any label to tell. Splits that the source lacks are carved out of the
    labelled training rows, by a fixed seed, each class its share. Raises UserError for anything wrong with a file, a
    Hub data set, or the labels.
    """
    own = DATA_SETS.get(settings.dataset_id or settings.source)
    if own:
        rows = own()
        if settings.task not in ("auto", rows.task) or settings.text_pair_column or settings.label_separator:
            told = f"these are {rows.task}"
            raise UserError(f"--task, --text-pair-column and --label-separator are for other rows: {told}")
    else:
        rows = hub_rows(settings) if settings.source == "hub" else file_rows(settings)
        rows = coded(rows, settings, label_names or [], task)
    rows = check_leakage(_carved(with_more_text(rows, settings)), settings.drop_leaks)
    rows = rows if settings.rows is None else thin_out(rows, settings.rows)
    # then no label is needed, and there is no control
    learnt_from_teacher = (label_names or task is Task.NUMBER) and settings.alpha == 0
    labels = np.array(rows.splits["train"]["label"][:])
    if len(np.unique(labels[has_label(labels)], axis=0)) < 2 and not learnt_from_teacher:
        what = "classes" if rows.task is Task.ONE else "different labels"
        raise UserError(f"fewer than two {what} are among the labelled training rows: there is nothing to learn")
    return _on_disk(with_altered_copies(rows, settings.augment))


def _on_disk(rows: Rows) -> Rows:
    """The rows in files that are mapped, where datasets then keeps their tokens too: memory does not grow with them."""
    folder = tempfile.mkdtemp(dir=scratch().name)
    rows.splits.save_to_disk(folder)
    return replace(rows, splits=load_from_disk(folder))


def _carved(rows: Rows) -> Rows:
    """The rows with the splits that the source lacks, each taken out of a tenth (at most 1,000) of the labelled rows.

    Texts that two labelled rows have, and classes of a single row, stay in training; rows without a label that have a
    text that is set aside are left out.
    """
    splits, notes = DatasetDict(rows.splits), list(rows.notes)
    take = min(1000, rows.counts()["labelled"] // 10)
    for split in ("validation", "test") if rows.test_name == "test" else ("test",):
        if split in splits:
            continue
        train = splits["train"]
        classified = rows.task is Task.ONE
        labels = pd.Series(train["label"][:] if classified else 0, index=range(len(train)))
        known, keys = has_label(train["label"][:]), pd.Series(row_keys(train))
        free = known & ~keys.where(known).duplicated(keep=False)
        free &= labels.groupby([labels, free]).transform("size") > 1
        classes = labels[free].nunique()
        if not 0 < take < free.sum():
            raise UserError(f"there are no {split} rows, and too few labelled training rows to set some aside for it")
        by_class = labels[free] if classified and classes <= take <= free.sum() - classes else None
        # of scikit-learn: that of datasets reads the labels row by row, which takes minutes for 100,000
        _, chosen = train_test_split(np.flatnonzero(free), test_size=take, stratify=by_class, random_state=SPLIT_SEED)
        splits[split] = train.select(sorted(chosen))
        rest = np.flatnonzero(~keys.isin(keys[chosen]))
        splits["train"] = train.select(rest)
        how = "at random" if by_class is None else "each class its share"
        if again := len(train) - len(rest) - take:
            how += f", and {again:,} without a label that have the same texts were left out"
        notes.append(f"no {split} rows were given: {take:,} labelled training rows were set aside for it, {how}")
    return replace(rows, splits=splits, notes=notes)


def thin_out(rows: Rows, train_rows: int) -> Rows:
    """About `train_rows` training rows and the same share of every other split, taken at even distances.

    Each label keeps its share, and so do rows without one: distances are counted among the rows of a label, whose order
    may be in step with the distance.
    """
    step = max(1, len(rows.splits["train"]) // train_rows)
    chosen = {name: np.argsort(list(map(str, part["label"][:])), kind="stable") for name, part in rows.splits.items()}
    splits = DatasetDict({name: part.select(sorted(chosen[name][::step])) for name, part in rows.splits.items()})
    note = f"a subsample: {len(splits['train']):,} of {len(rows.splits['train']):,} training rows"
    return replace(rows, splits=splits, notes=[*rows.notes, note])


def leaking_rows(
    splits: DatasetDict, split: str = "train", into: tuple[str, ...] = ("validation", "test")
) -> list[int]:
    """Indices of the rows of `split` (labelled or not) whose text or pair, folded, is in the splits `into` too."""
    known = {key for name in into if name in splits for key in row_keys(splits[name])}
    return [index for index, key in enumerate(row_keys(splits[split])) if key in known]


def check_leakage(rows: Rows, drop: bool) -> Rows:
    """Find texts that two splits share; raise UserError, or leave them out (`drop`) of training and validation.

    Test rows always stay. Raises UserError, too, where nothing to train or to choose on would be left.
    """
    splits, found = DatasetDict(rows.splits), []
    for one, two in (("validation", "test"), ("train", "test"), ("train", "validation")):
        leaks = leaking_rows(splits, one, (two,)) if one in splits else []
        if leaks:
            found.append(
                f"{len(leaks)} {one} rows are in {two} too, e.g. {quoted(texts_of(splits[one].select(leaks[:1]))[0])}"
            )
            splits[one] = splits[one].select(np.setdiff1d(np.arange(len(splits[one])), leaks))
    if found and not drop:
        raise UserError(f"{'; '.join(found)}: remove them, or let --drop-leaks leave them out (test rows stay)")
    if not all(map(len, splits.values())):
        raise UserError(f"{'; '.join(found)}: without them, nothing is left to train or to choose on")
    return replace(rows, splits=splits, notes=rows.notes + [f"{said}: they were left out" for said in found])


def lost_in_reading(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What is to be said of tokenised rows that a model does not read whole: texts that are cut, unknown tokens."""
    longest, found = tokenizer.model_max_length, []
    cut = int((np.array(rows["length"][:]) >= longest).sum())
    if cut:
        found.append(f"{cut:,} of {len(rows):,} training texts fill the longest input, {longest} tokens, or are cut")
    tokens = rows.select_columns("input_ids").with_format("arrow")[:]["input_ids"].combine_chunks().flatten()
    unknown = float((tokens.to_numpy() == tokenizer.unk_token_id).mean()) if tokenizer.unk_token_id is not None else 0.0
    if unknown > 0.1:
        found.append(f"{unknown:.0%} of the tokens are unknown to the tokenizer: is it one for this language?")
    return found


def padding_share(lengths: list[int], batch_size: int) -> float:
    """Share of slots that are padding when consecutive rows form batches, each padded to its own longest row."""
    starts = range(0, len(lengths), batch_size)
    slots = sum(len(lengths[i : i + batch_size]) * max(lengths[i : i + batch_size]) for i in starts)
    return 1 - sum(lengths) / slots


def tokenise(rows: Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Table:
    """The same rows with the tokenizer's columns, `labels`, and `length` in tokens (no padding).

    Of a pair that is too long the longer text is cut, token by token, so that something of both is left. Padding is
    left to the batch: each is padded to its own longest row. The column `label` is renamed, not copied:
    where both are there, transformers' collator puts `label` in the place of `labels` without a word.
    """

    columns = columns_of(rows["train"] if isinstance(rows, DatasetDict) else rows)

    def encode(batch: dict) -> dict:
        texts = [list(batch[name]) for name in columns]
        tokens = dict(tokenizer(*texts, truncation=True, max_length=max_length))
        return tokens | {"labels": batch["label"], "length": [len(ids) for ids in tokens["input_ids"]]}

    return rows.map(encode, batched=True, remove_columns=["label"])
