"""The gateways on one PostgreSQL database, as they tell each other what each must know at once.

That keys have changed, and what is used of their limits. It goes through the database's own
NOTIFY, so nothing is asked for again and again, and no table grows. What is told while a gateway
isn't connected it never hears; so whoever connects takes what the database has, and limits by the
minute count from there. Without the database each gateway goes on with what it knows.

Only a gateway with ``store.url`` imports this, after the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import orjson
import psycopg

from gateway.access.accounting import Accounting
from gateway.access.postgres import CHANNEL
from gateway.access.shared_limits import SharedLimits, Spending
from gateway.errors import GatewayError
from gateway.secret import Secret
from gateway.tasks import cancel_and_wait, spawn

#: Seconds for which what is to be told is gathered.
BEAT: Final = 0.2
#: Seconds after which it is told again what is running: fewer than it takes to be forgotten.
_AGAIN: Final = 5.0
#: Seconds between two looks at the usage of today, in case that some of it was not heard.
_USAGE: Final = 30.0
#: Seconds between two attempts to connect.
_PAUSE: Final = 1.0
#: Seconds that somebody waits until the others have been told.
_PATIENCE: Final = 1.0
#: How many keys are told of at once: a message of PostgreSQL's has at most 8,000 bytes.
_AT_ONCE: Final = 100
_log = logging.getLogger(__name__)


class Peers:
    """The other gateways, as far as they are heard.

    ``read_keys`` is called when keys may have changed; it raises :class:`GatewayError` if the
    database can't be read.
    """

    def __init__(
        self,
        conninfo: Secret,
        limits: SharedLimits,
        read_keys: Callable[[], Awaitable[None]],
        accounting: Accounting,
    ) -> None:
        self._conninfo = conninfo
        self._limits = limits
        self._read_keys = read_keys
        self._accounting = accounting
        self._await_telling: list[asyncio.Future[None]] = []
        self._name = secrets.token_hex(8)
        self._keys_changed = False
        self._told_running = 0.0
        self._usage_read = 0.0
        self._problem: str | None = None
        self._task: asyncio.Task[None] | None = None
        #: Set while the others are heard.
        self.connected = asyncio.Event()

    def start(self) -> None:
        """Hear and tell from now on, until :meth:`close`."""
        self._task = spawn(self._keep_talking(), name="talk to other gateways")

    async def close(self) -> None:
        """Fall silent."""
        await cancel_and_wait(self._task)

    async def tell(self) -> None:
        """Tell the others of all that was used until now, if they can be told; not for long."""
        if not self.connected.is_set():
            return
        told = asyncio.get_running_loop().create_future()
        self._await_telling.append(told)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await told

    def _let_go(self, waiting: list[asyncio.Future[None]]) -> None:
        for told in waiting:
            if not told.done():
                told.set_result(None)
        waiting.clear()

    async def _keep_talking(self) -> None:
        while True:
            try:
                await self._talk()
            except (psycopg.Error, GatewayError, OSError) as error:
                self._failed(error)
            finally:
                self.connected.clear()
                self._let_go(self._await_telling)
            await asyncio.sleep(_PAUSE)

    def _failed(self, error: Exception) -> None:
        problem = str(error).strip().partition("\n")[0]
        if self._problem is None:
            _log.warning(
                "other gateways cannot be heard, keys and limits are as known here: %s", problem
            )
        self._problem = problem

    async def _talk(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo.reveal(), autocommit=True, prepare_threshold=None
        )
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._limits.news()  # of a time when nobody listened
            await self._read_keys()
            self._told_running = self._usage_read = 0.0
            if self._problem is not None:
                _log.info("other gateways are heard again")
            self._problem = None
            self.connected.set()
            while True:
                await self._listen(connection, BEAT)
                if self._keys_changed:
                    self._keys_changed = False
                    await self._read_keys()
                if time.monotonic() - self._usage_read >= _USAGE:
                    self._usage_read = time.monotonic()
                    await self._read_usage(connection)
                waiting, self._await_telling = self._await_telling, []
                try:
                    await self._tell(connection)
                finally:
                    self._let_go(waiting)

    async def _listen(self, connection: psycopg.AsyncConnection[Any], seconds: float) -> None:
        async for heard in connection.notifies(timeout=seconds):
            self._hear(heard.payload)

    async def _read_usage(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Count what the database has and nobody told of.

        What it has was told before (:meth:`tell`), so when this round trip is through, what of it
        is heard at all has been.
        """
        written = await self._accounting.used_today()
        await connection.execute("SELECT 1")
        await self._listen(connection, 0)
        self._accounting.take_up(written)

    def _hear(self, payload: str) -> None:
        try:
            message = orjson.loads(payload)
            if message.get("keys"):
                self._keys_changed = True
            elif message["from"] != self._name:
                self._limits.hear(message["from"], dict(_spendings(message["spent"])))
        except (ValueError, TypeError, KeyError, AttributeError):
            _log.warning("something else than a gateway writes to the channel %s", CHANNEL)

    async def _tell(self, connection: psycopg.AsyncConnection[Any]) -> None:
        now, told = time.monotonic(), self._limits.news()
        if now - self._told_running >= _AGAIN:
            self._told_running = now
            self._limits.forget_gone()
            told = {**self._limits.running(), **told}
            if not told:  # so that a connection that is no more is noticed
                await connection.execute("SELECT 1")
        rest = iter(told.items())
        while some := dict(islice(rest, _AT_ONCE)):
            spent = {key_id: [*spending] for key_id, spending in some.items()}
            message = orjson.dumps({"from": self._name, "spent": spent}).decode()
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, message))


def _spendings(spent: Mapping[str, Any]) -> Iterator[tuple[str, Spending]]:
    for key_id, (requests, tokens, running) in spent.items():
        yield key_id, Spending(int(requests), int(tokens), int(running))
