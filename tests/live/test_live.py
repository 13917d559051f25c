"""Live judges on real engine processes: the library's own bits, judges that come and go under traffic, engines that die and come back."""

import asyncio
import json
import os
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from snapjudge.core.api import Item
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import BackboneNotFound, BundleInvalid, BundleNotFound, EngineBusy, EngineFailed, JudgeUnknown
from snapjudge.generalist import Generalist
from snapjudge.judge import Judge, Panel
from snapjudge.live.host import HostTerms
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Growing
from snapjudge.model.prompt import render_content
from snapjudge.model.reading import traces
from snapjudge.prove.reference import read_reference
from snapjudge.store.bundles import built_in

pytestmark = pytest.mark.flow
NAMES = ("toxicity", "pii_card", "tone", "off_topic", "tool_selection")
TEXTS = [
    {"input": "How do I reset my password?", "output": "Click on Forgot password, you idiot."},
    {"input": "hello", "output": "My card is 4111 1111 1111 1111."},
    {"output": "word " * 700},
    {"input": "ok", "output": "\x00\ud800"},
    {},
]


def run(work):
    return asyncio.run(asyncio.wait_for(work, 120))


async def started(*names, **terms):
    return await LiveJudges.start(HostTerms(**{"processes": 1, "open_questions": False, **terms}), names)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_answers_are_those_of_a_panel_to_the_bit_and_what_cannot_be_read_is_an_abstention(precision):
    panel = Panel.load(NAMES, dtype=precision)
    expected = list(panel.score_many(TEXTS))

    async def work():
        live = await started(*NAMES, precision=precision)
        try:
            found, spent = await live.ask([Item(inputs=text) for text in TEXTS], NAMES)
        finally:
            await live.close()
        return found, spent

    found, spent = run(work())
    assert spent.tokens > 0
    for item, own in zip(found, expected, strict=True):
        for answer, (name, judgement) in zip(item.answers, own.items(), strict=True):
            assert answer.judge == name
            assert answer.digest == panel.judges[name].bundle.digest
            if answer.abstention is not None:
                assert answer.flags.abstained
                assert (answer.abstention.code, answer.abstention.message) == (judgement.code, judgement.message)
            else:
                assert answer.score == judgement.score
                assert answer.probabilities == judgement.probabilities
                assert (answer.label, answer.flagged, answer.windows) == (judgement.label, judgement.flagged, judgement.windows)
                assert answer.flags.windowed == (judgement.windows > 1)
                assert sum(answer.raw.values()) == pytest.approx(1.0)


def test_open_questions_are_those_of_the_generalist_and_say_which_learned_question_is_near():
    questions = [
        OpenQuestion(instructions="Is the user asking for a refund?"),
        OpenQuestion(instructions="What is it about?", type="choice", options=("billing", "the weather"), rewordings=("Which topic?",)),
    ]
    text = {"input": "I want my money back. " * 3, "output": "Sorry."}
    expected = Generalist.load().ask(questions, **text)
    nearest = Generalist.load().nearest(questions[0])[0]

    async def work():
        live = await started("toxicity", open_questions=True)
        try:
            return [await live.ask([Item(inputs=text)], ["toxicity"], questions) for _ in range(2)]
        finally:
            await live.close()

    for (item,), _ in run(work()):
        assert [one.score for one in item.answers[1:]] == [one.score for one in expected]
        assert all(one.flags.zero_shot and one.judge == "generalist@mini" for one in item.answers[1:])
        assert item.answers[1].nearest == nearest


def test_a_question_that_a_judge_was_trained_for_is_answered_by_it():
    async def work():
        live = await started("toxicity")
        try:
            question = live.roster.find("toxicity").metric.question
            (item,), _ = await live.ask([Item(inputs={"output": "you idiot"})], ["toxicity"], [OpenQuestion(instructions=question.upper())])
        finally:
            await live.close()
        return item

    named, asked = run(work()).answers
    assert asked.judge == named.judge == "toxicity@1"
    assert asked.score == named.score
    assert not asked.flags.zero_shot


def test_judges_come_and_go_while_they_are_asked_and_nobody_gets_an_error_but_those_who_ask_for_what_is_gone():
    async def work():
        live = await started("toxicity", "tone")
        answered, unknown = 0, 0
        stop = False

        async def traffic():
            nonlocal answered, unknown
            while not stop:
                try:
                    (item,), _ = await live.ask([Item(inputs={"output": f"hello {answered}"})], ["tone", "toxicity"])
                    assert [one.abstention for one in item.answers] == [None, None]
                    answered += 1
                except JudgeUnknown:
                    unknown += 1
                    await asyncio.sleep(0.001)

        clients = [asyncio.create_task(traffic()) for _ in range(4)]
        try:
            for _ in range(15):
                await live.unload("tone")
                assert "tone@1" not in live.roster.judges
                await live.load("tone")
                await asyncio.sleep(0.02)
            stop = True
            await asyncio.gather(*clients)
        finally:
            await live.close()
        return answered, unknown

    answered, unknown = run(work())
    assert answered > 0
    assert unknown > 0


def test_an_engine_that_is_killed_under_load_takes_no_answer_with_it_and_comes_back():
    async def work():
        live = await started("toxicity", "tone", processes=2)
        host = live.generalist.host

        async def ask(number):
            (item,), _ = await live.ask([Item(inputs={"output": f"number {number} " * 30})], ["toxicity", "tone"])
            return [one.abstention for one in item.answers]

        try:
            asked = [asyncio.create_task(ask(number)) for number in range(40)]
            await asyncio.sleep(0.05)
            os.kill(host.pids[0], signal.SIGKILL)
            found = await asyncio.gather(*asked)
            end = time.monotonic() + 60
            while host.alive < 2 and time.monotonic() < end:
                await asyncio.sleep(0.05)
            again = await asyncio.gather(*(ask(number) for number in range(8)))
        finally:
            await live.close()
        return found, again, host.deaths

    found, again, deaths = run(work())
    assert found == [[None, None]] * 40
    assert again == [[None, None]] * 8
    assert deaths == 1


def test_while_no_engine_runs_requests_wait_for_one_and_a_request_that_kills_engines_is_given_up():
    async def work():
        live = await started("toxicity")
        host = live.generalist.host
        try:
            os.kill(host.pids[0], signal.SIGKILL)
            (item,), _ = await live.ask([Item(inputs={"output": "hello"})], ["toxicity"])
            assert item.answers[0].abstention is None

            async def deadly():
                for _ in range(2):
                    while not host.pids:
                        await asyncio.sleep(0.005)
                    os.kill(host.pids[0], signal.SIGSTOP)  # so that it cannot have answered
                    await asyncio.sleep(0.05)
                    before = host.deaths
                    os.kill(host.pids[0], signal.SIGKILL)
                    while host.deaths == before:
                        await asyncio.sleep(0.005)

            os.kill(host.pids[0], signal.SIGSTOP)
            killer = asyncio.create_task(deadly())
            with pytest.raises(EngineFailed, match="ended while they worked"):
                await live.ask([Item(inputs={"output": "hello again"})], ["toxicity"])
            await killer
        finally:
            await live.close()

    run(work())


def test_a_host_that_is_closed_while_an_engine_ends_or_starts_leaves_no_process():
    async def work():
        for delay in (0.0, 0.001, 0.005, 0.05, 0.4, 1.0):
            live = await started("toxicity")
            host = live.generalist.host
            os.kill(host.pids[0], signal.SIGKILL)
            await asyncio.sleep(delay)
            await live.close()
            assert not _children()

    run(work())


def _children():
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in pids if "snapjudge.live.worker" in (Path("/proc") / pid / "cmdline").read_text()]


def test_what_cannot_be_answered_in_time_is_refused_and_a_request_that_is_left_is_not_computed():
    async def work():
        live = await started("toxicity")
        host = live.generalist.host
        try:
            with pytest.raises(EngineBusy):
                await live.ask([Item(inputs={"output": "word " * 400})], ["toxicity"], deadline=time.monotonic() + 0.001)
            left = [asyncio.create_task(live.ask([Item(inputs={"output": f"{number} word " * 200})], ["toxicity"])) for number in range(30)]
            await asyncio.sleep(0.05)
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            (item,), _ = await live.ask([Item(inputs={"output": "hello"})], ["toxicity"])
            assert item.answers[0].abstention is None
            while (stats := await host._processes[0].look()).waiting:
                await asyncio.sleep(0.01)
            assert stats.answered < 31
            assert host._processes[0].outstanding == 0
        finally:
            await live.close()

    run(work())


def test_a_conversation_on_a_causal_backbone_costs_its_new_turns_only(tmp_path, workshop):
    from snapjudge.flows.train_judge import train_judge
    from snapjudge.flows.train_terms import TrainRequest
    from snapjudge.testing import write_tiny_decoder
    from tests.workshop import CONFIG

    folder, _ = workshop
    backbone = write_tiny_decoder(tmp_path / "llama", "llama")
    rows = (folder / "data.jsonl").read_text().replace('"inputs": {"output":', '"inputs": {"messages":')
    lines = []
    for line in rows.splitlines():
        row = json.loads(line)
        row["inputs"] = {"messages": [{"role": "user", "content": row["inputs"]["messages"]}]}
        lines.append(json.dumps(row))
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    (tmp_path / "metric.yaml").write_text((folder / "metric.yaml").read_text().replace("[output]", "[messages]"))
    train_judge(TrainRequest(tmp_path / "metric.yaml", [tmp_path / "data.jsonl"], tmp_path / "judges"), CONFIG.model_copy(update={"backbone": str(backbone)}))
    turns = [{"role": "user", "content": f"buy one {number}"} for number in range(5)]
    bundle = tmp_path / "judges" / "says_buy" / "1"
    expected = [Panel.load([bundle]).score(messages=turns[: count + 1])["says_buy@1"].score for count in range(5)]

    async def work():
        live = await started(str(bundle), backbone=str(backbone))
        growing, asked, found = Growing(), live.asked(["says_buy"]), []
        try:
            for count in range(5):
                item = Item(inputs={"messages": turns[: count + 1]})
                if count == 2:
                    await live.ask_again(item, asked, growing, only_read=True)
                found.append(await live.ask_again(item, asked, growing))
            live.let_go(growing)
        finally:
            await live.close()
        return found

    found = run(work())
    assert [item.answers[0].score for item, _ in found] == expected
    spent = [one for _, one in found]
    assert spent[0].cached == 0
    assert all(one.cached > before.tokens - 20 for before, one in pairwise(spent))


def test_what_cannot_be_loaded_is_refused_by_name_and_the_rest_go_on(tmp_path):
    changed = tmp_path / "toxicity" / "1"
    shutil.copytree(built_in() / "toxicity" / "1", changed)
    weights = changed / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    other = tmp_path / "other" / "1"
    shutil.copytree(built_in() / "tone" / "1", other)

    async def work():
        live = await started("tone")
        try:
            for name, error in ((str(changed), BundleInvalid), ("nothing_like_it", BundleNotFound)):
                with pytest.raises(error):
                    await live.load(name)
            with pytest.raises(JudgeUnknown):
                await live.ask([Item(inputs={"output": "hello"})], ["toxicity"])
            assert (await live.load(str(other))).judge == "tone@1"
            (item,), _ = await live.ask([Item(inputs={"output": "hello"})], ["tone"])
            assert item.answers[0].abstention is None
        finally:
            await live.close()
        with pytest.raises(BackboneNotFound):
            await started(backbone=str(tmp_path / "none"))

    run(work())


def test_texts_unlike_those_that_a_judge_was_calibrated_on_are_told(tmp_path):
    strange = "Bonjour, je voudrais annuler ma commande parce que le colis n'est jamais arrivé chez moi."
    texts = ["You are so kind, thank you for all of your help today.", "What a stupid thing to say, you idiot.", strange, strange * 40, ""]
    judge = Judge.load("toxicity")
    reference = read_reference(judge.bundle.reference)
    contents = [render_content({"output": text}, judge.metric, judge.backbone) for text in texts[:4]]
    expected = [reference.strange(one.numpy()) for one in traces(judge.backbone, contents, judge.question.content_adapter)]
    assert expected == [False, False, True, True]

    async def work():
        live = await started("toxicity", "tone")
        try:
            found, _ = await live.ask([Item(inputs={"output": text}) for text in texts], ["toxicity", "tone"])
            again, _ = await live.ask([Item(inputs={"output": text}) for text in texts], ["toxicity"])  # now they are at hand
            return found, again
        finally:
            await live.close()

    found, again = run(work())
    assert [one.answers[0].flags.out_of_distribution for one in found] == [*expected, False]
    assert [one.answers[0].flags.out_of_distribution for one in again] == [*expected, False]
    assert found[3].answers[0].flags.windowed


def test_a_content_that_is_too_long_is_an_abstention_and_the_others_go_on():
    async def work():
        live = await started("toxicity", longest=600)
        try:
            found, _ = await live.ask([Item(inputs={"output": "word " * 2000}), Item(inputs={"output": "word " * 500})], ["toxicity"])
            return found
        finally:
            await live.close()

    long, short = run(work())
    assert long.answers[0].abstention.code == "content_too_long"
    assert short.answers[0].abstention is None
