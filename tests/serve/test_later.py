"""What is judged later, over a real server: observations, files, batches, schedules, webhooks; and what is left of them after a kill."""

import hashlib
import hmac
import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from snapjudge.errors import RunConflict, StorageFailed
from snapjudge.judge import Judge
from snapjudge.serve.keys import new_entry, write_entries
from snapjudge.store.records import batches, calls, observations
from snapjudge.store.records.database import FILE, Database, migrate
from snapjudge.store.records.tables import metadata
from snapjudge.testing import serving, serving_process
from tests.serve.conftest import settings_for

pytestmark = pytest.mark.flow
RUDE, NICE = "You are a complete idiot, shut up.", "Thank you, that was helpful."


@pytest.fixture(scope="module")
def hooks():
    """A receiver of webhooks: what came, and how it answers."""

    class Receiver(BaseHTTPRequestHandler):
        came, answers = [], []

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            Receiver.came.append((dict(self.headers), body))
            self.send_response(Receiver.answers.pop(0) if Receiver.answers else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Receiver, f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inbox")
    (folder / "day.csv").write_text("answer,id\n" + "\n".join(f'"{RUDE if n % 3 == 0 else NICE} {n}",r{n}' for n in range(7)) + "\n")
    return folder


@pytest.fixture(scope="module")
def later(tmp_path_factory, inbox):
    terms = settings_for(judges=("toxicity", "tone"), aliases={"prod": "toxicity"}, data=tmp_path_factory.mktemp("data") / "d", inbox=inbox)
    with serving(terms) as address, httpx.Client(base_url=address, timeout=60) as http:
        yield http


def until(look, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_observations_are_judged_once_and_can_be_read_from_any_place_on(later):
    items = [{"id": f"o{n}", "inputs": {"output": RUDE if n % 2 else NICE}, "source": "web" if n < 5 else "app"} for n in range(10)]
    taken = later.post("/v1/observations", json={"items": items, "judges": ["prod"], "questions": [{"instructions": "Is it about money?"}]})
    assert taken.status_code == 202
    numbers = taken.json()["observations"]
    again = later.post("/v1/observations", json={"items": items[:3], "judges": ["prod"]}).json()["observations"]
    assert again == numbers[:3]
    until(lambda: len(later.get("/v1/observations").json()["observations"]) == 10)
    first = later.get("/v1/observations", params={"limit": 4}).json()
    rest = later.get("/v1/observations", params={"after": first["next"]}).json()
    found = first["observations"] + rest["observations"]
    assert sorted(one["observation"] for one in found) == sorted(numbers)
    assert later.get("/v1/observations", params={"after": rest["next"]}).json() == {"observations": [], "next": rest["next"]}
    by_id = {one["id"]: one for one in found}
    own = Judge.load("toxicity")
    for item in items:
        answer = by_id[item["id"]]["answers"][0]
        assert (answer["asked"], answer["judge"]) == ("prod", "toxicity@1")
        assert answer["score"] == own.score(output=item["inputs"]["output"]).score
        assert len(by_id[item["id"]]["answers"]) == 2
        assert by_id[item["id"]]["inputs"] is None  # texts are not kept unless that was said
    assert {one["id"] for one in later.get("/v1/observations", params={"source": "app"}).json()["observations"]} == {f"o{n}" for n in range(5, 10)}
    assert later.get(f"/v1/observations/{numbers[0]}").json()["state"] == "judged"
    assert later.get("/v1/observations/obs_none").status_code == 404
    assert later.post("/v1/observations", json={"items": items, "judges": ["none"]}).json()["error"]["code"] == "judge_unknown"
    assert later.post("/v1/observations", json={"items": items}).status_code == 422
    assert 'snapjudge_judgements_total{judge="toxicity@1",label="toxic"}' in later.get("/metrics").text


def test_a_file_becomes_a_batch_whose_lines_are_those_of_the_library(later):
    lines = [{"id": f"l{n}", "output": f"{RUDE if n % 4 == 0 else NICE} {n}"} for n in range(100)]
    body = "\n".join(json.dumps(one) for one in lines[:50]) + "\nnot json\n" + "\n".join(json.dumps(one) for one in lines[50:]) + '\n{"id": "x", "inputs": 5}\n'
    stored = later.post("/v1/files", params={"name": "a.jsonl"}, content=body)
    assert stored.status_code == 201
    file = stored.json()["file"]
    assert later.get(f"/v1/files/{file}").text == body
    made = later.post("/v1/batches", json={"file": file, "judges": ["toxicity", "tone"]})
    assert made.status_code == 202
    number = made.json()["batch"]
    assert later.delete(f"/v1/files/{file}").json()["error"]["code"] == "run_conflict"
    ended = until(lambda: (now := later.get(f"/v1/batches/{number}").json())["state"] == "done" and now)
    assert (ended["total"], ended["done"]) == (102, 102)
    results = [json.loads(line) for line in later.get(f"/v1/batches/{number}/results").text.splitlines()]
    assert [one["line"] for one in results] == list(range(1, 103))
    assert results[50]["problem"].startswith("line 51")
    own = Judge.load("toxicity")
    for one in (results[0], results[1], results[99]):
        text = lines[one["line"] - 1 - (one["line"] > 51)]["output"]
        assert one["answers"][0]["score"] == own.score(output=text).score
    assert ended["flagged"] >= 25
    assert later.delete(f"/v1/files/{file}").status_code == 204
    assert later.get(f"/v1/files/{file}").status_code == 404
    assert number in [one["batch"] for one in later.get("/v1/batches").json()["batches"]]
    assert later.get("/v1/batches/bat_none/results").status_code == 404


def test_a_batch_is_stopped_and_gone_on_with_and_its_end_is_told(later, hooks, monkeypatch):
    receiver, address = hooks
    receiver.came.clear()
    receiver.answers[:] = [500]
    monkeypatch.setenv("HOOK_SECRET", "hush")
    body = "\n".join(json.dumps({"id": n, "output": f"{NICE} number {n} of many " * 10}) for n in range(160))
    file = later.post("/v1/files", content=body).json()["file"]
    request = {"file": file, "judges": ["toxicity"], "webhook": {"url": address, "secret_env": "HOOK_SECRET"}}
    number = later.post("/v1/batches", json=request).json()["batch"]
    until(lambda: later.get(f"/v1/batches/{number}").json()["done"] >= 32)
    stopped = later.post(f"/v1/batches/{number}/cancel").json()
    assert stopped["state"] == "cancelled"
    assert later.post(f"/v1/batches/{number}/cancel").json()["error"]["code"] == "run_conflict"
    partial = later.get(f"/v1/batches/{number}/results").text
    assert 32 <= len(partial.splitlines()) < 160
    assert later.post(f"/v1/batches/{number}/resume").status_code == 200
    until(lambda: later.get(f"/v1/batches/{number}").json()["state"] == "done")
    whole = later.get(f"/v1/batches/{number}/results").text
    assert [json.loads(line)["id"] for line in whole.splitlines()] == [str(n) for n in range(160)]
    assert later.post(f"/v1/batches/{number}/resume").json()["error"]["code"] == "run_conflict"
    until(lambda: len(receiver.came) == 2)  # the first was answered with 500
    headers, raw = receiver.came[-1]
    stamp, signature = (part.partition("=")[2] for part in headers["x-snapjudge-signature"].split(","))
    assert signature == hmac.new(b"hush", stamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
    told = json.loads(raw)
    assert (told["batch"], told["state"], told["done"]) == (number, "done", 160)
    assert told["event"] == json.loads(receiver.came[0][1])["event"]


def test_schedules_make_batches_and_what_they_read_is_in_the_inbox(later):
    past = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    batch = {"path": "day.csv", "judges": ["toxicity"], "mapping": {"output": "answer"}}
    plan = later.post("/v1/schedules", json={"batch": batch, "first_at": past, "every_s": 3600}).json()
    made = until(lambda: [one for one in later.get("/v1/batches").json()["batches"] if one["schedule"] == plan["schedule"] and one["state"] == "done"])
    assert len(made) == 1  # five turns were missed, and made up for by one
    assert (made[0]["done"], made[0]["abstained"]) == (7, 0)
    assert made[0]["flagged"] == 3
    (kept,) = (one for one in later.get("/v1/schedules").json()["schedules"] if one["schedule"] == plan["schedule"])
    assert timedelta(0) < datetime.fromisoformat(kept["next_at"]) - datetime.now(UTC) < timedelta(hours=1)
    assert later.delete(f"/v1/schedules/{plan['schedule']}").status_code == 204
    assert later.delete(f"/v1/schedules/{plan['schedule']}").status_code == 404
    for path in ("../secret", "/etc/passwd", "none.csv", "\x00", ".."):
        assert later.post("/v1/batches", json={**batch, "path": path}).status_code == 404, path
    for wrong in ({"first_at": "2026-01-01T00:00:00"}, {"first_at": past, "every_s": 1}):
        assert later.post("/v1/schedules", json={"batch": batch, **wrong}).status_code == 422
    assert later.post("/v1/batches", json={"judges": ["toxicity"]}).status_code == 422
    assert later.post("/v1/batches", json={"file": "file_none", "judges": ["toxicity"]}).status_code == 404


def test_a_batch_whose_judge_is_gone_fails_and_says_so_and_can_be_gone_on_with(later):
    later.post("/v1/judges", json={"judge": "sexism"})
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    plan = later.post("/v1/schedules", json={"batch": {"items": [{"inputs": {"output": NICE}}], "judges": ["sexism"]}, "first_at": soon}).json()
    later.delete("/v1/judges/sexism")
    (made,) = until(lambda: [one for one in later.get("/v1/batches").json()["batches"] if one["schedule"] == plan["schedule"] and one["state"] == "failed"])
    assert made["error"]["code"] == "judge_unknown"
    later.post("/v1/judges", json={"judge": "sexism"})
    later.post(f"/v1/batches/{made['batch']}/resume")
    until(lambda: later.get(f"/v1/batches/{made['batch']}").json()["state"] == "done")
    later.delete("/v1/judges/sexism")


def test_files_are_bounded_and_everything_is_its_keys_own(tmp_path):
    secrets, entries = zip(*(new_entry(name, may=["observe"]) for name in ("one", "two")), strict=True)
    key, manager = new_entry("three", may=["manage", "observe"])
    write_entries(tmp_path / "keys.yaml", [*entries, manager])
    bounds = {"file_bytes": 2048, "files": 2, "waiting": 3, "batches": 1}
    with serving(settings_for(judges=("toxicity",), keys=tmp_path / "keys.yaml", data=tmp_path / "d", bounds=bounds)) as address:
        one, two, three = (httpx.Client(base_url=address, headers={"x-api-key": secret}) for secret in (*secrets, key))
        assert one.post("/v1/files", content=b"a" * 3000).status_code == 413
        assert one.post("/v1/files", content=iter([b"a" * 1000] * 5)).status_code == 413
        assert one.post("/v1/files", content=b"a", headers={"content-encoding": "gzip"}).status_code == 415
        assert not list((tmp_path / "d" / "files").iterdir())
        file = one.post("/v1/files", content=b'{"output": "a"}\n', params={"name": "../../../x.csv\x01"}).json()["file"]
        assert [path.name for path in (tmp_path / "d" / "files").iterdir()] == [f"{file}.jsonl"]
        assert two.get(f"/v1/files/{file}").status_code == 404
        assert two.post("/v1/batches", json={"file": file, "judges": ["toxicity"]}).status_code == 404
        assert one.post("/v1/batches", json={"file": file, "judges": ["toxicity"], "webhook": {"url": "http://127.0.0.1/x"}}).status_code == 403
        assert one.post("/v1/batches", json={"path": "x", "judges": ["toxicity"]}).status_code == 403
        assert three.post("/v1/batches", json={"path": "x", "judges": ["toxicity"]}).json()["error"]["code"] == "not_found"
        number = one.post("/v1/batches", json={"file": file, "judges": ["toxicity"]}).json()["batch"]
        assert two.get(f"/v1/batches/{number}").status_code == 404
        assert two.post(f"/v1/batches/{number}/cancel").status_code == 404
        assert two.get("/v1/batches").json() == {"batches": []}
        assert one.post("/v1/files", content=b"a").status_code == 201
        assert one.post("/v1/files", content=b"a").status_code == 429
        items = [{"inputs": {"output": NICE}} for _ in range(4)]
        full = one.post("/v1/observations", json={"items": items, "judges": ["toxicity"]})
        assert (full.status_code, full.json()["error"]["code"]) == (429, "engine_busy")
        taken = one.post("/v1/observations", json={"items": items[:1], "judges": ["toxicity"]}).json()["observations"][0]
        assert two.get(f"/v1/observations/{taken}").status_code == 404
        assert two.get("/v1/observations").json()["observations"] == []
        later_on = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        plan = {"batch": {"file": file, "judges": ["toxicity"]}, "first_at": later_on}
        until(lambda: one.get(f"/v1/batches/{number}").json()["state"] == "done")
        assert one.post("/v1/schedules", json=plan).status_code == 201
        assert one.post("/v1/schedules", json=plan).status_code == 429
        with pytest.raises(RunConflict, match="another server"):
            Database(tmp_path / "d")
        for http in (one, two, three):
            http.close()


def test_what_was_acknowledged_before_a_kill_is_judged_once_after_it(tmp_path):
    acknowledged, batch = set(), None
    server = ("toxicity", "--processes", "1", "--data", str(tmp_path / "d"))
    for turn in range(4):
        with serving_process(*server) as (process, address), httpx.Client(base_url=address, timeout=20) as http:
            if batch is None:
                body = "\n".join(json.dumps({"id": n, "output": f"{NICE} number {n} " * 10}) for n in range(300))
                batch = http.post("/v1/batches", json={"file": http.post("/v1/files", content=body).json()["file"], "judges": ["toxicity"]}).json()["batch"]
            threading.Timer(0.15 + 0.1 * turn, os.kill, (process.pid, signal.SIGKILL)).start()
            for number in range(100_000):
                items = [{"id": f"{turn}-{number}-{n}", "inputs": {"output": f"{NICE} {turn} {number} {n}"}} for n in range(3)]
                try:
                    found = http.post("/v1/observations", json={"items": items, "judges": ["toxicity"]})
                except httpx.HTTPError:
                    break
                assert found.status_code == 202
                time.sleep(0.005)
                acknowledged |= set(found.json()["observations"])
    with serving_process(*server) as (process, address), httpx.Client(base_url=address, timeout=20) as http:
        until(lambda: http.get(f"/v1/batches/{batch}").json()["state"] == "done", 120)
        lines = http.get(f"/v1/batches/{batch}/results").text.splitlines()
        assert [json.loads(line)["id"] for line in lines] == [str(n) for n in range(300)]

        def all_judged():
            record, after = [], 0
            while (page := http.get("/v1/observations", params={"after": after, "limit": 1000}).json())["observations"]:
                record, after = record + page["observations"], page["next"]
            return record if acknowledged <= {one["observation"] for one in record} else None

        record = until(all_judged, 120)
    numbers = [one["observation"] for one in record]
    assert len(numbers) == len(set(numbers))
    given = [one["id"] for one in record]
    assert len(given) == len(set(given))
    assert all(one["state"] == "judged" for one in record)
    assert process.returncode == 0


def test_the_steps_lead_to_the_tables(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}")
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / FILE).write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StorageFailed, match="no database of this version"):
        Database(tmp_path / "broken")


def test_leases_run_out_and_whoever_lost_one_puts_nothing_down(tmp_path):
    import asyncio

    async def work():
        database = Database(tmp_path / "d")
        new = [observations.New("", {"inputs": {"output": str(n)}}, {"judges": [], "questions": []}) for n in range(3)]
        await database.write(lambda connection: observations.take(connection, "me", new, 0.0, 10))
        first = await database.write(lambda connection: observations.lease(connection, "a", 2, 100.0, 1.0))
        second = await database.write(lambda connection: observations.lease(connection, "b", 5, 100.0, 1.0))
        assert (len(first), len(second)) == (2, 1)
        late = await database.write(lambda connection: observations.lease(connection, "b", 5, 300.0, 200.0))
        assert {one.id for one in first} <= {one.id for one in late}
        findings = [observations.Finding(one.id, []) for one in first]
        assert await database.write(lambda connection: observations.put_down(connection, "a", findings, 200.0, keep_texts=True)) == 0
        assert await database.write(lambda connection: observations.put_down(connection, "b", findings, 200.0, keep_texts=True)) == 2
        assert await database.write(lambda connection: observations.put_down(connection, "b", findings, 200.0, keep_texts=True)) == 0
        with pytest.raises(ZeroDivisionError):
            await database.write(lambda _: 1 / 0)
        assert await database.read(observations.standing) == 1
        number = await database.write(lambda connection: calls.tell(connection, "http://x", {}, 0.0))
        waits, now = [], 0.0
        while row := next(iter(await database.read(lambda connection: calls.due(connection, 1e12))), None):
            waits.append(row.next_at - now)
            now = row.next_at
            gone = await database.write(lambda connection, now=now: calls.settle(connection, number, now, told=False))
        assert gone
        assert waits[:4] == [0.0, 2.0, 8.0, 32.0]
        assert 86_400 / 2 < now < 3 * 86_400
        assert await database.write(lambda connection: batches.come_due(connection, 5.0)) == []
        database.close()

    asyncio.run(work())


def test_clients_hand_things_over_and_read_what_became_of_them(later, tmp_path):
    import asyncio

    from snapjudge.client import AsyncClient, Client

    (tmp_path / "t.csv").write_text("output\n" + "\n".join(f'"{NICE} {n}"' for n in range(5)) + "\n")
    address = str(later.base_url)
    with Client(address) as client:
        before = max((one.place for one in client.observations()), default=0)
        (number,) = client.observe([{"output": RUDE}], ["toxicity"])
        (found,) = until(lambda: list(client.observations(after=before)))
        assert (found.observation, found.answers[0].flagged) == (number, True)
        batch = client.batch(["toxicity"], file=client.store_file(tmp_path / "t.csv").file)
        until(lambda: client.batch_state(batch.batch).state == "done")
        assert [one.answers[0].flagged for one in client.batch_results(batch.batch)] == [False] * 5
        with pytest.raises(RunConflict):
            client.cancel_batch(batch.batch)
        with pytest.raises(RunConflict):
            client.resume_batch(batch.batch)

    async def work():
        async with AsyncClient(address) as client:
            await client.observe([{"output": NICE}], ["toxicity"])
            batch = await client.batch(["toxicity"], file=(await client.store_file(tmp_path / "t.csv")).file)
            while (await client.batch_state(batch.batch)).state != "done":
                await asyncio.sleep(0.05)
            return [one async for one in client.batch_results(batch.batch)], [one async for one in client.observations()]

    lines, observations_ = asyncio.run(work())
    assert [one.line for one in lines] == [2, 3, 4, 5, 6]
    assert number in {one.observation for one in observations_}
