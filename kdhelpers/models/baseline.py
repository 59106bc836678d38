"""The baseline that every table shows: what no transformer at all would have given."""

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline


def fit_baseline(texts: list[str], targets: np.ndarray) -> Pipeline | None:
    """TF-IDF of words and word pairs with logistic regression: seconds. C was chosen on the default validation rows.

    `targets` are probabilities [texts, classes]: a label is 1 and zeros, a teacher's answer is soft. Each text counts
    once for every class, with its probability as weight, which is cross-entropy with soft targets. None where no text
    holds a word.
    """
    classes = targets.shape[1]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    try:
        table = sparse.vstack([words.fit_transform(texts)] * classes, format="csr")
    except ValueError:  # scikit-learn's for an empty vocabulary
        return None
    answers = LogisticRegression(C=10, max_iter=1000)
    answers.fit(table, np.repeat(np.arange(classes), len(texts)), sample_weight=targets.T.ravel())
    return make_pipeline(words, answers)


def baseline_logits(baseline: Pipeline, texts: list[str]) -> np.ndarray:
    """Its log-probabilities, which are logits too: float [texts, classes]."""
    return np.maximum(baseline.predict_log_proba(texts), -100.0)  # 0 would be no number


def baseline_parameters(baseline: Pipeline) -> int:
    """How many numbers it has learnt."""
    learnt = baseline[-1]
    return learnt.coef_.size + learnt.intercept_.size
