"""A server killed at random moments under load, again and again: nothing that was acknowledged is lost, nothing stands twice in the record.

    python -m benchmarks.attack_kill [--kills 200]      (make attack)

Clients send observations, each with an id of its own, and repeat what was not acknowledged with the same id; a batch runs beside them. Every second time
an engine is killed first, and the server a moment later.
"""

import asyncio
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common import arguments, record
from snapjudge.testing import serving_process

CLIENTS, LONGEST = 4, 1.5
TEXTS = ("Thank you, that was helpful.", "You are a complete idiot.", "Where is my order?", "I will find out where you live.")


class Load:
    """What was sent and what was acknowledged: the number under which each lies there."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.refused = 0
        self._next = 0
        self._unsure: list[int] = []  # sent, and not known to have been taken in

    async def run(self, address: str, until: float) -> None:
        """Send until some time, or until the server is gone."""
        async with httpx.AsyncClient(base_url=address, timeout=10) as http:
            await asyncio.gather(*(self._client(http, until) for _ in range(CLIENTS)))

    async def _client(self, http: httpx.AsyncClient, until: float) -> None:
        while time.monotonic() < until:
            if self._unsure:
                number = self._unsure.pop()
            else:
                self._next += 1
                number = self._next
            item = {"id": f"o{number}", "inputs": {"output": f"{TEXTS[number % len(TEXTS)]} {number}"}}
            try:
                found = await http.post("/v1/observations", json={"items": [item], "judges": ["toxicity"]})
                if found.status_code == 202:
                    (name,) = found.json()["observations"]
                    if self.acknowledged.setdefault(f"o{number}", name) != name:
                        raise SystemExit(f"o{number} was acknowledged twice")
                else:
                    self.refused += 1
                    self._unsure.append(number)
            except httpx.HTTPError:
                self._unsure.append(number)
                return
            await asyncio.sleep(0.02)


def killed(folder: Path, load: Load, batches: list[str], rng: random.Random, *, engine: bool) -> None:
    """One turn: a server, load, and a kill at a random moment."""
    with serving_process("toxicity", "--processes", "1", "--data", str(folder)) as (process, address):
        if not batches:
            lines = "\n".join(json.dumps({"id": n, "output": f"{TEXTS[n % len(TEXTS)]} {n}"}) for n in range(4000))
            file = httpx.post(f"{address}/v1/files", content=lines).json()["file"]
            batches.append(httpx.post(f"{address}/v1/batches", json={"file": file, "judges": ["toxicity"]}).json()["batch"])
        moment = time.monotonic() + rng.uniform(0.0, LONGEST)

        async def both() -> None:
            sending = asyncio.create_task(load.run(address, moment + (LONGEST if engine else 0.5)))
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]) if engine and children else process.pid, signal.SIGKILL)
            await sending

        asyncio.run(both())
        if engine and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)


def checked(folder: Path, load: Load, batches: list[str]) -> dict[str, Any]:
    """Let a last server finish, and hold its record against what was acknowledged."""
    with serving_process("toxicity", "--data", str(folder)) as (_, address), httpx.Client(base_url=address, timeout=60) as http:
        until = time.monotonic() + 900
        record_: dict[str, str] = {}
        rows, after = 0, 0
        while time.monotonic() < until and (set(load.acknowledged.values()) - set(record_) or http.get(f"/v1/batches/{batches[0]}").json()["state"] != "done"):
            page = http.get("/v1/observations", params={"after": after, "limit": 1000}).json()
            for one in page["observations"]:
                rows += 1
                record_[one["observation"]] = one["id"]
            after = page["next"]
            if not page["observations"]:
                time.sleep(0.5)
        lines = [json.loads(line)["id"] for line in http.get(f"/v1/batches/{batches[0]}/results").text.splitlines()]
    return {
        "acknowledged": len(load.acknowledged),
        "refused": load.refused,
        "lost": len(set(load.acknowledged.values()) - set(record_)),
        "doubled": rows - len(set(record_.values())),
        "batch_lines": len(lines),
        "batch_whole": lines == [str(n) for n in range(4000)],
    }


def main() -> None:
    """Kill and record."""
    options = arguments(__doc__ or "", kills=200)
    load, batches, rng = Load(), list[str](), random.Random(0)  # noqa: S311 - moments
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.kills):
            killed(Path(folder) / "data", load, batches, rng, engine=turn % 2 == 1)
            if turn % 10 == 9:
                print(f"{turn + 1} kills, {len(load.acknowledged):,} acknowledged", flush=True)
        found = checked(Path(folder) / "data", load, batches)
    record("attack_kill", {"kills": options.kills, **found}, "python -m benchmarks.attack_kill")
    if found["lost"] or found["doubled"] or not found["batch_whole"]:
        raise SystemExit("something was lost or doubled")


if __name__ == "__main__":
    main()
