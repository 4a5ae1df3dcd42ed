"""The OpenAPI document and its page; and what a fuzzer makes of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from harness import MakeGateway, Running, fake_model
from openapi_spec_validator import OpenAPIV31SpecValidator
from yarl import URL

from gateway.api import admin_keys
from gateway.api.openapi_document import document
from gateway.api.openapi_shapes import KEY
from gateway.app import ROUTES
from gateway.proxy.routes import TABLE, Access

RECORDER = str(Path(__file__).with_name("recording_llama_server.py"))
DOCUMENT = document(ROUTES, query_key=True)
#: Streams that end only when their client leaves, which a fuzzer does not.
ENDLESS = ("/status", "/models/sse")


def operation(method: str, path: str) -> dict[str, Any]:
    return DOCUMENT["paths"][path][method.lower()]


def test_it_is_valid() -> None:
    OpenAPIV31SpecValidator(json.loads(json.dumps(DOCUMENT))).validate()


def test_every_route_is_in_it() -> None:
    listed = {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
    }
    for method, path, _ in ROUTES:
        plain = re.sub(r":[^}]*\}", "}", path)
        for each in ("GET", "POST", "PUT", "PATCH", "DELETE") if method == "*" else (method,):
            listed.remove((each, plain))
    assert not listed


def test_every_operation_has_a_summary_and_an_id_of_its_own() -> None:
    operations = [o for each in DOCUMENT["paths"].values() for o in each.values()]
    assert all(o["summary"] for o in operations)
    assert len({o["operationId"] for o in operations}) == len(operations)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/ping", "public"),
        ("GET", "/status", "chat"),
        ("GET", "/openapi.json", "chat"),
        ("POST", "/v1/chat/completions", "chat"),
        ("GET", "/slots", "admin"),
        ("POST", "/loadModel", "chat"),
        ("DELETE", "/upstream/{path}", "admin"),
    ],
)
def test_scopes(method: str, path: str, scope: str) -> None:
    found = operation(method, path)
    assert found["x-scope"] == scope
    wanted = [] if scope == "public" else ["bearer", "header"]
    if wanted and method == "GET":
        wanted.append("query")
    assert [name for entry in found["security"] for name in entry] == wanted


def test_keys_in_the_query_are_told_only_where_they_work() -> None:
    without = document(ROUTES, query_key=False)
    assert "query" not in without["components"]["securitySchemes"]
    assert without["paths"]["/status"]["get"]["security"] == [{"bearer": []}, {"header": []}]


@pytest.mark.parametrize(
    ("path", "required"),
    [
        ("/v1/chat/completions", ["messages"]),
        ("/v1/messages", ["messages"]),
        ("/responses", ["input"]),
        ("/v1/completions", ["prompt"]),
        ("/v1/embeddings", ["input"]),
        ("/v1/rerank", ["query", "documents"]),
        ("/loadModel", ["model"]),
        ("/admin/keys", ["name"]),
    ],
)
def test_what_a_body_must_have(path: str, required: list[str]) -> None:
    body = operation("POST", path)["requestBody"]
    assert body["content"]["application/json"]["schema"]["required"] == required


def test_the_fields_of_a_key_are_those_that_the_route_takes() -> None:
    assert KEY.keys() == admin_keys._FIELDS.keys()


def test_streams_are_event_streams() -> None:
    for method, path, kinds in (
        ("POST", "/v1/chat/completions", {"application/json", "text/event-stream"}),
        ("POST", "/v1/embeddings", {"application/json"}),
        ("GET", "/status", {"text/event-stream"}),
    ):
        assert operation(method, path)["responses"]["200"]["content"].keys() == kinds


def test_errors_are_those_of_the_api_that_is_spoken() -> None:
    for path, name in (("/v1/messages", "AnthropicError"), ("/v1/responses", "Error")):
        answer = operation("POST", path)["responses"]["400"]["$ref"].rpartition("/")[2]
        content = DOCUMENT["components"]["responses"][answer]["content"]
        schema = content["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{name}"}


def test_what_is_said_before_anybody_looks_at_the_path() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, found in operations.items():
            missing = {"400", "408", "414", "417", "421", "429", "431", "503"} - found[
                "responses"
            ].keys()
            assert not missing, (method, path)
    assert operation("POST", "/v1/chat/completions")["responses"].keys() == {
        *("200", "400", "401", "403", "404", "408", "413", "414", "415", "417", "421"),
        *("429", "431", "500", "502", "503", "504"),
    }
    assert "413" not in operation("GET", "/models")["responses"]
    assert operation("GET", "/ready")["responses"]["503"]["description"] == "not now"


def test_refused_routes_say_why_and_never_succeed() -> None:
    for route in TABLE:
        if route.access is Access.REFUSED:
            found = operation(route.method, route.path)
            assert route.reason in found["description"]
            assert "200" not in found["responses"]


# --- served --------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would run or fetch, and the ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id" and value]


async def test_both_need_a_key(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"a": fake_model(tmp_path)}) as running:
        for path in ("/openapi.json", "/docs"):
            assert (await running.json("GET", path, key=None))[0] == 401
        assert await running.json("GET", "/openapi.json") == (200, DOCUMENT)


async def test_the_page(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with (
        make_gateway({"a": fake_model(tmp_path)}) as running,
        running.request("GET", f"/docs?authKey={running.key}", key=None) as response,
    ):
        text, headers = await response.text(), response.headers
    page = Page(text)
    operations = [o for each in DOCUMENT["paths"].values() for o in each.values()]
    assert sorted(page.ids) == sorted(o["operationId"] for o in operations)
    assert not page.tags & {"script", "link", "img", "iframe", "form", "a", "base", "object"}
    assert not {name for name in page.attributes if name.startswith("on")} | (
        page.attributes & {"src", "href", "style"}
    )
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (digest,) = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in style)
    assert headers["Content-Security-Policy"].startswith(
        f"default-src 'none'; style-src 'sha256-{digest}'; "
    )
    assert headers["Referrer-Policy"] == "no-referrer"
    assert running.key not in text


# --- fuzzed --------------------------------------------------------------------------------


def with_models(value: Any, *names: str) -> Any:
    """A document in which every `model` is one of ``names``, so that most requests get far."""
    if isinstance(value, list):
        return [with_models(item, *names) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: with_models(item, *names) for key, item in value.items()}
    if "model" in changed.get("properties", {}):
        changed["properties"] = {**changed["properties"], "model": {"enum": list(names)}}
    if changed.get("name") == "model" and "schema" in changed:
        changed["schema"] = {"enum": list(names)}
    return changed


async def fuzz(running: Running, folder: Path, *options: str) -> tuple[int | None, str]:
    """What schemathesis says, as a process of its own. Another ``--seed`` finds other things."""
    schema = folder / "openapi.json"
    schema.write_text(json.dumps(with_models(DOCUMENT, "a", "a:poet", "none such")))
    excluded = (argument for path in ENDLESS for argument in ("--exclude-path", path))
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("st")),
        *(
            "run",
            str(schema),
            "--url",
            running.url,
            "--header",
            f"Authorization:Bearer {running.key}",
        ),
        *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing"),
        *("--continue-on-failure", "--no-shrink", "--suppress-health-check", "all"),
        *("--warnings", "off", "--no-color", "--generation-database", "none"),
        *("--request-timeout", "5", *excluded, *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_no_input_is_answered_with_a_server_error(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": fake_model(tmp_path, personalities={"poet": "You rhyme."})}
    async with make_gateway(models, llama_server=RECORDER) as running:
        status, _ = await running.json("POST", "/loadModel", json={"model": "a"})
        assert status == 200
        code, out = await fuzz(running, tmp_path, "--max-time", "10", "--seed", "1")
    assert code == 0, out
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


LONG = "9" * 20  # beyond 64 bits: read by the standard library
HALF = '"\\ud800"'
POET = '"model": "a:poet"'
STRANGE = {
    "half a character": f'{{"model": {HALF}, "n": {LONG}}}',
    "half a character said": f'{{{POET}, "n": {LONG}, "messages": [{{"content": {HALF}}}], '
    f'"input": {HALF}, "prompt": {HALF}}}',
    "half a character as a field": f"{{{HALF}: {LONG}}}",
    "roles that are lists": f'{{{POET}, "messages": [{{"role": []}}], "input": [{{"role": []}}]}}',
    "parts that are numbers": f'{{{POET}, "input": [{{"role": "system", "content": [1]}}]}}',
    "a long number for the template": f'{{{POET}, "prompt": "x", '
    f'"chat_template_kwargs": {{"n": {LONG}}}}}',
    "deep": f'{{{POET}, "messages": [{{}}], "input": [{{}}], "prompt": "x", '
    f'"personality": "poet", "x": {"[" * 1000}{"]" * 1000}}}',
}


async def test_bodies_that_a_fuzzer_has_no_idea_of(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": fake_model(tmp_path, personalities={"poet": "You rhyme."})}
    failed = []
    async with make_gateway(models, llama_server=RECORDER) as running:
        for method, path, _ in ROUTES:
            for name, body in STRANGE.items() if method in ("POST", "PATCH") else ():
                async with running.request(method, path, data=body) as response:
                    if response.status >= 500:
                        failed.append((method, path, name, await response.text()))
    assert not failed
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


async def test_headers_arrive_as_they_came(make_gateway: MakeGateway, tmp_path: Path) -> None:
    path = "/upstream/a/v1/files"
    form = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b; x=\N{SNOWMAN}"  # in no other encoding than UTF-8
    model = fake_model(tmp_path, record=tmp_path / "record")
    model["mmproj"] = model["params"]["model"]  # it hears
    async with make_gateway({"a": model}, llama_server=RECORDER) as running:
        status, _ = await running.json("POST", path, headers={"Content-Type": kind}, data=form)
        assert status == 200
    (line,) = (tmp_path / "record").read_text().splitlines()
    assert json.loads(line)["headers"]["content-type"] == kind


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/nowhere"])
@pytest.mark.parametrize("header", [b"Expect: \xff", b"Content-Encoding: gzip"])
async def test_headers_that_promise_something_else(
    make_gateway: MakeGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    header: bytes,
    path: str,
) -> None:
    async with make_gateway({"a": fake_model(tmp_path)}) as running:
        url = URL(running.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST {path} HTTP/1.1\r\nHost: {url.host}\r\nX-Api-Key: {running.key}\r\n"
        head += "Connection: close\r\n"  # else it stays open, as nothing is left unread
        writer.write(head.encode() + header + b"\r\nContent-Length: 2\r\n\r\n{}")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    unread = b"404" if path == "/nowhere" else b"400"
    status = b"417" if b"Expect" in header else unread
    assert answer.startswith(b"HTTP/1.1 %b " % status)
    assert not [r.getMessage() for r in caplog.records if r.exc_info]
