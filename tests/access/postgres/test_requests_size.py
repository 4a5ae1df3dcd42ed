"""How much the records of requests may take, of either kind of database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.access.past_requests import PastRequest, RequestFilter
from gateway.access.store import DELETED_AT_ONCE, Store
from gateway.access.stored_requests import MEASURED_AT_ONCE
from gateway.secret import Secret

COUNT = MEASURED_AT_ONCE + 2500
MIB = 2**20


def usual(seq: int, route: str = "/v1/chat/completions") -> tuple[Any, ...]:
    """What is kept of a usual request."""
    return PastRequest(
        seq=1_790_000_000_000_000 + seq * 1_000_003,
        id=f"req_{seq:016x}",
        key_id="k_0123abcd",
        model="Mistral-7b-Instruct-v0.3",
        personality="geography teacher",
        method="POST",
        route=route,
        streamed=True,
        status=200,
        code=None,
        client="192.168.178.21",
        seconds=12.345678,
        queue=0.001234,
        load=0.0,
        prefill=0.456789,
        generation=11.123456,
        prompt_tokens=1234,
        cached_tokens=1000,
        completion_tokens=567,
        tokens_per_second=45.678901,
        cached_from="slot",
        slot=3,
        task=123_456,
    )


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        where: Path | Secret = tmp_path / "gateway.db"
    else:
        where = Secret(request.getfixturevalue("url"))
    async with await Store.open(where) as store:
        await store.add_requests(usual(seq) for seq in range(COUNT))
        yield store


def taken(store: Store, folder: Path) -> int:
    """The bytes that the records take, as the database itself says."""
    if store.shared_at is not None:
        with psycopg.connect(store.shared_at.reveal(), autocommit=True) as connection:
            connection.execute("VACUUM FULL requests")
            row = connection.execute("SELECT pg_total_relation_size('requests')").fetchone()
    else:
        with closing(sqlite3.connect(folder / "gateway.db")) as connection:
            row = connection.execute(
                "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count,"
                " pragma_freelist_count, pragma_page_size"
            ).fetchone()
    assert row is not None
    return int(row[0])


async def numbers(store: Store) -> list[int]:
    return [one.seq for one in await store.requests_of(RequestFilter(limit=10 * COUNT))]


@pytest.mark.parametrize("size", [MIB, 2 * MIB])
async def test_records_take_the_bytes_that_they_may(
    store: Store, tmp_path: Path, size: int
) -> None:
    await store.prune_requests(0, 10 * COUNT, size)

    kept = await numbers(store)
    assert kept == [usual(seq)[0] for seq in reversed(range(COUNT - len(kept), COUNT))]
    assert COUNT - len(kept) > DELETED_AT_ONCE, "several transactions"
    assert 0.8 * size < taken(store, tmp_path) < 1.05 * size


async def test_nothing_goes_that_fits(store: Store) -> None:
    for size in (None, 1024 * MIB):
        await store.prune_requests(0, COUNT, size)
        assert len(await numbers(store)) == COUNT


async def test_long_texts_take_more(tmp_path: Path) -> None:
    async with await Store.open(tmp_path / "long.db") as store:
        await store.add_requests(usual(seq, route="/" + "\N{SNOWMAN}" * 199) for seq in range(100))
        await store.prune_requests(0, 1000, 40 * 2**10)
        long = len(await numbers(store))
        await store.clear_requests()
        await store.add_requests(usual(seq) for seq in range(1000))
        await store.prune_requests(0, 1000, 40 * 2**10)
        assert 2 * long < len(await numbers(store)) < 1000
