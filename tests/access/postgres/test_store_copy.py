"""Moving from a file of SQLite to PostgreSQL, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, LargeBinary, String, Table, select
from sqlalchemy.types import TypeDecorator

from gateway.access.database import Database
from gateway.access.past_requests import PastRequest
from gateway.access.schema import SCHEMA_VERSION, metadata, revision, versions
from gateway.access.store import DailyUsage, KeyRecord, Store
from gateway.access.store_copy import copy_store
from gateway.access.store_errors import StoreError
from gateway.cli import main
from gateway.secret import Secret
from tests.harness import FAKE, Served, fake_model, project
from tests.postgres import PASSWORD
from tests.serve.processes import STORY
from tests.test_demo import get

Serve = Callable[..., Served]
NOW = datetime(2026, 1, 31, 12, 0, 0, 123_456, UTC)
KEYS = [
    KeyRecord("k_1", "anna", 64 * "a", NOW, admin=True),
    KeyRecord(
        *("k_2", "bär \N{SNOWMAN}", 64 * "b", NOW, "for 'tests'"),
        expires=NOW,
        revoked=NOW,
        last_activity=NOW,
        models=("m", "n"),
        personalities=(),
        default_personality="p",
        limits={"rpm": 3},
        metrics=True,
        imported=True,
    ),
]
USAGE = [DailyUsage("k_1", "m", date(2026, 1, day), 1, 2**40, 3, 4) for day in range(1, 29)]
REQUEST = PastRequest._make(
    (
        *(1, "req_1", "k_1", "m", None, "POST", "/v1/chat/completions", True, 200, None, "::1"),
        *(1.5, 0.25, 0.0, None, 0.125, 2**40, 3, 4, 5.5, "slot", 1, 2**40),
    )
)
REQUESTS = [REQUEST._replace(seq=2**50 + number) for number in range(2500)]


async def keys_in(where: Path | Secret) -> list[KeyRecord]:
    async with await Store.open(where) as store:
        return await store.list_keys()


async def within(where: Path | Secret, work: Callable[[Connection], Any]) -> Any:
    """What ``work`` returns of a transaction."""
    database = Database(where)
    await database.open()
    try:
        return await database.write(work)
    finally:
        await database.close()


def everything(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    return {
        table.name: [
            tuple(row)
            for row in connection.execute(select(table).order_by(*table.primary_key.columns))
        ]
        for table in metadata.sorted_tables
    }


def some_value(column: Column[Any]) -> Any:
    if isinstance(column.type, TypeDecorator):  # aware times
        return NOW
    return {
        bool: True,
        bytes: b"\0\xff",
        date: NOW.date(),
        object: {"a": [None, "\N{SNOWMAN}"]},  # JSON
        float: 0.1,
        int: 2**30,
        str: "it's \N{SNOWMAN}",
    }[column.type.python_type]


def fill(connection: Connection) -> None:
    """Put a row into each table that has none, as those that come later haven't."""
    for table in metadata.sorted_tables:
        if connection.execute(select(table)).first() is None:
            row = {column.name: some_value(column) for column in table.c}
            connection.execute(table.insert().values(row))


@pytest.fixture
async def full(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.db"
    async with await Store.open(file) as store:
        await store.add_keys(KEYS)
        await store.add_usage(USAGE)
        await store.add_requests(map(tuple, REQUESTS))
    await within(file, fill)
    return file


async def test_everything_is_the_same_there_and_back(full: Path, tmp_path: Path, url: str) -> None:
    seen: list[tuple[str, int, int]] = []
    counts = copy_store(full, Secret(url), lambda *progress: seen.append(progress))
    assert {**counts, "keys": 2, "usage": 28, "requests": 2500} == counts
    assert min(counts.values()) >= 1
    assert len(counts) == len(metadata.tables)
    assert {("keys", 2, 2), ("requests", 1000, 2500), ("requests", 2500, 2500)} <= set(seen)
    before = await within(full, everything)
    assert len(before["requests"]) == 2500
    assert await within(Secret(url), everything) == before
    again = tmp_path / "again.db"
    assert copy_store(Secret(url), again, lambda *_: None) == counts
    assert await within(again, everything) == before


async def test_database_with_something_in_it_is_written_to_only_if_told(
    full: Path, url: str
) -> None:
    other = replace(KEYS[0], id="k_9", hash=64 * "9")
    async with await Store.open(Secret(url)) as store:
        await store.add_key(other)
    with pytest.raises(StoreError, match=r"not empty \(keys: 1\); --replace") as refused:
        copy_store(full, Secret(url), lambda *_: None)
    assert "s3cret" not in f"{refused.value} {refused.value.detail}"
    assert await keys_in(Secret(url)) == [other]
    copy_store(full, Secret(url), lambda *_: None, replace=True)
    assert await within(Secret(url), everything) == await within(full, everything)


async def test_copy_that_fails_in_the_middle_leaves_the_target_as_it_was(
    full: Path, url: str
) -> None:
    other = replace(KEYS[0], id="k_9", hash=64 * "9")
    async with await Store.open(Secret(url)) as store:
        await store.add_key(other)

    def fail(table: str, _done: int, _total: int) -> None:
        if table == "requests":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(full, Secret(url), fail, replace=True)
    assert await keys_in(Secret(url)) == [other]


async def test_row_that_the_target_refuses_is_told_in_words(full: Path, url: str) -> None:
    async with await Store.open(full) as store:
        await store.add_requests([tuple(REQUEST._replace(model="m\0"))])
    with pytest.raises(StoreError, match=r"the database cannot be used: .*NUL"):
        copy_store(full, Secret(url), lambda *_: None)
    assert await keys_in(Secret(url)) == []


async def test_database_in_use_is_not_touched(full: Path, url: str) -> None:
    async with await Store.open(Secret(url)) as store:
        assert await store.list_keys() == []
        with pytest.raises(StoreError, match="stop every gateway on it first"):
            copy_store(full, Secret(url), lambda *_: None)
        assert await store.list_keys() == []


@pytest.mark.parametrize("newer", ["source", "target"])
async def test_newer_schema_is_refused(full: Path, url: str, newer: str) -> None:
    ends: dict[str, Path | Secret] = {"source": full, "target": Secret(url)}
    later = versions.update().values(version_num=revision(SCHEMA_VERSION + 1))
    await within(ends[newer], lambda connection: connection.execute(later))
    with pytest.raises(StoreError, match="written by a newer version") as refused:
        copy_store(full, Secret(url), lambda *_: None)
    assert refused.value.code == "store_too_new"


@pytest.fixture
def later_table() -> Iterator[Table]:
    """A table that a later version of the schema has, whose rows PostgreSQL numbers."""
    table = Table(
        "later",
        metadata,
        Column("number", Integer, primary_key=True),
        Column("bytes", LargeBinary),
        Column("text", String, nullable=False),
    )
    yield table
    metadata.remove(table)


async def test_table_that_is_added_later_is_copied_too(
    later_table: Table, tmp_path: Path, url: str
) -> None:
    file = tmp_path / "later.db"
    rows = [{"number": number, "bytes": b"\0\xff", "text": "x"} for number in (3, 7)]
    await within(file, lambda connection: connection.execute(later_table.insert(), rows))
    assert copy_store(file, Secret(url), lambda *_: None)["later"] == 2
    new = later_table.insert().values(text="new")
    await within(Secret(url), lambda connection: connection.execute(new))
    found = await within(
        Secret(url), lambda connection: connection.execute(later_table.select()).fetchall()
    )
    assert found == [(3, b"\0\xff", "x"), (7, b"\0\xff", "x"), (8, None, "new")]


@pytest.mark.slow
def test_gateway_goes_on_in_the_other_database(
    serve: Serve,
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))

    def copy(*options: str) -> tuple[int, str, str]:
        with monkeypatch.context() as context:
            context.setenv("LLM_GATEWAY_STORE__URL", url)
            code = main(["store", "copy", "--config", str(config), *options])
        out, err = capsys.readouterr()
        assert "s3cret" not in out + err
        assert PASSWORD not in out + err
        return code, out, err

    served = serve("--config", str(config))
    key = served.key
    with served.client() as client:
        client.chat.completions.create(model="m", messages=STORY)
    code, out, err = copy()
    assert (code, out, "a gateway runs on" in err) == (1, "", True)
    assert served.stop() == 0
    code, out, err = copy()
    assert (code, "is left as it is" in err) == (0, True)
    assert "copied  1 row of keys\n" in out

    there = serve("--config", str(config), env={"LLM_GATEWAY_STORE__URL": url})
    _, told = get(there, "/admin/requests", key=key)
    assert len(told["ended"]) == 1
    assert there.stop() == 0
    assert "Admin key" not in "".join(there.out)
    code, out, err = copy("--back")
    assert (code, out, "is not empty" in err) == (1, "", True)
    assert copy("--back", "--replace")[0] == 0
    assert (tmp_path / "p/data/gateway.db.bak").stat().st_mode & 0o777 == 0o600
    assert [one.name for one in asyncio.run(keys_in(tmp_path / "p/data/gateway.db"))] == ["admin"]
