"""What a judge reaches on data sets that it did not learn from, measured apart from its proof and kept beside the bundles: a proof knows its own test only.

A folder of judges may hold an `elsewhere.json`: judge -> the digest of the bundle that was measured, and what was found on each set. What belongs to
another version of a bundle is not shown.
"""

from pydantic import ValidationError

from snapjudge.core.frozen import Frozen
from snapjudge.prove.report import NAMES
from snapjudge.store.bundles import Bundle

FILE = "elsewhere.json"
Interval = tuple[float, float, float]  # a value and its 95 % interval


class Elsewhere(Frozen):
    """What was found on one data set.

    Args:
        retrained: found by another judge and backbone, trained without the set since the judge itself learned from it: shorter, on fewer rows, by the
            recipe as it was then (docs/judges.md). It tells of the kind of judge, not of this one.
        figures: figure -> value, low, high; `fpr` at the threshold that ships.
    """

    data: str
    retrained: bool
    figures: dict[str, Interval]


class Measured(Frozen):
    """What was found of one bundle."""

    digest: str
    sets: tuple[Elsewhere, ...]


class ElsewhereFile(Frozen):
    """The file: judge (NAME@VERSION) -> what was found."""

    judges: dict[str, Measured]


def elsewhere(bundle: Bundle) -> tuple[Elsewhere, ...]:
    """What is known of this very bundle on data sets that it did not learn from; empty where nothing was measured or the file cannot be read."""
    try:
        listing = ElsewhereFile.model_validate_json((bundle.folder.parents[1] / FILE).read_bytes())
    except (OSError, ValidationError):
        return ()
    found = listing.judges.get(bundle.manifest.judge)
    return found.sets if found is not None and found.digest == bundle.digest else ()


def in_words(found: tuple[Elsewhere, ...]) -> list[str]:
    """A sentence for each data set."""
    lines = []
    for one in found:
        told = [f"{NAMES.get(name, name)} {value:.2f} ({low:.2f} to {high:.2f})" for name, (value, low, high) in one.figures.items() if name != "fpr"]
        if rate := one.figures.get("fpr"):
            told.append(f"flags {rate[0]:.0%} of what is fine ({rate[1]:.0%} to {rate[2]:.0%})")
        lines.append(f"{'trained again without ' if one.retrained else ''}{one.data}: {', '.join(told)}")
    return lines


def in_short(found: tuple[Elsewhere, ...]) -> str:
    """The range of the ranking figures and the worst false alarms, in a few words."""
    told = []
    for name in sorted({name for one in found for name in one.figures if name != "fpr"}):
        values = [one.figures[name][0] for one in found if name in one.figures]
        several = f"{min(values):.2f} to {max(values):.2f} on {len(values)} data sets" if len(values) > 1 else f"{values[0]:.2f} on one data set"
        told.append(f"{NAMES.get(name, name)} {several}")
    rates = [one.figures["fpr"] for one in found if "fpr" in one.figures]
    if rates:
        rate, low, high = max(rates)
        told.append(f"flags {rate:.0%} ({low:.0%} to {high:.0%}) of what is fine{', at the worst' if len(rates) > 1 else ''}")
    return "; ".join(told) or "not measured"
