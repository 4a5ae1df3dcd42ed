"""Keys and the ring of them, over a real database."""

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.key_fields import time_after
from gateway.access.keys import (
    ANONYMOUS,
    LOCAL_ADMIN,
    KeyRing,
    Limits,
    UnknownKey,
    hash_key,
    looks_like_ours,
    new_key,
)
from gateway.access.rate_limits import NO_LIMITS
from gateway.access.store import Store
from gateway.errors import BadRequest, GatewayError, NotFound, Unauthorized
from gateway.scope import Scope
from gateway.validation import InvalidFiles


class Watched(Store):
    """The store, and a signal after each try to write activity."""

    tries: asyncio.Queue[Mapping[str, datetime]]

    async def touch_keys(self, last_activity: Mapping[str, datetime]) -> None:
        try:
            await super().touch_keys(last_activity)
        finally:
            self.tries.put_nowait(dict(last_activity))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
async def store(file: Path) -> Watched:
    store = await Watched.open(file)
    store.tries = asyncio.Queue()
    return store


@pytest.fixture
async def ring(store: Watched) -> AsyncIterator[KeyRing]:
    ring = await KeyRing.open(store, write_every=0)
    yield ring
    await ring.close()


def activity_in(file: Path) -> dict[str, str | None]:
    connection = sqlite3.connect(file)
    try:
        return dict(connection.execute("SELECT id, last_activity FROM keys"))
    finally:
        connection.close()


# --- the text of a key ---------------------------------------------------------------------


def test_new_keys() -> None:
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
    found = ring.find(key, time.time())
    assert (found.key_id, found.name, found.may(Scope.ADMIN)) == (record.id, "phone", False)
    assert found.models == {"a", "b"}
    assert found.personalities == {"p"}
    assert found.default_personality == "p"
    assert found.limits == Limits(rpm=3, tpd=9)
    assert record.expires is not None
    assert found.expires == record.expires.timestamp()

    other, other_key = await ring.create("plain", admin=True)
    found = ring.find(other_key, time.time())
    assert (found.key_id, found.may(Scope.ADMIN), found.models) == (other.id, True, None)
    assert found.limits == Limits()


async def test_the_key_is_nowhere_but_in_the_answer(ring: KeyRing, file: Path) -> None:
    record, key = await ring.create("phone")
    assert key not in repr(record)
    assert key not in repr(ring.find(key, 0))
    assert record.hash == hash_key(key).hex()
    await ring.reload()
    for path in file.parent.iterdir():
        assert key.encode() not in path.read_bytes()


async def test_expiry_is_to_the_moment(ring: KeyRing) -> None:
    record, key = await ring.create("short", expires=time_after(30))
    assert record.expires is not None
    end = record.expires.timestamp()
    assert ring.find(key, end - 0.001).key_id == record.id
    with pytest.raises(Unauthorized, match="expired"):
        ring.find(key, end)


async def test_a_revoked_key_ends_with_the_next_request(ring: KeyRing) -> None:
    record, key = await ring.create("phone")
    assert ring.find(key, 0).key_id == record.id
    revoked = await ring.revoke(record.id)
    assert revoked.revoked is not None
    with pytest.raises(Unauthorized, match="revoked"):
        ring.find(key, 0)
    assert await ring.revoke(record.id) == revoked  # again: nothing changes


@given(st.text(st.characters(exclude_categories=()), max_size=600))
def test_find_takes_any_text(text: str) -> None:
    ring = KeyRing(None)  # type: ignore[arg-type]  # no request touches the store
    with pytest.raises(UnknownKey) as caught:
        ring.find(text, 0)
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
        ring.find(presented, 0)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"] == "Bearer"
    if len(presented) > 1:
        assert presented not in str(caught.value.body())


async def test_what_is_said_of_a_wrong_key(ring: KeyRing) -> None:
    _, key = await ring.create("phone")
    for wrong, said in {
        new_key(): "not known",
        key[:-1]: "incomplete, or has a typing error",
        key.swapcase(): "not known",
        f" {key}": "not known",
    }.items():
        with pytest.raises(Unauthorized, match=said):
            ring.find(wrong, 0)
    # The digest of a key, found in a stolen database, is no key.
    with pytest.raises(Unauthorized):
        ring.find(hash_key(key).hex(), 0)


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
        ring.find(key, 0)
    return (time.perf_counter() - start) / 200


def test_principals_without_a_key() -> None:
    for principal in (ANONYMOUS, LOCAL_ADMIN):
        assert principal.may(Scope.ADMIN)
        assert principal.models is None
        assert principal.expires is None


# --- create, revoke, reload ----------------------------------------------------------------


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
async def test_values_that_make_no_key(
    ring: KeyRing, param: str, values: dict[str, object]
) -> None:
    with pytest.raises(BadRequest) as caught:
        await ring.create(**{"name": "bob", **values})  # type: ignore[arg-type]
    assert caught.value.param == param
    assert ring.records == ()


@pytest.mark.parametrize("seconds", [0, -5, float("nan"), 1e300])
def test_what_is_no_time_to_come(seconds: float) -> None:
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
    assert ring.find(key, 0).limits == Limits(rpm=5, tpd=9)
    changed = await ring.change(
        record.id,
        {"name": "tablet", "models": None, "limits": {"rpm": None, "tpm": 7}, "admin": True},
    )
    assert (changed.name, changed.description, changed.hash) == ("tablet", "Bob's", record.hash)
    found = ring.find(key, 0)
    assert (found.name, found.may(Scope.ADMIN), found.models) == ("tablet", True, None)
    assert found.limits == Limits(tpm=7, tpd=9)
    assert await ring.change(record.id, {}) == changed
    await ring.change(record.id, {"limits": None, "personalities": []})
    assert ring.find(key, 0).limits is NO_LIMITS
    assert ring.find(key, 0).personalities == frozenset()
    async with await Store.open(file) as store:
        assert await store.list_keys() == list(ring.records)


async def test_a_change_that_is_refused_changes_nothing(ring: KeyRing) -> None:
    record, _ = await ring.create("phone", admin=True, personalities=["p"], default_personality="p")
    for changes in (
        {"name": "good", "limits": {"rpm": -1}},
        {"personalities": ["q"]},  # not with that default
        {"admin": False},  # the last one
    ):
        with pytest.raises(BadRequest):
            await ring.change(record.id, changes)
    assert ring.records == (record,)
    with pytest.raises(NotFound):
        await ring.change("k_abcd1234", {"name": "x"})
    await ring.change(record.id, {"admin": False}, force=True)
    await ring.revoke(record.id)
    with pytest.raises(BadRequest, match="revoked"):
        await ring.change(record.id, {"name": "x"})


async def test_revoking_what_is_not_there(ring: KeyRing) -> None:
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
        ring.find(made_key, 0)
    await ring.reload()
    assert ring.find(made_key, 0).key_id == made.id
    with pytest.raises(Unauthorized, match="revoked"):
        ring.find(my_key, 0)


async def test_a_ring_that_cannot_read_its_store_closes_it(file: Path) -> None:
    store = await Store.open(file)
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE keys")
    connection.close()
    with pytest.raises(GatewayError, match="no such table"):
        await KeyRing.open(store)
    assert not list(file.parent.glob("*-wal"))  # there is one while it's open


# --- last activity -------------------------------------------------------------------------


async def test_activity_is_written_behind_the_requests(
    ring: KeyRing, store: Watched, file: Path
) -> None:
    used, _ = await ring.create("used")
    idle, _ = await ring.create("idle")
    before = datetime.now(UTC)
    for _ in range(100):
        ring.touch(used.id)
    ring.touch("k_of_nobody")
    ring.touch(ANONYMOUS.key_id)
    assert activity_in(file) == {used.id: None, idle.id: None}  # touch itself writes nothing
    (shown,) = [record.last_activity for record in ring.records if record.id == used.id]
    assert shown is not None
    assert before <= shown <= datetime.now(UTC)
    batch = await store.tries.get()
    assert batch == {used.id: shown}  # a hundred uses, one write
    assert store.tries.empty()
    assert activity_in(file)[used.id] is not None
    await ring.reload()
    assert {record.id: record.last_activity for record in ring.records} == {
        used.id: shown,
        idle.id: None,
    }


async def test_closing_writes_what_is_left(store: Watched, file: Path) -> None:
    ring = await KeyRing.open(store, write_every=3600)
    record, _ = await ring.create("used")
    ring.touch(record.id)
    await ring.close()
    assert activity_in(file)[record.id] is not None


async def test_a_failing_database_loses_nothing_and_is_logged_once(
    ring: KeyRing, store: Watched, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway")
    first, key = await ring.create("first")
    second, _ = await ring.create("second")
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(
        "CREATE TRIGGER fire BEFORE UPDATE ON keys "
        "BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END"
    )
    ring.touch(first.id)
    assert (await store.tries.get()).keys() == {first.id}
    ring.touch(second.id)
    while (await store.tries.get()).keys() != {first.id, second.id}:
        pass  # it's tried again and again, the new one joins
    assert ring.find(key, 0).key_id == first.id  # requests don't notice
    errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "the disk is on fire" in errors[0].getMessage()

    connection.execute("DROP TRIGGER fire")
    connection.close()
    while not all(activity_in(file).values()):
        await store.tries.get()
    assert all(activity_in(file).values())
    ring.touch(first.id)
    await store.tries.get()
    assert [entry.getMessage() for entry in caplog.records][1:] == [
        "when keys were last used is written again"
    ]


# --- the old file --------------------------------------------------------------------------

OLD = """{"phone": {"key": "3f9a8b7c6d5e4f3a", "description": "Bob's", "admin": false},
          "web": {"key": "b1946ac92492d234", "lastActivity": 1709632800000},
          "tv": {"key": "secret"}}"""


async def test_old_keys_go_on_working(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text(OLD)
    report = await ring.import_legacy(path)
    assert set(report.imported) == set(ring.records)
    assert report.skipped == ()
    assert {(record.name, record.admin, record.imported) for record in ring.records} == {
        ("web", True, True),
        ("phone", False, True),
        ("tv", True, True),
    }
    by_name = {record.name: record for record in ring.records}
    assert by_name["web"].last_activity == datetime(2024, 3, 5, 10, tzinfo=UTC)
    assert by_name["phone"].description == "Bob's"
    for key, name in {
        "3f9a8b7c6d5e4f3a": "phone",
        "b1946ac92492d234": "web",
        "secret": "tv",
    }.items():
        assert ring.find(key, time.time()).name == name
        assert key not in repr(report)
    assert ["6 characters" in warning for warning in report.warnings] == [True]


async def test_importing_twice_changes_nothing(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text(OLD)
    first = (await ring.import_legacy(path)).imported
    report = await ring.import_legacy(path)
    assert report.imported == ()
    assert [text.split(": ")[1] for text in report.skipped] == [
        f"is here already, as {record.id}" for record in first
    ]
    assert set(ring.records) == set(first)


async def test_import_without_admins(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text('["3f9a8b7c6d5e4f3a", {"key": "b1946ac92492d234", "admin": true}]')
    await ring.import_legacy(path, admin=False)
    assert [record.admin for record in ring.records] == [False, False]


async def test_the_same_key_twice_in_the_file(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text('{"a": "3f9a8b7c6d5e4f3a", "b": "3f9a8b7c6d5e4f3a"}')
    report = await ring.import_legacy(path)
    assert [record.name for record in report.imported] == ["a"]
    assert report.skipped == (f"entry 2 (b): is here already, as {report.imported[0].id}",)


async def test_one_bad_entry_and_nothing_is_imported(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "authKeys.json"
    path.write_text('["3f9a8b7c6d5e4f3a", {"name": "no key"}, 7]')
    with pytest.raises(InvalidFiles) as caught:
        await ring.import_legacy(path)
    assert [problem.key for problem in caught.value.problems] == ["entry 2", "entry 3"]
    assert ring.records == ()
    with pytest.raises(InvalidFiles, match="No such file"):
        await ring.import_legacy(tmp_path / "none.json")
