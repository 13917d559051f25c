"""The metric file: YAML in, a Metric out, or every problem at once with its line, what was found and what would be right.

Knows the text of the file, not where it lies.
"""

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import ValidationError

from snapjudge.core.metric import INPUT_NAMES, LABEL_COUNTS, PAIR_LABELS, Metric
from snapjudge.core.rules import ThresholdRule
from snapjudge.errors import MetricInvalid, Problem, RuleInvalid

Path = tuple[str | int, ...]
_HINT = "`snapjudge metric new NAME` writes a commented example; docs/metrics.md describes every key"


def parse_metric(text: str, source: str) -> Metric:
    """Parse and check a metric file.

    Raises:
        MetricInvalid: listing every problem with its line and path.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        found = str(getattr(error, "problem", None) or error)
        raise MetricInvalid(source, [Problem("(file)", found, "valid YAML", mark.line + 1 if mark else None)], hint=_HINT) from error
    reader = _Reader()
    data = reader.build(node, ()) if node is not None else None
    if not isinstance(data, dict):
        raise MetricInvalid(source, [Problem("(file)", _show(data), "a mapping with name, version, type, ...")], hint=_HINT)
    problems = reader.problems + [p for p in _schema_problems(data, reader) if not reader.covers(p)] + list(_cross_problems(data, reader))
    if problems:
        raise MetricInvalid(source, sorted(_unique(problems), key=lambda p: p.line or 0), hint=_HINT)
    return Metric.model_validate(data)


def dump_metric(metric: Metric) -> str:
    """The resolved metric as YAML that reads back to the same value."""
    data = metric.model_dump(mode="json", exclude_none=True)
    return yaml.dump(data, sort_keys=False, allow_unicode=True, width=120)


class _Reader:
    """Builds plain data from YAML nodes, remembering each path's line and catching what YAML silently changes."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        if node.tag == "tag:yaml.org,2002:bool" and path[:1] in (("labels",), ("positive",)):
            self._note(path, f"unquoted {node.value}, which YAML reads as {_boolean(node.value)}", f'"{node.value}" in quotes')
            return node.value
        if path[:1] == ("labels",):
            return str(node.value)
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._note(path, f"{node.value!r}, which YAML cannot read as {node.tag.rpartition(':')[2]}", "a plain value, in quotes if it is a text")
            return str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            if key in data:
                self._note(here, "the same key twice", "one of them", key_node.start_mark.line + 1)
                continue
            if key_node.tag == "tag:yaml.org,2002:bool" and path == ("labels",):
                self._note(here, f"label name {key} unquoted, which YAML reads as {_boolean(key)}", f'"{key}" in quotes', key_node.start_mark.line + 1)
            data[key] = self.build(value_node, here)
            self.lines[here] = key_node.start_mark.line + 1
        return data

    def _note(self, path: Path, found: str, expected: str, line: int | None = None) -> None:
        self.problems.append(Problem(_dotted(path), found, expected, line or self.lines.get(path)))

    def line(self, path: Path) -> int | None:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def covers(self, problem: Problem) -> bool:
        return any(problem.path == mine.path for mine in self.problems)


def _schema_problems(data: dict[str, Any], reader: _Reader) -> Iterator[Problem]:
    """Problems of single fields: types, ranges, unknown and missing keys."""
    try:
        Metric.model_validate(data)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = tuple(part for part in item["loc"] if not (isinstance(part, str) and "[" in part))
            if path[:1] in (("labels",), ("positive",)):
                continue  # told below, in the words of the metric
            found = "nothing" if item["type"] == "missing" else _show(item["input"])
            expected = {
                "missing": "a value; this key is required",
                "extra_forbidden": f"one of the known keys: {', '.join(Metric.model_fields)}",
                "string_pattern_mismatch": "a lower-case name of letters, digits and _, starting with a letter" if path == ("name",) else "text",
            }.get(item["type"], item["msg"].removeprefix("Input should be "))
            yield Problem(_dotted(path), found, expected, reader.line(path))


def _cross_problems(data: dict[str, Any], reader: _Reader) -> Iterator[Problem]:
    """Problems between fields; each check stands alone, so that one wrong field hides no other."""
    kind, labels, inputs = data.get("type"), data.get("labels"), data.get("inputs")
    names = list(labels) if isinstance(labels, dict) else []

    def problem(path: Path, found: str, expected: str) -> Problem:
        return Problem(_dotted(path), found, expected, reader.line(path))

    if not isinstance(labels, dict):
        yield problem(("labels",), "nothing" if labels is None else _show(labels), 'a mapping of label to answer words, such as violates: ["yes"]')
    else:
        yield from _label_problems(kind, labels, problem)
    positive = data.get("positive")
    flagged = [positive] if isinstance(positive, str) else positive if isinstance(positive, list) else []
    nothing = positive == [] and kind != "boolean"  # as a saved metric says that none of its labels is flagged
    if positive is not None and not nothing and (not flagged or any(name not in names for name in flagged)):
        yield problem(("positive",), _show(positive), f"one of the labels: {', '.join(names)}")
    if kind == "boolean" and len(flagged) > 1:
        yield problem(("positive",), _show(positive), "one label")
    if isinstance(inputs, list):
        yield from _input_problems(kind, data.get("level"), inputs, problem)
        yield from _optional_problems(data, inputs, problem)
    yield from _window_problems(kind, data.get("windows"), flagged, problem)
    for key, parse in (("threshold", ThresholdRule.parse), ("escalation", ThresholdRule.parse_escalation)):
        rule = data.get(key)
        if isinstance(rule, str):
            try:
                parse(rule)
            except RuleInvalid as error:
                yield problem((key,), _show(rule), error.hint)


def _label_problems(kind: object, labels: dict[str, Any], problem: Any) -> Iterator[Problem]:
    low, high = LABEL_COUNTS.get(str(kind), (2, 255))
    if not low <= len(labels) <= high:
        yield problem(("labels",), f"{len(labels)} labels", f"{low} labels" if low == high else f"{low} to {high} labels for type {kind}")
    if kind == "pairwise" and set(labels) not in ({"a", "b"}, set(PAIR_LABELS)):
        yield problem(("labels",), ", ".join(labels), "a, b and optionally tie")
    owners: dict[str, str] = {}
    for label, words in labels.items():
        path = ("labels", label)
        if not isinstance(words, list) or not words:
            yield problem(path, "nothing" if words is None else _show(words), 'a list of answer words, such as ["yes", "Yes"]')
            continue
        for index, word in enumerate(words):
            if not isinstance(word, str) or not word or any(c.isspace() for c in word):
                yield problem((*path, index), _show(word), "one word in quotes, without spaces")
            elif word in owners:
                yield problem((*path, index), f"{word!r}, already the answer of {owners[word]}", "a word of its own")
            else:
                owners[word] = label


def _input_problems(kind: object, level: object, inputs: list[Any], problem: Any) -> Iterator[Problem]:
    for index, name in enumerate(inputs):
        if name in inputs[:index]:
            yield problem(("inputs", index), f"{name} twice", "each input once")
    pair = {"a", "b"} & {name for name in inputs if isinstance(name, str)}
    if kind == "pairwise" and len(pair) < 2:
        yield problem(("inputs",), _show(inputs), "both a and b, for type pairwise")
    if kind in ("boolean", "choice", "score") and pair:
        yield problem(("inputs",), _show(inputs), f"no a or b: those belong to type pairwise; use {', '.join(INPUT_NAMES[:5])}")
    if level == "session" and "messages" not in inputs:
        yield problem(("inputs",), _show(inputs), "messages among the inputs, for level session")


def _window_problems(kind: object, windows: object, flagged: list[Any], problem: Any) -> Iterator[Problem]:
    if windows in ("any", "all", "passages") and not (kind in ("boolean", "score") or flagged):
        yield problem(("windows",), _show(windows), f"mean, or a positive label that `{windows}` can refer to")
    if windows == "passages" and kind == "pairwise":
        yield problem(("windows",), "passages for type pairwise", "any, all or mean: both answers are read together")


def _optional_problems(data: dict[str, Any], inputs: list[Any], problem: Any) -> Iterator[Problem]:
    optional = data.get("optional")
    for index, name in enumerate(optional if isinstance(optional, list) else ()):
        if name not in inputs:
            yield problem(("optional", index), _show(name), f"one of the inputs: {', '.join(map(str, inputs))}")
        elif name in ("a", "b") or (name == "messages" and data.get("level") == "session"):
            yield problem(("optional", index), _show(name), "an input that the metric can do without")


def _unique(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(file)"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _boolean(text: str) -> str:
    return "true" if text.lower() in ("yes", "on", "true", "y") else "false"
