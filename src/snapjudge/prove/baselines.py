"""Baselines on the judge's own splits: what a figure is worth is what it adds to these.

majority        the training shares of the labels, for every example
tfidf           TF-IDF of word 1-2-grams, logistic regression
embedding       the backbone's frozen mean embedding, logistic regression
Regularisation is picked by the log loss on the validation split, as the judge's epoch is. Knows nothing of torch: embeddings come in as arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float64]
_STRENGTHS = (0.3, 3.0, 30.0)
_TINY = 1e-6


@dataclass(frozen=True)
class BaselineData:
    """One split for the baselines: texts, embeddings [N, D], label indices."""

    texts: Sequence[str]
    embeddings: Floats
    labels: Sequence[int]


def majority(train: BaselineData, others: Sequence[BaselineData], labels: int) -> list[Floats]:
    """Log-probabilities [N, L] of the training shares."""
    shares = np.bincount(train.labels, minlength=labels) + _TINY
    return [np.tile(np.log(shares / shares.sum()), (len(data.labels), 1)) for data in others]


def tfidf(train: BaselineData, validation: BaselineData, others: Sequence[BaselineData], labels: int) -> list[Floats]:
    """Log-probabilities [N, L] of logistic regression on TF-IDF."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1 if len(train.texts) < 500 else 2, max_features=200_000)
    try:
        features = vectorizer.fit_transform(train.texts)
    except ValueError:  # no words at all, such as texts of emoji only
        return majority(train, others, labels)
    return _regression(features, train, vectorizer.transform(validation.texts), validation, [vectorizer.transform(data.texts) for data in others], labels)


def embedding(train: BaselineData, validation: BaselineData, others: Sequence[BaselineData], labels: int) -> list[Floats]:
    """Log-probabilities [N, L] of logistic regression on frozen embeddings."""
    return _regression(train.embeddings, train, validation.embeddings, validation, [data.embeddings for data in others], labels)


def _regression(features: Any, train: BaselineData, held: Any, validation: BaselineData, others: Sequence[Any], labels: int) -> list[Floats]:
    best, lowest = None, np.inf
    for strength in _STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000, class_weight="balanced").fit(features, train.labels)
        log_p = _log_p(model, held, labels)
        loss = -float(np.mean(log_p[np.arange(len(validation.labels)), np.asarray(validation.labels)]))
        if loss < lowest:
            best, lowest = model, loss
    assert best is not None
    return [_log_p(best, data, labels) for data in others]


def _log_p(model: LogisticRegression, features: Any, labels: int) -> Floats:
    """Log-probabilities over all labels; one never seen in training gets next to nothing."""
    found = np.full((features.shape[0], labels), _TINY)
    found[:, model.classes_] = np.maximum(model.predict_proba(features), _TINY)
    log_p: Floats = np.log(found / found.sum(1, keepdims=True))
    return log_p
