"""Open questions: what nobody trained a judge for, asked of a backbone that has learned to read questions.

    Generalist.load().ask([OpenQuestion(instructions="Is the user asking for a refund?")], input="...")

The content is read once for all questions. A choice is asked option by option ("What is it about? billing?"), each a short readout of its own: no order of
options can sway it, an option may be several words, and there may be many. Knows nothing of files or HTTP.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import check_inputs
from snapjudge.core.judgement import Abstention, Judgement, judge_of
from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.core.question import NO, YES, OpenQuestion, OpenType
from snapjudge.errors import SnapjudgeError
from snapjudge.judge import CHUNK, shared_backbone
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import OPEN_FILE, backbone_folder
from snapjudge.model.prompt import Content, content_windows, render_readout
from snapjudge.model.reading import Question, over_windows, read_contents

NAME = "generalist"
_ASKED = Metric(name="asked", version=1, type="boolean", inputs=("output",), question="?", labels={YES: ("yes",), NO: ("no",)})


class Generalist:
    """A backbone that answers open questions. Its answers are zero-shot, and say so.

    Args:
        calibrations: by type of question; identity where there is none.
    """

    def __init__(self, backbone: Backbone, calibrations: Mapping[OpenType, Calibration] | None = None) -> None:
        self.backbone = backbone
        self.calibrations = dict(calibrations or {})
        self._question = lru_cache(maxsize=4096)(self._made)

    @classmethod
    def load(cls, backbone: str = "mini", *, dtype: str = "float32", device: str | None = None) -> "Generalist":
        """The generalist of a backbone, calibrated if the backbone's folder says how.

        Raises:
            BackboneNotFound, BackboneUnsupported.
        """
        path = backbone_folder(backbone) / OPEN_FILE
        stated = json.loads(path.read_bytes())["calibration"] if path.exists() else {}
        return cls(shared_backbone(backbone, dtype, device), {kind: Calibration.model_validate(value) for kind, value in stated.items()})

    @property
    def name(self) -> str:
        """What its answers are signed with."""
        return f"{NAME}@{self.backbone.name}"

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

    def _made(self, wording: str) -> Question:
        metric = _ASKED.model_copy(update={"question": wording})
        return Question(metric, render_readout(metric, self.backbone))

    def _answers(self, contents: Sequence[Content], questions: Sequence[OpenQuestion]) -> list[list[Judgement]]:
        wordings = list(dict.fromkeys(wording for question in questions for some in question.wordings for wording in some))
        windows = [[(Content((window,)), [self._question(wording) for wording in wordings]) for window in content.windows] for content in contents]
        readings = iter(read_contents(self.backbone, [work for some in windows for work in some]))
        answers = []
        for some in windows:
            found = [{wording: one.log_p for wording, one in zip(wordings, next(readings), strict=True)} for _ in some]
            answers.append([self._judgement(question, found) for question in questions])
        return answers

    def _judgement(self, question: OpenQuestion, windows: Sequence[Mapping[str, tuple[float, ...]]]) -> Judgement:
        """One answer from the log-probabilities of yes and no to every wording, window by window: a choice goes by the options' odds of a yes."""
        metric = question.metric
        rows = [tuple(_mean_odds([one[wording] for wording in some]) for some in question.wordings) for one in windows]
        if question.type == "boolean":
            rows = [(odds, 0.0) for (odds,) in rows]
        calibration = self.calibrations.get(question.type, Calibration())
        return judge_of(self.name, metric, calibration, over_windows(rows, metric), len(windows)).model_copy(update={"zero_shot": True})


def _mean_odds(answers: Sequence[tuple[float, ...]]) -> float:
    """The mean log odds of a yes."""
    return sum(yes - no for yes, no in answers) / len(answers)
