"""A node: one machine's llama-servers, its memory and its files, for gateways elsewhere.

It decides nothing: gateways order, and it tells what becomes of that. Only what belongs to nobody
any more it ends by itself: the llama-servers of a gateway that it has not heard of for
``orphan_after`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.backends.accounts import Accounts
from gateway.backends.backend import Environment
from gateway.backends.capacity import Capacity
from gateway.backends.command import find_program
from gateway.backends.flags_known import flags_known
from gateway.backends.machine import Machine, MachineReader
from gateway.backends.memory import Needs
from gateway.backends.placement import Demand, Memory
from gateway.backends.process import Records
from gateway.cluster import dismissal
from gateway.cluster.ca import Credentials, Request, client_context, renew, server_context
from gateway.cluster.condition import Condition, Examiner
from gateway.cluster.estimated import estimated
from gateway.cluster.files import has_files
from gateway.cluster.front import Front
from gateway.cluster.hosted import Hosted
from gateway.cluster.journal import Journal
from gateway.cluster.lent import Lent
from gateway.cluster.measured import Measured
from gateway.cluster.node_files import NodeFiles, copied_as
from gateway.cluster.node_pulls import NodePulls
from gateway.cluster.node_settings import NodeSettings
from gateway.cluster.offer import Offer
from gateway.cluster.ordered import Ordered
from gateway.cluster.rpc_program import NO_RPC
from gateway.cluster.slot_folder import SlotFolders
from gateway.cluster.told import Batch, Has, NodeState, Order, PullOrder, Stores, reservation
from gateway.errors import LoadFailed
from gateway.models.local_model import LocalModel
from gateway.private_files import make_folder
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

_log = logging.getLogger(__name__)

#: Seconds between two looks at the memory.
_LOOK = 15.0
_GRACE = 5.0


class Node:
    """The node ``name``. Used on one event loop; :meth:`open` before anything else."""

    def __init__(self, name: str, settings: NodeSettings) -> None:
        self.name = name
        self._settings = settings
        self._journal = Journal()
        self._servers: dict[str, Ordered] = {}
        self._heard: dict[str, float] = {}
        self._asking: Counter[str] = Counter()  # gateways that wait for an event
        self._tasks: list[asyncio.Task[None]] = []
        self._measured = Measured(settings.data_dir / "memory.json")
        self._certifying = asyncio.Lock()
        self._changed = asyncio.Event()  # what the memory depends on has changed
        self._sockets = 0
        self._saved = SlotFolders(settings.cache_dir)
        self._has = Has(Memory(), False, {})
        self._examiner = Examiner(settings.llama_server, settings.llm_storage)
        self._seen = NO_RPC, Condition()
        self._runtime = Path()
        self._capacity: Capacity
        self._accounts: Accounts
        self._environment: Environment
        self._request: Request
        self._fronts: dict[str, tuple[Front, ssl.SSLContext, int]] = {}  # by gateway
        self._ways: dict[str, ssl.SSLContext] = {}  # by gateway, to its other nodes
        self._credentials: dict[str, Credentials] = {}  # by gateway
        self._files = NodeFiles(
            name,
            settings.host,
            settings.llm_storage,
            settings.data_dir,
            lambda: dict(os.environ),
            self._tell_files,
        )
        self._pulls = NodePulls(
            self._files, self._journal, settings.llama_server, lambda: self._request
        )

    @property
    def boot(self) -> str:
        """What tells this life of the node from others."""
        return self._journal.boot

    @property
    def claims(self) -> tuple[str, ...]:
        """The reservations of its llama-servers. For any thread."""
        orders = [server.order for server in list(self._servers.values())]
        return tuple(reservation(order.gateway, order.server) for order in orders)

    @property
    def connections(self) -> int:
        """The number of connections that gateways have to its llama-servers."""
        return sum(server.connections for server in self._servers.values())

    # --- its life ------------------------------------------------------------------------------

    async def open(self) -> None:
        """End what an earlier life of this node left behind, and look at the machine."""
        settings = self._settings
        self._request = await asyncio.to_thread(Request.make)
        records = Records(settings.data_dir / "children")
        await asyncio.to_thread(self._make_folders, records)
        self._environment = Environment(
            llama_server=settings.llama_server,
            llm_storage=settings.llm_storage,
            runtime_dir=self._runtime,
            environ=dict(os.environ),
            records=records,
            load_timeout=settings.load_timeout,
            stop_grace=_GRACE,
        )
        reader = MachineReader()

        def read() -> Machine:
            return reader.read(self._program(), self._environment.for_children)

        self._capacity = Capacity(read, None)
        await self._capacity.look()
        measured = await asyncio.to_thread(self._measured.read)
        needs = Needs(
            settings.llm_storage, measured, self._measured.remember, gpu=self._capacity.machine.gpu
        )
        self._accounts = Accounts(
            needs,
            self._capacity,
            self._environment.environ,
            lambda: flags_known(self._program(), self._environment.for_children),
        )
        self._seen = await self._examiner.look(self._environment.for_children)
        await self._saved.look()
        self._see()
        await self._files.open()
        self._tasks = [
            spawn_lasting(self._watch_memory, name="look at the memory"),
            spawn_lasting(self._watch_gateways, name="look for gateways"),
        ]

    async def close(self) -> None:
        """End every llama-server."""
        await cancel_and_wait(*self._tasks)
        await asyncio.gather(*(server.stop() for server in self._servers.values()))
        await asyncio.gather(
            self._files.close(), *(front.close() for front, _, _ in self._fronts.values())
        )
        await asyncio.to_thread(shutil.rmtree, self._runtime, ignore_errors=True)

    def _make_folders(self, records: Records) -> None:
        make_folder(self._settings.data_dir)
        for name in records.reap_leftovers():
            _log.warning("ended the llama-server of %s, which was left behind", name)
        self._runtime = Path(tempfile.mkdtemp(prefix="llm-node-"))

    def _program(self) -> tuple[str, ...]:
        try:
            return find_program(self._settings.llama_server, self._environment.environ)
        except LoadFailed:
            return ()

    # --- what gateways ask ---------------------------------------------------------------------

    async def state(self, gateway: str) -> NodeState:
        """Return all of it, for a gateway that knows nothing of it yet."""
        self._hear(gateway)
        return NodeState(
            self.name,
            self._journal.boot,
            self._journal.last,
            self._settings.host,
            __version__,
            self._request.text,
            self._has,
            Stores(dict(self._files.files)),
            tuple(server.state for server in self._servers.values() if not server.over),
            self._pulls.states(gateway),
            time.time(),
        )

    async def events(self, gateway: str, boot: str, after: int, wait: float) -> Batch:
        """Return what has happened since event ``after``; waits up to ``wait`` seconds for
        something.
        """
        self._asking[gateway] += 1
        asking = self._asking[gateway]
        try:
            batch = await self._journal.after(boot, after, wait)
            return replace(batch, asking=max(asking, self._asking[gateway]))
        finally:
            self._asking[gateway] -= 1
            self._hear(gateway)

    async def certify(self, gateway: str, certificate: bytes, authorities: bytes) -> int:
        """Take a certificate of ``gateway``'s for our key, which its front shows from now on.

        Returns the port of that front: each gateway has its own, which trusts its authority alone.
        Raises ValueError for a certificate that is for another key.
        """
        self._hear(gateway)
        credentials = self._request.granted(certificate, authorities)
        self._credentials[gateway] = credentials
        async with self._certifying:  # two gateways of a group may come at once
            if (known := self._fronts.get(gateway)) is not None:
                for shown in (known[1], self._ways[gateway]):
                    await asyncio.to_thread(renew, shown, credentials)
                return known[2]
            self._ways[gateway] = await asyncio.to_thread(client_context, credentials)
            context = await asyncio.to_thread(server_context, credentials)
            front = Front(context)
            port = await front.listen(self._settings.host)
            self._fronts[gateway] = front, context, port
            return port

    async def lacks(self, spec: LocalModel) -> list[str]:
        """Return which files of ``spec`` are missing, by their paths in another's storage.

        Raises :class:`CopyFailed` for one that can't be copied.
        """
        return [path for one in await self._files.missing(spec) if (path := copied_as(one))]

    async def demand(self, spec: LocalModel, gpu: bool | None = None) -> Demand | None:
        """Return what ``spec`` needs here, ``None`` where one of its files is missing.

        ``gpu``: on a machine with or without one, in place of this.
        """
        if gpu is not None:
            return await estimated(spec, self._settings.llm_storage, gpu=gpu)
        if not await asyncio.to_thread(has_files, spec, self._settings.llm_storage):
            return None
        await self._accounts.need_of(spec)
        return self._accounts.demand(spec)

    async def give(self, gateway: str, spec: LocalModel, wanted: Sequence[str]) -> Offer | None:
        """Give other nodes of ``gateway``'s those of the ``wanted`` files of ``spec`` that are
        here, if any. Raises :class:`CopyFailed`.
        """
        self._hear(gateway)
        return await self._files.give(spec, wanted, self._credentials[gateway])

    async def take_back(self, offer: str) -> None:
        """End an offer, by its id."""
        await self._files.take_back(offer)

    async def start(self, order: Order) -> None:
        """Begin to start a llama-server, or an rpc-server.

        An order that has been carried out changes nothing.
        """
        self._hear(order.gateway)
        if order.server in self._servers:
            return
        front, _, _ = self._fronts[order.gateway]
        self._sockets += 1
        socket = self._runtime / f"{self._sockets}.sock"
        environment = replace(
            self._environment,
            load_timeout=order.load_timeout,
            metrics=order.metrics,
            slot_saves=self._saved.of(order.gateway) if order.slots else None,
        )
        server: Ordered
        if order.lends:
            server = Lent(order, environment, self._journal, front, self.name, self._program())
        else:
            credentials = self._credentials[order.gateway]
            server = Hosted(
                order,
                environment,
                self._accounts,
                self._journal,
                front.add(socket),
                socket,
                partial(self._files.fetch, order.spec, order.offers, credentials),
                self._ways[order.gateway],
            )
        self._servers[order.server] = server
        server.begin()
        spawn(self._follow(order.server, server), name=f"follow {order.spec.name}")

    async def dismiss(self) -> None:
        """Tell who has joined with this node that it was removed."""
        if (file := self._settings.dismissal) is not None:
            dismissal.tell(file)

    async def saved(self, gateway: str, what: str, *arguments: Any) -> Any:
        """Do something to what is saved here for ``gateway``: see :meth:`SlotFolder.ask`."""
        return await asyncio.to_thread(self._saved.of(gateway).ask, what, *arguments)

    async def pull(self, order: PullOrder) -> None:
        """Begin to fetch a model from the hub. Raises :class:`Unavailable`: too many."""
        self._hear(order.gateway)
        self._pulls.begin(order)

    async def end_pull(self, pull: str, discard: bool) -> None:
        """End a pull, or forget one that has ended. ``discard``: delete what has come of it."""
        await self._pulls.end(pull, discard=discard)

    async def pull_named(self, pull: str, name: str) -> None:
        """Note that a pull has its entry, under ``name``."""
        self._pulls.named(pull, name)

    async def stop(self, server: str, patience: float = 0.0) -> None:
        """End a llama-server, and return when nothing of it is left.

        ``patience``: seconds that other gateways' requests may take to end.
        """
        if (found := self._servers.get(server)) is not None:
            await found.stop(patience)

    async def stop_unused(self, server: str) -> None:
        """End an rpc-server if no llama-server is connected to it."""
        found = self._servers.get(server)
        if isinstance(found, Lent) and found.unused:
            await found.stop()

    async def kill(self, server: str) -> None:
        """Kill the process of a llama-server."""
        if (found := self._servers.get(server)) is not None:
            found.kill()

    async def _follow(self, name: str, server: Ordered) -> None:
        await server.over_with()
        del self._servers[name]
        self._changed.set()

    # --- what it looks at ----------------------------------------------------------------------

    def _hear(self, gateway: str) -> None:
        self._heard[gateway] = time.monotonic()

    async def _watch_gateways(self) -> None:
        patience = self._settings.orphan_after
        while True:
            await asyncio.sleep(min(patience / 4, 5.0))
            for server in list(self._servers.values()):
                server.tell_use()
                if self._is_gone(server.order.gateway):
                    _log.warning(
                        "ending the llama-server of %s: its gateway is gone",
                        server.order.spec.name,
                    )
                    server.stop()
            await self._pulls.leave(self._is_gone)

    def _is_gone(self, gateway: str) -> bool:
        """Return whether a gateway has not been heard of for too long."""
        now = time.monotonic()
        silent = now - self._heard.get(gateway, now)
        return not self._asking[gateway] and silent > self._settings.orphan_after

    async def _watch_memory(self) -> None:
        while True:
            self._changed.clear()
            residents = [one.resident for one in self._servers.values()]
            await self._accounts.look([one for one in residents if one is not None])
            self._seen = await self._examiner.look(self._environment.for_children)
            await self._saved.look()
            self._see()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._changed.wait()

    def _tell_files(self) -> None:
        self._journal.add(Stores(dict(self._files.files)))

    def _see(self) -> None:
        """Tell what there is, if that is worth it."""
        memory, report = self._capacity.memory, self._capacity.report()
        gpu = self._capacity.machine.gpu
        has = Has(memory, gpu, report, *self._seen, self._saved.room)
        if not has.alike(self._has):
            self._has = has
            self._journal.add(has)
