"""What a key may do, through HTTP: models, personalities, time; and keys of any shape."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from yarl import URL

from gateway.access.key_format import is_placeholder
from gateway.access.keys import KeyRing
from gateway.access.presented_key import presented_key
from gateway.access.store import Store
from tests.harness import MakeGateway, Running, fake_model


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    people = {"teacher": "Teach.", "pirate": "Arr."}
    record = tmp_path / "bodies"
    models = {
        "a": {**fake_model(tmp_path, personalities=people, record=record), "aliases": ["gpt-4"]},
        "b": fake_model(tmp_path, personalities={"pirate": "Arr, b."}),
    }
    async with make_gateway(models) as running:
        yield running


async def key_with(running: Running, **fields: Any) -> str:
    ring = running.gateway.ring
    assert ring is not None
    _, key = await ring.create("scoped", **fields)
    return key


async def ask(running: Running, key: str, model: str, **fields: Any) -> tuple[int, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    return await running.json("POST", "/v1/chat/completions", json=body, key=key)


async def test_key_for_one_model_sees_no_other(running: Running, subtests: pytest.Subtests) -> None:
    key = await key_with(running, models=["a"])
    for name in ("a", "gpt-4", "a:pirate"):
        with subtests.test(f"{name!r:.80}"):
            assert (await ask(running, key, name))[0] == 200
    for name in ("b", "b:pirate"):
        status, answer = await ask(running, key, name)
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        message = answer["error"]["message"]
        assert message.startswith(f"there is no model '{name}'")
        assert " Models: 'a'." in message
    for path in ("/chat/ask?question=x&model=b", "/props?model=b"):
        assert (await running.json("GET", path, key=key))[0] == 404
    assert (await running.json("GET", "/slots?model=b", key=key))[0] == 403  # for administrators
    for path in ("/v1/embeddings", "/v1/messages", "/tokenize", "/completion", "/v1/rerank"):
        with subtests.test(f"{path!r:.80}"):
            body: dict[str, Any] = {
                "input": "x",
                "content": "x",
                "prompt": "x",
                "query": "x",
                "documents": ["x"],
            }
            body |= {"model": "b", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
            assert (await running.json("POST", path, json=body, key=key))[0] == 404, path
    _, listed = await running.json("GET", "/models", key=key)
    assert listed == ["a"]
    assert (await running.json("GET", "/models?loaded=true", key=key))[1] == ["a"]
    _, listed = await running.json("GET", "/v1/models", key=key)
    assert {item["id"].partition(":")[0] for item in listed["data"]} <= {"a", "gpt-4"}
    assert (await running.json("GET", "/v1/models/a", key=key))[0] == 200
    for name in ("b", "b:pirate"):
        assert (await running.json("GET", f"/v1/models/{name}", key=key))[0] == 404
    assert (await running.json("GET", "/models"))[1] == ["a", "b"]


async def test_the_active_model_is_no_way_around(running: Running) -> None:
    key = await key_with(running, models=["a"])
    assert (await running.json("POST", "/loadModel", json={"model": "b"}))[0] == 200
    # As if nothing had been chosen: the only one that the key may use.
    chat = {"model": "NotNeeded", "messages": [{"role": "user", "content": "hi"}]}
    for method, path, body in (
        ("POST", "/v1/chat/completions", chat),
        ("GET", "/chat/ask?question=x", None),
    ):
        async with running.request(method, path, json=body, key=key) as response:
            assert (response.status, response.headers["X-Gateway-Model"]) == (200, "a")


async def test_key_is_limited_to_its_personalities(
    running: Running, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    key = await key_with(
        running, personalities=["teacher"], default_personality="teacher", models=["a", "b"]
    )
    assert (await ask(running, key, "a"))[0] == 200  # its default
    assert (await ask(running, key, "a", personality="teacher"))[0] == 200
    assert (await ask(running, key, "b"))[0] == 200  # which hasn't got it: none
    for model, fields in (("a:pirate", {}), ("a", {"personality": "pirate"}), ("b:pirate", {})):
        with subtests.test(f"{model!r:.80}"):
            status, answer = await ask(running, key, model, **fields)
            assert (status, answer["error"].get("code")) == (404, "personality_not_found")
            assert "has no personality 'pirate'. Personalities: " in answer["error"]["message"]
    _, listed = await running.json("GET", "/v1/models", key=key)
    assert not [item["id"] for item in listed["data"] if "pirate" in item["id"]]
    sent = (tmp_path / "bodies").read_text().splitlines()
    assert len(sent) == 2
    assert all('"Teach."' in body for body in sent)
    assert [r.personality for r in running.gateway.accounting.recent] == ["teacher"] * 2 + [None]


async def test_an_empty_list_of_personalities_means_none(running: Running) -> None:
    key = await key_with(running, personalities=[])
    assert (await ask(running, key, "a"))[0] == 200
    assert (await ask(running, key, "a", personality="teacher"))[0] == 404


async def test_expired_and_revoked_keys_are_refused_by_a_running_gateway(running: Running) -> None:
    ring = running.gateway.ring
    assert ring is not None
    record, key = await ring.create("short")
    assert (await ask(running, key, "a"))[0] == 200
    database = running.gateway.settings.database
    async with await Store.open(database) as other:  # as the command line does it
        await other.update_key(record.id, expires=datetime.now(UTC) - timedelta(seconds=1))
    assert (await running.json("POST", "/admin/keys/reload"))[0] == 200
    status, answer = await ask(running, key, "a")
    assert (status, answer["error"]["code"]) == (401, "api_key_expired")

    record, key = await ring.create("left on a train")
    assert (await ask(running, key, "a"))[0] == 200
    cli = await KeyRing.open(await Store.open(database))
    await cli.revoke(record.id)
    await cli.close()
    assert (await running.json("POST", "/admin/keys/reload"))[0] == 200
    async with running.request("GET", "/models", key=key) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await response.json())["error"]["code"] == "api_key_revoked"


# --- any text ------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


async def test_key_of_bytes_that_are_no_text_is_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    host, _, port = running.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for name in (b"Authorization: Bearer ", b"X-Api-Key: "):
        for key in (b"\xff\xfe", b"\xed\xa0\x80", b"cl\xe9", b"x" * 4000):
            with subtests.test(f"{key!r:.80}"):
                writer.write(b"GET /models HTTP/1.1\r\nHost: x\r\n%b%b\r\n\r\n" % (name, key))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 401 ")
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                assert json.loads(await reader.readexactly(int(length[1])))["error"]
    writer.close()
    await writer.wait_closed()


def request_with(path: URL | str, headers: dict[str, str], method: str = "GET") -> web.Request:
    url = str(path)
    return make_mocked_request(method, url, CIMultiDict(headers))


@given(st.sampled_from(["Bearer ", "bearer\t", "Basic ", "", "Bearer  "]), TEXT, TEXT)
def test_any_header_gives_a_key_or_none(scheme: str, first: str, second: str) -> None:
    headers = {"Authorization": scheme + first, "X-Api-Key": second}
    found = presented_key(request_with("/", headers), allow_query=True)
    assert found in (first.strip(), second.strip(), None) or scheme == ""
    assert found is None or found.strip() == found != ""


@given(TEXT)
def test_any_query_gives_what_it_says(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    request = request_with(URL("/").with_query(authKey=text), {})
    none = not text or is_placeholder(text)
    assert presented_key(request, allow_query=True) == (None if none else text)
    assert presented_key(request, allow_query=False) is None


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=40)
)
def test_any_raw_query_is_taken(text: str) -> None:
    for query in (text, f"authKey={text}", f"authKey=%ff%{text}"):
        found = presented_key(request_with(f"/models?{query}", {}), allow_query=True)
        assert found is None or isinstance(found, str)
