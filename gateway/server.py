"""The running gateway: listeners, signals, and an orderly start and end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.access.accounting import Accounting
from gateway.access.body_memory import BodyMemory
from gateway.access.gate import KeyGate
from gateway.access.keys import KeyRing
from gateway.access.principal import WITHOUT_KEY
from gateway.app import compose
from gateway.backends.command import find_program
from gateway.backends.machine import Machine, MachineReader
from gateway.backends.process import Records
from gateway.backends.scheduler import Scheduler
from gateway.backends.watchdog import PATIENCE, Patience
from gateway.config.settings import Settings
from gateway.drain import drain
from gateway.errors import GatewayError, LoadFailed
from gateway.first_key import make_first_key
from gateway.greeting import greeting, say
from gateway.http.connections import Connections
from gateway.http.inherited import NOTHING_INHERITED, Inherited
from gateway.http.lifecycle import Lifecycle
from gateway.http.listeners import Listeners
from gateway.library import Library
from gateway.models.catalog import Catalog
from gateway.parts import limits_of
from gateway.runtime import Runtime
from gateway.sdnotify import Notifier
from gateway.secret import Secret
from gateway.signals import Signals
from gateway.status_line import keep_told, keep_told_of_the_end
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting
from gateway.used_personalities import texts_of
from gateway.workers import WORKERS

if TYPE_CHECKING:
    from gateway.access.peers import Peers
    from gateway.access.store import Store
    from gateway.cluster.cluster import Cluster
    from gateway.conversations.keeper import Conversations
    from gateway.responses.kept import KeptResponses
    from gateway.tls.acme import AcmeCertificate

#: Seconds between two attempts to reach the database server.
_AWAIT_STORE: Final = 1.0
_log = logging.getLogger(__name__)

#: Seconds that it takes to end at most, once all is answered: conversations are saved, llama-server
#: processes end, and the database is written.
_CLOSING: Final = 40.0


async def serve(
    settings: Settings,
    library: Library,
    source: Path | None = None,
    inherited: Inherited = NOTHING_INHERITED,
) -> None:
    """Run the gateway until SIGTERM or SIGINT. ``source``: the file that ``settings`` are from.

    Raises ``InvalidFiles``, ``CannotListen`` or ``UnusableSocket`` if it cannot start.
    """
    notifier = Notifier()
    gateway = Gateway(settings, library, source, inherited=inherited)
    # The signals' meaning outlives the gateway: one that comes late must not kill the clean-up.
    async with Signals(gateway.lifecycle.stopping, gateway.reload, notifier) as signals, gateway:
        notifier.ready(f"listening on {', '.join(gateway.urls)}")
        signals.started()
        watchdog = spawn_lasting(
            lambda: notifier.keep_alive(gateway.scheduler.is_alive), name="feed the watchdog"
        )
        told = spawn_lasting(lambda: keep_told(notifier, gateway), name="tell the service manager")
        if settings.log.format == "text" or sys.stdout.isatty():
            await gateway.greet(source)
        await gateway.open_keys()
        await gateway.lifecycle.stopping.wait()
        await cancel_and_wait(told)
        notifier.stopping()
        notifier.extend_timeout(settings.shutdown_timeout + _CLOSING)
        told = spawn_lasting(
            lambda: keep_told_of_the_end(notifier, gateway.scheduler, settings.shutdown_timeout),
            name="tell the service manager of the end",
        )
        await gateway.drain(signals.hurry)
        await cancel_and_wait(told)
    await cancel_and_wait(watchdog)


class Gateway:
    """A running gateway, put together; ``async with`` starts and ends it.

    Inside, :attr:`urls` answer /health; requests that need a key wait for :meth:`open_keys`.
    ``source``: the file that ``settings`` are from; ``patience``: how long a llama-server may look
    as if it hung; ``inherited``: sockets that were open before it started.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        source: Path | None = None,
        *,
        patience: Patience = PATIENCE,
        inherited: Inherited = NOTHING_INHERITED,
    ) -> None:
        self.settings = settings = inherited.applied_to(settings)
        self._inherited = inherited
        self._source = source
        self.library = library
        self._patience = patience
        self.lifecycle = Lifecycle()
        self.lifecycle.hands_over = bool(inherited.main)
        self.runtime = Runtime(settings.data_dir)
        self.ring: KeyRing | None = None
        #: The other gateways on the same database.
        self.peers: Peers | None = None
        self._conversations: Conversations | None = None
        self._cluster: Cluster | None = None
        self.responses: KeptResponses | None = None
        self._background: list[asyncio.Task[None]] = []
        self.gate: KeyGate
        self.accounting: Accounting
        self.scheduler: Scheduler
        self.listeners: Listeners
        self.connections: Connections
        #: The memory for bodies.
        self.body_memory: BodyMemory
        self._stack = contextlib.AsyncExitStack()

    @property
    def urls(self) -> list[str]:
        """The URLs for clients."""
        return self.listeners.urls

    @property
    def acme(self) -> AcmeCertificate | None:
        """The certificate that renews itself, with its ``status``; None without ``tls.acme``."""
        return self.listeners.acme

    async def greet(self, source: Path | None) -> None:
        """Print where it listens, and what it serves."""
        names, catalog = await self.listeners.names(), self.library.catalog
        text = await asyncio.to_thread(greeting, self.settings, catalog, self.urls, source, names)
        await asyncio.to_thread(say, text)

    async def __aenter__(self) -> Gateway:
        async with contextlib.AsyncExitStack() as stack:
            await asyncio.to_thread(self.runtime.open)
            stack.push_async_callback(asyncio.to_thread, self.runtime.close)
            stack.push_async_callback(self._close_keys)
            stack.push_async_callback(WORKERS.close)
            records = Records(self.settings.data_dir / "children")
            for name in await asyncio.to_thread(records.reap_leftovers):
                _log.warning("ended the llama-server of %s that a dead gateway left behind", name)
            parts = compose(
                self.settings,
                self.library,
                self.runtime,
                records,
                self.lifecycle,
                source=self._source,
                inherited=self._inherited,
                patience=self._patience,
            )
            self.gate, self.accounting, self.scheduler = (
                parts.gate,
                parts.accounting,
                parts.scheduler,
            )
            self.listeners, self.body_memory = parts.listeners, parts.body_memory
            self.connections = parts.listeners.connections
            self._conversations, self.responses = parts.conversations, parts.responses
            self._cluster = parts.cluster
            if parts.cluster is not None:
                stack.push_async_callback(parts.cluster.close)
            if parts.conversations is not None:
                stack.push_async_callback(parts.conversations.close)
            stack.push_async_callback(self.scheduler.close)
            if parts.responses is not None:
                stack.push_async_callback(parts.responses.end_all)
            # Left first, so that no client sees its backend go.
            stack.push_async_callback(self.listeners.close)
            await self.listeners.start()
            self.lifecycle.urls = self.urls
            self.lifecycle.redirect_urls = self.listeners.redirect_urls
            _log.info("listening on %s", ", ".join(self.urls))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.lifecycle.stopping.set()
        await cancel_and_wait(*self._background)
        await self._stack.aclose()

    async def open_keys(self) -> None:
        """Open the store, make the first key if there is none, and let requests in."""
        store = await _open_store(self.settings, self.lifecycle.stopping)
        if store is None:
            return  # it is to stop
        ring = self.ring = await KeyRing.open(store)
        ring.changed = self.library.choices.keep_keys
        await self.accounting.open(store)
        if store.shared_at is not None:
            self.peers = _join(store.shared_at, ring, self.accounting)
        await make_first_key(ring, self.settings, self.library, self.urls[0])
        if self._conversations is not None:
            await self._conversations.open()
            self._conversations.keep_texts(texts_of(self.library.catalog))
        if self._cluster is not None:
            await self._cluster.open()
        if self.responses is not None:
            await self.responses.open(store)
        _forget_with_keys(self._conversations, self.responses, self.gate, ring)
        self.gate.open(ring)
        self.lifecycle.ready = True
        _preload(self.scheduler, self.library.catalog)
        self._background = [
            spawn_lasting(self.library.watch, name="watch models.json"),
            spawn_lasting(lambda: self._watch_memory(store), name="look at the machine"),
        ]
        gc.freeze()  # what is here now stays: the collector need not look at it
        gc.enable()  # `serve` starts without it
        # Requests leave few cycles behind: looking for them after every 700 new objects, as
        # Python does by itself, takes a thirtieth of a request's time.
        gc.set_threshold(20_000, 20, 20)

    async def _watch_memory(self, store: Store) -> None:
        """Let models be loaded once it is known how much room there is."""
        # What /health does not need comes after it.
        from gateway.backends.accounts import Accounts
        from gateway.backends.capacity import Capacity
        from gateway.backends.flags_known import flags_known
        from gateway.backends.gpus_seen import GpusSeen
        from gateway.backends.memory import Needs

        settings, environment = self.settings, self.scheduler.environment

        reader = MachineReader()

        def read() -> Machine:
            program = _program(settings, environment.environ)
            return reader.read(program, environment.for_children)

        wanted = settings.scheduler.memory_budget
        program = await asyncio.to_thread(_program, settings, environment.environ)
        if not program and self.library.catalog.ours:
            _tell_no_program(settings, environment.environ)
        capacity = Capacity(
            read,
            None if wanted == "auto" else wanted,
            GpusSeen(settings.data_dir / "gpus.json", program, environment.environ),
        )
        await capacity.look()  # a GPU's driver may take seconds to say
        try:
            measured = await store.known_memory()
        except GatewayError as error:
            _log.warning("what models took before is not known: %s", error.message)
            measured = {}
        gpu = capacity.machine.gpu
        needs = Needs(settings.llm_storage, measured, store.remember_memory, gpu=gpu)
        self.scheduler.watch_memory(
            Accounts(
                needs,
                capacity,
                environment.environ,
                lambda: flags_known(
                    _program(settings, environment.environ), environment.for_children
                ),
            ),
            limits_of(settings, capacity.budget),
        )

    async def _close_keys(self) -> None:
        if self.ring is not None:
            try:
                if self.responses is not None:
                    await self.responses.close()
                await self.accounting.close()
                if self.peers is not None:
                    await self.peers.close()
            finally:
                await self.ring.close()  # and with it the store

    async def reload(self) -> None:
        """Read models.json, the certificate and the keys again."""
        await self.library.refresh()
        await self.listeners.reload_certificate()
        if self.ring is not None:
            await self.ring.reload()

    async def drain(self, hurry: asyncio.Event) -> None:
        """Wait from the first signal to the last answer; leaving the ``async with`` closes all."""
        await drain(
            self.lifecycle,
            self.listeners,
            self.scheduler,
            timeout=self.settings.shutdown_timeout,
            hurry=hurry,
        )


def _forget_with_keys(
    conversations: Conversations | None,
    responses: KeptResponses | None,
    gate: KeyGate,
    ring: KeyRing,
) -> None:
    """Let a key's conversations and responses go with it, and now those of keys that went
    before.
    """
    before = gate.rights_changed

    def known(owner: str) -> bool:
        return owner in WITHOUT_KEY or ring.lookup.is_known(owner)

    def forget() -> None:
        if conversations is not None:
            conversations.forget_others(known)
        if responses is not None:
            responses.forget_others_soon(known)

    def changed() -> None:
        before()
        forget()

    gate.rights_changed = changed
    forget()


def _program(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the llama-server that will be used. Blocks."""
    try:
        return find_program(settings.llama_server, environ)
    except LoadFailed:  # reported at the start, and for each request of a model
        return ()


def _tell_no_program(settings: Settings, environ: Mapping[str, str]) -> None:
    """Warn now of a missing llama-server, and not only when a model is asked for. Blocks."""
    try:
        find_program(settings.llama_server, environ)
    except LoadFailed as error:
        _log.warning("no model can be loaded: %s", error.detail or error.message)


async def _open_store(settings: Settings, stopping: asyncio.Event) -> Store | None:
    """Return the store, or ``None`` if the gateway is to stop before the database server answers.

    At the start of a machine the server may come later than the gateway.
    """
    # SQLAlchemy takes longer to import than everything else: the listener is up by now.
    store_module = await asyncio.to_thread(importlib.import_module, "gateway.access.store")
    told = None
    while not stopping.is_set():
        try:
            store: Store = await store_module.Store.open(settings.store_at)
        except store_module.StoreUnreachable as error:
            if str(error) != told:
                _log.warning("waiting for the database: %s", error)
            told = str(error)
        else:
            return store
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AWAIT_STORE):
                await stopping.wait()
    return None


def _join(database: Secret, ring: KeyRing, accounting: Accounting) -> Peers:
    """Hear of other gateways with the same database, and tell them."""
    from gateway.access.peers import Peers  # only with PostgreSQL
    from gateway.access.shared_limits import SharedLimits

    limits = SharedLimits(accounting.limiter, ring.limits_of, accounting.count_elsewhere)
    peers = Peers(database, limits, ring.reload, accounting)
    accounting.before_writing = peers.tell
    peers.start()
    return peers


def _preload(scheduler: Scheduler, catalog: Catalog) -> None:
    async def load(model: str) -> None:
        with contextlib.suppress(GatewayError):  # logged by the backend
            await scheduler.load(model)

    for spec in catalog.models.values():
        if spec.preload:
            spawn(load(spec.name), name=f"preload {spec.name}")
