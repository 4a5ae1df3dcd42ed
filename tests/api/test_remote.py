"""Models that other servers have, as clients of the gateway see them."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway.backends.backend import State
from gateway.backends.command import bundled_program
from gateway.cli import main
from gateway.tasks import spawn
from gateway.tls.selfsigned import self_signed
from tests.elsewhere import CLOSING, STREAM_END, STREAM_HEAD, Asked, Elsewhere, event, hang_up, hold
from tests.harness import MakeGateway, Running, fake_model, tied
from tests.scripted import until
from tests.tiny_model import GRAMMAR

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
SECRET = "sk-very-secret"


@pytest.fixture
async def server() -> AsyncIterator[Elsewhere]:
    async with Elsewhere() as server:
        yield server


def entry(*servers: Elsewhere | str, **more: Any) -> dict[str, Any]:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return {"url": urls, "key": SECRET, "modelName": "there", **more}


async def closed(running: Running) -> None:
    await until(running.gateway.scheduler, lambda: running.gateway.scheduler.in_flight == 0)


# --- what is sent --------------------------------------------------------------------------


async def test_what_a_server_elsewhere_gets(make_gateway: MakeGateway, server: Elsewhere) -> None:
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
    make_gateway: MakeGateway, server: Elsewhere
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
    make_gateway: MakeGateway, server: Elsewhere
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
async def test_where_requests_go(
    make_gateway: MakeGateway, server: Elsewhere, base: str, path: str, target: str
) -> None:
    server.answers[target] = (200, {"here": True})
    bodies = {"input": "hi", "content": "hi", "messages": [USER], "max_tokens": 1, "query": "q"}
    async with make_gateway({"m": entry(server.url + base)}) as running:
        answer = await running.json("POST", path, json={"model": "m", **bodies})
    assert (answer[0], answer[1]["here"]) == (200, True)
    assert server.asked[-1].target == target
    assert server.asked[-1].json["model"] == "there"


async def test_questions_about_a_model_name_it_as_it_is_called_there(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    server.answers["/props"] = (200, {"n": 1})
    async with make_gateway({"m": entry(server, modelName="org/ä")}) as running:
        assert (await running.chat("m"))[0] == 200
        path = "/props?model=m&x=1&authKey=" + running.key
        assert await running.json("GET", path, key=None) == (200, {"n": 1})
    assert server.asked[-1].target == "/props?model=org%2F%C3%A4&x=1"


@pytest.mark.parametrize("named", ["form", "file first", "query", "query only"])
async def test_a_form_names_the_model_as_it_is_called_there(
    make_gateway: MakeGateway, server: Elsewhere, named: str
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


async def test_a_form_that_names_two_models(make_gateway: MakeGateway, server: Elsewhere) -> None:
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
    make_gateway: MakeGateway, server: Elsewhere
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
    make_gateway: MakeGateway, server: Elsewhere
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


# --- what comes back -----------------------------------------------------------------------


def chunked(status: int, body: bytes, headers: str) -> Any:
    async def answer(asked: Asked) -> None:
        head = f"HTTP/1.1 {status} X\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
        asked.writer.write(head.encode())
        for piece in (body[:3], body[3:]):
            asked.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asked.writer.drain()
        asked.writer.write(b"0\r\n\r\n")

    return answer


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("later", ["17", None])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_when_to_come_back(
    make_gateway: MakeGateway, server: Elsewhere, status: int, later: str | None, framing: str
) -> None:
    """On each route, whether it was to be a stream or not; in the shape of its API."""
    body = json.dumps({"error": {"message": "not now", "type": "t"}}).encode()
    head = {} if later is None else {"Retry-After": later}
    answer: Any = (status, body, head)
    if framing == "chunked":
        answer = chunked(status, body, "".join(f"{n}: {v}\r\n" for n, v in head.items()))
    paths = (CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings")
    for path in (*paths, "/tokenize"):
        server.answers[path] = answer
    fields = {"messages": [USER], "prompt": "x", "input": "x", "content": "x", "max_tokens": 1}
    async with make_gateway({"m": entry(server)}) as running:
        for path in (*paths, "/tokenize"):
            for stream in (True, False):
                sent = {"model": "m", "stream": stream, **fields}
                async with running.request("POST", path, json=sent) as response:
                    assert response.status == status, path
                    assert response.headers.getall("Retry-After") == [later or "5"], path
                    error = (await response.json())["error"]
                    assert error["message"] == "not now"
                    assert ("param" in error) == (path != "/v1/messages")
        async with running.request("GET", "/chat/ask?question=hi&model=m") as response:
            assert (response.status, response.headers["Retry-After"]) == (status, later or "5")


async def test_an_error_without_an_end_is_not_collected(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    async def endless(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            asked.writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await asked.writer.drain()

    server.answers[CHAT] = endless
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER]}
        async with running.request("POST", CHAT, json=body) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
            assert len(await response.content.readexactly(500_000)) == 500_000
        await closed(running)


async def test_errors_keep_status_and_message(make_gateway: MakeGateway, server: Elsewhere) -> None:
    error = {"message": "too fast", "type": "rate", "code": "slow_down", "param": None}
    server.answers[CHAT] = (429, {"error": error}, {"Retry-After": "7"})
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER]}
        async with running.request("POST", CHAT, json=body) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "7")
            assert (await response.json())["error"] == error
        server.answers[CHAT] = (404, {"detail": "Not Found"})
        status, answer = await running.chat("m")
        assert (status, answer["error"]["message"]) == (404, "Not Found")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_is_refused_is_not_the_clients(
    make_gateway: MakeGateway, server: Elsewhere, stream: bool
) -> None:
    # As llama-server has it: whoever asks may see the list of models.
    server.answers[CHAT] = (401, {"error": {"message": f"Invalid key {SECRET}", "code": 401}})
    server.answers["/tokenize"] = (401, b"")
    async with make_gateway({"m": entry(server)}) as running:
        message = "m refuses the gateway's key (`key` in models.json)"
        for path, body in (
            (CHAT, {"model": "m", "messages": [USER], "stream": stream}),
            ("/tokenize", {"model": "m", "content": "a"}),
        ):
            async with running.request("POST", path, json=body) as response:
                assert response.status == 502
                assert response.headers["x-should-retry"] == "false"
                error = (await response.json())["error"]
                assert (error["code"], error["message"]) == ("upstream_key_refused", message)
        status, answer = await running.json("GET", "/chat/ask?question=hi&model=m")
        assert (status, answer["error"]["message"]) == (502, message)
        await closed(running)


async def test_https(make_gateway: MakeGateway, tmp_path: Path) -> None:
    self_signed(["127.0.0.1"], tmp_path / "ssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ssl/127.0.0.1-crt.pem", tmp_path / "ssl/127.0.0.1-key.pem")
    authority = tmp_path / "ssl/local-ca-crt.pem"

    async def stream(asked: Asked) -> None:
        for piece in (STREAM_HEAD, event("one"), event("two"), STREAM_END):
            asked.writer.write(piece)
            await asked.writer.drain()

    async with Elsewhere(context) as server:
        server.answers[CHAT] = stream
        models = {"m": entry(server, caFile=str(authority)), "strict": entry(server)}
        async with make_gateway(models) as running, running.openai() as client:
            for _ in range(2):
                answer = await client.chat.completions.create(
                    model="m", messages=[USER], stream=True
                )
                texts = [chunk.choices[0].delta.content async for chunk in answer]
                assert texts == ["one", "two"]
            assert server.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
            before = len(server.every)
            status, answer = await running.chat("strict")
            assert status == 502
            assert "its certificate is not trusted" in answer["error"]["message"]
            assert len(server.every) == before


async def test_what_a_server_says_of_its_account_stays_here(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    hidden = {
        "Set-Cookie": "a=b",
        "OpenAI-Organization": "us",
        "X-RateLimit-Remaining-Requests": "1",
        "X-Gateway-Model": "theirs",
        "WWW-Authenticate": "Bearer",
        "Location": "https://elsewhere.example/",
        "Access-Control-Allow-Origin": "https://elsewhere.example",
    }
    server.answers[CHAT] = (200, {"choices": []}, {**hidden, "X-Request-Id": "theirs", "X-T": "t"})
    async with make_gateway({"m": entry(server)}, cors={"origins": []}) as running:
        body = {"model": "m", "messages": [USER]}
        async with running.request("POST", CHAT, json=body) as response:
            assert response.headers["X-Gateway-Model"] == "m"
            assert response.headers["X-Request-Id"] != "theirs"
            assert response.headers["X-T"] == "t"
            assert not (hidden.keys() - {"X-Gateway-Model"}) & set(response.headers)


async def test_a_stream_passes_as_it_comes_and_ends_with_its_client(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    more, left = asyncio.Event(), asyncio.Event()

    async def stream(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("one"))
        await more.wait()
        try:
            while True:  # until nobody listens
                asked.writer.write(event("two"))
                await asked.writer.drain()
                await asyncio.sleep(0.001)
        finally:
            left.set()

    server.answers[CHAT] = stream
    async with make_gateway({"m": entry(server)}) as running, running.openai() as client:
        answer = await client.chat.completions.create(model="m", messages=[USER], stream=True)
        texts = aiter(answer)
        assert (await anext(texts)).choices[0].delta.content == "one"
        more.set()
        assert (await anext(texts)).choices[0].delta.content == "two"
        await answer.close()
        async with asyncio.timeout(20):
            await left.wait()
        await closed(running)


async def test_a_client_that_does_not_read_slows_the_server_elsewhere(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    sent, piece = 0, b"x" * 65536
    stalled = asyncio.Event()

    async def flood(asked: Asked) -> None:
        nonlocal sent
        asked.writer.write(STREAM_HEAD)
        for _ in range(2000):  # 128 MB
            asked.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            try:
                async with asyncio.timeout(1):
                    await asked.writer.drain()
            except TimeoutError:
                stalled.set()
                await asked.writer.drain()
            sent += len(piece)
        asked.writer.write(STREAM_END)

    server.answers[CHAT] = flood
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER], "stream": True}
        async with running.request("POST", CHAT, json=body) as response:
            async with asyncio.timeout(60):
                await stalled.wait()
            assert sent < 64 * 2**20
            received = sum([len(data) async for data in response.content.iter_any()])
            assert received == 2000 * len(piece) + len(b"data: [DONE]\n\n")


async def test_a_stream_that_breaks_looks_broken(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    async def half(asked: Asked) -> None:
        asked.writer.write(STREAM_HEAD + event("one"))
        await asked.writer.drain()
        asked.writer.transport.close()
        raise ConnectionAbortedError

    server.answers[CHAT] = half
    async with make_gateway({"m": entry(server)}) as running:
        body = {"model": "m", "messages": [USER], "stream": True}
        async with running.request("POST", CHAT, json=body) as response:
            data = b""
            while b"went away in the middle of its answer" not in data:
                data += await response.content.readany()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
        assert b"[DONE]" not in data


# --- servers that are down -----------------------------------------------------------------


async def test_a_server_that_is_down_is_a_502_that_hides_where_it_is(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    await server.stop()
    async with make_gateway({"m": entry(server)}) as running:
        for _ in range(2):
            status, answer = await running.chat("m")
            message = "the server of 'm' cannot be used: the connection is refused"
            assert (status, answer["error"]["message"]) == (502, message)
            assert answer["error"]["code"] == "backend_error"
        _, listed = await running.json("GET", "/v1/models")
        assert listed["data"][0]["status"] == {"value": "failed", "failed": True}
        await server.start()
        assert (await running.chat("m"))[0] == 200


async def test_a_request_goes_to_the_server_that_is_left(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    async with Elsewhere() as other, make_gateway({"m": entry(server, other)}) as running:
        assert (await running.chat("m"))[0] == 200
        await server.stop()
        async with running.request("GET", "/ping"):
            pass  # that the connection has ended has been read by now
        for _ in range(4):
            assert (await running.chat("m"))[0] == 200
        await other.stop()
        for _ in range(3):  # one may be sent on a connection that is dead
            status, answer = await running.chat("m")
            assert status == 502
        assert "no server of 'm' can be used" in answer["error"]["message"]
        await server.start()
        assert (await running.chat("m"))[0] == 200


async def test_a_server_that_nobody_has_looked_at_yet_is_better_than_none(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    async with Elsewhere() as slow, make_gateway({"m": entry(server, slow)}) as running:
        slow.answers["/v1/models"] = hold
        for _ in range(2):  # it is ready by the first; the other is left alone as long as it is up
            assert (await running.chat("m"))[0] == 200
        assert (len(server.asked), len(slow.asked)) == (2, 0)
        await server.stop()
        assert (await running.chat("m"))[0] == 200
        assert len(slow.asked) == 1


async def test_a_request_that_was_taken_is_not_given_to_another(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    async with Elsewhere() as other, make_gateway({"m": entry(server, other)}) as running:
        for one in (server, other):
            one.answers[CHAT] = hang_up
            one.answers.update(CLOSING)
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (502, "backend_error")
        assert "went away before it answered" in answer["error"]["message"]
        assert len(server.asked) + len(other.asked) == 1


async def test_an_answer_that_does_not_begin_is_a_504(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    server.answers[CHAT] = hold
    async with make_gateway({"m": entry(server, timeout="300ms")}) as running:
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (504, "backend_timeout")
        assert answer["error"]["message"] == "m sent no answer within 0.3 s"


async def test_requests_over_parallel_wait_here(
    make_gateway: MakeGateway, server: Elsewhere
) -> None:
    go = asyncio.Event()

    async def slow(asked: Asked) -> None:
        await go.wait()
        asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server.answers[CHAT] = slow
    async with make_gateway({"m": entry(server, parallel=2)}) as running:
        asking = [spawn(running.chat("m"), name="ask") for _ in range(5)]
        scheduler = running.gateway.scheduler
        await until(scheduler, lambda: scheduler.status()[0].queued == 3)
        await server.until(lambda: len(server.asked) == 2)
        go.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 5


# --- lists, loading, unloading -------------------------------------------------------------


async def test_how_it_is_listed(make_gateway: MakeGateway, server: Elsewhere, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    models = {"m": entry(server, personalities={"p": "You."}), "here": {"params": {"model": "x"}}}
    async with make_gateway(models) as running:
        assert (await running.json("POST", "/loadModel", json={"model": "m"}))[0] == 200
        pages = {}
        for path in ("/v1/models", "/admin/models", "/admin/status", "/models?loaded=true"):
            pages[path] = (await running.json("GET", path))[1]
        _, key = await running.gateway.ring.create("user", "", admin=False)
        _, public = await running.json("GET", "/v1/models", key=key)
        _, log = await running.json("GET", "/admin/models/m/log?follow=false")
        assert (await running.json("POST", "/unloadModel?model=m"))[0] == 200
        _, after = await running.json("GET", "/admin/models")
    here, listed, virtual = pages["/v1/models"]["data"]
    assert (listed["remote"], listed["context_size"]) == (True, 4096)
    assert listed["status"] == {"value": "loaded"}
    up = {"url": server.url, "up": True, "in_flight": 0, "error": None, "retry_in": None}
    assert listed["servers"] == [up]
    assert (virtual["id"], virtual["remote"]) == ("m:p", True)
    assert "remote" not in here
    status = pages["/admin/models"]["models"][0]
    assert (status["state"], status["memory"], status["servers"]) == ("ready", None, [up])
    assert pages["/admin/models"]["models"][1]["servers"] == []
    assert pages["/models?loaded=true"] == ["m"]
    assert [one.get("remote") for one in public["data"]] == [None, True, True]
    assert server.url not in json.dumps(public)
    assert f"{server.url} is up" in log["lines"]
    assert (after["models"][0]["state"], after["models"][0]["servers"][0]["up"]) == (
        "stopped",
        False,
    )
    assert "secret" not in json.dumps([pages, public, log, after]) + caplog.text


async def test_the_router_api(make_gateway: MakeGateway, server: Elsewhere) -> None:
    async with make_gateway({"m": entry(server)}) as running:
        scheduler = running.gateway.scheduler

        async def post(path: str) -> int:
            return (await running.json("POST", path, json={"model": "m"}))[0]

        assert await post("/models/load") == 200
        await until(scheduler, lambda: scheduler.loaded() == ["m"])
        assert await post("/models/load") == 400  # it is
        assert await post("/models/unload") == 200
        await until(scheduler, lambda: scheduler.status()[0].state is State.STOPPED)
        assert await post("/models/unload") == 400  # it isn't
        await server.stop()
        assert await post("/models/load") == 200
        await until(scheduler, lambda: bool(scheduler.status()[0].last_error))
        assert await post("/loadModel") == 502


async def test_it_has_its_place_beside_models_of_this_machine(
    make_gateway: MakeGateway, server: Elsewhere, tmp_path: Path
) -> None:
    models = {"here": fake_model(tmp_path), "m": {**entry(server), "preload": True, "ttl": "1h"}}
    async with make_gateway(models, scheduler={"max_loaded": 1}) as running:
        scheduler = running.gateway.scheduler
        await until(scheduler, lambda: scheduler.loaded() == ["m"])
        assert (await running.chat("here"))[0] == 200
        assert (await running.chat("m"))[0] == 200
        assert scheduler.loaded() == ["here", "m"]
        file = running.gateway.library.file
        models["m"]["url"] = "http://127.0.0.1:9"
        await asyncio.to_thread(file.write_text, json.dumps(models))
        await running.gateway.library.refresh()
        status, answer = await running.chat("m")
        assert (status, "cannot be used" in answer["error"]["message"]) == (502, True)
        assert scheduler.loaded() == ["here"]


# --- real servers --------------------------------------------------------------------------


async def test_a_gateway_behind_a_gateway(make_gateway: MakeGateway, tmp_path: Path) -> None:
    inner = {"there": fake_model(tmp_path, personalities={"p": "Inner."}, chunks=3)}
    async with make_gateway(inner, folder="inner") as behind:
        _, key = await behind.gateway.ring.create("outer", "", admin=False)
        outer = {
            "m": {"url": behind.url, "key": key, "modelName": "there:p"},
            "wrong": {"url": behind.url, "key": "llmgw_wrong", "modelName": "there"},
        }
        async with make_gateway(outer, folder="outer") as running, running.openai() as client:
            answer = await client.chat.completions.create(model="m", messages=[USER])
            assert answer.choices[0].message.content == "fake answer"
            stream = await client.chat.completions.create(model="m", messages=[USER], stream=True)
            texts = [chunk.choices[0].delta.content async for chunk in stream]
            assert "".join(text or "" for text in texts) == "word0 word1 word2 "
            assert (await running.json("GET", "/chat/ask?question=hi&model=m"))[0] == 200
            status, answer = await running.chat("wrong")
            message = "the server of 'wrong' cannot be used: it refuses the key"
            assert (status, answer["error"]["message"]) == (502, message)


@pytest.fixture
def llama_server(tiny_model: Path) -> Any:
    """The bundled llama-server on a port of its own."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    flags = ["--host", "127.0.0.1", "--port", str(port), "--model", str(tiny_model)]
    flags += ["--alias", "tiny", "--ctx-size", "2048", "--parallel", "2"]
    process = subprocess.Popen(
        tied(*bundled_program(), *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


async def test_a_real_llama_server(make_gateway: MakeGateway, llama_server: str) -> None:
    models = {"m": {"url": llama_server, "modelName": "tiny", "personalities": {"p": "Be brief."}}}
    async with make_gateway(models) as running:
        async with asyncio.timeout(60):
            while (await running.json("POST", "/loadModel", json={"model": "m"}))[0] != 200:
                await asyncio.sleep(0.05)  # it is still starting
        fixed = {"grammar": GRAMMAR, "temperature": 0, "max_tokens": 30}
        status, whole = await running.chat("m:p", **fixed)
        assert status == 200
        text = whole["choices"][0]["message"]["content"]
        assert whole["responses"] == text
        assert len(text) == 20
        pieces = []
        async with running.openai() as client:
            stream = await client.chat.completions.create(
                model="m:p",
                messages=[USER],
                stream=True,
                temperature=0,
                max_tokens=30,
                extra_body={"grammar": GRAMMAR},
            )
            async for chunk in stream:
                pieces += [choice.delta.content or "" for choice in chunk.choices]
        assert "".join(pieces) == text
        status, tokens = await running.json(
            "POST", "/tokenize", json={"model": "m", "content": "a"}
        )
        assert (status, len(tokens["tokens"]) > 0) == (200, True)
        prompted = {"model": "m", "prompt": "a", "personality": "p", **fixed}
        status, completed = await running.json("POST", "/v1/completions", json=prompted)
        assert (status, len(completed["choices"][0]["text"])) == (200, 20)
        status, answer = await running.chat("m", "a " * 3000)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        # What its client got wrong is its client's to change, and not our models.json's.
        before = await running.json("GET", "/chat/errors")
        for path, body, said in (
            ("/v1/embeddings", {"input": "x"}, "--embeddings"),
            (CHAT, {"messages": [{"content": "x"}]}, "`messages[0].role`"),
            (CHAT, {"messages": [USER], "tools": [{"type": "function"}]}, "function"),
        ):
            async with running.request("POST", path, json={"model": "m", **body}) as response:
                answer = await response.json()
                assert response.status == 400
                assert response.headers["x-should-retry"] == "false"
            assert said in answer["error"]["message"]
            assert "models.json" not in answer["error"]["message"]
        assert await running.json("GET", "/chat/errors") == before
        (model,) = running.gateway.scheduler.status()
        assert (model.state, model.servers[0].up) == (State.READY, True)


# --- llm-gateway check ---------------------------------------------------------------------


def check(tmp_path: Path, models: Any, capsys: Any) -> tuple[int, str, str]:
    (tmp_path / "conf").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/models.json").write_text(json.dumps(models))
    config = tmp_path / "conf/gateway.yaml"
    config.write_text("llama_server: /nowhere/llama-server\n")
    code = main(["check", "--config", str(config)])
    return (code, *capsys.readouterr())


def test_check_finds_everything_at_once(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    models = {
        "a": {"url": "http://box", "key": "env:NO_SUCH_KEY", "caFile": "/nowhere/ca.pem"},
        "b": {"url": "http://box", "key": f"file:{tmp_path / 'no-key'}"},
    }
    code, out, _ = check(tmp_path, models, capsys)
    assert code == 1
    for says in (
        "a.key: the environment variable NO_SUCH_KEY is not set",
        "a.caFile: the file /nowhere/ca.pem of CAs: No such file or directory",
        f"b.key: the file {tmp_path / 'no-key'} cannot be read: No such file or directory",
    ):
        assert says in out
    assert "llama_server" not in out


def test_check_needs_no_llama_server_where_all_models_are_elsewhere(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", SECRET)
    code, out, err = check(tmp_path, {"a": {"url": "http://box", "key": "env:THE_KEY"}}, capsys)
    assert code == 0, out
    assert err == "warning: a: the key goes to http://box unencrypted\n"
    assert os.environ["THE_KEY"] not in out + err
