"""Experiments: an ablation (what helps, over several seeds) and a search for settings, each of many students."""

from kdhelpers.experiments.ablation import (
    GROUPS,
    MAIN_GROUPS,
    OF_THE_NOTEBOOKS,
    Variant,
    main_table,
    of_main_groups,
    paired_over_seeds,
    recorded,
    right_rows,
    run_ablation,
    sizes,
    student,
    summary,
    variant,
)
from kdhelpers.experiments.search import search, search_table

__all__ = [
    "GROUPS", "MAIN_GROUPS", "OF_THE_NOTEBOOKS", "Variant", "main_table", "of_main_groups", "paired_over_seeds",
    "recorded", "right_rows", "run_ablation", "search", "search_table", "sizes", "student", "summary", "variant",
]  # fmt: skip
