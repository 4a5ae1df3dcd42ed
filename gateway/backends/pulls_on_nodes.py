"""Pulls by the nodes of a cluster: begun for this gateway, in its list, and entered here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gateway.backends.hub_variables import hub_variables
from gateway.backends.nodes import NodePull, Nodes
from gateway.backends.pulls import Pull, Pulls, PullWish
from gateway.errors import CatalogBroken, GatewayError, LoadFailed
from gateway.models.paths import resolve_model_path
from gateway.problems import InvalidFiles

_log = logging.getLogger(__name__)


class PullsOnNodes:
    """The pulls of ``nodes`` in the list of ``pulls``.

    ``environ``: where a token for the hub may be; ``models_file``: where entries go to.
    """

    def __init__(
        self,
        nodes: Nodes,
        pulls: Pulls,
        environ: Callable[[], Mapping[str, str]],
        llm_storage: Path,
        models_file: Path,
    ) -> None:
        self.nodes = nodes
        self._pulls = pulls
        self._environ = environ
        self._llm_storage = llm_storage
        self._models_file = models_file
        nodes.pulls.found = self._follow

    async def begin(self, node: str, wish: PullWish) -> Pull:
        """Have ``node`` fetch what is wished, or return the pull that does so already.

        Raises :class:`.nodes.UnknownNode`, and other :class:`GatewayError` where it can't.
        """
        if (running := self._pulls.running(wish.model, wish.revision, node)) is not None:
            return running
        self._pulls.check_room()
        hub = await asyncio.to_thread(hub_variables, self._environ())
        return self._follow(await self.nodes.pulls.begin(node, wish, hub))

    def _follow(self, there: NodePull) -> Pull:
        return self._pulls.follow(there, partial(self._finish, there))

    async def _finish(self, there: NodePull, end: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write the entry of what is there."""
        if (entry := end.get("entry")) is None:
            return end
        file = str(entry["params"]["model"])
        here = await asyncio.to_thread(self._is_here, file)
        if not here and not self.nodes.pulls.others_have(there.node, file):
            entry = {**entry, "nodes": [there.node]}
        name = await asyncio.to_thread(self._enter, str(end["name"]), entry, there.wish.name)
        try:
            await there.named(name)
        except GatewayError as error:  # it asks again, and the entry is found then
            _log.info("the node %s can't be told of %s: %s", there.node, name, error.message)
        return {**end, "name": name, "entry": None}

    def _is_here(self, file: str) -> bool:
        try:
            return resolve_model_path(file, self._llm_storage).is_file()
        except LoadFailed:
            return False

    def _enter(self, proposed: str, entry: Mapping[str, Any], name: str | None) -> str:
        from gateway.backends import pulled  # few gateways ever need it

        try:
            return pulled.enter(self._models_file, proposed, entry, name)
        except InvalidFiles as error:
            raise CatalogBroken(f"its entry cannot be written: {error}") from None
