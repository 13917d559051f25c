"""The engine: the backbone's own bits whatever runs beside, every request answered or refused by name, adapters that change under traffic.

One file, since all tests put the same adapters, readouts and contents to an engine on the same two backbones.
"""

import gc
import random
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest
import torch

from snapjudge.engine.engine import Engine
from snapjudge.engine.plan import Limits
from snapjudge.engine.requests import Read
from snapjudge.errors import (
    AdapterInvalid,
    AdapterUnknown,
    ContentTooLong,
    DeadlineMissed,
    EngineBusy,
    EngineClosed,
    EngineFailed,
    InputInvalid,
    OutOfMemory,
)
from snapjudge.model.adapter import Adapter, new_adapter
from snapjudge.model.hub import load_backbone
from snapjudge.model.packing import Ask, NewTokens
from snapjudge.model.readout import Readout
from snapjudge.testing import write_tiny_decoder

SOON = 600  # seconds that nothing here takes, however busy the machine


@pytest.fixture(scope="module", params=["mini", "llama"])
def backbone(request, tmp_path_factory):
    if request.param == "mini":
        return load_backbone("mini")
    return load_backbone(str(write_tiny_decoder(tmp_path_factory.mktemp("llama"), "llama")))


@pytest.fixture
def llama(tmp_path):
    return load_backbone(str(write_tiny_decoder(tmp_path, "llama")))


def adapter_for(backbone, seed, scope="readout", rank=4):
    """An adapter that does something, made of its seed alone."""
    fresh = new_adapter(backbone.linears, scope=scope, rank=rank, alpha=8.0, seed=seed, invocation=(), device=backbone.device)
    generator = torch.Generator().manual_seed(seed)
    weights = {path: (down.detach(), torch.randn(up.shape, generator=generator) * 0.05) for path, (down, up) in fresh.weights.items()}
    return Adapter(scope, rank, 8.0, weights)


def readout_for(backbone, size=6):
    vocabulary = 200
    return Readout(tuple(5 + (7 * place) % vocabulary for place in range(size)), ((11, 12), (13,)))


def content_for(seed, length=None):
    rng = random.Random(seed)
    return tuple(rng.randrange(5, 200) for _ in range(length or rng.randrange(1, 90)))


def expected(backbone, ids, adapter, readout):
    """The logits of one read, alone, straight from the backbone."""
    content_adapter = adapter if adapter is not None and adapter.scope == "all" else None
    return tuple(backbone.step([NewTokens(ids, adapter=content_adapter)], [Ask(0, readout, adapter)]).logits[0].tolist())


def test_answers_are_the_backbone_s_own_to_the_bit(backbone):
    judges = {"one": adapter_for(backbone, 1), "two": adapter_for(backbone, 2, rank=16), "deep": adapter_for(backbone, 3, "all")}
    with Engine(backbone) as engine:
        for name, adapter in judges.items():
            engine.load(name, adapter)
        reads = [Read(name, readout_for(backbone, size)) for name in ("one", None, "deep", "two") for size in (3, 9)]
        futures = [(ids, engine.submit(ids, reads)) for ids in map(content_for, range(12))]
        for ids, future in futures:
            answer = future.result(SOON)
            for read, logits in zip(reads, answer.logits, strict=True):
                assert logits == expected(backbone, ids, judges.get(read.adapter), read.readout)
            assert answer.seconds >= answer.waited >= 0


@pytest.mark.flow
@pytest.mark.parametrize(
    ("family", "dtype"), [("mini", "float32"), ("llama", "float32"), ("llama", "bfloat16"), ("gemma2", "bfloat16"), ("llama", "int8"), ("mistral", "float32")]
)
def test_two_hundred_requests_in_fifty_random_packings_give_the_same_bits(family, dtype, tmp_path):
    """Any order, any step size, with and without cache hits, on one thread or two."""
    backbone = load_backbone(family if family == "mini" else str(write_tiny_decoder(tmp_path, family)), dtype=dtype)
    before = torch.get_num_threads()
    judges = {f"j{seed}": adapter_for(backbone, seed, "all" if seed % 5 == 0 else "readout", rank=(4, 16, 20)[seed % 3]) for seed in range(1, 9)}
    rng = random.Random(0)
    requests = []
    for number in range(200):
        ids = content_for(rng.randrange(60), rng.randrange(1, 40)) + (content_for(number, 5) if number % 3 else ())
        names = rng.sample([*judges, None], rng.randrange(1, 3))
        requests.append((ids, [Read(name, readout_for(backbone, rng.choice((3, 6, 6, 17)))) for name in names]))
    known = None
    try:
        for packing in range(50):
            torch.set_num_threads(1 + packing % 2)
            limits = Limits(step_tokens=rng.choice((200, 600, 2048)))
            with Engine(backbone, limits=limits, cache_bytes=rng.choice((1, 1 << 22, 1 << 28))) as engine:
                for name, adapter in judges.items():
                    engine.load(name, adapter)
                order = rng.sample(range(len(requests)), len(requests))
                futures = {number: engine.submit(*requests[number]) for number in order}
                found = [futures[number].result(SOON).logits for number in range(len(requests))]
            known = known or found
            assert found == known, f"packing {packing}"
    finally:
        torch.set_num_threads(before)


def test_what_was_read_is_not_read_again(backbone):
    with Engine(backbone) as engine:
        ids = content_for(1, 64)
        read = Read(None, readout_for(backbone))
        first, again = (engine.submit(ids, [read]).result(SOON) for _ in range(2))
        longer = engine.submit((*ids, 7, 8, 9), [read]).result(SOON)
    assert (first.cached, again.cached) == (0, 64)
    assert longer.cached == (64 if backbone.content_mask == "causal" else 0)
    assert first.logits == again.logits
    assert engine.stats.cache.hit_rate > 0.3


def test_adapters_of_two_slabs_and_readouts_of_two_lengths_each_get_their_own(llama):
    judges = {f"j{seed}": adapter_for(llama, seed, "all" if seed % 9 == 4 else "readout", rank=8) for seed in range(20)}  # more than a slab holds
    with Engine(llama) as engine:
        for name, adapter in judges.items():
            engine.load(name, adapter)
        engine.submit(content_for(0, 20), [Read(name, readout_for(llama)) for name in judges]).result(SOON)  # places them in order
        for names in (["j1", "j18", "j2"], ["j19", "j0"], ["j13", "j16", "j4", "j17"]):
            ids = content_for(len(names), 33)
            reads = [Read(name, readout_for(llama, size)) for size in (3, 9, 6) for name in names]
            answer = engine.submit(ids, reads).result(SOON)
            for read, logits in zip(reads, answer.logits, strict=True):
                assert logits == expected(llama, ids, judges[read.adapter], read.readout)


def test_a_content_that_was_put_out_while_it_waited_is_read_to_its_end(llama):
    """A short request takes the room of a content that two others wait for: none of them may read what is there of it."""
    longest, read = llama.content_tokens, Read(None, readout_for(llama))
    with Engine(llama, limits=Limits(step_tokens=64), cache_bytes=1) as engine:
        for first in range(12):
            ids = content_for(100 + first, longest - 40)
            engine.submit(ids[: longest // 2], [read]).result(SOON)
            with engine._wake:
                short = engine.submit(content_for(200 + first, longest // 2 + 8), [read])
                futures = [engine.submit(ids, [read]) for _ in range(2)]
            short.result(SOON)
            assert all(future.result(SOON).logits[0] == expected(llama, ids, None, read.readout) for future in futures)


def test_two_contents_that_do_not_fit_together_are_answered_one_after_the_other(llama):
    read = Read(None, readout_for(llama))
    with Engine(llama, limits=Limits(step_tokens=32), cache_bytes=1) as engine:
        futures = [engine.submit(content_for(seed, llama.content_tokens - 8 * seed), [read]) for seed in range(4)]
        for seed, future in enumerate(futures):
            assert future.result(SOON).logits[0] == expected(llama, content_for(seed, llama.content_tokens - 8 * seed), None, read.readout)


def test_sessions_that_keep_everything_make_room_for_a_request(llama):
    read = Read(None, readout_for(llama))
    with Engine(llama, cache_bytes=1) as engine:
        sessions = [engine.session() for _ in range(3)]
        for seed, session in enumerate(sessions):
            session.append(content_for(seed, llama.content_tokens // 3), [read]).result(SOON)
        assert engine.submit(content_for(9, llama.content_tokens), [read]).result(SOON).logits
        again = sessions[0].append((5, 6, 7), [read]).result(SOON)
        assert again.logits[0] == expected(llama, sessions[0].content, None, read.readout)


@pytest.mark.parametrize("error", [IndexError("index out of range"), FileNotFoundError("gone"), KeyError("layer")])
def test_whatever_a_step_raises_reaches_its_request_and_the_engine_goes_on(llama, error, monkeypatch):
    read, plain = Read(None, readout_for(llama)), llama.step
    with Engine(llama) as engine:
        monkeypatch.setattr(llama, "step", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(EngineFailed):
            engine.submit(content_for(1), [read]).result(SOON)
        monkeypatch.setattr(llama, "step", plain)
        assert engine.submit(content_for(1), [read]).result(SOON).logits


def test_an_engine_whose_own_code_fails_ends_every_request_and_says_so(llama, monkeypatch):
    read = Read(None, readout_for(llama))
    with Engine(llama) as engine:
        monkeypatch.setattr(engine, "_plan", lambda: 1 / 0)
        with pytest.raises(EngineFailed, match="stopped"):
            engine.submit(content_for(1), [read]).result(SOON)
        with pytest.raises(EngineClosed):
            engine.submit(content_for(1), [read])


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_token_ids_outside_the_vocabulary_are_named(llama, wrong):
    readout = readout_for(llama)
    with Engine(llama) as engine:
        for ids, asked in (((5, wrong), readout), ((5,), Readout((5, wrong), ((6,),))), ((5,), Readout((5,), ((wrong,),)))):
            with pytest.raises(InputInvalid, match=str(wrong)):
                engine.submit(ids, [Read(None, asked)])
        with pytest.raises(InputInvalid, match="labels"):
            engine.submit((5,), [Read(None, Readout((5,), ()))])


def test_a_callback_may_come_back_to_the_engine_and_the_session(llama):
    read, done = Read(None, readout_for(llama)), threading.Event()
    with Engine(llama) as engine, engine.session() as session:

        def more(_):
            session.append((7, 8), [read]).add_done_callback(lambda _: done.set())

        session.append(content_for(1, 20), [read]).add_done_callback(more)
        assert done.wait(SOON)


def test_waiting_for_several_futures_sees_the_cancelled_ones(llama):
    with Engine(llama) as engine:
        with engine._wake:
            futures = [engine.submit(content_for(seed, 30), [Read(None, readout_for(llama))]) for seed in range(3)]
            assert futures[1].cancel()
        finished, left = wait(futures, timeout=SOON)
    assert len(finished) == 3
    assert not left


def test_a_source_that_gives_another_adapter_is_refused_by_name(llama):
    read, given = Read("a", readout_for(llama)), [adapter_for(llama, 1, rank=16), adapter_for(llama, 2, rank=16)]
    with Engine(llama) as engine:
        engine.load("a", lambda: given[0])
        given.reverse()  # trained into the same folder before it was first needed
        with pytest.raises(AdapterInvalid, match="no longer"):
            engine.submit(content_for(1), [read]).result(SOON)


def test_a_session_costs_its_new_tokens_only_and_stays_at_hand(llama):
    read = Read(None, readout_for(llama))
    turns = [content_for(seed, 40) for seed in range(4)]
    with Engine(llama, cache_bytes=1) as engine, engine.session() as session:  # room for one content of full length
        for turn in turns:
            answer = session.append(turn, [read]).result(SOON)
            assert answer.cached == len(session.content) - len(turn)
            other = engine.submit(content_for(len(answer.logits), 64), [read]).result(SOON)  # puts out what is not kept
            assert other.tokens == 64
            assert answer.logits[0] == expected(llama, session.content, None, read.readout)
        assert session.append((5, 6, 7)).result(SOON).logits == ()
        assert engine.submit(session.content, [read]).result(SOON).cached == len(session.content)
    with pytest.raises(EngineClosed, match="session"):
        session.append((1,))


def test_a_session_that_is_closed_lets_its_content_go(llama):
    with Engine(llama, cache_bytes=1) as engine:
        session = engine.session(content_for(1, 100))
        session.append((5,)).result(SOON)
        session.close()
        engine.submit(content_for(2, llama.content_tokens), [Read(None, readout_for(llama))]).result(SOON)
        assert engine.submit(session.content, []).result(SOON).cached == 0


def test_a_tail_closes_a_content_that_goes_on_growing(llama):
    read = Read(None, readout_for(llama))
    first, more, tail = content_for(1, 40), content_for(2, 24), (9, 8, 7)
    with Engine(llama) as engine, engine.session() as session:
        answer = session.append(first, [read], tail=tail).result(SOON)
        assert answer.logits[0] == expected(llama, (*first, *tail), None, read.readout)
        answer = session.append(more, [read], tail=tail).result(SOON)
        assert answer.logits[0] == expected(llama, (*first, *more, *tail), None, read.readout)
        assert answer.cached >= len(first)
        assert session.content == (*first, *more)


@pytest.mark.parametrize("known", [0, 20, 60])
def test_a_summary_is_the_backbone_s_own_whatever_is_at_hand(backbone, known):
    ids, other = content_for(3, 60), content_for(4, 30)
    read, wide = Read(None, readout_for(backbone)), Read("wide", readout_for(backbone))
    (summary,) = backbone.step([NewTokens(ids)], [], summaries=True).summaries
    adapter = adapter_for(backbone, 1, "all")
    with Engine(backbone, limits=Limits(step_tokens=64)) as engine:
        engine.load("wide", adapter)
        if known:
            engine.submit(ids[:known], []).result(SOON)
        together = [engine.submit(ids, [read, wide, read], summary=True), engine.submit(ids, [read]), engine.submit(other, [], summary=True)]
        answer, plain, alone = (future.result(SOON) for future in together)
        assert torch.equal(answer.summary, summary)
        assert answer.logits == (expected(backbone, ids, None, read.readout), expected(backbone, ids, adapter, wide.readout), answer.logits[0])
        assert plain.logits == answer.logits[:1]
        assert plain.summary is None
        assert torch.equal(alone.summary, backbone.step([NewTokens(other)], [], summaries=True).summaries[0])
        assert engine.submit(ids, [read]).result(SOON).cached == 60
        assert engine.alive
    assert not engine.alive


def test_a_content_read_ahead_is_at_hand_when_it_is_asked_about(backbone):
    with Engine(backbone) as engine:
        ids = content_for(7, 50)
        assert engine.submit(ids, []).result(SOON).cached == 0
        assert engine.submit(ids, []).result(SOON).cached == 50
        assert engine.submit(ids, [Read(None, readout_for(backbone))]).result(SOON).cached == 50


def test_one_content_asked_at_once_by_many_is_computed_once(backbone):
    with Engine(backbone) as engine:
        with engine._wake:  # hold the engine back until all have come
            futures = [engine.submit(content_for(5, 50), [Read(None, readout_for(backbone, 4))]) for _ in range(10)]
        answers = [future.result(SOON) for future in futures]
    assert len({answer.logits for answer in answers}) == 1
    assert engine.stats.tokens == 50 + 10 * 4


def test_long_contents_are_computed_in_parts_without_a_change_of_bits(llama):
    ids = content_for(3, llama.content_tokens)
    read = Read("a", readout_for(llama))
    adapter = adapter_for(llama, 1)
    with Engine(llama, limits=Limits(step_tokens=16)) as engine:
        engine.load("a", adapter)
        assert engine.submit(ids, [read]).result(SOON).logits[0] == expected(llama, ids, adapter, read.readout)
        assert engine.stats.steps > len(ids) // 16


def test_a_replaced_adapter_finishes_its_requests_and_nobody_sees_a_mix(backbone):
    versions = [adapter_for(backbone, seed, "all") for seed in range(6)]
    ids, readout = content_for(2, 40), readout_for(backbone)
    allowed = [(expected(backbone, ids, version, readout),) * 3 for version in versions]
    with Engine(backbone, limits=Limits(step_tokens=64)) as engine:
        engine.load("tone", versions[0])
        seen = []
        for turn in range(60):
            future = engine.submit(ids, [Read("tone", readout)] * 3)
            if turn % 3 == 2:
                engine.load("tone", versions[(turn + 1) % 6])
            seen.append((future, turn))
        for future, turn in seen:
            current = max((t + 1 for t in range(turn) if t % 3 == 2), default=0)
            assert future.result(SOON).logits == allowed[current % 6]
        assert engine.stats.adapters.resident <= 1
        engine.unload("tone")
        assert engine.stats.cache.bytes_used == 0, "contents of adapters that are gone stay behind"


def test_adapters_past_the_budget_leave_and_come_back(llama):
    judges = {f"j{seed}": adapter_for(llama, seed) for seed in range(40)}
    readout, ids = readout_for(llama), content_for(1, 20)
    with Engine(llama, adapter_bytes=1) as engine:
        for name, adapter in judges.items():
            engine.load(name, adapter)
        for _ in range(2):
            for name, adapter in judges.items():
                assert engine.submit(ids, [Read(name, readout)]).result(SOON).logits[0] == expected(llama, ids, adapter, readout)
        stats = engine.stats.adapters
        assert stats.loaded == 40
        assert stats.resident <= 16
        assert stats.evicted >= 40


def test_more_adapters_than_fit_at_once_are_read_one_part_after_another(llama):
    judges = {f"j{seed}": adapter_for(llama, seed) for seed in range(40)}
    readout, ids = readout_for(llama), content_for(1, 20)
    with Engine(llama, adapter_bytes=1) as engine:
        for name, adapter in judges.items():
            engine.load(name, adapter)
        answer = engine.submit(ids, [Read(name, readout) for name in judges]).result(SOON)
    assert list(answer.logits) == [expected(llama, ids, adapter, readout) for adapter in judges.values()]


def test_loading_and_unloading_leaks_nothing(llama):
    with Engine(llama) as engine:
        adapter, readout = adapter_for(llama, 1, "all"), readout_for(llama)

        def turn(number):
            engine.load("j", adapter)
            if number % 100 == 0:
                engine.submit(content_for(number, 12), [Read("j", readout)]).result(SOON)
            engine.unload("j")

        for number in range(300):
            turn(number)
        gc.collect()
        before = len(gc.get_objects())
        for number in range(10_000):
            turn(number)
        gc.collect()
        assert len(gc.get_objects()) - before < 200
        stats = engine.stats
        assert (stats.adapters.loaded, stats.adapters.resident) == (0, 0)
        assert stats.cache.bytes_used == 0


def test_bad_requests_are_refused_by_name_and_their_neighbours_are_answered(backbone):
    with Engine(backbone) as engine:
        good = engine.submit(content_for(1, 30), [Read(None, readout_for(backbone))])
        with pytest.raises(AdapterUnknown, match="no adapter 'nobody'"):
            engine.submit(content_for(1), [Read("nobody", readout_for(backbone))])
        with pytest.raises(ContentTooLong):
            engine.submit((5,) * (backbone.content_tokens + 1), [Read(None, readout_for(backbone))])
        with pytest.raises(InputInvalid, match="readout without tokens"):
            engine.submit(content_for(1), [Read(None, Readout((), ((1,), (2,))))])
        with pytest.raises(InputInvalid, match="no tokens"):
            engine.submit((), [Read(None, readout_for(backbone))])
        with pytest.raises(InputInvalid, match="room for"):
            engine.submit(content_for(1), [Read(None, readout_for(backbone, backbone.readout_tokens + 1))])
        assert good.result(SOON).logits


def test_an_adapter_of_another_backbone_or_rank_layout_is_refused_and_the_old_one_stays(backbone, llama):
    good = adapter_for(backbone, 1)
    path = next(iter(good.weights))
    ragged = Adapter("readout", 4, 8.0, {**good.weights, path: (good.weights[path][0][:3], good.weights[path][1])})
    missing = Adapter("readout", 4, 8.0, {other: pair for other, pair in good.weights.items() if other != path})
    with Engine(backbone) as engine:
        engine.load("j", good)
        for bad in (ragged, missing):
            with pytest.raises(AdapterInvalid, match=path.replace(".", r"\.")):
                engine.load("j", bad)
        readout, ids = readout_for(backbone), content_for(1)
        assert engine.submit(ids, [Read("j", readout)]).result(SOON).logits[0] == expected(backbone, ids, good, readout)


def break_on(engine, token, error):
    """Stand at the seam to the device: any step with this token fails."""
    whole = engine._compute

    def compute(parts):
        if any(token in part.job.ids for part in parts):
            raise error
        return whole(parts)

    engine._compute = compute


def test_a_request_the_device_fails_on_gets_its_error_and_its_neighbours_their_answers(llama):
    with Engine(llama) as engine:
        break_on(engine, 3, RuntimeError("device-side assert"))
        with engine._wake:
            futures = [engine.submit((3, 5, 6) if number == 4 else content_for(number), [Read(None, readout_for(llama))]) for number in range(9)]
        for number, future in enumerate(futures):
            if number == 4:
                with pytest.raises(EngineFailed, match="device-side assert"):
                    future.result(SOON)
            else:
                assert future.result(SOON).logits
        assert engine.submit(content_for(50), [Read(None, readout_for(llama))]).result(SOON).logits
        assert engine.stats.failed == 1


def test_a_step_that_runs_out_of_memory_is_split_and_tried_again(llama):
    with Engine(llama) as engine:
        whole = engine._compute

        def compute(parts):
            rows = sum(part.tokens + sum(len(readout.token_ids) for _, _, readout in part.reads) for part in parts)
            if rows > 60 or any(3 in part.job.ids for part in parts):
                raise MemoryError("not enough memory")
            return whole(parts)

        engine._compute = compute
        readout = readout_for(llama)
        with engine._wake:
            futures = [(content_for(number, 20), engine.submit(content_for(number, 20), [Read(None, readout)] * 9)) for number in range(8)]
        for ids, future in futures:
            assert future.result(SOON).logits == (expected(llama, ids, None, readout),) * 9
        long = content_for(70, 110)
        assert engine.submit(long, [Read(None, readout)]).result(SOON).logits[0] == expected(llama, long, None, readout)
        with pytest.raises(OutOfMemory, match="even alone"):
            engine.submit((3, *content_for(71, 90)), [Read(None, readout)] * 3).result(SOON)
        assert engine.submit(content_for(2, 20), [Read(None, readout)]).result(SOON).logits


def test_a_full_queue_refuses_at_once_with_the_time_to_retry(llama):
    with Engine(llama, limits=Limits(waiting_requests=3)) as engine, engine._wake:
        futures = [engine.submit(content_for(number), [Read(None, readout_for(llama))]) for number in range(3)]
        with pytest.raises(EngineBusy, match="3 requests wait") as caught:
            engine.submit(content_for(9), [Read(None, readout_for(llama))])
        assert caught.value.retry_after > 0
        assert caught.value.as_dict()["retry_after"] == caught.value.retry_after
        assert engine.stats.refused == 1
    del futures


def test_a_deadline_that_would_be_missed_is_refused_and_one_that_passed_is_not_computed(llama):
    now = [0.0]
    with Engine(llama, rate=1000.0, clock=lambda: now[0]) as engine:
        with engine._wake:
            with pytest.raises(EngineBusy, match="alone") as caught:
                engine.submit(content_for(1, 100), [Read(None, readout_for(llama))], deadline=0.01)
            assert caught.value.retry_after is None
            late = engine.submit(content_for(2, 50), [Read(None, readout_for(llama))], deadline=1.0)
            now[0] = 2.0
        with pytest.raises(DeadlineMissed):
            late.result(SOON)
        assert engine.stats.steps == 0


def test_a_cancelled_request_is_not_computed(llama):
    with Engine(llama) as engine:
        with engine._wake:
            future = engine.submit(content_for(2, 50), [Read(None, readout_for(llama))])
            assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(SOON)
        assert engine.submit(content_for(3, 10), [Read(None, readout_for(llama, 6))]).result(SOON).logits
        assert engine.stats.tokens == 16
        assert engine.stats.waiting == 0


def test_closing_answers_everybody(llama):
    engine = Engine(llama)
    with engine._wake:
        futures = [engine.submit(content_for(number), [Read(None, readout_for(llama))]) for number in range(5)]
        closer = threading.Thread(target=engine.close)
        closer.start()
        time.sleep(0.01)
    closer.join(SOON)
    for future in futures:
        assert isinstance(future.exception(SOON), EngineClosed) or future.result(SOON).logits
    with pytest.raises(EngineClosed):
        engine.submit(content_for(1), [Read(None, readout_for(llama))])


def test_many_threads_may_ask_and_load_at_once(llama):
    judges = [adapter_for(llama, seed) for seed in range(4)]
    readout, ids = readout_for(llama), [content_for(seed, 15) for seed in range(6)]
    allowed = [{expected(llama, one, judge, readout) for judge in judges} for one in ids]
    with Engine(llama) as engine:
        engine.load("j", judges[0])
        wrong = []

        def ask(seed):
            rng = random.Random(seed)
            for _ in range(40):
                which = rng.randrange(6)
                if rng.random() < 0.2:
                    engine.load("j", rng.choice(judges))
                (logits,) = engine.submit(ids[which], [Read("j", readout)]).result(SOON).logits
                if logits not in allowed[which]:
                    wrong.append((which, logits))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        assert not wrong
        assert engine.stats.answered == 240
