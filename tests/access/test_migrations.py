"""Databases of every version before: each is brought up to date, or refused in words."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from gateway.access import migrations
from gateway.access.database import Database
from gateway.access.past_requests import PastRequest, RequestFilter
from gateway.access.schema import SCHEMA_VERSION, make_tables, metadata, revision
from gateway.access.store import DailyUsage, KeyRecord, Store, StoreError

#: What the statements of our own made, before there was Alembic, with a row in each table.
BEFORE_ALEMBIC = {
    1: """
        CREATE TABLE keys (
            id VARCHAR NOT NULL PRIMARY KEY, name VARCHAR NOT NULL, description VARCHAR NOT NULL,
            hash VARCHAR NOT NULL UNIQUE, admin BOOLEAN NOT NULL, created DATETIME NOT NULL,
            expires DATETIME, revoked DATETIME, last_activity DATETIME, models JSON,
            personalities JSON, default_personality VARCHAR, limits JSON, imported BOOLEAN NOT NULL
        );
        CREATE TABLE usage (
            key_id VARCHAR NOT NULL, model VARCHAR NOT NULL, day DATE NOT NULL,
            requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL, PRIMARY KEY (key_id, model, day)
        );
        CREATE TABLE model_memory (
            fingerprint VARCHAR NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL,
            measured DATETIME NOT NULL
        );
        INSERT INTO keys VALUES ('k_1', 'n', '', 'h', 1, '2026-03-01 12:00:00.000000', NULL, NULL,
            NULL, '["m"]', NULL, NULL, '{"rpm": 60}', 0);
        INSERT INTO usage VALUES ('k_1', 'm', '2026-03-01', 1, 10, 5);
        INSERT INTO model_memory VALUES ('f', 8589934592, '2026-03-01 12:00:00.000000');
        PRAGMA user_version = 1;
    """,
    2: """
        CREATE TABLE requests (
            seq INTEGER NOT NULL PRIMARY KEY, id VARCHAR NOT NULL, key_id VARCHAR NOT NULL,
            model VARCHAR NOT NULL, personality VARCHAR, method VARCHAR NOT NULL,
            route VARCHAR NOT NULL, streamed BOOLEAN NOT NULL, status INTEGER NOT NULL,
            code VARCHAR, client VARCHAR, seconds FLOAT NOT NULL, queue FLOAT NOT NULL,
            load FLOAT NOT NULL, prefill FLOAT, generation FLOAT, prompt_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
            tokens_per_second FLOAT
        );
        INSERT INTO requests VALUES (1772366400000000, 'req_1', 'k_1', 'm', NULL, 'POST', '/v1/x',
            1, 200, NULL, '::1', 2.5, 0.5, 0.0, 0.5, 1.5, 10, 4, 5, 3.5);
        PRAGMA user_version = 2;
    """,
}
KEPT = KeyRecord(
    "k_1", "n", "h", datetime(2026, 3, 1, 12, tzinfo=UTC), "", True, models=("m",),
    limits={"rpm": 60},
)  # fmt: skip
RAN = (1772366400000000, "req_1", "k_1", "m", None, "POST", "/v1/x", True, 200, None, "::1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


def make_old(file: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for number in range(1, version + 1):
            connection.executescript(BEFORE_ALEMBIC[number])


async def differences(file: Path) -> list[object]:
    """How the tables of ``file`` differ from those that the code describes, as Alembic tells it."""

    def work(connection: Connection) -> list[object]:
        return [*compare_metadata(MigrationContext.configure(connection), metadata)]

    database = Database(file)
    try:
        await database.open()
        return await database.read(work)
    finally:
        await database.close()


def versions_in(file: Path) -> tuple[str, int]:
    """What the file says that it is: to Alembic, and to programs from before that."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (name,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        return name, number


def make(file: Path, version: int | None) -> None:
    """Make a file from before Alembic, or with ``None`` one of this program."""
    if version is None:
        engine = create_engine(f"sqlite:///{file}")
        with engine.begin() as connection:
            make_tables(connection)
        engine.dispose()  # else its pool keeps the file open
    else:
        make_old(file, version)


@pytest.mark.parametrize("version", [1, 2])
async def test_file_from_before_alembic_is_taken_over_with_its_rows(
    file: Path, version: int
) -> None:
    make_old(file, version)
    for _ in range(2):  # the second time there's nothing to do
        async with await Store.open(file) as store:
            assert await store.list_keys() == [KEPT]
            assert await store.usage_of() == [DailyUsage("k_1", "m", date(2026, 3, 1), 1, 10, 5)]
            assert await store.known_memory() == {"f": 2**33}
            ran = await store.requests_of(RequestFilter(limit=10))
            assert [one[: len(RAN)] for one in ran] == ([RAN] if version > 1 else [])
            assert [(one.cached_tokens, one.cached_from) for one in ran] == [(4, None)] * len(ran)
    assert await differences(file) == []


async def test_new_file_has_what_the_migrations_make(file: Path) -> None:
    assert await differences(file) == []
    assert versions_in(file) == (revision(SCHEMA_VERSION), SCHEMA_VERSION)


def test_the_schema_of_this_program_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [revision(SCHEMA_VERSION)]
    names = [found.revision for found in script.walk_revisions()]
    assert names == [revision(number) for number in range(SCHEMA_VERSION, 0, -1)]
    assert PastRequest._fields == tuple(metadata.tables["requests"].columns.keys())


AddMigration = Callable[[str], None]


@pytest.fixture
def add_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddMigration:
    """Makes the program one with another migration, which does what is given."""

    def add(statements: str) -> None:
        folder = tmp_path / "100% newer"
        shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        newer = SCHEMA_VERSION + 1
        (folder / "versions/schema_newer.py").write_text(
            f"from alembic import op\nrevision = {revision(newer)!r}\n"
            f"down_revision = {revision(SCHEMA_VERSION)!r}\ndef upgrade():\n    {statements}\n"
        )
        monkeypatch.setattr("gateway.access.migrations.FOLDER", folder)
        for module in ("database", "migrations"):
            monkeypatch.setattr(f"gateway.access.{module}.SCHEMA_VERSION", newer)

    return add


@pytest.mark.parametrize("version", [1, 2, None])
async def test_older_file_is_brought_up_to_date(
    file: Path, add_migration: AddMigration, version: int | None
) -> None:
    make(file, version)
    add_migration("op.execute('CREATE TABLE extra AS SELECT 7 AS x')")
    for _ in range(2):  # the second time there's nothing to do
        async with await Store.open(file) as store:
            assert await store.list_keys() == ([] if version is None else [KEPT])
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT x FROM extra").fetchall() == [(7,)]
    assert versions_in(file) == (revision(SCHEMA_VERSION + 1), SCHEMA_VERSION + 1)


@pytest.mark.parametrize("version", [1, 2, None])
async def test_migration_that_fails_changes_nothing(
    file: Path, add_migration: AddMigration, version: int | None
) -> None:
    make(file, version)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        before = "\n".join(connection.iterdump())
    add_migration("op.execute('CREATE TABLE extra (x)'); op.execute('CREATE TABLE keys (x)')")
    with pytest.raises(StoreError, match="already exists"):
        await Store.open(file)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert "\n".join(connection.iterdump()) == before


@pytest.mark.parametrize(
    ("statement", "schema"),
    [
        ("UPDATE alembic_version SET version_num = '0999'", "999"),
        ("UPDATE alembic_version SET version_num = 'a1b2c3'", "unknown"),
        ("DROP TABLE alembic_version; PRAGMA user_version = 998", "998"),
    ],
)
async def test_file_of_a_newer_program_is_refused_and_left_alone(
    file: Path, statement: str, schema: str
) -> None:
    async with await Store.open(file):
        pass
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(statement)
        before = "\n".join(connection.iterdump())
    with pytest.raises(StoreError, match=rf"newer version .*schema is {schema},") as caught:
        await Store.open(file)
    assert caught.value.code == "store_too_new"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert "\n".join(connection.iterdump()) == before


OPENS = """
import asyncio, sys
from pathlib import Path
from gateway.access.store import Store

async def main(file: str) -> None:
    async with await Store.open(Path(file)):
        print("alembic" in sys.modules)

asyncio.run(main(sys.argv[1]))
"""


def test_alembic_is_imported_only_for_an_older_schema(tmp_path: Path) -> None:
    make_old(tmp_path / "old.db", 1)
    imported = [
        subprocess.run(
            [sys.executable, "-c", OPENS, str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for name in ("new.db", "new.db", "old.db", "old.db")
    ]
    assert imported == ["False", "False", "True", "False"]
