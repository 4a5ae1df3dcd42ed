"""Two gateways on two machines, behind one name: one PostgreSQL database, one set of nodes."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.tasks import spawn
from tests.outages.asked import LONG, NODES
from tests.outages.boxes import BRIDGE, Box
from tests.outages.town import Town, scripted, spanning
from tests.postgres import MISSING, PostgresServer
from tests.vulkan_build import RUNS

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.skipif(MISSING is not None, reason=f"PostgreSQL's {MISSING} is not installed"),
]

needs_rpc = pytest.mark.skipif(not RUNS, reason="needs llama.cpp with RPC: llama-server-vulkan")

_PORT = 8081
_PLACES = re.compile(r"this gateway (places|doesn't place) models")
_SEEN = "/run/tmp/seen"  # on each machine its own


class OneName(AbstractResolver):
    """A name with an address for each gateway, as DNS has it."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


class Pair:
    """The gateways: ``one`` beside the head, ``two`` on a machine that has joined."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.boxes = {"one": town.hub, "two": town.house}
        self.running: dict[str, subprocess.Popen[str]] = {}
        self._logged: dict[str, int] = {}  # before it was started
        self.key = ""
        self.session: aiohttp.ClientSession

    async def open(self, url: str) -> None:
        town = self.town
        models = {
            "plain": scripted(town.folder),
            "slow": scripted(town.folder, start_delay=6),
            "twice": {**scripted(town.folder, record=_SEEN), "replicas": 2},
        }
        for name, box in self.boxes.items():
            town.configure(name, box, models, port=_PORT, store={"url": url})
        await self.start("one")
        self.key = await town.key_of_first_start("one", self.running["one"])
        addresses = [box.address for box in self.boxes.values()]
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=OneName(addresses), use_dns_cache=False),
            timeout=aiohttp.ClientTimeout(total=LONG),
        )
        await self.sees_the_nodes("one")
        shutil.copytree(town.folder / "one/data/cluster", town.folder / "two/data/cluster")
        await self.start("two")
        await self.sees_the_nodes("two")

    async def close(self) -> None:
        if hasattr(self, "session"):
            await self.session.close()
        for name in self.running:
            await self.kill(name, signal.SIGTERM)

    async def start(self, name: str) -> None:
        self._logged[name] = len(self.town.log(name))
        self.running[name] = await self.town.serve(self.boxes[name], name)

    async def that_places(self) -> tuple[str, str]:
        """The gateway that decides what runs where, as their logs say, and the other one."""
        async with asyncio.timeout(LONG):
            while True:
                for name, other in (("one", "two"), ("two", "one")):
                    said = _PLACES.findall(self.town.log(name)[self._logged[name] :])
                    if said and said[-1] == "places":
                        return name, other
                await asyncio.sleep(0.1)  # no route tells of it

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        words = f"/{name}/conf/gateway.yaml"
        if self.boxes[name].on and self.boxes[name].processes(words):
            self.boxes[name].kill_process(words, number)
        await asyncio.to_thread(self.running[name].wait, 60)

    def request(
        self, method: str, path: str, *, by: str = "", key: str = "", **options: Any
    ) -> Any:
        """A request ``by`` one of them, or by the name of both."""
        host = self.boxes[by].address if by else "llm.example"
        headers = {"Authorization": f"Bearer {key or self.key}"}
        url = f"http://{host}:{_PORT}{path}"
        return self.session.request(method, url, headers=headers, **options)

    async def json(self, method: str, path: str, **options: Any) -> Any:
        async with self.request(method, path, **options) as response:
            return await response.json()

    async def chat(self, model: str, *said: str, by: str = "", key: str = "") -> int:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
        body = {"model": model, "messages": messages or [{"role": "user", "content": "hi"}]}
        path = "/v1/chat/completions"
        async with self.request("POST", path, by=by, key=key, json=body) as response:
            await response.read()
            return int(response.status)

    async def model(self, name: str, by: str) -> Any:
        models = (await self.json("GET", "/admin/models", by=by))["models"]
        return next(model for model in models if model["name"] == name)

    async def ready(self, name: str, by: str, copies: int = 1) -> None:
        async with asyncio.timeout(LONG):
            while True:
                model = await self.model(name, by)
                if model["state"] == "ready" and len(model["nodes"]) == copies:
                    return
                await asyncio.sleep(0.1)  # no route tells of it

    async def sees_the_nodes(self, name: str) -> None:
        async with asyncio.timeout(LONG):
            while True:
                nodes = (await self.json("GET", "/admin/nodes", by=name))["nodes"]
                if {node["name"] for node in nodes if node["up"]} >= set(NODES):
                    return
                await asyncio.sleep(0.1)  # no route tells of it

    async def left(self, key: str, requests: int, by: str) -> None:
        """Wait until one of them says that a key has so many requests left."""
        said: Any = None
        async with asyncio.timeout(20):
            while said != requests:
                known = await self.json("GET", "/key", by=by, key=key)
                said = known["left"]["rpm"]["left"] if "left" in known else None
                await asyncio.sleep(0.05)  # no route tells of it

    async def put(self, name: str, entry: Any) -> None:
        """Make the entry of a model what ``entry`` is, at both."""
        for by in self.boxes:
            path = f"/admin/models/{name}"
            async with self.request("PUT", path, by=by, json=entry) as response:
                assert response.status in (200, 201), await response.text()

    async def gone(self, name: str) -> None:
        """Wait until neither of them has anything of a model."""
        async with asyncio.timeout(LONG):
            for by in self.boxes:
                while (await self.model(name, by))["state"] != "stopped":
                    await asyncio.sleep(0.1)  # no route tells of it

    async def unload(self, name: str, by: str) -> None:
        async with self.request("POST", "/unloadModel", by=by, params={"model": name}) as response:
            assert response.status == 200, await response.text()


@pytest.fixture(scope="module")
def databases() -> Iterator[PostgresServer]:
    server = PostgresServer(BRIDGE)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pairs() -> AsyncIterator[dict[Town, Pair]]:
    made: dict[Town, Pair] = {}
    yield made
    for one in made.values():
        await one.close()


@pytest_asyncio.fixture(loop_scope="session")
async def pair(town: Town, pairs: dict[Town, Pair], databases: PostgresServer) -> Pair:
    """The gateways of the cluster that stands."""
    if town not in pairs:
        for one in pairs.values():  # of one that was torn down
            await one.close()
        pairs.clear()
        pairs[town] = Pair(town)
        await pairs[town].open(databases.new_database())
    return pairs[town]


def seen(box: Box) -> list[str]:
    """What the copy of ``twice`` on a machine has been asked, by how each conversation begins."""
    lines = box.run("cat", _SEEN).splitlines()
    return [json.loads(line)["messages"][0]["content"] for line in lines]


async def test_any_of_them_answers_with_the_same_llama_server(town: Town, pair: Pair) -> None:
    assert await pair.chat("plain") == 200
    for name in pair.boxes:
        await pair.ready("plain", name)
        assert await pair.chat("plain", by=name) == 200
    assert [model for model, _ in town.llama_servers()] == ["plain"]
    await pair.unload("plain", "two")
    await pair.gone("plain")
    assert town.llama_servers() == []


async def test_a_key_and_its_limit_are_of_both(pair: Pair) -> None:
    body = {"name": "phone", "limits": {"rpm": 2}}
    key = (await pair.json("POST", "/admin/keys", by="one", json=body))["key"]
    await pair.left(key, 2, by="two")
    for _ in range(2):
        assert await pair.chat("plain", by="one", key=key) == 200
    await pair.left(key, 0, by="two")
    assert await pair.chat("plain", by="two", key=key) == 429
    await pair.unload("plain", "one")


async def test_a_conversation_goes_to_the_same_copy_by_both(town: Town, pair: Pair) -> None:
    assert await pair.chat("twice", by="one") == 200
    for name in pair.boxes:
        await pair.ready("twice", name, copies=2)
    for box in town.nodes.values():
        box.run("truncate", "-s", "0", _SEEN)
    about = [f"conversation {number}, and what it is about " * 20 for number in range(8)]
    for text in about:
        assert await pair.chat("twice", text, by="one") == 200
        assert await pair.chat("twice", text, "I see.", "Go on.", by="two") == 200
    there = [seen(box) for box in town.nodes.values()]
    assert sorted(text for one in there for text in set(one)) == sorted(about)
    assert all(there)
    await pair.unload("twice", "one")


async def test_where_one_is_killed_in_a_load_the_other_goes_on(town: Town, pair: Pair) -> None:
    asked = spawn(pair.chat("slow", by="two"), name="beside the test")
    await town.server("slow")
    await pair.kill("one")  # which places: it was there first
    assert await asked == 200
    assert await pair.chat("plain") == 200  # by the name of both
    assert sorted(model for model, _ in town.llama_servers()) == ["plain", "slow"]
    await pair.start("one")
    await pair.ready("slow", "one")
    assert await pair.chat("slow", by="one") == 200
    for model in ("plain", "slow"):
        await pair.unload(model, "two")


@needs_rpc
async def test_a_model_that_spans_machines_is_used_by_both(town: Town, pair: Pair) -> None:
    _, other = await pair.that_places()
    await pair.put("big", spanning(await town.left_of("attic"), *NODES))
    assert await pair.chat("big", by=other) == 200
    for name in pair.boxes:
        await pair.ready("big", name, copies=2)
        assert await pair.chat("big", by=name) == 200
    assert (len(town.llama_servers()), len(town.rpc_servers())) == (1, 1)
    await pair.unload("big", other)
    await pair.gone("big")
    assert (town.llama_servers(), town.rpc_servers()) == ([], [])


@needs_rpc
@pytest.mark.parametrize("when", ["while it loads", "afterwards"])
async def test_what_spans_machines_goes_on_without_who_has_placed_it(
    town: Town, pair: Pair, when: str
) -> None:
    placing, other = await pair.that_places()
    await pair.put("big", spanning(await town.left_of("attic"), *NODES))
    asked = spawn(pair.chat("big", by=other), name="beside the test")
    await town.server("big")
    if when == "afterwards":
        assert await asked == 200
    await pair.kill(placing)
    assert await asked == 200
    assert await pair.chat("big", by=other) == 200
    assert (len(town.llama_servers()), len(town.rpc_servers())) == (1, 1)
    town.nodes[town.rpc_servers()[0]].kill_process("rpc-server -H ")
    assert await pair.chat("big", by=other) == 200  # which has loaded it again
    await pair.start(placing)
    await pair.ready("big", placing, copies=2)
    assert await pair.chat("big", by=placing) == 200
    await pair.unload("big", placing)
    await pair.gone("big")
    assert (town.llama_servers(), town.rpc_servers()) == ([], [])
