"""What ran, as the store keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from gateway.access.past_requests import CachedFrom, RequestFilter
from gateway.access.request_log import RECENT, RequestLog
from gateway.access.store import Store
from tests.api.request_log.records import CHAT, NOON, entry, event_of, look, once
from tests.harness import MakeGateway, fake_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


async def every_one(store: Store) -> list[str]:
    return [one.id for one in await store.requests_of(RequestFilter(limit=100_000))]


async def test_what_is_written_is_read_as_it_was(file: Path) -> None:
    async with await Store.open(file) as store:
        log = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        log.open(store)
        log.add(entry(2, streamed=True, began=0.5, client="192.0.2.7", code="x", waited=0.1))
        (inside,) = log.since(0)
        await log.close()
        assert await store.requests_of(RequestFilter(limit=10)) == [inside]


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
        page = await log.page(RequestFilter(limit=10))
        assert [one.id for one in page.requests] == ["req_3", "req_1", "req_2"]
        await log.close()


async def test_a_locked_store_loses_records_and_says_so_once(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("gateway.access.request_log.MOST_UNWRITTEN", 10)
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
            page = await log.page(RequestFilter(limit=5))
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
    monkeypatch.setattr("gateway.access.sqlite_file.on_connect", lambda connection, record: None)
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
        page = await off.page(RequestFilter(limit=10))
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


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ({"disk"}, ["req_1"]),
        ({None}, ["req_3"]),
        ({"slot", None}, ["req_3", "req_2"]),
        ({"slot", "disk", None}, ["req_3", "req_2", "req_1"]),
    ],
)
async def test_requests_are_chosen_by_where_their_tokens_were(
    file: Path, places: set[CachedFrom | None], found: list[str]
) -> None:
    wanted = RequestFilter(limit=10, cached_from=frozenset(places))
    async with await Store.open(file) as store:
        log = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        log.open(store)
        for number, place in enumerate(("disk", "slot", None), 1):
            log.add(entry(number, at=NOON + number, cached_from=place))
        assert [one.id for one in (await log.page(wanted)).requests] == found
        await log.close()
        assert [one.id for one in await store.requests_of(wanted)] == found


async def test_what_ran_is_known_after_a_restart(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {"m": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        await running.chat("m")
        await once(running, lambda seen: seen["ended"])
        data_dir = running.gateway.settings.data_dir
    async with await Store.open(data_dir / "gateway.db") as store:
        (kept,) = await store.requests_of(RequestFilter(limit=10))
        assert (kept.model, kept.route, kept.status) == ("m", CHAT, 200)
