"""Rows: the default snippets, the reader's own files, the Hugging Face Hub; labels, splits, leaks and tokens."""

from kdhelpers.data.augment import altered_copies
from kdhelpers.data.files import OF_THE_PACKAGE, digests, located, read_file, read_records
from kdhelpers.data.hub import hub_message
from kdhelpers.data.packages import download_package
from kdhelpers.data.rows import SPLIT_SEED, TEACHER_LOGITS, UNLABELLED, Rows, fold, normal_label, quoted, texts_of
from kdhelpers.data.snippets import (
    fetch_movie_snippets,
    fetch_other_snippets,
    movie_ratings,
    movie_snippets,
    read_movie_snippets,
    withhold_labels,
)
from kdhelpers.data.splits import (
    DATA_SETS,
    leaking_rows,
    load_rows,
    lost_in_reading,
    padding_share,
    thin_out,
    tokenise,
)
from kdhelpers.data.task import PROBLEM_TYPES, SEPARATOR, Task, has_label, joined, listed, predictions, probabilities

__all__ = [
    "DATA_SETS", "OF_THE_PACKAGE", "PROBLEM_TYPES", "Rows", "SEPARATOR", "SPLIT_SEED", "TEACHER_LOGITS", "Task",
    "UNLABELLED", "altered_copies", "digests", "download_package", "fetch_movie_snippets", "fetch_other_snippets",
    "fold", "has_label", "hub_message", "joined", "leaking_rows", "listed", "load_rows", "located", "movie_ratings",
    "lost_in_reading", "movie_snippets", "normal_label", "padding_share", "predictions", "probabilities", "quoted",
    "read_file", "read_movie_snippets", "read_records", "texts_of", "thin_out", "tokenise", "withhold_labels",
]  # fmt: skip
