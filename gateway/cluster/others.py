"""The llama-servers on a node that gateways of the same group have there, and this one doesn't
use (yet).
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.cluster.told import (
    Began,
    Exited,
    NotStarted,
    Order,
    Ready,
    ServerState,
    Stopped,
    Stopping,
)
from gateway.models.local_model import LocalModel


class Others:
    """The others of one node, by the id of their llama-server."""

    def __init__(self) -> None:
        self._loading: dict[str, Order] = {}
        self._spare: dict[str, ServerState] = {}

    def clear(self) -> None:
        """Know none: the node is lost, or is asked for all that it has."""
        self._loading.clear()
        self._spare.clear()

    def note(self, one: ServerState) -> None:
        """Note one that loads, or is ready and not wanted here for now."""
        if one.ready is None:
            self._loading[one.order.server] = one.order
        else:
            self._spare[one.order.server] = one

    def hear(self, event: object, group: str) -> ServerState | None:
        """Take an event of one of ``group``; returns it if it is ready now."""
        match event:
            case Began() if event.order.gateway == group and not event.order.lends:
                self._loading[event.server] = event.order
            case Stopping() | NotStarted() | Exited() | Stopped():
                self._loading.pop(event.server, None)
                self._spare.pop(event.server, None)
            case Ready() if (order := self._loading.pop(event.server, None)) is not None:
                return ServerState(order, event, ())
        return None

    def loads(self, model: str) -> bool:
        """Return whether one for ``model`` loads."""
        return any(order.spec.name == model for order in self._loading.values())

    def take(self, spec: LocalModel, used: Mapping[str, object]) -> ServerState | None:
        """Return one that is ready and made from ``spec``, which is no other any more."""
        for server, one in self._spare.items():
            same = one.order.spec.process_identity() == spec.process_identity()
            if same and one.order.spec.name == spec.name and server not in used:
                return self._spare.pop(server)
        return None
