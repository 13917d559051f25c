"""Train a backbone on a recipe: many tasks, asked in many ways, all weights.

The result is a folder like any other backbone's, with a record of how it came to be. Knows nothing of terminals.
"""

import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError

from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress, Silent
from snapjudge.curate.mixture import Mixture, Posed
from snapjudge.curate.ranking import auroc
from snapjudge.curate.read import file_digest
from snapjudge.curate.recipe import read_recipe
from snapjudge.errors import InputInvalid, LabelNotOneToken, MetricInvalid, OptionInvalid, RunConflict
from snapjudge.flows.bundling import now
from snapjudge.flows.claims import claimed, refuse_taken
from snapjudge.flows.record import machine, revision, versions
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import EMBEDDED, LAYOUT_FILE, RECORD_FILE, backbone_folder, load_backbone
from snapjudge.model.prompt import Content, content_windows, render_readout
from snapjudge.model.prompt_rules import ContentMask
from snapjudge.model.reading import Question, read_contents
from snapjudge.model.readout import Readout
from snapjudge.train.multitask import Drawn, WholeConfig, WholeResult, train_whole
from snapjudge.train.save import save_backbone

_LOOKED_AT = 100  # held-back rows of each task in a curve
_WHAT = "training of a backbone"
_MODEL = ("config.json", "model.safetensors")
NOTICE = "NOTICE"


@dataclass(frozen=True)
class PretrainRequest:
    """What to train on and where to.

    Args:
        without: files or tasks left out altogether.
        share: how much of the rows is used.
        instructions: False asks by the task's name alone, to measure what the instructions are worth.
        weights: task -> how often it is drawn, instead of what the recipe says.
        anchor: a backbone whose embeddings of the contents are kept, so that what no task asks for is not forgotten; none is, where empty.
        content_mask: another mask than the starting backbone's, to measure what seeing both ways is worth.
    """

    recipe: Path
    data: Path
    out: Path
    start: str = EMBEDDED
    without: Sequence[str] = ()
    share: float = 1.0
    instructions: bool = True
    content_mask: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    anchor: str = ""
    resume: bool = False
    restart: bool = False


def pretrain(request: PretrainRequest, config: WholeConfig, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False) -> WholeResult:
    """Train and write the backbone.

    Raises:
        any SnapjudgeError; Interrupted leaves a state that the same call with `resume` goes on from.
    """
    return _Pretraining(request, config, progress or Silent(), stop).run()


class _Pretraining:
    def __init__(self, request: PretrainRequest, config: WholeConfig, progress: Progress, stop: Callable[[], bool]) -> None:
        self.request, self.config, self.progress, self.stop = request, config, progress, stop
        self.work = request.out / "work"
        finished = (RECORD_FILE,) if self.work.exists() else (RECORD_FILE, *_MODEL)  # a run that was killed while it wrote the model goes on
        if taken := [name for name in finished if (request.out / name).exists()]:
            raise RunConflict(f"{request.out} already holds a model ({taken[0]})", hint="choose another --out", received=str(request.out))
        if not 0 < request.share <= 1:
            raise OptionInvalid(f"a share of {request.share}", hint="more than 0 and at most 1", received=str(request.share))
        self.mask: ContentMask | None = next((mask for mask in get_args(ContentMask) if mask == request.content_mask), None)
        if self.mask != request.content_mask:
            raise OptionInvalid(f"no mask is called {request.content_mask!r}", hint="causal or bidirectional", received=str(request.content_mask))
        if request.content_mask is not None and not (backbone_folder(request.start) / LAYOUT_FILE).exists():
            raise OptionInvalid("the mask of a decoder in the Hugging Face layout is always causal", hint="start from mini, or leave --content-mask out")

    def run(self) -> WholeResult:
        recipe = read_recipe(self.request.recipe)
        self.made_by = {"recipe_sha256": file_digest(self.request.recipe), "code": revision()}  # as they are now: they may be edited while it runs
        self.backbone = load_backbone(self.request.start)
        self.anchor = load_backbone(self.request.anchor) if self.request.anchor else None
        self._check_anchor()
        if self.mask is not None:
            self.backbone.content_mask = self.mask
        self.asking = Asking(self.backbone)
        self.start = {"name": Path(self.backbone.name).name, "digest": self.backbone.digest}
        refuse_taken(self.work, _WHAT, resume=self.request.resume, restart=self.request.restart)
        self.progress.say(f"reading the rows of {len(recipe.tasks)} tasks")
        self.mixture = Mixture(
            recipe,
            self.request.recipe.parent,
            self.request.data,
            seed=self.config.seed,
            without=self.request.without,
            share=self.request.share,
            instructions=self.request.instructions,
            weights=self.request.weights,
            tokens=self._tokens,
        )
        self.too_long = self._too_long()
        began = time.monotonic()
        with claimed(self.work, self._identity(), _WHAT, resume=self.request.resume, restart=self.request.restart, say=self.progress.say):
            result = train_whole(
                self.backbone,
                self._draw,
                self.config,
                look=self._look,
                state=self.work / "state.safetensors",
                progress=self.progress,
                stop=self.stop,
                anchor=self.anchor,
            )
            self._write(result, time.monotonic() - began)
        return result

    def _check_anchor(self) -> None:
        """Embeddings can be compared only where both backbones read the same tokens and are of one width."""
        one, other = self.backbone, self.anchor
        if other is not None and (one.width, one.vocabulary) != (other.width, other.vocabulary):
            sizes = f"width {other.width} and {other.vocabulary} tokens for {one.width} and {one.vocabulary}"
            name = Path(other.name).name
            raise OptionInvalid(f"the anchor {name} is another kind of backbone: {sizes}", hint="give the backbone it starts from, or one trained from it")

    def _identity(self) -> dict[str, Any]:
        """What the work folder belongs to: one recipe with its templates and data, one start and one configuration."""
        return {
            "recipe": self.made_by["recipe_sha256"],
            "data": {name: file_digest(path) for name, path in self.mixture.sources.items()},
            "start": self.start["digest"],
            "options": self._options(),
            "config": self.config.model_dump(mode="json"),
        }

    def _tokens(self, inputs: Mapping[str, Any]) -> int:
        try:
            return self.asking.content(inputs).tokens
        except InputInvalid:  # more windows than anything is read in
            return sys.maxsize

    def _too_long(self) -> dict[str, str]:
        """For each file with rows that are longer than its task reads, how many of how many: they are never drawn."""
        found = {file: f"{count} of {self.mixture.gathered[file]}" for file, count in sorted(self.mixture.too_long.items())}
        for file, count in found.items():
            self.progress.say(f"{file}: {count} rows are longer than their task reads, and left out")
        return found

    def _options(self) -> dict[str, Any]:
        request = self.request
        return {
            "without": sorted(set(request.without)),
            "share": request.share,
            "instructions": request.instructions,
            "content_mask": request.content_mask,
            "weights": dict(sorted(request.weights.items())),
            "anchor": None if self.anchor is None else self.anchor.digest,
        }

    def _draw(self, number: int) -> Drawn | None:
        inputs, posed = self.mixture.draw(number)
        if not posed or (content := self.asking.content(inputs)).tokens > self.mixture.longest(posed[0].task):
            return None
        readouts = [self.asking.readout(one) for one in posed]
        kept = [(one, readout) for one, readout in zip(posed, readouts, strict=True) if readout is not None]
        if not kept:
            return None
        targets = tuple(tuple(float(index == one.answer) for index in range(len(one.words))) for one, _ in kept)
        return Drawn(content.windows[0], tuple(readout for _, readout in kept), targets, tuple(one.task for one, _ in kept))

    def _look(self) -> Mapping[str, float]:
        return held_back_figures(self.mixture, self.asking)

    def _write(self, result: WholeResult, seconds: float) -> None:
        record: dict[str, Any] = {
            "created": now(),
            "recipe": self.mixture.recipe.name,
            **self.made_by,
            "start": self.start,
            "request": self._options(),
            "config": self.config.model_dump(),
            "rows": {name: len(some) for name, some in self.mixture.rows.items()},
            "too_long": self.too_long,
            "licences": self.mixture.licences,
            "tokens": result.tokens,
            "questions": result.questions,
            "seconds": round(result.seconds, 1),
            "this_run_seconds": round(seconds, 1),
            "history": result.history,
            "versions": versions(),
            "machine": machine(),
        }
        start = backbone_folder(self.request.start)
        if (start / RECORD_FILE).exists():
            record["before"] = json.loads((start / RECORD_FILE).read_bytes())
        notes = {RECORD_FILE: json.dumps(record, indent=1), NOTICE: attributed(start / NOTICE, self.mixture.licences)}
        save_backbone(self.backbone, start, self.request.out, notes=notes)


def attributed(notice: Path, licences: Mapping[str, str]) -> str:
    """The notice of the starting backbone, and the data sets that its weights were trained on since with their licences."""
    before = notice.read_text(encoding="utf-8").rstrip() + "\n\n" if notice.exists() else ""
    told = "All weights were then trained further (snapjudge pretrain) on texts of:\n" + "".join(f"  {name}: {one}\n" for name, one in licences.items())
    return before if before.rstrip().endswith(told.rstrip()) else before + told  # a second run on the same sets adds nothing


class Asking:
    """Posed questions and inputs as a backbone reads them; readouts are made once."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._known: dict[tuple[str, tuple[str, ...]], Question | None] = {}

    def content(self, inputs: Mapping[str, Any]) -> Content:
        """The windows of a content."""
        return Content(content_windows(inputs, self.backbone))

    def question(self, posed: Posed) -> Question | None:
        """The question without an adapter; None where a word is not one token or the wording is too long."""
        key = posed.text, posed.words
        if key not in self._known:
            self._known[key] = self._made(posed)
        return self._known[key]

    def readout(self, posed: Posed) -> Readout | None:
        """The readout alone."""
        found = self.question(posed)
        return None if found is None else found.readout

    def _made(self, posed: Posed) -> Question | None:
        labels = {word: (word,) for word in posed.words}
        try:
            metric = Metric(name="posed", version=1, type="choice", inputs=("output",), question=posed.text, labels=labels)
            return Question(metric, render_readout(metric, self.backbone))
        except (LabelNotOneToken, MetricInvalid, ValidationError):
            return None


def held_back_figures(mixture: Mixture, asking: Asking) -> dict[str, float]:
    """AUROC by task of yes-or-no questions about the mixture's held-back rows, at most a hundred of each task."""
    work, truth = [], []
    for name, rows in mixture.held_back.items():
        for number, row in enumerate(rows[:: max(1, len(rows) // _LOOKED_AT)][:_LOOKED_AT]):
            posed = [one for one in mixture.asked(name, row, random.Random(number)) if one.words == ("yes", "no") and one.task == name]  # noqa: S311
            content = asking.content(row.inputs)
            asked = [(one, question) for one in posed if (question := asking.question(one)) is not None]
            if asked and len(content.windows) == 1:
                work.append((content, [question for _, question in asked]))
                truth.append([(one.task, one.answer == 0) for one, _ in asked])
    scores: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for answers, readings in zip(truth, read_contents(asking.backbone, work), strict=True):
        for (name, yes), reading in zip(answers, readings, strict=True):
            scores[name].append((yes, float(np.exp(reading.log_p[0]))))
    areas = {name: auroc(np.array([score for _, score in pairs]), np.array([yes for yes, _ in pairs])) for name, pairs in scores.items()}
    return {name: area.value for name, area in areas.items() if area is not None}
