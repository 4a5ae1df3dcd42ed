"""The pulls that gateways order on a node: begun, told of through its journal, and ended."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.backends.pulls import Pull
from gateway.cluster.ca import Request
from gateway.cluster.journal import Journal
from gateway.cluster.node_files import NodeFiles
from gateway.cluster.sealed import unseal
from gateway.cluster.told import Pulling, PullOrder

_log = logging.getLogger(__name__)

#: Seconds between two events of a pull that only has more bytes.
_OFTEN: Final = 1.0
#: How many orders are remembered whose pull has ended.
_REMEMBERED: Final = 50


@dataclass(slots=True, eq=False)
class _Ordered:
    """What was ordered and what does it: the same for several gateways that want the same."""

    order: PullOrder
    pull: Pull
    left: bool = False  # its gateway wants it no more, but another one does
    name: str | None = None
    told: tuple[object, ...] = ()
    told_at: float = 0.0

    @property
    def over(self) -> bool:
        return self.left or self.pull.over

    @property
    def event(self) -> Pulling:
        order, report, entry = self.order, self.pull.report(), self.pull.entry
        if self.left:
            report |= {"stage": "ended", "ended": time.time(), "speed": None, "seconds_left": None}
        if self.name is not None:
            report, entry = report | {"name": self.name}, None
        return Pulling(order.id, order.gateway, order.wish, self.pull.created, report, entry)


class NodePulls:
    """The pulls of a node into ``files``. ``request``: of whose key secrets are for the node.

    ``llama_server``: its setting, as the machine's devices are asked by that.
    """

    def __init__(
        self, files: NodeFiles, journal: Journal, llama_server: str, request: Callable[[], Request]
    ) -> None:
        self._files = files
        self._journal = journal
        self._llama_server = llama_server
        self._request = request
        self._ordered: dict[str, _Ordered] = {}
        files.pulls.subscribe(self._look)

    def begin(self, order: PullOrder) -> None:
        """Begin a pull. An order that has been carried out changes nothing.

        Raises :class:`Unavailable`: too many.
        """
        if order.id in self._ordered:
            return
        hub: dict[str, str] = {}
        if order.hub is not None:
            hub = json.loads(unseal(order.hub, self._request()).reveal())
        pull = self._files.pull(order.wish, self._llama_server, hub)
        over = [id_ for id_, one in self._ordered.items() if one.over]
        for old in over[: max(0, len(over) - _REMEMBERED)]:
            del self._ordered[old]
        self._ordered[order.id] = _Ordered(order, pull)
        self._look()

    async def end(self, id_: str, *, discard: bool) -> None:
        """End one, or forget one that has ended. Another gateway that wants the same keeps it."""
        one = self._ordered.get(id_)
        if one is None:
            return
        if one.over:
            del self._ordered[id_]
        shared = any(
            other.pull is one.pull and not other.over
            for other in self._ordered.values()
            if other is not one
        )
        one.left = shared
        if not shared and (discard or not one.pull.over):
            await self._files.end_pull(one.pull, discard=discard)
        self._look()

    def named(self, id_: str, name: str) -> None:
        """Note what the model is called in its gateway's models.json: it has its entry."""
        if (one := self._ordered.get(id_)) is not None:
            one.name = name
            self._look()

    def states(self, gateway: str) -> tuple[Pulling, ...]:
        """Return those of a gateway, of which it may know nothing."""
        return tuple(one.event for one in self._ordered.values() if one.order.gateway == gateway)

    async def leave(self, gone: Callable[[str], bool]) -> None:
        """End those of gateways that are ``gone``."""
        for id_, one in list(self._ordered.items()):
            if not one.over and gone(one.order.gateway):
                _log.warning("ending the pull of %s: its gateway is gone", one.order.wish.model)
                await self.end(id_, discard=False)

    def _look(self) -> None:
        """Tell what is new, of bytes alone not at once."""
        now = time.monotonic()
        for one in self._ordered.values():
            event = one.event
            told = _worth_telling(event.told)
            if told != one.told or (now - one.told_at >= _OFTEN and not one.over):
                one.told, one.told_at = told, now
                self._journal.add(event)


def _worth_telling(told: dict[str, Any]) -> tuple[object, ...]:
    return tuple(told[name] for name in ("stage", "file", "total", "note", "name"))
