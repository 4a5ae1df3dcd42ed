"""The OpenAPI document."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.access.key_schema import checked, fields_in, shown
from gateway.access.store import KeyRecord
from gateway.models.catalog import parse_catalog
from gateway.proxy.routes import TABLE
from tests.openapi_documents import DOCUMENT
from tests.route_table import API, openapi

pytestmark = pytest.mark.slow


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


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(json.loads(json.dumps(DOCUMENT))).validate()


def test_every_route_is_in_it() -> None:
    listed = {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
    }
    for method, path, *_ in API:
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
def test_each_operation_names_the_scope_it_needs(method: str, path: str, scope: str) -> None:
    found = operation(method, path)
    assert found["x-scope"] == scope
    wanted = [] if scope == "public" else ["bearer", "header"]
    if wanted and method == "GET":
        wanted.append("query")
    assert [name for entry in found["security"] for name in entry] == wanted


def test_keys_in_the_query_are_told_only_where_they_work() -> None:
    without = openapi(query_key=False)
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
def test_required_fields_of_a_body_are_told(path: str, required: list[str]) -> None:
    body = operation("POST", path)["requestBody"]
    assert body["content"]["application/json"]["schema"]["required"] == required


@pytest.mark.parametrize(
    ("method", "path", "kinds"),
    [
        ("POST", "/v1/chat/completions", {"application/json", "text/event-stream"}),
        ("POST", "/v1/embeddings", {"application/json"}),
        ("GET", "/status", {"text/event-stream"}),
    ],
)
def test_streams_are_event_streams(method: str, path: str, kinds: Any) -> None:
    assert operation(method, path)["responses"]["200"]["content"].keys() == kinds


def test_an_entry_is_known_by_its_etag_and_patched_by_merging(subtests: pytest.Subtests) -> None:
    found = operation("GET", "/admin/models/{name}")["responses"]
    assert "content" not in found["304"]
    assert "507" not in found
    body = operation("PATCH", "/admin/models/{name}")["requestBody"]["content"]
    assert [*body] == ["application/merge-patch+json", "application/json"]
    for method in ("PUT", "PATCH", "DELETE"):
        with subtests.test(f"{method!r:.80}"):
            found = operation(method, "/admin/models/{name}")["responses"]
            assert {"409", "412", "422", "507"} <= found.keys()
            assert "304" not in found


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/messages", "AnthropicError"), ("/v1/responses", "Error")]
)
def test_errors_are_those_of_the_api_that_is_spoken(path: str, name: str) -> None:
    answers = operation("POST", path)["responses"]
    for status in ("404", "default"):
        answer = answers[status]["$ref"].rpartition("/")[2]
        content = DOCUMENT["components"]["responses"][answer]["content"]
        schema = content["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{name}"}


def test_errors_that_every_operation_shares_are_told_once(subtests: pytest.Subtests) -> None:
    about = DOCUMENT["info"]["description"]
    for method, path, found in OPERATIONS:
        assert found["responses"].keys() <= {
            *("200", "201", "202", "204", "304", "default"),
            *("403", "404", "409", "412", "422", "501", "503", "507"),
        }, (method, path)
        assert "default" in found["responses"], (method, path)
    for status in (400, 401, 403, 408, 413, 421, 429, 431, 500, 502, 503, 504):
        with subtests.test(f"{status!r:.80}"):
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
    assert not missing, "gateway/api/openapi/examples has no word about these"
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
    assert not missing, "they belong into gateway/api/openapi/examples"


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


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_examples_of_an_entry_are_good_entries(method: str) -> None:
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


def test_every_operation_has_code_in_three_languages(subtests: pytest.Subtests) -> None:
    for method, path, found in OPERATIONS:
        curl, python, javascript = (sample["source"] for sample in found["x-codeSamples"])
        assert curl.startswith("curl "), (method, path)
        compile(python, f"{method} {path}", "exec")
        assert "await" in javascript, (method, path)
        for source in (curl, python, javascript):
            with subtests.test(f"{source!r:.80}"):
                assert "{" + path.partition("{")[2] not in source or "{" not in path, (method, path)
                is_public = found["x-scope"] == "public"
                assert ("LLM_GATEWAY_API_KEY" in source) is not is_public, (method, path)


def test_refused_routes_say_why_and_never_succeed() -> None:
    for route in TABLE:
        if route.refused:
            found = operation(route.method, route.path)
            assert route.reason in found["description"]
            assert found["responses"].keys() == {"403", "default"}
