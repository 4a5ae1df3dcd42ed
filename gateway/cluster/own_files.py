"""The model files of the gateway's own machine, which nodes may copy."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.backends.placement import Demand
from gateway.cluster.ca import Credentials
from gateway.cluster.copying import Offers
from gateway.cluster.estimated import estimated
from gateway.cluster.files import given
from gateway.cluster.node_source import CopyFailed
from gateway.cluster.offer import Offer
from gateway.models.local_model import LocalModel
from gateway.names import HERE


class OwnFiles:
    """What is below ``llm_storage``. ``hashes``: the file that hashes are remembered in.

    ``credentials`` makes what the process shows that gives them. Blocks.
    """

    def __init__(
        self, llm_storage: Path, hashes: Path, credentials: Callable[[], Credentials]
    ) -> None:
        self._storage = llm_storage.expanduser().absolute()
        self._hashes = hashes
        self._credentials = credentials
        self._offers: dict[str, Offers] = {}  # by the address of ours that they are at

    async def demand(self, spec: LocalModel, *, gpu: bool) -> Demand | None:
        """Return what ``spec`` needs on a node; None: its files aren't here."""
        return await estimated(spec, self._storage, gpu=gpu)

    def towards(self, host: str) -> OwnSource:
        """Return what gives files to the node at ``host``."""
        return OwnSource(self, host)

    async def close(self) -> None:
        """End every offer."""
        await asyncio.gather(*(offers.close_all() for offers in self._offers.values()))

    async def give(self, spec: LocalModel, wanted: Sequence[str], host: str) -> Offer | None:
        """Give those of the ``wanted`` files of ``spec`` that are here, if any, to who is at
        ``host``. Raises :class:`CopyFailed`.
        """
        here = await asyncio.to_thread(given, spec, self._storage)
        files = {path: here[path] for path in wanted if path in here}
        if not files:
            return None
        try:
            address = await asyncio.to_thread(address_towards, host)
        except OSError as error:
            raise CopyFailed(f"there is no way to {host}: {error.strerror}") from None
        if (offers := self._offers.get(address)) is None:
            offers = Offers(HERE, address, lambda: dict(os.environ), self._hashes)
            self._offers[address] = offers
        return await offers.open(files, await asyncio.to_thread(self._credentials))

    async def take_back(self, offer: str) -> None:
        """End an offer, by its id."""
        for offers in self._offers.values():
            await offers.close(offer)


class OwnSource:
    """The files of the gateway's machine for one node, asked as a node is for its own."""

    def __init__(self, files: OwnFiles, host: str) -> None:
        self._files = files
        self._host = host

    async def ask(self, what: str, /, *arguments: Any) -> Any:
        """Give files, or take an offer back: see :mod:`.offering`."""
        if what == "give":
            _gateway, spec, wanted = arguments
            return await self._files.give(spec, wanted, self._host)
        assert what == "take_back"
        return await self._files.take_back(*arguments)


def address_towards(host: str) -> str:
    """Return the address of this machine that ``host`` sees it at. Blocks; sends nothing.

    Raises ``OSError`` where there is no way to it.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        ours: str = probe.getsockname()[0]
        return ours
