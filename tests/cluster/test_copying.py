"""Copies between two folders by real processes and real TLS: what arrives, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.cluster.ca import Authority, Credentials, server_name
from gateway.cluster.copying import Copies, CopyProgress, Offers
from gateway.cluster.node_source import CopyFailed
from gateway.cluster.offer import Offer
from gateway.secret import Secret
from gateway.tasks import spawn

SIZE = 3_000_000
NAME = "owner/repo/model.gguf"
DATA = b"GGUF" + os.urandom(SIZE - 4)


def credentials(authority: Authority, node: str) -> Credentials:
    return authority.issue(server_name(node), server=True, client=True)


def environ() -> Mapping[str, str]:
    return dict(os.environ)


def quiet(_: CopyProgress) -> None:
    """Take no notice."""


class Machines:
    """Machines that have files, and one that wants them."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.authority = authority
        self.folder = folder
        self.target = folder / "target"
        self.target.mkdir()
        self.copies = Copies(self.target, environ)
        self.mine = credentials(authority, "cellar")
        self.givers: list[Offers] = []

    async def offer(
        self, node: str, files: Mapping[str, bytes], *, idle: float = 60.0
    ) -> tuple[Offers, Offer]:
        storage = self.folder / node
        paths = {}
        for name, data in files.items():
            paths[name] = storage / name
            paths[name].parent.mkdir(parents=True, exist_ok=True)
            paths[name].write_bytes(data)
        hashes = self.folder / f"{node}.json"
        giver = Offers(node, "127.0.0.1", environ, hashes, idle=idle)
        self.givers.append(giver)
        return giver, await giver.open(paths, credentials(self.authority, node))

    async def copy(self, *offers: Offer, files: tuple[str, ...] = (NAME,)) -> list[CopyProgress]:
        told: list[CopyProgress] = []
        async with asyncio.timeout(60):
            await self.copies.copy(files, offers, self.mine, told.append)
        return told

    @property
    def stored(self) -> dict[str, bytes]:
        files = (file for file in self.target.rglob("*") if file.is_file())
        return {file.relative_to(self.target).as_posix(): file.read_bytes() for file in files}

    @property
    def parts(self) -> list[int]:
        return [len(data) for name, data in self.stored.items() if name.endswith(".part")]

    async def close(self) -> None:
        await self.copies.close()
        for giver in self.givers:
            await giver.close_all()


@pytest.fixture
async def machines(authority: Authority, tmp_path: Path) -> AsyncIterator[Machines]:
    made = Machines(authority, tmp_path)
    yield made
    await made.close()


class Wire:
    """A wire to a machine, which is cut after so many bytes of what that sends, once or for
    ever; or which holds on to the rest.
    """

    def __init__(self, offer: Offer, *lengths: int, hold: bool = False) -> None:
        self._to = offer
        self._lengths = list(lengths)
        self._hold = hold
        self.full = asyncio.Event()
        self.connections = 0
        self._carrying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Offer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        return replace(self._to, port=self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._carrying.add(spawn(self._carry(reader, writer), name="carry"))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = self._lengths.pop(0) if self._lengths else None
        try:
            there, back = await asyncio.open_connection(self._to.host, self._to.port)
        except ConnectionError:
            writer.transport.abort()
            return

        async def asks() -> None:
            while data := await reader.read(65536):
                back.write(data)

        asking = spawn(asks(), name="asks")
        try:
            while data := await there.read(65536):
                if left is not None and len(data) >= left:
                    writer.write(data[:left])
                    await writer.drain()
                    self.full.set()
                    if self._hold:
                        await asyncio.wait([asking])
                    return
                left = left - len(data) if left is not None else None
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            asking.cancel()
            for end in (writer, back):
                if not end.is_closing():
                    end.transport.abort()


# --- what arrives ----------------------------------------------------------------------------


async def test_files_arrive_whole_and_their_stages_are_told(machines: Machines) -> None:
    files = {NAME: DATA, "p.gguf": b"GGUF" + bytes(1000)}
    _, offer = await machines.offer("attic", files)
    told = await machines.copy(offer, files=(NAME, "p.gguf"))
    assert machines.stored == files
    total = SIZE + 1004
    assert told[0].stage == "copying"
    assert {one.stage for one in told} == {"copying", "checking"}
    assert (told[-1].done, told[-1].total) == (total, total)
    copied = [one.done for one in told if one.stage == "copying"]
    assert copied == sorted(copied)
    remembered = json.loads((machines.folder / "attic.json").read_text())
    assert len(remembered) == 2


async def test_what_is_there_already_is_not_copied(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    await machines.copy(offer)
    told = await machines.copy(offer)
    assert {one.stage for one in told} == {"checking"}


async def test_who_wants_a_file_that_is_on_its_way_waits_for_it(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA, "b.gguf": DATA[:1000]})
    wire = Wire(offer)
    async with wire as through:
        first, second, third = await asyncio.gather(
            machines.copy(through),
            machines.copy(through),
            machines.copy(through, files=(NAME, "b.gguf")),
        )
    assert machines.stored == {NAME: DATA, "b.gguf": DATA[:1000]}
    assert first == second
    assert third[: len(first)] == first
    assert wire.connections == 4  # a hash and a file each


async def test_a_remembered_hash_is_not_that_of_a_changed_file(machines: Machines) -> None:
    giver, offer = await machines.offer("attic", {NAME: DATA})
    await machines.copy(offer)
    (machines.target / NAME).unlink()
    await giver.close(offer.id)
    _, offer = await machines.offer("attic", {NAME: DATA[:-1] + b"!"})
    await machines.copy(offer)
    assert machines.stored[NAME].endswith(b"!")


# --- what goes wrong on the way --------------------------------------------------------------


async def test_a_connection_that_breaks_anywhere_is_gone_on_from(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    # In the handshake, in the answer about the hash, and then in the file, at its head, in its
    # middle, and before its last byte.
    lengths = (0, 700, 2_400, 10_000_000, 900, 2_500, 1_000_000, 500_000)
    async with Wire(offer, *lengths) as through:
        await machines.copy(through)
    assert machines.stored == {NAME: DATA}


async def test_another_machine_goes_on_where_one_has_died(machines: Machines) -> None:
    giver, attic = await machines.offer("attic", {NAME: DATA})
    _, loft = await machines.offer("loft", {NAME: DATA})
    wire = Wire(attic, 10_000_000, 1_500_000)
    second = Wire(loft)
    async with wire as through, second as instead:
        copying = spawn(machines.copy(through, instead), name="copy")
        await wire.full.wait()
        await giver.close_all()
        told = await copying
    assert machines.stored == {NAME: DATA}
    assert second.connections >= 2
    begun_again = [one for one in told if one.stage == "copying" and one.done == 0]
    assert len(begun_again) == 1  # what had come stayed


async def test_a_machine_with_another_file_of_that_name_is_not_mixed_in(
    machines: Machines,
) -> None:
    giver, attic = await machines.offer("attic", {NAME: DATA})
    _, loft = await machines.offer("loft", {NAME: DATA[::-1]})
    wire = Wire(attic, 10_000_000, 1_500_000)
    async with wire as through:
        copying = spawn(machines.copy(through, loft), name="copy")
        await wire.full.wait()
        await giver.close_all()
        with pytest.raises(CopyFailed, match=r"loft has another owner/repo/model\.gguf"):
            await copying
    assert NAME not in machines.stored
    assert machines.parts
    assert machines.parts[0] < SIZE


async def test_a_damaged_file_is_noticed_and_not_kept(machines: Machines) -> None:
    """What its machine says of its hash is from before it was damaged, unnoticed by it."""
    giver, offer = await machines.offer("attic", {NAME: DATA})
    await machines.copy(offer)
    (machines.target / NAME).unlink()
    await giver.close(offer.id)
    source = machines.folder / "attic" / NAME
    status = source.stat()
    with source.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(bytes([DATA[SIZE // 2] ^ 1]))
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    offer = await giver.open({NAME: source}, credentials(machines.authority, "attic"))
    with pytest.raises(CopyFailed, match="its hash is another") as caught:
        await machines.copy(offer)
    assert caught.value.code == "wrong_hash"
    assert machines.stored == {}


async def test_a_file_that_is_replaced_meanwhile_is_not_mixed(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    source = machines.folder / "attic" / NAME
    new = source.with_name("new")
    new.write_bytes(b"GGUF" + bytes(SIZE))
    wire = Wire(offer, 10_000_000, 1_000_000)
    async with wire as through:
        copying = spawn(machines.copy(through), name="copy")
        await wire.full.wait()
        new.replace(source)
        with pytest.raises(CopyFailed, match="attic has another"):
            await copying
        assert NAME not in machines.stored
        await machines.copy(through)  # and then the new one
    assert machines.stored == {NAME: b"GGUF" + bytes(SIZE)}


async def test_a_copy_that_was_ended_is_gone_on_with(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    wire = Wire(offer, 10_000_000, 1_500_000, hold=True)
    async with wire as through:
        copying = spawn(machines.copy(through), name="copy")
        await wire.full.wait()
        while not machines.parts or machines.parts[0] < 1_000_000:
            await asyncio.sleep(0.01)  # until the other process has written it
        copying.cancel()
        await asyncio.wait([copying])
    assert NAME not in machines.stored
    (came,) = machines.parts
    told = await machines.copy(offer)
    assert told[0].done == came
    assert machines.stored == {NAME: DATA}


async def test_who_leaves_does_not_end_the_copy_for_others(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    first = spawn(machines.copy(offer), name="copy")
    second = spawn(machines.copy(offer), name="copy")
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert machines.stored == {NAME: DATA}


async def test_no_machine_left_is_said_soon(machines: Machines) -> None:
    giver, offer = await machines.offer("attic", {NAME: DATA})
    await giver.close(offer.id)
    began = time.monotonic()
    with pytest.raises(CopyFailed, match="the connection to attic broke off"):
        await machines.copy(offer)
    assert time.monotonic() - began < 10
    with pytest.raises(CopyFailed, match=r"no machine of the cluster has x\.gguf"):
        await machines.copy(offer, files=("x.gguf",))


async def test_a_folder_that_cannot_be_written_to_is_said(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    (machines.target / "owner").write_bytes(b"a file where a folder should be")
    with pytest.raises(CopyFailed, match="cannot be written") as caught:
        await machines.copy(offer)
    assert caught.value.code == "not_writable"


# --- who gets in -----------------------------------------------------------------------------


async def test_only_with_the_key_and_a_certificate_of_the_cluster(
    machines: Machines, other_authority: Authority
) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    with pytest.raises(CopyFailed, match=r"attic gives no .* \(401\)"):
        await machines.copy(replace(offer, key=Secret("0" * 64)))
    stranger = credentials(other_authority, "cellar")
    machines.mine = replace(stranger, authorities=machines.authority.pem)
    with pytest.raises(CopyFailed, match="the connection to attic broke off"):
        await machines.copy(offer)
    assert machines.stored == {}


async def test_a_path_that_leads_elsewhere_is_not_written(machines: Machines) -> None:
    _, offer = await machines.offer("attic", {NAME: DATA})
    with pytest.raises(CopyFailed, match="ValueError"):
        await machines.copy(replace(offer, files=("../x.gguf",)), files=("../x.gguf",))
    assert sorted(path.name for path in machines.folder.iterdir()) == [
        "attic",
        "attic.json",
        "target",
    ]


async def test_an_offer_that_nobody_takes_ends_by_itself(machines: Machines) -> None:
    giver, offer = await machines.offer("attic", {NAME: DATA}, idle=0.3)
    assert giver.open_ids == (offer.id,)
    async with asyncio.timeout(10):
        while giver.open_ids:
            await asyncio.sleep(0.02)  # its process ends, which nothing else tells of


async def test_an_address_that_is_not_ours_is_said(machines: Machines) -> None:
    giver = Offers("attic", "192.0.2.1", environ)
    with pytest.raises(CopyFailed, match=r"files cannot be given: .*Cannot assign"):
        await giver.open({}, credentials(machines.authority, "attic"))
    assert giver.open_ids == ()
