"""Endpoints: where a language model answers, what it costs and how it may be asked; as a file people write. Knows nothing of asking."""

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from snapjudge.core.frozen import Frozen
from snapjudge.errors import EndpointInvalid, Problem

CHARACTERS_PER_TOKEN = 3.5  # of English prose under common tokenizers; only for estimates before anything is asked


class Price(Frozen):
    """In dollars per million tokens."""

    input: float = Field(default=0.0, ge=0)
    output: float = Field(default=0.0, ge=0)

    def of(self, asked: int, answered: int) -> float:
        """The cost of some tokens."""
        return (asked * self.input + answered * self.output) / 1e6


class Endpoint(Frozen):
    """One model on one OpenAI-compatible server. Keys stay in the environment; the file names the variable."""

    name: str = Field(min_length=1, pattern=r"^\S+$", description="how its votes are signed")
    base_url: str = Field(pattern=r"^https?://", description="such as http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1)
    key_env: str = Field(default="", description="the environment variable that holds the key; empty for servers without one")
    price: Price = Price()
    repeats: int = Field(default=1, ge=1, le=25, description="how often each question is asked")
    weight: float = Field(default=1.0, gt=0, description="of its vote in weighted aggregation")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0.7 is used where it is asked repeatedly and this is 0")
    max_tokens: int = Field(default=300, ge=1)
    timeout: float = Field(default=60.0, gt=0, description="seconds for one answer")
    attempts: int = Field(default=5, ge=1, description="tries for one answer, the first among them")
    concurrency: int = Field(default=4, ge=1, le=256)
    extra: dict[str, Any] = Field(default={}, description="further fields of the request body, such as response_format")

    @property
    def heat(self) -> float:
        """The temperature that is asked with: repeats of the same question need some."""
        return 0.7 if self.repeats > 1 and self.temperature == 0 else self.temperature

    def key(self) -> str:
        """The key from the environment.

        Raises:
            EndpointInvalid: the variable is not set.
        """
        found = os.environ.get(self.key_env, "") if self.key_env else "none"
        if not found:
            raise EndpointInvalid(
                f"endpoint {self.name}", [Problem("key_env", f"{self.key_env}, which is not set", "a key in that variable")], hint=f"export {self.key_env}=..."
            )
        return found


def read_endpoints(path: Path) -> tuple[Endpoint, ...]:
    """The endpoints of a YAML file: a list, or one.

    Raises:
        EndpointInvalid: with every problem of the file.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EndpointInvalid(path.name, [Problem("(file)", str(error).splitlines()[0], "a YAML list of endpoints")], hint=_HINT) from error
    rows = data if isinstance(data, list) else [data]
    found, problems = [], []
    for number, row in enumerate(rows):
        try:
            found.append(Endpoint.model_validate(row))
        except ValidationError as error:
            problems += [Problem(f"[{number}].{'.'.join(map(str, item['loc']))}", repr(item["input"])[:60], item["msg"]) for item in error.errors()]
    names = [one.name for one in found]
    problems += [Problem("name", f"{name!r} twice", "a name of its own for each") for name in sorted({name for name in names if names.count(name) > 1})]
    if problems or not found:
        raise EndpointInvalid(path.name, problems or [Problem("(file)", "no endpoints", "at least one")], hint=_HINT)
    return tuple(found)


_HINT = "- {name: local, base_url: 'http://127.0.0.1:8000/v1', model: qwen, key_env: LOCAL_KEY, price: {input: 0.1, output: 0.4}}"
