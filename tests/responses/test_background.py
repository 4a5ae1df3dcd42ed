"""Responses that go on in the background: hang-ups, limits of keys, faults, too much."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.responses.asked import listed
from gateway.responses.rows import row_of
from gateway.responses.taken import take
from gateway.responses.work import Work, new_id
from gateway.tasks import spawn
from tests.harness import MakeGateway, Running, eventually
from tests.remote_server import Asked
from tests.responses.writer import KEPT, PATH, Writer, create, ended, id_in, models, written

BACKGROUND = {"model": "m", "input": "hi", "background": True}


def under_way(running: Running) -> int:
    kept = running.gateway.responses
    assert kept is not None
    return kept.under_way


async def key_with(running: Running, **limits: Any) -> tuple[str, str]:
    ring = running.gateway.ring
    assert ring is not None
    record, key = await ring.create("other", limits=limits or None)
    return record.id, key


@contextlib.contextmanager
def locked(running: Running) -> Iterator[None]:
    lock = sqlite3.connect(running.gateway.settings.data_dir / "gateway.db")
    lock.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        lock.rollback()
        lock.close()


async def test_locked_database_holds_nobody_up_and_hanging_up_loses_nothing(
    running: Running, writer: Writer
) -> None:
    _, key = await key_with(running, concurrency=1)
    with locked(running):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(0.3),
                running.request("POST", PATH, json=BACKGROUND, key=key),
            ):
                pytest.fail("it was answered before it was noted, or given up")
        await eventually(lambda: len(writer.asked) == 1)
        assert time.monotonic() - started < 8  # the lock itself would be waited for for ten
        status, _ = await running.json("POST", PATH, json=BACKGROUND, key=key)
        assert status == 429  # the work has its place until its end
        writer.say("one", ends=True)
        await eventually(lambda: running.gateway.scheduler.in_flight == 0)
    await eventually(lambda: under_way(running) == 0)
    writer.say("two", ends=True)
    await create(running, key=key)


async def test_key_of_one_request_at_once_may_read_the_stream_of_its_background(
    running: Running, writer: Writer
) -> None:
    _, key = await key_with(running, concurrency=1)
    writer.say("one")
    async with running.request("POST", PATH, json={**BACKGROUND, "stream": True}, key=key) as got:
        assert got.status == 200
        id = await id_in(got)
    path = f"{PATH}/{id}?stream=true&starting_after=0"  # its client is back
    async with running.request("GET", path, key=key) as got:
        assert got.status == 200
        writer.say("more", ends=True)
        assert b"response.completed" in await got.read()
    writer.say("two", ends=True)
    await create(running, key=key)


async def test_stream_in_the_background_that_cannot_begin_is_refused_as_any(
    running: Running, writer: Writer
) -> None:
    async def refuse(asked: Asked) -> None:
        body = b'{"error": {"message": "no", "code": 400}}'
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d"
        asked.writer.write(head % len(body) + b"\r\n\r\n" + body)

    writer.server.answers[PATH] = refuse
    status, said = await running.json("POST", PATH, json={**BACKGROUND, "stream": True})
    assert status >= 400
    assert said["error"]["message"]
    begun = await create(running, background=True)
    failed = await ended(running, begun["id"])
    assert failed["status"] == "failed"
    assert failed["error"]["message"]


async def test_header_that_says_nothing_leaves_nothing_behind(running: Running) -> None:
    body = {"model": "m", "input": "hi", "stream": True}
    headers = {"X-Stream-Resume": "perhaps"}
    status, said = await running.json("POST", PATH, json=body, headers=headers)
    assert (status, said["error"]["param"]) == (400, "X-Stream-Resume")
    assert under_way(running) == 0


async def test_key_that_is_revoked_ends_its_work_in_the_background(
    running: Running, writer: Writer
) -> None:
    id, key = await key_with(running)
    await create(running, key=key, background=True)
    await eventually(lambda: len(writer.asked) == 1)
    ring = running.gateway.ring
    assert ring is not None
    await ring.revoke(id)
    await eventually(lambda: running.gateway.scheduler.in_flight == 0)
    await eventually(lambda: under_way(running) == 0)
    file = running.gateway.settings.data_dir / "gateway.db"

    def left() -> int:
        with sqlite3.connect(file) as database:
            (count,) = database.execute("SELECT count(*) FROM responses").fetchone()
        return int(count)

    await eventually(lambda: left() == 0)


async def test_end_of_the_gateway_waits_for_work_in_the_background(
    make_gateway: MakeGateway, writer: Writer, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"responses": KEPT, "data_dir": str(tmp_path / "data")}
    async with make_gateway(models(writer), folder="before", **settings) as running:
        begun = await create(running, background=True)
        await eventually(lambda: len(writer.asked) == 1)
        ends = spawn(running.gateway.drain(asyncio.Event()), name="end")
        await running.gateway.lifecycle.stopping.wait()
        writer.say("one", ends=True)
        await ends
        key = running.key
    async with make_gateway(models(writer), folder="after", **settings) as running:
        running.key = key
        _, kept = await running.json("GET", f"{PATH}/{begun['id']}")
        assert (kept["status"], kept["output"][0]["content"][0]["text"]) == ("completed", "one")


async def test_only_the_gateway_that_works_on_it_can_cancel_it(running: Running) -> None:
    ring = running.gateway.ring
    assert ring is not None
    key_id = next(record.id for record in ring.records if record.name == "test")
    kept = running.gateway.responses
    assert kept is not None
    id = new_id()
    taken, items = take(b'{"input": "hi", "background": true}', 9, id)
    assert items is not None
    begun = row_of(Work(key_id, taken, items, id), "elsewhere")
    await kept.store.put_response(lambda: (begun, []))
    status, said = await running.json("POST", f"{PATH}/{begun.id}/cancel")
    assert (status, said["error"]["code"]) == (400, "response_elsewhere")
    said = {"model": "m", "input": "x", "previous_response_id": begun.id}
    status, said = await running.json("POST", PATH, json=said)
    assert (status, said["error"]["code"]) == (400, "response_not_finished")


async def test_many_may_go_on_with_one_response_at_once(running: Running, writer: Writer) -> None:
    writer.say("one", ends=True)
    first = await create(running, "first")
    going_on = [
        spawn(create(running, f"{n}", previous_response_id=first["id"]), name=f"create {n}")
        for n in range(4)
    ]
    await eventually(lambda: len(writer.asked) == 5)
    for _ in going_on:
        writer.say("more", ends=True)
        await asyncio.wait(going_on, return_when=asyncio.FIRST_COMPLETED)
        going_on = [task for task in going_on if not task.done()]
    begins = [{"role": "user", "content": "first"}, *first["output"]]
    assert all(sent["input"][:-1] == begins for sent in writer.asked[1:])
    assert sorted(sent["input"][-1]["content"] for sent in writer.asked[1:]) == list("0123")


async def test_cancel_that_comes_with_the_last_word_ends_well(
    running: Running, writer: Writer
) -> None:
    for stream in (False, True):
        body = {**BACKGROUND, "stream": stream}
        async with running.request("POST", PATH, json=body) as response:
            if stream:
                writer.say("one")
                id = await id_in(response)
            else:
                id = (await response.json())["id"]
            writer.say("two", ends=True)
            told = await asyncio.gather(
                *(running.json("POST", f"{PATH}/{id}/cancel") for _ in range(3)),
                running.json("DELETE", f"{PATH}/{id}") if stream else asyncio.sleep(0),
            )
        assert {status for status, _ in told[:3]} <= ({200, 404} if stream else {200})
        await eventually(lambda: running.gateway.scheduler.in_flight == 0)
        if not stream:
            assert (await ended(running, id))["status"] in ("cancelled", "completed")
        writer.be_silent()
    await eventually(lambda: under_way(running) == 0)


async def test_chain_that_is_longer_than_a_request_may_be_is_refused(
    make_gateway: MakeGateway, writer: Writer
) -> None:
    limits = {"max_body": 20_480, "request": {"values": 1024}}
    async with make_gateway(models(writer), responses=KEPT, limits=limits) as running:
        for text, status, code in (
            ("x" * 9000, 413, "conversation_too_long"),
            ([{"role": "user", "content": "x"}] * 120, 400, "too_many_values"),
        ):
            previous: dict[str, Any] = {}
            for _ in range(2):
                writer.say("one", ends=True)
                said: Any = text
                first = await create(running, said, **previous)
                previous = {"previous_response_id": first["id"]}
            for is_written in (False, True):
                if is_written:
                    await written(running, first["id"])
                body = {"model": "m", "input": text, **previous}
                got, refused = await running.json("POST", PATH, json=body)
                assert (got, refused["error"]["code"]) == (status, code)


async def test_what_is_too_much_goes_without_waiting_for_its_time(
    make_gateway: MakeGateway, writer: Writer
) -> None:
    kept = {"store": True, "max_size": 20_000}
    async with make_gateway(models(writer), responses=kept) as running:
        file = running.gateway.settings.data_dir / "gateway.db"

        def size() -> int:
            with sqlite3.connect(file) as database:
                (count, size) = database.execute(
                    "SELECT count(*), sum(bytes) FROM responses"
                ).fetchone()
            return int(size) if count else 0

        for n in range(12):
            writer.say("one", ends=True)
            await create(running, "".join(chr(33 + (i * i * (n + 7)) % 90) for i in range(9000)))
        await eventually(lambda: under_way(running) == 0 and 0 < size() <= 20_000)


@pytest.mark.parametrize("id", ["", "a\0b", "x" * 129, "../y", 3, None])
def test_odd_ids_of_items_are_replaced(id: Any) -> None:
    (item,) = listed([{"role": "user", "content": "x", "id": id}], "resp_1")
    assert item["id"].startswith("msg_")
    assert listed([{**item, "id": "mine_1"}], "resp_1")[0]["id"] == "mine_1"
