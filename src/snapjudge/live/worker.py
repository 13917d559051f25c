"""The process of one engine: `python -m snapjudge.live.worker FD`, started by `live.process` and spoken to over the socket FD.

It ends when the other side is gone, however that went, or when its engine has stopped by itself; whoever started it starts another.
Knows metrics only as far as windows combine; nothing of text but the wordings of open questions, nothing of HTTP.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

from snapjudge.engine import requests as engine_requests
from snapjudge.engine.engine import Engine
from snapjudge.engine.requests import Read
from snapjudge.engine.session import Session
from snapjudge.engine.workers import use_threads
from snapjudge.errors import AdapterUnknown, BundleInvalid, EngineClosed, EngineFailed, SnapjudgeError
from snapjudge.generalist import open_terms
from snapjudge.judge import Judge
from snapjudge.live.messages import Ask, Cancel, Close, Done, Failed, Found, Load, Look, Ready, Reply, Request, Start, Unload, framed, received
from snapjudge.model.adapter import Adapter, load_adapter
from snapjudge.model.asking import Answer, Asking, Wording
from snapjudge.model.hub import load_backbone
from snapjudge.model.reading import Question, embedding_of, reading_of, trace_of
from snapjudge.prove.reference import Reference, Vector, read_reference
from snapjudge.store.bundles import load_bundle

WORDINGS = 4096  # kept ready to be asked
NICER = 8  # than the server, which has to take in, refuse and answer while engines have all cores
STOPPED = 70  # exit status of a worker whose engine has stopped by itself

Futures = list[Future[engine_requests.Answer]]


class Worker:
    """One engine and what is asked of it. Messages are taken in on one thread; answers leave on the engine's."""

    def __init__(self, start: Start, send: Callable[[Reply], None]) -> None:
        self._send = send
        backbone = load_backbone(start.backbone, dtype=start.precision, device=start.device)
        terms = open_terms(start.backbone)
        self._asking = Asking(backbone, terms.mean, terms.learned)
        if start.open_questions:
            self._asking.prepare()  # before the engine's thread, which then is the only one that computes
        self._engine = Engine(backbone, limits=start.limits, cache_bytes=start.cache_bytes, adapter_bytes=start.adapter_bytes)
        self._questions: dict[str, Question] = {}
        self._references: dict[str, Reference] = {}
        self._wordings: OrderedDict[str, Wording] = OrderedDict()
        self._sessions: dict[int, Session] = {}
        self._running: dict[int, _Asked] = {}
        self.ready = Ready(backbone.digest, self._engine.stats.rate, backbone.precision, str(backbone.device))

    def take(self, message: Request) -> None:
        """Do what a message asks for; what goes wrong is told."""
        try:
            if isinstance(message, Ask):
                self._ask(message)
            elif isinstance(message, Cancel):
                self._cancel(message.number)
            elif isinstance(message, Load):
                self._send(Done(message.number, self._load(message)))
            elif isinstance(message, Unload):
                self._questions.pop(message.key, None)
                self._references.pop(message.key, None)
                self._engine.unload(message.key)
                self._send(Done(message.number))
            elif isinstance(message, Close):
                self._end_session(message.session)
            elif isinstance(message, Look):
                self._send(Done(message.number, self._engine.stats))
        except Exception as error:  # whatever a folder, an adapter or a readout does: it is told, and the worker goes on
            number = getattr(message, "number", None)
            if number is not None:
                self._fail(number, error)

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def _load(self, message: Load) -> int:
        """Load a judge; how many tokens its readout has."""
        folder = Path(message.folder)
        bundle = load_bundle(folder)
        if bundle.digest != message.digest:
            raise BundleInvalid(f"{folder} has changed while it was being loaded", hint="load it again")
        backbone = self._engine.backbone
        judge = Judge(bundle, backbone)

        def read() -> Adapter:
            return load_adapter(bundle.adapter_folder, backbone.linears, backbone.device)

        self._engine.load(message.key, read)
        if (reference := bundle.reference) is not None:
            self._references[message.key] = read_reference(reference)
        self._questions[message.key] = Question(judge.metric, judge.question.readout)
        return len(judge.question.readout.token_ids)

    def _ask(self, ask: Ask) -> None:
        """Ask the engine once all wordings are ready to be asked: those never asked before are read first."""
        unknown = [wording for wording in ask.wordings if wording not in self._wordings]
        if not unknown or not self._asking.embeds:
            for wording in unknown:
                self._know(wording, self._asking.wording(wording))
            self._submit(ask)
            return
        contents = [self._asking.content_of(wording) for wording in unknown]
        windows = [window for content in contents for window in content.windows]

        def known(answers: Sequence[engine_requests.Answer]) -> None:
            found = iter(answers)
            for wording, content in zip(unknown, contents, strict=True):
                self._know(wording, self._asking.wording(wording, _embedding([next(found) for _ in content.windows])))
            self._submit(ask)

        self._follow(ask.number, [self._engine.submit(window, [], summary=True, deadline=_left(ask.deadline)) for window in windows], known)

    def _cancel(self, number: int) -> None:
        running = self._running.pop(number, None)
        if running is not None:
            running.cancel()

    def _end_session(self, number: int) -> None:
        session = self._sessions.pop(number, None)
        if session is not None:
            session.close()

    def _know(self, wording: str, ready: Wording) -> None:
        self._wordings[wording] = ready
        while len(self._wordings) > WORDINGS:
            self._wordings.popitem(last=False)

    def _submit(self, ask: Ask) -> None:
        missing = [key for key in ask.keys if key not in self._questions]
        if missing:
            raise AdapterUnknown(f"no judge is loaded under {missing[0][:12]}", hint="load it, or ask again")
        judges = [self._questions[key] for key in ask.keys]
        open_ones = [self._wordings.get(wording) or self._asking.wording(wording) for wording in ask.wordings]
        reads = [Read(key, question.readout) for key, question in zip(ask.keys, judges, strict=True)]
        reads += [Read(None, one.question.readout) for one in open_ones]
        references = {place: self._references[key] for place, key in enumerate(ask.keys) if key in self._references}
        futures: Futures = []
        try:
            for window in ask.windows:
                futures.append(self._one(ask, window, reads, summary=bool(open_ones) and self._asking.embeds, traces=bool(references)))
        except SnapjudgeError:
            for future in futures:
                future.cancel()
            raise

        def answered(answers: Sequence[engine_requests.Answer]) -> None:
            self._send(self._found(ask, judges, references, open_ones, answers))

        self._follow(ask.number, futures, answered)

    def _one(self, ask: Ask, window: tuple[int, ...], reads: list[Read], *, summary: bool, traces: bool) -> "Future[engine_requests.Answer]":
        left = _left(ask.deadline)
        if ask.session is None:
            return self._engine.submit((*window, *ask.tail), reads, deadline=left, summary=summary, traces=traces)
        session = self._sessions.get(ask.session)
        if session is None or session.content != window[: len(session.content)]:
            self._end_session(ask.session)
            session = self._sessions[ask.session] = self._engine.session()
        return session.append(window[len(session.content) :], reads, deadline=left, tail=ask.tail, traces=traces)

    def _follow(self, number: int, futures: Futures, answered: Callable[[Sequence[engine_requests.Answer]], None]) -> None:
        asked = _Asked(futures)
        self._running[number] = asked

        def done() -> None:
            if self._running.get(number) is asked:
                del self._running[number]
            try:
                answered([future.result() for future in futures])
            except CancelledError:
                pass
            except Exception as error:  # an engine's answer, or a fault of ours in reading it: the caller hears of it
                self._fail(number, error)

        asked.when_done(done)

    def _found(
        self,
        ask: Ask,
        judges: Sequence[Question],
        references: Mapping[int, Reference],
        open_ones: Sequence[Wording],
        answers: Sequence[engine_requests.Answer],
    ) -> Found:
        log_p = [reading_of([answer.logits[place] for answer in answers], ask.orders, question.metric) for place, question in enumerate(judges)]
        windows: list[tuple[Answer, ...]] = []
        for answer in answers if open_ones else ():
            readings = [reading_of([logits], 1, one.question.metric) for one, logits in zip(open_ones, answer.logits[len(judges) :], strict=True)]
            windows.append(tuple(self._asking.answers(open_ones, readings, None if answer.summary is None else _embedding([answer]))))
        return Found(
            ask.number,
            tuple(log_p),
            tuple(windows),
            tuple(one.nearest for one in open_ones),
            tokens=sum(answer.tokens for answer in answers),
            cached=sum(answer.cached for answer in answers),
            waited=max(answer.waited for answer in answers),
            seconds=max(answer.seconds for answer in answers),
            strange=tuple(place in references and references[place].strange(_trace(answers, place)) for place in range(len(judges))),
        )

    def _fail(self, number: int, error: Exception) -> None:
        told = error if isinstance(error, SnapjudgeError) else EngineFailed(f"{type(error).__name__}: {error}", hint="the server's log has the details")
        self._send(Failed(number, told.as_dict()))
        if isinstance(error, EngineFailed | EngineClosed) and not self._engine.alive:
            os._exit(STOPPED)


class _Asked:
    """Some futures of one request."""

    def __init__(self, futures: Futures) -> None:
        self._futures, self._left, self._lock = futures, len(futures), threading.Lock()

    def when_done(self, done: Callable[[], None]) -> None:
        """Call `done` once, when all are."""

        def one(_: object) -> None:
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                done()

        for future in self._futures:
            future.add_done_callback(one)

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()


def _embedding(answers: Sequence[engine_requests.Answer]) -> Any:
    return embedding_of([answer.summary for answer in answers if answer.summary is not None])


def _trace(answers: Sequence[engine_requests.Answer], place: int) -> Vector:
    """One judge's content's trace over its windows."""
    found: Vector = trace_of([trace for answer in answers if (trace := answer.traces[place]) is not None]).numpy()
    return found


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def main(descriptor: int) -> None:
    """Serve one connection until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the server says when it is over
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICER)
    connection = socket.socket(fileno=descriptor)
    writing = threading.Lock()

    def send(reply: Reply) -> None:
        try:
            with writing:
                connection.sendall(framed(reply))
        except OSError:  # the server is gone, and so is this process soon
            return

    messages = received(connection)
    start = next(messages, None)
    if not isinstance(start, Start):
        return
    use_threads(start.threads)
    try:
        worker = Worker(start, send)
    except SnapjudgeError as error:
        send(Failed(0, error.as_dict()))
        return
    send(Done(0, worker.ready))
    for message in messages:
        worker.take(message)
    worker.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
