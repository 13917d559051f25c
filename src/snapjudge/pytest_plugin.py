"""Judges in tests: `assert_judged(text, judge="toxicity", below=0.2)`, as a fixture and to be imported.

A server is asked where SNAPJUDGE_URL names one; otherwise the judge is loaded in the test's own process, once. pytest loads this where snapjudge is installed;
nothing heavy is imported before it is used.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from snapjudge.client import Client
    from snapjudge.judge import Judge


class _Answer(Protocol):
    @property
    def label(self) -> str | None: ...
    @property
    def score(self) -> float | None: ...
    @property
    def flagged(self) -> bool: ...


def assert_judged(
    text: str | None = None,
    *,
    judge: str,
    below: float | None = None,
    above: float | None = None,
    label: str | None = None,
    flagged: bool | None = None,
    **fields: Any,
) -> float:
    """Assert what a judge says of a text, or of fields by their names; the score it gives.

    Args:
        text: goes to the judge's output field, or the last that it reads.
        below, above: bounds on the score; where nothing is asserted, that the judge does not flag it.
        label: the label it must have.
        flagged: whether it must be flagged.
    """
    __tracebackhide__ = True
    answer = _asked(judge, text, fields)
    score = answer.score if answer.score is not None else float("nan")
    if below is None and above is None and label is None and flagged is None:
        flagged = False
    wrong = []
    if below is not None and not score < below:
        wrong.append(f"below {below:g}")
    if above is not None and not score > above:
        wrong.append(f"above {above:g}")
    if label is not None and answer.label != label:
        wrong.append(f"label {label}")
    if flagged is not None and answer.flagged != flagged:
        wrong.append("flagged" if flagged else "not flagged")
    if wrong:
        shown = text if text is not None else ", ".join(f"{name}={value!r}" for name, value in fields.items())
        said = f"{judge} says {answer.label} ({score:.3f}{', flagged' if answer.flagged else ''})"
        raise AssertionError(f"{said}, expected {' and '.join(wrong)}: {str(shown)[:300]}")
    return score


@pytest.fixture(name="assert_judged")
def _assert_judged() -> Callable[..., float]:
    """`assert_judged`, for tests that would rather not import it."""
    return assert_judged


def _asked(judge: str, text: str | None, fields: dict[str, Any]) -> _Answer:
    if os.environ.get("SNAPJUDGE_URL"):
        client = _client()
        if text is not None:
            fields = {**fields, next(one.text_field for one in client.judges().judges if judge in one.names): text}
        return client.score(judge, **fields)
    own = _judge(judge)
    if text is not None:
        fields = {**fields, own.metric.place_of_text(fields): text}
    return own.score(**fields)


@cache
def _client() -> "Client":
    from snapjudge.client import Client  # noqa: PLC0415 - only where a server is asked

    return Client()


@cache
def _judge(name: str) -> "Judge":
    from snapjudge.judge import Judge  # noqa: PLC0415 - torch is not loaded before it is needed

    return Judge.load(name)
