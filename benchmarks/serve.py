"""A server under load, on the machine that makes the load: latency, what of it is outside the engine, throughput against the engine's own, ten times too much.

python -m benchmarks.serve [--precision bfloat16] [--seconds 60]      (make bench-serve)
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader

from benchmarks.common import RESULTS, arguments, record
from benchmarks.load import Loaded, closed_loop, open_loop, percentile, request_of
from snapjudge.core.precision import Precision
from snapjudge.live.host import Host, HostTerms
from snapjudge.live.judges import LiveJudges
from snapjudge.model.hub import load_prompt_rules
from snapjudge.model.prompt import Content, content_windows
from snapjudge.pages.pictures import shares
from snapjudge.testing import serving_process

JUDGES = ("toxicity", "unsafe_prompt", "prompt_injection", "pii", "tone", "sexism")
CLIENTS, TOKENS = 4, 128
LLM_DOLLARS, LLM_SECONDS = 10.0, 1.0  # FIELD.md: LLM judges take 1-3 s and $10-50 for 1,000 verdicts; the low ends
MACHINE_DOLLARS = 0.10  # for an hour of two virtual cores of a large cloud, on demand


def texts(seed: int) -> Iterator[str]:
    """Texts of 128 tokens with their marks, none like another."""
    rules = load_prompt_rules()
    words = [word for word in (rules.tokens.text_of([token])[0] for token in range(2000, 6000)) if word.isalpha() and len(rules.tokens.encode(word)) == 1]
    marks = len(content_windows({"input": "a"}, rules)[0]) - 1
    rng = random.Random(seed)  # noqa: S311 - load, no secret
    while True:
        yield " ".join(rng.choice(words) for _ in range(TOKENS - marks))


def requests(seed: int, deadline_ms: float | None = None) -> Iterator[bytes]:
    """Requests to six judges."""
    for text in texts(seed):
        yield request_of("/v1/judge", {"judges": JUDGES, "inputs": {"input": text}}, deadline_ms)


@contextmanager
def server(precision: str, judges: Sequence[str] = JUDGES) -> Iterator[tuple[str, int, int]]:
    """A server of its own process; its address and number once it is ready."""
    with tempfile.TemporaryDirectory() as folder, serving_process(*judges, "--precision", precision, "--data", folder) as (process, address):
        host, port = address.removeprefix("http://").split(":")
        yield host, int(port), process.pid


async def engine_rate(live: LiveJudges, count: int, seed: int) -> float:
    """Requests a second that the same engines answer when token ids are put to them directly."""
    host: Host = live.generalist.host
    rules = live.generalist.rules
    loaded = [live.roster.find(name) for name in JUDGES]
    source = texts(seed)
    contents = [Content(content_windows({"input": next(source)}, rules)) for _ in range(count)]

    async def client() -> None:
        while contents:
            content = contents.pop()
            await host.ask(content, [one.digest for one in loaded], cost=content.tokens + sum(one.readout for one in loaded))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return count / (time.perf_counter() - began)


def outside(found: Loaded) -> float:
    """The share of the clients' time that was not in the engine."""
    return 1.0 - float(sum(body["timings"]["engine_ms"] for body in found.bodies)) / 1000 / sum(found.accepted)


async def measured(host: str, port: int, precision: str, rounds: int, count: int, seconds: float) -> dict[str, Any]:
    """Everything that is measured of a server."""
    await closed_loop(host, port, requests(0), CLIENTS, count // 4)  # warm
    live = await LiveJudges.start(HostTerms(precision=Precision(precision), open_questions=False), JUDGES)
    served, engine = Loaded(), []
    try:
        await engine_rate(live, count // 4, 1)
        for turn in range(rounds):  # in turn, so that both see the machine at its best and worst
            found = await closed_loop(host, port, requests(100 + turn), CLIENTS, count)
            served.accepted += found.accepted
            served.bodies += found.bodies
            served.seconds += found.seconds
            engine.append(await engine_rate(live, count, 200 + turn))
    finally:
        await live.close()
    deadline = 10 * percentile(served.accepted, 0.5)
    over = await open_loop(host, port, requests(300, deadline), 10 * served.rate, seconds)
    own = sum(engine) / len(engine)
    dollars = MACHINE_DOLLARS / 3600 / (served.rate * len(JUDGES)) * 1000
    return {
        "closed_loop": {
            "clients": CLIENTS,
            "requests": len(served.accepted),
            "per_second": served.rate,
            **{f"p{round(share * 100)}_ms": percentile(served.accepted, share) for share in (0.5, 0.95, 0.99)},
            "outside_engine": outside(served),
            "latencies_ms": _sample(served.accepted),
        },
        "engine_per_second": own,
        "throughput_over_engine": served.rate / own,
        "overload": {
            "offered_per_second": 10 * served.rate,
            "seconds": over.seconds,
            "statuses": over.statuses,
            "deadline_ms": deadline,
            "accepted_per_second": over.rate,
            **{f"accepted_p{round(share * 100)}_ms": percentile(over.accepted, share) for share in (0.5, 0.95, 0.99)},
            **{f"refused_p{round(share * 100)}_ms": percentile(over.refused, share) for share in (0.5, 0.95, 0.99)},
            "accepted_ms": _sample(over.accepted),
            "refused_ms": _sample(over.refused),
        },
        "cost": {
            "machine_dollars_per_hour": MACHINE_DOLLARS,
            "verdicts_per_second": served.rate * len(JUDGES),
            "dollars_per_1000_verdicts": dollars,
            "llm_dollars_per_1000_verdicts": LLM_DOLLARS,
            "llm_seconds": LLM_SECONDS,
            "cheaper": LLM_DOLLARS / dollars,
            "faster": LLM_SECONDS / (percentile(served.accepted, 0.5) / 1000),
        },
    }


def _sample(seconds: Sequence[float]) -> list[float]:
    """About two hundred of them in milliseconds, evenly from the smallest to the largest, the last among them."""
    ordered = sorted(seconds)
    return [round(1000 * ordered[round(at * (len(ordered) - 1) / 200)], 2) for at in range(201)] if ordered else []


def page(told: Mapping[str, Any]) -> str:
    """The report of a run."""
    loader = ChoiceLoader([PackageLoader("snapjudge.pages", "."), FileSystemLoader(Path(__file__).parent)])
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    over = told["overload"]
    pictures = [
        shares("Four clients in a closed loop", "milliseconds", {"answers": told["closed_loop"]["latencies_ms"]}, marks=[50.0]),
        shares("Ten times the load: accepted", "milliseconds", {"answers": over["accepted_ms"]}, marks=[over["deadline_ms"]]),
        shares("Ten times the load: refused", "milliseconds", {"refusals": over["refused_ms"]}, marks=[20.0]),
    ]
    return environment.get_template("serve.html.j2").render(told=told, pictures=pictures) + "\n"


def main() -> None:
    """Measure and record."""
    options = arguments(__doc__ or "", precision="bfloat16", rounds=3, count=400, seconds=60.0)
    with server(options.precision) as (host, port, _):
        found = asyncio.run(measured(host, port, options.precision, options.rounds, options.count, options.seconds))
    loop, over = found["closed_loop"], found["overload"]
    rows = [
        ("6 judges, 4 clients: p95", f"{loop['p95_ms']:.1f} ms", "< 50 ms", loop["p95_ms"] < 50),
        ("share of time outside the engine", f"{loop['outside_engine']:.2f}", "< 0.25", loop["outside_engine"] < 0.25),
        ("throughput / the engine's own", f"{found['throughput_over_engine']:.2f}", ">= 0.8", found["throughput_over_engine"] >= 0.8),
        ("10 x load: accepted p95", f"{over['accepted_p95_ms']:.0f} ms", f"< {over['deadline_ms']:.0f} ms", over["accepted_p95_ms"] < over["deadline_ms"]),
        ("10 x load: refused p95", f"{over['refused_p95_ms']:.1f} ms", "< 20 ms", over["refused_p95_ms"] < 20),
        ("cheaper than an LLM judge", f"{found['cost']['cheaper']:,.0f} x", ">= 80 x", found["cost"]["cheaper"] >= 80),
        ("faster than an LLM judge", f"{found['cost']['faster']:.0f} x", ">= 20 x", found["cost"]["faster"] >= 20),
    ]
    for name, value, target, met in rows:
        print(f"{name:<36} {value:>12}  {target:<12} {'' if met else 'missed'}")
    told = [dict(zip(("measure", "found", "target", "met"), row, strict=True)) for row in rows]
    whole = record("serve", {"precision": options.precision, **found, "rows": told}, "python -m benchmarks.serve")
    (RESULTS / "serve.html").write_text(page(whole))
    print(f"the report: {RESULTS / 'serve.html'}")


if __name__ == "__main__":
    main()
