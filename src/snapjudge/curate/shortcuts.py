"""Shortcuts: how well a property that should not matter predicts the label on its own.

Numbers that need no fitting are ranked on all examples. What has to be learned (sources, languages, words, templates) is learned on one half of
the groups and measured on the other, so that a chance find does not look like one. Each is one AUROC with its interval; of several labels, the one
it predicts best. Knows nothing of files.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from snapjudge.core.example import Example, texts_of
from snapjudge.core.metric import Metric
from snapjudge.curate.ranking import Area, auroc
from snapjudge.curate.times import moment
from snapjudge.curate.words import regression

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_FEW = 10  # of a label, on either side, below which nothing is said of it
_PUNCTUATION = frozenset(string.punctuation)
_FRAME, _SHARED = 8, 4  # words of each end that are looked at; that are taken together
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Shortcut:
    """A property, how well it alone predicts a label, and which way."""

    name: str
    area: Area
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Rows:
    """Examples as the properties see them: texts [N], labels [N], which half [N]."""

    examples: Sequence[Example]
    texts: Sequence[str]
    labels: NDArray[np.int64]
    second: Bools
    metric: Metric

    @property
    def halved(self) -> bool:
        """Whether there is something on both halves, to learn from and to measure on."""
        return bool(self.second.any() and not self.second.all())

    @property
    def named(self) -> list[tuple[int, str]]:
        """The labels to be predicted; of two, the first says it all."""
        names = list(enumerate(self.metric.label_names))
        return names[:1] if len(names) == 2 else names


def shortcuts(rows: Rows) -> list[Shortcut]:
    """Every property that can be measured, the strongest first."""
    found = [_strongest(_ranked(rows, name, values)) for name, values in _numbers(rows).items()]
    found.append(by_value(rows, "source", [example.provenance.source for example in rows.examples]))
    if rows.halved:
        found += [_strongest(_single_word(rows)), _strongest(_template(rows))]
    return sorted((one for one in found if one is not None), key=lambda one: -one.area.value)


def _strongest(found: Iterator[Shortcut]) -> Shortcut | None:
    """Of one property's shortcuts by label, the one that tells most."""
    return max(found, key=lambda one: one.area.value, default=None)


def _numbers(rows: Rows) -> dict[str, Floats]:
    """Properties that are numbers; for pairs, the difference between the two answers."""
    fields = [texts_of(example.inputs) for example in rows.examples]
    if rows.metric.type == "pairwise":
        return {
            f"{name}, a less b": _measured([f["a"] for f in fields], measure) - _measured([f["b"] for f in fields], measure)
            for name, measure in _MEASURES.items()
        }
    found = {name: _measured(rows.texts, measure) for name, measure in _MEASURES.items()}
    names = [name for name in rows.metric.ordered_inputs if all(name in one for one in fields)]
    if len(names) > 1:
        found |= {f"length of {name}": np.array([len(one[name]) for one in fields], dtype=float) for name in names}
    times = [moment(example.provenance.date) for example in rows.examples]
    if all(times) and len(set(times)) > 1:
        found |= {"date": np.array([when.timestamp() for when in times if when])}
        hours = np.array([when.hour for when in times if when], dtype=float)
        found |= {"hour of the day": hours} if len(set(hours.tolist())) > 1 else {}
    return found


def _measured(texts: Sequence[str], measure: Callable[[str], float]) -> Floats:
    return np.array([measure(text) for text in texts], dtype=float)


def _share(test: Callable[[str], bool]) -> Callable[[str], float]:
    def share(text: str) -> float:
        looked = text[:4000]
        return sum(map(test, looked)) / max(1, len(looked))

    return share


_MEASURES: dict[str, Callable[[str], float]] = {
    "length": len,
    "punctuation": _share(_PUNCTUATION.__contains__),
    "exclamation marks": lambda text: text.count("!"),
    "question marks": lambda text: text.count("?"),
    "digits": _share(str.isdigit),
    "capitals": _share(str.isupper),
    "starts with a capital": lambda text: float(text.lstrip()[:1].isupper()),
    "line breaks": lambda text: text.count("\n"),
    "characters beyond ASCII": _share(lambda character: not character.isascii()),
    "links": lambda text: float("http" in text),
}


def _ranked(rows: Rows, name: str, values: Floats) -> Iterator[Shortcut]:
    """How well a number ranks each label, whichever way."""
    for index, label in rows.named:
        truth = rows.labels == index
        area = auroc(values, truth) if min(truth.sum(), (~truth).sum()) >= _FEW else None
        if area is not None:
            way = "high" if area.value >= 0.5 else "low"
            yield Shortcut(name, area.folded, label, f"{way} values say {label}")


def by_value(rows: Rows, name: str, values: Sequence[str]) -> Shortcut | None:
    """A category: label shares of each of its values on the first half, measured on the second."""
    return _strongest(_by_value(rows, name, values)) if rows.halved and len(set(values)) > 1 else None


def _by_value(rows: Rows, name: str, values: Sequence[str]) -> Iterator[Shortcut]:
    _, codes = np.unique(np.array(values), return_inverse=True)
    totals = np.bincount(codes[~rows.second], minlength=codes.max() + 1)
    for index, label in rows.named:
        truth = rows.labels == index
        share = (np.bincount(codes[~rows.second & truth], minlength=len(totals)) + truth[~rows.second].mean()) / (totals + 1)
        area = _learned(rows, share[codes], truth)
        if area is not None:
            yield Shortcut(name, area, label, f"{len(set(values))} values")


def _learned(rows: Rows, score: Floats, truth: Bools) -> Area | None:
    """How well what the first half taught ranks the second; chance or worse stays as it is, since its direction was learned too."""
    held = truth[rows.second]
    return auroc(score[rows.second], held) if min(held.sum(), (~held).sum()) >= _FEW else None


def _single_word(rows: Rows) -> Iterator[Shortcut]:
    """The one word whose presence tells most on the first half."""
    try:
        vectorizer = CountVectorizer(binary=True, min_df=max(2, len(rows.texts) // 500), max_features=20_000, token_pattern=r"(?u)\b\w+\b")
        present = vectorizer.fit_transform([text[:4000] for text in rows.texts])
    except ValueError:  # no words at all
        return
    columns, first = vectorizer.get_feature_names_out(), present[~rows.second]
    for index, label in rows.named:
        truth = rows.labels == index
        known = truth[~rows.second]
        if min(known.sum(), (~known).sum()) < _FEW:
            continue
        gap = np.asarray(first[known].mean(0)).ravel() - np.asarray(first[~known].mean(0)).ravel()  # twice the distance of its AUROC from 0.5
        word = int(np.abs(gap).argmax())
        area = _learned(rows, np.sign(gap[word]) * present[:, word].toarray().ravel().astype(float), truth)
        if area is not None:
            yield Shortcut("a single word", area, label, f"{'with' if gap[word] > 0 else 'without'} the word {columns[word]!r}")


def _template(rows: Rows) -> Iterator[Shortcut]:
    """The frame of the text: its first and last words with all but stop words masked, and openings and endings that many texts share word for word."""
    words = [(_WORD.findall(text[:200].casefold())[:_FRAME], _WORD.findall(text[-200:].casefold())[-_FRAME:]) for text in rows.texts]
    shared = Counter(end for first, last in words for end in (("<", *first[:_SHARED]), (">", *last[-_SHARED:])))
    fewest = max(10, len(words) // 100)
    frames = []
    for first, last in words:
        parts = [f"{side}{_mask(word)}" for side, some in (("<", first), (">", last)) for word in some]
        parts += ["=".join(end) for end in (("<", *first[:_SHARED]), (">", *last[-_SHARED:])) if shared[end] >= fewest]
        frames.append(" ".join(parts))
    try:
        matrix = CountVectorizer(binary=True, ngram_range=(1, 3), min_df=3, max_features=30_000, token_pattern=r"\S+", lowercase=False).fit_transform(frames)
    except ValueError:  # no frame that three texts share
        return
    if len(np.unique(rows.labels[~rows.second])) < 2:
        return
    model = regression().fit(matrix[~rows.second], rows.labels[~rows.second])
    scores = model.predict_proba(matrix)
    place = {index: column for column, index in enumerate(model.classes_.tolist())}
    for index, label in rows.named:
        area = _learned(rows, scores[:, place[index]], rows.labels == index) if index in place else None
        if area is not None:
            yield Shortcut("the template", area, label, "first and last words, all but stop words and shared endings masked")


def _mask(word: str) -> str:
    return word if word in ENGLISH_STOP_WORDS or not word[0].isalnum() else "0" if word.isdigit() else "_"
