"""Responses with inputs of megabytes: kept as small ones are, and nobody waits for that."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.workers import WORKERS
from tests.api.test_large_bodies import LONG_TEXTS, MAX_BODY, MEGABYTE, longest_wait
from tests.harness import FAKE, MakeGateway, Running, fake_model, project
from tests.heavy_bodies import KINDS, post
from tests.responses.writer import KEPT, PATH, Writer, models, written

#: Seconds that others may wait: it took 0.14 to 0.2, and takes 0.006.
MOMENT = 0.1
#: More than 64 bits, which an item may have where it is nobody's business.
LARGE_NUMBER = 2**70


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one text", "code points"])
def test_large_input_keeps_nobody_waiting(serve: Any, tmp_path: Path, kind: str) -> None:
    """Threads that parsed and wrote it held CPython's lock."""
    models = {"m": fake_model(tmp_path)}
    project(tmp_path, models, llama_server=str(FAKE), limits=LONG_TEXTS, responses=KEPT)
    gateway = serve()
    url, key = gateway.url, gateway.key
    assert post(url, key, PATH, b'{"model": "m", "input": "hi"}')[0] == 200  # loaded
    body = KINDS[kind](MAX_BODY).replace(b'"metadata"', b'"input"', 1)

    def ask() -> None:
        status, answer = post(url, key, PATH, body)
        assert status == 200
        more = {"model": "m", "input": "x", "previous_response_id": json.loads(answer)["id"]}
        assert post(url, key, PATH, json.dumps(more).encode())[0] == 200

    assert longest_wait(url, ask, MOMENT) < MOMENT


@pytest.mark.parametrize("size", [10, 300_000, 5 * MEGABYTE])
async def test_large_input_is_gone_on_with_as_a_small_one(
    make_gateway: MakeGateway, writer: Writer, size: int
) -> None:
    def input_of(word: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": word * size, "number": LARGE_NUMBER}]

    async with make_gateway(models(writer), responses=KEPT, limits=LONG_TEXTS) as running:
        for waits in (False, True):  # until it is in the database
            writer.say("one", ends=True)
            first = await create_large(running, input=input_of("\u00e4"))
            if waits:
                await written(running, first["id"])
            writer.say("two", ends=True)
            second = await create_large(
                running, input=input_of("b"), previous_response_id=first["id"]
            )
            sent = [*input_of("\u00e4"), *first["output"], *input_of("b")]
            assert writer.asked[-1]["input"] == sent
            assert await items_of(running, second["id"]) == sent
        assert (WORKERS.pid is not None) == (size > 4 * MEGABYTE)


async def create_large(running: Running, **fields: Any) -> Any:
    data = io.BytesIO(json.dumps({"model": "m", **fields}).encode())
    headers = {"Content-Type": "application/json"}
    status, response = await running.json("POST", PATH, data=data, headers=headers)
    assert status == 200, response
    return response


async def items_of(running: Running, id: str) -> list[Any]:
    """What a response was asked with, but for what is added when it is listed."""
    _, page = await running.json("GET", f"{PATH}/{id}/input_items?order=asc")
    for item in page["data"]:
        if item["role"] == "user":
            assert (item.pop("type"), item.pop("status")) == ("message", "completed")
            del item["id"]
            (part,) = item["content"]
            item["content"] = part["text"]
        else:
            item.pop("status", None)
    found: list[Any] = page["data"]
    return found


@pytest.mark.parametrize("size", [10, 300_000, 5 * MEGABYTE])
async def test_large_input_stands_in_its_conversation_as_it_was_sent(
    make_gateway: MakeGateway, writer: Writer, size: int
) -> None:
    async with make_gateway(models(writer), responses=KEPT, limits=LONG_TEXTS) as running:
        _, conversation = await running.json("POST", "/v1/conversations", json={})
        one = f"/v1/conversations/{conversation['id']}/items?order=asc"
        for turn, word in enumerate("abc"):
            writer.say(word, ends=True)
            said = [{"role": "user", "content": text} for text in (word * size, word)]
            response = await create_large(running, input=said, conversation=conversation["id"])
            if turn == 1:
                await written(running, response["id"])
            _, page = await running.json("GET", one)
            sent = writer.asked[-1]["input"]
            assert page["data"][: len(sent)] == sent
            assert [item["content"][0]["text"] for item in sent[-2:]] == [word * size, word]
            asked = [item["id"] for item in page["data"] if item["role"] == "user"]
            assert len({*asked}) == len(asked) == 2 * (turn + 1)
