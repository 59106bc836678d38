"""Experiments: an ablation (what helps, over several seeds) and a search for settings, each of many students."""

from kdhelpers.experiments.ablation import (
    GROUPS,
    OF_THE_NOTEBOOKS,
    Variant,
    paired_over_seeds,
    recorded,
    right_rows,
    run_ablation,
    student,
    summary,
    variant,
)
from kdhelpers.experiments.search import search, search_table

__all__ = [
    "GROUPS", "OF_THE_NOTEBOOKS", "Variant", "paired_over_seeds", "recorded", "right_rows", "run_ablation",
    "search", "search_table", "student", "summary", "variant",
]  # fmt: skip
