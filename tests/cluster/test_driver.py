"""What Ray's driver, and the link to it, tell of actors that give no answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.cluster.driver import UNREADABLE, Driver
from gateway.cluster.frames import receive
from gateway.cluster.link import why_silent


class _Error(Exception):
    """Any exception of Ray's own."""


def ray_with(get_actor: Callable[[str, str], Any]) -> Any:
    """As much of Ray as the driver uses to ask an actor."""
    errors = SimpleNamespace(RayError=_Error, RayTaskError=_Error)
    return SimpleNamespace(get_actor=get_actor, exceptions=errors)


async def test_what_to_look_at_where_a_node_is_not_in_the_cluster() -> None:
    def get_actor(name: str, namespace: str) -> Any:
        raise ValueError(f"Failed to look up actor with name {name!r}. This could because 1. ...")

    ours, other = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=other)
    reader, own = await asyncio.open_connection(sock=ours)
    Driver(writer, ray_with(get_actor)).take(7, "call", ("node/attic", "news", ()))
    async with asyncio.timeout(10):
        number, (kind, text), _ = await receive(reader)
    assert (number, kind) == (7, "ValueError")
    assert "`llm-gateway node join`" in text
    assert "actor" not in text
    for end in (writer, own):
        end.close()
        await end.wait_closed()


class _OfAnotherVersion:
    """What can't be written down: an object that lacks what its class has here."""

    def __reduce__(self) -> str:
        raise AttributeError("'NodeState' object has no attribute 'pulls'")


async def test_an_answer_of_another_version_is_no_silence() -> None:
    class Node:
        class ask:
            @staticmethod
            async def remote(method: str) -> _OfAnotherVersion:
                return _OfAnotherVersion()

    ours, other = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=other)
    reader, own = await asyncio.open_connection(sock=ours)
    Driver(writer, ray_with(lambda *_: Node)).take(7, "call", ("node/attic", "state", ()))
    async with asyncio.timeout(10):
        assert await receive(reader) == (7, ("Unreadable", UNREADABLE), None)
    for end in (writer, own):
        end.close()
        await end.wait_closed()


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        (
            "ActorUnschedulableError",
            "The actor is not schedulable: NodeAffinitySchedulingStrategy doesn't exist",
            "its machine has left the cluster, or cannot be reached",
        ),
        ("OutOfDiskError", "The disk is full.\n\nMore", "OutOfDiskError: The disk is full."),
        ("ObjectLostError", " ", "ObjectLostError"),
    ],
)
def test_why_an_actor_gives_no_answer(kind: str, text: str, why: str) -> None:
    assert why_silent(kind, text) == why
