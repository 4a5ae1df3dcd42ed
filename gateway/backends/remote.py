"""The backend of a remote model (``url`` in models.json): a state machine without a process.

::

    stopped ----start------> starting --one server is up--> ready <--> backoff (all are down;
       ^                         |                             |           each is tried again
       |                         | all are down                |           and again)
       +-------------------------+------------ stop -----------+

To load it is to look whether a server is up, to unload it, to let go of its connections. Requests
are let through in ``backoff`` too: to try is the quickest way to know, and an error that says what
is wrong is worth more to a client than a place in a queue.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.backends.backend import Backend, Environment, ServerStatus, State
from gateway.backends.counts import Ended
from gateway.backends.fleet import Fleet
from gateway.backends.server import Tempo
from gateway.errors import BackendError, GatewayError, LoadFailed
from gateway.models.endpoints import read_key
from gateway.models.remote_model import RemoteModel
from gateway.tasks import cancel_and_wait, done, spawn
from gateway.upstream import ConnectFailed

_log = logging.getLogger(__name__)

#: Seconds for health checks after a connection broke, and at a new load.
_SUSPICION = 1.0
_LOOK = 15.0


class RemoteBackend(Backend):
    """The servers of one :class:`RemoteModel` with ``url``."""

    spec: RemoteModel
    SERVING = frozenset({State.READY, State.BACKOFF})  # in BACKOFF each request tries again

    def __init__(
        self, spec: RemoteModel, environment: Environment, changed: Callable[[Backend], None]
    ) -> None:
        super().__init__(spec, changed)
        self._env = environment
        self._fleet: Fleet | None = None
        self._news = asyncio.Event()  # a server has turned out to be up or down

    @property
    def pool(self) -> Fleet:
        """The servers, as one upstream."""
        if self._fleet is None or self.state in (State.STOPPED, State.STARTING, State.STOPPING):
            raise ConnectFailed(f"the connection to {self.spec.name!r} is {self.state}")
        return self._fleet

    @property
    def resident(self) -> bool:
        """Whether there are connections, or tasks that check servers."""
        return self.state is not State.STOPPED

    @property
    def servers(self) -> tuple[ServerStatus, ...]:
        """Each of its servers, in the order of models.json."""
        if self._fleet is None:
            return tuple(map(ServerStatus, self.spec.url))
        return tuple(server.status() for server in self._fleet.servers)

    @property
    def context_size(self) -> int | None:
        """The smallest context size, in tokens, that a server which is up has listed."""
        servers = self._fleet.servers if self._fleet is not None else ()
        name = self.spec.sent_as
        return min((s.contexts[name] for s in servers if s.up and name in s.contexts), default=None)

    async def ensure_ready(self) -> None:
        """Return when a server is up; one that is known to be up is not asked again.

        Raises :class:`ConnectFailed` (502) or its like for time (504), :class:`LoadFailed` where
        the key or the CA file cannot be read.
        """
        while self.state is not State.READY:
            if self._stopping is not None:
                await asyncio.wait([self._stopping])
            elif self._fleet is not None and self.serving:
                await self._fleet.look_again(_LOOK)
                if self.state is State.BACKOFF and self._fleet is not None:
                    raise self._fleet.failure()
            elif self.state is State.DRAINING:
                raise BackendError(f"{self.spec.name!r} is being unloaded")
            else:
                if self._starting is None:
                    self.start()
                await self._join()

    def start(self, prepare: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin to look whether a server is up."""
        assert self._starting is None
        assert not self.resident, self.state
        self.start_error = None
        self._starting = spawn(self._start(prepare), name=f"reach {self.spec.name}")
        self._enter(State.STARTING)

    async def _join(self) -> None:
        starting = self._starting
        if starting is None:
            return
        await asyncio.wait([starting])
        if starting.cancelled():
            raise BackendError(f"{self.spec.name!r} was unloaded while it was loading")
        if (failure := starting.result()) is not None:
            raise failure

    async def suspect(self, *, refused: bool = False) -> None:
        """Look at the servers."""
        if self._fleet is not None:
            await self._fleet.look_again(_SUSPICION)

    def stop(self) -> asyncio.Future[None]:
        """Close every connection; await that nothing is left."""
        stopping = self._stopping
        if stopping is None:
            if not self.resident:
                return done()
            stopping = self._stopping = spawn(self._stop(), name=f"let go of {self.spec.name}")
            self._enter(State.STOPPING)
        return asyncio.shield(stopping)

    def undrain(self) -> None:
        """Take requests again, whether servers are up or are to be tried by them."""
        if self.state is State.DRAINING:
            up = self._fleet is not None and self._fleet.any_up
            self._enter(State.READY if up else State.BACKOFF)

    def reset(self) -> None:
        """Do nothing: failures of a remote model aren't remembered, as each request tries anew."""

    def failure(self) -> GatewayError:
        """Return an error. It is never called, because a remote model is retried for ever."""
        return self.last_error or BackendError(f"{self.spec.name!r} cannot be reached")

    # --- transitions ------------------------------------------------------------------------

    async def _start(self, prepare: Callable[[], Awaitable[None]] | None) -> GatewayError | None:
        self.starts += 1
        self.start_failed = False
        self.log.append(f"--- start {self.starts} of {self.spec.name} ---")
        try:
            if prepare is not None:
                await prepare()
            started = time.monotonic()
            key, context = await asyncio.to_thread(self._prepare)
        except Exception as error:  # whatever it is: waiting requests must be answered
            if not isinstance(error, OSError | ValueError):
                _log.error("starting %s", self.spec.name, exc_info=error)
            what = f"the servers of {self.spec.name!r} cannot be asked."
            return self._failed(LoadFailed(what, detail=str(error)))
        spec = self.spec
        fleet = self._fleet = Fleet(
            spec.name,
            spec.endpoints,
            key,
            context,
            parallel=spec.parallel,
            timeout=spec.timeout,
            tempo=Tempo(self._env.health_interval, self._env.backoff_first, self._env.backoff_cap),
            log=self.log,
            changed=self._judge,
            several_gateways=self._env.several_gateways,
        )
        while not fleet.any_up:
            if fleet.all_down:
                failure = fleet.failure()
                await self._let_go()
                return self._failed(failure)
            self._news.clear()
            await self._news.wait()
        self._give_way()
        self.load_seconds = time.monotonic() - started
        self._starting = None
        self._enter(State.READY)
        return None

    def _failed(self, failure: GatewayError) -> GatewayError:
        self._give_way()
        self.refused(failure)
        self.start_error = failure
        self._starting = None
        self._enter(State.STOPPED)
        return failure

    def _prepare(self) -> tuple[str | None, ssl.SSLContext | None]:
        """Return the key and what TLS trusts. Blocks. Raises OSError and ValueError."""
        spec = self.spec
        key = None
        if spec.key is not None:
            try:
                key = read_key(spec.key.reveal(), self._env.environ)
            except ValueError as error:
                raise ValueError(f"key: {error}") from None
        if not any(endpoint.tls for endpoint in spec.endpoints):
            return key, None
        return key, client_context(spec.ca_file)

    def _judge(self) -> None:
        """Update the state after a server has come up or gone down."""
        self._news.set()
        fleet = self._fleet
        if fleet is None:
            return
        self.retry_at = min(server.retry_at for server in fleet.servers)
        if self.state is State.READY and fleet.all_down:
            self.deaths += 1
            self._env.counts.ends[self.spec.name, Ended.UNREACHABLE] += 1
            self.last_error = fleet.failure()
            self._enter(State.BACKOFF)
        elif self.state is State.BACKOFF and fleet.any_up:
            self._enter(State.READY)
        else:
            self._changed(self)

    async def _stop(self) -> None:
        try:
            await cancel_and_wait(self._starting)
            self._starting = None
            await self._let_go()
        finally:
            self._stopping = None
            self._enter(State.STOPPED)

    async def _let_go(self) -> None:
        if self._fleet is not None:
            await self._fleet.close()
            self._fleet = None


def client_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's CAs, and those in ``ca_file`` (``~`` is
    expanded).

    Blocks. Raises ValueError where the file is none.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(Path(ca_file).expanduser())
        except (OSError, RuntimeError) as error:  # ssl.SSLError is an OSError
            reason = error.strerror if isinstance(error, OSError) else error
            if isinstance(error, ssl.SSLError):
                reason = "it holds no PEM certificate"
            raise ValueError(f"the file {ca_file} of CAs: {reason}") from None
    return context
