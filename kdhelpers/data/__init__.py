"""Rows: the default snippets, the reader's own files, the Hugging Face Hub; splits, leaks and tokens."""

from kdhelpers.data.files import file_rows, read_file
from kdhelpers.data.hub import hub_message, hub_rows
from kdhelpers.data.rows import (
    SPLIT_SEED,
    TEACHER_LOGITS,
    UNLABELLED,
    Rows,
    drop_rows,
    fold,
    join_rows,
    require_column,
    require_scorable,
    withhold_labels,
)
from kdhelpers.data.snippets import fetch_movie_snippets, movie_snippets, read_movie_snippets
from kdhelpers.data.splits import (
    check_leakage,
    digests,
    leaking_rows,
    load_rows,
    padding_share,
    thin_out,
    tokenise,
)

__all__ = [
    "SPLIT_SEED", "TEACHER_LOGITS", "UNLABELLED", "Rows", "check_leakage", "digests", "drop_rows",
    "fetch_movie_snippets", "file_rows", "fold", "hub_message", "hub_rows", "join_rows", "leaking_rows", "load_rows",
    "movie_snippets", "padding_share", "read_file", "read_movie_snippets", "require_column", "require_scorable",
    "thin_out", "tokenise", "withhold_labels",
]  # fmt: skip
