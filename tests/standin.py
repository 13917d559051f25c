"""A stand-in for an OpenAI-compatible endpoint on loopback, that also misbehaves as real ones do."""

import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    """Answers chat completions by `reply(body) -> text`; `trouble` maps kinds of misbehaviour to how often they happen.

    Kinds: rate_limit (429 with Retry-After, then well), error (500, then well), slow, html, no_choices, wrong_types, refusal, filter, prose, empty,
    bad_label, cut, no_usage.
    """

    def __init__(self, reply, *, trouble=None, key=None, seed=0):
        self.reply, self.trouble, self.key = reply, trouble or {}, key
        self.asked: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self._random, self._lock = random.Random(seed), threading.Lock()
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, headers, raw = standin.answer(body, self.headers)
                self.send_response(status)
                for name, value in {"content-type": "application/json", "content-length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, body, headers):
        question = json.dumps(body["messages"])
        with self._lock:
            self.asked[question] += 1
            self.bodies.append(body)
            kind = next((kind for kind, share in self.trouble.items() if self._random.random() < share), "well")
            if kind in ("rate_limit", "error") and self.asked[question] > 1:
                kind = "well"
            self.happened[kind] += 1
        if self.key and headers["authorization"] != f"Bearer {self.key}":
            return 401, {}, b'{"error": {"message": "wrong key"}}'
        if kind == "rate_limit":
            return 429, {"retry-after": "0.05"}, b'{"error": {"message": "slow down"}}'
        if kind == "error":
            return 500, {"retry-after": "0.05"}, b"oops"
        if kind == "filter":
            return 400, {}, b'{"error": {"message": "blocked by the content filter"}}'
        if kind == "slow":
            time.sleep(1.5)
        if kind == "html":
            return 200, {"content-type": "text/html"}, b"<html>gateway</html>"
        return 200, {}, json.dumps(self._body(kind, body)).encode()

    def _body(self, kind, body):
        if kind == "no_choices":
            return {"object": "error", "message": "all is well"}
        if kind == "wrong_types":
            return {"choices": {"0": "yes"}, "usage": "some"}
        texts = {"prose": "I would say it is fine.", "empty": " ", "bad_label": '{"label": "perhaps"}', "refusal": None}
        message = {"role": "assistant", "content": texts.get(kind) if kind in texts else self.reply(body)}
        if kind == "refusal":
            message["refusal"] = "I cannot"
        found = {"choices": [{"index": 0, "finish_reason": "length" if kind == "cut" else "stop", "message": message}]}
        return found if kind == "no_usage" else {**found, "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
