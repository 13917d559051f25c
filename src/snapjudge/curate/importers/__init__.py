"""Importers: other people's files as records with votes. Each is one function in a small registry; none knows what becomes of its records."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from snapjudge.curate.importers.terms import ImportTerms, Item, documents, items_of_records
from snapjudge.errors import OptionInvalid

Importer = Callable[[Path, ImportTerms], Iterator[Item]]
IMPORTERS: dict[str, str] = {
    "records": "JSON lines, CSV, TSV or Parquet with columns named like inputs, or --map",
    "messages": "OpenAI messages: {messages: [...]} a line, or logged chat completions",
    "datasets": "a Hugging Face datasets folder (save_to_disk, or files by split)",
    "spans": "OpenTelemetry GenAI or OpenInference spans as JSON",
    "decisions": "logged requests and responses of /v1/decisions",
    "systemone": "logged requests and responses of /v1/systemone",
    "label_studio": "a Label Studio JSON export",
    "argilla": "an Argilla JSON export",
}


def importer(name: str) -> Importer:
    """The importer of a format.

    Raises:
        OptionInvalid: listing the formats there are.
    """
    if name == "records":
        return items_of_records
    if name not in IMPORTERS:
        raise OptionInvalid(f"there is no format {name!r}", hint=f"one of {', '.join(IMPORTERS)}, or auto", received=name)
    module = {"decisions": "decisions", "systemone": "decisions", "label_studio": "annotations", "argilla": "annotations"}.get(name, name)
    found: Importer = getattr(import_module(f"snapjudge.curate.importers.{module}"), name)
    return found


def sniff(path: Path) -> str:
    """The format of a file or folder, from its ending and its first object."""
    if path.is_dir():
        return "datasets"
    if path.suffix not in (".json", ".jsonl", ".ndjson"):
        return "records"
    first = next((record.data for record in documents(path) if record.data is not None), None)
    return "records" if first is None else _kind(dict(first))


def _kind(first: dict[str, Any]) -> str:
    """What one object looks like."""
    request = first.get("request")
    if isinstance(request, dict) and "questions" in request:
        return "systemone" if isinstance(request["questions"], dict) else "decisions"
    if "resourceSpans" in first or isinstance(first.get("attributes"), dict | list):
        return "spans"
    if isinstance(first.get("data"), dict) and ("annotations" in first or "completions" in first):
        return "label_studio"
    if isinstance(first.get("fields"), dict):
        return "argilla"
    if "inputs" not in first and ("messages" in first or (isinstance(request, dict) and "messages" in request)):
        return "messages"
    return "records"


def shown(value: object) -> str:
    """A value in few characters, for a problem."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
