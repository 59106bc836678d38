"""One scoring: metrics with their uncertainty, paired comparisons, the card, the table, and behaviour."""

from kdhelpers.evaluation.behaviour import failure_rates
from kdhelpers.evaluation.cascade import cascade, confidence, confidence_threshold, dollars_per_million, suspects
from kdhelpers.evaluation.comparison import (
    NAMES,
    VERDICTS,
    Card,
    Comparison,
    SeedsComparison,
    bootstrap_interval,
    compare,
    gained_and_lost,
    judged,
    mcnemar_p,
    minimum_detectable_effect,
    paired,
    paired_numbers,
    paired_over_seeds,
    score_table,
)
from kdhelpers.evaluation.gate import check_teacher
from kdhelpers.evaluation.metrics import (
    MEASURES,
    Measure,
    agreement,
    compute_metrics,
    expected_calibration_error,
    mean_kl,
    metrics_for,
    rmse,
    score,
    wilson_interval,
)
from kdhelpers.evaluation.report import (
    draw_result,
    over_seeds,
    result_lines,
    seeds_lines,
    write_model_card,
    write_predictions,
)

__all__ = [
    "Card", "Comparison", "MEASURES", "Measure", "NAMES", "SeedsComparison", "VERDICTS", "agreement",
    "bootstrap_interval", "cascade", "check_teacher", "compare", "compute_metrics", "confidence",
    "confidence_threshold", "dollars_per_million", "draw_result", "expected_calibration_error", "failure_rates",
    "gained_and_lost", "judged", "mcnemar_p", "mean_kl", "metrics_for", "minimum_detectable_effect",
    "over_seeds", "paired", "paired_numbers", "paired_over_seeds", "result_lines", "rmse", "score",
    "score_table", "seeds_lines", "suspects", "wilson_interval", "write_model_card", "write_predictions",
]  # fmt: skip
