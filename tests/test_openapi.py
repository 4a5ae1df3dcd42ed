"""The OpenAPI document and its page; and what a fuzzer makes of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from yarl import URL

from gateway import __version__
from gateway.access.key_schema import checked, fields_in, shown
from gateway.access.store import KeyRecord
from gateway.api.openapi_document import document
from gateway.app import ROUTES
from gateway.models.catalog import parse_catalog
from gateway.proxy.routes import TABLE
from tests.harness import FAKE, MakeGateway, Running, fake_model

pytestmark = pytest.mark.slow

RECORDER = str(FAKE.with_name("recording_llama_server.py"))
DOCUMENT = document(ROUTES, query_key=True)
#: Streams that end only when their client leaves, which a fuzzer does not.
ENDLESS = ("/status", "/models/sse", "/admin/log")


def operation(method: str, path: str) -> dict[str, Any]:
    return DOCUMENT["paths"][path][method.lower()]


OPERATIONS = [
    (method.upper(), path, found)
    for path, operations in DOCUMENT["paths"].items()
    for method, found in operations.items()
]


def one(content: dict[str, Any]) -> dict[str, Any]:
    return next(iter(content.values()))


def answers_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What each media type of each success is told of."""
    return [
        media
        for status, answer in found["responses"].items()
        if status.startswith("2") or ("Refused" in found["tags"] and status == "403")
        for media in answer.get("content", {}).values()
    ]


def validate(example: Any, schema: dict[str, Any], where: str) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    found = Draft202012Validator(whole).iter_errors(example)
    assert not [f"{where}: {error.message}" for error in found]


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
        ("GET", "/openapi.json", "public"),
        ("GET", "/docs", "public"),
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


def test_streams_are_event_streams() -> None:
    for method, path, kinds in (
        ("POST", "/v1/chat/completions", {"application/json", "text/event-stream"}),
        ("POST", "/v1/embeddings", {"application/json"}),
        ("GET", "/status", {"text/event-stream"}),
    ):
        assert operation(method, path)["responses"]["200"]["content"].keys() == kinds


def test_an_entry_is_known_by_its_etag_and_patched_by_merging() -> None:
    found = operation("GET", "/admin/models/{name}")["responses"]
    assert "content" not in found["304"]
    assert "507" not in found
    body = operation("PATCH", "/admin/models/{name}")["requestBody"]["content"]
    assert [*body] == ["application/merge-patch+json", "application/json"]
    for method in ("PUT", "PATCH", "DELETE"):
        found = operation(method, "/admin/models/{name}")["responses"]
        assert {"409", "412", "422", "507"} <= found.keys()
        assert "304" not in found


def test_errors_are_those_of_the_api_that_is_spoken() -> None:
    for path, name in (("/v1/messages", "AnthropicError"), ("/v1/responses", "Error")):
        answers = operation("POST", path)["responses"]
        for status in ("404", "default"):
            answer = answers[status]["$ref"].rpartition("/")[2]
            content = DOCUMENT["components"]["responses"][answer]["content"]
            schema = content["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{name}"}


def test_errors_that_every_operation_shares_are_told_once() -> None:
    about = DOCUMENT["info"]["description"]
    for method, path, found in OPERATIONS:
        assert found["responses"].keys() <= {
            *("200", "201", "202", "204", "304", "default"),
            *("403", "404", "409", "412", "422", "501", "503", "507"),
        }, (method, path)
        assert "default" in found["responses"], (method, path)
    for status in (400, 401, 403, 408, 413, 421, 429, 431, 500, 502, 503, 504):
        assert f"| {status} |" in about
    assert operation("POST", "/v1/chat/completions")["responses"].keys() == {
        "200",
        "404",
        "409",
        "default",
    }
    assert operation("GET", "/ready")["responses"]["503"]["description"] == "not now"


def test_every_operation_is_in_a_group_that_is_told_of() -> None:
    groups = {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(tag["description"] for tag in DOCUMENT["tags"])
    missing = [(m, p) for m, p, o in OPERATIONS if not set(o["tags"]) & groups]
    assert not missing, "gateway/api/openapi_examples.yaml has no word about these"
    assert groups == {o["tags"][0] for _, _, o in OPERATIONS}


def test_groups_and_their_operations_come_in_the_order_of_the_examples() -> None:
    seen = list(dict.fromkeys(o["tags"][0] for _, _, o in OPERATIONS))
    assert seen[0] == "Chat"
    assert seen[-2:] == ["Other addresses", "Refused"]
    assert next(iter(DOCUMENT["paths"])) == "/v1/chat/completions"


def test_every_operation_has_an_example_of_each_answer_and_of_its_request() -> None:
    missing = []
    for method, path, found in OPERATIONS:
        if not all("example" in media for media in answers_of(found)):
            missing.append((method, path, "answer"))
        body = found.get("requestBody")
        if body and body["required"] and "example" not in one(body["content"]):
            missing.append((method, path, "request"))
        for parameter in found.get("parameters", ()):
            if (
                parameter["required"]
                and "example" not in parameter
                and "Refused" not in found["tags"]
            ):
                missing.append((method, path, parameter["name"]))
    assert not missing, "they belong into gateway/api/openapi_examples.yaml"


def test_every_answer_has_a_schema() -> None:
    bare = {
        (method, path)
        for method, path, found in OPERATIONS
        for media in answers_of(found)
        if not media["schema"]
    }
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    assert bare == {(method, "/upstream/{path}") for method in methods}  # llama-server's own
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT)))
    assert named == DOCUMENT["components"]["schemas"].keys()


def test_examples_fit_their_schemas() -> None:
    count = 0
    for method, path, found in OPERATIONS:
        where = f"{method} {path}"
        medias = [
            *answers_of(found),
            *found.get("requestBody", {"content": {}})["content"].values(),
        ]
        for media in [*medias, *found.get("parameters", ())]:
            if "example" in media and media["schema"]:
                validate(media["example"], media["schema"], where)
                count += 1
    assert count > 100


def test_examples_of_an_entry_are_good_entries() -> None:
    for method in ("PUT", "GET"):
        found = operation(method, "/admin/models/{name}")
        entry = one(found["responses"]["200"]["content"])["example"]
        assert "m" in parse_catalog(json.dumps({"m": entry})).models


def test_examples_of_a_key_are_what_the_route_takes_and_shows() -> None:
    created = operation("POST", "/admin/keys")
    given = one(created["requestBody"]["content"])["example"]
    checked(fields_in(given))
    record = KeyRecord(id="k_1", name="n", hash="", created=datetime.now(UTC))
    shape = shown(record).keys()
    assert one(created["responses"]["201"]["content"])["example"].keys() == {*shape, "key"}
    listed = one(operation("GET", "/admin/keys")["responses"]["200"]["content"])["example"]
    assert all(key.keys() == shape for key in listed["keys"])


def test_every_operation_has_code_in_three_languages() -> None:
    for method, path, found in OPERATIONS:
        curl, python, javascript = (sample["source"] for sample in found["x-codeSamples"])
        assert curl.startswith("curl "), (method, path)
        compile(python, f"{method} {path}", "exec")
        assert "await" in javascript, (method, path)
        for source in (curl, python, javascript):
            assert "{" + path.partition("{")[2] not in source or "{" not in path, (method, path)
            is_public = found["x-scope"] == "public"
            assert ("LLM_GATEWAY_API_KEY" in source) is not is_public, (method, path)


def test_refused_routes_say_why_and_never_succeed() -> None:
    for route in TABLE:
        if route.refused:
            found = operation(route.method, route.path)
            assert route.reason in found["description"]
            assert found["responses"].keys() == {"403", "default"}


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


async def test_anybody_reads_both_and_they_tell_nothing_of_this_box(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"a secret model": fake_model(tmp_path)}) as running:
        assert await running.json("GET", "/openapi.json", key=None) == (200, DOCUMENT)
        assert await running.json("GET", "/openapi.json") == (200, DOCUMENT)
        for path in ("/openapi.json", "/docs"):
            async with running.request("GET", path, key=None) as response:
                text = await response.text()
            assert response.status == 200
            for secret in ("a secret model", str(tmp_path), running.url, f'"{__version__}"'):
                assert secret not in text
            async with running.request("HEAD", path, key=None) as response:
                assert (response.status, await response.read()) == (200, b"")
    assert DOCUMENT["info"]["version"] == "1"  # the API's, whatever the gateway's


async def test_the_plain_page_without_the_built_one(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with (
        make_gateway({"a": fake_model(tmp_path)}, page=False) as running,
        running.request("GET", "/docs", key=None) as response,
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


# --- fuzzed --------------------------------------------------------------------------------


def with_models(value: Any, *names: str) -> Any:
    """A document in which every `model` is one of ``names``, so that most requests get far."""
    if isinstance(value, list):
        return [with_models(item, *names) for item in value]
    if not isinstance(value, dict):
        return value
    # Examples name models of others, and would have one fetched from the hub.
    changed = {
        key: with_models(item, *names)
        for key, item in value.items()
        if key not in ("example", "x-codeSamples")
    }
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
