"""The plan: nothing lost, nothing twice, budgets kept, no starvation, refusals that tell when to come again."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapjudge.engine.plan import Limits, Work, in_order, next_step, seconds_until_done
from snapjudge.engine.plan import admit as admit_queued

LIMITS = Limits(step_tokens=256)
RATE = 1000.0  # tokens per second


def work(number=0, tokens=100, readouts=(10,), *, arrived=0.0, divisible=False, content=None, deadline=None):
    return Work(number, arrived, number if content is None else content, tokens, divisible, tuple(readouts), deadline)


def admit(one, waiting, running, now, rate, limits):
    return admit_queued(one, waiting, len(waiting), sum(other.cost for other in waiting), running, now, rate, limits)


def works():
    one = st.tuples(
        st.integers(0, 600), st.lists(st.integers(1, 40), min_size=1, max_size=30), st.booleans(), st.integers(0, 5), st.floats(0, 10, allow_nan=False)
    )
    return st.lists(one, min_size=1, max_size=12).map(_as_works)


def _as_works(drawn):
    """Works of one content share its length and kind, as they do in the engine."""
    lengths = {}
    made = []
    for number, (tokens, readouts, divisible, content, arrived) in enumerate(drawn):
        length, parts = lengths.setdefault(content, (tokens, divisible))
        made.append(work(number, length, readouts, arrived=arrived, divisible=parts, content=content))
    return made


class Engine:
    """Runs steps on paper: contents and readouts are counted down as a device would."""

    def __init__(self, limits):
        self.limits, self.now, self.waiting = limits, 10.0, {}
        self.read, self.steps = {}, []

    def add(self, one):
        self.waiting[one.number] = one
        self.read[one.number] = 0

    def step(self):
        shares = next_step(self.waiting.values(), self.now, RATE, self.limits)
        computed, used = {}, 0
        for share in shares:
            one = self.waiting[share.number]
            if share.tokens:
                assert one.content not in computed, "a content computed twice in one step"
                computed[one.content] = share.tokens
                used += share.tokens
            used += sum(one.readouts[: share.readouts])
        for share in shares:
            one = self.waiting[share.number]
            assert not share.readouts or computed.get(one.content, 0) == one.tokens, "read before its content was whole"
            self.read[share.number] += share.readouts
        for number, one in list(self.waiting.items()):
            done = next((share.readouts for share in shares if share.number == number), 0)
            left = replace(one, tokens=one.tokens - computed.get(one.content, 0), readouts=one.readouts[done:])
            self.waiting[number] = left
            if not left.readouts and not left.tokens:
                del self.waiting[number]
        self.now += used / RATE
        self.steps.append((used, shares))
        return shares, used


@given(works(), st.integers(16, 300))
@settings(max_examples=300, deadline=None)
def test_everything_is_computed_once_and_nothing_is_lost(some, budget):
    engine = Engine(Limits(step_tokens=budget))
    for one in some:
        engine.add(one)
    total = sum(len(one.readouts) for one in some)
    for _ in range(2000):
        if not engine.waiting:
            break
        shares, _ = engine.step()
        assert shares, "works wait and the step is empty"
        assert len({share.number for share in shares}) == len(shares)
    assert not engine.waiting
    assert engine.read == {one.number: len(one.readouts) for one in some}
    assert sum(engine.read.values()) == total


@given(works(), st.integers(16, 300))
@settings(max_examples=300, deadline=None)
def test_a_step_keeps_to_its_budget_but_for_one_piece_that_cannot_be_divided(some, budget):
    engine = Engine(Limits(step_tokens=budget))
    for one in some:
        engine.add(one)
    for _ in range(2000):
        if not engine.waiting:
            break
        before = dict(engine.waiting)
        shares, used = engine.step()
        if used > budget:
            (share,) = shares
            one = before[share.number]
            whole = not one.divisible and share.tokens == one.tokens > budget
            assert (whole and share.readouts == 0) or (share.tokens == 0 and share.readouts == 1)


def test_the_shortest_remaining_work_goes_first():
    assert [one.number for one in in_order([work(1, 300), work(2, 20), work(3, 100)], 0.0, RATE, LIMITS)] == [2, 3, 1]


@pytest.mark.parametrize("divisible", [True, False])
def test_a_long_request_is_not_starved_by_a_stream_of_short_ones(divisible):
    engine = Engine(LIMITS)
    engine.add(work(0, 2000, divisible=divisible, arrived=engine.now))
    began = engine.now
    numbers = itertools.count(1)
    for _ in range(1000):
        while sum(one.cost for one in engine.waiting.values() if one.number) < LIMITS.step_tokens:  # always a full step of short ones
            engine.add(work(next(numbers), 20, (6,), arrived=engine.now))
        engine.step()
        if 0 not in engine.waiting:
            break
    waited = engine.now - began
    assert 0 not in engine.waiting
    assert waited < 2 * 2010 / (LIMITS.ageing * RATE) + 2010 / RATE


def test_work_that_shares_a_content_in_a_step_pays_for_it_once():
    shares = next_step([work(1, 100, content="c"), work(2, 100, content="c")], 0.0, RATE, LIMITS)
    assert [(share.number, share.tokens, share.readouts) for share in shares] == [(1, 100, 1), (2, 0, 1)]


def test_a_content_that_stays_unfinished_in_a_step_is_read_by_nobody():
    shares = next_step([work(1, 1000, content="c", divisible=True), work(2, 1000, (5,), content="c", divisible=True)], 0.0, RATE, LIMITS)
    assert len(shares) == 1
    assert shares[0].tokens == LIMITS.step_tokens
    assert shares[0].readouts == 0


def test_many_readouts_of_one_content_are_spread_over_steps():
    (share,) = next_step([work(1, 56, [50] * 10)], 0.0, RATE, LIMITS)
    assert (share.tokens, share.readouts) == (56, 4)


def test_an_early_deadline_is_refused_at_once_with_the_time_to_retry():
    waiting = [work(number, 90, (10,)) for number in range(20)]
    late = work(99, 190, (10,), deadline=1.0)
    refusal = admit(late, waiting, 0, 0.0, RATE, LIMITS)
    assert refusal is not None
    assert "deadline" in refusal.reason
    assert refusal.retry_after == pytest.approx(seconds_until_done(late, waiting, 0, 0.0, RATE, LIMITS) - 1.0)
    assert admit(replace(late, deadline=5.0), waiting, 0, 0.0, RATE, LIMITS) is None


def test_a_deadline_no_empty_queue_could_keep_is_never_to_be_retried():
    refusal = admit(work(1, 5000, deadline=1.0), [], 0, 0.0, RATE, LIMITS)
    assert refusal is not None
    assert refusal.retry_after is None


def test_a_full_queue_refuses_with_the_time_to_retry():
    limits = LIMITS.model_copy(update={"waiting_requests": 3, "waiting_tokens": 400})
    waiting = [work(number) for number in range(3)]
    by_count = admit(work(9), waiting, 0, 0.0, RATE, limits)
    by_tokens = admit(work(9, 200), waiting[:2], 0, 0.0, RATE, limits)
    assert by_count is not None
    assert by_count.retry_after is not None
    assert by_count.retry_after > 0
    assert by_tokens is not None
    assert by_tokens.retry_after == pytest.approx((2 * 110 + 210 - 400) / RATE)
    assert admit(work(9, 100_000), [], 0, 0.0, RATE, limits) is None  # alone in the queue, whatever its size


@given(works(), st.floats(0.001, 30))
@settings(max_examples=200, deadline=None)
def test_what_is_let_in_is_done_in_time_when_nothing_else_comes(some, allowed):
    *waiting, last = some
    engine = Engine(LIMITS)
    last = replace(last, arrived=engine.now, deadline=engine.now + allowed, content="its own")
    waiting = [replace(one, content=one.number) for one in waiting]
    if admit(last, waiting, 0, engine.now, RATE, LIMITS) is not None:
        return
    for one in (*waiting, last):
        engine.add(one)
    while last.number in engine.waiting:
        engine.step()
    assert engine.now <= last.deadline + 3 * 600 / RATE  # pieces that cannot be divided may push a step past its budget
