"""Usage: one record for each request, written behind them, never twice and never lost."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable
from datetime import date
from pathlib import Path

import pytest

from gateway.access.accounting import Accounting
from gateway.access.rate_limits import DAY, KeyLimits
from gateway.access.request_log import RECENT, Record
from gateway.access.store import DailyUsage as Stored
from gateway.access.store import Store
from gateway.errors import RateLimited
from gateway.proxy.sse import Usage
from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, fake_model

MONDAY = date(2026, 3, 2)
NOON = (MONDAY.toordinal() - date(1970, 1, 1).toordinal() + 0.5) * DAY
TUESDAY = date(2026, 3, 3)


class Watched(Store):
    """The store, a signal after each try to write usage, and a gate in front of it."""

    tries: asyncio.Queue[int]
    gate: asyncio.Event

    async def add_usage(self, records: Iterable[Stored]) -> None:
        records = list(records)
        await self.gate.wait()
        try:
            await super().add_usage(records)
        finally:
            self.tries.put_nowait(len(records))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[Watched]:
    store = await Watched.open(file)
    store.tries, store.gate = asyncio.Queue(), asyncio.Event()
    store.gate.set()
    async with store:
        yield store


class Today:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def today() -> Today:
    return Today()


def record(
    key_id: str = "k_1", model: str = "m", *, at: float = NOON, tokens: tuple[int, int] = (10, 5)
) -> Record:
    return Record(at, key_id, model, None, 200, Usage(*tokens), 0.5, "/v1/chat/completions")


async def opened(store: Store, today: Today, *, write_every: float = 0) -> Accounting:
    accounting = Accounting(write_every=write_every, wall=today)
    await accounting.open(store)
    return accounting


async def test_it_is_written_in_one_batch_behind_the_requests(store: Watched, today: Today) -> None:
    accounting = await opened(store, today)
    for _ in range(100):
        accounting.add(*record())
    accounting.add(*record("k_2", "other"))
    accounting.add(*record("anonymous"))
    assert await store.usage_of() == []  # `add` itself writes nothing
    assert accounting.tokens_today("k_1") == 1500
    assert await store.tries.get() == 3
    assert await store.usage_of() == [
        Stored("anonymous", "m", MONDAY, 1, 10, 5),
        Stored("k_1", "m", MONDAY, 100, 1000, 500),
        Stored("k_2", "other", MONDAY, 1, 10, 5),
    ]
    accounting.add(*record())
    assert await store.tries.get() == 1
    assert (await store.usage_of("k_1"))[0].requests == 101
    await accounting.close()
    assert store.tries.empty()  # nothing was left


async def test_closing_writes_what_is_left(store: Watched, today: Today) -> None:
    accounting = await opened(store, today, write_every=3600)
    accounting.add(*record())
    await accounting.close()
    assert await store.usage_of() == [Stored("k_1", "m", MONDAY, 1, 10, 5)]


async def test_what_comes_before_the_store_is_open_counts(store: Watched, today: Today) -> None:
    accounting = Accounting(write_every=3600, wall=today)
    accounting.add(*record())
    await accounting.close()  # there was never a store
    await accounting.open(store)
    accounting.add(*record())
    assert accounting.tokens_today("k_1") == 30
    assert await accounting.usage(days=1) == [Stored("k_1", "m", MONDAY, 2, 20, 10)]
    await accounting.close()


async def test_tokens_of_the_day_survive_a_restart(store: Watched, today: Today) -> None:
    before = await opened(store, today, write_every=3600)
    before.add(*record(tokens=(400, 100)))
    before.add(*record(at=NOON - DAY))  # yesterday
    before.add(*record(model="other", tokens=(300, 200)))
    await before.close()
    after = await opened(store, today, write_every=3600)
    assert after.tokens_today("k_1") == 1000
    with pytest.raises(RateLimited, match="1000 tokens per day"):
        after.limiter.admit("k_1", KeyLimits(tpd=1000))
    after.limiter.admit("k_1", KeyLimits(tpd=1001))
    await after.close()


async def test_a_new_day_begins_at_midnight(store: Watched, today: Today) -> None:
    accounting = await opened(store, today, write_every=3600)
    accounting.add(*record())
    today.now += DAY / 2 - 1
    assert accounting.tokens_today("k_1") == 15
    today.now += 1
    assert accounting.tokens_today("k_1") == 0
    accounting.add(*record("k_2", at=today.now))
    assert accounting.tokens_today("k_1") == 0
    assert accounting.tokens_today("k_2") == 15
    both = [
        Stored("k_1", "m", MONDAY, 1, 10, 5),
        Stored("k_2", "m", TUESDAY, 1, 10, 5),
    ]
    assert await accounting.usage(days=2) == both
    assert await accounting.usage(days=1) == both[1:]
    await accounting.close()


async def test_a_failing_database_loses_nothing_and_is_logged_once(
    store: Watched, today: Today, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway")
    accounting = await opened(store, today)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(
        "CREATE TRIGGER fire BEFORE INSERT ON usage "
        "BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END"
    )
    accounting.add(*record())
    await store.tries.get()
    accounting.add(*record())
    accounting.add(*record("k_2"))
    while await store.tries.get() != 2:
        pass  # it's tried again and again, the new ones join
    connection.execute("DROP TRIGGER fire")
    connection.close()
    while len(await store.usage_of()) < 2:
        await store.tries.get()
    await accounting.close()
    assert [(used.key_id, used.requests) for used in await store.usage_of()] == [
        ("k_1", 2),
        ("k_2", 1),
    ]
    assert [entry.getMessage().partition(",")[0] for entry in caplog.records] == [
        "usage of keys cannot be written",
        "usage of keys is written again",
    ]
    assert "the disk is on fire" in caplog.records[0].getMessage()


async def test_a_reader_who_goes_away_cuts_no_write_off(store: Watched, today: Today) -> None:
    accounting = await opened(store, today, write_every=3600)
    store.gate.clear()
    accounting.add(*record())
    reader = spawn(accounting.usage(days=1), name="reader")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cancel_and_wait(reader)
    accounting.add(*record())
    closing = spawn(accounting.close(), name="closing")
    store.gate.set()
    await closing
    assert await store.usage_of() == [Stored("k_1", "m", MONDAY, 2, 20, 10)]


def test_recent_records_are_bounded_and_adding_is_cheap() -> None:
    accounting = Accounting()
    start = time.perf_counter()
    for _ in range(5 * RECENT):
        accounting.add(*record())
    assert (time.perf_counter() - start) / (5 * RECENT) < 100e-6  # measured: 2 µs
    assert len(accounting.recent) == RECENT


# --- through HTTP --------------------------------------------------------------------------


async def test_every_end_of_a_request_is_one_record(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {
        "m": fake_model(tmp_path, personalities={"pirate": "Arr."}),
        "dying": fake_model(tmp_path, chunks=9, die_after=3),
        "bad": fake_model(tmp_path, garbage=1),
    }
    async with make_gateway(models) as running:
        await running.chat("m:pirate")
        await running.chat("m", personality="none")
        await running.chat("bad")
        body = {"model": "dying", "messages": [{}], "stream": True}
        with pytest.raises(Exception, match="payload"):
            async with running.request("POST", "/v1/chat/completions", json=body) as response:
                await response.read()
        await running.chat("no such model")  # never came to a model
        recent = running.gateway.accounting.recent
        assert [(r.model, r.personality, r.status) for r in recent] == [
            ("m", "pirate", 200),
            ("m", None, 200),
            ("bad", None, 502),
            ("dying", None, 502),
        ]
        assert [tuple(r.usage[:2]) for r in recent] == [(3, 2), (3, 2), (0, 0), (0, 3)]
        assert all(0 < r.seconds < 60 for r in recent)
        ring = running.gateway.ring
        assert ring is not None
        assert {r.key_id for r in recent} == {k.id for k in ring.records if k.name == "test"}
        database = running.gateway.settings.data_dir / "gateway.db"
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT model, requests, prompt_tokens FROM usage ORDER BY model")
    assert rows.fetchall() == [("bad", 1, 0), ("dying", 1, 0), ("m", 2, 6)]
    connection.close()


async def test_without_keys_usage_is_counted_under_no_key(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}, auth={"enabled": False}) as running:
        running.key = "whatever"
        assert (await running.chat("m"))[0] == 200
        (used,) = await running.gateway.accounting.usage(days=2)
        assert (used.key_id, used.requests, used.completion_tokens) == ("anonymous", 1, 2)
