"""The model card of a judge bundle: intended use, data, figures, limits, licence."""

from collections.abc import Mapping, Sequence

from snapjudge.core.manifest import WHOLE
from snapjudge.core.metric import Metric
from snapjudge.prove.plain import what_it_promises, where_not_to_use_it
from snapjudge.prove.proof import Proof
from snapjudge.prove.report import NAMES, show_figure, threshold_text

_SCOPES = {
    "readout": "Its adapter acts on the question alone, so that it shares the reading of a text with other judges.",
    "all": "Its adapter acts on every token: it reads each text for itself, and shares none of that with other judges.",
    WHOLE: "All weights are its own: it reads each text with a backbone that no other judge uses.",
}


def model_card(metric: Metric, proof: Proof, sources: Mapping[str, str]) -> str:
    """README.md of a bundle."""
    rows = "\n".join(
        f"| {NAMES.get(name, name)} | " + " | ".join(show_figure(one.figures.get(name)) for one in proof.contenders) + " |" for name in proof.judge_figures
    )
    data = "\n".join(f"- {source}: {licence}" for source, licence in sorted(sources.items()))
    promises, limits, notes = (_listed(lines) for lines in (what_it_promises(proof), where_not_to_use_it(proof), proof.notes))
    noted = f"\nHow it was made:\n\n{notes}" if notes else ""
    return f"""# {proof.judge}

{metric.question}

{metric.policy}

## Intended use

A {metric.type} judge at level {metric.level}. It reads {", ".join(metric.ordered_inputs)} and answers with calibrated probabilities of
{", ".join(metric.labels)}. {threshold_text(proof)} {_SCOPES[proof.scope]}

    from snapjudge import Judge
    Judge.load("{proof.judge}").score({", ".join(f"{name}=..." for name in metric.ordered_inputs)})

## What it promises

{promises}
## Figures

On {sum(proof.labels.values())} test examples, with 95 % intervals; `report.html` beside this card has all of them, with curves, errors and probes.

| figure | {" | ".join(one.name for one in proof.contenders)} |
|---|{"---|" * len(proof.contenders)}
{rows}

## Data

Training sources and their licences:

{data}

## Limits

The figures hold for traffic like the test data: same language, same kind of text, labelled by the same criteria (version {proof.criteria_version}).
Prove the judge on your own labelled traffic with `snapjudge prove` before you rely on it. Do not use it:

{limits}{noted}
## Licence

The adapter follows the licences of its training data above; the backbone is {proof.backbone}.
"""


def _listed(lines: Sequence[str]) -> str:
    """Lines as a list of Markdown."""
    return "".join(f"- {line}\n" for line in lines)
