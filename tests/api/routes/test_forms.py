"""Forms: what arrives of them, and which are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.routes.recorded import RECORDER, Recorded, model
from tests.harness import MakeGateway, Running


def form(*fields: tuple[str, Any]) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in fields:
        filename = "a.wav" if isinstance(value, bytes) else None
        data.add_field(name, value, filename=filename)
    return data


AUDIO = bytes(range(256)) * 1000


async def test_forms_reach_their_model_as_they_are(running: Running, recorded: Recorded) -> None:
    file = ("file", AUDIO)
    cases: list[tuple[tuple[Any, ...], str, dict[str, str]]] = [
        ((("model", "m:teacher"), file), "", {}),
        ((("language", "en"), ("model", "org/m"), file), "", {}),
        ((file, ("model", "m")), "", {}),
        ((file,), "?model=m", {}),
        ((file,), "", {"X-Model": "m"}),
        ((file, ("model", "m")), "?model=m", {"X-Model": "m"}),
        ((file, ("x[]", "1"), ("x[]", "2")), "?model=m", {}),
    ]
    for number, (fields, query, headers) in enumerate(cases):
        path = ("/v1/audio/transcriptions", "/audio/transcriptions")[number % 2] + query
        data = form(*fields)
        status, answer = await running.json("POST", path, data=data, headers=headers)
        assert (status, answer) == (200, {"path": "/v1/audio/transcriptions", "model": "m"})
        sent = recorded.last
        assert sent["headers"]["content-type"].startswith("multipart/form-data; boundary=")
        raw = sent["body"].encode("latin-1")
        assert AUDIO in raw
        assert raw.count(b"Content-Disposition: form-data") == len(fields)
        assert raw.endswith(b"--\r\n")
        assert int(sent["headers"]["content-length"]) == len(raw)


async def test_a_form_is_not_collected(running: Running, recorded: Recorded) -> None:
    """llama-server has the beginning while the client still holds back the end."""
    await running.gateway.scheduler.load("m")
    begun = asyncio.Event()
    go_on = asyncio.Event()
    running.gateway.scheduler.subscribe(begun.set)

    async def pieces() -> AsyncIterator[bytes]:
        yield b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
        yield b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield AUDIO
        await go_on.wait()
        yield b"\r\n--XX--\r\n"

    async def post() -> int:
        headers = {"Content-Type": "multipart/form-data; boundary=XX"}
        async with running.request(
            "POST", "/v1/audio/transcriptions", data=pieces(), headers=headers
        ) as response:
            return int(response.status)

    waiting = asyncio.ensure_future(post())  # noqa: TID251 - a client's task
    begun.clear()
    async with asyncio.timeout(5):
        while not running.gateway.scheduler.in_flight:
            await begun.wait()  # it has its lease, though the form isn't complete
            begun.clear()
        assert not go_on.is_set()
        go_on.set()
        assert await waiting == 200
    assert recorded.last["headers"]["transfer-encoding"] == "chunked"
    assert AUDIO in recorded.last["body"].encode("latin-1")


async def test_form_that_two_readers_read_differently_is_refused(
    running: Running, subtests: pytest.Subtests
) -> None:
    path = "/v1/audio/transcriptions"
    model_, file, other = ("model", "m"), ("f", AUDIO), ("model", "n")
    for fields, query, param in (
        ((model_, model_, file), "", "model"),
        ((model_, file, model_), "", "model"),
        ((file, model_, model_), "?model=m", "model"),
        ((file, other), "?model=m", "model"),
        ((other, file), "?model=m", "model"),
        ((file, model_, file), "", "f"),
        ((("response_format", "json"), file, ("response_format", "text")), "?model=m", None),
        ((file,), "?model=m&model=m", "model"),
    ):
        with subtests.test(f"{fields!r:.80}"):
            status, answer = await running.json("POST", path + query, data=form(*fields))
            assert (status, answer["error"]["param"]) == (400, param or "response_format"), fields
    headers = {"X-Model": "n"}
    status, answer = await running.json("POST", f"{path}?model=m", data=form(file), headers=headers)
    assert (status, answer["error"]["param"]) == (400, "model")


async def test_form_over_the_limits_is_refused(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"m": model(tmp_path)}
    path = "/v1/audio/transcriptions"
    async with make_gateway(
        models, llama_server=RECORDER, limits={"max_body": "300KiB"}
    ) as running:
        big = AUDIO * 2
        status, answer = await running.json("POST", path, data=form(("model", "m"), ("f", big)))
        assert (status, answer["error"]["code"]) == (413, "request_too_large")

        async def pieces() -> AsyncIterator[bytes]:
            yield b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
            yield b'--XX\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + big

        headers = {"Content-Type": "multipart/form-data; boundary=XX"}
        status, answer = await running.json("POST", path, data=pieces(), headers=headers)
        assert (status, answer["error"]["code"]) == (413, "request_too_large")
        monkeypatch.setattr("gateway.api.upload.FILE_FIRST", 1000)

        async def file_first() -> AsyncIterator[bytes]:
            yield b'--XX\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + AUDIO
            await asyncio.Event().wait()

        status, answer = await running.json("POST", path, data=file_first(), headers=headers)
        assert (status, answer["error"]["param"]) == (400, "model")
        assert "X-Model" in answer["error"]["message"]
        status, answer = await running.json("POST", path, json={"model": "m"})
        assert (status, answer["error"]["code"]) == (415, "unsupported_media_type")
        assert answer["error"]["message"].endswith("(multipart/form-data), not 'application/json'")
        assert (await running.json("POST", path, data=b"", headers={"Content-Type": ""}))[0] == 415
        status, _ = await running.json("POST", path, data=form(("f", b"x")))
        assert status == 200, "there is but one model that it can mean"
        assert (await running.json("POST", path, data=form(("model", "no"), ("f", b"x"))))[0] == 404
        # And then one that is fine.
        status, _ = await running.json("POST", path, data=form(("model", "m"), ("f", AUDIO)))
        assert status == 200
