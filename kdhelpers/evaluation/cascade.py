"""The student answers, the teacher decides the rest: where to draw the line, and what the pair is worth.

Logits are float arrays [rows, classes], of the same rows for student and teacher.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import softmax

from kdhelpers.errors import UserError


def confidence(logits: np.ndarray) -> np.ndarray:
    """The probability of the likeliest class, float [rows]."""
    return softmax(logits, axis=-1).max(-1)


def confidence_threshold(
    student_logits: np.ndarray, teacher_logits: np.ndarray, agreement: float = 0.95, level: float = 0.05
) -> float:
    """The lowest confidence from which on the student says what the teacher says, at least in the share `agreement`.

    To be found on validation rows. The share is a lower bound that fails with a probability of at most `level`: the
    rows are taken in from the most confident one on, a hundredth of them at a time, and each such set has to pass an
    exact one-sided binomial test, up to the first that does not (fixed-sequence testing, as in Angelopoulos et al.
    2021, Learn then Test). Returns infinity where none passes: then the teacher has to answer everything. Raises
    UserError for a share outside (0, 1), for logits of other shapes, not finite, or of no classes.
    """
    if not 0 < agreement < 1:
        raise UserError(f"agreement must lie between 0 and 1, not {agreement}")
    if student_logits.shape != teacher_logits.shape:
        raise UserError(f"student and teacher have logits {student_logits.shape} and {teacher_logits.shape}: not alike")
    if student_logits.ndim != 2 or student_logits.shape[-1] < 2 or not len(student_logits):
        raise UserError(f"logits {student_logits.shape}: a threshold needs rows, and one class out of two or more")
    if not (np.isfinite(student_logits).all() and np.isfinite(teacher_logits).all()):
        raise UserError("logits hold NaN or infinite values: the model is broken")
    sure = confidence(student_logits)
    order = np.argsort(-sure, kind="stable")
    agreed = np.cumsum((student_logits.argmax(-1) == teacher_logits.argmax(-1))[order])
    fewest, step, found = math.ceil(math.log(level) / math.log(agreement)), max(1, len(sure) // 100), math.inf
    for rows in [*range(fewest, len(sure), step), len(sure)]:
        if rows < len(sure) and sure[order[rows]] == sure[order[rows - 1]]:
            continue  # one threshold cannot tell these rows apart
        if stats.binomtest(int(agreed[rows - 1]), rows, agreement, alternative="greater").pvalue > level:
            break
        found = float(sure[order[rows - 1]])
    return found


def dollars_per_million(milliseconds: float, dollars_per_hour: float) -> float:
    """What a million sentences cost on a machine of this hourly price, busy all the time. Raises UserError.

    >>> round(dollars_per_million(36, 0.10), 2)
    1.0
    """
    if not (milliseconds > 0 and dollars_per_hour > 0):
        raise UserError(f"price and time must be greater than 0, not {dollars_per_hour} and {milliseconds}")
    return milliseconds / 3.6 * dollars_per_hour


def cascade(
    student_logits: np.ndarray,
    teacher_logits: np.ndarray,
    labels: np.ndarray,
    milliseconds: tuple[float, float],
    dollars_an_hour: float = 0.1,
) -> pd.DataFrame:
    """What the pair is worth for every threshold, a row a hundredth of the rows; labels are class ids [rows].

    `milliseconds` an answer takes, of student and teacher; the teacher is only asked where the student is not sure.
    Columns: `threshold`, `student_share` (of the rows that the student answers by itself), `accuracy` of the pair,
    `milliseconds` an answer and `dollars` a million answers, on one machine of that price that does nothing else.
    """
    sure, (fast, slow) = confidence(student_logits), milliseconds
    theirs = teacher_logits.argmax(-1)
    right = student_logits.argmax(-1) == labels
    rows = []
    for threshold in [*np.quantile(sure, np.linspace(0, 1, 101)), math.inf]:
        alone = sure >= threshold
        time = fast + (1 - alone.mean()) * slow
        accuracy = np.where(alone, right, theirs == labels).mean()
        rows.append((threshold, alone.mean(), accuracy, time, dollars_per_million(time, dollars_an_hour)))
    columns = ["threshold", "student_share", "accuracy", "milliseconds", "dollars"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates("student_share", ignore_index=True)


def suspects(
    texts: Sequence[str],
    labels: np.ndarray,
    student_logits: np.ndarray,
    teacher_logits: np.ndarray,
    threshold: float,
    label_names: list[str],
) -> pd.DataFrame:
    """Rows on which a student that is sure contradicts teacher or label, surest first: one of the three is wrong."""
    sure, said, theirs = confidence(student_logits), student_logits.argmax(-1), teacher_logits.argmax(-1)
    odd = (sure >= threshold) & ((said != theirs) | ((said != labels) & (labels >= 0)))
    names = np.array([*label_names, ""], dtype=object)
    table = {"confidence": sure, "student": names[said], "teacher": names[theirs]}
    table |= {"label": names[np.maximum(labels, -1)], "text": list(texts)}
    return pd.DataFrame(table)[odd].sort_values("confidence", ascending=False, ignore_index=True)
