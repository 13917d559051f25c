"""The model card of a judge bundle: intended use, data, figures, limits, licence."""

from collections.abc import Mapping

from snapjudge.core.metric import Metric
from snapjudge.prove.proof import Proof
from snapjudge.prove.report import NAMES, show_figure, threshold_text


def model_card(metric: Metric, proof: Proof, sources: Mapping[str, str]) -> str:
    """README.md of a bundle."""
    rows = "\n".join(
        f"| {NAMES.get(name, name)} | " + " | ".join(show_figure(one.figures.get(name)) for one in proof.contenders) + " |" for name in proof.judge_figures
    )
    data = "\n".join(f"- {source}: {licence}" for source, licence in sorted(sources.items()))
    notes = "".join(f"- {note}\n" for note in proof.notes)
    return f"""# {proof.judge}

{metric.question}

{metric.policy}

## Intended use

A {metric.type} judge at level {metric.level}. It reads {", ".join(metric.ordered_inputs)} and answers with calibrated probabilities of
{", ".join(metric.labels)}. {threshold_text(proof)}

    from snapjudge import Judge
    Judge.load("{proof.judge}").score({", ".join(f"{name}=..." for name in metric.ordered_inputs)})

## Figures

On {sum(proof.labels.values())} test examples, with 95 % intervals; what there is to know of them stands under Limits.

| figure | {" | ".join(one.name for one in proof.contenders)} |
|---|{"---|" * len(proof.contenders)}
{rows}

## Data

Training sources and their licences:

{data}

## Limits

The figures hold for traffic like the test data: same language, same kind of text, labelled by the same criteria (version {proof.criteria_version}).
Prove the judge on your own labelled traffic with `snapjudge prove` before you rely on it.
{notes}
## Licence

The adapter follows the licences of its training data above; the backbone is {proof.backbone}.
"""
