"""The link to Ray, where that cannot be joined."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cluster.link import Link, Unreachable
from gateway.cluster.told import REGISTRY

#: A driver of another version, in place of ours: what it sends has a class that is nowhere here.
_OTHER = """
import socket, struct
told = b"cgateway.cluster.told\\nOfTomorrow\\n."
socket.socket(fileno=0).sendall(struct.pack("!I", len(told)) + told)
"""

#: A driver whose registry is silent, as that of a head is which was started anew. The next one
#: hears it, or cannot join.
_DEAF = """
import asyncio, pathlib, socket, sys
from gateway.cluster.frames import packed, receive

async def main(folder, next):
    first = not (folder / "been").exists()
    (folder / "been").touch()
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0))
    if not first and next == "cannot join":
        with (folder / "refused").open("a") as refused:
            refused.write("x")
        writer.write(packed((0, ("ConnectionError", "no head"), None)))
        return await writer.drain()
    writer.write(packed((0, None, None)))
    while True:
        number, _, actor, *_ = await receive(reader)
        silent = first and actor == "registry"
        error = ("ActorUnavailableError", "where it was") if silent else None
        writer.write(packed((number, error, "first" if first else "second")))

asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
"""


async def _answer_of(link: Link, actor: str) -> str:
    try:
        return str(await link.call(actor, "nodes"))
    except Unreachable as error:
        return error.message


@contextlib.asynccontextmanager
async def _deaf(
    folder: Path, monkeypatch: pytest.MonkeyPatch, following: str, patience: float
) -> AsyncIterator[tuple[Link, list[bool]]]:
    """A link that is joined by such a driver, and whether it was at each change of that."""
    command = (sys.executable, "-c", _DEAF, str(folder), following)
    monkeypatch.setattr("gateway.cluster.link.launcher", lambda: command)
    changes: list[bool] = []
    link = Link("127.0.0.1:9", lambda: changes.append(link.joined), folder, patience=patience)
    link.open()
    try:
        async with asyncio.timeout(60):
            while not link.joined:
                await asyncio.sleep(0.02)
            yield link, changes
    finally:
        await link.close()
    assert not link.joined


async def test_another_driver_is_used_when_the_registry_is_silent_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cluster.link._AGAIN", 60.0)
    async with _deaf(tmp_path, monkeypatch, "joins", 0.2) as (link, changes):
        assert await _answer_of(link, "node/attic") == "first"
        assert await _answer_of(link, REGISTRY) == "it cannot be reached"
        while await _answer_of(link, REGISTRY) != "second":
            await asyncio.sleep(0.02)
        assert await _answer_of(link, "node/attic") == "second"
        assert changes == [True, False, True]


async def test_the_driver_that_is_there_stays_while_no_other_can_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still reaches the nodes while the head is away."""
    refused = tmp_path / "refused"
    refused.touch()
    async with _deaf(tmp_path, monkeypatch, "cannot join", 0.0) as (link, changes):
        while len(refused.read_text()) < 2:  # by then it has seen to the first of them
            assert await _answer_of(link, REGISTRY) == "it cannot be reached"
            await asyncio.sleep(0.02)
        assert await _answer_of(link, "node/attic") == "first"
        assert changes == [True]


async def test_who_has_no_token_of_the_cluster_is_told_where_it_is_looked_for(
    tmp_path: Path,
) -> None:
    # Without Ray its driver fails at once, with Ray there is nobody at that port.
    link = Link("127.0.0.1:9", lambda: None, tmp_path)
    link.open()
    try:
        async with asyncio.timeout(60):
            while f"(no token of a cluster is in {tmp_path})" not in (link.problem or ""):
                await asyncio.sleep(0.02)  # it tells of what has changed, and nothing has
    finally:
        await link.close()


async def test_a_driver_of_another_version_is_said_and_followed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a new version was installed while the gateway ran."""
    command = (sys.executable, "-c", _OTHER)
    monkeypatch.setattr("gateway.cluster.link.launcher", lambda: command)
    monkeypatch.setattr("gateway.cluster.link._AGAIN", 0.01)
    link = Link("127.0.0.1:9", lambda: None, tmp_path)
    link.open()
    try:
        async with asyncio.timeout(60):
            while "another version: restart the gateway" not in (link.problem or ""):
                await asyncio.sleep(0.02)
            # The one that is started next could be ours again.
            monkeypatch.undo()
            while "no token of a cluster" not in (link.problem or ""):
                await asyncio.sleep(0.02)
    finally:
        await link.close()
