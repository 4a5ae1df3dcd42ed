"""Two gateways on one PostgreSQL database: one set of keys, and one set of limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from gateway.access.accounting import Accounting, UsedToday
from gateway.access.key_format import hash_key
from gateway.access.keys import KeyRing
from gateway.access.peers import Peers
from gateway.access.postgres import CHANNEL
from gateway.access.rate_limits import KeyLimits, Limiter
from gateway.access.shared_limits import GONE, SharedLimits, Spending
from gateway.access.store import DailyUsage, Store
from gateway.secret import Secret
from gateway.tasks import cancel_and_wait, spawn
from tests.harness import MakeGateway, Running, eventually, fake_model

pytestmark = pytest.mark.slow

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
#: How often what must take less than a second is tried: the machine may be busy with other tests.
TRIES = 3


@pytest.fixture
async def both(
    make_gateway: MakeGateway, tmp_path: Path, url: str
) -> AsyncIterator[tuple[Running, Running]]:
    models = {
        "m": fake_model(tmp_path),
        "hangs": fake_model(tmp_path, hang=1),
        "streams": fake_model(tmp_path, chunks=1000, pause=0.1),
    }
    async with (
        make_gateway(models, folder="one", store={"url": url}) as one,
        make_gateway(models, folder="other", store={"url": url}) as other,
    ):
        for running in (one, other):
            assert running.gateway.peers is not None
            await asyncio.wait_for(running.gateway.peers.connected.wait(), 30)
        yield one, other


async def seconds_until(check: Callable[[], Awaitable[bool]]) -> float:
    """How long it takes until ``check`` holds."""
    began = time.monotonic()
    while not await check():
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def new_key(running: Running, **fields: Any) -> tuple[str, str]:
    status, made = await running.json("POST", "/admin/keys", json={"name": "phone", **fields})
    assert status == 201, made
    return made["id"], made["key"]


async def status_of(running: Running, key: str, **fields: Any) -> int:
    body = {**CHAT, **fields}
    status, _ = await running.json("POST", "/v1/chat/completions", json=body, key=key)
    return int(status)


async def left(running: Running, key: str, limit: str) -> int:
    status, said = await running.json("GET", "/key", key=key)
    assert status == 200, said
    return int(said["left"][limit]["left"])


async def test_keys_of_one_gateway_are_the_others_within_a_second(
    both: tuple[Running, Running],
) -> None:
    one, other = both
    known, revoked = [], []
    for _ in range(TRIES):
        key_id, key = await new_key(one)

        async def status_is(wanted: int, key: str = key) -> bool:
            return (await other.json("GET", "/key", key=key))[0] == wanted

        known.append(await seconds_until(lambda: status_is(200)))
        assert await status_of(other, key) == 200
        assert (await one.json("DELETE", f"/admin/keys/{key_id}"))[0] == 200
        revoked.append(await seconds_until(lambda: status_is(401)))
    assert min(known) < 1
    assert min(revoked) < 1


async def test_key_made_by_a_command_is_known_to_both(
    both: tuple[Running, Running], url: str
) -> None:
    ring = await KeyRing.open(await Store.open(Secret(url)))
    try:
        _, key = await ring.create("phone")
    finally:
        await ring.close()
    for running in both:

        async def works(running: Running = running) -> bool:
            return await status_of(running, key) == 200

        assert await seconds_until(works) < 20


async def test_stream_of_a_key_that_is_revoked_at_one_ends_at_the_other(
    both: tuple[Running, Running],
) -> None:
    one, other = both
    key_id, key = await new_key(one)
    await seconds_until(lambda: _is(status_of(other, key), 200))
    stream = {**CHAT, "model": "streams", "stream": True}
    async with other.request("POST", "/v1/chat/completions", json=stream, key=key) as response:
        assert await response.content.readuntil(b"data: ")
        assert (await one.json("DELETE", f"/admin/keys/{key_id}"))[0] == 200
        rest = b""
        with contextlib.suppress(aiohttp.ClientPayloadError):  # it is cut off
            async for some in response.content.iter_any():
                rest += some
    assert b"api_key_revoked" in rest


async def _is(status: Awaitable[int], wanted: int) -> bool:
    return await status == wanted


async def test_requests_by_the_minute_count_at_both_within_a_second(
    both: tuple[Running, Running],
) -> None:
    one, other = both
    took = []
    for _ in range(TRIES):
        _, key = await new_key(one, limits={"rpm": 4})
        await seconds_until(lambda key=key: _is(status_of(other, key), 200))  # type: ignore[misc]
        assert [await status_of(one, key) for _ in range(3)] == [200] * 3

        async def used_up(key: str = key) -> bool:
            return await left(other, key, "rpm") == 0

        took.append(await seconds_until(used_up))
        assert await status_of(other, key) == 429
    assert min(took) < 1


@pytest.mark.parametrize("limit", ["tpm", "tpd"])
async def test_tokens_count_at_both_within_a_second(
    both: tuple[Running, Running], limit: str
) -> None:
    one, other = both
    took = []
    for _ in range(TRIES):
        _, key = await new_key(one, limits={limit: 60})
        await seconds_until(lambda key=key: _is(status_of(other, key), 200))  # type: ignore[misc]
        assert await status_of(one, key) == 200
        used = await left(one, key, limit)  # by one request at each, if it knows of the other's

        async def used_there(key: str = key) -> bool:
            return await left(one, key, limit) <= 52 and await left(other, key, limit) <= 52

        took.append(await seconds_until(used_there))
        assert used < 60
    assert min(took) < 1


async def test_requests_at_once_count_at_both_within_a_second(
    both: tuple[Running, Running],
) -> None:
    one, other = both
    _, key = await new_key(one, limits={"concurrency": 1})
    body = {**CHAT, "model": "hangs"}
    took, freed = [], []
    for _ in range(TRIES):
        hanging = spawn(one.json("POST", "/v1/chat/completions", json=body, key=key), name="client")
        took.append(await seconds_until(lambda: _left(other, key, 0)))
        assert await status_of(other, key) == 429
        await cancel_and_wait(hanging)
        freed.append(await seconds_until(lambda: _left(other, key, 1)))
        assert await status_of(other, key) == 200
        await seconds_until(lambda: _left(one, key, 1))
    assert min(took) < 1
    assert min(freed) < 1


async def _left(running: Running, key: str, wanted: int) -> bool:
    """Whether it is known there how many requests the key may have at once besides others."""
    status, told = await running.json("GET", "/key", key=key)
    return status == 200 and told["left"]["concurrency"]["left"] == wanted


async def test_tokens_of_today_are_known_to_a_gateway_that_starts(
    both: tuple[Running, Running], make_gateway: MakeGateway, tmp_path: Path, url: str
) -> None:
    one, other = both
    _, key = await new_key(one, limits={"tpd": 1_000_000})
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as listener:
        await listener.execute(f"LISTEN {CHANNEL}")
        assert await status_of(one, key) == 200
        await seconds_until(lambda: _is(status_of(other, key), 200))

        for running in both:
            await running.gateway.accounting.usage(days=1)  # written

        # Else a gateway that starts now would count it in the database, and hear of it, too.
        messages = [json.loads(heard.payload) async for heard in listener.notifies(timeout=0)]
    spent = [one for message in messages for one in message.get("spent", {}).values()]
    told = sum(tokens for _, tokens, _ in spent)
    assert told > 0
    models = {"m": fake_model(tmp_path)}
    async with make_gateway(models, folder="third", store={"url": url}) as third:
        assert await left(third, key, "tpd") == 1_000_000 - told


class Late(Accounting):
    """Accounting of a gateway beside one that tells and writes just before this one reads again."""

    readings = 0

    async def used_today(self) -> UsedToday:
        self.readings += 1
        if self.readings == 2:  # the first is at the start, before it hears anybody
            assert self.beside is not None
            await self.beside()
        return await super().used_today()

    beside: Callable[[], Awaitable[None]] | None = None


async def test_what_is_found_in_the_database_is_not_counted_again_when_it_is_heard(
    url: str,
) -> None:
    told = json.dumps({"from": "another", "spent": {"k": [1, 30, 0], "l": [1, 7, 0]}})
    async with (
        await Store.open(Secret(url)) as store,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as another,
    ):

        async def tell_and_write() -> None:
            await another.execute("SELECT pg_notify(%s, %s)", (CHANNEL, told))
            await store.add_usage([DailyUsage("k", "m", datetime.now(UTC).date(), 1, 20, 10)])

        accounting = Late(write_every=3600)
        accounting.beside = tell_and_write
        await accounting.open(store)
        limits = SharedLimits(
            accounting.limiter, lambda key_id: KeyLimits(), accounting.count_elsewhere
        )
        peers = Peers(Secret(url), limits, _nothing, accounting)
        peers.start()
        try:
            await eventually(lambda: accounting.tokens_today("l"))
            assert accounting.tokens_today("l") == 7
            await eventually(lambda: accounting.readings == 2 and accounting.tokens_today("k"))
            await peers.tell()  # so a whole round is over
            await peers.tell()
            assert accounting.tokens_today("k") == 30
        finally:
            await peers.close()
            await accounting.close()


async def _nothing() -> None:
    """Read no keys."""


async def test_of_gateways_that_start_at_once_on_an_empty_database_one_makes_a_key(
    url: str,
) -> None:
    rings = [await KeyRing.open(await Store.open(Secret(url))) for _ in range(4)]
    try:
        made = await asyncio.gather(*(ring.create_first("admin", "", admin=True) for ring in rings))
        (key,) = filter(None, made)
        for ring in rings:  # each knows it at once, and needn't hear of it
            (record,) = ring.records
            assert record.hash == hash_key(key).hex()
        assert await rings[0].create_first("admin", "", admin=True) is None
    finally:
        for ring in rings:
            await ring.close()


async def test_each_gateway_lists_the_requests_of_both(both: tuple[Running, Running]) -> None:
    one, other = both
    for running in both:
        assert await status_of(running, running.key) == 200
        await seconds_until(lambda running=running: _ended(running))  # type: ignore[misc]
        await running.gateway.accounting.log.write()
    for running in both:
        _, told = await running.json("GET", "/admin/requests?limit=2")
        assert {ended["name"] for ended in told["ended"]} == {"test"}
        assert len({ended["key"] for ended in told["ended"]}) == 2
        assert (await running.json("GET", "/admin/requests?limit=1"))[1]["next"] is not None
    await other.gateway.accounting.usage(days=1)  # written
    _, usage = await one.json("GET", "/admin/usage")
    assert sum(row["requests"] for row in usage["usage"]) == 2


async def _ended(running: Running) -> bool:
    return bool(running.gateway.accounting.recent)


async def test_what_others_write_to_the_channel_does_no_harm(
    both: tuple[Running, Running], url: str
) -> None:
    one, other = both
    texts = (
        "",
        "no JSON",
        "[]",
        "{}",
        '{"from": 1, "spent": []}',
        '{"from":"x","spent":{"k":[1]}}',
    )
    with psycopg.connect(url, autocommit=True) as connection:
        for text in texts:
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, text))
    _, key = await new_key(one)
    await seconds_until(lambda: _is(status_of(other, key), 200))


def test_what_ran_at_a_gateway_that_is_gone_counts_no_more() -> None:
    now = 0.0
    counted: list[tuple[str, int]] = []
    limiter = Limiter(lambda key_id: 0, monotonic=lambda: now)
    limits = KeyLimits(rpm=60, tpm=600, concurrency=2)
    shared = SharedLimits(
        limiter, lambda key_id: limits, lambda *told: counted.append(told), monotonic=lambda: now
    )

    def remaining() -> dict[str, int]:
        return {name: one.left for name, one in limiter.left("k", limits).items()}

    shared.hear("a", {"k": Spending(30, 300, 1)})
    shared.hear("b", {"k": Spending(0, 0, 1)})
    assert remaining() == {"rpm": 30, "tpm": 300, "concurrency": 0}
    assert counted == [("k", 300)]
    shared.hear("b", {"k": Spending(0, 0, 0)})
    now = GONE - 1
    shared.forget_gone()
    assert remaining() == {"rpm": 44, "tpm": 440, "concurrency": 1}
    now = GONE
    shared.forget_gone()
    assert remaining() == {"rpm": 45, "tpm": 450, "concurrency": 2}
    assert shared.news() == {}  # nothing of it was used here
    with limiter.stream("k", limits, 5):
        limiter.admit("k", limits).answered(500)  # through no fault of its client
        assert shared.news() == {"k": Spending(0, 0, 1)}
        assert shared.running() == {"k": Spending(0, 0, 1)}
    assert shared.news() == {"k": Spending(0, 0, 0)}
