"""When a key was last used is written behind the requests."""

import logging
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.access.keys import KeyRing
from gateway.access.principal import ANONYMOUS
from tests.access.keys.watched import Watched


def activity_in(file: Path) -> dict[str, str | None]:
    connection = sqlite3.connect(file)
    try:
        return dict(connection.execute("SELECT id, last_activity FROM keys"))
    finally:
        connection.close()


async def test_activity_is_written_behind_the_requests(
    ring: KeyRing, store: Watched, file: Path
) -> None:
    used, _ = await ring.create("used")
    idle, _ = await ring.create("idle")
    before = datetime.now(UTC)
    for _ in range(100):
        ring.touch(used.id)
    ring.touch("k_of_nobody")
    ring.touch(ANONYMOUS.key_id)
    assert activity_in(file) == {used.id: None, idle.id: None}  # touch itself writes nothing
    (shown,) = [record.last_activity for record in ring.records if record.id == used.id]
    assert shown is not None
    assert before <= shown <= datetime.now(UTC)
    batch = await store.tries.get()
    assert batch == {used.id: shown}  # a hundred uses, one write
    assert store.tries.empty()
    assert activity_in(file)[used.id] is not None
    await ring.reload()
    assert {record.id: record.last_activity for record in ring.records} == {
        used.id: shown,
        idle.id: None,
    }


async def test_closing_writes_what_is_left(store: Watched, file: Path) -> None:
    ring = await KeyRing.open(store, write_every=3600)
    record, _ = await ring.create("used")
    ring.touch(record.id)
    await ring.close()
    assert activity_in(file)[record.id] is not None


async def test_a_failing_database_loses_nothing_and_is_logged_once(
    ring: KeyRing, store: Watched, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway")
    first, key = await ring.create("first")
    second, _ = await ring.create("second")
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(
        "CREATE TRIGGER fire BEFORE UPDATE ON keys "
        "BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END"
    )
    ring.touch(first.id)
    assert (await store.tries.get()).keys() == {first.id}
    ring.touch(second.id)
    while (await store.tries.get()).keys() != {first.id, second.id}:
        pass  # it's tried again and again, the new one joins
    assert ring.lookup.find(key, 0).key_id == first.id  # requests don't notice
    errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "the disk is on fire" in errors[0].getMessage()

    connection.execute("DROP TRIGGER fire")
    connection.close()
    while not all(activity_in(file).values()):
        await store.tries.get()
    assert all(activity_in(file).values())
    ring.touch(first.id)
    await store.tries.get()
    assert [entry.getMessage() for entry in caplog.records][1:] == [
        "when keys were last used is written again"
    ]
