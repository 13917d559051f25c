"""Open questions: what nobody trained a judge for, asked of a backbone that has learned to read questions.

    Generalist.load().ask([OpenQuestion(instructions="Is the user asking for a refund?")], input="...")

The content is read once for all questions. A choice is asked option by option ("What is it about? billing?"), each a short readout of its own: no order of
options can sway it, an option may be several words, and there may be many. An answer rests on two things from that one reading: the odds of a yes at the end of
the readout, and, where the backbone has learned nothing near, how like question and content are (docs/design/0010). Knows nothing of HTTP.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Any, NamedTuple

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import check_inputs
from snapjudge.core.judgement import Abstention, Judgement, judge_of
from snapjudge.core.metric import INPUT_NAMES
from snapjudge.core.question import Evidence, OpenQuestion, OpenType
from snapjudge.errors import SnapjudgeError
from snapjudge.judge import CHUNK, shared_backbone
from snapjudge.model.asking import Answer, Asking
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import OPEN_FILE, backbone_folder
from snapjudge.model.prompt import Content, content_windows
from snapjudge.model.reading import over_windows

NAME = "generalist"


class Generalist:
    """A backbone that answers open questions. Its answers are zero-shot, and say so.

    Args:
        evidence: what each type of question is answered by, a score like a choice; the plain odds where nothing is said.
        asking: how the backbone is asked; plainly unless given.
    """

    def __init__(self, backbone: Backbone, evidence: Mapping[OpenType, Evidence] | None = None, asking: Asking | None = None) -> None:
        self.backbone = backbone
        self._evidence = dict(evidence or {})
        self._asking = asking or Asking(backbone)

    @classmethod
    def load(cls, backbone: str = "mini", *, dtype: str = "float32", device: str | None = None) -> "Generalist":
        """The generalist of a backbone; how its evidence counts is told by a file in the backbone's folder.

        Raises:
            BackboneNotFound, BackboneUnsupported.
        """
        terms, loaded = open_terms(backbone), shared_backbone(backbone, dtype, device)
        return cls(loaded, terms.evidence, Asking(loaded, terms.mean, terms.learned))

    @property
    def name(self) -> str:
        """What its answers are signed with."""
        return signature(self.backbone.name)

    def nearest(self, question: OpenQuestion) -> tuple[str, float]:
        """The learned question that a question is nearest to, and how near (-1 to 1); nothing and 0 where none is known."""
        return self._asking.nearest(question.instructions)

    def ask(self, questions: Sequence[OpenQuestion], **inputs: Any) -> list[Judgement]:
        """Answer some questions about one set of inputs, in order.

        Raises:
            InputInvalid: a field is empty, unknown or of the wrong type.
            MetricInvalid: a question is longer than the backbone keeps room for.
        """
        return self._answers([self._content(inputs)], questions)[0]

    def ask_many(self, items: Iterable[Mapping[str, Any]], questions: Sequence[OpenQuestion]) -> Iterator[list[Judgement] | Abstention]:
        """Answer some questions about many inputs, in order; one that cannot be read gives an abstention and the rest go on."""
        source = iter(items)
        while chunk := list(islice(source, CHUNK)):
            contents: list[Content | Abstention] = []
            for inputs in chunk:
                try:
                    contents.append(self._content(inputs))
                except SnapjudgeError as error:
                    contents.append(Abstention.of(self.name, error))
            answers = iter(self._answers([one for one in contents if isinstance(one, Content)], questions))
            for one in contents:
                yield next(answers) if isinstance(one, Content) else one

    def _content(self, inputs: Mapping[str, Any]) -> Content:
        return Content(content_windows(check_inputs(inputs, INPUT_NAMES, INPUT_NAMES), self.backbone))

    def _answers(self, contents: Sequence[Content], questions: Sequence[OpenQuestion]) -> list[list[Judgement]]:
        wordings = list(dict.fromkeys(wording for question in questions for some in question.wordings for wording in some))
        found = self._asking.ask([window for content in contents for window in content.windows], wordings)
        answers = []
        for content in contents:
            windows = [dict(zip(wordings, next(found), strict=True)) for _ in content.windows]
            answers.append([open_judgement(self.name, question, windows, self._evidence) for question in questions])
        return answers


def signature(backbone: str) -> str:
    """What a backbone's open answers are signed with."""
    return f"{NAME}@{backbone}"


class OpenTerms(NamedTuple):
    """What open answers of a backbone rest on: the weights of the evidence, the mean embedding of many contents, the questions that were learned."""

    evidence: dict[OpenType, Evidence]
    mean: tuple[float, ...] = ()
    learned: tuple[str, ...] = ()


def open_terms(backbone: str) -> OpenTerms:
    """Those that a backbone's folder tells; plain ones where it tells none.

    Raises:
        BackboneNotFound.
    """
    path = backbone_folder(backbone) / OPEN_FILE
    if not path.exists():
        return OpenTerms({})
    stated = json.loads(path.read_bytes())
    evidence: dict[OpenType, Evidence] = {kind: Evidence.model_validate(value) for kind, value in stated["evidence"].items()}
    return OpenTerms(evidence, tuple(stated["mean"]), tuple(stated["learned"]))


def open_judgement(name: str, question: OpenQuestion, windows: Sequence[Mapping[str, Answer]], evidence: Mapping[OpenType, Evidence]) -> Judgement:
    """One answer from what each window says to every wording: a choice goes by the options' evidence for a yes."""
    metric = question.metric
    weights = evidence.get("boolean" if question.type == "boolean" else "choice", Evidence())
    rows = [tuple(fmean(weights.logit(*one[each]) for each in some) for some in question.wordings) for one in windows]
    if question.type == "boolean":
        rows = [(logit, 0.0) for (logit,) in rows]
    return judge_of(name, metric, Calibration(), over_windows(rows, metric), len(windows)).model_copy(update={"zero_shot": True})
