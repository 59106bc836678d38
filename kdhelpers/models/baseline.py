"""The baseline that every table shows: what no transformer at all would have given."""

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline

from kdhelpers.data import Task


def fit_baseline(texts: list, targets: np.ndarray, task: Task = Task.ONE) -> Pipeline | None:
    """TF-IDF of words and word pairs with a linear model: seconds. C and alpha were chosen on validation rows of ours.

    `targets` are probabilities [texts, classes]: a label is 1 and zeros, a teacher's answer is soft. Each text counts
    once for every class, with its probability as weight, which is cross-entropy with soft targets. That is logistic
    regression; of several labels each has one of its own, and numbers [texts, 1] have ridge regression. A pair of
    texts is read as one. None where no text holds a word.
    """
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    try:
        table = words.fit_transform(map(_one_text, texts))
    except ValueError:  # scikit-learn's for an empty vocabulary
        return None
    return make_pipeline(words, _ANSWERS[task](table, targets))


def _one_text(text: str | tuple[str, str]) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _classes(table: sparse.csr_matrix, targets: np.ndarray) -> LogisticRegression:
    classes = targets.shape[1]
    answers, rows = LogisticRegression(C=10, max_iter=1000), sparse.vstack([table] * classes, format="csr")
    return answers.fit(rows, np.repeat(np.arange(classes), table.shape[0]), sample_weight=targets.T.ravel())


def _one_vs_rest(table: sparse.csr_matrix, targets: np.ndarray) -> LogisticRegression:
    """One regression a label, their weights stacked in one."""
    each = [_classes(table, np.stack([1 - label, label], axis=1)) for label in targets.T]
    together = each[0]
    together.coef_ = np.concatenate([one.coef_ for one in each])
    together.intercept_ = np.concatenate([one.intercept_ for one in each])
    return together


_ANSWERS = {
    Task.ONE: _classes,
    Task.SEVERAL: _one_vs_rest,
    Task.NUMBER: lambda table, targets: Ridge(alpha=0.1).fit(table, targets),
}


def baseline_logits(baseline: Pipeline, texts: list, task: Task = Task.ONE) -> np.ndarray:
    """Its log-probabilities, which are logits too, log-odds of several labels, or numbers: float [texts, outputs]."""
    read = list(map(_one_text, texts))
    if task is Task.ONE:
        return np.maximum(baseline.predict_log_proba(read), -100.0)  # 0 would be no number
    found = baseline.decision_function(read) if task is Task.SEVERAL else baseline.predict(read)
    return found.reshape(len(read), -1)


def baseline_parameters(baseline: Pipeline) -> int:
    """How many numbers it has learnt."""
    learnt = baseline[-1]
    return learnt.coef_.size + learnt.intercept_.size
