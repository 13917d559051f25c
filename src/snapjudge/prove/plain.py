"""The proof in plain words: what the judge does, how often it errs, what it promises, where it must not be used. Every sentence follows from a figure.

Knows nothing of HTML.
"""

from collections.abc import Sequence

from snapjudge.core.rules import ThresholdRule
from snapjudge.prove.figures import LOWER_IS_BETTER, Figure
from snapjudge.prove.probes import Probe
from snapjudge.prove.proof import Proof, Slice

_FEW = 300
_SPELLED = 3  # labels that are named in every sentence about them
COUNTED = {"fpr": "negatives", "recall": "positives", "precision": "flagged examples", "cost": "examples", "agreement": "examples"}


def more_labels(needed: int, counted: str) -> str:
    """What it would take to support a promise: at least so many more, or none that would do."""
    return f"at least {needed} more {counted} are needed" if needed else "more labels alone would not help, the judge must be better"


def what_it_does(proof: Proof) -> str:
    """One sentence on the question and the answers."""
    asked = f"It reads one piece of text and answers one question: “{proof.question}”"
    if proof.positive:
        return f"{asked} It flags what it calls {_named(proof.positive)}, with a probability."
    return f"{asked} It answers with one of {_named(tuple(proof.labels))}, with a probability for each."


def how_often_it_errs(proof: Proof) -> list[str]:
    """Errors per hundred, with the range the data allows, and beside what a simple model of words does."""
    found, figures = [], proof.judge_figures
    total = sum(proof.labels.values())
    if proof.positive:
        bad = _named(proof.positive) if len(proof.positive) <= _SPELLED else f"one of those {len(proof.positive)}"
        if "recall" in figures:
            found.append(f"Of 100 texts that are {bad}, it flags about {_per_hundred(figures['recall'])}; the others go unnoticed.")
        if "fpr" in figures:
            found.append(f"Of 100 texts that are not, it flags about {_per_hundred(figures['fpr'])} by mistake.")
        if "precision" in figures:
            share = sum(proof.labels[name] for name in proof.positive) / max(1, total)
            found.append(
                f"When it flags, it is right about {_per_hundred(figures['precision'])} times of 100, where {share:.0%} of texts are {bad} as in the test; "
                "where they are rarer, more of its flags are mistakes."
            )
    if "accuracy" in figures:
        found.append(f"It gives the right label to about {_per_hundred(figures['accuracy'])} of 100 texts.")
    if "mae" in figures:
        figure = figures["mae"]
        found.append(f"Its level is off by {figure.value:.2f} on average ({figure.low:.2f} to {figure.high:.2f}).")
    baseline = next((one for one in proof.contenders if one.name.startswith("TF-IDF")), None)
    own, other = figures.get(proof.main_figure), baseline.figures.get(proof.main_figure) if baseline else None
    if own and other:
        better = "better than" if own.low > other.value else "worse than" if own.high < other.value else "not told apart from"
        found.append(f"In ranking it is {better} a simple model of words on the same data ({own.value:.2f} against {other.value:.2f} {proof.main_figure}).")
    seen = "some of which it was trained on" if any("--allow-leak" in note for note in proof.notes) else "it had never seen"
    found.append(f"These numbers come from {total} labelled texts {seen}; the ranges in brackets hold the true value about 95 times of 100.")
    return found


def what_it_promises(proof: Proof) -> list[str]:
    """Its guarantees, kept and not kept."""
    threshold, escalation = proof.calibration.threshold, proof.calibration.escalation
    found = []
    if threshold.rule is not None:
        kept = "is kept" if threshold.guaranteed else "could NOT be supported by the calibration data"
        found.append(f"{_promise(threshold.rule)} ({threshold.rule}). This {kept}, for traffic like the calibration data.")
        if beyond := _beyond_promise(proof):
            figure, wholly = beyond
            found.append(
                f"The test CONTRADICTS it: there it is {_of_hundred(figure, 0)}; this traffic is not like the calibration data."
                if wholly
                else f"The test does not confirm it: there it is {_of_hundred(figure, 1)}; its texts are too few, or of too few groups, to tell."
            )
    if escalation is not None:
        if escalation.guaranteed:
            share = proof.selective.coverage if proof.selective else None
            answered = f"; on the test it answers {_per_hundred(share)} of 100 itself" if share else ""
            found.append(f"Where it answers itself, {escalation.rule} is promised{answered}. The rest should go to someone else.")
        else:
            found.append(f"The promise {escalation.rule} could NOT be supported: nothing should rest on its answer alone.")
    missed = [gate.gate for gate in proof.gates if not gate.passed]
    if missed:
        found.append(f"It MISSED {len(missed)} of {len(proof.gates)} gates: {', '.join(missed)}.")
    return found or ["It promises nothing: no rule was asked for."]


def _beyond_promise(proof: Proof) -> tuple[Figure, bool] | None:
    """The test's figure where it lies beyond what the threshold promises, and whether all of its interval does: a contradiction, else it may be chance."""
    threshold = proof.calibration.threshold
    rule = threshold.rule if threshold.guaranteed else None
    figure = None if rule is None else proof.judge_figures.get(rule.figure)
    if rule is None or figure is None:
        return None
    at_most = rule.figure == "fpr"
    wholly = figure.low > rule.bound if at_most else figure.high < rule.bound
    beyond = figure.value > rule.bound if at_most else figure.value < rule.bound
    return (figure, wholly) if beyond or wholly else None


def _promise(rule: ThresholdRule) -> str:
    """A rule as a sentence."""
    bound, sure = f"{100 * rule.bound:g}", f"with {100 * rule.confidence:g} % confidence"
    if rule.figure == "fpr":
        return f"Of 100 texts that are fine, at most {bound} are flagged, {sure}"
    if rule.figure == "recall":
        return f"Of 100 texts that should be flagged, at least {bound} are, {sure}"
    if rule.figure == "precision":
        return f"Of 100 flagged texts, at least {bound} should be, {sure}"
    return (
        f"A text costs at most {rule.bound:g} on average, a false alarm counted {rule.costs[0]:g} and a miss {rule.costs[1]:g}, {sure}"
        if rule.costs
        else str(rule)
    )


def where_not_to_use_it(proof: Proof) -> list[str]:
    """Limits that the data shows."""
    total = sum(proof.labels.values())
    found = ["On traffic unlike the test: another language, product or kind of text. Prove it there first."]
    if total < _FEW:
        found.append(f"Where errors of a few in a hundred matter: {total} test texts are too few to tell.")
    if beyond := _beyond_promise(proof):
        figure, wholly = beyond
        unconfirmed = f"Where all rests on its promise: the test does not confirm it ({_of_hundred(figure, 1)})."
        found.append("On texts like this test: its promise does not hold here." if wholly else unconfirmed)
    found += [f"On texts of {_sliced(one)}: clearly worse there ({_slice_figures(one, proof)})." for one in worse_slices(proof)]
    found += [_probed(one) for one in proof.probes if not one.fine]
    found += [f"Read this as well: {note}." for note in proof.notes if any(sign in note for sign in ("--allow-leak", "cannot support", "all but even"))]
    return found


def limits(proof: Proof) -> list[str]:
    """The same limits in a few words each, the worst first: what the test contradicts, what flips verdicts, where the main figure is clearly worse."""
    found = []
    if beyond := _beyond_promise(proof):
        figure, wholly = beyond
        found.append("promise not kept on its test" if wholly else f"promise not confirmed on its test: {_of_hundred(figure, 1)}")
    flips = sorted(((one.rate.value, one.name) for one in proof.probes if not one.fine and one.rate is not None), reverse=True)
    found += [f"{name} flips {rate:.0%}" for rate, name in flips]
    return found + [f"{_sliced(one)}: {one.figures[proof.main_figure].value:.2f}" for one in worse_slices(proof)]


def worse_slices(proof: Proof) -> list[Slice]:
    """Parts of the test on which the main figure's interval lies wholly on the bad side of the whole test's value."""
    whole = proof.judge_figures.get(proof.main_figure)
    if whole is None:
        return []
    found = []
    for one in proof.slices:
        own = one.figures.get(proof.main_figure)
        if own is not None and (own.low > whole.value if proof.main_figure in LOWER_IS_BETTER else own.high < whole.value):
            found.append(one)
    return found


def _slice_figures(one: Slice, proof: Proof) -> str:
    own, whole = one.figures[proof.main_figure], proof.judge_figures[proof.main_figure]
    return f"{proof.main_figure} {own.value:.2f} instead of {whole.value:.2f}, {one.examples} texts"


def _sliced(one: Slice) -> str:
    return f"{one.value} characters" if one.by == "characters" else f"{one.by} {one.value}"


def _probed(probe: Probe) -> str:
    assert probe.rate is not None
    if probe.name == "batch neighbours":
        return "In batches: scores depend on what else is in the batch. This is a fault; report it."
    return f"Where texts come with {probe.name}: {probe.rate.value:.0%} of its verdicts changed ({probe.rate.low:.0%} to {probe.rate.high:.0%})."


def _per_hundred(figure: Figure) -> str:
    return f"{100 * figure.value:.0f} ({100 * figure.low:.0f} to {100 * figure.high:.0f})"


def _of_hundred(figure: Figure, digits: int) -> str:
    value, low, high = (f"{100 * number:.{digits}f}" for number in (figure.value, figure.low, figure.high))
    return f"{value} of 100 ({low} to {high})"


def _named(names: Sequence[str]) -> str:
    return " or ".join(f"“{name}”" for name in names)
