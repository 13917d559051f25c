"""Logs of decision endpoints: one {"request": ..., "response": ...} a line. Their answers become votes of the model that gave them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snapjudge.core.metric import INPUT_NAMES
from snapjudge.curate.importers.terms import ImportTerms, Item, Vote, documents, fitted
from snapjudge.curate.read import Record
from snapjudge.curate.times import moment
from snapjudge.errors import Problem


def decisions(path: Path, terms: ImportTerms) -> Iterator[Item]:
    """/v1/decisions: questions are a list, answers stand in their order."""
    for record, request, response in _exchanges(path):
        if record.data is None:
            yield Item(record)
            continue
        questions, answers = request.get("questions"), response.get("answers") or response.get("decisions") or response.get("output")
        pairs = zip(questions, answers, strict=False) if isinstance(questions, list) and isinstance(answers, list) else ()
        found = next((a for q, a in pairs if isinstance(q, Mapping) and isinstance(a, Mapping) and terms.asks(q.get("name"), q.get("instructions"))), None)
        yield _item(record, request.get("input"), response, None if found is None else _decided(found, terms), terms)


def systemone(path: Path, terms: ImportTerms) -> Iterator[Item]:
    """/v1/systemone: questions and answers by name."""
    for record, request, response in _exchanges(path):
        if record.data is None:
            yield Item(record)
            continue
        questions, answers = request.get("questions"), response.get("answers")
        name = None
        if isinstance(questions, Mapping) and isinstance(answers, Mapping):
            name = next((name for name, q in questions.items() if terms.asks(name, q.get("instructions") if isinstance(q, Mapping) else None)), None)
        found = answers.get(name) if isinstance(answers, Mapping) and name is not None else None
        yield _item(record, request.get("state"), response, _judged(found, terms) if isinstance(found, Mapping) else None, terms)


def _exchanges(path: Path) -> Iterator[tuple[Record, Mapping[str, Any], Mapping[str, Any]]]:
    for record in documents(path):
        request, response = ((record.data or {}).get(name) for name in ("request", "response"))
        if record.data is not None and not (isinstance(request, Mapping) and isinstance(response, Mapping)):
            record = Record(record.line, None, Problem("request, response", "not both", "a logged exchange", record.line))  # noqa: PLW2901
        yield record, request if isinstance(request, Mapping) else {}, response if isinstance(response, Mapping) else {}


def _item(record: Record, state: object, response: Mapping[str, Any], shares: Mapping[str, float] | None, terms: ImportTerms) -> Item:
    """The judged state as inputs; an answer that is a refusal or of another question gives no vote."""
    data = record.data or {}
    shaped = {"id": data.get("id") or response.get("id"), "inputs": _inputs(state, terms), "meta": {"date": data.get("time") or data.get("created_at")}}
    votes = () if not shares else (Vote(dict(shares), str(response.get("model") or "decision endpoint"), moment(data.get("time") or data.get("created_at"))),)
    return Item(Record(record.line, shaped), votes)


def _inputs(state: object, terms: ImportTerms) -> object:
    if isinstance(state, str):
        return {terms.metric.ordered_inputs[-1]: state}
    if isinstance(state, Mapping):
        known = {name: state[name] for name in INPUT_NAMES if state.get(name)}
        return known or {terms.metric.ordered_inputs[-1]: json.dumps(state, ensure_ascii=False)}
    if isinstance(state, list):
        return fitted([_turn(part) for part in state if isinstance(part, Mapping)], terms.metric)
    return None


def _turn(part: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the input list as a message: function calls and their outputs are turns too."""
    kind = str(part.get("type") or "message")
    if kind in ("function_call", "custom_tool_call"):
        call = {"name": part.get("name"), "arguments": part.get("arguments") or part.get("input")}
        return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]}
    if kind.endswith("_output"):
        return {"role": "tool", "content": str(part.get("output") or "")}
    content = part.get("content")
    texts = [{"type": "text", "text": str(one.get("text") or "")} for one in content if isinstance(one, Mapping)] if isinstance(content, list) else content
    return {"role": str(part.get("role") or "user"), "content": texts}


def _decided(answer: Mapping[str, Any], terms: ImportTerms) -> dict[str, float] | None:
    """An answer of /v1/decisions as shares of the metric's labels."""
    labels = terms.metric.label_names
    if answer.get("type") == "predicate":
        return _shares({labels[0]: answer.get("probability"), labels[-1]: _rest(answer.get("probability"))})
    if answer.get("type") not in ("choice", "score") or not isinstance(answer.get("probabilities"), list):
        return None
    given = [one for one in answer["probabilities"] if isinstance(one, Mapping)]
    return _shares({str(one.get("label", one.get("value"))): one.get("probability") for one in given})


def _judged(answer: Mapping[str, Any], terms: ImportTerms) -> dict[str, float] | None:
    """An answer of /v1/systemone as shares of the metric's labels."""
    labels = terms.metric.label_names
    if answer.get("type") == "noul":
        return _shares({labels[0]: answer.get("noul"), labels[-1]: _rest(answer.get("noul"))})
    given = answer.get("probabilities")
    if not isinstance(given, Mapping):
        return None
    if answer.get("type") == "score":
        return _shares({labels[int(place)]: p for place, p in given.items() if str(place).isdigit() and int(place) < len(labels)})
    return _shares({str(name): p for name, p in given.items()})


def _rest(probability: object) -> object:
    return 1 - probability if isinstance(probability, int | float) else None


def _shares(given: Mapping[str, object]) -> dict[str, float] | None:
    """Probabilities as they were given, under names that the import maps; None where they are not numbers."""
    if not given or not all(isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1 for p in given.values()):
        return None
    return {name: float(p) for name, p in given.items() if isinstance(p, int | float)}
