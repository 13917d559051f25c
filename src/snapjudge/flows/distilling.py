"""Teachers of a training: another judge, a column of verdicts, or a backbone that is asked the metric's question as an open one.

A teacher may run on another backbone than the student: only probabilities pass. Knows nothing of how they are learned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from snapjudge.core.example import Example
from snapjudge.core.judgement import Abstention, Judgement
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import OptionInvalid
from snapjudge.generalist import Generalist
from snapjudge.judge import Judge

VERDICT, OPEN = "verdict:", "open:"
Probabilities = tuple[float, ...]


@dataclass(frozen=True)
class Taught:
    """What the teacher said of each example (None: nothing), and how it is called."""

    name: str
    said: list[Probabilities | None]


def taught(teacher: str, examples: Sequence[Example], metric: Metric, progress: Progress) -> Taught:
    """The teacher's probabilities over the metric's labels.

    Args:
        teacher: a judge by folder or name, `verdict:NAME` for a verdict column, `open:BACKBONE` for a backbone that is asked the metric's question.

    Raises:
        OptionInvalid: the teacher answers with other labels, says nothing of any example, or cannot be asked.
        BundleNotFound, BackboneNotFound and their like.
    """
    if teacher.startswith(VERDICT):
        name = teacher.removeprefix(VERDICT)
        said = [None if (own := example.verdicts.get(name)) is None else own.shares for example in examples]
        return _useful(
            Taught(f"verdicts of {name}", list(said)),
            "rows carry {'verdicts': {NAME: label, or {label: share}}} with the metric's labels, or a column verdict.NAME",
        )
    progress.start("ask the teacher", len(examples))
    if teacher.startswith(OPEN):
        return _open(teacher.removeprefix(OPEN), examples, metric, progress)
    judge = Judge.load(teacher)
    if set(judge.metric.labels) != set(metric.labels):
        raise OptionInvalid(
            f"{judge.name} answers with {', '.join(judge.metric.labels)}, and {metric.name} has {', '.join(metric.labels)}",
            hint="a teacher has the same labels: take another judge, a column of verdicts (verdict:NAME) or a backbone that is asked (open:mini)",
            received=teacher,
        )
    found: list[Probabilities | None] = []
    for answer in judge.score_many((example.inputs for example in examples), [example.provenance.source for example in examples]):
        found.append(_in_order(answer, metric))
        progress.advance()
    return _useful(Taught(judge.name, found), "the fields it reads must be there")


def _open(backbone: str, examples: Sequence[Example], metric: Metric, progress: Progress) -> Taught:
    if metric.type == "pairwise":
        raise OptionInvalid("a pair cannot be asked as an open question", hint="use a pairwise judge as the teacher", received=backbone)
    options = () if metric.type == "boolean" else metric.label_names
    question = OpenQuestion(instructions=metric.question, type=metric.type, options=options)
    generalist = Generalist.load(backbone)
    found: list[Probabilities | None] = []
    items: Iterator[dict[str, Any]] = ({str(name): example.inputs[name] for name in metric.ordered_inputs if name in example.inputs} for example in examples)
    for answers in generalist.ask_many(items, [question]):
        found.append(None if isinstance(answers, Abstention) else tuple(answers[0].probabilities.values()))
        progress.advance()
    return _useful(Taught(f"{generalist.name}, asked the question", found), "the backbone must be able to read the inputs")


def _in_order(answer: Judgement | Abstention, metric: Metric) -> Probabilities | None:
    return None if isinstance(answer, Abstention) else tuple(answer.probabilities[name] for name in metric.labels)


def _useful(found: Taught, hint: str) -> Taught:
    if not any(said is not None for said in found.said):
        raise OptionInvalid(f"the teacher ({found.name}) says nothing of any training example", hint=hint, received=found.name)
    return found
