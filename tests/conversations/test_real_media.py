"""Conversations with pictures are saved as others are, where llama-server can."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.conversations.test_real_llama_server import cache, words
from tests.harness import MakeGateway, Running, fake_model
from tests.projector_model import write_projector
from tests.tiny_model import GRAMMAR, write_tiny_model

Colour = tuple[int, int, int]


def picture(colour: Colour, side: int = 64) -> dict[str, Any]:
    """A part of a message: a square (W3C, Portable Network Graphics)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = (b"\0" + bytes(colour) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def asked(colour: Colour) -> list[dict[str, Any]]:
    text = {"type": "text", "text": words(1, 60)}
    return [{"role": "user", "content": [text, picture(colour), {"type": "text", "text": " So"}]}]


async def ask(
    running: Running, messages: list[dict[str, Any]], model: str = "a"
) -> tuple[str, int, int]:
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 20}
    status, answer = await running.json(
        "POST", "/v1/chat/completions", json={**body, "grammar": GRAMMAR}
    )
    assert status == 200, answer
    usage = answer["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return answer["choices"][0]["message"]["content"], usage["prompt_tokens"], cached


def models(folder: Path) -> dict[str, dict[str, Any]]:
    write_projector(folder / "p.gguf")
    made: dict[str, dict[str, Any]] = {}
    for name in "ab":
        write_tiny_model(folder / f"{name}.gguf")
        params = {"model": str(folder / f"{name}.gguf"), "ctxSize": 4096}
        made[name] = {"params": {**params, "threads": 1, "threadsBatch": 1}}
    made["a"]["mmproj"] = str(folder / "p.gguf")
    return made


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_conversation_with_a_picture_is_read_back_after_a_swap(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    red, blue = (210, 10, 10), (10, 10, 210)
    settings = {"llama_server": "auto", "scheduler": {"max_loaded": 1}, "cache": cache()}
    entries = models(tmp_path)
    off: dict[str, Any] = {"llama_server": "auto", "cache": {"enabled": False}}
    async with make_gateway(entries, folder="warm", **off) as running:
        warm = [await ask(running, asked(colour)) for colour in (red, blue)]
        then = [*asked(red), {"role": "assistant", "content": warm[0][0]}, *asked(blue)]
        warm.append(await ask(running, then))
    assert warm[0][0] != warm[1][0], "they look different"

    async with make_gateway(entries, folder="swaps", **settings) as running:
        first = await ask(running, asked(red))
        await ask(running, [{"role": "user", "content": "Hi"}], "b")
        other = await ask(running, asked(blue))
        assert (first[0], other[0]) == (warm[0][0], warm[1][0])
        assert other[2] < other[1] - 4, "a picture is known by its content"
        await ask(running, [{"role": "user", "content": "Hi"}], "b")
        text, _, cached = await ask(running, then)
        assert text == warm[2][0]
        assert cached >= first[1] - 4, "its picture as well"
        _, answer = await running.json("GET", "/admin/models")
        (spared,) = [m["prompt_cache"] for m in answer["models"] if m["name"] == "a"]
        assert spared["switched_off"] is None


NOT_SUPPORTED = "This feature is not supported by multimodal"


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ({"saves_none": NOT_SUPPORTED}, NOT_SUPPORTED),
        ({}, "File Not Found"),  # it is older than the route
    ],
)
async def test_model_that_cannot_be_saved_says_why_and_goes_on(
    make_gateway: MakeGateway, tmp_path: Path, does: dict[str, str], why: str
) -> None:
    model = fake_model(tmp_path, **does)
    async with make_gateway({"a": model}, cache=cache(min_tokens=1)) as running:
        for seed in range(5):
            body = {"model": "a", "messages": [{"role": "user", "content": words(seed, 90)}]}
            status, _ = await running.json("POST", "/v1/chat/completions", json=body)
            assert status == 200
        _, answer = await running.json("GET", "/admin/models")
        reason = answer["models"][0]["prompt_cache"]["switched_off"]
    assert reason == (
        "this llama-server cannot save its conversations, or none with pictures or sounds; "
        f"a newer one may ({why})"
    )
    assert not [*Path(running.gateway.settings.data_dir).glob("cache/*.kv")]


async def test_model_is_saved_again_once_its_file_is_another_one(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    model = fake_model(tmp_path, saves_none=NOT_SUPPORTED)
    async with make_gateway({"a": model}, cache=cache(min_tokens=1)) as running:

        async def asked_until_off(most: int) -> str | None:
            for seed in range(most):
                body = {"model": "a", "messages": [{"role": "user", "content": words(seed, 90)}]}
                status, _ = await running.json("POST", "/v1/chat/completions", json=body)
                assert status == 200
            _, answer = await running.json("GET", "/admin/models")
            reason: str | None = answer["models"][0]["prompt_cache"]["switched_off"]
            return reason

        assert await asked_until_off(5) is not None
        await running.json("GET", "/unloadModel?model=a")
        (tmp_path / "fake.gguf").write_bytes(b"another one")
        assert await asked_until_off(1) is None
