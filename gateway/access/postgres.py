"""The store in a PostgreSQL database. Only :mod:`gateway.access.database` uses it, and
:mod:`gateway.access.peers`, and only where ``store.url`` is set.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.dialects.postgresql import insert

from gateway.access.schema import version_of
from gateway.access.store_errors import StoreBusy, StoreError, StoreUnreachable
from gateway.secret import Secret

#: What connections have, where the URL doesn't say otherwise. A server that has vanished from the
#: network is noticed within seconds: until then a key that was revoked elsewhere still works here.
#: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_DEFAULTS: Final = {
    "application_name": "llm-gateway",
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
#: Where gateways on one database tell each other what happens: see :mod:`gateway.access.peers`.
CHANNEL: Final = "llm_gateway"
#: Of an advisory lock, for what is done only once: no other program's, it is to be hoped.
_LOCK: Final = 0x6C6C6D67
#: As ``SET LOCAL`` would, in one statement.
_BEGIN: Final = (
    "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true), "
    "set_config('transaction_read_only', %s, true)"
)
#: How often it is looked whether others have gone.
_LOOKS: Final = 20
_OTHERS: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
)
#: https://www.postgresql.org/docs/current/errcodes-appendix.html: what was not got in time, and of
#: two transactions that wait for each other, the one that is given up.
_BUSY: Final = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
)
#: Codes of a server that goes, comes, or has no room for another connection. A connection that
#: failed has none.
_AWAY: Final = ("08", "57P", "53300")


class PostgresServer:
    """A database on a server of PostgreSQL, as a :class:`gateway.access.database.Place`."""

    insert = staticmethod(insert)
    mark = "%s"
    text_bytes = "octet_length({})"
    request_bytes = 192  # measured, as in tests/access/postgres/test_requests_size.py

    def __init__(self, url: Secret) -> None:
        try:
            given = {name: str(text) for name, text in conninfo_to_dict(url.reveal()).items()}
            self.shared_at: Final = Secret(make_conninfo(**{**_DEFAULTS, **given}))
        except psycopg.Error:
            # The driver's text repeats what it doesn't understand: half of a password, perhaps.
            raise StoreError(
                "store.url is no address that PostgreSQL's library understands"
            ) from None
        name = given.get("dbname") or given.get("user") or "the user's own"
        self.shown = f"It is the database {name} at {given.get('host') or 'this machine'}."

    def prepare(self) -> None:
        """Do nothing: the database is there, or whoever made the server makes it."""

    def engine(self) -> Engine:
        """Return an engine that sees before each transaction whether its connection still lives."""
        return create_engine(
            "postgresql+psycopg://",
            # libpq reads its URLs itself: there is more in them than SQLAlchemy knows of.
            creator=self._connect,
            hide_parameters=True,  # hashes of keys have no place in an error message
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
        )

    def _connect(self) -> psycopg.Connection[Any]:
        # Nothing is prepared: connection poolers have lost such statements for years.
        return psycopg.connect(self.shared_at.reveal(), prepare_threshold=None)

    def begin(self, connection: Connection, patience: float, *, writes: bool) -> None:
        """Let the transaction, which the driver begins, wait ``patience`` seconds for anything."""
        milliseconds, read_only = str(max(int(patience * 1000), 1)), "off" if writes else "on"
        connection.exec_driver_sql(_BEGIN, (milliseconds, milliseconds, read_only))

    def failure(self, cause: BaseException) -> StoreError:
        """Return what went wrong, in words."""
        text = str(cause).strip().partition("\n")[0].rstrip(".")
        if isinstance(cause, _BUSY):
            return StoreBusy(f"the gateway's database is kept busy by another program ({text})")
        broken = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        if broken and (getattr(cause, "sqlstate", None) or "08").startswith(_AWAY):
            return StoreUnreachable(
                "the gateway's database cannot be reached.", detail=f"{text}. {self.shown}"
            )
        return StoreError(f"the database cannot be used: {text}.", detail=self.shown)

    def version(self, connection: Connection) -> int | None:
        """Return the number of the schema; 0: it is empty; None: it is unknown."""
        return version_of(connection)

    def others(self, connection: Connection) -> int:
        """Return how many connections there are that call themselves what ours does.

        One that was closed just now goes a moment later.
        """
        for _ in range(_LOOKS):
            connection.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
            if not (count := int(connection.exec_driver_sql(_OTHERS).scalar_one())):
                break
            connection.exec_driver_sql("SELECT pg_sleep(0.1)")
        return count

    def lock(self, connection: Connection) -> None:
        """See :class:`gateway.access.database.Place`."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    def keys_changed(self, connection: Connection) -> None:
        """Tell other gateways, once the transaction has succeeded, that keys have changed."""
        connection.exec_driver_sql("SELECT pg_notify(%s, %s)", (CHANNEL, '{"keys":true}'))

    def upgraded(self, connection: Connection, version: int) -> None:
        """Do nothing: Alembic's table says it all."""
