"""The front door: load a judge, or a panel of judges that share one reading of the content, and score.

    Judge.load("investment_advice").score(input="...", output="...")

Knows nothing of data files, terminals or HTTP.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from snapjudge.core.example import check_inputs, length_of
from snapjudge.core.judgement import Abstention, Judgement, judge_of
from snapjudge.core.manifest import OWN_BACKBONE
from snapjudge.core.metric import Metric
from snapjudge.errors import BackboneMismatch, BundleInvalid, SnapjudgeError
from snapjudge.model.adapter import load_adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import chosen_device, load_backbone
from snapjudge.model.prompt import Content, render_content, render_readout
from snapjudge.model.reading import Question, read_contents
from snapjudge.store.bundles import Bundle, find_bundle, load_bundle

CHUNK = 128  # items looked at together: enough to fill a forward pass, few enough to bound memory


def shared_backbone(name: str, dtype: str = "float32", device: str | None = None) -> Backbone:
    """A backbone that all judges of this process share."""
    return _shared(name, dtype, str(chosen_device(device)))


@lru_cache(maxsize=4)
def _shared(name: str, dtype: str, device: str) -> Backbone:
    return load_backbone(name, dtype=dtype, device=device)


class Judge:
    """A loaded judge: scores inputs one by one or many at a time. Made by `Judge.load`."""

    def __init__(self, bundle: Bundle, backbone: Backbone) -> None:
        stated = bundle.manifest.backbone
        if stated.digest != backbone.digest:
            raise BackboneMismatch(
                f"{bundle.manifest.judge} was trained on {stated.name} ({stated.digest[:12]}), not on {backbone.name} ({backbone.digest[:12]})",
                hint="load it with the backbone it was trained on, or train it again on this one",
            )
        readout = render_readout(bundle.metric, backbone)
        adapter = load_adapter(bundle.adapter_folder, backbone.linears, backbone.device)
        if adapter.invocation and adapter.invocation != readout.token_ids:
            raise BundleInvalid(f"{bundle.manifest.judge} was trained with another readout text", hint="train it again with this version of snapjudge")
        self.bundle, self.backbone = bundle, backbone
        self.question = Question(bundle.metric, readout, adapter)

    @classmethod
    def load(cls, name: str | Path, *, backbone: Backbone | str | None = None, dtype: str = "float32", device: str | None = None) -> "Judge":
        """Load a judge from a bundle's folder or by name (`tone`, `tone@3`).

        Args:
            backbone: a loaded backbone, or where to load it from; by default the one the bundle names.

        Raises:
            BundleNotFound, BundleInvalid, PickleRefused, BackboneNotFound, BackboneMismatch.
        """
        bundle = load_bundle(find_bundle(name))
        if not isinstance(backbone, Backbone):
            own = str(bundle.folder / "backbone") if bundle.manifest.backbone.name == OWN_BACKBONE else bundle.manifest.backbone.name
            backbone = shared_backbone(backbone or own, dtype, device)
        return cls(bundle, backbone)

    @property
    def name(self) -> str:
        """Name and immutable version, as in `tone@3`."""
        return self.bundle.manifest.judge

    @property
    def metric(self) -> Metric:
        """The question this judge answers."""
        return self.bundle.metric

    def score(self, *, source: str = "", **inputs: Any) -> Judgement:
        """Judge one set of inputs; `source` is where it comes from, for a judge calibrated by source.

        Raises:
            InputInvalid: a field is missing, empty, unknown or of the wrong type.
        """
        return Panel([self]).score(source=source, **inputs)[self.name]

    def score_many(self, items: Iterable[Mapping[str, Any]], sources: Iterable[str] = ()) -> Iterator[Judgement | Abstention]:
        """Judge many inputs in order; an item that cannot be judged gives an abstention and the rest go on."""
        for answers in Panel([self]).score_many(items, sources):
            yield answers[self.name]

    def __repr__(self) -> str:
        return f"Judge({self.name!r}, backbone={self.backbone.name!r})"


class Panel:
    """Several judges on one backbone: each content is read once and judged by all of them.

    Judges that read the same fields share the content; one that reads other fields gets its own.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        names = [judge.name for judge in judges]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BundleInvalid(f"two judges of a panel are called {', '.join(twice)}", hint="give each training its own metric name or version folder")
        backbones = {(judge.backbone.digest, judge.backbone.precision, judge.backbone.device) for judge in judges}
        if len(backbones) != 1:
            raise BackboneMismatch(
                f"a panel's judges share one backbone in one precision; these have {len(backbones)}: {', '.join(names) or 'no judges'}",
                hint="ask judges of another backbone by themselves, in a panel or command of their own",
            )
        self.judges = {judge.name: judge for judge in judges}
        self.backbone = judges[0].backbone

    @classmethod
    def load(cls, names: Sequence[str | Path], *, backbone: Backbone | str | None = None, dtype: str = "float32", device: str | None = None) -> "Panel":
        """Load several judges by folder or name; see `Judge.load`."""
        return cls([Judge.load(name, backbone=backbone, dtype=dtype, device=device) for name in names])

    def score(self, *, source: str = "", **inputs: Any) -> dict[str, Judgement]:
        """Judge one set of inputs with every judge; `source` is where it comes from, for judges calibrated by source.

        Raises:
            InputInvalid: a judge's field is missing, empty, unknown or of the wrong type.
        """
        prepared = {name: _prepared(judge, inputs, source) for name, judge in self.judges.items()}
        return dict(zip(self.judges, self._judge([prepared])[0].values(), strict=True))

    def score_many(self, items: Iterable[Mapping[str, Any]], sources: Iterable[str] = ()) -> Iterator[dict[str, Judgement | Abstention]]:
        """Judge many inputs in order, reading ahead by a bounded number of items.

        Args:
            sources: where each comes from, for judges calibrated by source.
        """
        source, known = iter(items), chain(sources, repeat(""))
        while chunk := list(islice(source, CHUNK)):
            rendered: list[dict[str, tuple[Content, str]]] = []
            abstained: list[dict[str, Abstention]] = []
            for inputs, where in zip(chunk, known, strict=False):
                contents: dict[str, tuple[Content, str]] = {}
                reasons: dict[str, Abstention] = {}
                for name, judge in self.judges.items():
                    try:
                        contents[name] = _prepared(judge, inputs, where)
                    except SnapjudgeError as error:
                        reasons[name] = Abstention.of(name, error)
                rendered.append(contents)
                abstained.append(reasons)
            for found, reasons in zip(self._judge(rendered), abstained, strict=True):
                yield {name: reasons[name] if name in reasons else found[name] for name in self.judges}

    def _judge(self, items: Sequence[Mapping[str, tuple[Content, str]]]) -> list[dict[str, Judgement]]:
        """Judgements of rendered contents by judge name; equal contents of an item are asked together."""
        work: list[tuple[Content, list[Question]]] = []
        places: list[dict[str, tuple[int, int]]] = []
        for contents in items:
            mine: dict[Content, int] = {}
            place: dict[str, tuple[int, int]] = {}
            for name, (content, _) in contents.items():
                if content not in mine:
                    mine[content] = len(work)
                    work.append((content, []))
                questions = work[mine[content]][1]
                place[name] = (mine[content], len(questions))
                questions.append(self.judges[name].question)
            places.append(place)
        readings = list(read_contents(self.backbone, work))
        return [
            {
                name: judge_of(name, judge.metric, judge.bundle.calibration, readings[at][which].log_p, readings[at][which].windows, prepared[name][1])
                for name, (at, which) in place.items()
                if (judge := self.judges[name])
            }
            for place, prepared in zip(places, items, strict=True)
        ]


def _prepared(judge: Judge, inputs: Mapping[str, Any], source: str) -> tuple[Content, str]:
    """Checked inputs as a content, and the part of the traffic that the judge's calibration sees in them."""
    own = check_inputs(inputs, judge.metric.ordered_inputs, judge.metric.optional)
    return render_content(own, judge.metric, judge.backbone), judge.bundle.calibration.part_of(length_of(own), source)
