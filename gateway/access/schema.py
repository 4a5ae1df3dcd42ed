"""The tables of the database, and the migrations of older files. Only the store imports this."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeDecorator

#: The statements that bring a file from schema version N to N+1 (``PRAGMA user_version``), oldest
#: first. An entry is never edited once it was released: change the schema by adding one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE keys (
            id VARCHAR NOT NULL PRIMARY KEY,
            name VARCHAR NOT NULL,
            description VARCHAR NOT NULL,
            hash VARCHAR NOT NULL UNIQUE,
            admin BOOLEAN NOT NULL,
            created DATETIME NOT NULL,
            expires DATETIME,
            revoked DATETIME,
            last_activity DATETIME,
            models JSON,
            personalities JSON,
            default_personality VARCHAR,
            limits JSON,
            imported BOOLEAN NOT NULL
        )""",
        # key_id has no foreign key: with auth disabled, usage is counted under an id of no key.
        """CREATE TABLE usage (
            key_id VARCHAR NOT NULL,
            model VARCHAR NOT NULL,
            day DATE NOT NULL,
            requests INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            PRIMARY KEY (key_id, model, day)
        )""",
        """CREATE TABLE model_memory (
            fingerprint VARCHAR NOT NULL PRIMARY KEY,
            bytes INTEGER NOT NULL,
            measured DATETIME NOT NULL
        )""",
    ),
    (
        # No index but that of the rows themselves: they are written often and read seldom.
        """CREATE TABLE requests (
            seq INTEGER NOT NULL PRIMARY KEY,
            id VARCHAR NOT NULL,
            key_id VARCHAR NOT NULL,
            model VARCHAR NOT NULL,
            personality VARCHAR,
            method VARCHAR NOT NULL,
            route VARCHAR NOT NULL,
            streamed BOOLEAN NOT NULL,
            status INTEGER NOT NULL,
            code VARCHAR,
            client VARCHAR,
            seconds FLOAT NOT NULL,
            queue FLOAT NOT NULL,
            load FLOAT NOT NULL,
            prefill FLOAT,
            generation FLOAT,
            prompt_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            tokens_per_second FLOAT
        )""",
    ),
)
SCHEMA_VERSION = len(MIGRATIONS)


class _Utc(TypeDecorator[datetime]):
    """Aware datetimes, kept as UTC: SQLite's own type forgets the zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()
keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("description", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("admin", Boolean, nullable=False),
    Column("created", _Utc, nullable=False),
    Column("expires", _Utc),
    Column("revoked", _Utc),
    Column("last_activity", _Utc),
    Column("models", JSON(none_as_null=True)),
    Column("personalities", JSON(none_as_null=True)),
    Column("default_personality", String),
    Column("limits", JSON(none_as_null=True)),
    Column("imported", Boolean, nullable=False),
)
usage = Table(
    "usage",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
)
model_memory = Table(
    "model_memory",
    metadata,
    Column("fingerprint", String, primary_key=True),
    Column("bytes", Integer, nullable=False),
    Column("measured", _Utc, nullable=False),
)
requests = Table(
    "requests",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("model", String, nullable=False),
    Column("personality", String),
    Column("method", String, nullable=False),
    Column("route", String, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", String),
    Column("client", String),
    Column("seconds", Float, nullable=False),
    Column("queue", Float, nullable=False),
    Column("load", Float, nullable=False),
    Column("prefill", Float),
    Column("generation", Float),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("tokens_per_second", Float),
)
#: The columns that may change during a key's life.
CHANGEABLE = frozenset(keys.c.keys()) - {"id", "hash", "created", "imported"}
