"""GET and DELETE /admin/requests: what runs, what ran, and ending what runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.access.past_requests import Wanted
from gateway.access.request_log import RECENT, Record, RequestLog
from gateway.access.schema import MIGRATIONS
from gateway.access.store import Store
from gateway.proxy.sse import Usage
from gateway.tasks import spawn
from tests import scripted
from tests.dialects import ROUTES
from tests.harness import MakeGateway, Running, fake_model, opened

NOON = 1_770_000_000.0
CHAT = "/v1/chat/completions"
DIALECTS = (CHAT, "/v1/messages", "/v1/responses", "/completion")
#: The model says letters for as long as its context lasts, which is longer than any test.
ENDLESS = {"grammar": "root ::= [a-z ]+", "ignore_eos": True}


async def look(running: Running, query: str = "") -> dict[str, Any]:
    status, seen = await running.json("GET", f"/admin/requests{query}")
    assert status == 200, seen
    return dict(seen)


async def once(running: Running, done: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """What is told as soon as ``done`` says so: it is counted behind the answer."""
    async with asyncio.timeout(20):
        while not done(seen := await look(running)):
            await asyncio.sleep(0.02)
    return seen


async def rest_of(answer: Any) -> str:
    """What comes until the end of a stream that breaks."""
    said = b""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(10):
            async for piece in answer.content.iter_any():
                said += piece
    return said.decode()


# --- what runs, and what ran -------------------------------------------------------------------


async def test_one_from_its_beginning_to_its_end(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with make_gateway({"m": fake_model(tmp_path, gate=gate, chunks=4)}) as running:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "private"}]}
        async with running.request("POST", CHAT, json=body) as response:
            await response.content.readany()
            (one,) = (await look(running))["under_way"]
            assert one["id"] == response.headers["X-Request-Id"]
            assert (one["stage"], one["streamed"], one["ended"]) == ("generating", True, None)
            assert one["completion_tokens"] == 1
            assert one["client"] == "127.0.0.1"
            with opened(gate):
                await response.read()
        seen = await once(running, lambda seen: seen["ended"])
        (ended,) = seen["ended"]
        assert seen["under_way"] == []
        assert (ended["id"], ended["started"][:16]) == (one["id"], one["started"][:16])
        assert (ended["name"], ended["model"], ended["route"]) == ("test", "m", CHAT)
        assert (ended["method"], ended["status"], ended["code"]) == ("POST", 200, None)
        assert (ended["client"], ended["streamed"]) == ("127.0.0.1", True)
        timings = ended["timings"]
        assert timings["load"] > 0  # it was loaded for this one
        assert sum(timings.values()) == pytest.approx(ended["seconds"], abs=0.01)
        assert "private" not in json.dumps(seen)
        assert ended.keys() == one.keys()


async def test_queued_and_loading(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    models = {
        "m": fake_model(tmp_path, gate=gate, chunks=2) | {"parallel": 1},
        "slow": fake_model(tmp_path, start_delay=30),
    }
    async with make_gateway(models) as running:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        tasks = []
        for number, model in enumerate(("m", "m", "m", "slow"), 1):
            tasks.append(
                spawn(running.json("POST", CHAT, json={**body, "model": model}), name="asks")
            )
            await once(running, lambda seen, n=number: len(seen["under_way"]) == n)
        seen = await once(
            running,
            lambda seen: (
                {one["stage"] for one in seen["under_way"]} == {"generating", "queued", "loading"}
            ),
        )
        first, second, third, slow = seen["under_way"]
        assert (first["stage"], first["position"]) == ("generating", None)
        assert [(one["stage"], one["position"]) for one in (second, third)] == [
            ("queued", 1),
            ("queued", 2),
        ]
        assert second["timings"]["prefill"] is None
        assert slow["stage"] == "loading"
        assert slow["timings"]["load"] > 0
        # One that is queued, and one whose model is loading, can be cancelled as well.
        for one in (third, slow):
            assert await cancelled(running, one["id"]) == 204
        for task in tasks[2:]:
            with contextlib.suppress(json.JSONDecodeError):
                status, said = await task
                assert (status, said["error"]["code"]) == (409, "cancelled")
        seen = await once(running, lambda seen: len(seen["ended"]) == 2)
        by_model = {one["model"]: one for one in seen["ended"]}
        assert by_model["slow"]["timings"]["load"] > 0
        assert by_model["slow"]["timings"]["generation"] is None
        assert by_model["m"]["timings"]["queue"] > 0
        with opened(gate):
            for task in tasks[:2]:
                with contextlib.suppress(json.JSONDecodeError):
                    await task


async def test_as_events(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        await running.chat("m")
        headers = {"Accept": "text/event-stream"}
        async with running.request("GET", "/admin/requests?every=0.2", headers=headers) as events:
            first = await event_of(events)
            assert [one["model"] for one in first["ended"]] == ["m"]
            await running.chat("m")
            async with asyncio.timeout(10):
                while not (later := await event_of(events))["ended"]:
                    pass
            (new,) = later["ended"]  # only what has come since
            assert new["id"] != first["ended"][0]["id"]


async def test_events_that_left_some_out_begin_anew(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        accounting = running.gateway.accounting
        accounting.add(*entry(0, at=accounting.wall()))
        query = "?every=0.2&follow=true&limit=20"
        async with running.request("GET", f"/admin/requests{query}") as events:
            assert [one["id"] for one in (await event_of(events))["ended"]] == ["req_0"]
            for number in range(1, RECENT + 2):  # one more than are in memory
                accounting.add(*entry(number, at=accounting.wall()))
            anew = await event_of(events)
            newest = [f"req_{number}" for number in range(RECENT + 1, RECENT - 19, -1)]
            assert [one["id"] for one in anew["ended"]] == newest
            assert anew["next"] is not None
            older = await look(running, f"?cursor={anew['next']}&limit=500")
            assert [one["id"] for one in older["ended"]][-1] == "req_0"
            accounting.add(*entry(1000, at=accounting.wall()))
            more = await event_of(events)
            assert [one["id"] for one in more["ended"]] == ["req_1000"]
            assert "next" not in more


async def event_of(events: Any) -> dict[str, Any]:
    while not (line := await events.content.readline()).startswith(b"data: "):
        assert line
    return dict(json.loads(line[6:]))


# --- cancelling ----------------------------------------------------------------------------------


async def cancelled(running: Running, request_id: str) -> int:
    async with running.request("DELETE", f"/admin/requests/{request_id}") as response:
        return int(response.status)


async def test_each_dialect_at_both_doors(make_gateway: MakeGateway, tiny_model: Path) -> None:
    """A real llama-server whose answers have no end; a query is for the other door."""
    params = {"model": str(tiny_model), "threads": 1, "ctxSize": 10 * 32768, "nPredict": 30000}
    model = {"params": params, "setParams": ENDLESS, "parallel": 10}
    async with make_gateway({"m": model}, llama_server="auto") as running:
        await running.gateway.scheduler.load("m")
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for path, query in itertools.product(DIALECTS, ("", "?x=1")):
                body = {"model": "m", **ROUTES[path], "stream": True}
                answer = await stack.enter_async_context(
                    running.request("POST", path + query, json=body)
                )
                await answer.content.readany()
                streams.append((path, answer))
            whole = [
                spawn(
                    running.json("POST", path + query, json={"model": "m", **ROUTES[path]}),
                    name="whole",
                )
                for path, query in ((DIALECTS[0], ""), (DIALECTS[1], "?x=1"))
            ]
            seen = await once(running, lambda seen: len(seen["under_way"]) == 10)
            await once(
                running,
                lambda seen: (
                    {one["stage"] for one in seen["under_way"]} == {"generating", "answering"}
                ),
            )
            readings = [spawn(rest_of(answer), name="reads") for _, answer in streams]
            for one in seen["under_way"]:
                assert await cancelled(running, one["id"]) == 204
            for (path, _), reading in zip(streams, readings, strict=True):
                assert "cancelled by an administrator" in await reading, path
            (chat, said), (messages, anthropic) = [await task for task in whole]
            assert (chat, messages) == (409, 409)
            assert said["error"]["code"] == "cancelled"
            assert anthropic["type"] == "error"
        scheduler = running.gateway.scheduler
        await scripted.until(scheduler, lambda: scheduler.in_flight == 0)
        async with asyncio.timeout(30):  # llama-server's own slots
            while any(
                slot["is_processing"] for slot in (await running.json("GET", "/slots?model=m"))[1]
            ):
                # It misses the client of an answer in one piece when it was idle for a second, and
                # a look is not idle.
                await asyncio.sleep(1.3)
        seen = await once(running, lambda seen: len(seen["ended"]) == 10)
        assert {(one["status"], one["code"]) for one in seen["ended"]} == {(409, "cancelled")}
        assert all(one["completion_tokens"] for one in seen["ended"] if one["streamed"])
        # It is not told as a failure of the backend.
        assert (await running.json("GET", "/chat/errors"))[1]["errors"] == []
        assert await cancelled(running, seen["ended"][0]["id"]) == 404


async def test_what_cannot_be_cancelled(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        await running.chat("m")
        (one,) = (await once(running, lambda seen: seen["ended"]))["ended"]
        status, said = await running.json("DELETE", f"/admin/requests/{one['id']}")
        assert (status, said["error"]["code"]) == (404, "request_not_found")
        assert "has ended already" in said["error"]["message"]
        status, said = await running.json("DELETE", "/admin/requests/nothing")
        assert status == 404
        assert "never was" in said["error"]["message"]
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("plain")
        for method, path in (("GET", ""), ("DELETE", f"/{one['id']}")):
            status, said = await running.json(method, f"/admin/requests{path}", key=key)
            assert (status, said["error"]["code"]) == (403, "admin_key_required")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=9xx", "status"),
        ("status=200,", "status"),
        ("slow=-1", "slow"),
        ("slow=nan", "slow"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        (f"limit={'0' * 17}500000", "limit"),
        ("cursor=x", "cursor"),
        (f"cursor={'0' * 5000}", "cursor"),
        (f"cursor={2**63}", "cursor"),
        ("cursor=1&follow=true", "cursor"),
        ("follow=true&every=0", "every"),
    ],
)
async def test_filters_that_are_none(running: Running, query: str, param: str) -> None:
    status, said = await running.json("GET", f"/admin/requests?{query}")
    assert (status, said["error"]["param"]) == (400, param)


async def test_a_thousand_statuses_are_few(running: Running) -> None:
    await running.chat("m")
    seen = await once(running, lambda seen: seen["ended"])
    again = await look(running, f"?status={','.join(['2xx', '204'] * 900)}")
    assert (again["ended"], again["problem"]) == (seen["ended"], None)


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        yield running


async def test_filters_and_pages_over_memory_and_store(running: Running) -> None:
    accounting = running.gateway.accounting
    at = accounting.wall() - 1000
    for number in range(RECENT + 100):
        accounting.add(*entry(number, at=at + number))
    ids: list[str] = []
    seen = await look(running, "?limit=120")
    ids += [one["id"] for one in seen["ended"]]
    while seen["next"] is not None:
        seen = await look(running, f"?limit=120&cursor={seen['next']}")
        ids += [one["id"] for one in seen["ended"]]
    assert ids == [f"req_{number}" for number in reversed(range(RECENT + 100))]
    for query, expected in (
        ("status=404", 30),
        ("status=4xx,500", 60),
        ("status=5xx&slow=2", 15),
        ("model=other", 100),
        ("key=k_1", 300),
        ("key=anonymous", 0),
    ):
        found: list[Any] = []
        cursor = ""
        while cursor is not None:
            seen = await look(running, f"?{query}&limit=40{cursor}")
            found += seen["ended"]
            cursor = f"&cursor={seen['next']}" if seen["next"] else None
        assert len(found) == expected, query
    assert seen["lost"] == 0


def entry(number: int, *, at: float = NOON, seconds: float | None = None, **more: Any) -> Record:
    return Record(
        at,
        "k_1",
        "other" if number % 3 == 0 else "m",
        None,
        {0: 404, 1: 500}.get(number % 10, 200),
        Usage(10, 5, 3, 20.0),
        2.5 if number % 20 == 1 else 1.0 if seconds is None else seconds,
        "/v1/chat/completions?x=1",
        f"req_{number}",
        sent=True,
        **more,
    )


# --- timings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "timings"),
    [
        # In one piece, and it told how fast it was: five tokens at 20 a second.
        (entry(2), (0, 0, 0.75, 0.25)),
        # It waited half a second, for 0.3 of them its model was loading.
        (entry(2, waited=0.5, loading=0.3), (0.2, 0.3, 0.25, 0.25)),
        (entry(2, streamed=True, waited=0.5, began=0.6), (0.5, 0, 0.1, 0.4)),
        (entry(2, streamed=True), (0, 0, 1, 0)),  # hung up on before anything came
        (entry(2)._replace(usage=Usage(10, 5)), (0, 0, None, 1)),  # nobody said
        (entry(2)._replace(sent=False), (1, 0, None, None)),
        (entry(2, waited=1.0, loading=1.0)._replace(sent=False), (0, 1, None, None)),
    ],
)
def test_timings(record: Record, timings: tuple[float | None, ...]) -> None:
    kept = record.kept()
    assert (kept.queue, kept.load, kept.prefill, kept.generation) == pytest.approx(timings)


# --- the store -----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


async def every_one(store: Store) -> list[str]:
    return [one.id for one in await store.requests_of(Wanted(limit=100_000))]


async def test_what_is_written_is_read_as_it_was(file: Path) -> None:
    async with await Store.open(file) as store:
        log = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        log.open(store)
        log.add(entry(2, streamed=True, began=0.5, client="192.0.2.7", code="x", waited=0.1))
        (inside,) = log.since(0) or ()
        await log.close()
        assert await store.requests_of(Wanted(limit=10)) == [inside]


async def test_the_newest_come_first_after_a_start_in_the_past(file: Path) -> None:
    async with await Store.open(file) as store:
        before = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        before.open(store)
        before.add(entry(1, at=NOON))
        await before.close()
        log = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        log.open(store)
        log.add(entry(2, at=NOON - 86400))  # the machine has no clock of its own,
        log.add(entry(3, at=NOON + 60))  # and has asked for the time meanwhile
        page = await log.page(Wanted(limit=10))
        assert [one.id for one in page.requests] == ["req_3", "req_1", "req_2"]
        await log.close()


async def test_a_locked_store_loses_records_and_says_so_once(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("gateway.access.request_log._MOST_UNWRITTEN", 10)
    async with await Store.open(file) as store:
        log = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        log.open(store)
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(30):
                log.add(entry(number, at=NOON + number))
            await log.write()
            log.add(entry(30, at=NOON + 30))
            await log.write()
            assert log.lost == 21
            page = await log.page(Wanted(limit=5))
            assert [one.id for one in page.requests] == [f"req_{n}" for n in range(30, 25, -1)]
            assert page.problem is not None
            assert "requests cannot be recorded" in page.problem
            other.execute("ROLLBACK")
        await log.write()
        assert await every_one(store) == [f"req_{number}" for number in range(30, 20, -1)]
        assert log.problem is None
        await log.close()
    warnings = [one for one in caplog.messages if "cannot be recorded" in one]
    assert len(warnings) == 1


async def test_what_another_program_locks_is_told_from_memory(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never lets go: whoever would wait for it does until the test is ended."""
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        monkeypatch.setattr("gateway.access.database.BUSY_TIMEOUT", 3600.0)
        accounting, file = running.gateway.accounting, running.gateway.settings.database
        at = accounting.wall() - 1000
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(RECENT + 100):
                accounting.add(*entry(number, at=at + number))
            assert (await running.chat("m"))[0] == 200
            await once(running, lambda seen: len(seen["ended"]) == 50)
            seen = await look(running, f"?limit={RECENT + 200}")
            numbers = reversed(range(RECENT + 100))
            assert [one["id"] for one in seen["ended"]][1:] == [f"req_{n}" for n in numbers]
            for path in ("/admin/usage", "/key/usage"):
                async with running.request("GET", path) as response:
                    said = await response.json()
                    assert (response.status, said["error"]["code"]) == (503, "store_busy")
                    assert int(response.headers["Retry-After"]) > 0
                    assert "another program" in said["error"]["message"]
            assert (await running.json("GET", "/admin/keys"))[0] == 200
            other.execute("ROLLBACK")
        status, told = await running.json("GET", "/admin/usage")
        assert status == 200
        assert sum(one["requests"] for one in told["usage"]) == RECENT + 101


async def test_what_cannot_be_read_now_is_read_later(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a file system where SQLite's journal cannot be shared: a writer keeps readers out.
    monkeypatch.setattr("gateway.access.database._on_connect", lambda connection, record: None)
    monkeypatch.setattr("gateway.access.database.READ_TIMEOUT", 0.1)
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        accounting, file = running.gateway.accounting, running.gateway.settings.database
        for number in range(RECENT + 10):
            accounting.add(*entry(number, at=accounting.wall()))
        await accounting.log.write()
        query = f"limit={RECENT + 50}"
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            seen = await look(running, f"?{query}")
            assert len(seen["ended"]) == RECENT
            assert "older requests cannot be read now" in seen["problem"]
            path = f"/admin/requests?every=0.2&follow=true&{query}"
            async with running.request("GET", path) as events:
                first = await event_of(events)
                assert (len(first["ended"]), first["problem"]) == (RECENT, seen["problem"])
                other.execute("ROLLBACK")
                then = await event_of(events)
        assert (len(then["ended"]), then["problem"]) == (RECENT + 10, None)
        rest = await look(running, f"?cursor={seen['next']}")
        assert [one["id"] for one in rest["ended"]] == [f"req_{n}" for n in reversed(range(10))]


async def test_the_old_and_the_many_go(file: Path) -> None:
    async with await Store.open(file) as store:
        now = NOON
        log = RequestLog(keep=100, most=3, write_every=3600, wall=lambda: now)
        log.open(store)
        for number in range(5):
            log.add(entry(number, at=NOON - number))
        await log.write(prunes=True)
        assert await every_one(store) == ["req_0", "req_1", "req_2"]
        now += 4000
        log.add(entry(9, at=now))
        await log.write(prunes=True)
        assert await every_one(store) == ["req_9"]
        await log.close()


async def test_switched_off_nothing_is_written_and_what_was_goes(file: Path) -> None:
    async with await Store.open(file) as store:
        log = RequestLog(keep=100, write_every=3600, wall=lambda: NOON)
        log.open(store)
        log.add(entry(1))
        await log.close()
        assert await every_one(store) == ["req_1"]
        off = RequestLog(keep=None, write_every=3600, wall=lambda: NOON)
        off.open(store)
        off.add(entry(2))
        async with asyncio.timeout(10):
            while await every_one(store):
                await asyncio.sleep(0.01)
        page = await off.page(Wanted(limit=10))
        assert [one.id for one in page.requests] == ["req_2"]
        await off.close()
        assert await every_one(store) == []


async def test_the_same_moment_twice_is_two_requests(file: Path) -> None:
    async with await Store.open(file) as store:
        log = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        log.open(store)
        for number in range(4):
            log.add(entry(number, at=NOON))
        log.add(entry(4, at=NOON - 3600))  # the clock was put back
        await log.close()
        assert await every_one(store) == ["req_3", "req_2", "req_1", "req_0", "req_4"]


async def test_a_store_of_before_is_brought_up_to_date(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as old:
        for step in MIGRATIONS[0]:
            old.execute(step)
        old.execute("INSERT INTO usage VALUES ('k_1', 'm', '2026-03-01', 1, 10, 5)")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    async with await Store.open(file) as store:
        assert await every_one(store) == []
        assert [used.requests for used in await store.usage_of()] == [1]


async def test_after_a_restart(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {"m": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        await running.chat("m")
        await once(running, lambda seen: seen["ended"])
        data_dir = running.gateway.settings.data_dir
    async with await Store.open(data_dir / "gateway.db") as store:
        (kept,) = await store.requests_of(Wanted(limit=10))
        assert (kept.model, kept.route, kept.status) == ("m", CHAT, 200)
