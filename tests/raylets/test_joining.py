"""`node head` and `node join`: machines that come together, go away and come back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway.cluster.dismissal import EXIT_STATUS
from gateway.cluster.joining import ask_head
from gateway.cluster.link import Link
from gateway.cluster.ray_command import variables
from gateway.cluster.told import REGISTRY
from tests.raylets.conftest import LONG, Cluster

pytestmark = pytest.mark.timeout(400)


async def nodes(cluster: Cluster) -> dict[str, str]:
    environ = {**os.environ, **variables(cluster.token)}
    known = await ask_head(cluster.address, environ)
    return dict(known["nodes"])


async def test_a_node_joins_goes_and_comes_back_and_so_does_the_head(cluster: Cluster) -> None:
    head = await cluster.head()
    attic = await cluster.join("attic", "127.0.0.3")
    assert "RAM" in "".join(attic.lines)
    assert await nodes(cluster) == {"head": "127.0.0.2", "attic": "127.0.0.3"}
    assert cluster.token.stat().st_mode & 0o777 == 0o600
    assert cluster.token.read_text() in "".join(head.lines)

    # The power goes at the head: the node stays as it is, and is known to the head again.
    before = raylet_of(cluster.folder / "attic")
    assert await head.end(signal.SIGKILL) == -signal.SIGKILL
    await cluster.head()
    assert "attic" in await nodes(cluster)
    assert raylet_of(cluster.folder / "attic") == before

    # Ray ends at the node: it joins again.
    os.kill(before, signal.SIGKILL)
    await attic.until("Ray has ended")
    await attic.until("attic has joined")
    assert raylet_of(cluster.folder / "attic") != before

    assert await attic.end() == 0


async def test_a_node_that_is_removed_is_told_so_and_ends(cluster: Cluster) -> None:
    await cluster.head()
    attic = await cluster.join("attic", "127.0.0.3")
    cellar = await cluster.join("cellar", "127.0.0.4")
    link = Link(cluster.address, lambda: None, cluster.token.parent)
    link.open()
    async with asyncio.timeout(LONG):
        while not link.joined:
            await asyncio.sleep(0.1)
        # One announces itself, and hears of it then; the other one comes back from an outage.
        await link.call(REGISTRY, "leave", "attic")
        await link.call(REGISTRY, "leave", "cellar")
        os.kill(raylet_of(cluster.folder / "cellar"), signal.SIGKILL)
        for one, name in ((cellar, "cellar"), (attic, "attic")):
            await one.until(f"{name} was removed from the cluster")
            assert await one.process.wait() == EXIT_STATUS
    await link.close()
    again = await cluster.join("attic", "127.0.0.3")
    assert await again.end() == 0


async def test_who_may_not_join_is_told_why(cluster: Cluster) -> None:
    await cluster.head()
    await cluster.join("attic", "127.0.0.3")
    other = await cluster.command(
        *("cellar", "node", "join", cluster.address, "--name", "attic", "--host", "127.0.0.4"),
        *("--token-file", str(cluster.token)),
    )
    await other.until("a node called 'attic' has joined already, at 127.0.0.3: --name gives")
    assert await other.process.wait() == 1
    twin = await cluster.command(
        *("twin", "node", "join", cluster.address, "--name", "attic", "--host", "127.0.0.3"),
        *("--token-file", str(cluster.token)),
    )
    await twin.until("a node called 'attic' is in use already: is this machine's service running")
    assert await twin.process.wait() == 1
    words = ("node", "join", cluster.address, "--name", "cellar", "--host", "127.0.0.4")
    wrong = await cluster.command("wrong", *words, "--token-file", "-", stdin="no-such-token-here")
    await wrong.until("refuses this token")
    assert await wrong.process.wait() == 1
    assert not (cluster.folder / "wrong/cluster/token").exists()
    twice = await cluster.command(
        *("head", "node", "head", "--host", "127.0.0.2", "--port", str(cluster.port))
    )
    await twice.until("head runs already")
    assert "node join" not in "".join(twice.lines)  # what can't be joined yet


def raylet_of(data_dir: Path) -> int:
    """The process of Ray on the node with this folder."""
    wanted = f"LLM_GATEWAY_DATA_DIR={data_dir}".encode()
    for process in Path("/proc").glob("[1-9]*"):
        try:
            named = (process / "comm").read_text().strip() == "raylet"
            if named and wanted in (process / "environ").read_bytes().split(b"\0"):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError("there is none")


async def test_what_is_no_head_is_told_from_one(cluster: Cluster, tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    words = ("node", "join", f"127.0.0.1:{port}", "--name", "attic", "--token-file", "-")
    lost = await cluster.command("attic", *words, stdin="any-token-will-do-here")
    await lost.until(f"what answers at 127.0.0.1:{port} is no head of Ray")
    assert await lost.process.wait() == 1
    server.close()
