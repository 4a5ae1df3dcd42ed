"""The store in a PostgreSQL database: it keeps what a file keeps, and tells what it can't."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from gateway.access.database import Database
from gateway.access.migrations import upgrade
from gateway.access.past_requests import PastRequest, RequestFilter
from gateway.access.schema import SCHEMA_VERSION, metadata, revision, versions
from gateway.access.store import (
    DailyUsage,
    KeyRecord,
    Store,
    StoreBusy,
    StoreError,
    StoreUnreachable,
)
from gateway.secret import Secret
from tests.postgres import PASSWORD, PostgresServer

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = date(2026, 3, 1)


@pytest.fixture(autouse=True)
def elsewhere() -> Iterator[None]:
    """Let this machine be in another time zone than the server is."""
    before = os.environ.get("PGTZ")
    os.environ["PGTZ"] = "Asia/Kathmandu"
    yield
    os.environ.pop("PGTZ")
    if before is not None:
        os.environ["PGTZ"] = before


def key(number: int = 1, **more: Any) -> KeyRecord:
    return KeyRecord(f"k_{number:08d}", f"client {number}", f"{number:064x}", NOON, **more)


def ran(seq: int, name: str) -> tuple[Any, ...]:
    """The fields of a request that ended."""
    # fmt: off
    return (seq, name, "k_1", "m", None, "POST", "/v1/x", True, 200, None, "::1", 2.5, 0.5, 0.0,
            0.5, 1.5, 10, 4, 2**40, 3.5, "disk", 1, 2**40)
    # fmt: on


async def test_everything_comes_back_as_it_went_in(url: str) -> None:
    full = key(
        description="a phone, été 📱",
        admin=True,
        expires=NOON.astimezone(timezone(timedelta(hours=-7))) + timedelta(days=30),
        revoked=NOON,
        models=("a", "b"),
        personalities=(),
        limits={"rpm": 60},
    )
    async with await Store.open(Secret(url)) as store:
        await store.add_keys([full, key(2)])
        await store.touch_keys({full.id: NOON, "k_gone": NOON})
        await store.touch_keys({full.id: NOON - timedelta(hours=1)})
        for _ in range(2):
            await store.add_usage([DailyUsage("k_1", "m", DAY, 1, 10, 2**40)])
        await store.remember_memory("f", 1)
        await store.remember_memory("f", 2**34)
    async with await Store.open(Secret(url)) as store:
        first, second = await store.list_keys()
        assert first == KeyRecord(**{**_fields(full), "last_activity": NOON})
        assert (first.expires.tzinfo, first.created.tzinfo) == (UTC, UTC)
        assert second == key(2)
        changed = await store.update_key(full.id, models=None, limits={"rpm": 1})
        assert (changed.models, changed.limits) == (None, {"rpm": 1})
        assert await store.usage_of(since=DAY) == [DailyUsage("k_1", "m", DAY, 2, 20, 2**41)]
        assert await store.known_memory() == {"f": 2**34}


def _fields(record: KeyRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


async def test_errors_hold_neither_hashes_nor_statements(url: str) -> None:
    async with await Store.open(Secret(url)) as store:
        await store.add_key(key(1))
        with pytest.raises(StoreError, match="duplicate key") as caught:
            await store.add_keys([key(2), key(3, description="twice"), key(1)])
        assert await store.list_keys() == [key(1)]  # all or nothing
        assert key(1).hash not in str(caught.value)
        assert "INSERT" not in str(caught.value)


async def test_requests_are_kept_once_and_the_oldest_go(url: str) -> None:
    rows = [ran(seq, f"req_{seq}") for seq in range(1, 11)]
    async with await Store.open(Secret(url)) as store:
        await store.add_requests(rows)
        await store.add_requests(rows)  # as after a commit whose answer was lost
        found = await store.requests_of(RequestFilter(limit=100, statuses=((200, 299),)))
        assert found == [PastRequest(*row) for row in reversed(rows)]
        await store.add_requests([ran(11, "req_11")])
        await store.prune_requests(since=5, most=100, size=None)
        assert [one.seq for one in await store.requests_of(RequestFilter(limit=100))] == [
            *range(11, 4, -1)
        ]
        await store.prune_requests(since=0, most=3, size=None)
        assert [one.seq for one in await store.requests_of(RequestFilter(limit=100))] == [11, 10, 9]
        await store.clear_requests()
        assert await store.requests_of(RequestFilter(limit=100)) == []


async def test_two_gateways_requests_of_one_microsecond_are_both_kept(url: str) -> None:
    async with await Store.open(Secret(url)) as one, await Store.open(Secret(url)) as other:
        await one.add_requests([ran(7, "a"), ran(8, "b"), ran(20, "c")])
        await other.add_requests([ran(7, "d"), ran(8, "e"), ran(21, "f")])
        found = await one.requests_of(RequestFilter(limit=100))
    assert sorted(request.id for request in found) == ["a", "b", "c", "d", "e", "f"]


async def test_migrations_make_the_tables_that_the_code_describes(url: str) -> None:
    def from_the_first(connection: Connection) -> list[Any]:
        metadata.drop_all(connection)
        versions.drop(connection)
        upgrade(connection, 0)
        return differences(connection)

    def differences(connection: Connection) -> list[Any]:
        return [*compare_metadata(MigrationContext.configure(connection), metadata)]

    database = Database(Secret(url))
    try:
        await database.open()
        assert await database.read(differences) == []
        assert await database.write(from_the_first) == []
    finally:
        await database.close()
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert found == [(revision(SCHEMA_VERSION),)]


async def test_gateways_make_the_tables_at_once(url: str) -> None:
    stores = await asyncio.gather(*(Store.open(Secret(url)) for _ in range(4)))
    assert [await store.list_keys() for store in stores] == [[]] * 4
    await asyncio.gather(*(store.close() for store in stores))


async def test_database_of_a_newer_program_is_refused_and_left_alone(url: str) -> None:
    async with await Store.open(Secret(url)):
        pass
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(StoreError, match=r"newer version .*schema is 999,") as caught:
        await Store.open(Secret(url))
    assert caught.value.code == "store_too_new"


async def test_what_cannot_be_reached_is_told_without_its_password(
    running_server: PostgresServer, url: str
) -> None:
    wrong = {
        running_server.url("there_is_none"): 'database "there_is_none" does not exist',
        running_server.url("postgres", password="hunter2"): "password authentication failed",
        url.replace(str(running_server.port), "1"): "refused",
    }
    for address, reason in wrong.items():
        with pytest.raises(StoreUnreachable, match=reason) as caught:
            await Store.open(Secret(address))
        assert caught.value.status == 503
        assert "cannot be reached" in caught.value.message
        for told in (str(caught.value), caught.value.message, repr(caught.value)):
            assert not any(secret in told for secret in (PASSWORD, "s3cret", "hunter2"))
    with pytest.raises(StoreError, match=r"store\.url is no address") as unreadable:
        await Store.open(Secret("postgresql://u:hunter%2@h/d"))
    assert "hunter" not in repr(unreadable.value) + str(unreadable.value.__cause__)


async def test_lock_that_is_not_got_in_time_is_a_503(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await Store.open(Secret(url)) as store:
        monkeypatch.setattr("gateway.access.database.BUSY_TIMEOUT", 0.1)
        with contextlib.closing(psycopg.connect(url)) as other:
            other.execute("LOCK TABLE keys")
            with pytest.raises(StoreBusy, match="kept busy"):
                await store.add_key(key())
        monkeypatch.undo()
        await store.add_key(key())
        assert await store.list_keys() == [key()]


async def test_store_works_again_once_the_server_does(server: PostgresServer, url: str) -> None:
    async with await Store.open(Secret(url)) as store:
        await store.add_key(key(1))
        server.stop()
        for asked in (store.list_keys(), store.add_key(key(2))):
            with pytest.raises(StoreUnreachable):
                await asked
        server.start()
        await store.add_key(key(2))
        assert await store.list_keys() == [key(1), key(2)]
