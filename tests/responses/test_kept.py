"""Kept responses: their own key's alone, through hang-ups, cancelling, faults of the database."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running, eventually
from tests.responses.writer import KEPT, PATH, Writer, create, ended, id_in, models, written

#: The fast way in for small JSON, and aiohttp's server, where a query is for.
DOORS = ("", "?x=1")


@pytest.mark.parametrize("door", DOORS)
async def test_what_was_said_comes_before_what_is_said(
    running: Running, writer: Writer, door: str
) -> None:
    writer.say("one", ends=True)
    first = await create(running, "first", door, instructions="Be kind.")
    writer.say("two", ends=True)
    second = await create(running, "second", door, previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert second["instructions"] is None
    sent = writer.asked[-1]
    assert sent["input"] == [
        {"role": "user", "content": "first"},
        *first["output"],
        {"role": "user", "content": "second"},
    ]
    assert not {"previous_response_id", "store", "instructions"} & sent.keys()


async def test_no_other_key_finds_it(running: Running, writer: Writer) -> None:
    ring = running.gateway.ring
    assert ring is not None
    _, other = await ring.create("other")
    writer.say("one", ends=True)
    first = await create(running)
    one = f"{PATH}/{first['id']}"
    for _ in range(2):  # in memory, and in the database
        for method, path in (
            ("GET", one),
            ("GET", f"{one}?stream=true"),
            ("GET", f"{one}/input_items"),
            ("DELETE", one),
            ("POST", f"{one}/cancel"),
        ):
            status, said = await running.json(method, path, key=other)
            assert (status, said["error"]["code"]) == (404, "response_not_found")
        body = {"model": "m", "input": "x", "previous_response_id": first["id"]}
        status, said = await running.json("POST", PATH, json=body, key=other)
        assert (status, said["error"]["code"]) == (400, "previous_response_not_found")
        await written(running, first["id"])
    assert (await running.json("GET", one))[0] == 200


async def test_key_that_goes_takes_its_responses_with_it(running: Running, writer: Writer) -> None:
    ring = running.gateway.ring
    assert ring is not None
    record, key = await ring.create("other")
    writer.say("one", ends=True)
    theirs = await create(running, key=key)
    writer.say("one", ends=True)
    mine = await create(running)
    await written(running, theirs["id"])
    await written(running, mine["id"])
    await ring.revoke(record.id)
    file = running.gateway.settings.data_dir / "gateway.db"

    def left() -> list[str]:
        with sqlite3.connect(file) as database:
            return [id for (id,) in database.execute("SELECT id FROM responses")]

    await eventually(lambda: left() == [mine["id"]])


async def test_client_that_leaves_a_plain_stream_ends_it(running: Running, writer: Writer) -> None:
    body = {"model": "m", "input": "hi", "stream": True}
    async with running.request("POST", PATH, json=body) as response:
        writer.say("one")
        id = await id_in(response)
        response.close()
    await asyncio.wait_for(writer.left.wait(), 20)
    assert (await ended(running, id))["status"] == "cancelled"


async def test_stream_goes_on_for_a_client_that_asked_for_that(
    running: Running, writer: Writer
) -> None:
    body = {"model": "m", "input": "hi", "stream": True}
    resume = {"X-Stream-Resume": "true"}
    async with running.request("POST", PATH, json=body, headers=resume) as response:
        writer.say("one")
        id, stream = await id_in(response), response.headers["X-Stream-Id"]
        response.close()
    writer.say("two", ends=True)
    for path in (f"{PATH}/{id}?stream=true", f"/v1/streams/{stream}"):
        async with running.request("GET", path) as again:
            said = (await again.read()).decode()
            assert again.status == 200
        kinds = [line[7:] for line in said.splitlines() if line.startswith("event: ")]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert kinds.count("response.output_text.delta") == 2
    assert (await ended(running, id))["status"] == "completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_work_in_the_background_is_cancelled(
    running: Running, writer: Writer, stream: bool
) -> None:
    body = {"model": "m", "input": "hi", "background": True, "stream": stream}
    async with running.request("POST", PATH, json=body) as response:
        writer.say("one")
        id = await id_in(response) if stream else (await response.json())["id"]
        response.close()
    one = f"{PATH}/{id}"
    await eventually(lambda: len(writer.asked) == 1)
    assert (await running.json("GET", one))[1]["status"] in ("queued", "in_progress")
    said = {"model": "m", "input": "x", "previous_response_id": id}
    status, refused = await running.json("POST", PATH, json=said)
    assert (status, refused["error"]["code"]) == (400, "response_not_finished")
    status, cancelled = await running.json("POST", f"{one}/cancel")
    assert (status, cancelled["status"], cancelled["error"]) == (200, "cancelled", None)
    await eventually(lambda: running.gateway.scheduler.in_flight == 0)
    await written(running, id)
    assert (await running.json("GET", one))[1] == cancelled
    assert (await running.json("POST", f"{one}/cancel"))[1] == cancelled


async def test_background_without_a_stream_tells_that_its_model_is_at_work(
    running: Running, writer: Writer
) -> None:
    begun = await create(running, background=True)
    assert begun["status"] == "queued"
    await eventually(lambda: len(writer.asked) == 1)
    _, seen = await running.json("GET", f"{PATH}/{begun['id']}")
    assert seen["status"] == "in_progress"
    writer.say("one", ends=True)
    assert (await ended(running, begun["id"]))["status"] == "completed"


async def test_deleting_ends_the_work(running: Running, writer: Writer) -> None:
    begun = await create(running, background=True)
    await eventually(lambda: len(writer.asked) == 1)
    one = f"{PATH}/{begun['id']}"
    status, said = await running.json("DELETE", one)
    assert (status, said) == (200, {"id": begun["id"], "object": "response", "deleted": True})
    await eventually(lambda: running.gateway.scheduler.in_flight == 0)
    assert (await running.json("GET", one))[0] == 404
    assert (await running.json("DELETE", one))[0] == 404


async def test_restart_keeps_what_is_complete_and_tells_what_is_not(
    make_gateway: MakeGateway, writer: Writer, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"responses": KEPT, "data_dir": str(tmp_path / "data")}
    async with make_gateway(models(writer), folder="before", **settings) as running:
        writer.say("one", ends=True)
        whole = await create(running)
        begun = await create(running, background=True)
        await eventually(lambda: len(writer.asked) == 2)
        key = running.key
    async with make_gateway(models(writer), folder="after", **settings) as running:
        running.key = key
        status, kept = await running.json("GET", f"{PATH}/{whole['id']}")
        assert (status, kept) == (200, whole)
        failed = await ended(running, begun["id"])
        assert failed["status"] == "failed"
        assert failed["error"]["message"]


async def test_database_that_is_locked_harms_no_answer(
    running: Running, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    file = running.gateway.settings.data_dir / "gateway.db"
    lock = sqlite3.connect(file)
    lock.execute("BEGIN EXCLUSIVE")
    try:
        with caplog.at_level(logging.WARNING):
            writer.say("one", ends=True)
            first = await create(running)
            writer.say("two", ends=True)
            second = await create(running, previous_response_id=first["id"])
            status, again = await running.json("GET", f"{PATH}/{second['id']}")
            assert (status, again) == (200, second)
    finally:
        lock.rollback()
        lock.close()
    await written(running, second["id"])
    assert (await running.json("GET", f"{PATH}/{first['id']}"))[1] == first


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": "yes"}, "store"),
        ({"background": 1}, "background"),
        ({"background": True, "store": False}, "background"),
        ({"previous_response_id": 3}, "previous_response_id"),
        ({"previous_response_id": "../x"}, "previous_response_id"),
        ({"conversation": []}, "conversation"),
        ({"conversation": {"name": "x"}}, "conversation"),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "conversation"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"input": [1]}, "input"),
    ],
)
async def test_bad_requests_are_refused_by_name(
    running: Running, fields: dict[str, Any], param: str
) -> None:
    said = {"model": "m", "input": "hi", **fields}
    status, refused = await running.json("POST", PATH, json=said)
    assert (status, refused["error"]["param"]) == (400, param)


async def test_bad_queries_are_refused(running: Running, writer: Writer) -> None:
    writer.say("one", ends=True)
    one = f"{PATH}/{(await create(running))['id']}"
    for path, param in (
        (f"{one}?stream=perhaps", "stream"),
        (f"{one}?stream=true&starting_after=-1", "starting_after"),
        (f"{one}?stream=true", "stream"),
        (f"{one}/input_items?limit=101", "limit"),
        (f"{one}/input_items?order=up", "order"),
        (f"{one}/input_items?after=nothing", "after"),
    ):
        status, refused = await running.json("GET", path)
        assert (status, refused["error"]["param"]) == (400, param)
    assert (await running.json("POST", f"{one}/cancel"))[0] == 400
    assert (await running.json("GET", f"{PATH}/%00"))[0] in (400, 404)


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background"])
async def test_without_a_memory_what_needs_it_is_refused(
    make_gateway: MakeGateway, tiny_model: Path, field: str
) -> None:
    params = {"model": str(tiny_model), "threads": 1, "ctxSize": 512}
    async with make_gateway({"m": {"params": params}}, llama_server="auto") as running:
        said = {"model": "m", "input": "hi", "max_output_tokens": 2, "store": True}
        status, _ = await running.json("POST", PATH, json=said)
        assert status == 200
        for text in ("hi", "hi " * 200_000):
            asked = {**said, "input": text, field: True if field == "background" else "resp_1"}
            status, refused = await running.json("POST", PATH, json=asked)
            assert (status, refused["error"]["param"]) == (400, field)
            assert "responses.store" in refused["error"]["message"]
        status, refused = await running.json("GET", f"{PATH}/resp_1")
        assert (status, refused["error"]["code"]) == (404, "response_not_found")
