"""Texts as weighted words, for what a simple model can tell: probabilities out of fold, and clusters. Knows nothing of labels' meaning.

N texts, V words, L labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FEATURES = 50_000
_LONGEST = 4_000  # characters of one text that are read
FOLDS = 5


def word_matrix(texts: Sequence[str]) -> tuple[Any, list[str]] | None:
    """TF-IDF of words and pairs of words [N, V], and what the columns are; None where there are no words at all."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1 if len(texts) < 500 else 3, max_features=_FEATURES, dtype=np.float32)
    try:
        matrix = vectorizer.fit_transform([text[:_LONGEST] for text in texts])
    except ValueError:
        return None
    return matrix, vectorizer.get_feature_names_out().tolist()


def out_of_fold(matrix: Any, labels: Ints, folds: Ints, count: int) -> Floats:
    """Label probabilities [N, L] for each text by a logistic regression that has not seen its fold."""
    found = np.full((matrix.shape[0], count), 1 / count)
    for fold in np.unique(folds):
        held = folds == fold
        if len(np.unique(labels[~held])) < 2:
            continue
        model = regression().fit(matrix[~held], labels[~held])
        own = np.zeros((int(held.sum()), count))
        own[:, model.classes_] = model.predict_proba(matrix[held])
        found[held] = own
    return found


def regression() -> SGDClassifier:
    """Logistic regression fitted by stochastic gradients: nearly as good as an exact fit on sparse words, in a tenth of the time."""
    return SGDClassifier(loss="log_loss", alpha=3e-6, max_iter=15, tol=None, random_state=0, average=True)


def clusters(matrix: Any, *, seed: int = 0) -> tuple[Ints, Floats]:
    """The cluster of each text [N] by latent semantic analysis and k-means, and each text's distance to its cluster's centre [N]."""
    width = min(50, matrix.shape[1] - 1, matrix.shape[0] - 1)
    if width < 2:
        return np.zeros(matrix.shape[0], dtype=np.int64), np.zeros(matrix.shape[0])
    dense = TruncatedSVD(width, n_iter=3, random_state=seed).fit_transform(matrix)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    model = MiniBatchKMeans(min(len(dense), int(np.clip(np.sqrt(len(dense)) / 3, 4, 40))), n_init=3, batch_size=2048, random_state=seed).fit(dense)
    apart = np.linalg.norm(dense - model.cluster_centers_[model.labels_], axis=1)
    return model.labels_.astype(np.int64), apart


def telling_words(matrix: Any, columns: Sequence[str], chosen: NDArray[np.bool_], count: int = 6) -> list[str]:
    """The words that some texts have more of than the others."""
    if not chosen.any() or chosen.all():
        return []
    gap = np.asarray(matrix[chosen].mean(0)).ravel() - np.asarray(matrix[~chosen].mean(0)).ravel()
    return [columns[place] for place in np.argsort(-gap)[:count] if gap[place] > 0]
