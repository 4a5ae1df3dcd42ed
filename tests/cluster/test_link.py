"""The link to Ray, where that cannot be joined."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from gateway.cluster.link import Link

#: A driver of another version, in place of ours: what it sends has a class that is nowhere here.
_OTHER = """
import socket, struct
told = b"cgateway.cluster.told\\nOfTomorrow\\n."
socket.socket(fileno=0).sendall(struct.pack("!I", len(told)) + told)
"""


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
