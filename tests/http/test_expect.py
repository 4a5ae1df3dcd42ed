"""A client that waits with its body (Expect: 100-continue) is asked for it when it is wanted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running, fake_model
from tests.http.refused import CHATS, MESSAGES
from tests.wire import CHAT, connected, head

# --- 100 Continue --------------------------------------------------------------------------

FORM = "multipart/form-data; boundary=b"


PART = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ngood\r\n--b--\r\n'


EXPECT = "Expect: 100-continue"


def asks(running: Running, path: str, kind: str, length: int, *lines: str) -> bytes:
    """The head of a POST that waits to be asked for its body."""
    first, kinds = f"POST {path} HTTP/1.1", f"Content-Type: {kind}"
    return head(running, first, kinds, f"Content-Length: {length}", EXPECT, *lines)


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        (CHATS, "application/json", CHAT),
        (MESSAGES, "application/json", CHAT[:-1] + b', "max_tokens": 9}'),
        ("/v1/audio/transcriptions", FORM, PART),
        ("/upstream/good/v1/chat/completions", "application/json", CHAT),
        ("/loadModel", "application/json", b'{"model": "good"}'),
    ],
)
async def test_body_is_asked_for_when_it_is_wanted(
    make_gateway: MakeGateway,
    tmp_path: Path,
    secured: tuple[dict[str, Any], dict[str, Any]],
    path: str,
    kind: str,
    body: bytes,
) -> None:
    settings, options = secured
    model = fake_model(tmp_path)
    model["mmproj"] = model["params"]["model"]  # it hears
    async with (
        make_gateway({"good": model}, **settings) as running,
        connected(running, **options) as client,
    ):
        for _ in range(2):
            client.send(asks(running, path, kind, len(body)))
            async with asyncio.timeout(10):
                asked = await client.reader.readuntil(b"\r\n\r\n")
            assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(body)
            status, headers, _ = await client.answer()
            assert status in (200, 404), "the scripted server has no such route"
            assert headers["x-gateway-model"] == "good" or path == "/loadModel"
        client.send(asks(running, path, kind, len(body)) + body)  # it doesn't wait: not asked
        assert (await client.answer())[0] == status


async def test_no_body_is_asked_for_in_vain(
    make_gateway: MakeGateway, tmp_path: Path, secured: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    settings, options = secured
    models, limits = {"good": fake_model(tmp_path)}, {"max_body": "2KiB"}
    async with make_gateway(models, limits=limits, **settings) as running:
        form = "/v1/audio/transcriptions"
        wrong = [
            (asks(running, path, FORM, 2).replace(b"Bearer llm", b"Bearer xxx"), 401)
            for path in (CHATS, MESSAGES, form, "/upstream/good/x", "/loadModel", "/nowhere")
        ]

        async def is_refused(request: bytes, status: int) -> None:
            async with connected(running, **options) as client:
                client.send(request)
                got = await client.answer()
                assert got[0] == status, (got, request)
                assert got[1]["connection"] == "close"
                assert await client.closed() == b""

        await asyncio.gather(
            *[is_refused(*one) for one in wrong],
            *[is_refused(asks(running, path, FORM, 3000), 413) for path in (CHATS, form)],
            is_refused(asks(running, "/upstream/good/x", FORM, 3000), 413),
            is_refused(asks(running, CHATS, FORM, 2, "Host: evil.example"), 400),
            is_refused(asks(running, "/v1/messages/nowhere", FORM, 2), 404),
            is_refused(asks(running, "/v1/v1/messages", FORM, 2), 404),
            is_refused(asks(running, CHATS, FORM, 2).replace(b"POST", b"PUT"), 405),
            is_refused(asks(running, "/tools", FORM, 2), 403),
            is_refused(asks(running, "/upstream/good/tools", FORM, 2), 403),
            is_refused(asks(running, "/upstream/nothing/x", FORM, 2), 404),
            is_refused(asks(running, f"{form}?model=nothing", FORM, 2), 404),
            is_refused(asks(running, form, "text/plain", 2), 415),
        )


async def test_curl_uploads_nothing_in_vain(make_gateway: MakeGateway, tmp_path: Path) -> None:
    """curl waits with what is over a megabyte."""
    big = tmp_path / "big.json"
    big.write_bytes(CHAT + b" " * 2_000_000)
    models = {"good": fake_model(tmp_path)}

    async def curl(running: Running, key: str) -> tuple[int, int, int]:
        """Status, bytes sent, and status of the interim answer."""
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "-o", "/dev/null", "--expect100-timeout", "20", "-v"),
            *("-w", "%{http_code} %{size_upload}", "-H", f"Authorization: Bearer {key}"),
            *("--data-binary", f"@{big}", running.url + CHATS),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            out, talk = await process.communicate()
        status, sent = out.split()
        return int(status), int(sent), talk.count(b"< HTTP/1.1 100")

    async with make_gateway(models) as running:
        assert await curl(running, "wrong") == (401, 0, 0)
        assert await curl(running, running.key) == (200, big.stat().st_size, 1)
    async with make_gateway(models, limits={"max_body": "1MiB"}, folder="small") as running:
        assert await curl(running, running.key) == (413, 0, 0)


async def test_http_1_0_client_is_never_asked(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with (
        make_gateway({"good": fake_model(tmp_path)}) as running,
        connected(running) as client,
    ):
        client.send(head(running, f"POST {CHATS} HTTP/1.0", f"Content-Length: {len(CHAT)}", EXPECT))
        async with running.request("GET", "/ping"):
            pass  # what was sent has been read by now
        client.send(CHAT)
        assert (await client.answer())[0] == 200
