"""Clients against a transport that does what servers do: what is tried again, what is not, and how refusals arrive."""

import asyncio
import json
import subprocess
import sys
import time

import httpx
import pytest

from snapjudge.client import AsyncClient, Client
from snapjudge.core.api import Answer, AppendResponse, ItemAnswers, JudgeResponse
from snapjudge.errors import EngineBusy, MetricInvalid, OptionInvalid, Problem, ServerUnreachable, SnapjudgeError

GOOD = JudgeResponse(request_id="r", results=(ItemAnswers(answers=(Answer(asked="tone", judge="tone@1", digest="d", label="joy", score=0.5),)),))


class Script:
    """Answers one after another; an exception is raised instead."""

    def __init__(self, *steps):
        self.steps, self.seen = list(steps), []

    def __call__(self, request):
        self.seen.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def busy(wait):
    return httpx.Response(429, json={"error": EngineBusy("full", hint="later", retry_after=wait).as_dict()})


def good(value=GOOD):
    return httpx.Response(200, content=value.model_dump_json())


def client_of(*steps, **more):
    script = Script(*steps)
    return Client("http://x", transport=httpx.MockTransport(script), **more), script


def test_a_server_that_is_busy_is_asked_again_after_as_long_as_it_says():
    client, script = client_of(busy(0.05), busy(0.05), good(), deadline=5)
    began = time.monotonic()
    assert client.score("tone", output="x").label == "joy"
    assert time.monotonic() - began >= 0.1
    left = [float(request.headers["x-deadline-ms"]) for request in script.seen]
    assert left == sorted(left, reverse=True)


def test_a_wait_past_the_deadline_or_a_refusal_for_good_is_told_at_once():
    for step in (busy(30), busy(None), httpx.Response(422, json={"error": MetricInvalid("m", [Problem("a", "b", "c")]).as_dict()})):
        client, script = client_of(step, deadline=1)
        with pytest.raises((EngineBusy, MetricInvalid)) as error:
            client.score("tone", output="x")
        assert len(script.seen) == 1
        if isinstance(error.value, MetricInvalid):
            assert error.value.problems == (Problem("a", "b", "c"),)


def test_what_may_have_arrived_is_sent_again_only_where_that_does_no_harm():
    client, script = client_of(httpx.ReadError("gone"), good())
    assert client.score("tone", output="x").label == "joy"
    client, script = client_of(httpx.ReadError("gone"), good(AppendResponse(request_id="r", session="s", turns=1, answers=())))
    with pytest.raises(ServerUnreachable):
        client.append("s", [{"role": "user", "content": "x"}])
    assert len(script.seen) == 1
    client, script = client_of(httpx.ConnectError("refused"), good(AppendResponse(request_id="r", session="s", turns=1, answers=())))
    assert client.append("s", [{"role": "user", "content": "x"}]).turns == 1


def test_answers_in_another_form_are_told():
    odd = (httpx.Response(200, text="<html>"), "another form"), (httpx.Response(502, text="<html>"), "502"), (httpx.Response(500, json=[1]), "500")
    for step, told in odd:
        client, _ = client_of(step, attempts=1)
        with pytest.raises(SnapjudgeError, match=told):
            client.score("tone", output="x")


def test_many_items_are_taken_as_they_are_needed_and_given_in_order():
    taken = 0

    def items():
        nonlocal taken
        for number in range(100):
            taken += 1
            yield {"output": str(number)}

    def answer(request):
        texts = [item["inputs"]["output"] for item in json.loads(request.content)["items"]]
        time.sleep(0.001 * (len(texts[0]) % 3))
        return good(JudgeResponse(request_id="r", results=tuple(ItemAnswers(id=text, answers=()) for text in texts)))

    client = Client("http://x", transport=httpx.MockTransport(answer))
    found = client.judge_many(items(), ["tone"], batch=5, at_once=2)
    assert next(found).id == "0"
    assert taken <= 30
    assert [one.id for one in found] == [str(number) for number in range(1, 100)]

    async def asynchronously():
        async with AsyncClient("http://x", transport=httpx.MockTransport(answer)) as client:
            return [one.id async for one in client.judge_many(items(), ["tone"], batch=7)]

    assert asyncio.run(asynchronously()) == [str(number) for number in range(100)]


def test_the_asynchronous_client_does_the_same():
    async def work():
        script = Script(busy(0.01), good())
        async with AsyncClient("http://x", key="k", transport=httpx.MockTransport(script)) as client:
            assert (await client.score("tone", output="x")).label == "joy"
        assert script.seen[0].headers["authorization"] == "Bearer k"

    asyncio.run(work())


def test_where_the_server_is_can_stand_in_the_environment(monkeypatch):
    monkeypatch.setenv("SNAPJUDGE_URL", "https://judges:1/")
    monkeypatch.setenv("SNAPJUDGE_API_KEY", "sj_x")
    assert Client().terms.url == "https://judges:1"
    assert Client().terms.headers == {"authorization": "Bearer sj_x"}
    for wrong in ({"url": "judges:1"}, {"attempts": 0}, {"deadline": 0.0}):
        with pytest.raises(OptionInvalid):
            Client(**wrong)


def test_the_client_loads_neither_torch_nor_numpy():
    code = "import sys, snapjudge.client; sys.exit(sorted({'torch', 'numpy', 'transformers', 'fastapi'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
