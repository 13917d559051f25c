"""Requests made up from the OpenAPI by Schemathesis, against a running server: nothing may fail that is not meant to.

    python -m benchmarks.attack_schema [--cases 20000]      (make attack)

Every answer is one of the statuses below 500, or a deliberate 503 or 504 with a code of ours.
"""

import tempfile
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.common import arguments, record
from snapjudge.testing import serving_process

DELIBERATE = {503: ("engine_down", "draining"), 504: ("deadline_missed",)}
FEW = 20  # different requests that a path has at the most, where more make no sense
JUDGES = ("toxicity", "tone", "prompt_injection")


class Attack:
    """One run: what came back, and what should not have."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: list[dict[str, Any]] = []

    def one(self, case: Any) -> None:
        """Send one request."""
        response = case.call(timeout=60)
        self.statuses[response.status_code] += 1
        if response.status_code >= 500 and _code(response) not in DELIBERATE.get(response.status_code, ()):
            self.wrong.append({"request": case.as_curl_command()[:2000], "status": response.status_code, "body": response.text[:500]})


def _code(response: Any) -> str:
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _operation(found: Any) -> Any:
    return found.ok()


def attack(address: str, cases: int) -> tuple[Attack, int]:
    """Send at least so many requests, as many to each path and method as differ; and to how many."""
    own = Attack()
    operations: list[Any] = [_operation(found) for found in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations()]
    left = operations
    while sum(own.statuses.values()) < cases and left:
        each = settings(
            max_examples=-(-(cases - sum(own.statuses.values())) // len(left)),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        more = []
        for operation in left:
            before = sum(own.statuses.values())
            each(given(case=operation.as_strategy())(own.one))()
            sent = sum(own.statuses.values()) - before
            more += [operation] if sent > FEW else []
            print(f"{operation.label}: {sent} requests, {len(own.wrong)} wrong so far", flush=True)
        left = more
    return own, len(operations)


def main() -> None:
    """Attack and record."""
    options = arguments(__doc__ or "", cases=20_000)
    with tempfile.TemporaryDirectory() as folder, serving_process(*JUDGES, "--data", folder, "--policies", folder) as (process, address):
        found, operations = attack(address, options.cases)
        alive = process.poll() is None
    total = sum(found.statuses.values())
    result = {"requests": total, "operations": operations, "statuses": dict(sorted(found.statuses.items())), "alive": alive, "wrong": found.wrong[:20]}
    record("attack_schema", result, "python -m benchmarks.attack_schema")
    if found.wrong or not alive:
        raise SystemExit(f"{len(found.wrong)} of {total} answers should not have been")


if __name__ == "__main__":
    main()
