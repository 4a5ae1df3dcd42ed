"""Kept responses in the database, in a file as on a server: what goes, and what stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.access.store import Store
from gateway.access.stored_responses import DELETED_AT_ONCE, StoredItem, StoredResponse, now
from gateway.secret import Secret

HOUR = 3_600_000_000


@pytest.fixture(params=["file", "server"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    where: Path | Secret = tmp_path / "gateway.db"
    if request.param == "server":
        where = Secret(request.getfixturevalue("url"))
    async with await Store.open(where) as opened:
        yield opened


def response(
    number: int, previous: int | None = None, key: str = "k", **more: object
) -> StoredResponse:
    before = None if previous is None else f"resp_{previous}"
    values = {"response": b"r" * 100, "input": b"i" * 100, "events": b"e" * 1000, **more}
    fields = {"conversation_id": None, "running": None, **values}
    return StoredResponse(f"resp_{number}", key, number, before, **fields)  # type: ignore[arg-type]


async def put(store: Store, *kept: StoredResponse) -> None:
    for each in kept:
        await store.put_response(lambda each=each: (each, []))  # type: ignore[misc]


async def left(store: Store, *numbers: int) -> list[int]:
    return [n for n in numbers if await store.response_of(f"resp_{n}", "k") is not None]


async def test_response_comes_back_as_it_went_in_and_is_replaced(store: Store) -> None:
    await put(store, response(1, running="box"))
    assert await store.responses_running_at("box") == [response(1, running="box")]
    await put(store, response(1, input=b"\x00\xff"))
    assert await store.response_of("resp_1", "k") == response(1, input=b"\x00\xff")
    assert await store.response_of("resp_1", "other") is None
    assert await store.responses_running_at("box") == []
    assert not await store.delete_response("resp_1", "other")
    assert await store.delete_response("resp_1", "k")
    assert not await store.delete_response("resp_1", "k")


async def test_chain_is_the_first_first_and_says_what_is_missing(store: Store) -> None:
    await put(store, response(1), response(2, 1), response(3, 2), response(4, 9), response(5, 5))
    chain = await store.chain_of("resp_3", "k", 100, 10**6)
    assert [each.id for each in chain] == ["resp_1", "resp_2", "resp_3"]
    assert chain[0].previous_id is None
    assert chain[0].events is None
    assert [each.id for each in await store.chain_of("resp_3", "k", 2, 10**6)] == [
        "resp_2",
        "resp_3",
    ]
    assert await store.chain_of("resp_3", "other", 100, 10**6) == []
    assert (await store.chain_of("resp_4", "k", 100, 10**6))[0].previous_id == "resp_9"
    assert len(await store.chain_of("resp_5", "k", 100, 10**6)) == 1  # a circle ends


async def test_old_ones_go_but_not_what_is_gone_on_with_or_under_way(store: Store) -> None:
    await put(store, response(1), response(2, 1), response(3), response(4, running="box"))
    before = now()
    await store.use_responses(["resp_1", "resp_2"], None, before)
    await store.prune_responses(before, 2**30)
    assert await left(store, 1, 2, 3, 4) == [1, 2, 4]


async def test_least_recently_used_go_where_all_take_too_much(store: Store) -> None:
    many = [response(n) for n in range(DELETED_AT_ONCE + 20)]
    await put(store, *many[:10])
    await store.use_responses(["resp_3"], None, now())
    size = many[0].size
    await store.prune_responses(0, 4 * size)
    assert await left(store, *range(10)) == [3, 7, 8, 9]
    await put(store, *many[10:])
    await store.prune_responses(0, 2 * size)
    assert await left(store, *range(len(many))) == [len(many) - 2, len(many) - 1]


async def test_those_of_keys_that_are_gone_go(store: Store) -> None:
    await put(store, response(1), response(2, key="gone"))
    assert await store.forget_responses(lambda key: key == "k") == 1
    assert await left(store, 1) == [1]
    assert await store.response_of("resp_2", "gone") is None


async def test_items_of_a_conversation_stay_in_order_and_go_with_it(store: Store) -> None:
    assert await store.items_of("conv_1", "k") is None
    first = response(1, conversation_id="conv_1")
    await store.put_response(lambda: (first, [StoredItem("msg_1", b"x")]))  # there is none: lost
    assert await store.items_of("conv_1", "k") is None


async def test_one_that_was_deleted_elsewhere_does_not_come_back(store: Store) -> None:
    await put(store, response(1, running="box"))
    await store.put_response(lambda: (response(1), []), again=True)
    assert await left(store, 1) == [1]
    await store.delete_response("resp_1", "k")
    await store.put_response(lambda: (response(1), []), again=True)
    assert await left(store, 1) == []


async def test_recent_use_is_not_written_again(store: Store) -> None:
    await put(store, response(1), response(2))
    between = now()
    await store.use_responses(["resp_1"], None, between - HOUR)  # it was used since then
    await store.use_responses(["resp_2"], None, between)
    await store.prune_responses(between, 2**30)
    assert await left(store, 1, 2) == [2]


async def test_what_a_lost_gateway_worked_on_goes_later(store: Store) -> None:
    await put(store, response(1, running="box"))
    await store.prune_responses(now(), 2**30)
    assert await left(store, 1) == [1]
    await store.prune_responses(now() + 25 * HOUR, 2**30)
    assert await left(store, 1) == []


async def test_longer_chains_than_can_be_sent_are_not_read_to_their_end(store: Store) -> None:
    await put(store, response(1), response(2, 1), response(3, 2), response(4, 3))
    chain = await store.chain_of("resp_4", "k", 100, 700)
    assert [each.id for each in chain] == ["resp_3", "resp_4"]
