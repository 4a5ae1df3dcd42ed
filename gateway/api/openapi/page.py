"""Renders the OpenAPI document as one page of plain HTML, without scripts. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from types import MappingProxyType
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { overflow-x: auto; padding: 0.5rem; border: 1px solid #8886; border-radius: 4px; }
details { border-bottom: 1px solid #8886; padding: 0.4rem 0; }
summary { cursor: pointer; }
.method { display: inline-block; min-width: 4.5em; font-weight: bold; }
.scope { opacity: 0.7; }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

#: The headers of the page. Its style is allowed by a hash. A page opened with ``?authKey=`` must
#: neither pass on its address nor be cached.
HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
)


def render(document: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document that :mod:`gateway.api.openapi.document` made."""
    return "".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info, responses = document["info"], document["components"]["responses"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
    yield f"<p>{escape(info['description'])} The same for programs: "
    yield "<code>GET /openapi.json</code>.</p>"
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(method, path, operation, responses)
    yield "<h2>Errors</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f"<h3>{escape(name)}</h3>{_json(schema)}"
    yield "</body></html>"


def _operation(
    method: str, path: str, operation: Mapping[str, Any], responses: Mapping[str, Any]
) -> Iterator[str]:
    yield f'<details id="{escape(operation["operationId"])}"><summary>'
    yield f'<span class="method">{escape(method.upper())}</span><code>{escape(path)}</code> '
    yield f"{escape(operation['summary'])} "
    yield f'<span class="scope">{escape(operation["x-scope"])}</span></summary>'
    if description := operation.get("description"):
        yield f"<p>{escape(description)}</p>"
    if parameters := operation.get("parameters"):
        yield "<p>Parameters</p><ul>"
        for parameter in parameters:
            needed = ", required" if parameter["required"] else ""
            where = f"{parameter['in']}{needed}"
            yield f"<li><code>{escape(parameter['name'])}</code> ({escape(where)})"
            yield f" <code>{escape(json.dumps(parameter['schema']))}</code></li>"
        yield "</ul>"
    if body := operation.get("requestBody"):
        for kind, content in body["content"].items():
            yield f"<p>Body, <code>{escape(kind)}</code></p>{_json(content['schema'])}"
    yield "<p>Answers</p><ul>"
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            answer = responses[answer["$ref"].rpartition("/")[2]]
        kinds = ", ".join(answer.get("content", ()))
        said = f"{answer['description']} ({kinds})"
        yield f"<li><code>{escape(status)}</code> {escape(said)}</li>"
    yield "</ul></details>"


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"
