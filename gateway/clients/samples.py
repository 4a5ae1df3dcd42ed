"""Code that calls one operation: curl, Python and JavaScript, for the OpenAPI document. Pure.

The code takes the key from the variable that ``llm-gateway connect`` names as well, and uses
OpenAI's own clients where they have the call.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from gateway.clients import KEY

#: The placeholder for the gateway's address; the page of /docs replaces it.
BASE: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Example:
    """A request that is worth showing, all of it filled in.

    ``form``: the body is a form, in which ``file`` names a file. ``stream``: the answer goes on
    until its client leaves. ``text``: the answer is no JSON.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    form: bool = False
    public: bool = False
    stream: bool = False
    text: bool = False

    @property
    def address(self) -> str:
        """Return path and query with their values."""
        path = self.path
        for name, value in self.values.items():
            path = path.replace(f"{{{name}}}", quote(value, safe="/:"))
        return path + (f"?{urlencode(self._query, quote_via=quote)}" if self.query else "")

    @property
    def _query(self) -> dict[str, str]:
        return {name: _as_text(value) for name, value in self.query.items()}


def samples(example: Example) -> list[dict[str, str]]:
    """Return code in all three as ``x-codeSamples`` (``lang``, ``label``, ``source``)."""
    openai = _OPENAI.get((example.method, example.path))
    return [
        {"lang": "Shell", "label": "curl", "source": curl(example)},
        {
            "lang": "Python",
            "label": "Python",
            "source": _requests(example) if openai is None else _openai_python(example, openai),
        },
        {
            "lang": "JavaScript",
            "label": "JavaScript",
            "source": _fetch(example) if openai is None else _openai_node(example, openai),
        },
    ]


# --- curl ------------------------------------------------------------------------------------


def curl(example: Example) -> str:
    """Return a command for a POSIX shell, broken where it is long."""
    words = ["curl"]
    if example.stream:
        words.append("-N")
    if example.method != "GET" and not (example.method == "POST" and example.body is not None):
        words.append(f"-X {example.method}")
    words.append(_quoted(BASE + example.address))
    parts = [" ".join(words)]
    if not example.public:
        parts.append(f'-H "Authorization: Bearer ${KEY}"')
    parts += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in example.headers.items()]
    if example.form:
        parts += [
            f"-F {shlex.quote(f'{name}=@{value}' if name == 'file' else f'{name}={value}')}"
            for name, value in example.body.items()
        ]
    elif example.body is not None:
        parts.append("-H 'Content-Type: application/json'")
        parts.append(f"-d {shlex.quote(_json(example.body))}")
    return " \\\n  ".join(parts)


def _quoted(address: str) -> str:
    """Return ``address``, quoted if a shell needs that: for ``&`` and ``?``, but not for ``:`` and
    ``/``.
    """
    return f"'{address}'" if "?" in address else shlex.quote(address)


# --- Python ----------------------------------------------------------------------------------


def _requests(example: Example) -> str:
    lines = [] if example.public else ["import os", ""]
    lines += ["import requests", ""]
    arguments = [f'"{BASE}{_path(example)}"']
    if example.query:
        arguments.append(f"params={_python(example._query, 1)}")
    headers = [f'"{name}": {_python(value)}' for name, value in example.headers.items()]
    if not example.public:
        headers.insert(0, f'"Authorization": f"Bearer {{os.environ[\'{KEY}\']}}"')
    if headers:
        arguments.append(f"headers={{{', '.join(headers)}}}")
    if example.form:
        fields = {name: value for name, value in example.body.items() if name != "file"}
        arguments.append(f"data={_python(fields, 1)}")
        arguments.append(f'files={{"file": open({_python(example.body["file"])}, "rb")}}')
    elif example.body is not None:
        arguments.append(f"json={_python(example.body, 1)}")
    if example.stream:
        arguments.append("stream=True")
    else:
        arguments.append("timeout=300")  # a model may have to be loaded first
    name = example.method.lower()
    inner = "".join(f"    {one},\n" for one in arguments)
    call = f"answer = requests.{name}(\n{inner})\nanswer.raise_for_status()\n"
    if example.stream:
        show = "for line in answer.iter_lines():\n    print(line.decode())"
    else:
        plain = example.text or name == "delete"
        show = f"print(answer.{'text' if plain else 'json()'})"
    return "\n".join(lines) + "\n" + call + show


def _python(value: Any, depth: int = 0) -> str:
    """Return a literal as ruff would format it, with what is short on one line."""
    short = _python_flat(value)
    if len(short) + 4 * depth <= 76 or not isinstance(value, dict | list) or not value:
        return short
    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, dict):
        lines = [f"{inner}{_python_flat(k)}: {_python(v, depth + 1)},\n" for k, v in value.items()]
        return "{\n" + "".join(lines) + outer + "}"
    return "[\n" + "".join(f"{inner}{_python(v, depth + 1)},\n" for v in value) + outer + "]"


def _python_flat(value: Any) -> str:
    if isinstance(value, dict):
        inner = (f"{_python_flat(k)}: {_python_flat(v)}" for k, v in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_python_flat, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


# --- JavaScript ------------------------------------------------------------------------------


def _fetch(example: Example) -> str:
    lines = []
    headers = {} if example.public else {"Authorization": f"`Bearer ${{process.env.{KEY}}}`"}
    headers |= {f'"{name}"': json.dumps(value) for name, value in example.headers.items()}
    options = [] if example.method == "GET" else [f"method: {json.dumps(example.method)}"]
    if example.form:
        lines.append('import { openAsBlob } from "node:fs";\n')
        lines.append("const form = new FormData();")
        for name, value in example.body.items():
            shown = json.dumps(value)
            lines.append(
                f'form.set("file", await openAsBlob({shown}), {shown});'
                if name == "file"
                else f"form.set({json.dumps(name)}, {shown});"
            )
        options.append("body: form")
    elif example.body is not None:
        headers['"Content-Type"'] = '"application/json"'
        options.append(f"body: JSON.stringify({_indented(example.body)})")
    if headers:
        inner = ", ".join(f"{name}: {value}" for name, value in headers.items())
        options.insert(min(1, len(options)), f"headers: {{ {inner} }}")
    address = json.dumps(BASE + example.address)
    given = "".join(f"  {one},\n" for one in options)
    call = f"fetch({address}, {{\n{given}}})" if options else f"fetch({address})"
    lines.append(f"const answer = await {call};")
    if example.stream:
        lines.append(
            "for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {"
        )
        lines.append("  process.stdout.write(chunk);\n}")
        return "\n".join(lines)
    lines.append("if (!answer.ok) throw new Error(await answer.text());")
    shown = "text" if example.text or example.method == "DELETE" else "json"
    lines.append(f"console.log(await answer.{shown}());")
    return "\n".join(lines)


# --- OpenAI's clients ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ClientCall:
    """A call of ``method`` of the client, which both languages name alike; and what to print."""

    method: str
    shown: str
    shown_in_js: str = ""


#: The operations that OpenAI's clients have methods for.
_OPENAI: Final[Mapping[tuple[str, str], _ClientCall]] = {
    ("POST", "/v1/chat/completions"): _ClientCall(
        "chat.completions.create", "answer.choices[0].message.content"
    ),
    ("POST", "/v1/responses"): _ClientCall("responses.create", "answer.output_text"),
    ("POST", "/v1/completions"): _ClientCall("completions.create", "answer.choices[0].text"),
    ("POST", "/v1/embeddings"): _ClientCall("embeddings.create", "answer.data[0].embedding"),
    ("GET", "/v1/models"): _ClientCall(
        "models.list", "[model.id for model in answer]", "answer.data.map((model) => model.id)"
    ),
    ("GET", "/v1/models/{model}"): _ClientCall("models.retrieve", "answer"),
    ("POST", "/v1/audio/transcriptions"): _ClientCall("audio.transcriptions.create", "answer.text"),
}


def _openai_python(example: Example, call: _ClientCall) -> str:
    arguments = [_python(value) for value in example.values.values()]
    for name, value in (example.body or {}).items():
        is_file = example.form and name == "file"
        shown = f'open({_python(value)}, "rb")' if is_file else _python(value, 1)
        arguments.append(f"{name}={shown}")
    given = "".join(f"    {one},\n" for one in arguments)
    inner = f"\n{given}" if len(arguments) > 1 else ", ".join(arguments)
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(\n    base_url="{BASE}/v1",\n    api_key=os.environ["{KEY}"],\n)\n'
        f"answer = client.{call.method}({inner})\n"
        f"print({call.shown})"
    )


def _openai_node(example: Example, call: _ClientCall) -> str:
    first = 'import OpenAI from "openai";\n\n'
    inner = ", ".join(json.dumps(value) for value in example.values.values())
    if example.form:
        first = 'import fs from "node:fs";\n' + first
        fields = "".join(
            f"  {name}: "
            + (f"fs.createReadStream({json.dumps(v)})" if name == "file" else json.dumps(v))
            + ",\n"
            for name, v in example.body.items()
        )
        inner = f"{{\n{fields}}}"
    elif example.body is not None:
        inner = json.dumps(example.body, ensure_ascii=False, indent=2)
    return (
        f"{first}const client = new OpenAI({{\n"
        f'  baseURL: "{BASE}/v1",\n  apiKey: process.env.{KEY},\n}});\n'
        f"const answer = await client.{call.method}({inner});\n"
        f"console.log({call.shown_in_js or call.shown});"
    )


# --- values ----------------------------------------------------------------------------------


def _path(example: Example) -> str:
    return example.address.partition("?")[0]


def _json(value: Any) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    return flat if len(flat) <= 70 else json.dumps(value, ensure_ascii=False, indent=2)


def _indented(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n  ")


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
