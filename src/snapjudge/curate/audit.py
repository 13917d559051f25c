"""The audit of labelled data: what would make a judge trained or tested on it wrong, or its proof worthless.

A finding has a level: `error` fails a build, `warning` wants a look, `info` is good to know. Knows nothing of files or pages.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.example import Example, plain_text, shortened
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress
from snapjudge.curate.findings import Audit, Cluster, Finding, Row, Severity, ShortcutFigure
from snapjudge.curate.frozen import PER_CLASS
from snapjudge.curate.languages import language_of, tells
from snapjudge.curate.near import common_shingles, index_of, near_groups, near_text
from snapjudge.curate.personal import personal_spans
from snapjudge.curate.ranking import auroc
from snapjudge.curate.shortcuts import Rows, Shortcut, by_value, shortcuts
from snapjudge.curate.split import hashed
from snapjudge.curate.times import moment
from snapjudge.curate.words import FOLDS, clusters, out_of_fold, telling_words, word_matrix

FEWEST_TEST, MOST_TEST, FEWEST_TRAIN, MOST_TRAIN = 300, 500, 1_000, 10_000  # with PER_CLASS, the rules of the systems this one descends from
SHORTCUT_WARNING, SHORTCUT_ERROR = 0.65, 0.80  # lower end of the AUROC's interval
_CONFLICTS_ERROR = 0.01
_WORDS_TELL = 0.70  # lower end of their AUROC from which they may doubt a label
_SAMPLE = 20_000
_SHOWN = 200


@dataclass(frozen=True)
class AuditData:
    """Labelled examples and the part of each: `train`, `test`, or a split's name. Without a test only what needs none is looked at."""

    examples: Sequence[Example]
    parts: Sequence[str]
    metric: Metric


def audit(data: AuditData, progress: Progress) -> Audit:
    """Look at everything. Deterministic; 100,000 short texts take about a minute on two cores."""
    return _Auditor(data, progress).run()


class _Auditor:
    def __init__(self, data: AuditData, progress: Progress) -> None:
        self.data, self.progress, self.metric = data, progress, data.metric
        self.examples, self.parts = data.examples, np.array(data.parts)
        self.texts = [plain_text(example.inputs) for example in data.examples]
        self.labels = np.array([example.label_index for example in data.examples], dtype=np.int64)
        self.test = self.parts == "test"
        digits = [int(hashed(example.group, "audit")[:8], 16) for example in data.examples]
        self.second, self.folds = np.array([d % 2 == 1 for d in digits]), np.array([d // 2 % FOLDS for d in digits])
        self.found: list[Finding] = []

    def run(self) -> Audit:
        stages = ("balance", "duplicates", "near-duplicates", "leakage", "languages", "personal data", "words", "label noise", "shortcuts", "clusters")
        self.progress.start("audit", len(stages))
        self._balance()
        self._step("balance")
        self._duplicates()
        self._step("duplicates")
        self._near()
        self._step("near-duplicates")
        self._leakage()
        self._step("leakage")
        chosen, languages = self._languages()
        self._step("languages")
        personal = self._personal()
        self._step("personal data")
        words = word_matrix(self.texts)
        self._step("words")
        noise, words_figure = self._noise(words)
        self._step("label noise")
        figures = self._shortcuts(chosen, languages)
        self._step("shortcuts")
        groups = self._clusters(words)
        self._step("clusters")
        order = {"error": 0, "warning": 1, "info": 2}
        return Audit(
            metric=self.metric.name,
            examples=len(self.examples),
            parts={part: self._counts(self.parts == part) for part in dict.fromkeys(self.data.parts)},
            findings=tuple(sorted(self.found, key=lambda finding: order[finding.severity])),
            shortcuts=figures,
            words_auroc=words_figure,
            noise=noise,
            languages={name: count / len(languages) for name, count in Counter(languages).most_common()} if languages else {},
            personal=personal,
            clusters=groups,
        )

    def _step(self, note: str) -> None:
        self.progress.advance(1, note)

    def _tell(self, code: str, severity: Severity, message: str, advice: str = "", rows: Iterable[tuple[int, str]] = (), count: int | None = None) -> None:
        named = list(rows)
        shown = tuple(self._row(place, note) for place, note in named[:_SHOWN])
        self.found.append(Finding(code=code, severity=severity, message=message, advice=advice, count=len(named) if count is None else count, rows=shown))

    def _row(self, place: int, note: str) -> Row:
        example, text = self.examples[place], shortened(self.texts[place], 300)
        return Row(id=example.id, where=example.where, label=self.metric.label_names[self.labels[place]], text=text, note=note)

    def _counts(self, chosen: NDArray[np.bool_]) -> dict[str, int]:
        counts = np.bincount(self.labels[chosen], minlength=len(self.metric.labels))
        return {name: int(count) for name, count in zip(self.metric.label_names, counts, strict=True)}

    def _balance(self) -> None:
        """The rules of the seeds: a test of 300-500 with 100 of each class, 1,000-10,000 training examples near one another in number."""
        everything = self._counts(np.ones(len(self.examples), dtype=bool))
        missing = [name for name, count in everything.items() if not count]
        if len(everything) - len(missing) < 2:
            self._tell(
                "one_class",
                "error",
                f"every example is {next(n for n in everything if n not in missing)}",
                "mix with data of the other label, not from one file each",
            )
            return
        if missing:
            self._tell("missing_class", "warning", f"no example of {', '.join(missing)}", "label some, or take the label out of the metric")
        train = self._counts(~self.test & (self.parts != "held"))
        total, test = sum(train.values()), self._counts(self.test)
        if total and total < FEWEST_TRAIN:
            self._tell("few_train", "warning", f"{total} training examples", f"{FEWEST_TRAIN:,} to {MOST_TRAIN:,} is what similar judges were trained on")
        present = [count for count in train.values() if count]
        if total and len(present) > 1 and min(present) < total / len(present) / 2:
            told = ", ".join(f"{name} {count}" for name, count in train.items())
            self._tell("imbalance", "warning", f"training classes are uneven: {told}", "training draws them evenly; more of the rarer one still teaches more")
        if self.test.any():
            rare = {name: count for name, count in test.items() if count < PER_CLASS}
            if sum(test.values()) < FEWEST_TEST:
                self._tell("few_test", "warning", f"{sum(test.values())} test examples", f"{FEWEST_TEST} to {MOST_TEST} give intervals one can decide by")
            if rare:
                told = ", ".join(f"{name} {count}" for name, count in rare.items())
                self._tell("few_per_class", "warning", f"the test has fewer than {PER_CLASS} of {told}", "label more of them before you trust their figures")

    def _duplicates(self) -> None:
        """The same text twice, with another label, or in training and test."""
        by_text: dict[str, list[int]] = defaultdict(list)
        for place, example in enumerate(self.examples):
            by_text[example.content_key].append(place)
        twins = [places for places in by_text.values() if len(places) > 1]
        conflicts = [places for places in twins if len(set(self.labels[places].tolist())) > 1]
        repeated = [places[0] for places in twins]
        inside = [[place for place in places if self.parts[place] != "held"] for places in twins]
        across = [places for places in inside if len(set(self.test[places].tolist())) > 1]
        if conflicts:
            count = sum(map(len, conflicts))
            severity: Severity = "error" if count > _CONFLICTS_ERROR * len(self.examples) else "warning"
            named = [(place, f"text {number}") for number, places in enumerate(conflicts, 1) for place in places]
            self._tell("label_conflicts", severity, f"{len(conflicts)} texts carry different labels", "adjudicate them", named, count)
        if repeated:
            count = sum(len(places) - 1 for places in twins)
            self._tell(
                "exact_duplicates",
                "info",
                f"{count} examples repeat the text of another",
                "training keeps one of each",
                [(p, f"{len(by_text[self.examples[p].content_key])} times") for p in repeated],
                count,
            )
        if across:
            named = [(place, f"text {number}, in {self.parts[place]}") for number, places in enumerate(across, 1) for place in places]
            self._tell("duplicates_across", "error", f"{len(across)} texts are in the test and outside it", "take them out of training", named, len(across))

    def _near(self) -> None:
        """Texts that nearly repeat another, and those outside the test that nearly repeat one of it."""
        first: dict[str, int] = {}
        for place, example in enumerate(self.examples):
            first.setdefault(example.content_key, place)
        texts = [(str(place), near_text(self.examples[place].inputs)) for place in first.values()]
        pairs = [(int(name), int(other), similar) for name, other, similar in near_groups(texts)]
        across = self._near_test([text for _, text in texts])
        apart = [(a, b, s) for a, b, s in pairs if self.labels[a] != self.labels[b]]
        if pairs:
            self._tell(
                "near_duplicates", "info", f"{len(pairs)} texts are nearly another's", "", [(a, f"{s:.2f} like {self.examples[b].id}") for a, b, s in pairs]
            )
        if across:
            named = [(a, f"{s:.2f} like {self.examples[b].id} of the test") for a, b, s in across]
            self._tell("near_duplicates_across", "error", f"{len(across)} texts nearly repeat one of the test", "take them out of training", named)
        if apart:
            named = [(a, f"{s:.2f} like {self.examples[b].id}, which is {self.metric.label_names[self.labels[b]]}") for a, b, s in apart]
            self._tell(
                "near_conflicts",
                "info",
                f"{len(apart)} texts nearly repeat one with another label",
                "either the best hard negatives there are, or wrong labels",
                named,
            )

    def _near_test(self, texts: Sequence[str]) -> list[tuple[int, int, float]]:
        """Examples outside the test, each with the test example it nearly repeats; the same text is told elsewhere."""
        if not self.test.any():
            return []
        tested = {example.id: place for place, example in enumerate(self.examples) if self.test[place]}
        keys = {self.examples[place].content_key for place in tested.values()}
        index = index_of((self.examples[place] for place in tested.values()), common_shingles(texts))
        found = []
        for place, example in enumerate(self.examples):
            if self.test[place] or self.parts[place] == "held" or example.content_key in keys:
                continue
            near = index.near(near_text(example.inputs))
            if near is not None:
                found.append((place, tested[near[0]], near[1]))
        return found

    def _leakage(self) -> None:
        """Groups on both sides of the test, and training rows that are newer than test rows."""
        if not self.test.any() or self.test.all():
            return
        held = {example.provenance.group for example, test in zip(self.examples, self.test, strict=True) if test and example.provenance.group}
        torn = [
            (p, f"group {e.provenance.group}")
            for p, e in enumerate(self.examples)
            if not self.test[p] and self.parts[p] != "held" and e.provenance.group in held
        ]
        if torn:
            self._tell("group_leak", "error", f"{len(torn)} training examples share a group with the test", "split by group", torn)
        when = [moment(example.provenance.date) for example in self.examples]
        tested = [time for time, test in zip(when, self.test, strict=True) if test and time]
        trained = [(p, time) for p, time in enumerate(when) if time and not self.test[p]]
        newer = [p for p, time in trained if tested and time > min(tested)]
        if newer and len(newer) < len(trained):
            told = f"{len(newer)} training examples are newer than the oldest test example"
            self._tell(
                "time_leak",
                "info",
                told,
                "where traffic changes with time, a split by time tells more: `snapjudge data split --by-time`",
                [(p, "") for p in newer],
            )

    def _languages(self) -> tuple[NDArray[np.int64], list[str]]:
        """The language of texts of at least 20 letters, of a fixed sample where there are many."""
        long = np.array([place for place, text in enumerate(self.texts) if tells(text[:200])], dtype=np.int64)
        chosen = np.sort(np.random.default_rng(0).choice(long, min(_SAMPLE, len(long)), replace=False)) if len(long) else long
        languages = [language_of(self.texts[place][:1000]) for place in chosen]
        counts = Counter(languages)
        rare = [name for name, count in counts.items() if name != counts.most_common(1)[0][0] and count >= max(5, 0.01 * len(languages))]
        if rare:
            told = ", ".join(f"{name} {counts[name] / len(languages):.1%}" for name in [counts.most_common(1)[0][0], *rare])
            self._tell("languages", "info", f"several languages: {told}", "prove the judge on each that matters; short texts are often misread")
        return chosen, languages

    def _personal(self) -> dict[str, int]:
        kinds: Counter[str] = Counter()
        named = []
        for place, text in enumerate(self.texts):
            found = sorted({kind for _, _, kind in personal_spans(text)})
            kinds.update(found)
            if found:
                named.append((place, ", ".join(found)))
        if named:
            told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
            self._tell(
                "personal_data",
                "warning",
                f"{len(named)} texts hold what looks like personal data: {told}",
                "`snapjudge data import --redact` replaces it before storage",
                named,
            )
        return dict(kinds)

    def _noise(self, words: tuple[object, list[str]] | None) -> tuple[float | None, ShortcutFigure | None]:
        """Confident learning (Northcutt et al., 2021) on out-of-fold probabilities of a bag of words."""
        from cleanlab.filter import find_label_issues  # noqa: PLC0415 - imports pandas

        counts = np.bincount(self.labels, minlength=len(self.metric.labels))
        usable = counts >= 2 * FOLDS
        if words is None or usable.sum() < 2:
            return None, None
        keep = usable[self.labels]
        index = np.cumsum(usable) - 1
        labels = index[self.labels[keep]]
        p = out_of_fold(words[0][keep], labels, self.folds[keep], int(usable.sum()))  # type: ignore[index]  # a sparse matrix
        figure = self._words_figure(p, labels, np.flatnonzero(usable))
        spoken_for = set(range(int(usable.sum()))) <= set(p.argmax(1).tolist())
        if figure is None or figure.low < _WORDS_TELL or not spoken_for:
            return None, figure  # words that hardly tell the labels apart cannot call one wrong
        ranked = find_label_issues(labels, p, return_indices_ranked_by="self_confidence", n_jobs=1)
        places = np.flatnonzero(keep)[ranked]
        share = len(ranked) / len(labels)
        if len(ranked):
            said = np.flatnonzero(usable)[p[ranked].argmax(1)]
            named = [
                (int(place), f"words say {self.metric.label_names[label]}, {p[r].max():.2f}") for place, label, r in zip(places, said, ranked, strict=True)
            ]
            severity: Severity = "warning" if share > 0.05 else "info"
            self._tell(
                "label_noise",
                severity,
                f"{len(ranked)} labels ({share:.1%}) look wrong to a bag of words",
                "look at the first; words alone cannot judge everything",
                named,
            )
        return share, figure

    def _words_figure(self, p: NDArray[np.float64], labels: NDArray[np.int64], names: NDArray[np.int64]) -> ShortcutFigure | None:
        some = names[:1] if len(names) == 2 else names
        told = [
            ShortcutFigure(name="a bag of words", label=self.metric.label_names[name], detail="out of fold", auroc=area.value, low=area.low, high=area.high)
            for column, name in enumerate(some)
            if (area := auroc(p[:, column], labels == column)) is not None
        ]
        return max(told, key=lambda one: one.auroc, default=None)

    def _shortcuts(self, chosen: NDArray[np.int64], languages: list[str]) -> tuple[ShortcutFigure, ...]:
        found = shortcuts(Rows(self.examples, self.texts, self.labels, self.second, self.metric))
        if len(set(languages)) > 1:
            some = [self.examples[place] for place in chosen]
            rows = Rows(some, [], self.labels[chosen], self.second[chosen], self.metric)
            one = by_value(rows, "language", languages)
            found += [one] if one else []
        found.sort(key=lambda one: -one.area.value)
        for one in found:
            self._judge(one)
        return tuple(ShortcutFigure(name=s.name, label=s.label, detail=s.detail, auroc=s.area.value, low=s.area.low, high=s.area.high) for s in found)

    def _judge(self, one: Shortcut) -> None:
        if one.area.low < SHORTCUT_WARNING:
            return
        severity: Severity = "error" if one.area.low >= SHORTCUT_ERROR else "warning"
        told = f"{one.name} alone gives {one.area.value:.2f} [{one.area.low:.2f}, {one.area.high:.2f}] AUROC for {one.label} ({one.detail})"
        self._tell(
            f"shortcut_{one.name.replace(' ', '_').replace(',', '')}", severity, told, "a judge may learn this instead: balance it, or add paired look-alikes"
        )

    def _clusters(self, words: tuple[object, list[str]] | None) -> tuple[Cluster, ...]:
        """Kinds of text, and which of them the test or a label misses."""
        if words is None or len(self.examples) < 100:
            return ()
        matrix, columns = words
        belongs, _ = clusters(matrix)
        found, holes, lone = [], [], []
        mixed = sum(count > 0.1 * len(self.examples) for count in self._counts(np.ones(len(self.examples), dtype=bool)).values()) > 1
        for number in range(int(belongs.max()) + 1):
            own = belongs == number
            if not own.any():
                continue
            cluster = Cluster(
                words=tuple(telling_words(matrix, columns, own)), examples=int(own.sum()), labels=self._counts(own), test=int((own & self.test).sum())
            )
            found.append(cluster)
            if cluster.examples >= max(20, 0.01 * len(self.examples)):
                if self.test.any() and not cluster.test:
                    holes.append(cluster)
                if mixed and max(cluster.labels.values()) >= 0.98 * cluster.examples:
                    lone.append(cluster)
        for code, some, told in (
            ("test_holes", holes, "kinds of text are missing from the test"),
            ("one_label_kinds", lone, "kinds of text carry (nearly) one label only"),
        ):
            if some:
                named = "; ".join(f"{', '.join(one.words[:4])} ({one.examples})" for one in some[:5])
                self._tell(
                    code,
                    "warning" if code == "test_holes" else "info",
                    f"{len(some)} {told}: {named}",
                    "label examples of the other kind there",
                    count=len(some),
                )
        return tuple(sorted(found, key=lambda one: -one.examples))
