"""Policies as YAML: every problem at once, with its line. Knows the text of a file, not where it lies."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from snapjudge.core.policy import Policy
from snapjudge.errors import PolicyInvalid, Problem


class _Loader(yaml.SafeLoader):
    """As in YAML 1.2, only true and false are booleans: `on` is a key of ours, and labels are called yes and no."""


_WRITTEN = {"all_of": "all", "any_of": "any", "none_of": "not"}  # as the file has them
_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN] for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_HINT = "docs/guard.md describes every key; `snapjudge guard check FILE` reads one"


def parse_policy(text: str, source: str) -> Policy:
    """A policy from YAML.

    Raises:
        PolicyInvalid: with every problem.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise PolicyInvalid(source, [Problem("(file)", str(error).splitlines()[0], "valid YAML", mark.line + 1 if mark else None)], hint=_HINT) from error
    lines: dict[tuple[str | int, ...], int] = {}
    if node is not None:
        _note_lines(node, (), lines)
    return policy_of(data, source, lines)


def policy_of(data: Any, source: str, lines: Mapping[tuple[str | int, ...], int] | None = None) -> Policy:
    """A policy from plain data.

    Raises:
        PolicyInvalid: with every problem.
    """
    if not isinstance(data, dict):
        raise PolicyInvalid(source, [Problem("(file)", type(data).__name__, "a mapping with name, version and stages")], hint=_HINT)
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise PolicyInvalid(source, [_problem(one, lines or {}) for one in error.errors(include_url=False, include_context=False)], hint=_HINT) from None


def read_policy(path: Path) -> Policy:
    """A policy from a file.

    Raises:
        PolicyInvalid: with every problem; the file is not there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyInvalid(str(path), [Problem("(file)", getattr(error, "strerror", None) or str(error), "a policy in YAML, in UTF-8")], hint=_HINT) from error
    return parse_policy(text, path.name)


def dump_policy(policy: Policy) -> str:
    """A policy as YAML that reads back to the same value."""
    return yaml.safe_dump(policy.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120)


def _note_lines(node: yaml.Node, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, str(key.value))] = key.start_mark.line + 1
            _note_lines(value, (*path, str(key.value)), lines)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            _note_lines(value, (*path, place), lines)


def _problem(found: Mapping[str, Any], lines: Mapping[tuple[str | int, ...], int]) -> Problem:
    where = tuple(_WRITTEN.get(part, part) for part in found["loc"])
    line = next((lines[where[:end]] for end in range(len(where), -1, -1) if where[:end] in lines), None)
    shown = repr(found.get("input"))
    expected = str(found["msg"]).removeprefix("Value error, ")
    return Problem(".".join(map(str, where)) or "(file)", shown if len(shown) <= 80 else f"{shown[:77]}...", expected, line)
