"""What a server elsewhere is sent of a request."""

from __future__ import annotations

import gzip
import io
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.api.remote.entries import CHAT, SECRET, USER, entry
from tests.harness import MakeGateway
from tests.remote_server import STREAM_END, STREAM_HEAD, Asked, RemoteServer, event


async def test_remote_server_gets_the_request_in_its_own_name_and_key(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    models = {
        "m": entry(
            server,
            aliases="alias",
            personalities={"teacher": "You teach."},
            params={"temperature": 0.5, "topP": 0.9, "ctxSize": 100},
            setParams={"seed": 7},
            stripParams=["user"],
        )
    }
    async with make_gateway(models) as running:
        headers = {"X-Api-Key": running.key, "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4"}
        body = {"model": "alias:teacher", "messages": [USER], "user": "me", "temperature": 0.1}
        async with running.request("POST", CHAT, json=body, headers=headers) as response:
            answer = await response.json()
            assert response.headers["X-Gateway-Model"] == "m"
    (asked,) = server.asked
    assert asked.json == {
        "model": "there",
        "messages": [{"role": "system", "content": "You teach."}, USER],
        "temperature": 0.1,
        "seed": 7,
        "top_p": 0.9,
    }
    assert {name.lower() for name in asked.headers} == {
        "host",
        "user-agent",
        "accept-encoding",
        "authorization",
        "content-type",
        "content-length",
    }
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"
    assert answer["responses"] == "from elsewhere"
    assert answer["model"] == "m"
    assert answer["usage"]["total_tokens"] == 5


async def test_nothing_is_added_that_only_llama_server_knows(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    async def stream(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("one") + STREAM_END)

    shaped = entry(server, params={"temperature": 0.5, "topP": 0.9}, setParams={"seed": 7})
    async with make_gateway({"m": entry(server), "shaped": shaped}) as running:
        assert (await running.chat("m"))[0] == 200
        server.answers[CHAT] = stream
        status, answer = await running.json("GET", "/chat/ask?question=hi&model=m")
        assert (status, answer["response"]) == (200, "one")
        await running.json("GET", "/chat/ask?question=hi&model=shaped")
        body = {"model": "shaped", "messages": [USER], "max_tokens": 3, "top_p": 1}
        server.answers["/v1/messages"] = (200, {})
        assert (await running.json("POST", "/v1/messages", json=body))[0] == 200
    first, second, third, fourth = server.asked
    assert first.json == {"model": "there", "messages": [USER]}
    assert second.json == {"model": "there", "messages": [USER], "stream": True}
    given = {"model": "there", "messages": [USER], "temperature": 0.5, "seed": 7}
    assert third.json == {**given, "top_p": 0.9, "stream": True}
    assert fourth.json == {**given, "top_p": 1, "max_tokens": 3}


async def test_what_only_llama_server_wants_is_left_as_it_is(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    """Late system messages and tools of other kinds are the server's own affair; nulls are none."""
    late = {"role": "system", "content": "In French."}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    developers = [{"role": "developer", "content": text} for text in "AB"]
    call: dict[str, Any] = {"id": "1", "type": "custom", "custom": {"name": "f", "input": "x"}}
    history = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        late,
        {"role": "user", "content": [picture]},
    ]
    tools = [{"type": "web_search", "filters": {"a": None}}]
    models = {"m": entry(server, personalities={"p": "P."})}
    async with make_gateway(models) as running:
        for name, first in (
            ("m", developers),
            ("m:p", [{"role": "system", "content": "P.\n\nA\n\nB"}]),
        ):
            body = {"model": name, "messages": [*developers, *history], "tools": tools}
            assert (await running.json("POST", CHAT, json=body))[0] == 200
            sent = server.asked[-1].json
            assert sent == {"model": "there", "messages": [*first, *history], "tools": tools}
        nulls = [{**USER, "name": None}, {**late, "content": None}]
        body = {"model": "m", "messages": nulls, "tools": None, "stop": None}
        assert (await running.json("POST", CHAT, json=body))[0] == 200
        kept = [USER, {**late, "content": None}]
        assert server.asked[-1].json == {"model": "there", "messages": kept}
        assert not [asked for asked in server.asked if asked.target != CHAT]


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("", "/chat/completions", "/v1/chat/completions"),
        ("/v1", "/v1/embeddings", "/v1/embeddings"),
        ("/openai/v2", "/v1/responses", "/openai/v2/responses"),
        ("/llama/v1", "/tokenize", "/llama/tokenize"),
        ("/v1", "/v1/rerank", "/v1/rerank"),
        ("/x", "/v1/messages", "/x/messages"),
    ],
)
async def test_request_goes_to_the_path_below_the_url(
    make_gateway: MakeGateway, server: RemoteServer, base: str, path: str, target: str
) -> None:
    server.answers[target] = (200, {"here": True})
    bodies = {"input": "hi", "content": "hi", "messages": [USER], "max_tokens": 1, "query": "q"}
    async with make_gateway({"m": entry(server.url + base)}) as running:
        answer = await running.json("POST", path, json={"model": "m", **bodies})
    assert (answer[0], answer[1]["here"]) == (200, True)
    assert server.asked[-1].target == target
    assert server.asked[-1].json["model"] == "there"


async def test_questions_about_a_model_name_it_as_it_is_called_there(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    server.answers["/props"] = (200, {"n": 1})
    async with make_gateway({"m": entry(server, modelName="org/ä")}) as running:
        assert (await running.chat("m"))[0] == 200
        path = "/props?model=m&x=1&authKey=" + running.key
        assert await running.json("GET", path, key=None) == (200, {"n": 1})
    assert server.asked[-1].target == "/props?model=org%2F%C3%A4&x=1"


@pytest.mark.parametrize("named", ["form", "file first", "query", "query only"])
async def test_a_form_names_the_model_as_it_is_called_there(
    make_gateway: MakeGateway, server: RemoteServer, named: str
) -> None:
    target = "/v1/audio/transcriptions"
    server.answers[target] = (200, {"text": "heard"})
    sound = b"\r\n--x" + bytes(range(256)) * 200

    form = aiohttp.FormData()
    fields = [("model", "m"), ("file", sound)]
    for name, value in reversed(fields) if named == "file first" else fields:
        if name == "file":
            form.add_field(name, value, filename="a.wav")
        elif named != "query only":
            form.add_field(name, value)
    path = f"{target}?model=m" if named.startswith("query") else target
    async with make_gateway({"m": entry(server)}) as running:
        assert await running.json("POST", path, data=form) == (200, {"text": "heard"})
    (asked,) = server.asked
    assert asked.body.count(b'name="model"') == 1
    assert b'name="model"\r\n\r\nthere\r\n--' in asked.body
    assert sound in asked.body
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"


async def test_form_that_names_two_models_is_refused(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    """Whose key may use the first one mustn't get the second: servers differ in which they take."""
    target = "/v1/audio/transcriptions"
    server.answers[target] = (200, {"text": "heard"})
    sound = bytes(range(256)) * 2000
    async with make_gateway({"m": entry(server), "other": entry(server)}) as running:
        for path in (target, f"{target}?model=m"):
            form = aiohttp.FormData()
            form.add_field("model", "m")
            form.add_field("file", sound, filename="a.wav; name=model")
            form.add_field("model", "other")
            status, answer = await running.json("POST", path, data=form)
            assert (status, answer["error"]["param"]) == (400, "model")
            assert "twice" in answer["error"]["message"]
        form = aiohttp.FormData([("model", "other"), ("file", io.BytesIO(sound))])
        status, answer = await running.json("POST", f"{target}?model=m", data=form)
        assert (status, answer["error"]["param"]) == (400, "model")
        form = aiohttp.FormData([("model", "m"), ("file", io.BytesIO(sound))])
        assert await running.json("POST", target, data=form) == (200, {"text": "heard"})


async def test_upstream_reaches_the_rest_and_never_above(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    server.answers["/base/files"] = (200, {"files": 1})
    async with make_gateway({"m": entry(server.url + "/base/v1")}) as running:
        assert await running.json("GET", "/upstream/m/files?a=1") == (200, {"files": 1})
        above = URL(f"{running.url}/upstream/m/x/%2e%2e/%2e%2e/secret", encoded=True)
        headers = {"Authorization": f"Bearer {running.key}"}
        async with running.session.get(above, headers=headers) as response:
            status, answer = response.status, await response.json()
    assert server.asked[-1].target == "/base/files?a=1"
    assert (status, "`..`" in answer["error"]["message"]) == (400, True)


async def test_upstream_passes_on_what_is_packed(
    make_gateway: MakeGateway, server: RemoteServer
) -> None:
    packed = gzip.compress(b"a page")
    coded = {"Content-Encoding": "gzip", "Vary": "Cookie, accept-encoding"}
    server.answers["/page"] = (200, packed, coded)
    server.answers["/plain"] = (200, b"a page")
    error = gzip.compress(b'{"error": {"message": "no page"}}')
    server.answers["/none"] = (404, error, {"Content-Encoding": "gzip"})
    server.answers["/odd"] = (404, error, {"Content-Encoding": "odd"})
    async with (
        make_gateway({"m": entry(server)}) as running,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        url = f"{running.url}/upstream/m"
        headers = [("X-Api-Key", running.key), ("Accept-Encoding", "br;q=0.5")]
        headers += [("Accept-Encoding", "gzip"), ("Origin", "https://x.example")]
        async with session.get(f"{url}/page", headers=headers) as response:
            assert await response.read() == packed
            assert response.headers["Content-Encoding"] == "gzip"
            assert sorted(response.headers.getall("Vary")) == ["Cookie, Accept-Encoding", "Origin"]
        assert server.asked[-1].headers.getall("Accept-Encoding") == ["br;q=0.5, gzip"]
        async with session.get(f"{url}/plain", headers=headers) as response:
            assert await response.read() == b"a page"
            assert sorted(response.headers.getall("Vary")) == ["Accept-Encoding", "Origin"]
        for path, said in (("none", "no page"), ("odd", "the server gave no reason")):
            async with session.get(f"{url}/{path}", headers=headers) as response:
                assert response.status == 404
                assert "Content-Encoding" not in response.headers
                assert (await response.json())["error"]["message"] == said
        # What is read here comes as it is, and so does what its client wants so.
        for method in ("GET", "POST"):
            send = {"X-Api-Key": running.key}
            async with session.request(
                method, f"{url}/plain", headers=send, skip_auto_headers=["Accept-Encoding"]
            ) as response:
                assert response.status == 200
            assert server.asked[-1].headers.getall("Accept-Encoding") == ["identity"]
