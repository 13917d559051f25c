"""Merge judges: search a configuration, then calibrate and prove the result for every policy it serves.

Each policy is one of the judges' metrics with data of its own; what is merged (the adapters, or of judges with backbones of their own those) becomes the next
version of each. Knows nothing of terminals.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.manifest import WHOLE, BackboneId
from snapjudge.core.progress import Progress, Silent
from snapjudge.core.rules import ThresholdRule
from snapjudge.curate.split import check_enough, deduplicated, hashed, split
from snapjudge.errors import BackboneMismatch, OptionInvalid
from snapjudge.flows.bundling import NewJudge, now, proved_languages, seen_digests
from snapjudge.flows.calibrating import CalibrationTerms
from snapjudge.flows.claims import claimed, refuse_taken
from snapjudge.flows.prove_judge import check_unseen
from snapjudge.flows.record import made_with
from snapjudge.flows.scoring import contents_of, raw_scores
from snapjudge.flows.training_data import data_digests, read_labelled
from snapjudge.judge import Judge
from snapjudge.model.adapter import Adapter, frozen_copy
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import backbone_folder, load_backbone
from snapjudge.model.prompt import Content
from snapjudge.model.reading import Question
from snapjudge.prove.figures import figures, main_figure
from snapjudge.prove.proof import Contestant, Header, Proof, prove, scored
from snapjudge.store.bundles import next_version
from snapjudge.train.contents import ContentStore
from snapjudge.train.kept import KeptContents
from snapjudge.train.merge import MergeConfig, merge_adapters, merge_weights
from snapjudge.train.merge_search import PARTS, SearchConfig, SearchResult, search
from snapjudge.train.save import folder_files, plain_weights, save_backbone, set_weights

_SHARES = {"validation": 0.3, "calibration": 0.3, "test": 0.4}
_KEPT = 2 << 30  # bytes of content states in memory during a search; the rest goes to a file
_FEW_DRAWS = 2  # the search goes by points; intervals come with the proof
_WHAT = "search of a merge"
TABLE = "merge.jsonl"


@dataclass(frozen=True)
class MergeRequest:
    """Which judges are merged, on what data each is measured, and how.

    Args:
        data: judge's name -> files of its metric; judges without any are merged in and not measured.
        fixed: a configuration instead of a search.
    """

    judges: Sequence[str]
    data: Mapping[str, Sequence[Path]]
    out: Path
    search: SearchConfig = field(default_factory=SearchConfig)
    fixed: MergeConfig | None = None
    rank: int | None = None
    allow_leak: bool = False
    resume: bool = False
    restart: bool = False


@dataclass(frozen=True)
class MergeResult:
    """The configuration that was taken, the search it came from, and the new judges with their proofs."""

    config: MergeConfig
    error: float
    search: SearchResult | None
    folders: list[Path]
    proofs: list[Proof]


@dataclass
class _Policy:
    judge: Judge
    parts: dict[str, list[Example]]
    contents: dict[str, list[Content]]
    files: Sequence[Path]
    notes: list[str]
    kept: KeptContents | None = None  # of the validation rows, where a trial changes nothing but what readouts are read with

    def validation(self, merged: "_Merged", chosen: Sequence[int]) -> list[tuple[float, ...]]:
        """Raw scores of some validation rows in a search: contents are read once for all trials."""
        if self.kept is None or merged.adapter is None:
            return self.log_p(merged, "validation", Silent(), chosen)
        return self.kept.log_p(chosen, self.judge.question.readout, merged.adapter, self.judge.metric)

    def log_p(self, merged: "_Merged | None", part: str, progress: Progress, chosen: Sequence[int] | None = None) -> list[tuple[float, ...]]:
        """Raw scores of a part (or some of its rows) by what was merged, or by the judge as it was."""
        contents = self.contents[part] if chosen is None else [self.contents[part][index] for index in chosen]
        adapter = merged.adapter if merged is not None and merged.adapter is not None else self.judge.question.adapter
        question = Question(self.judge.metric, self.judge.question.readout, adapter)
        return raw_scores(self.judge.backbone if merged is None else merged.backbone, question, contents, progress, f"score {part}")


@dataclass(frozen=True)
class _Merged:
    """A backbone and an adapter to score with; of judges with backbones of their own the backbone is what was merged, and the adapters do nothing."""

    backbone: Backbone
    adapter: Adapter | None
    error: float = 0.0
    folder: Path | None = None


def merge_judges(request: MergeRequest, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False) -> MergeResult:
    """Merge, calibrate and prove.

    Raises:
        OptionInvalid, BackboneMismatch: the judges cannot be merged.
        DataLeak: a judge was trained on rows it would be measured on.
        RunConflict: a search of something else lies there, or another process is at work on it.
        Interrupted: the search's trials are kept; the same call with `resume` goes on.
    """
    return _Merging(request, progress or Silent(), stop).run()


class _WholeMerge:
    """Judges that each have a backbone of their own, trained from one: their weights are merged, relative to where they began."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        began = {json.loads((judge.bundle.folder / "run.json").read_bytes())["config"]["backbone"] for judge in judges}
        if len(began) > 1:
            raise BackboneMismatch(f"the judges' backbones were trained from {', '.join(sorted(began))}", hint="merge backbones that were trained from one")
        self.start = load_backbone(began.pop())
        self.models = [plain_weights(judge.backbone) for judge in judges]
        self.like = backbone_folder(judges[0].backbone.name)
        self.working = load_backbone(judges[0].backbone.name)

    def merged(self, config: MergeConfig, folder: Path | None) -> _Merged:
        """The merged backbone, in one that is used again for every configuration."""
        set_weights(self.working, merge_weights(self.models, config, plain_weights(self.start)))
        if folder is None:
            return _Merged(self.working, None)
        save_backbone(self.working, self.like, folder)
        return _Merged(load_backbone(str(folder)), None, folder=folder)


class _Merging:
    def __init__(self, request: MergeRequest, progress: Progress, stop: Callable[[], bool]) -> None:
        self.request, self.progress, self.stop = request, progress, stop
        self.table = request.out / ".merge" / TABLE
        if len(request.judges) < 2:
            raise OptionInvalid("one judge alone cannot be merged", hint="name two or more", received=", ".join(request.judges))
        if request.fixed is None:
            request.search.checked()
            refuse_taken(self.table.parent, _WHAT, resume=request.resume, restart=request.restart)
        else:
            request.fixed.checked(len(request.judges))
        self.judges = [Judge.load(name) for name in request.judges]
        self.whole = self._on_one_backbone()
        names = [judge.metric.name for judge in self.judges]
        if len(set(names)) < len(names):
            raise OptionInvalid(f"two judges of one name: {', '.join(names)}", hint="merge judges of different metrics", received=", ".join(names))
        if unknown := [name for name in {**request.data, **request.search.floors} if name not in names]:
            raise OptionInvalid(f"{unknown[0]} is none of the judges", hint=f"judges: {', '.join(names)}", received=unknown[0])
        if not request.data:
            raise OptionInvalid("no policy has data", hint="--data NAME=FILE for every judge that the merged one shall replace")

    def run(self) -> MergeResult:
        began = time.monotonic()
        self.policies = [self._policy(judge) for judge in self.judges if judge.metric.name in self.request.data]
        if self.request.fixed is not None:
            return self._result(self.request.fixed, None, began)
        with claimed(self.table.parent, self._identity(), _WHAT, resume=self.request.resume, restart=self.request.restart, say=self.progress.say):
            found = self._search()
            if not found.feasible:
                self._note("no configuration reached every floor; the nearest was taken")
            return self._result(found.best.config, found, began)

    def _identity(self) -> dict[str, Any]:
        """What the trials of a search belong to."""
        return {
            "judges": [[judge.name, judge.bundle.digest] for judge in self.judges],  # in order, as the weights are
            "data": {policy.judge.metric.name: data_digests(policy.files) for policy in self.policies},
            "search": self.request.search.model_dump(mode="json"),
            "rank": self.request.rank,
        }

    def _result(self, config: MergeConfig, found: SearchResult | None, began: float) -> MergeResult:
        """What is merged by the configuration, written as the next version of every judge that has data."""
        folders, proofs = [], []
        with tempfile.TemporaryDirectory() as work:
            merged = self._merged(config, Path(work) / "backbone")
            if merged.adapter is not None and merged.error:
                self._note(f"a rank of {merged.adapter.rank} leaves out {merged.error:.1%} of the merged product")
            for policy in self.policies:
                folder, proof = self._write(policy, merged, config, time.monotonic() - began)
                folders.append(folder)
                proofs.append(proof)
        return MergeResult(config, merged.error, found, folders, proofs)

    def _search(self) -> SearchResult:
        with ExitStack() as stores:

            def measure(config: MergeConfig, part: int | None) -> dict[str, float]:
                if self._by_readout():
                    self._keep(stores)
                return self._measure(config, part)

            try:
                return search(measure, len(self.judges), self.request.search, path=self.table, progress=self.progress, stop=self.stop)
            finally:
                for policy in self.policies:
                    policy.kept = None

    def _keep(self, stores: ExitStack) -> None:
        """Read the validation contents, at the first trial that is made."""
        for number, policy in enumerate(self.policies):
            if policy.kept is None:
                spill, share = self.table.with_name(f"contents-{number}.bin"), _KEPT // len(self.policies)
                store = stores.enter_context(ContentStore(budget=share, spill=spill, device=policy.judge.backbone.device))
                policy.kept = KeptContents(policy.judge.backbone, policy.contents["validation"], store, Silent(), self.stop)

    def _by_readout(self) -> bool:
        """Whether a trial leaves the contents' states as they are."""
        return self.whole is None and all(judge.bundle.manifest.scope == "readout" for judge in self.judges)

    def _on_one_backbone(self) -> "_WholeMerge | None":
        """What merges whole backbones, where each judge has its own; None where all judges are adapters on one."""
        own = [judge.bundle.manifest.scope == WHOLE for judge in self.judges]
        if all(own):
            return _WholeMerge(self.judges)
        digests = {judge.backbone.digest for judge in self.judges}
        if any(own) or len(digests) > 1:
            raise BackboneMismatch(f"the judges stand on {len(digests)} backbones", hint="merge adapters of one backbone, or judges that each have their own")
        return None

    def _merged(self, config: MergeConfig, folder: Path | None = None) -> _Merged:
        """What a configuration gives; with a folder, whole backbones are written there and read again, so that what is proved is what is kept."""
        if self.whole is not None:
            return self.whole.merged(config, folder)
        adapters = [judge.question.adapter for judge in self.judges if judge.question.adapter is not None]
        found = merge_adapters(adapters, config, rank=self.request.rank)
        return _Merged(self.judges[0].backbone, frozen_copy(found.adapter), found.error)

    def _policy(self, judge: Judge) -> _Policy:
        notes: list[str] = []
        files = self.request.data[judge.metric.name]
        examples, _ = deduplicated(read_labelled(files, judge.metric, None, notes.append))
        check_enough(examples, judge.metric, judge.metric.name)
        notes += check_unseen(judge, examples, allow=self.request.allow_leak)
        parts = split(examples, _SHARES, self.request.search.seed)
        return _Policy(judge, parts, {name: contents_of(rows, judge.metric, judge.backbone) for name, rows in parts.items()}, files, notes)

    def _measure(self, config: MergeConfig, part: int | None) -> dict[str, float]:
        """The main figure of every policy on its validation rows, or on one part of them."""
        merged = self._merged(config)
        found = {}
        for policy in self.policies:
            rows = policy.parts["validation"]
            chosen = [index for index, row in enumerate(rows) if part is None or int(hashed(row.group, "part")[:8], 16) % PARTS == part]
            log_p = policy.validation(merged, chosen)
            arrays, _ = scored(log_p, Calibration(), policy.judge.metric, [rows[index] for index in chosen])
            told = figures(arrays, policy.judge.metric, draws=_FEW_DRAWS)
            name = main_figure(policy.judge.metric)
            found[policy.judge.metric.name] = told[name].value if name in told else 0.5
        return found

    def _write(self, policy: _Policy, merged: _Merged, config: MergeConfig, seconds: float) -> tuple[Path, Proof]:
        """What was merged as the next version of one judge, beside the judge as it was."""
        judge, metric = policy.judge, policy.judge.metric
        rule = ThresholdRule.parse(metric.threshold) if metric.threshold else None
        escalation = ThresholdRule.parse_escalation(metric.escalation) if metric.escalation else None
        adapter = merged.adapter if merged.adapter is not None else judge.question.adapter
        assert adapter is not None, "a judge without an adapter"
        own = Adapter(adapter.scope, adapter.rank, adapter.alpha, adapter.weights, judge.question.readout.token_ids if adapter.scope == "readout" else ())
        merged = replace(merged, adapter=own)
        terms = CalibrationTerms(metric, policy.parts["calibration"], rule, escalation, (), "")
        calibration, promises = terms.calibrate_and_promise(policy.log_p(merged, "calibration", self.progress))
        version = next_version(self.request.out / metric.name)
        merged_from = [one.name for one in self.judges]
        notes = [*policy.notes, f"merged from {', '.join(merged_from)} by {config.method} with weights {', '.join(f'{w:.3g}' for w in config.weights)}"]
        header = Header(
            f"{metric.name}@{version}",
            judge.bundle.manifest.backbone.name,
            judge.bundle.manifest.scope,
            {name: len(rows) for name, rows in policy.parts.items()},
            notes,
            created=now(),
            promises=promises,
            made_with=made_with(data_digests(policy.files), self.request.search.seed, backbone=f"{merged.backbone.name} {merged.backbone.digest[:16]}"),
        )
        alone = Contestant(f"{judge.name} alone", policy.log_p(None, "test", self.progress), judge.bundle.calibration)
        proof = prove(metric, policy.parts["test"], [Contestant("judge", policy.log_p(merged, "test", self.progress), calibration), alone], header)
        known = json.loads((judge.bundle.folder / "run.json").read_bytes())
        run = {
            "merged": {"from": {one.name: one.bundle.digest for one in self.judges}, "config": config.model_dump(mode="json"), "error": merged.error},
            "search": self.request.search.model_dump(mode="json") if self.request.fixed is None else None,
            "data": data_digests(policy.files),
            "splits": proof.data,
            "train_labels": known.get("train_labels", {}),
            "languages": proved_languages(policy.parts["test"]),
            "seconds": round(seconds, 1),
            "notes": notes,
        }
        seen_before = json.loads((judge.bundle.folder / "seen.json").read_bytes())
        new = NewJudge(
            metric=metric,
            version=version,
            backbone=BackboneId(name=judge.bundle.manifest.backbone.name, digest=merged.backbone.digest),
            scope=judge.bundle.manifest.scope,
            adapter=own,
            calibration=calibration,
            proof=proof,
            run=run,
            seen=[*seen_before, *seen_digests(policy.parts["validation"], policy.parts["calibration"])],
            sources={example.provenance.source: example.provenance.licence or "not stated" for rows in policy.parts.values() for example in rows},
            more={**({TABLE: self.table.read_bytes()} if self.request.fixed is None else {}), **folder_files(merged.folder)},
        )
        return new.write(self.request.out), proof

    def _note(self, text: str) -> None:
        for policy in self.policies:
            policy.notes.append(text)
        self.progress.say(text)
