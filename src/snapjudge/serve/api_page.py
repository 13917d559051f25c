"""`GET /docs`: the OpenAPI as a page that needs no script and loads nothing from anywhere."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from snapjudge.pages import render_page

router = APIRouter()
_REF = "#/components/schemas/"
Schema = Mapping[str, Any]


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """All paths with what they take, for people."""
    return HTMLResponse(page_of(request.app.openapi()))


def page_of(told: Schema) -> str:
    """The page of an OpenAPI document."""
    schemas = told.get("components", {}).get("schemas", {})
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in told["paths"].items():
        for method, one in methods.items():
            groups.setdefault((one.get("tags") or ["server"])[0], []).append(_operation(method.upper(), path, one, schemas))
    info = told["info"]
    return render_page("api.html.j2", title=info["title"], version=info["version"], about=info.get("description", ""), groups=groups)


def _operation(method: str, path: str, one: Schema, schemas: Schema) -> dict[str, Any]:
    content = one.get("requestBody", {}).get("content", {})
    bodies: list[Schema] = list(content.values())
    body: Schema = bodies[0].get("schema", {}) if bodies else {}
    name = str(body.get("$ref", "")).removeprefix(_REF)
    schema = schemas.get(name, body)
    parameters = [
        {"name": row["name"], "place": row["in"], "kind": _kind(row.get("schema", {})), "required": row.get("required"), "about": row.get("description", "")}
        for row in one.get("parameters", ())
    ]
    example = _example(schema, schemas) if name else None
    command = f"curl -X {method} 127.0.0.1:8321{path} -d '{json.dumps(example, ensure_ascii=False)}'" if example else ""
    about = str(one.get("description", "")).replace("`", "")
    fields = list(_fields(schema))
    return {
        "method": method,
        "path": path,
        "summary": one.get("summary", ""),
        "about": about,
        "parameters": parameters,
        "body": name,
        "fields": fields,
        "example": command,
    }


def _fields(schema: Schema) -> Iterator[dict[str, Any]]:
    needed = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        default = json.dumps(one["default"], ensure_ascii=False) if one.get("default") not in (None, "", [], {}) else ""
        yield {"name": name, "kind": _kind(one), "default": default, "required": name in needed, "about": one.get("description", "")}


def _kind(one: Schema) -> str:
    """A schema's type in a few words."""
    if "$ref" in one:
        return str(one["$ref"]).removeprefix(_REF)
    if "anyOf" in one:
        return " or ".join(kind for some in one["anyOf"] if (kind := _kind(some)) != "null")
    if "enum" in one:
        return ", ".join(map(str, one["enum"]))
    if one.get("type") == "array":
        return f"list of {_kind(one.get('items', {}))}"
    return str(one.get("type") or one.get("const") or "anything")


def _example(schema: Schema, schemas: Schema) -> Any:
    """What a body may look like: its fields' own examples, and those of what they need."""
    found = {}
    for name, one in schema.get("properties", {}).items():
        if one.get("examples"):
            found[name] = one["examples"][0]
        elif name in schema.get("required", ()) and "$ref" in one:
            found[name] = _example(schemas.get(str(one["$ref"]).removeprefix(_REF), {}), schemas)
    return found
