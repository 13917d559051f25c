"""Whole rows perturbed: which field a kind of perturbation touches, which rows it fits, and where the new row says it comes from."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from snapjudge.core.example import Example, Provenance, content_key, plain_text
from snapjudge.curate.perturb.attacks import attack, harmless, placed
from snapjudge.curate.perturb.grounding import CORRUPTIONS
from snapjudge.curate.perturb.noise import NOISES, noisy_fields
from snapjudge.curate.perturb.personal import People
from snapjudge.curate.perturb.tools import TOOL_CORRUPTIONS, dump, read_calls, tool_names

Kind = Literal["grounding", "injection", "harmless", "tools", "personal", "noise"]
Perturbed = tuple[dict[str, Any], str]
KINDS: dict[Kind, str] = {
    "grounding": "one fact of `output` changed against its `context`",
    "injection": "an instruction to the model placed inside the document",
    "harmless": "a sentence with the words of an attack that instructs nobody, placed likewise",
    "tools": "a tool call with a wrong tool, value, argument or number",
    "personal": "personal data of invented people added",
    "noise": "the same text with other case, typos, look-alike letters, spacing, tags or padding: keeps its label",
}
_OTHERS = 12


def perturb(rows: Sequence[Example], kind: Kind, count: int, seed: int) -> list[Example]:
    """Up to `count` perturbed rows without labels, spread over rows and methods; fewer where no more rows fit.

    Every new row names its parent, method and seed, and is of its parent's group, so that no split tears them apart.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible data, no secret
    make = _MAKERS[kind](seed)
    order = list(rows)
    rng.shuffle(order)
    found: dict[str, Example] = {}
    used: Counter[str] = Counter()
    for turn in range(4):
        for parent in order:
            if len(found) >= count:
                return list(found.values())
            others = [
                plain_text({"output": row.inputs.get("output") or plain_text(row.inputs)})
                for row in rng.sample(order, min(_OTHERS, len(order)))
                if row.group != parent.group
            ]
            made = make(parent, others, used, rng)
            if made is None or made[0] == parent.inputs:
                continue
            inputs, method = made
            used[method] += 1
            name = f"{parent.id}+{method.replace(' ', '_')}+{seed}" + (f".{turn}" if turn else "")
            meta = parent.provenance
            provenance = Provenance(
                source=f"{meta.source} perturbed".strip(),
                group=parent.group,
                licence=meta.licence,
                category=method,
                parent=parent.id,
                method=method,
                seed=str(seed),
            )
            row = Example(id=name, inputs=inputs, provenance=provenance)
            found.setdefault(row.content_key, row)
    return list(found.values())


Maker = Callable[[Example, Sequence[str], Counter[str], random.Random], Perturbed | None]


def _rarest(names: Sequence[str], used: Counter[str], rng: random.Random) -> list[str]:
    """Methods in random order, the least used first, so that they come out about even."""
    return sorted(rng.sample(list(names), len(names)), key=lambda name: used[name])


def _grounding(_seed: int) -> Maker:
    def make(row: Example, others: Sequence[str], used: Counter[str], rng: random.Random) -> Perturbed | None:
        text, context = row.inputs.get("output"), row.inputs.get("context")
        if not isinstance(text, str) or not isinstance(context, str):
            return None
        for method in _rarest(list(CORRUPTIONS), used, rng):
            changed = CORRUPTIONS[method](text, context, others, rng)
            if changed is not None and changed != text:
                return {**row.inputs, "output": changed}, method
        return None

    return make


def _inserted(what: Callable[[random.Random], str], method: str) -> Callable[[int], Maker]:
    def maker(_seed: int) -> Maker:
        def make(row: Example, _others: Sequence[str], _used: Counter[str], rng: random.Random) -> Perturbed | None:
            field = next((name for name in ("context", "input", "output") if isinstance(row.inputs.get(name), str)), None)
            return None if field is None else ({**row.inputs, field: placed(row.inputs[field], what(rng), rng)}, method)

        return make

    return maker


def _tools(_seed: int) -> Maker:
    def make(row: Example, _others: Sequence[str], used: Counter[str], rng: random.Random) -> Perturbed | None:
        calls = read_calls(row.inputs["output"]) if isinstance(row.inputs.get("output"), str) else None
        for method in _rarest(list(TOOL_CORRUPTIONS), used, rng) if calls else ():
            changed = TOOL_CORRUPTIONS[method](calls or [], tool_names(row.inputs.get("tools")), rng)
            if changed is not None:
                whole: Any = changed if row.inputs["output"].lstrip().startswith("[") else changed[0]
                return {**row.inputs, "output": dump(whole, row.inputs["output"])}, method
        return None

    return make


def _personal(seed: int) -> Maker:
    people = People(seed)

    def make(row: Example, _others: Sequence[str], _used: Counter[str], rng: random.Random) -> Perturbed | None:
        field = next((name for name in ("output", "input", "context") if isinstance(row.inputs.get(name), str)), None)
        if field is None:
            return None
        sentence, kind = people.sentence(rng)
        return {**row.inputs, field: placed(row.inputs[field], sentence, rng)}, kind

    return make


def _noise(_seed: int) -> Maker:
    def make(row: Example, _others: Sequence[str], used: Counter[str], rng: random.Random) -> Perturbed | None:
        for method in _rarest(list(NOISES), used, rng):
            made = noisy_fields(row.inputs, method, rng)
            if content_key(made) != row.content_key:  # case and spacing alone make no new example: training leaves repeated texts out
                return made, method
        return None

    return make


_MAKERS: dict[Kind, Callable[[int], Maker]] = {
    "grounding": _grounding,
    "injection": _inserted(attack, "injection"),
    "harmless": _inserted(harmless, "harmless look-alike"),
    "tools": _tools,
    "personal": _personal,
    "noise": _noise,
}
