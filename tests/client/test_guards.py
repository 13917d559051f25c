"""Guards around a function, an OpenAI client, an ASGI application and a LangChain chain; and judges in other people's tests."""

import asyncio
import json
import subprocess
import sys

import httpx
import pytest

from snapjudge.client import AsyncClient, Client
from snapjudge.client.guards import guard
from snapjudge.client.middleware import Guarded, GuardMiddleware, at, put
from snapjudge.client.openai_guard import guarded
from snapjudge.core.api import GuardResponse, RulesetResult
from snapjudge.errors import Blocked, OptionInvalid


def policy(request):
    """A server whose policy blocks `bad`, answers `instead` itself, takes out `secret`, and has something to say to the model about `angry`."""
    body = json.loads(request.content)
    stage, inputs = body.get("stage", "input"), body["inputs"]
    text = inputs["messages"][-1]["content"] if "messages" in inputs else inputs["output" if stage in ("output", "tool_call") else "input"]
    action, left, more = "allow", text, {}
    if "bad" in text:
        action, left, more = "block", None, {"message": f"no {stage}"}
    elif "hard" in text:
        action, more = "escalate", {"escalate_to": "people"}
    elif "instead" in text:
        action, left = "override", "an answer of ours"
    elif "secret" in text:
        action, left = "redact", text.replace("secret", "[X]")
    elif "angry" in text:
        action, more = "steer", {"steer": ("Stay calm.",)}
    rulesets = (RulesetResult(name="r", status="triggered", taken=action != "allow", action=action),)
    found = GuardResponse(policy=f"{body['policy']}@1", stage=stage, action=action, text=left, rulesets=rulesets, **more)
    return httpx.Response(200, content=found.model_dump_json())


@pytest.fixture
def client():
    return Client("http://x", transport=httpx.MockTransport(policy))


@pytest.fixture
def async_client():
    return AsyncClient("http://x", transport=httpx.MockTransport(policy))


def test_a_function_is_guarded_on_its_way_in_and_out(client):
    @guard(input="support", output="support", client=client)
    def answer(question: str, *, style: str = "plain", steer: tuple = ()) -> str:
        """Answer."""
        return f"{question}! {style} {' '.join(steer)}".strip()

    assert answer.__doc__ == "Answer."
    assert answer("hi") == "hi! plain"
    assert answer("my secret", style="bold") == "my [X]! bold"
    assert answer("I am angry") == "I am angry! plain Stay calm."
    assert answer("instead") == "an answer of ours"
    with pytest.raises(Blocked, match="no input") as error:
        answer("bad")
    assert error.value.response.action == "block"
    with pytest.raises(Blocked, match="escalated to people"):
        answer("hard")
    with pytest.raises(Blocked, match="no output"):
        answer("hi", style="bad")

    @guard(output="support", client=client, argument="text", on_block=lambda error: f"sorry: {error.message}")
    def shout(number: int, text: str) -> str:
        return text.upper() if number else text

    assert shout(0, "bad") == "sorry: no output"
    assert shout(1, text="bad") == "BAD"


def test_a_coroutine_is_guarded_the_same_way(async_client):
    @guard(input="support", output="support", client=async_client)
    async def answer(question: str) -> str:
        return f"{question}!"

    async def work():
        assert await answer("my secret") == "my [X]!"
        assert await answer("instead") == "an answer of ours"
        with pytest.raises(Blocked):
            await answer("bad")

    asyncio.run(work())


def test_a_guard_that_cannot_work_is_refused_where_it_is_written(client, async_client):
    with pytest.raises(OptionInvalid, match="without a policy"):
        guard()
    with pytest.raises(OptionInvalid, match="no argument"):
        guard(input="p", argument="x", client=client)(lambda y: y)
    with pytest.raises(OptionInvalid, match="needs a Client"):
        guard(input="p", client=async_client)(lambda y: y)


def completion(request):
    """A model that repeats what it is told last, and calls a tool when told to."""
    messages = json.loads(request.content)["messages"]
    text = " | ".join(one["content"] for one in messages if one["role"] in ("user", "system"))
    calls = [{"id": "1", "type": "function", "function": {"name": "pay", "arguments": '{"note": "secret"}'}}] if "call" in text else None
    message = {"role": "assistant", "content": f"{text} bad" if "provoke" in text else text, "tool_calls": calls}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return httpx.Response(200, json={"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def test_an_openai_client_is_guarded_and_otherwise_itself(client, async_client):
    openai = pytest.importorskip("openai")
    import httpx2

    def model(request):
        told = completion(request)
        return httpx2.Response(200, content=told.content, headers={"content-type": "application/json"})

    http = httpx2.Client(transport=httpx2.MockTransport(model))
    own = guarded(openai.OpenAI(api_key="x", base_url="http://m", http_client=http), input="p", output="p", judge=client)

    def ask(text, **more):
        return own.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **more).choices[0].message

    assert ask("hi").content == "hi"
    assert ask("my secret").content == "my [X]"
    assert ask("so angry").content == "so angry | Stay calm."
    assert ask("instead").content == "an answer of ours"
    assert ask("call it").tool_calls[0].function.arguments == '{"note": "[X]"}'
    for text, stage in (("bad", "input"), ("provoke", "output")):
        with pytest.raises(Blocked, match=f"no {stage}"):
            ask(text)
    with pytest.raises(OptionInvalid, match="whole answers"):
        ask("hi", stream=True)
    assert own.api_key == "x"
    assert own.models is not None
    with pytest.raises(OptionInvalid, match="AsyncClient"):
        guarded(openai.AsyncOpenAI(api_key="x"), input="p", judge=client)

    async def work():
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(model))
        own = guarded(openai.AsyncOpenAI(api_key="x", base_url="http://m", http_client=http), input="p", output="p", judge=async_client)
        found = await own.chat.completions.create(model="m", messages=[{"role": "user", "content": "my secret"}])
        assert found.choices[0].message.content == "my [X]"

    asyncio.run(work())


async def echo(scope, receive, send):
    """An application that answers with what it was sent."""
    body = (await receive())["body"]
    assert dict(scope["headers"])[b"content-length"] == str(len(body)).encode()
    data = json.loads(body) if body else {}
    raw = json.dumps({"reply": data.get("answer", data.get("message")), "path": scope["path"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]})
    await send({"type": "http.response.body", "body": raw[:5], "more_body": True})
    await send({"type": "http.response.body", "body": raw[5:]})


def test_an_application_s_json_is_guarded_on_its_way_in_and_out(async_client):
    app = GuardMiddleware(echo, paths={"/chat": Guarded("/message", "/reply"), "/in": Guarded("/message")}, policy="p", client=async_client)

    async def work():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:

            async def ask(path="/chat", **body):
                return await client.post(path, json=body)

            assert (await ask(message="hi")).json() == {"reply": "hi", "path": "/chat"}
            assert (await ask(message="my secret")).json()["reply"] == "my [X]"
            assert (await ask(message="hi", answer="a secret")).json()["reply"] == "a [X]"
            assert (await ask(message="instead")).json() == {"text": "an answer of ours"}
            for body in ({"message": "bad"}, {"message": "hi", "answer": "bad"}):
                response = await ask(**body)
                assert (response.status_code, response.json()["error"]["code"]) == (403, "blocked")
            assert (await ask("/in", message="hi", answer="bad")).json()["reply"] == "bad"
            assert (await ask("/free", message="bad")).json()["reply"] == "bad"
            assert (await ask(other="bad")).status_code == 200
            assert (await client.post("/chat", content=b"")).status_code == 200

    asyncio.run(work())
    with pytest.raises(OptionInvalid, match="JSON pointer"):
        GuardMiddleware(echo, paths={"/chat": Guarded("message")}, policy="p", client=async_client)


def test_json_pointers_reach_into_lists_and_odd_names():
    data = {"a/b": [{"c~d": "x"}]}
    assert at(data, "/a~1b/0/c~0d") == "x"
    assert at(data, "/a~1b/7/c") is None
    assert at(None, "/a") is None
    assert put(data, "/a~1b/0/c~0d", "y") == {"a/b": [{"c~d": "y"}]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_guard_is_a_link_of_a_chain(client, async_client):
    pytest.importorskip("langchain_core")
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda

    from snapjudge.client.langchain import GuardRunnable

    before = GuardRunnable("p", client=client, async_client=async_client)
    after = GuardRunnable("p", "output", client=client, async_client=async_client)
    prompt, model = ChatPromptTemplate.from_messages([("system", "Be kind."), ("user", "{question}")]), RunnableLambda(lambda m: AIMessage(m[-1].content))
    chain = prompt | before | model | after
    assert chain.invoke({"question": "my secret"}).content == "my [X]"
    assert asyncio.run(chain.ainvoke({"question": "my secret"})).content == "my [X]"
    assert before.invoke("my secret") == "my [X]"
    assert before.invoke([HumanMessage("my secret")])[0].content == "my [X]"
    with pytest.raises(Blocked):
        chain.invoke({"question": "bad"})


TESTS = """
from snapjudge.pytest_plugin import assert_judged

def test_kind(assert_judged):
    assert assert_judged("Thank you, that helped a lot.", judge="toxicity", below=0.5) < 0.5

def test_rude():
    assert_judged("You are a complete idiot.", judge="toxicity", label="toxic", flagged=True)

def test_wrong():
    assert_judged("You are a complete idiot.", judge="toxicity")
"""


@pytest.mark.flow
@pytest.mark.parametrize("served", [False, True])
def test_judges_can_be_asserted_in_tests(tmp_path, served, request):
    import os

    environment = dict(os.environ)
    if served:
        from snapjudge.testing import serving
        from tests.serve.conftest import settings_for

        environment["SNAPJUDGE_URL"] = request.getfixturevalue("stack").enter_context(serving(settings_for(judges=("toxicity",))))
    (tmp_path / "test_ours.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]  # the plugin is found by its entry point
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "toxicity says toxic (0." in done.stdout
    assert "expected not flagged: You are a complete idiot." in done.stdout


@pytest.fixture
def stack():
    import contextlib

    with contextlib.ExitStack() as stack:
        yield stack
