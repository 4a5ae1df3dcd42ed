"""The gateways that share their models: which of them places models, and what others want of it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.cluster.link import Link
from gateway.cluster.registry import LEASE
from gateway.cluster.told import REGISTRY, Wanted
from gateway.errors import GatewayError, LoadFailed
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting

_log = logging.getLogger(__name__)

#: Seconds between two times that the right to place models is asked for.
_EVERY: Final = 3.0
_AGAIN: Final = 1.0


class Group:
    """The group of gateways with the identity ``name``, as one of them sees it.

    ``load`` loads a model for another gateway. ``changed`` is called when this gateway may place
    models, or may no longer.
    """

    def __init__(
        self,
        name: str,
        link: Link,
        *,
        load: Callable[[str], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self._name = name
        self._link = link
        self._load = load
        self._changed = changed
        self._me = secrets.token_hex(8)
        self._until = 0.0
        self._was = False
        self._placing = asyncio.Event()
        self._tasks = [
            spawn_lasting(self._hold, name="hold the right to place models"),
            spawn_lasting(self._serve, name="load what other gateways want"),
        ]

    @property
    def places(self) -> bool:
        """Whether this gateway may place models now."""
        return time.monotonic() < self._until

    async def placing(self) -> None:
        """Return when this gateway may place models."""
        await self._placing.wait()

    async def want(self, model: str) -> tuple[str, str] | None:
        """Have ``model`` loaded by the gateway that places, however long that takes.

        Returns what that says where it can't: the code of the error, and its text.
        """
        while True:
            said: Wanted = await self._link.call(REGISTRY, "want", self._name, model)
            if said.over:
                return said.error

    async def close(self) -> None:
        """Let another gateway place models."""
        await cancel_and_wait(*self._tasks)
        if self.places:
            self._until = 0.0
            try:
                async with asyncio.timeout(1):
                    await self._link.call(REGISTRY, "yield_place", self._name, self._me)
            except (GatewayError, TimeoutError):
                pass  # it ends by itself, in 10 s

    async def _hold(self) -> None:
        while True:
            asked = time.monotonic()
            try:
                if await self._link.call(REGISTRY, "place", self._name, self._me):
                    self._until = asked + LEASE
                else:
                    self._until = 0.0
            except GatewayError:
                pass  # for as long as the lease holds: nobody else gets it before
            if self._was != self.places:
                self._was = self.places
                (self._placing.set if self._was else self._placing.clear)()
                _log.info("this gateway %s models", "places" if self._was else "doesn't place")
                self._changed()
            await asyncio.sleep(_EVERY if asked < self._until else _AGAIN)

    async def _serve(self) -> None:
        loading: set[str] = set()

        async def load(model: str) -> None:
            error: tuple[str, str] | None = None
            try:
                await self._load(model)
            except GatewayError as failed:
                error = failed.code, failed.public
            finally:
                loading.discard(model)
            try:
                await self._link.call(REGISTRY, "answer", self._name, model, error)
            except GatewayError as lost:
                _log.info("who wanted %s can't be told: %s", model, lost.message)

        while True:
            if not self.places:
                await asyncio.sleep(_AGAIN)
                continue
            try:
                wanted = await self._link.call(REGISTRY, "wanted", self._name)
            except GatewayError:
                await asyncio.sleep(_AGAIN)
                continue
            for model in wanted:
                if model not in loading and self.places:
                    loading.add(model)
                    spawn(load(model), name=f"load {model} for another gateway")
            if set(wanted) <= loading:
                await asyncio.sleep(_AGAIN if wanted else 0)


async def nobody_loads(model: str) -> None:
    """Refuse to load a model for another gateway."""
    raise LoadFailed(f"this gateway is not ready to load {model!r}")
