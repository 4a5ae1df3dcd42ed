"""The tables of the database, as :mod:`gateway.access.migrations` make them. Only the store imports
this.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    false,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeDecorator

#: The number of this schema, and of the newest of the migrations. Change the schema by adding one.
SCHEMA_VERSION: Final = 6


class _Utc(TypeDecorator[datetime]):
    """Aware datetimes, kept as UTC: SQLite's own type forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


#: More than 32 bits. SQLite has one type for whole numbers; only by the name INTEGER a primary key
#: is the number of its row.
_BIG: Final = BigInteger().with_variant(Integer, "sqlite")
metadata = MetaData()
#: Alembic's own table: the name of the revision that the database has.
versions = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
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
    Column("metrics", Boolean, nullable=False, server_default=false()),
)
usage = Table(
    "usage",
    metadata,
    Column("key_id", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("requests", _BIG, nullable=False),
    Column("prompt_tokens", _BIG, nullable=False),
    Column("completion_tokens", _BIG, nullable=False),
    Column("cached_tokens", _BIG, nullable=False, server_default="0"),
)
model_memory = Table(
    "model_memory",
    metadata,
    Column("fingerprint", String, primary_key=True),
    Column("bytes", _BIG, nullable=False),
    Column("measured", _Utc, nullable=False),
)
requests = Table(
    "requests",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=False),
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
    Column("prompt_tokens", _BIG, nullable=False),
    Column("cached_tokens", _BIG, nullable=False),
    Column("completion_tokens", _BIG, nullable=False),
    Column("tokens_per_second", Float),
    Column("cached_from", String),
    Column("slot", Integer),
    Column("task", _BIG),
)
#: Kept responses. Times are microseconds since 1970; ``used``: when it was last asked or gone on
#: with. ``running``: the gateway that works on it. Three are packed JSON: the response, the items
#: of its own input, and its events.
responses = Table(
    "responses",
    metadata,
    Column("id", String, primary_key=True),
    Column("key_id", String, nullable=False, index=True),
    Column("created", _BIG, nullable=False),
    Column("used", _BIG, nullable=False, index=True),
    Column("previous_id", String),
    Column("conversation_id", String),
    Column("running", String),
    Column("bytes", _BIG, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("events", LargeBinary),
)
conversations = Table(
    "conversations",
    metadata,
    Column("id", String, primary_key=True),
    Column("key_id", String, nullable=False, index=True),
    Column("created", _BIG, nullable=False),
    Column("used", _BIG, nullable=False, index=True),
    Column("metadata", JSON(none_as_null=True)),
)
#: Their items, as packed JSON, in the order of ``seq``.
conversation_items = Table(
    "conversation_items",
    metadata,
    Column("conversation_id", String, primary_key=True),
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    Column("id", String, nullable=False),
    Column("bytes", _BIG, nullable=False),
    Column("item", LargeBinary, nullable=False),
)
#: The columns that may change during a key's life.
CHANGEABLE = frozenset(keys.c.keys()) - {"id", "hash", "created", "imported"}


def revision(version: int) -> str:
    """Return the name of the revision that makes the schema of that number, like ``0002``."""
    return f"{version:04}"


def version_of(connection: Connection) -> int | None:
    """Return the number of the database's schema, as Alembic keeps it.

    0: there is no such record. None: there is one, but not of this program's.
    """
    if not inspect(connection).has_table(versions.name):
        return 0
    names = connection.execute(select(versions.c.version_num)).scalars().all()
    name = names[0] if len(names) == 1 else ""
    return int(name) if name.isascii() and name.isdigit() else None


def make_tables(connection: Connection) -> None:
    """Make the tables in an empty database, as the migrations would, but without Alembic."""
    metadata.create_all(connection, checkfirst=False)
    versions.create(connection)
    connection.execute(insert(versions).values(version_num=revision(SCHEMA_VERSION)))
