"""A running server through its public door: answers, refusals, keys, bounds, a stop that loses nothing."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from snapjudge.client import Client
from snapjudge.core.api import Item
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import (
    EngineBusy,
    JudgeUnknown,
    KeyForbidden,
    KeyInvalid,
    RateLimited,
    RequestInvalid,
    RequestTooLarge,
    SessionUnknown,
    SettingsInvalid,
)
from snapjudge.judge import Panel
from snapjudge.live.host import HostTerms
from snapjudge.serve.keys import KeyEntry, new_entry, read_entries, write_entries
from snapjudge.serve.settings import Bounds, ServeSettings
from snapjudge.testing import serving
from tests.serve.conftest import JUDGES, settings_for

pytestmark = pytest.mark.flow


def test_every_answer_says_who_gave_it_and_is_the_library_s_own_to_the_bit(server):
    panel = Panel.load(["toxicity", "tone"])
    texts = [{"output": "you idiot"}, {"input": "Hi", "output": "Good morning!"}, {"context": "only this"}]
    with Client(server) as client:
        found = client.judge([Item(id=str(number), inputs=text) for number, text in enumerate(texts)], ["toxicity", "prod", "tone@1"], ["Is it about money?"])
    assert [one.id for one in found.results] == ["0", "1", "2"]
    for one, text in zip(found.results[:2], texts, strict=False):
        expected = panel.score(**text)
        toxic, prod, tone, money = one.answers
        assert (toxic.asked, prod.asked, tone.asked, money.asked) == ("toxicity", "prod", "tone@1", "Is it about money?")
        assert toxic.score == prod.score == expected["toxicity@1"].score
        assert tone.probabilities == expected["tone@1"].probabilities
        assert toxic.digest == panel.judges["toxicity@1"].bundle.digest
        assert toxic.threshold == panel.judges["toxicity@1"].bundle.calibration.threshold.value
        assert money.flags.zero_shot
        assert money.judge == "generalist@mini"
    assert [one.flags.abstained for one in found.results[2].answers] == [True, True, True, False]
    assert found.results[2].answers[0].abstention.code == "input_invalid"
    assert found.usage.tokens > 0
    assert found.timings.total_ms >= found.timings.engine_ms > 0
    assert found.request_id.startswith("req_")


def test_judges_are_loaded_renamed_and_unloaded_while_others_answer(server):
    with Client(server) as client:
        loaded = client.load("sexism@1", alias="ours")
        assert set(loaded.names) == {"sexism@1", "sexism", "ours"}
        assert client.score("ours", output="hello").judge == "sexism@1"
        assert client.load("sexism").digest == loaded.digest
        client.alias("ours", "tone")
        assert client.score("ours", output="hello").judge == "tone@1"
        client.unload("sexism")
        with pytest.raises(JudgeUnknown) as error:
            client.score("sexism", output="hello")
        assert "GET /v1/judges" in error.value.hint
        assert {one.judge for one in client.judges().judges} == {f"{name}@1" for name in JUDGES}


def test_a_conversation_is_judged_as_it_grows_and_is_its_own(server):
    with Client(server) as client, client.conversation(["toxicity"]) as talk:
        assert talk.append({"role": "user", "content": "hi"}).answers[0].abstention.code == "input_invalid"  # toxicity reads no messages
    with Client(server) as client:
        client.load("refusal") if "messages" in str(client.judges()) else None
        with pytest.raises(SessionUnknown):
            client.append(talk.session, [{"role": "user", "content": "again"}])


def test_many_items_come_back_in_order(server):
    with Client(server) as client:
        found = list(client.judge_many(({"output": f"text number {number}"} for number in range(50)), ["toxicity"], batch=7, at_once=3))
        again = [client.score("toxicity", output=f"text number {number}").score for number in (0, 24, 49)]
    assert len(found) == 50
    assert [found[number].answers[0].score for number in (0, 24, 49)] == again


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[1]", "body"),
        (b'{"judges": ["toxicity"]}', "body"),
        (b'{"inputs": {"output": "x"}}', "body"),
        (b'{"judges": ["toxicity"], "inputs": {"output": "x"}, "more": 1}', "more"),
        (b'{"judges": ["toxicity"], "items": [{"inputs": 3}]}', "items.0.inputs"),
        (b'{"judges": ["toxicity"], "inputs": {"output": "\xff\xfe"}}', "body"),
        (b'{"judges": ["\\ud800"], "inputs": {"output": "x"}}', "body"),
        (b'{"judges": ["toxicity"], "inputs": {"output": ' + b"[" * 70 + b"]" * 70 + b"}}", "body"),
        (b'{"judges": ["toxicity"], "inputs": {"output": "x"}, "deadline_ms": -1}', "deadline_ms"),
        (b'{"judges": ["toxicity"], "inputs": {"output": "x"}, "deadline_ms": 1e999}', "deadline_ms"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_the_place(server, body, place):
    response = httpx.post(f"{server}/v1/judge", content=body)
    assert response.status_code == 422
    told = response.json()["error"]
    assert told["code"] == "request_invalid"
    assert told["problems"][0]["path"] == place
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_odd_texts_are_judged_or_abstained_from_but_never_fail(server):
    odd = ["\x00\x01", "[SEP] [CLS] [MASK] <output>", "🙂" * 2000, "a " * 2_000, "\u202e\u200b", "ignore </output> this", " "]
    with Client(server) as client:
        found = client.judge([{"output": text} for text in odd], ["toxicity", "tone"], ["Is it odd?"])
    for text, one in zip(odd, found.results, strict=True):
        assert all(answer.flags.abstained == (text in (" ", "\x00\x01", "\u202e\u200b")) for answer in one.answers), text
    assert found.results[3].answers[0].flags.windowed


def test_unknown_paths_and_methods_have_the_same_body_as_every_refusal(server):
    asked = ("GET", "/nothing", 404, "not_found"), ("PUT", "/v1/judge", 405, "method_invalid"), ("DELETE", "/v1/judges/..%2F..%2Fetc", 404, "not_found")
    for method, path, status, code in asked:
        response = httpx.request(method, server + path)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    with Client(server) as client, pytest.raises(JudgeUnknown):
        client.unload("nothing@9")


def test_health_metrics_version_and_documentation(server):
    with Client(server) as client:
        client.score("toxicity", output="you idiot")
    assert httpx.get(f"{server}/healthz").json()["status"] == "ok"
    assert httpx.get(f"{server}/readyz").json() == {"status": "ok", "engines": {"mini": "1 of 1"}, "judges": 3}
    assert httpx.get(f"{server}/version").json()["snapjudge"]
    text = httpx.get(f"{server}/metrics").text
    assert 'snapjudge_judgements_total{judge="toxicity@1",label="toxic"}' in text
    assert 'snapjudge_requests_total{path="/v1/judge",status="200"}' in text
    assert 'snapjudge_engines{backbone="mini"} 1.0' in text
    schema = httpx.get(f"{server}/openapi.json").json()
    assert schema["paths"]["/v1/judge"]["post"]["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/JudgeRequest"}
    names = schema["components"]["schemas"]
    assert not [ref for ref in _references(schema) if ref.rpartition("/")[2] not in names]


def _references(value):
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref":
                yield one
            else:
                yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


def test_a_request_keeps_the_id_it_came_with_unless_it_could_be_mistaken_for_something_else(server):
    assert httpx.get(f"{server}/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert httpx.get(f"{server}/healthz", headers={"x-request-id": "a b"}).headers["x-request-id"].startswith("req_")


def test_what_would_come_too_late_is_refused_at_once_with_when_to_come_again(server):
    with Client(server, attempts=1) as client:
        client.score("toxicity", output="warm")
        with pytest.raises(EngineBusy) as error:
            client.judge([{"output": f"{number} word " * 400} for number in range(40)], ["toxicity", "tone"], deadline=0.02)
    assert error.value.status in (429, 504)
    response = httpx.post(f"{server}/v1/judge", json={"judges": ["toxicity"], "inputs": {"output": "word " * 50_000}}, headers={"x-deadline-ms": "5"})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["retry_after"] > 0


def test_bodies_that_are_too_large_or_compressed_are_refused_unread():
    with serving(settings_for(judges=("toxicity",), bounds=Bounds(body_bytes=2048))) as address:
        with Client(address) as client, pytest.raises(RequestTooLarge, match="2048"):
            client.score("toxicity", output="x" * 5000)
        long = httpx.post(f"{address}/v1/judge", content=(b"x" * 1024 for _ in range(10)))
        assert long.status_code == 413
        packed = httpx.post(f"{address}/v1/judge", content=b"x", headers={"content-encoding": "br"})
        assert packed.status_code == 415


def test_slow_and_flooding_clients_are_let_go_and_others_are_answered():
    bounds = Bounds(header_seconds=0.5, body_seconds=0.5, header_bytes=4096)
    with serving(settings_for(judges=("toxicity",), bounds=bounds)) as address:
        host, port = address.removeprefix("http://").split(":")

        def said(*parts, pause=0.0):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                for part in parts:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(part)
                    time.sleep(pause)
                found = b""
                with contextlib.suppress(ConnectionError):
                    while piece := connection.recv(65536):
                        found += piece
                return found

        begin = b"POST /v1/judge HTTP/1.1\r\nhost: x\r\n"
        assert b" 408 " in said(b"")
        assert b" 408 " in said(begin, *[b"x: y\r\n"] * 8, pause=0.1)
        assert b" 408 " in said(begin + b"content-length: 100\r\n\r\n", *[b"{"] * 8, pause=0.1)
        assert b" 431 " in said(begin, *[b"x-%d: y\r\n" % number for number in range(2000)])
        assert b" 431 " in said(begin + b"x: " + b"y" * 100_000)
        assert b" 431 " in said(begin + b"x: " + b"y" * 10_000 + b"\r\ncontent-length: 0\r\n\r\n")
        assert b" 400 " in said(b"\x16\x03\x01 nonsense\r\n\r\n")
        with Client(address) as client:
            assert client.score("toxicity", output="hello").label


def test_a_client_that_leaves_is_noticed_and_not_answered():
    with serving(settings_for(judges=("toxicity",), engine=HostTerms(processes=1, longest=1 << 20))) as address:
        body = {"judges": ["toxicity"], "inputs": {"output": " ".join(map(str, range(60_000)))}}
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/judge", json=body, headers={"x-deadline-ms": "600000"}, timeout=0.3)
        end = time.monotonic() + 20
        while 'status="499"' not in (text := httpx.get(f"{address}/metrics").text) and time.monotonic() < end:
            time.sleep(0.05)
        assert 'snapjudge_requests_total{path="/v1/judge",status="499"}' in text


def test_keys_say_who_may_do_what_and_how_often(tmp_path):
    keys = {}
    entries = []
    for name, terms in {
        "gateway": {"judges": ("toxicity",), "may": ("judge",)},
        "other": {"may": ("judge",)},
        "slow": {"rate": "2/minute"},
        "boss": {"may": ("judge", "manage")},
    }.items():
        keys[name], entry = new_entry(name, **terms)
        entries.append(entry)
    write_entries(tmp_path / "keys.yaml", entries)
    assert read_entries(tmp_path / "keys.yaml") == entries
    assert keys["gateway"] not in (tmp_path / "keys.yaml").read_text()
    with serving(settings_for(keys=tmp_path / "keys.yaml", aliases={"prod": "tone"})) as address:
        with Client(address) as nobody, pytest.raises(KeyInvalid):
            nobody.score("toxicity", output="x")
        with Client(address, key="sj_wrong") as wrong, pytest.raises(KeyInvalid):
            wrong.judges()
        with Client(address, key=keys["gateway"]) as client:
            assert client.score("toxicity", output="x").label
            for deed in (lambda: client.score("tone", output="x"), lambda: client.score("prod", output="x"), lambda: client.unload("toxicity")):
                with pytest.raises(KeyForbidden):
                    deed()
            metric = Panel.load(["tone"]).judges["tone@1"].metric
            question = OpenQuestion(instructions=metric.question, type="choice", options=metric.label_names)
            with pytest.raises(KeyForbidden):
                client.judge([{"output": "x"}], (), [question])
            session = client.conversation(["toxicity"]).session
        with Client(address, key=keys["other"]) as client, pytest.raises(SessionUnknown):
            client.append(session, [{"role": "user", "content": "what did they say?"}])
        with Client(address, key=keys["slow"], attempts=1) as client:
            client.judges()
            client.judges()
            with pytest.raises(RateLimited) as error:
                client.judges()
            assert 0 < error.value.retry_after <= 60
        with Client(address, key=keys["boss"]) as client:
            client.unload("tone")
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert httpx.get(f"{address}/metrics").status_code == 401


def test_a_file_of_keys_with_problems_names_them_all(tmp_path):
    (tmp_path / "keys.yaml").write_text("- {name: a b, sha256: xyz}\n- {name: ok, sha256: '" + "0" * 64 + "', rate: often}\n")
    with pytest.raises(SettingsInvalid) as error:
        read_entries(tmp_path / "keys.yaml")
    assert len(error.value.problems) == 3


def test_an_address_others_can_reach_wants_keys_or_a_word_that_it_is_meant(tmp_path):
    with pytest.raises(ValueError, match="can be reached from outside"):
        ServeSettings(host="0.0.0.0")  # noqa: S104 - refused
    assert ServeSettings(host="0.0.0.0", open_to_all=True)  # noqa: S104 - not served
    with pytest.raises(ValueError, match="private key"):
        ServeSettings(certificate=tmp_path / "cert.pem")


def test_a_server_that_is_told_to_stop_answers_what_it_has_taken_in(tmp_path):
    command = [sys.executable, "-m", "snapjudge.cli", "serve", "toxicity", "--port", "0", "--json", "--processes", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process, contextlib.ExitStack() as after:
        after.callback(process.kill)
        told = b""
        while not told.rstrip().endswith(b"}"):
            told += process.stdout.readline()
        address = json.loads(told)["address"]
        with Client(address, attempts=30) as client:
            client.score("toxicity", output="warm")
        found = []

        def ask(number):
            with Client(address, attempts=1) as client:
                texts = [{"output": f"{number} {place} word " * 100} for place in range(12)]
                found.append(client.judge(texts, ["toxicity"], deadline=300).results)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for one in threads:
            one.start()
        end = time.monotonic() + 60
        while "snapjudge_in_flight 7.0" not in httpx.get(f"{address}/metrics").text and time.monotonic() < end:  # the six and this one
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for one in threads:
            one.join(120)
        assert len(found) == 6
        assert process.wait(60) == 0
        log = process.stderr.read().decode()
    assert all(json.loads(line)["level"] == "info" for line in log.splitlines())
    assert "word" not in log


def test_what_keeps_a_server_from_starting_is_told_with_the_next_step(server):
    port = server.rpartition(":")[2]
    outside = ["--host", "0.0.0.0"]  # noqa: S104 - refused
    asked = (["nothing_like_it"], "no judge"), (["toxicity", "--port", port], "cannot be bound"), (outside, "reached from outside")
    for arguments, told in asked:
        done = subprocess.run([sys.executable, "-m", "snapjudge.cli", "serve", *arguments, "--processes", "1"], capture_output=True, timeout=120)
        assert done.returncode == 2, done
        assert told in " ".join(done.stderr.decode().split())


def test_entries_hide_their_keys():
    key, entry = new_entry("me")
    assert key.startswith("sj_")
    assert key not in str(entry)
    assert isinstance(KeyEntry.model_validate(entry.model_dump()), KeyEntry)
    assert RequestInvalid.status == 422


def test_names_of_judges_that_lead_nowhere_are_not_found(server):
    for name in ("~nobody_at_all/x", "~\u00ef", "x" * 4000, "a/" * 1500, "\x00", "../../../etc", "tone@99", "."):
        found = httpx.post(f"{server}/v1/judges", json={"judge": name})
        assert (found.status_code, found.json()["error"]["code"]) in ((404, "bundle_not_found"), (422, "request_invalid")), (name[:20], found.text)


def test_tls_is_spoken_where_there_is_a_certificate_and_other_origins_are_told_nothing(tmp_path):
    import shutil
    import ssl

    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        key,
        "-out",
        chain,
        *subject,
    ]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(chain))
    with serving(settings_for(judges=("toxicity",), certificate=chain, private_key=key)) as address, httpx.Client(verify=context) as http:
        assert address.startswith("https://")
        found = http.post(f"{address}/v1/judge", json={"inputs": {"output": "hi"}, "judges": ["toxicity"]}, headers={"origin": "https://elsewhere.example"})
        assert found.status_code == 200
        assert "access-control-allow-origin" not in found.headers
        asked = http.options(f"{address}/v1/judge", headers={"origin": "https://elsewhere.example", "access-control-request-method": "POST"})
        assert asked.status_code == 405
        assert "access-control-allow-origin" not in asked.headers
        with pytest.raises(httpx.HTTPError):
            httpx.get(address.replace("https", "http"))


def test_the_page_of_paths_loads_nothing_and_shows_all(server):
    found = httpx.get(f"{server}/docs")
    assert found.headers["content-type"].startswith("text/html")
    page = found.text
    assert "<script" not in page
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert "https://" not in page
    for path, methods in httpx.get(f"{server}/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    assert "curl -X POST 127.0.0.1:8321/v1/judge -d" in page
