"""The pulls of a gateway on nodes, as the gateway knows them."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from gateway.backends.nodes import NodePull
from gateway.backends.pulls import PullWish, Told
from gateway.cluster.link import Refused, Unreachable
from gateway.cluster.sealed import seal
from gateway.cluster.told import Pulling, PullOrder
from gateway.errors import Unavailable
from gateway.secret import Secret

#: How many that have ended are known, so that what is told of them again is not taken for new.
_KNOWN: Final = 200
_LOST: Final = "node_lost"


class There(Protocol):
    """The node of a pull: see :class:`gateway.cluster.known_node.KnownNode`."""

    name: str
    up: bool
    problem: str | None
    request: bytes
    files: dict[str, int]

    async def ask(self, what: str, /, *arguments: Any) -> Any: ...


class RemotePull:
    """A pull on ``there``, told of by events."""

    def __init__(self, there: There, id_: str, wish: PullWish, created: float) -> None:
        self.id = id_
        self.node = there.name
        self.wish = wish
        self.created = created
        self._there = there
        self._told: Mapping[str, Any] = {"stage": "waiting"}
        self._news = asyncio.Event()
        self.over = False
        #: Whether it is over for us because its node could not be heard: it may go on there.
        self.lost = False

    async def follow(self, told: Told) -> Mapping[str, Any]:
        """Tell how it goes; returns the last that there is to tell."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self.over:
                return self._told
            told(self._told)

    async def end(self, *, discard: bool) -> None:
        """End it there, or forget one that has ended."""
        await _asked(self._there, "end_pull", self.id, discard)

    async def named(self, name: str) -> None:
        """Tell the node that it has its entry, under ``name``."""
        await _asked(self._there, "pull_named", self.id, name)

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take what the node tells."""
        self._told = told
        self.over = told["stage"] in ("done", "failed", "ended")
        self._news.set()

    def lose(self, why: str) -> None:
        """Note that nothing more will be heard of it."""
        if not self.over:
            error = {"message": f"its node {self.node!r} {why}", "code": _LOST}
            self.hear({"stage": "failed", "error": error})
            self.lost = True


class RemotePulls:
    """The pulls of one gateway on ``nodes``."""

    def __init__(self, nodes: Mapping[str, There]) -> None:
        self._nodes = nodes
        #: The identity of the gateway.
        self.gateway = ""
        #: Called with one that runs on a node, and that an earlier life of this gateway, or another
        #: one of its group, has begun.
        self.found: Callable[[NodePull], object] = lambda pull: None
        self._pulls: dict[str, RemotePull] = {}

    async def begin(self, name: str, wish: PullWish, hub: Mapping[str, str]) -> RemotePull:
        """Have a node fetch a model. ``hub``: see :func:`.hub_variables.hub_variables`.

        Raises :class:`Unreachable`, and :class:`Unavailable`: too many.
        """
        node = self._nodes.get(name)
        if node is None:
            raise Unreachable(f"the node {name!r} was removed")
        if not node.up:
            raise Unreachable(f"the node {node.name!r} is away: {node.problem}")
        sealed = None
        if hub:
            text = Secret(json.dumps(dict(hub)))
            sealed = await asyncio.to_thread(seal, text, node.request)
        id_, created = secrets.token_hex(4), round(time.time(), 3)
        pull = self._pulls[id_] = RemotePull(node, id_, wish, created)
        try:
            await _asked(node, "pull", PullOrder(id_, self.gateway, wish, sealed))
        except BaseException:
            del self._pulls[id_]
            raise
        return pull

    def met(self, node: There, states: tuple[Pulling, ...]) -> None:
        """Take all that ``node`` has; what it doesn't know any more is lost."""
        there = {one.pull for one in states}
        for pull in self._pulls.values():
            if pull.node == node.name and pull.id not in there:
                pull.lose("has started anew without it")
        for state in states:
            self.hear(node, state)

    def hear(self, node: There, event: Pulling) -> None:
        """Take an event of ``node``."""
        if event.gateway != self.gateway:
            return
        told = dict(event.told)
        told["entry"] = event.entry
        pull = self._pulls.get(event.pull)
        if pull is None or pull.lost:  # one that was lost is there again
            if _settled(event):
                return
            pull = RemotePull(node, event.pull, event.wish, event.created)
            self._pulls[event.pull] = pull
            over = [id_ for id_, one in self._pulls.items() if one.over]
            for old in over[: max(0, len(over) - _KNOWN)]:
                del self._pulls[old]
            pull.hear(told)
            self.found(pull)
        elif not pull.over:
            pull.hear(told)

    def others_have(self, name: str, file: str) -> bool:
        """Return whether a node other than ``name`` has a file, by its path below llm_storage."""
        return any(file in node.files for node in self._nodes.values() if node.name != name)

    def lose(self, node: str, why: str) -> None:
        """Note that ``node`` is lost."""
        for pull in self._pulls.values():
            if pull.node == node:
                pull.lose(why)


def _settled(state: Pulling) -> bool:
    """Return whether nothing is left to do about it: it has failed, or has its entry."""
    return state.told["ended"] is not None and state.entry is None


async def _asked(node: There, what: str, *arguments: Any) -> None:
    try:
        await node.ask(what, *arguments)
    except Refused as error:
        if error.kind == "Unavailable":
            raise Unavailable(f"the node {node.name!r}: {error.message}") from None
        raise Unreachable(f"the node {node.name!r} refuses it: {error.message}") from error
