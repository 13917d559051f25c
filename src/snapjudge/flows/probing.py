"""Running the probes of a proof with a judge's own reading and calibration."""

from collections.abc import Sequence
from typing import Any

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example, length_of
from snapjudge.core.judgement import Judgement, judge_of
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress
from snapjudge.model.backbone import Backbone
from snapjudge.model.prompt import render_content, render_readout
from snapjudge.model.reading import Question, read_contents
from snapjudge.prove.probes import Probe, Variant, absurd, absurd_inputs, chosen, compared, contrast, mirrored, neighbours, position_bias, variants, wordings

_ALONE = 12


def probe_judge(
    backbone: Backbone, question: Question, calibration: Calibration, examples: Sequence[Example], rows: int, progress: Progress
) -> tuple[Probe, ...]:
    """All probes on a random part of the test; pairs are looked for in all of it."""
    metric = question.metric
    some = chosen(examples, rows)
    asked = variants(some, metric)
    worded = wordings(metric.question)
    turned = len(some) if metric.type == "pairwise" else 0
    progress.start("probe", len(examples) + sum(len(one.inputs) for one in asked) + turned + len(some[:_ALONE]) + len(absurd_inputs(metric)))

    def answers(inputs: Sequence[dict[str, Any]], questions: Sequence[Question], sources: Sequence[str]) -> list[list[Judgement]]:
        found = []
        work = ((render_content(one, metric, backbone), questions) for one in inputs)
        for one, readings, source in zip(inputs, read_contents(backbone, work), sources, strict=True):
            part = calibration.part_of(length_of(one), source)
            found.append([judge_of("", metric, calibration, reading.log_p, reading.windows, part) for reading in readings])
            progress.advance()
        return found

    def judged(inputs: Sequence[dict[str, Any]], rows: Sequence[Example] = ()) -> list[Judgement]:
        sources = [row.provenance.source for row in rows] or [""] * len(inputs)
        return [one[0] for one in answers(inputs, (question,), sources)]

    questions = (question, *(_reworded(question, text, backbone) for text in worded.values()))
    whole = answers([example.inputs for example in examples], questions, [example.provenance.source for example in examples])
    everything = [one[0] for one in whole]
    places = {example.id: number for number, example in enumerate(examples)}
    before = [everything[places[example.id]] for example in some]
    found = [compared(one, some, before, judged(one.inputs, [some[place] for place in one.places]), metric) for one in asked]
    for number, name in enumerate(worded, 1):  # the contents were read once for all wordings
        variant = Variant(f"question: {name}", tuple(range(len(some))), ())
        found.append(compared(variant, some, before, [whole[places[example.id]][number] for example in some], metric))
    if metric.type == "pairwise":
        given, swapped = [example.inputs for example in some], [{**example.inputs, "a": example.inputs["b"], "b": example.inputs["a"]} for example in some]
        found.append(mirrored(some, before, judged(swapped, some)))
        found.append(position_bias(some, *(_once(question, inputs, backbone) for inputs in (given, swapped))))
    alone = [judged([example.inputs], [example])[0] for example in some[:_ALONE]]
    found += [neighbours(alone, before[:_ALONE])]
    found += [one for one in (contrast(examples, everything, metric), absurd(judged(absurd_inputs(metric)), metric)) if one is not None]
    return tuple(found)


def _once(question: Question, inputs: Sequence[dict[str, Any]], backbone: Backbone) -> list[Judgement]:
    """Pairs judged in the order given alone, uncalibrated: a calibration of pairs treats both sides alike and turns no verdict."""
    metric = question.metric.as_choice
    asked = (Question(metric, question.readout, question.adapter),)
    work = ((render_content(one, metric, backbone), asked) for one in inputs)
    return [judge_of("", metric, Calibration(), readings[0].log_p, readings[0].windows) for readings in read_contents(backbone, work)]


def _reworded(question: Question, wording: str, backbone: Backbone) -> Question:
    metric: Metric = question.metric.model_copy(update={"question": wording})
    return Question(metric, render_readout(metric, backbone), question.adapter)
