"""LLM judge, small judge or both? What each would cost a month, where they break even, and what rules one out. Pure arithmetic on stated terms."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from snapjudge.core.frozen import Frozen
from snapjudge.pages import render_page
from snapjudge.pages.pictures import costs

Option = Literal["LLM judge", "small judge", "both"]
DAYS = 30.0
FEWEST_LABELS = 300
_PEAK = 4.0  # busiest second over the mean one
_HEADROOM = 0.6  # of a machine's capacity that is planned with


class Terms(Frozen):
    """The situation. Money in dollars; every default is a common value to be replaced by one's own."""

    volume: float = Field(gt=0, description="texts a day that should be checked")
    tokens: float = Field(default=500, gt=0, description="of one text with its context")
    prompt_tokens: float = Field(default=400, ge=0, description="of the LLM judge's instructions")
    answer_tokens: float = Field(default=60, ge=0, description="of its answer")
    input_price: float = Field(default=2.5, ge=0, description="per million input tokens")
    output_price: float = Field(default=10.0, ge=0, description="per million output tokens")
    llm_seconds: float = Field(default=1.5, gt=0, description="for one verdict of the LLM judge")
    milliseconds: float = Field(default=40.0, gt=0, description="of one machine for one text with the small judge")
    machine: float = Field(default=80.0, ge=0, description="a month")
    labels: int = Field(default=0, ge=0, description="examples labelled by people under today's criteria")
    label_price: float = Field(default=0.6, ge=0, description="for one label")
    labels_wanted: int = Field(default=800, ge=0, description="for a judge with a proof worth reading, each time the criteria change")
    changes: float = Field(default=1.0, ge=0, description="of the criteria a year")
    latency: float | None = Field(default=None, gt=0, description="milliseconds within which a verdict is needed; none: it may come later")
    escalated: float = Field(default=0.1, ge=0, le=1, description="share that the small judge leaves to the LLM judge")


class Choice(Frozen):
    """One option: dollars a month, what they are made of, and what speaks against it; `ruled_out` if it cannot do what is asked."""

    option: Option
    month: float
    parts: dict[str, float]
    against: tuple[str, ...] = ()
    ruled_out: bool = False


class Advice(Frozen):
    """The answer: options with their costs, the one advised and why, and the volume a day from which a small judge is cheaper than the LLM alone."""

    terms: Terms
    choices: tuple[Choice, ...]
    advised: Option
    why: str
    break_even: float | None
    llm_per_1000: float


def advise(terms: Terms) -> Advice:
    """Compare the three options."""
    choices = (_llm(terms), _small(terms), _both(terms))
    possible = [one for one in choices if not one.ruled_out]
    cheapest = min(possible or choices, key=lambda one: one.month)
    why = _why(cheapest, choices, possible, terms)
    return Advice(terms=terms, choices=choices, advised=cheapest.option, why=why, break_even=break_even(terms), llm_per_1000=1000 * llm_price(terms))


def llm_price(terms: Terms) -> float:
    """Dollars for one verdict of the LLM judge."""
    return ((terms.tokens + terms.prompt_tokens) * terms.input_price + terms.answer_tokens * terms.output_price) / 1e6


def machines(terms: Terms, volume: float) -> int:
    """Machines for a volume a day at its busiest second; at least one."""
    busy = volume / 86_400 * _PEAK * terms.milliseconds / 1000 / _HEADROOM
    return max(1, -int(-busy // 1))


def _labels_month(terms: Terms) -> float:
    """Labels for the first version, less those there are, over a year; and for every change of the criteria."""
    first = max(0, terms.labels_wanted - terms.labels)
    return (first + terms.changes * terms.labels_wanted) * terms.label_price / 12


def _llm(terms: Terms) -> Choice:
    month = terms.volume * DAYS * llm_price(terms)
    slow = terms.latency is not None and terms.latency < 1000 * terms.llm_seconds
    against = (f"a verdict takes {terms.llm_seconds:g} s, {terms.latency:g} ms are allowed",) if slow else ()
    return Choice(option="LLM judge", month=month, parts={"verdicts": month}, against=against, ruled_out=slow)


def _small(terms: Terms) -> Choice:
    parts = {"machines": machines(terms, terms.volume) * terms.machine, "labels": _labels_month(terms)}
    against, out = [], False
    if max(terms.labels, terms.labels_wanted) < FEWEST_LABELS:
        against.append(f"fewer than {FEWEST_LABELS} labels in sight: no proof could tell whether it works")
        out = True
    if terms.changes > 12:
        against.append("the criteria change more than once a month: a judge would be out of date when it is proved")
        out = True
    elif terms.changes > 3:
        against.append(f"criteria that change {terms.changes:g} times a year are labelled anew each time")
    if terms.latency is not None and terms.latency < terms.milliseconds:
        against.append(f"{terms.milliseconds:g} ms on this machine, {terms.latency:g} ms are allowed: a faster machine or a smaller backbone is needed")
        out = True
    return Choice(option="small judge", month=sum(parts.values()), parts=parts, against=tuple(against), ruled_out=out)


def _both(terms: Terms) -> Choice:
    small = _small(terms)
    parts = {**small.parts, "escalated verdicts": terms.escalated * terms.volume * DAYS * llm_price(terms)}
    late = terms.latency is not None and terms.latency < 1000 * terms.llm_seconds
    against = [
        *small.against,
        *([f"the {terms.escalated:.0%} escalated come after {terms.llm_seconds:g} s: hold them back, or decide without"] if late else []),
    ]
    return Choice(option="both", month=sum(parts.values()), parts=parts, against=tuple(against), ruled_out=small.ruled_out)


def break_even(terms: Terms) -> float | None:
    """Texts a day from which on the small judge costs less than the LLM judge, with as many machines as it takes; None if never.

    With k machines it costs less from (k machines + labels) / price on; a further machine may put it above the LLM judge once more, so the last
    such volume counts.
    """
    price = DAYS * llm_price(terms)
    capacity = 86_400 * 1000 * _HEADROOM / (_PEAK * terms.milliseconds)  # of one machine
    if price <= 0 or terms.machine >= price * capacity:
        return None
    labels, edge = _labels_month(terms), 0.0
    for count in range(1, 100_000):
        pays = (count * terms.machine + labels) / price
        if pays <= (count - 1) * capacity:  # paid for before it is needed, and so are all further ones
            return edge
        if pays <= count * capacity:
            edge = pays
    return None


def _why(best: Choice, choices: Sequence[Choice], possible: Sequence[Choice], terms: Terms) -> str:
    if not possible:
        return "Nothing does all that is asked; this is the cheapest. See what speaks against it."
    others = [one for one in choices if one is not best]
    told = "; ".join(f"{one.option} ${one.month:,.0f}{' (ruled out)' if one.ruled_out else ''}" for one in others)
    hint = ""
    both = next(one for one in choices if one.option == "both")
    if best.option == "small judge" and not both.ruled_out:
        more = both.month - best.month
        hint = f" For ${more:,.0f} more a month its unsure {terms.escalated:.0%} go to the LLM judge: worth it where single errors are dear."
    return f"It costs about ${best.month:,.0f} a month; {told}.{hint}"


def render_advice(advice: Advice) -> str:
    """plan.html."""
    top = max(advice.terms.volume, advice.break_even or 0) * 2
    points = [top * part / 40 for part in range(1, 41)]
    lines: dict[str, list[tuple[float, float]]] = {
        one.option: [(volume, choice.month) for volume in points for choice in _at(advice.terms, volume) if choice.option == one.option]
        for one in advice.choices
    }
    return render_page("plan.html.j2", advice=advice, picture=costs("Dollars a month by texts a day", lines, mark=advice.terms.volume))


def _at(terms: Terms, volume: float) -> tuple[Choice, ...]:
    moved = terms.model_copy(update={"volume": volume})
    return _llm(moved), _small(moved), _both(moved)
