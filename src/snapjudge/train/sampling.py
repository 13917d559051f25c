"""Which examples an epoch sees, in which batches: class-balanced, similar lengths together, a pure function of seed and epoch.

Knows nothing of models.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

MOST_REPEATS = 8  # times one epoch may show an example of a rare class
_BUCKET = 16  # batches sorted by length at a time


def epoch_batches(classes: Sequence[int], lengths: Sequence[int], batch: int, *, seed: int, epoch: int, balanced: bool) -> list[list[int]]:
    """Batches of example indices for one epoch."""
    rng = random.Random(f"{seed}:{epoch}")  # noqa: S311 - shuffling, no secret
    order = _balanced(classes, rng) if balanced else list(range(len(classes)))
    rng.shuffle(order)
    batches = []
    for start in range(0, len(order), batch * _BUCKET):
        bucket = sorted(order[start : start + batch * _BUCKET], key=lambda index: lengths[index])
        batches += [bucket[at : at + batch] for at in range(0, len(bucket), batch)]
    rng.shuffle(batches)
    return batches


def _balanced(classes: Sequence[int], rng: random.Random) -> list[int]:
    """As many examples as there are, in equal shares by class; a rare class is repeated, at most MOST_REPEATS times."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(classes):
        members[label].append(index)
    share = len(classes) / len(members)
    order = []
    for label in sorted(members):
        some = members[label]
        wanted = min(round(share), MOST_REPEATS * len(some))
        while wanted > 0:
            rng.shuffle(some)
            order += some[:wanted]
            wanted -= len(some)
    return order
