"""The gateway before a server that is not its child: a `url`, and a llama-server on a node.

The node is a process of its own, which answers over a Unix socket what Ray would pass on: none of
its work is the gateway's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from gateway.cluster.cluster import Cluster
from gateway.cluster.frames import packed, receive
from gateway.cluster.link import Link, Refused
from gateway.cluster.node import Node
from gateway.cluster.node_settings import NodeSettings
from gateway.cluster.registry import Registry
from gateway.cluster.told import REGISTRY
from gateway.config.settings import Settings
from tests.bench.proxies import GatewayProxy, Process

#: The name of the node.
_NODE = "bench"
#: Runs the gateway with a cluster whose actors are at a socket.
_RUN = "from tests.bench import nodes; nodes.serve({socket!r})"


class SocketLink(Link):
    """A link to a process that answers for all actors; a connection for each question."""

    socket = ""

    def open(self) -> None:
        self.joined, self.problem = True, None

    async def close(self) -> None:
        self.joined, self.problem = False, "closed"

    async def _ask(self, operation: str, *arguments: Any, within: float = 0.0) -> Any:
        if operation != "call":
            return {} if operation == "reserved" else None  # nothing is
        actor, method, values = arguments
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            writer.write(packed((actor, method, values)))
            error, value = await receive(reader)
        finally:
            writer.close()
        if error is not None:
            raise Refused(*error)
        return value


def serve(socket: str) -> None:
    """Run the gateway with that cluster, as the command line says."""
    import gateway.app
    from gateway.cli import main as run

    def cluster_of(settings: Settings) -> Cluster:
        return Cluster(
            "auto",
            settings.data_dir / "cluster",
            settings.llm_storage,
            load_timeout=settings.limits.load_timeout,
            metrics=settings.metrics.backends,
            slots=settings.cache.enabled,
            join=SocketLink,
        )

    SocketLink.socket = socket
    setattr(gateway.app, "cluster_of", cluster_of)  # noqa: B010  # mypy: not of its own
    sys.exit(run())


async def answer(socket: str, settings: NodeSettings) -> None:
    """Be the node, and the registry, until the end."""
    node, registry = Node(_NODE, settings), Registry()
    await node.open()
    await registry.announce(_NODE, node.boot)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        actor, method, values = await receive(reader)
        asked = getattr(registry if actor == REGISTRY else node, method)
        try:
            writer.write(packed((None, await asked(*values))))
        except Exception as error:
            writer.write(packed(((type(error).__name__, str(error)), None)))
        writer.close()

    async with await asyncio.start_unix_server(one, socket) as server:
        await server.serve_forever()


class GatewayUrl(GatewayProxy):
    """The gateway before a server that is somewhere else (`url`), over TCP."""

    name = "gateway url"
    # Others would have other names in their answers, which are looked at.
    names: tuple[str, ...] = ("bench",)
    models = all_models = ("bench:teacher",)
    opens_many = False  # of one model

    def entry(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.upstream_port}"
        own = super().entry()
        return {"url": url, "personalities": own["personalities"], "parallel": self.slots}


class GatewayNode(GatewayProxy):
    """The gateway before a llama-server on a node: TLS with certificates, and a key."""

    name = "gateway node"
    opens_many = False  # a thousand handshakes at a time are another matter
    node: Process | None = None

    def entry(self) -> dict[str, Any]:
        return {**super().entry(), "nodes": [_NODE]}

    def prepare(self) -> None:
        self.socket = str(self.folder / "node.sock")
        self.code = _RUN.format(socket=self.socket)
        super().prepare()

    def configuration(self) -> dict[str, Any]:
        return {**super().configuration(), "cluster": {"address": "auto"}}

    def start(self) -> float:
        if self.node is None:
            told = json.dumps([self.socket, str(self.root)])
            argv = [sys.executable, "-m", "tests.bench.nodes", told]
            self.node = Process(argv, self.folder, "node")
        return super().start()

    def end(self) -> None:
        super().end()
        if self.node is not None:
            self.node.end()
            self.node = None
            Path(self.socket).unlink(missing_ok=True)


if __name__ == "__main__":
    _socket, _root = json.loads(sys.argv[1])
    _settings = NodeSettings(
        llama_server=f"{_root}/llama-server",
        llm_storage=Path(_root) / "storage",
        data_dir=Path(_root) / "node",
        cache_dir=Path(_root) / "cache",
        host="127.0.0.1",
    )
    import uvloop

    uvloop.run(answer(_socket, _settings))
