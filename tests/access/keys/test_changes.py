"""Keys that are made, changed, revoked and read anew."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.access.key_format import new_key
from gateway.access.key_values import time_after
from gateway.access.keys import KeyRing
from gateway.access.rate_limits import NO_LIMITS, KeyLimits
from gateway.access.store import Store
from gateway.errors import BadRequest, GatewayError, NotFound, Unauthorized
from gateway.scope import Scope


@pytest.mark.parametrize(
    ("param", "values"),
    [
        ("name", {"name": ""}),
        ("name", {"name": " bob"}),
        ("name", {"name": "a\x1b[2J"}),
        ("name", {"name": "a\nb"}),
        ("name", {"name": "x" * 101}),
        ("name", {"name": "\udcff"}),
        ("description", {"description": "x" * 1001}),
        ("description", {"description": "a\0"}),
        ("models", {"models": []}),
        ("models", {"models": [""]}),
        ("models", {"models": "a,b"}),
        ("expires", {"expires": datetime.now(UTC)}),
        ("admin", {"admin": "yes"}),
        ("personalities", {"personalities": ["a", 7]}),
        ("personalities", {"personalities": ["a\n"]}),
        ("defaultPersonality", {"default_personality": ""}),
        ("defaultPersonality", {"default_personality": "b", "personalities": ["a"]}),
        ("limits", {"limits": 5}),
        ("limits", {"limits": {"rph": 5}}),
        ("limits.rpm", {"limits": {"rpm": 0}}),
        ("limits.tpm", {"limits": {"tpm": True}}),
        ("limits.tpd", {"limits": {"tpd": 10**30}}),
        ("limits.concurrency", {"limits": {"concurrency": 1.5}}),
    ],
)
async def test_value_of_a_key_that_is_wrong_is_refused_by_its_name(
    ring: KeyRing, param: str, values: dict[str, object]
) -> None:
    with pytest.raises(BadRequest) as caught:
        await ring.create(**{"name": "bob", **values})  # type: ignore[arg-type]
    assert caught.value.param == param
    assert ring.records == ()


@pytest.mark.parametrize("seconds", [0, -5, float("nan"), 1e300])
def test_expiry_that_is_not_ahead_is_refused(seconds: float) -> None:
    with pytest.raises(BadRequest) as caught:
        time_after(seconds)
    assert caught.value.param == "expires"


async def test_the_last_admin_key_that_works_is_kept(ring: KeyRing) -> None:
    first, _ = await ring.create("first", admin=True)
    ended, _ = await ring.create("revoked", admin=True)
    await ring.revoke(ended.id)
    chat, _ = await ring.create("chat")
    with pytest.raises(BadRequest, match=rf"{first.id} is the last admin key .*--force") as caught:
        await ring.revoke(first.id)
    assert caught.value.code == "last_admin_key"
    await ring.revoke(chat.id)  # not an admin's
    second, _ = await ring.create("second", admin=True, expires=time_after(3600))
    await ring.revoke(first.id)
    await ring.revoke(second.id, force=True)
    assert all(record.revoked for record in ring.records)


async def test_an_expired_admin_key_does_not_count(ring: KeyRing, store: Store) -> None:
    first, _ = await ring.create("first", admin=True)
    other, _ = await ring.create("other", admin=True)
    await store.update_key(other.id, expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(BadRequest, match="last admin key"):
        await ring.revoke(first.id)


async def test_two_revokes_at_once_leave_one_admin(ring: KeyRing) -> None:
    first, _ = await ring.create("first", admin=True)
    second, _ = await ring.create("second", admin=True)
    results = await asyncio.gather(
        ring.revoke(first.id), ring.revoke(second.id), return_exceptions=True
    )
    assert sorted(isinstance(result, BadRequest) for result in results) == [False, True]
    assert sum(record.revoked is None for record in ring.records) == 1


async def test_change_holds_from_the_next_request_on(ring: KeyRing, file: Path) -> None:
    record, key = await ring.create("phone", "Bob's", models=["a"], limits={"rpm": 5, "tpd": 9})
    assert ring.lookup.find(key, 0).limits == KeyLimits(rpm=5, tpd=9)
    changed = await ring.change(
        record.id,
        {"name": "tablet", "models": None, "limits": {"rpm": None, "tpm": 7}, "admin": True},
    )
    assert (changed.name, changed.description, changed.hash) == ("tablet", "Bob's", record.hash)
    found = ring.lookup.find(key, 0)
    assert (found.name, found.may(Scope.ADMIN), found.models) == ("tablet", True, None)
    assert found.limits == KeyLimits(tpm=7, tpd=9)
    assert await ring.change(record.id, {}) == changed
    await ring.change(record.id, {"limits": None, "personalities": []})
    assert ring.lookup.find(key, 0).limits is NO_LIMITS
    assert ring.lookup.find(key, 0).personalities == frozenset()
    async with await Store.open(file) as store:
        assert await store.list_keys() == list(ring.records)


async def test_a_change_that_is_refused_changes_nothing(
    ring: KeyRing, subtests: pytest.Subtests
) -> None:
    record, _ = await ring.create("phone", admin=True, personalities=["p"], default_personality="p")
    for changes in (
        {"name": "good", "limits": {"rpm": -1}},
        {"personalities": ["q"]},  # not with that default
        {"admin": False},  # the last one
    ):
        with subtests.test(f"{changes!r:.80}"), pytest.raises(BadRequest):
            await ring.change(record.id, changes)
    assert ring.records == (record,)
    with pytest.raises(NotFound):
        await ring.change("k_abcd1234", {"name": "x"})
    await ring.change(record.id, {"admin": False}, force=True)
    await ring.revoke(record.id)
    with pytest.raises(BadRequest, match="revoked"):
        await ring.change(record.id, {"name": "x"})


async def test_revoking_an_unknown_id_is_refused_without_repeating_a_key(ring: KeyRing) -> None:
    with pytest.raises(NotFound, match="an id k_abcd1234:"):
        await ring.revoke("k_abcd1234")
    key = new_key()  # pasted by mistake
    with pytest.raises(NotFound) as caught:
        await ring.revoke(key)
    assert key not in str(caught.value)


async def test_reload_sees_what_another_process_did(ring: KeyRing, file: Path) -> None:
    mine, my_key = await ring.create("mine", admin=True)
    other = await KeyRing.open(await Store.open(file))
    made, made_key = await other.create("theirs", admin=True)
    await other.revoke(mine.id)
    await other.close()
    with pytest.raises(Unauthorized):
        ring.lookup.find(made_key, 0)
    await ring.reload()
    assert ring.lookup.find(made_key, 0).key_id == made.id
    with pytest.raises(Unauthorized, match="revoked"):
        ring.lookup.find(my_key, 0)


async def test_a_ring_that_cannot_read_its_store_closes_it(file: Path) -> None:
    store = await Store.open(file)
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE keys")
    connection.close()
    with pytest.raises(GatewayError, match="no such table"):
        await KeyRing.open(store)
    assert not list(file.parent.glob("*-wal"))  # there is one while it's open
