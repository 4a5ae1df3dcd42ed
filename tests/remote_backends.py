"""Remote backends that tell when they change, and what comes of an exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.backends.backend import Backend
from gateway.backends.remote import RemoteBackend
from gateway.errors import GatewayError
from gateway.models.catalog import parse_catalog
from gateway.models.remote_model import RemoteModel
from gateway.upstream import Fetched, ResponseHead, UpstreamError, UpstreamRequest
from tests.remote_server import RemoteServer
from tests.scripted import Box

CHAT = "/v1/chat/completions"


def spec_of(*servers: RemoteServer | str, name: str = "m", **entry: Any) -> RemoteModel:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    text = json.dumps({name: {"url": urls, "modelName": "there", **entry}})
    spec = parse_catalog(text).models[name]
    assert isinstance(spec, RemoteModel)
    return spec


class WatchedRemote(RemoteBackend):
    """A backend, and a wait for what it or its servers become."""

    def __init__(self, spec: RemoteModel, box: Box, **environment: Any) -> None:
        self._told = asyncio.Event()
        super().__init__(spec, box.environment(**environment), self.note)

    def note(self, backend: Backend) -> None:
        self._told.set()

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._told.clear()
                await self._told.wait()

    def up(self) -> list[bool]:
        return [server.up for server in self.servers]

    async def ask(self, path: str = CHAT) -> Fetched:
        return await self.pool.fetch(UpstreamRequest("POST", path, body=b"{}"), timeout=20)


class Sink:
    """What came of one exchange."""

    def __init__(self) -> None:
        self.done: asyncio.Future[ResponseHead] = asyncio.get_running_loop().create_future()

    def on_head(self, head: ResponseHead) -> None:
        self.head = head

    def on_body(self, data: bytes) -> None:
        pass

    def on_end(self) -> None:
        self.done.set_result(self.head)

    def on_error(self, error: UpstreamError) -> None:
        self.done.set_exception(error)


async def failure(backend: WatchedRemote) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await backend.ensure_ready()
    return caught.value
