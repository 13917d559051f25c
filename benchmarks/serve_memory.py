"""Memory of a server and its engines over many requests, while judges come and go.

    python -m benchmarks.serve_memory [--count 200000] [--adapters 300]      (make bench-serve-memory)

Each adapter is a built-in judge's bundle under a name of its own; sixteen are loaded at a time, and one goes and one comes every so many requests.
"""

import asyncio
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, record
from benchmarks.load import Connection, request_of
from benchmarks.serve import server, texts
from snapjudge.core.manifest import Manifest
from snapjudge.store.bundles import MANIFEST, find_bundle

LOADED, CLIENTS, WARM = 16, 8, 0.1  # judges at a time; clients; share of the requests before memory is looked at first
WORDS = 24
SAMPLES = 40


def copies(folder: Path, count: int) -> list[Path]:
    """Bundles of the same judge under names of their own."""
    source, made = find_bundle("toxicity"), []
    for number in range(count):
        path = folder / f"copy_{number}" / "1"
        shutil.copytree(source, path)
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
        metric = (path / "metric.yaml").read_text().replace("name: toxicity", f"name: copy_{number}", 1)
        (path / "metric.yaml").write_text(metric)
        files = {**manifest.files, "metric.yaml": _sha256(metric.encode())}
        sealed = manifest.model_copy(update={"name": f"copy_{number}", "files": files}).sealed()
        (path / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n")
        made.append(path)
    return made


def _sha256(raw: bytes) -> str:
    import hashlib

    return hashlib.sha256(raw).hexdigest()


def memory_of(pid: int) -> dict[str, float]:
    """Megabytes resident in the server and in each process it has started."""
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return {"server": _resident(pid), **{f"engine {place}": _resident(one) for place, one in enumerate(children)}}


def _resident(pid: int) -> float:
    """Anonymous memory and what of files only this process has mapped."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 1024


async def _call(connection: Connection, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    raw = b"" if body is None else json.dumps(body).encode()
    status, told = await connection.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
    if status >= 300:
        raise SystemExit(f"{method} {path}: {status} {told[:300]!r}")


class Run:
    """One run: clients that send, one that loads and unloads, and what was resident meanwhile."""

    def __init__(self, host: str, port: int, pid: int, bundles: list[Path], count: int) -> None:
        self._host, self._port, self._pid, self._count = host, port, pid, count
        self._coming, self._changer = itertools.cycle(bundles), Connection(host, port)
        self._every, self._look = max(1, count // (2 * len(bundles))), max(1, count // SAMPLES)
        self._loaded: list[str] = []
        self._source = self._requests()
        self._done = 0
        self.changes = 0
        self.told: list[dict[str, float]] = []

    async def run(self) -> None:
        """All of it."""
        for _ in range(LOADED):
            await self._change()
        await asyncio.gather(self._changing(), *(self._client() for _ in range(CLIENTS)))

    async def _change(self) -> None:
        bundle = next(self._coming)
        await _call(self._changer, "POST", "/v1/judges", {"judge": str(bundle)})
        self._loaded.append(bundle.parent.name)
        self.changes += 1
        if len(self._loaded) > LOADED:
            await _call(self._changer, "DELETE", f"/v1/judges/{self._loaded.pop(0)}")

    async def _changing(self) -> None:
        at = self._every
        while self._done < self._count:
            if self._done >= at:
                at += self._every
                await self._change()
            await asyncio.sleep(0.01)

    def _requests(self) -> Iterator[bytes]:
        words = (" ".join(text.split()[:WORDS]) for text in texts(0))
        for number in range(self._count):
            name = self._loaded[-1 - number % (LOADED // 2)]  # of those that stay for a while
            yield request_of("/v1/judge", {"judges": ["toxicity", name], "inputs": {"output": next(words)}})

    async def _client(self) -> None:
        connection = Connection(self._host, self._port)
        for request in self._source:
            status, body = await connection.send(request)
            if status != 200:
                raise SystemExit(f"{status} {body[:300]!r}")
            self._done += 1
            if self._done % self._look == 0:
                self.told.append(memory_of(self._pid))
                print(f"{self._done:,} requests, {self.changes} judges loaded: {self.told[-1]}", flush=True)
        connection.close()


async def measured(host: str, port: int, pid: int, bundles: list[Path], count: int) -> dict[str, Any]:
    """Send the requests; how memory has grown."""
    run, began = Run(host, port, pid, bundles, count), time.perf_counter()
    await run.run()
    seconds = time.perf_counter() - began
    first = max(1, int(WARM * len(run.told)))
    whole = [sum(one.values()) for one in run.told]
    tenth = max(1, (len(run.told) - first) // 10)
    before, after = sum(whole[first : first + tenth]) / tenth, sum(whole[-tenth:]) / tenth
    return {
        "requests": count,
        "judges_loaded": run.changes,
        "seconds": seconds,
        "megabytes_before": before,
        "megabytes_after": after,
        "growth": after / before - 1,
        "samples": [{name: round(value, 1) for name, value in one.items()} for one in run.told],
    }


def main() -> None:
    """Measure and record."""
    options = arguments(__doc__ or "", precision="bfloat16", count=200_000, adapters=300)
    with tempfile.TemporaryDirectory() as folder:
        bundles = copies(Path(folder), options.adapters)
        with server(options.precision, ("toxicity",)) as (host, port, pid):
            found = asyncio.run(measured(host, port, pid, bundles, options.count))
    print(f"{found['growth']:+.2%} over {options.count:,} requests with {found['judges_loaded']} judges loaded (target: < 3 %)")
    record("serve_memory", {"precision": options.precision, **found}, "python -m benchmarks.serve_memory")


if __name__ == "__main__":
    main()
