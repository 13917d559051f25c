"""Train a judge: read, split, fit, calibrate, prove, and write the bundle.

Knows nothing of terminals: it tells a `Progress` what it does and returns a typed result. One file, since all steps of a training read the same request,
splits and contents and add to the same notes; what can stand apart does (`training_data`, `calibrating`, `probing`, `whole_fit`, `kept_adapter`, `bundling`).
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.manifest import OWN_BACKBONE, WHOLE, BackboneId
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress, Silent
from snapjudge.core.rules import ThresholdRule
from snapjudge.curate.suite import filled_suite
from snapjudge.errors import DataInvalid, Interrupted, OptionInvalid, Problem
from snapjudge.flows.bundling import NewJudge, now, proved_languages, seen_digests
from snapjudge.flows.calibrating import CalibrationTerms
from snapjudge.flows.claims import claimed
from snapjudge.flows.distilling import taught
from snapjudge.flows.kept_adapter import check_untrained, kept_adapter
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.probing import probe_judge
from snapjudge.flows.record import made_with
from snapjudge.flows.scoring import LogP, baseline_data, contents_of, raw_scores
from snapjudge.flows.train_terms import TrainConfig, TrainRequest, TrainResult
from snapjudge.flows.training_data import data_digests, read_splits, read_unlabelled
from snapjudge.flows.variants import with_noise, without_optional
from snapjudge.flows.whole_fit import fit_backbone
from snapjudge.model.adapter import Adapter, Scope
from snapjudge.model.hub import EMBEDDED, load_backbone
from snapjudge.model.prompt import render_readout
from snapjudge.model.reading import Question, traces
from snapjudge.prove import baselines
from snapjudge.prove.baselines import BaselineData
from snapjudge.prove.comparison import is_right
from snapjudge.prove.figures import Paired, compare, main_figure
from snapjudge.prove.figures import figures as figures_of
from snapjudge.prove.plain import COUNTED, more_labels
from snapjudge.prove.probes import Probe
from snapjudge.prove.promises import Promise
from snapjudge.prove.proof import Contestant, GateResult, Header, Proof, check_gates, prove, scored
from snapjudge.prove.reference import fit_reference
from snapjudge.store.bundles import REFERENCE, next_version
from snapjudge.train.fit import fit
from snapjudge.train.save import folder_files
from snapjudge.train.terms import FitData, FitResult, Validation

MOST_WINDOWS = 64


def train_judge(request: TrainRequest, config: TrainConfig, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False) -> TrainResult:
    """Train, calibrate and prove a judge and write its bundle under `request.out`/NAME/VERSION.

    Raises:
        any SnapjudgeError; Interrupted leaves a state that the same call with `resume` goes on from.
    """
    return _Training(request, config, progress or Silent(), stop).run()


class _Training:
    def __init__(self, request: TrainRequest, config: TrainConfig, progress: Progress, stop: Callable[[], bool]) -> None:
        self.request, self.config, self.progress, self.stop = request, config, progress, stop
        check_untrained(config, request)
        self.metric = read_metric(request.metric_path)
        if config.drop_optional and not self.metric.optional:
            raise OptionInvalid(f"{self.metric.name} has no optional inputs to drop", hint="leave --drop-optional out", received=str(config.drop_optional))
        self.rule = _rule(config.threshold or self.metric.threshold, self.metric)
        self.escalation = _escalation(config.escalation or self.metric.escalation)
        self.prevalence = _shares(config.prevalence, self.metric)
        moved = [str(rule) for rule in (self.rule, self.escalation) if rule is not None and rule.figure in ("precision", "cost", "agreement")]
        if self.prevalence and moved:
            raise OptionInvalid(
                f"{moved[0]} holds at the calibration data's share of positives, not at a stated prevalence",
                hint="ask for fpr or recall instead, or leave --prevalence out",
            )
        check_gates(request.gates, self.metric)
        if request.suite is not None:
            filled_suite(request.suite, self.metric)
        self.notes: list[str] = []
        if self.prevalence:
            self._note(
                f"probabilities are stated for a share of {config.prevalence:g} of the flagged label: log loss, Brier score, ECE and reliability weigh "
                "the test to that share, precision and F1 are at the test's own"
            )
        self.own_backbone: Path | None = None
        self.seen_before: list[str] = []  # texts that a kept adapter was trained on
        self.trained: dict[str, Any] = {}  # how a kept adapter was
        self.said: list[tuple[float, ...] | None] = []
        self.embedded: dict[str, BaselineData] = {}
        self.encoded: NDArray[np.float64] | None = None  # frozen embeddings of the training split, a by-product of the readout's fit
        self.began = time.monotonic()

    def run(self) -> TrainResult:
        self.splits = read_splits(self.request, self.config, self.metric, self._note)
        self.terms = CalibrationTerms(self.metric, self.splits.calibration, self.rule, self.escalation, self.prevalence, self.config.calibrate_by)
        self.backbone = load_backbone(self.config.backbone)
        self.judged_by = self.backbone
        self.readout = render_readout(self.metric, self.backbone)
        self.unlabelled = read_unlabelled(self.request, self.config, self.metric, self.splits, self._note)
        self.contents = {name: contents_of(getattr(self.splits, name), self.metric, self.backbone) for name in ("train", "validation", "calibration", "test")}
        self.contents["unlabelled"] = contents_of(self.unlabelled, self.metric, self.backbone)
        self.variants = self._variants()
        self.contents["variants"] = contents_of(self.variants, self.metric, self.backbone)
        self._check_windows()
        work = self.request.out / self.metric.name / ".training"
        with claimed(
            work, self._identity(), f"training of {self.metric.name}", resume=self.request.resume, restart=self.request.restart, say=self.progress.say
        ):
            return self._judge(work)

    def _judge(self, work: Path) -> TrainResult:
        """Fit, calibrate, prove and write."""
        fits, chosen = self._fit(work)
        log_p = {"calibration": self._scores(fits[chosen], "calibration")}
        began = time.monotonic()
        log_p["test"] = self._scores(fits[chosen], "test")
        self.seconds = (time.monotonic() - began) / len(self.splits.test)  # of one text, in batches
        calibration, promises = self.terms.calibrate_and_promise(log_p["calibration"])
        if self.terms.all_but_even(log_p["calibration"], calibration):
            rows = len(self.splits.calibration)
            self._note(f"calibrated on {rows} rows, the answers are all but even for every text: too few of them bear the adapter out; label more")
        version = next_version(self.request.out / self.metric.name)
        question = Question(self.metric, self.readout, fits[chosen].adapter)
        probes = probe_judge(self.judged_by, question, calibration, self.splits.test, self.config.probes, self.progress) if self.config.probes else ()
        proof = self._prove(log_p["test"], calibration, promises, probes, chosen, f"{self.metric.name}@{version}")
        if self.request.suite is not None:
            gate = self._suite(self.request.suite, question, calibration)
            proof = proof.model_copy(update={"gates": (*proof.gates, gate), "notes": tuple(self.notes)})
        folder = self._write(version, fits, chosen, calibration, proof)
        return TrainResult(folder, proof.judge, proof, time.monotonic() - self.began)

    def _variants(self) -> list[Example]:
        """The training examples once more without optional inputs or with noise, as many as were asked for."""
        return [
            *without_optional(self.splits.train, self.metric, self.config.drop_optional, self.config.fit.seed),
            *with_noise(self.splits.train, self.metric, self.backbone, self.config.noise, self.config.fit.seed),
        ]

    def _check_windows(self) -> None:
        """One example's windows are trained on in one piece, so there is a limit; scoring has none of this kind."""
        long = [
            (example, len(content.windows))
            for example, content in zip(self.splits.train, self.contents["train"], strict=True)
            if len(content.windows) > MOST_WINDOWS
        ]
        if long:
            problems = [Problem(example.where, f"a text of {count} windows", f"at most {MOST_WINDOWS} windows in training") for example, count in long[:10]]
            raise DataInvalid(
                "data", problems, more=max(0, len(long) - 10), hint="split these texts into examples of their own, or use a backbone with a longer window"
            )

    def _identity(self) -> dict[str, Any]:
        """What the resumable state belongs to: one metric, one data and one configuration."""
        return {
            "metric": self.metric.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
            "data": {part: data_digests(files) for part, files in self._files().items()},
            "mapping": dict(self.request.mapping or {}),
            "backbone": self.backbone.digest,
        }

    def _files(self) -> dict[str, Sequence[Path]]:
        given = self.request
        return {
            "data": given.data,
            "test": given.test,
            "validation": given.validation,
            "calibration": given.calibration,
            "unlabelled": given.unlabelled,
        }

    def _data_digests(self) -> dict[str, str]:
        return data_digests([file for files in self._files().values() for file in files])

    def _fit(self, work: Path) -> tuple[dict[Scope, FitResult], Scope]:
        """Fit the scope asked for; for `auto` the readout, then every token if the readout does not beat the frozen embedding. Or keep a judge's adapter."""
        if self.config.adapter:
            return self._kept()
        if self.config.scope == "backbone":
            return {"readout": self._fit_backbone(work)}, "readout"
        if self.config.scope != "auto":
            return {self.config.scope: self._fit_scope(self.config.scope, work)}, self.config.scope
        fits: dict[Scope, FitResult] = {"readout": self._fit_scope("readout", work)}
        gap = self._compare(fits["readout"].log_p, self._embedding_on_validation())
        name = main_figure(self.metric)
        figure = fits["readout"].best.figure
        told = (
            f"on validation the readout adapter's {name} is {figure:.3f}, {gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] against the frozen embedding"
        )
        if gap.low > 0:
            self._note(f"scope auto kept readout: {told}")
            return fits, "readout"
        self._note(f"scope auto also tried all: {told}")
        fits["all"] = self._fit_scope("all", work)
        gain = self._compare(fits["all"].log_p, fits["readout"].log_p)
        better = gain.difference > gain.error
        told = f"all gains {gain.difference:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] in {name} over readout"
        why = "more than one standard error" if better else "not more than one standard error, and a readout adapter shares the reading of the content"
        self._note(f"scope auto kept {'all' if better else 'readout'}: {told}, {why}")
        return fits, "all" if better else "readout"

    def _kept(self) -> tuple[dict[Scope, FitResult], Scope]:
        """The adapter of a judge as it is, with its figure on the validation split."""
        kept = kept_adapter(self.config.adapter, self.metric, self.readout, self.backbone, self.splits.test, allow_leak=self.config.allow_leak)
        for note in kept.notes:
            self._note(note)
        self.seen_before, self.trained = kept.seen, kept.trained
        question = Question(self.metric, self.readout, kept.adapter)
        log_p = raw_scores(self.backbone, question, self.contents["validation"], self.progress, "score validation")
        rate, history, seconds = (kept.record[name] for name in ("rate", "history", "seconds"))
        found = FitResult(kept.adapter, self._validation(log_p), log_p, rate, history, kept.notes, 0.0, seconds)
        return {kept.adapter.scope: found}, kept.adapter.scope

    def _fit_backbone(self, work: Path) -> FitResult:
        """Fit all weights of a copy of the backbone; everything after is scored with the copy, the baselines keep the original."""
        found = fit_backbone(
            self.config.backbone,
            self.metric,
            self.readout,
            self._fit_data(),
            self.config.fit,
            validate=self._validation,
            folder=work,
            progress=self.progress,
            stop=self.stop,
        )
        self.own_backbone, self.judged_by = found.folder, found.backbone
        return found.result

    def _fit_data(self) -> FitData:
        examples = [*self.splits.train, *self.unlabelled, *self.variants]
        contents = [*self.contents["train"], *self.contents["unlabelled"], *self.contents["variants"]]
        return FitData(contents, [example.target for example in examples], self.contents["validation"], self._taught(examples))

    def _fit_scope(self, scope: Scope, work: Path) -> FitResult:
        result = fit(
            self.backbone,
            [Question(self.metric, self.readout)],
            self._fit_data(),
            scope,
            self.config.fit,
            validate=self._validation,
            folder=work,
            progress=self.progress,
            stop=self.stop,
        )
        self.notes += [f"fit {scope}: {note}" for note in result.notes]
        if result.embeddings_ED is not None:
            self.encoded = result.embeddings_ED[: len(self.splits.train)]
        return result

    def _taught(self, examples: Sequence[Example]) -> list[tuple[float, ...] | None]:
        """What the teacher says of the training examples, asked once."""
        if self.config.teacher and not self.said:
            found = taught(self.config.teacher, examples, self.metric, self.progress)
            self.said = found.said
            silent = found.said.count(None)
            self._note(f"taught by {found.name}" + (f", which said nothing of {silent} examples" if silent else ""))
        return self.said

    def _validation(self, log_p: Sequence[tuple[float, ...]]) -> Validation:
        """The main figure of one epoch on the validation split, with its standard error from few draws."""
        arrays, _ = scored(log_p, Calibration(), self.metric, self.splits.validation)
        found = figures_of(arrays, self.metric, draws=100)
        name = main_figure(self.metric)
        chance = 0.0 if name == "pearson" else 0.5
        if name not in found:  # such as no spread at all in the scores
            return Validation(chance, name, found["log_loss"].value, chance, 0.05)
        figure = found[name]
        return Validation(figure.value, name, found["log_loss"].value, chance, max(1e-3, (figure.high - figure.low) / 4))

    def _compare(self, first: Sequence[tuple[float, ...]], second: Sequence[tuple[float, ...]]) -> Paired:
        arrays = [scored(log_p, Calibration(), self.metric, self.splits.validation)[0] for log_p in (first, second)]
        return compare(arrays[0], arrays[1], self.metric)

    def _embedding_on_validation(self) -> LogP:
        train, validation = self._embedded("train"), self._embedded("validation")
        (log_p,) = baselines.embedding(train, validation, [validation], len(self.metric.labels))
        return [tuple(row) for row in log_p.tolist()]

    def _embedded(self, name: str) -> BaselineData:
        """A split as the baselines see it, embedded once."""
        if name not in self.embedded:
            known = self.encoded if name == "train" else None
            self.embedded[name] = baseline_data(self.backbone, getattr(self.splits, name), self.metric, self.progress, f"embed {name}", known)
        return self.embedded[name]

    def _parts(self, *names: str) -> list[tuple[str, Sequence[Example]]]:
        return [(name, getattr(self.splits, name)) for name in names]

    def _scores(self, result: FitResult, part: str) -> LogP:
        self._check_stop()
        question = Question(self.metric, self.readout, result.adapter)
        return raw_scores(self.judged_by, question, self.contents[part], self.progress, f"score {part}")

    def _prove(self, log_p: LogP, calibration: Calibration, promises: Sequence[Promise], probes: Sequence[Probe], scope: Scope, name: str) -> Proof:
        """The judge beside its baselines, all calibrated and given their threshold on the same split."""
        self._check_stop()
        self._say_threshold(calibration)
        data = {part: self._embedded(part) for part in ("train", "validation", "calibration", "test")}
        self.progress.start("baselines", 3)
        others, labels = [data["calibration"], data["test"]], len(self.metric.labels)
        found = {"majority": baselines.majority(data["train"], others, labels)}
        self.progress.advance()
        found["TF-IDF + LR"] = baselines.tfidf(data["train"], data["validation"], others, labels)
        self.progress.advance()
        found["embedding + LR"] = baselines.embedding(data["train"], data["validation"], others, labels)
        self.progress.advance()
        contestants = [Contestant("judge", log_p, calibration)]
        for baseline, (for_calibration, for_test) in found.items():
            rows = [tuple(row) for row in for_calibration.tolist()]
            fitted = self.terms.calibrate(rows)
            contestants.append(Contestant(baseline, [tuple(row) for row in for_test.tolist()], fitted))
        parts = {part: len(some) for part, some in self._parts(*vars(self.splits))}
        made = made_with(self._data_digests(), self.config.fit.seed, backbone=f"{self.backbone.name} {self.backbone.digest[:16]}")
        header = Header(
            name,
            self.backbone.name,
            WHOLE if self.own_backbone is not None else scope,
            parts,
            self.notes,
            created=now(),
            promises=promises,
            probes=probes,
            made_with=made,
            seconds=self.seconds,
            texts=self.config.texts,
        )
        self.progress.start("prove", 1)
        proof = prove(self.metric, self.splits.test, contestants, header, self.request.gates)
        self.progress.advance()
        return proof

    def _suite(self, path: Path, question: Question, calibration: Calibration) -> GateResult:
        """Whether the new judge keeps every row of the regression suite that an earlier one held."""
        suite = filled_suite(path, self.metric)
        log_p = raw_scores(self.judged_by, question, contents_of(suite.examples, self.metric, self.backbone), self.progress, "suite")
        _, judgements = scored(log_p, calibration, self.metric, suite.examples)
        pairs = zip(suite.examples, judgements, strict=True)
        lost = [example.id for example, judgement in pairs if example.id in suite.held and not is_right(judgement, example, self.metric)]
        if lost:
            self._note(f"{len(lost)} rows of {path.name} are lost, such as {lost[0]}")
        return GateResult(gate=f"rows lost of {path.name} = 0", found=len(lost), passed=not lost)

    def _say_threshold(self, calibration: Calibration) -> None:
        escalation, threshold = calibration.escalation, calibration.threshold
        if escalation is not None and not escalation.guaranteed:
            self._note(f"the calibration split cannot support {escalation.rule}: everything is escalated; {more_labels(escalation.needed, 'examples')}")
        if threshold.rule is None or threshold.guaranteed:
            return
        more = more_labels(threshold.needed, COUNTED[threshold.rule.figure])
        self._note(f"the calibration split cannot support {threshold.rule}: {more}; flagged from {threshold.value:g}")

    def _write(self, version: int, fits: Mapping[Scope, FitResult], scope: Scope, calibration: Calibration, proof: Proof) -> Path:
        own, metric = self.own_backbone, self.metric
        run = {
            "config": self.config.model_dump(mode="json"),
            "seed": self.config.fit.seed,
            "data": self._data_digests(),
            "splits": proof.data,
            "train_labels": dict(Counter(metric.label_names[example.label_index] for example in self.splits.train)),
            "languages": proved_languages(self.splits.test),
            "fits": {
                name: {"rate": one.rate, "best": vars(one.best), "history": one.history, "notes": one.notes, "seconds": round(one.seconds, 1)}
                for name, one in fits.items()
            },
            "seconds": round(time.monotonic() - self.began, 1),
            "notes": self.notes,
            **({"trained": self.trained} if self.trained else {}),
        }
        judge = NewJudge(
            metric=metric,
            version=version,
            backbone=BackboneId(name=_placed(self.backbone.name) if own is None else OWN_BACKBONE, digest=self.judged_by.digest),
            scope=proof.scope,
            adapter=fits[scope].adapter,
            calibration=calibration,
            proof=proof,
            run=run,
            seen=[*seen_digests(self.splits.train, self.splits.validation, self.splits.calibration, self.unlabelled), *self.seen_before],
            sources=self._sources(),
            more={**folder_files(own), **self._reference(fits[scope].adapter)},
        )
        return judge.write(self.request.out)

    def _reference(self, adapter: Adapter) -> dict[str, bytes]:
        """What the judge was calibrated on, as a place among texts (`prove.reference`), where there is enough of it."""
        found = [one.numpy() for one in traces(self.judged_by, self.contents["calibration"], adapter if adapter.scope == "all" else None)]
        reference = fit_reference(np.stack(found)) if found else None
        return {} if reference is None else {REFERENCE: reference.dump()}

    def _sources(self) -> dict[str, str]:
        """Sources of the training data and their licences."""
        return {example.provenance.source: example.provenance.licence or "not stated" for example in self.splits.train}

    def _check_stop(self) -> None:
        """Between stages; within a fit every step asks."""
        if self.stop():
            raise Interrupted("stopped; what was fitted is kept", hint="run the same command with --resume")

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.say(text)


def _placed(backbone: str) -> str:
    """The name of a backbone by which it is found from any folder: where it is one on this machine, its whole path."""
    return str(Path(backbone).resolve()) if backbone != EMBEDDED and Path(backbone).is_dir() else backbone


def _rule(text: str | None, metric: Metric) -> ThresholdRule | None:
    if text is None:
        return None
    if not metric.positive_labels:
        raise OptionInvalid(
            f"threshold {text!r}, but metric {metric.name} has no positive label to flag", hint="name the flagged label as `positive` in the metric"
        )
    return ThresholdRule.parse(text)


def _escalation(text: str | None) -> ThresholdRule | None:
    return None if text is None else ThresholdRule.parse_escalation(text)


def _shares(prevalence: float | None, metric: Metric) -> tuple[float, ...]:
    """A stated prevalence of the flagged label as shares of the two labels."""
    if prevalence is None:
        return ()
    if metric.type != "boolean":
        raise OptionInvalid("a prevalence can be stated for boolean metrics only", hint="leave --prevalence out")
    return tuple(prevalence if name in metric.positive_labels else 1 - prevalence for name in metric.labels)
