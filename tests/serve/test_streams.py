"""Texts guarded while they are written, over a real server: appended to, followed as events, over a WebSocket; and the clients."""

import asyncio
import json
import time

import httpx
import pytest
from websockets.sync.client import connect

from snapjudge.client import AsyncClient, Client
from snapjudge.core.api import StreamEnd
from snapjudge.errors import PolicyUnknown, SessionUnknown
from snapjudge.serve.keys import new_entry, write_entries
from snapjudge.testing import serving
from tests.serve.conftest import settings_for

pytestmark = pytest.mark.flow
POLICY = {
    "name": "mine",
    "fail": "closed",
    "deadline_ms": 60000,
    "stages": {
        "output": [
            {"name": "rude", "rules": [{"judge": "toxicity", "gte": 0.5}], "action": {"block": {"message": "Stopped."}}},
            {"name": "word", "priority": 1, "rules": [{"keywords": ["swordfish"]}], "action": {"override": "Another word."}},
        ]
    },
}
NICE = "Your order is on its way. It left our house this morning, and the driver will ring twice. "
RUDE = "You are a complete idiot, you stupid worthless moron. "


def words(text):
    return [f"{word} " for word in text.split()]


def test_a_text_is_appended_to_and_its_events_can_be_followed_again_from_anywhere(server):
    with httpx.Client(base_url=server) as http:
        opened = http.post("/v1/streams", json={"policy": POLICY})
        assert opened.status_code == 201
        path = f"/v1/streams/{opened.json()['stream']}"
        told = "".join(http.post(f"{path}/append", json={"text": word}).json()["text"] for word in words(NICE * 2))
        last = http.post(f"{path}/append", json={"done": True}).json()
        assert told + last["text"] == "".join(words(NICE * 2)) == last["end"]["response"]["text"]
        assert last["end"]["response"]["action"] == "allow"
        events = list(read_events(http, path))
        assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
        assert "".join(value["text"] for _, kind, value in events if kind == "text") == last["end"]["response"]["text"]
        assert events[-1][1] == "end"
        assert list(read_events(http, path, after=2)) == events[2:]
        assert http.post(f"{path}/append", json={"text": "more"}).json()["error"]["code"] == "input_invalid"
        assert http.delete(path).status_code == 204
        assert http.get(f"{path}/events").status_code == 404


def read_events(http, path, after=0):
    number, kind = 0, ""
    with http.stream("GET", f"{path}/events", headers={"last-event-id": str(after)} if after else {}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            number = int(value) if name == "id" else number
            kind = value if name == "event" else kind
            if name == "data":
                yield number, kind, json.loads(value)


def test_events_come_while_the_text_is_written(server):
    async def work():
        async with httpx.AsyncClient(base_url=server) as http:
            path = f"/v1/streams/{(await http.post('/v1/streams', json={'policy': POLICY})).json()['stream']}"
            first = asyncio.Event()

            async def follow():
                async with http.stream("GET", f"{path}/events") as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data"):
                            first.set()
                            yield json.loads(line[6:])

            async def collect():
                return [event async for event in follow()]

            reader = asyncio.create_task(collect())
            for word in words(NICE * 3):
                await http.post(f"{path}/append", json={"text": word})
            async with asyncio.timeout(30):
                await first.wait()  # before anybody said that it is whole
            await http.post(f"{path}/append", json={"done": True})
            return await reader

    events = asyncio.run(work())
    assert "".join(event.get("text", "") for event in events if event["type"] == "text") == "".join(words(NICE * 3))


def test_clients_stop_where_the_policy_does(server):
    taken = []

    text = words(NICE + RUDE * 2 + NICE * 60)

    def written():
        for word in text:
            time.sleep(0.005)
            taken.append(word)
            yield word

    with Client(server) as client:
        *pieces, end = client.guard_stream(POLICY, written(), input="Where is it?")
        assert isinstance(end, StreamEnd)
        assert (end.stopped, end.instead) == (True, "Stopped.")
        assert "idiot" not in "".join(one.text for one in pieces)
        assert len(taken) < len(text)
        *pieces, end = client.guard_stream(POLICY, ["say swordfish now"])
        assert (pieces, end.instead, end.response.action) == ([], "Another word.", "override")
        with pytest.raises(PolicyUnknown):
            next(client.guard_stream("none", ["a"]))

    async def work():
        async def chunks():
            for word in words(NICE):
                yield word

        async with AsyncClient(server) as client:
            return [one async for one in client.guard_stream(POLICY, chunks())]

    *pieces, end = asyncio.run(work())
    assert "".join(one.text for one in pieces) == "".join(words(NICE)) == end.response.text


def test_a_socket_takes_a_text_and_gives_back_what_is_let_through(server):
    address = server.replace("http", "ws") + "/v1/guard/stream"
    with connect(address) as socket:
        socket.send(json.dumps({"policy": POLICY}))
        for word in words(NICE):
            socket.send(json.dumps({"text": word}))
        socket.send(json.dumps({"done": True}))
        events = [json.loads(message) for message in socket]
    assert "".join(event.get("text", "") for event in events[:-1]) == "".join(words(NICE))
    assert events[-1]["type"] == "end"
    for wrong, code in (({"policy": "none"}, "policy_unknown"), ({"nothing": 1}, "request_invalid"), ("[", "request_invalid")):
        with connect(address) as socket:
            socket.send(wrong if isinstance(wrong, str) else json.dumps(wrong))
            assert json.loads(socket.recv())["error"]["code"] == code
    with connect(address) as socket:  # one that leaves in the middle
        socket.send(json.dumps({"policy": POLICY}))
        socket.send(json.dumps({"text": NICE}))
    assert httpx.get(f"{server}/healthz").status_code == 200


def test_a_text_is_its_keys_own_and_there_are_only_so_many(tmp_path):
    secrets, entries = zip(*(new_entry(name, may=["judge", "manage"]) for name in ("one", "two")), strict=True)
    write_entries(tmp_path / "keys.yaml", list(entries))
    with serving(settings_for(judges=("toxicity",), keys=tmp_path / "keys.yaml", bounds={"sessions": 2})) as address:
        http = [httpx.Client(base_url=address, headers={"authorization": f"Bearer {secret}"}) for secret in secrets]
        stream = http[0].post("/v1/streams", json={"policy": POLICY}).json()["stream"]
        for method, path, body in (("POST", f"/v1/streams/{stream}/append", {"text": "a"}), ("GET", f"/v1/streams/{stream}/events", None)):
            assert http[1].request(method, path, json=body).json()["error"]["code"] == SessionUnknown.code
        assert http[1].delete(f"/v1/streams/{stream}").status_code == 404
        assert http[0].post("/v1/streams", json={"policy": POLICY}).status_code == 201
        assert http[0].post("/v1/streams", json={"policy": POLICY}).status_code == 429
        refused = httpx.post(f"{address}/v1/streams", json={"policy": POLICY})
        assert refused.status_code == 401
        with pytest.raises(Exception, match=r"1008|403|rejected"), connect(address.replace("http", "ws") + "/v1/guard/stream") as socket:
            socket.recv()
        for one in http:
            one.close()
