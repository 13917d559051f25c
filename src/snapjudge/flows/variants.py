"""More training examples from those there are: without their optional inputs, or with noise that must not change a verdict."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.perturb.noise import NOISES, diluted, noisy_fields
from snapjudge.curate.split import hashed
from snapjudge.model.backbone import Backbone
from snapjudge.model.prompt import render_content

_AMID = 24  # neutral sentences before and after a text, fewer than so many


def without_optional(examples: Sequence[Example], metric: Metric, share: float, seed: int) -> list[Example]:
    """Some of the examples once more, without their optional inputs (a reference answer, say), so that the judge learns to do without."""
    found = []
    for example in _some(examples, share, f"{seed}:drop"):
        kept = {name: value for name, value in example.inputs.items() if name not in metric.optional}
        if kept and len(kept) < len(example.inputs):
            found.append(example.model_copy(update={"id": f"{example.id}-", "inputs": kept}))
    return found


def with_noise(examples: Sequence[Example], metric: Metric, backbone: Backbone, share: float, seed: int) -> list[Example]:
    """Some of the examples once more, each with one kind of the noise that a proof probes, or amid neutral sentences.

    Noise that the backbone does not see (case, where its tokenizer has none) is passed over for another kind.
    """
    found = []
    for example in _some(examples, share, f"{seed}:noise"):
        before = render_content(example.inputs, metric, backbone)
        for changed in _changes(example, seed):
            if render_content(changed, metric, backbone) != before:
                found.append(example.model_copy(update={"id": f"{example.id}~", "inputs": changed}))
                break
    return found


def _changes(example: Example, seed: int) -> Iterator[dict[str, Any]]:
    """The inputs under every kind of noise, in random order."""
    rng = random.Random(f"{seed}:{example.content_key}")  # noqa: S311 - reproducible
    for kind in rng.sample(["", *NOISES], len(NOISES) + 1):
        yield noisy_fields(example.inputs, kind, rng) if kind else diluted(example.inputs, rng, _AMID)


def _some(examples: Sequence[Example], share: float, salt: str) -> Iterator[Example]:
    """About this share of the examples, chosen by their texts."""
    return (example for example in examples if int(hashed(example.content_key, salt)[:8], 16) < share * 2**32)
