"""What is kept of what one llama-server wrote, and what waits to be computed ahead."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.backends.backend import Backend
from gateway.conversations.prewarming import Wanted
from gateway.conversations.shared import SharedPrefix
from gateway.conversations.slot import Slot
from gateway.conversations.slots import ConversationSlots
from gateway.conversations.transfers import Transfers
from gateway.upstream import UnixAddress, UpstreamPool
from tests.conversations.test_place import chain
from tests.conversations.test_shelf import shelf_in
from tests.local_backends import WatchedLocal
from tests.scripted import Box


def stopped(folder: Path) -> Backend:
    box = Box(folder)
    return WatchedLocal(box.spec(), box.environment(), "a.sock")


@contextlib.asynccontextmanager
async def writer(
    folder: Path, tokens: int, meanwhile: Callable[[], None]
) -> AsyncIterator[UpstreamPool]:
    """A server that says it wrote so many tokens, after ``meanwhile``."""

    async def answer(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        name = (await reader.readuntil(b"}")).split(b'"')[3].decode()
        (folder / name).write_bytes(b"state")
        meanwhile()
        said = b'{"n_saved": %d, "n_written": 5}' % tokens
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
        await out.drain()
        out.close()

    server = await asyncio.start_unix_server(answer, folder / "s.sock")
    async with server:
        pool = UpstreamPool(UnixAddress(str(folder / "s.sock")), max_connections=1, name="a")
        try:
            yield pool
        finally:
            await pool.close()


@pytest.mark.parametrize(("tokens", "kept"), [(2000, 1), (900, 0)])
async def test_what_is_written_is_compared_with_what_was_in_the_slot_before(
    tmp_path: Path, tokens: int, kept: int
) -> None:
    """llama-server may have chosen the slot for another request by the time that it writes."""
    folder = tmp_path / "cache"
    slot = Slot(0)
    async with (
        shelf_in(folder) as shelf,
        writer(folder, tokens, slot.forget) as pool,
    ):
        slot.hold(chain("ab"), "k", prompt=1990, tokens=2000)
        slot.unsaved = True
        transfers = Transfers(stopped(tmp_path), "f", shelf, lambda: False)
        await transfers.save(slot, pool, in_danger=True)
        await shelf.written()
        assert len([*folder.glob("*.kv")]) == kept


async def test_tools_that_wait_to_be_computed_take_little_memory(tmp_path: Path) -> None:
    """While requests come without end nothing is computed ahead, and each may bring others."""
    async with shelf_in(tmp_path / "cache") as shelf:
        slots = ConversationSlots(stopped(tmp_path), "f", shelf)
        tracemalloc.start()
        try:
            for number in range(300):
                prefix = SharedPrefix("", tools=b"%d" % number + bytes(100_000))
                slots.prewarming.want(Wanted(chain(f"t{number:x}"), prefix, "k"))
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert slots.prewarming.waits
        assert held < 5_000_000
