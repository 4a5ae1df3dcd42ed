"""A node's front before the scripted llama-server: what TLS and the pipe cost on another machine.

The load generator comes as a gateway does: with a certificate of the cluster, and the key.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.proxies import Process, Proxy, Upstream

#: The node that it is the front of.
NODE = "bench"


class FrontProxy(Proxy):
    """gateway.cluster.front, alone in a process."""

    name = "front"

    def __init__(self, folder: Path, upstream: Upstream, *, tcp: bool) -> None:
        super().__init__(folder, upstream, tcp=tcp)
        self.address = upstream.socket  # as that of every llama-server of ours

    def prepare(self) -> None:
        from gateway.cluster.ca import Authority, server_name

        authority = Authority.open(self.folder / "cluster")
        server = authority.issue(server_name(NODE), server=True, client=False)
        client = authority.issue("gateway", server=False, client=True)
        self.files = {"server": server, "client": client}
        for name, made in self.files.items():
            texts = {
                "certificate": made.certificate.decode(),
                "private_key": made.private_key.reveal(),
                "authorities": made.authorities.decode(),
            }
            file = self.folder / f"front-{name}.json"
            file.touch(0o600)
            file.write_text(json.dumps(texts))
        self.entrance = str(self.folder / "front-client.json")

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "tests.bench.front", str(self.folder), self.address]

    def start(self) -> float:
        """Start it; seconds from exec until it listens."""
        started = time.monotonic()
        file = self.folder / "front-client.json"
        texts = json.loads(file.read_text())
        texts.pop("port", None)
        file.write_text(json.dumps(texts))
        self.process = Process(self.argv(), self.folder, self.name)
        while "port" not in (texts := json.loads(file.read_text())):
            if self.process.process.poll() is not None or time.monotonic() - started > 15:
                raise RuntimeError(f"the front does not listen:\n{self.last_words()}")
            time.sleep(0.002)
        self.port = texts["port"]
        return time.monotonic() - started


def credentials_of(file: Path) -> Any:
    """What was written there; with the key of the door, where the front has told it."""
    from datetime import UTC, datetime

    from gateway.cluster.ca import Credentials
    from gateway.secret import Secret

    texts = json.loads(file.read_text())
    return Credentials(
        texts["certificate"].encode(),
        Secret(texts["private_key"]),
        texts["authorities"].encode(),
        datetime.max.replace(tzinfo=UTC),
    )


def address_of(entrance: str) -> Any:
    """Where the front is, and all that is needed to get in."""
    from gateway.cluster.ca import client_context, server_name
    from gateway.secret import Secret
    from gateway.upstream import TcpAddress

    texts = json.loads(Path(entrance).read_text())
    context = client_context(credentials_of(Path(entrance)))
    return TcpAddress(
        "127.0.0.1",
        texts["port"],
        context,
        server_name=server_name(NODE),
        key=Secret(texts["door"]),
    )


async def main(folder: Path, socket: Path) -> None:
    """Run the front until the end."""
    from gateway.cluster.ca import server_context
    from gateway.cluster.front import Front

    front = Front(server_context(credentials_of(folder / "front-server.json")))
    door = front.add(socket)
    port = await front.listen("127.0.0.1")
    file = folder / "front-client.json"
    texts = json.loads(file.read_text()) | {"port": port, "door": door.key.reveal()}
    new = file.with_suffix(".new")
    new.touch(0o600)
    new.write_text(json.dumps(texts))
    new.replace(file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
