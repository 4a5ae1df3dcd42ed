"""The database on real SQLite files: what is kept, how safely, and what is refused."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway.access.database import Database
from gateway.access.store import DailyUsage, KeyRecord, Store, StoreBusy, StoreError
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(number: int = 1, **more: object) -> KeyRecord:
    values: dict[str, object] = {
        "id": f"k_{number:08d}",
        "name": f"client {number}",
        "hash": f"{number:064x}",
        "created": NOON + timedelta(minutes=number),
    }
    return KeyRecord(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


async def test_a_key_comes_back_as_it_went_in(file: Path) -> None:
    full = record(
        description="a phone, été 📱",
        admin=True,
        expires=NOON + timedelta(days=30),
        revoked=NOON,
        last_activity=NOON,
        models=("a", "b"),
        personalities=(),
        default_personality="geography teacher",
        limits={"rpm": 60, "tpd": 100_000},
        imported=True,
    )
    async with await Store.open(file) as store:
        await store.add_key(full)
        await store.add_key(record(2))
    async with await Store.open(file) as store:
        assert await store.list_keys() == [full, record(2)]


async def test_times_of_any_zone_are_kept_as_the_same_moment(file: Path) -> None:
    there = datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    async with await Store.open(file) as store:
        await store.add_key(record(created=there))
        (found,) = await store.list_keys()
        assert found.created == NOON
        assert found.created.tzinfo is UTC
        with pytest.raises(StoreError, match="without a zone"):
            await store.add_key(record(2, created=there.replace(tzinfo=None)))


async def test_add_keys_is_all_or_nothing(file: Path) -> None:
    async with await Store.open(file) as store:
        await store.add_key(record(1))
        with pytest.raises(StoreError) as caught:
            await store.add_keys([record(2), record(3, hash=record(1).hash)])
        assert await store.list_keys() == [record(1)]
    # Neither the hash nor the statement is told.
    assert record(1).hash not in str(caught.value)
    assert "INSERT" not in str(caught.value)


async def test_updated_key_keeps_its_other_fields(file: Path, subtests: pytest.Subtests) -> None:
    async with await Store.open(file) as store:
        await store.add_keys([record(1, models=("a",)), record(2)])
        changed = await store.update_key(
            record(1).id, revoked=NOON, models=None, limits={"rpm": 1}, personalities=("p",)
        )
        assert changed == record(1, revoked=NOON, limits={"rpm": 1}, personalities=("p",))
        assert await store.list_keys() == [changed, record(2)]
        with pytest.raises(StoreError, match="no key 'k_none'") as caught:
            await store.update_key("k_none", admin=True)
        assert caught.value.code == "key_not_found"
        for wrong in ({"hash": "0" * 64}, {"nmae": "x"}, {}):
            with subtests.test(f"{wrong!r:.80}"), pytest.raises(ValueError, match="cannot change"):
                await store.update_key(record(1).id, **wrong)


async def test_touching_keys_only_ever_moves_time_forward(file: Path) -> None:
    later = NOON + timedelta(hours=1)
    async with await Store.open(file) as store:
        await store.add_keys([record(1), record(2, last_activity=later), record(3)])
        await store.touch_keys({})
        await store.touch_keys({record(1).id: NOON, record(2).id: NOON, "k_gone": NOON})
        seen = [key.last_activity for key in await store.list_keys()]
    assert seen == [NOON, later, None]


async def test_usage_adds_up_by_key_model_and_day(file: Path) -> None:
    first, second = date(2026, 3, 1), date(2026, 3, 2)
    async with await Store.open(file) as store:
        await store.add_usage([])
        await store.add_usage(
            [
                DailyUsage("k_1", "m", first, 1, 10, 100),
                DailyUsage("k_1", "m", first, 1, 1, 1),
                DailyUsage("k_1", "m", second, 1, 5, 5),
                DailyUsage("anonymous", "m", second, 2),
            ]
        )
        await store.add_usage([DailyUsage("k_1", "m", first, 1, 0, 2**40)])
        assert await store.usage_of("k_1") == [
            DailyUsage("k_1", "m", first, 3, 11, 101 + 2**40),
            DailyUsage("k_1", "m", second, 1, 5, 5),
        ]
        assert await store.usage_of(since=second) == [
            DailyUsage("anonymous", "m", second, 2),
            DailyUsage("k_1", "m", second, 1, 5, 5),
        ]
        assert await store.usage_of("k_none") == []


async def test_memory_of_models_is_replaced(file: Path) -> None:
    async with await Store.open(file) as store:
        assert await store.known_memory() == {}
        await store.remember_memory("a", 2**33)
        await store.remember_memory("b", 1)
        await store.remember_memory("a", 2**34)
        assert await store.known_memory() == {"a": 2**34, "b": 1}


async def test_file_and_folder_are_private_under_any_umask(file: Path) -> None:
    before = os.umask(0)
    try:
        async with await Store.open(file) as store:
            await store.add_key(record())
            modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert modes == {"gateway.db": 0o600, "gateway.db-wal": 0o600, "gateway.db-shm": 0o600}


async def test_folder_that_exists_keeps_its_mode(file: Path) -> None:
    file.parent.mkdir()
    file.parent.chmod(0o750)
    async with await Store.open(file):
        pass
    assert file.parent.stat().st_mode & 0o777 == 0o750
    assert [path.name for path in file.parent.iterdir()] == ["gateway.db"]  # no -wal left behind


async def test_connections_are_durable_and_patient(file: Path) -> None:
    def pragmas(connection: Connection) -> list[Any]:
        names = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    database = Database(file)
    await database.open()
    try:
        *settings, patience = await database.write(pragmas)
        assert settings == ["wal", 1, 2]
        assert 5000 < patience <= 10_000  # milliseconds
        *settings, patience = await database.read(pragmas)
        assert settings == ["wal", 1, 2]
        assert 0 <= patience <= 2000
    finally:
        await database.close()


async def test_what_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is no database, whatever its name says\n" * 100)
    with pytest.raises(StoreError, match=r"file is not a database\..*text\.db"):
        await Store.open(text)
    with pytest.raises(StoreError, match="cannot be made: Not a directory"):
        await Store.open(text / "gateway.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match=r"unable to open database file\..*folder\.db") as caught:
        await Store.open(tmp_path / "folder.db")
    assert str(tmp_path) not in json.dumps(caught.value.body())  # not everybody may know
    assert issubclass(StoreError, GatewayError)  # the app answers it as any other failure


async def test_many_tasks_share_one_store(file: Path) -> None:
    day = date(2026, 3, 1)
    async with await Store.open(file) as store, asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(store.add_key(record(number)))
            group.create_task(store.add_usage([DailyUsage("k", "m", day, 1, 2, 3)]))
            group.create_task(store.list_keys())
    async with await Store.open(file) as store:
        assert len(await store.list_keys()) == 30
        assert await store.usage_of() == [DailyUsage("k", "m", day, 30, 60, 90)]


async def test_a_cancelled_caller_goes_at_once_and_its_write_still_ends(file: Path) -> None:
    async with await Store.open(file) as store:
        blocker = sqlite3.connect(file, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        write = spawn(store.add_key(record(1)), name="write")
        await asyncio.sleep(0)  # it has begun, and waits for the blocker
        await asyncio.wait_for(cancel_and_wait(write), timeout=2)
        assert write.cancelled()
        blocker.execute("COMMIT")
        blocker.close()
        await store.add_key(record(2))
        assert await store.list_keys() == [record(1), record(2)]


async def test_who_reads_does_not_wait_for_a_write_that_waits(file: Path) -> None:
    async with await Store.open(file) as store:
        await store.add_key(record(1))
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = spawn(store.add_key(record(2)), name="write")
            assert await store.list_keys() == [record(1)]
            assert not write.done()
            other.execute("COMMIT")
        await write
        assert await store.list_keys() == [record(1), record(2)]


async def test_database_that_another_program_locks_is_a_503(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.database.BUSY_TIMEOUT", 0.05)
    monkeypatch.setattr("gateway.access.database.READ_TIMEOUT", 0.05)
    # As on a file system where WAL cannot be: else who reads isn't kept out.
    monkeypatch.setattr("gateway.access.sqlite_file.on_connect", lambda connection, record: None)
    async with await Store.open(file) as store:
        await store.add_key(record(1))
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for asked in (store.list_keys(), store.add_key(record(2))):
                with pytest.raises(StoreBusy, match="kept busy by another program") as caught:
                    await asked
                assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "5")
                assert str(file) not in str(caught.value)  # not everybody may know
        assert await store.list_keys() == [record(1)]


async def test_closing_waits_for_what_is_under_way(file: Path) -> None:
    store = await Store.open(file)
    writes = [spawn(store.add_key(record(number)), name="write") for number in range(5)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.list_keys()
    async with await Store.open(file) as store:
        assert len(await store.list_keys()) == 5


PROCESS = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from gateway.access.store import KeyRecord, Store

async def main(file: str, number: str) -> None:
    sys.stdin.readline()
    async with await Store.open(Path(file)) as store:
        for i in range(20):
            key_id = f"k_{number}_{i}"
            await store.add_key(KeyRecord(key_id, "n", key_id, datetime.now(UTC)))
            await store.update_key(key_id, admin=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_make_and_write_the_same_file_at_once(file: Path) -> None:
    """The command line beside a running gateway, also on the very first start."""
    children = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROCESS, str(file), str(number)),
            stdin=asyncio.subprocess.PIPE,
        )
        for number in range(3)
    ]
    # The line lets them start together, as closely as the machine can.
    await asyncio.gather(*(child.communicate(b"go\n") for child in children))
    assert [child.returncode for child in children] == [0, 0, 0]
    async with await Store.open(file) as store:
        found = await store.list_keys()
    assert len(found) == 60
    assert all(key.admin for key in found)


async def test_nothing_but_the_store_loads_sqlalchemy() -> None:
    code = (
        "import sys, gateway.access.keys, gateway.cli, gateway.cli.keys, gateway.cli.control;"
        "sys.exit('sqlalchemy' in sys.modules)"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await child.wait() == 0
