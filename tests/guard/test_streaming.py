"""Texts guarded while they are written, on real engines: what was let through, what never reached the reader, and when."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapjudge.core.policy_terms import Streaming
from snapjudge.errors import RequestTooLarge, UpstreamFailed
from snapjudge.guard.policy_file import parse_policy
from snapjudge.guard.streaming import Ending, Piece, StreamGuard
from snapjudge.live.host import HostTerms
from snapjudge.live.judges import LiveJudges

pytestmark = pytest.mark.flow
NICE = "Your order is on its way. It left our house this morning, and the driver will ring twice. "
RUDE = "You are a complete idiot, you stupid worthless moron. Shut up and go to hell. "
JUDGED = """\
name: p
fail: closed
deadline_ms: 60000
stages:
  output:
    - {name: rude, rules: [{judge: toxicity, gte: 0.5}], action: {block: {message: "Stopped."}}}
"""
WORDS = """\
name: words
stages:
  output:
    - {name: secret, rules: [{keywords: [swordfish]}], action: {override: "Let us talk of {ruleset}s."}}
"""


@pytest.fixture(scope="module")
def judges(loop):
    live = loop(LiveJudges.start(HostTerms(processes=1, open_questions=False), ["toxicity", "pii_card", "tone"]))
    yield live
    loop(live.close())


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield lambda work: runner.run(asyncio.wait_for(work, 120))


def policy_of(text, **streaming):
    return parse_policy(text, "p.yaml").model_copy(update={"streaming": Streaming(**streaming)})


async def read(judges, policy, chunks, *, pause=0.0, inputs=None):
    async def written():
        for chunk in chunks:
            await asyncio.sleep(pause)
            yield chunk

    pieces, ending = [], None
    async for one in StreamGuard(judges, policy, "output", inputs or {}).run(written()):
        if isinstance(one, Ending):
            ending = one
        else:
            assert isinstance(one, Piece)
            assert ending is None
            pieces.append(one.text)
    return "".join(pieces), ending


def words(text):
    return [f"{word} " for word in text.split()]


def test_a_fine_text_comes_through_whole_and_before_it_is_whole(loop, judges):
    async def work():
        order = []

        async def written():
            for chunk in words(NICE * 4):
                order.append("written")
                await asyncio.sleep(0.01)
                yield chunk

        guard = StreamGuard(judges, policy_of(JUDGED), "output", {"input": "Where is it?"})
        found = [(one, order.append("read")) async for (one,) in _singly(guard.run(written()))]
        return [one for one, _ in found], order

    found, order = loop(work())
    assert "".join(one.text for one in found[:-1]) == "".join(words(NICE * 4)) == found[-1].response.text
    ending = found[-1]
    assert not ending.stopped
    assert ending.response.action == "allow"
    assert ending.looks > 2
    assert "written" in order[order.index("read") :]  # before it was whole


async def _drained(source):
    async for _ in source:
        pass


async def _singly(source):
    async for one in source:
        yield (one,)


def test_what_two_looks_agree_on_never_reaches_the_reader_and_the_writer_is_left(loop, judges):
    written, text = 0, words(NICE + RUDE + NICE * 60)

    async def work():
        nonlocal written
        first = asyncio.Event()

        async def chunks():
            nonlocal written
            for chunk in text:
                if written == len(words(NICE)):
                    await first.wait()  # something was let through before the rest is written
                written += 1
                await asyncio.sleep(0.005)
                yield chunk

        found = []
        async for one in StreamGuard(judges, policy_of(JUDGED), "output", {}).run(chunks()):
            found.append(one)
            first.set()
        return found

    *pieces, ending = loop(work())
    given = "".join(one.text for one in pieces)
    assert "idiot" not in given
    assert given
    assert NICE.startswith(given)
    assert ending.stopped
    assert ending.instead == "Stopped."
    assert ending.response.text == given
    assert written < len(text)


def test_one_look_alone_holds_a_text_up_and_the_next_lets_it_go(loop, judges):
    """Of a keyword that has to be there *and* a judge: the first look fires, the next does not, and nothing is lost."""
    text = """\
name: p
fail: closed
deadline_ms: 60000
streaming: {hard: null, sentences: false, every: 8}
stages:
  output:
    - {name: short, rules: [{judge: tone, gte: 0.0}, {not: {keywords: [later]}}], action: block}
"""
    chunks = words("one two three four five six seven eight nine ten eleven later twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty")
    given, ending = loop(read(judges, parse_policy(text, "p.yaml"), chunks, pause=0.05))
    assert given == "".join(chunks)
    assert not ending.stopped


def test_a_hard_score_and_a_keyword_stop_at_once(loop, judges):
    given, ending = loop(read(judges, policy_of(JUDGED, hard=0.5, agree=8), words(NICE + RUDE * 3), pause=0.01))
    assert ending.stopped
    assert "idiot" not in given
    given, ending = loop(read(judges, policy_of(WORDS, agree=8, hard=None), words("the word is swordfish and not that " * 3), pause=0.01))
    assert ending.stopped
    assert "swordfish" not in given
    assert ending.instead == "Let us talk of secrets."
    assert ending.response.action == "override"


def test_the_last_look_counts_alone(loop, judges):
    given, ending = loop(read(judges, policy_of(JUDGED, agree=8, hard=None), [NICE + RUDE]))
    assert (given, ending.stopped) == ("", True)


def test_personal_data_is_taken_out_on_the_way(loop, judges):
    policy = parse_policy(
        "name: p\nfail: closed\ndeadline_ms: 60000\nstreaming: {hard: 0.5}\nstages: {output: [{name: card, rules: [pii_card], action: redact}]}", "p.yaml"
    )
    text = "Sure. My card is 4111 1111 1111 1111, it is valid until May. Please send the shoes to my brother's house in the north of the town. "
    for cut in range(17, 45, 4):  # wherever a look falls in the number
        given, _ = loop(read(judges, policy, [text[:cut], *words(text[cut:])], pause=0.002))
        assert "1111" not in given
        assert "brother" in given
    given, ending = loop(read(judges, policy, words(text * 2), pause=0.01))
    assert "4111" not in given
    assert "1111" not in given
    assert given.count("shoes to my brother") == 2
    assert not ending.stopped
    assert ending.response.action == "redact"
    assert ending.response.text == given


def test_a_writer_that_fails_is_told_of_after_what_was_fine(loop, judges):
    async def work():
        async def broken():
            yield NICE
            raise UpstreamFailed("it broke off")

        pieces = []
        stream = StreamGuard(judges, policy_of(JUDGED), "output", {}).run(broken())
        pieces.append(await anext(stream))
        with pytest.raises(UpstreamFailed):
            await anext(stream)
        return pieces

    assert "".join(one.text for one in loop(work())) == NICE


def test_a_text_without_end_is_given_up(loop, judges):
    async def work():
        async def endless():
            while True:
                yield "word " * 100
                await asyncio.sleep(0)

        stream = StreamGuard(judges, policy_of(WORDS), "output", {}, longest=10_000).run(endless())
        with pytest.raises(RequestTooLarge):
            await _drained(stream)

    loop(work())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from(["a ", "swordfish ", "sword", "fish ", "b. ", "\n", "", "long text without end ", "\x00", "\ud800"]), max_size=24),
    every=st.integers(1, 6),
    back=st.integers(0, 4),
    sentences=st.booleans(),
)
def test_whatever_is_written_what_is_given_is_its_beginning_and_holds_nothing_forbidden(loop, judges, parts, every, back, sentences):
    whole = "".join(parts)
    given, ending = loop(read(judges, policy_of(WORDS, every=every, hold_back=back, sentences=sentences), parts))
    assert whole.startswith(given)
    assert "swordfish" not in given.split()
    assert ending.stopped == ("swordfish" in whole.replace("\x00", " ").replace("\ud800", " ").split()) or (ending.stopped and "swordfish" in whole)
    if not ending.stopped:
        assert given == whole


def test_streams_never_mix(loop, judges):
    async def work():
        texts = [words(f"This is text number {number} and it goes on about its own number {number} for a while. " * 3) for number in range(12)]
        return texts, await asyncio.gather(*(read(judges, policy_of(JUDGED), text, pause=0.003) for text in texts))

    texts, found = loop(work())
    assert [given for given, _ in found] == ["".join(text) for text in texts]
