"""The registry of nodes: who is there, and which gateway places models. Held by one Ray actor.

Nodes announce themselves, again and again, so that a registry that was started anew knows all of
them within seconds. That a node is gone, it need not know: gateways hear that from the node's own
actor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.cluster.told import Members, Wanted

#: Seconds between two announcements of a node, and how long a question waits for news.
ANNOUNCE_EVERY = 10.0
_WAIT = 20.0
#: Seconds after which what is reserved for a llama-server that no node has is for none that is to
#: come, either: who begins a load waits for less.
_UNCLAIMED = 120.0
#: Seconds for which the right to place models holds without being asked for again.
LEASE = 10.0
#: Seconds after which what nobody asks for any more is forgotten. Who wants it asks again at once.
_UNWANTED = 10.0


@dataclass(slots=True)
class _Want:
    """A model that is wanted: by how many now, and when somebody did last (monotonic)."""

    answer: asyncio.Future[tuple[str, str] | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    asking: int = 0
    asked: float = 0.0


class Registry:
    """A registry. Used on one event loop."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}  # the boot of each
        self._removed: dict[str, str] = {}
        self._drained: dict[str, frozenset[str]] = {}  # by group
        self._version = 0
        self._news = asyncio.Event()
        self._placing: dict[str, tuple[str, float]] = {}
        self._wanted: dict[str, _Want] = {}
        self._want = asyncio.Event()
        self._claimed: dict[str, float] = {}  # by reservation, when a node said last that it is its

    async def announce(self, node: str, boot: str, claims: Iterable[str] = ()) -> bool:
        """Note that a node is there, in this life of it; return False if it was removed.

        ``claims``: the reservations of the llama-servers that it has.
        """
        self._claimed |= dict.fromkeys(claims, time.monotonic())
        if self._removed.get(node) == boot:  # said before it ended, and late
            return False
        if self._nodes.get(node) != boot:
            self._nodes[node] = boot
            self._removed.pop(node, None)
            self._tell()
        return True

    async def leave(self, node: str, boot: str = "") -> None:
        """Forget a node, which won't come back by itself. ``boot``: its last life, if it was there
        before the registry was.
        """
        if boot := self._nodes.pop(node, boot):
            self._removed[node] = boot
            self._tell()

    async def drain(self, group: str, node: str, drained: bool) -> None:
        """Note that a node takes no more models of ``group``, or takes them again."""
        before = self._drained.get(group, frozenset())
        self._drained[group] = before | {node} if drained else before - {node}
        self._tell()

    async def drained_before(self, group: str, nodes: frozenset[str]) -> None:
        """Note which are drained for ``group``, if that isn't known: this was started anew."""
        if group not in self._drained:
            self._drained[group] = nodes
            self._tell()

    def unclaimed(self, reservations: Iterable[str]) -> list[str]:
        """Return which of all ``reservations`` have been nobody's for two minutes."""
        now = time.monotonic()
        self._claimed = {name: self._claimed.get(name, now) for name in reservations}
        return [name for name, last in self._claimed.items() if now - last > _UNCLAIMED]

    async def nodes(self, version: int, group: str = "") -> Members:
        """Return which there are, when they are others than at ``version``, or after 20 s, with
        what is drained for ``group``.
        """
        if version == self._version:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await self._news.wait()
        return Members(
            self._version, dict(self._nodes), dict(self._removed), self._drained.get(group)
        )

    async def place(self, group: str, gateway: str) -> bool:
        """Return whether ``gateway`` may place models for the next 10 s: one of a group may."""
        now = time.monotonic()
        holder, until = self._placing.get(group, ("", 0.0))
        if holder == gateway or until < now:
            self._placing[group] = holder, _ = gateway, now + LEASE
        return holder == gateway

    async def yield_place(self, group: str, gateway: str) -> None:
        """Let another gateway place models at once: ``gateway`` ends."""
        if self._placing.get(group, ("", 0.0))[0] == gateway:
            del self._placing[group]

    async def want(self, group: str, model: str) -> Wanted:
        """Have the gateway of ``group`` that places models load one; returns when it has, or after
        20 s: whoever still wants it then asks again.
        """
        self._forget_unwanted()
        name = f"{group}/{model}"
        if (want := self._wanted.get(name)) is None:
            want = self._wanted[name] = _Want()
            self._want.set()
        want.asking += 1
        try:
            async with asyncio.timeout(_WAIT):
                error = await asyncio.shield(want.answer)
        except TimeoutError:
            return Wanted(over=False)
        finally:
            want.asking -= 1
            want.asked = time.monotonic()
        return Wanted(over=True, error=error)

    async def wanted(self, group: str) -> list[str]:
        """Return the models that gateways of ``group`` want, when there are any, or after 20 s."""
        names = self._names(group)
        if not names:
            self._want.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await self._want.wait()
            names = self._names(group)
        return names

    async def answer(self, group: str, model: str, error: tuple[str, str] | None) -> None:
        """Tell those who want a model that it is loaded, or why it can't be: its code and text.

        It isn't kept: whoever asks later is told what is so then.
        """
        if (want := self._wanted.pop(f"{group}/{model}", None)) is not None:
            want.answer.set_result(error)

    def _names(self, group: str) -> list[str]:
        self._forget_unwanted()
        prefix = f"{group}/"
        return [name.removeprefix(prefix) for name in self._wanted if name.startswith(prefix)]

    def _forget_unwanted(self) -> None:
        """Forget what nobody waits for any more."""
        least = time.monotonic() - _UNWANTED
        for name, want in list(self._wanted.items()):
            if not want.asking and want.asked < least:
                del self._wanted[name]

    def _tell(self) -> None:
        self._version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()
