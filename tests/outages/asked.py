"""What tests ask of a gateway, and what they wait for it to say."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

#: Seconds for Ray to do something, on a busy machine.
LONG = 90.0
NODES = ("attic", "cellar")


class Asked:
    """A gateway, by ``session``."""

    session: aiohttp.ClientSession

    def request(self, method: str, path: str, **options: Any) -> Any:
        return self.session.request(method, path, **options)

    async def json(self, method: str, path: str, **options: Any) -> Any:
        async with self.request(method, path, **options) as response:
            return await response.json()

    async def chat(self, model: str, **fields: Any) -> tuple[int, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
        async with self.request("POST", "/v1/chat/completions", json=body) as response:
            return response.status, await response.json()

    @contextlib.asynccontextmanager
    async def stream(self, model: str, **fields: Any) -> AsyncIterator[aiohttp.StreamReader]:
        """The answer to a streamed request, from the first byte on."""
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": model, "messages": messages, "stream": True, **fields}
        async with self.request("POST", "/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()
            yield response.content

    async def model(self, name: str) -> Any:
        models = (await self.json("GET", "/admin/models"))["models"]
        return next(model for model in models if model["name"] == name)

    async def in_state(self, name: str, *states: str) -> Any:
        async with asyncio.timeout(LONG):
            while (model := await self.model(name))["state"] not in states:
                await asyncio.sleep(0.05)  # no route tells of it
        return model

    async def unload(self, name: str) -> None:
        async with self.request("POST", "/unloadModel", params={"model": name}) as response:
            assert response.status == 200, await response.text()

    async def put(self, name: str, entry: Any) -> None:
        """Make the entry of a model what ``entry`` is."""
        async with self.request("PUT", f"/admin/models/{name}", json=entry) as response:
            assert response.status in (200, 201), await response.text()

    async def left_of(self, node: str) -> int:
        """The bytes that a node without a GPU has left for models."""
        nodes = (await self.json("GET", "/admin/nodes"))["nodes"]
        (device,) = next(one["devices"] for one in nodes if one["name"] == node)
        return int(device["left"])

    async def drain(self, node: str) -> None:
        await self._change(node, "drain")

    async def resume(self, node: str) -> None:
        await self._change(node, "resume")

    async def _change(self, node: str, what: str) -> None:
        async with self.request("POST", f"/admin/nodes/{node}/{what}") as response:
            assert response.status == 200, await response.text()

    async def busy(self, name: str) -> None:
        """Wait until a model has a request."""
        async with asyncio.timeout(LONG):
            while not (await self.model(name))["in_flight"]:
                await asyncio.sleep(0.05)  # no route tells of it

    async def head_is_said_to_be(self, *, away: bool) -> None:
        async with asyncio.timeout(LONG):
            while True:
                problem = (await self.json("GET", "/admin/nodes"))["cluster"]["problem"]
                if (problem is not None) is away:
                    return
                await asyncio.sleep(0.05)  # no route tells of it

    async def up(self, *names: str) -> float:
        """Wait until these nodes of two are up, and no other; return how long that took."""
        begun = time.monotonic()
        async with asyncio.timeout(LONG):
            while True:
                nodes = (await self.json("GET", "/admin/nodes"))["nodes"]
                if {n["name"] for n in nodes if n["up"] and n["name"] in NODES} == set(names):
                    return time.monotonic() - begun
                await asyncio.sleep(0.05)  # no route tells of it
