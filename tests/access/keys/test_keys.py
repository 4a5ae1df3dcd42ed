"""Keys: their text, and what each opens."""

import random
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.key_format import hash_key, looks_like_ours, new_key
from gateway.access.key_lookup import UnknownKey
from gateway.access.key_values import time_after
from gateway.access.keys import KeyRing
from gateway.access.principal import ANONYMOUS, LOCAL_ADMIN, Principal
from gateway.access.rate_limits import KeyLimits
from gateway.access.store import Store
from gateway.errors import Unauthorized
from gateway.scope import Scope

# --- the text of a key ---------------------------------------------------------------------


def test_each_new_key_is_another_and_is_known_as_ours() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert len(key) == len("llmgw_") + 43 + 6
        assert key.isascii()
        assert key.removeprefix("llmgw_").isalnum()
        assert looks_like_ours(key)


def test_a_typing_error_or_a_cut_is_noticed() -> None:
    chance = random.Random(1)
    for _ in range(200):
        key = new_key()
        place = chance.randrange(6, len(key))
        other = chance.choice([char for char in "0aZ9z" if char != key[place]])
        assert not looks_like_ours(key[:place] + other + key[place + 1 :])
        assert not looks_like_ours(key[:place])
        assert not looks_like_ours(f"{key}0")
        assert not looks_like_ours(key + "\n")


@given(st.text(st.characters(), max_size=80))
def test_any_text_is_hashed_and_is_none_of_ours(text: str) -> None:
    assert len(hash_key(text)) == 32
    assert not looks_like_ours(text)
    assert not looks_like_ours("llmgw_" + text)


def test_hash_is_sha256_of_utf8() -> None:
    assert hash_key("abc").hex().startswith("ba7816bf8f01cfea")
    assert hash_key("é") == hash_key("\u00e9") != hash_key("e\u0301")
    assert len(hash_key("\udce9")) == 32  # a byte of a header that isn't UTF-8


# --- find ----------------------------------------------------------------------------------


async def test_a_key_opens_what_its_record_says(ring: KeyRing, store: Store) -> None:
    record, key = await ring.create("phone", "Bob's", models=["a", "b"], expires=time_after(60))
    await store.update_key(
        record.id, personalities=("p",), default_personality="p", limits={"rpm": 3, "tpd": 9}
    )
    await ring.reload()
    found = ring.lookup.find(key, time.time())
    assert (found.key_id, found.name, found.may(Scope.ADMIN)) == (record.id, "phone", False)
    assert found.models == {"a", "b"}
    assert found.personalities == {"p"}
    assert found.default_personality == "p"
    assert found.limits == KeyLimits(rpm=3, tpd=9)
    assert record.expires is not None
    assert found.expires == record.expires.timestamp()

    other, other_key = await ring.create("plain", admin=True)
    found = ring.lookup.find(other_key, time.time())
    assert (found.key_id, found.may(Scope.ADMIN), found.models) == (other.id, True, None)
    assert found.limits == KeyLimits()


async def test_the_key_is_nowhere_but_in_the_answer(ring: KeyRing, file: Path) -> None:
    record, key = await ring.create("phone")
    assert key not in repr(record)
    assert key not in repr(ring.lookup.find(key, 0))
    assert record.hash == hash_key(key).hex()
    await ring.reload()
    for path in file.parent.iterdir():
        assert key.encode() not in path.read_bytes()


async def test_expiry_is_to_the_moment(ring: KeyRing) -> None:
    record, key = await ring.create("short", expires=time_after(30))
    assert record.expires is not None
    end = record.expires.timestamp()
    assert ring.lookup.find(key, end - 0.001).key_id == record.id
    with pytest.raises(Unauthorized, match="expired"):
        ring.lookup.find(key, end)


async def test_a_revoked_key_ends_with_the_next_request(ring: KeyRing) -> None:
    record, key = await ring.create("phone")
    assert ring.lookup.find(key, 0).key_id == record.id
    revoked = await ring.revoke(record.id)
    assert revoked.revoked is not None
    with pytest.raises(Unauthorized, match="revoked"):
        ring.lookup.find(key, 0)
    assert await ring.revoke(record.id) == revoked  # again: nothing changes


@given(st.text(st.characters(exclude_categories=()), max_size=600))
def test_find_takes_any_text(text: str) -> None:
    ring = KeyRing(None)  # no request touches the store
    with pytest.raises(UnknownKey) as caught:
        ring.lookup.find(text, 0)
    orjson.dumps(caught.value.body())


STRANGE = {
    "empty": "",
    "short": "a",
    "long": "x" * 2**20,
    "long, not ASCII": "é" * 513,
    "not ASCII": "clé-🔑",
    "bytes": "\udcff\udcfe",
    "other surrogates": "\ud800",
    "zero": "\0",
    "ours, mistyped": "llmgw_" + "0" * 49,
}


@pytest.mark.parametrize("presented", STRANGE.values(), ids=STRANGE.keys())
async def test_wrong_keys_are_refused_without_repeating_them(ring: KeyRing, presented: str) -> None:
    await ring.create("phone")
    with pytest.raises(Unauthorized) as caught:
        ring.lookup.find(presented, 0)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"] == "Bearer"
    if len(presented) > 1:
        assert presented not in str(caught.value.body())


async def test_wrong_key_is_told_what_is_wrong_with_it(
    ring: KeyRing, subtests: pytest.Subtests
) -> None:
    _, key = await ring.create("phone")
    for wrong, said in {
        new_key(): "not known",
        key[:-1]: "incomplete, or has a typing error",
        key.swapcase(): "not known",
        f" {key}": "not known",
    }.items():
        with subtests.test(f"{wrong!r:.80}"), pytest.raises(Unauthorized, match=said):
            ring.lookup.find(wrong, 0)
    # The digest of a key, found in a stolen database, is no key.
    with pytest.raises(Unauthorized):
        ring.lookup.find(hash_key(key).hex(), 0)


async def test_find_is_cheap_among_many_keys(ring: KeyRing, store: Store) -> None:
    _, key = await ring.create("phone")
    some = ring.records[0]
    await store.add_keys(
        type(some)(id=f"k_{n}", name="n", hash=f"{n:064x}", created=some.created)
        for n in range(5000)
    )
    await ring.reload()
    best = min(_time_of_find(ring, key) for _ in range(5))
    assert best < 50e-6  # measured: about 1 µs; a linear search takes milliseconds


def _time_of_find(ring: KeyRing, key: str) -> float:
    start = time.perf_counter()
    for _ in range(200):
        ring.lookup.find(key, 0)
    return (time.perf_counter() - start) / 200


@pytest.mark.parametrize("principal", [ANONYMOUS, LOCAL_ADMIN])
def test_without_a_key_all_is_allowed_and_nothing_expires(principal: Principal) -> None:
    assert principal.may(Scope.ADMIN)
    assert principal.models is None
    assert principal.expires is None
