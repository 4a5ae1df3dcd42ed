"""Guessing of keys: what is counted, who is refused, and who is not."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.key_format import new_key
from gateway.access.wrong_keys import TooManyWrongKeys, WrongKeys
from gateway.http.networks import network_of
from tests.harness import MakeGateway, Running


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def allowed(table: WrongKeys, address: str, tries: int = 100) -> int:
    """How many of ``tries`` wrong keys are looked at."""
    for number in range(tries):
        try:
            table.wrong(address)
        except TooManyWrongKeys:
            return number
    return tries


def test_guesses_are_twenty_at_once_then_one_in_three_seconds() -> None:
    clock = Clock()
    table = WrongKeys(clock=clock)
    assert allowed(table, "10.0.0.1") == 20
    with pytest.raises(TooManyWrongKeys) as caught:
        table.wrong("10.0.0.1")
    assert caught.value.status == 429
    assert caught.value.headers == {"Retry-After": "3", "x-should-retry": "false"}
    clock.now += 3
    assert allowed(table, "10.0.0.1") == 1  # Retry-After was not a lie
    clock.now += 30
    assert allowed(table, "10.0.0.1") == 10
    clock.now += 3600
    assert allowed(table, "10.0.0.1") == 20
    assert allowed(table, "10.0.0.2") == 20  # a neighbour has an allowance of its own


def test_wrong_keys_are_counted_by_network(subtests: pytest.Subtests) -> None:
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9%eth0")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("10.0.0.2")
    for local in (None, "", "/run/x.sock"):
        with subtests.test(f"{local!r:.80}"):
            assert network_of(local) is None
            table = WrongKeys(allowed=1)
            assert allowed(table, local) == 100


@given(st.text())
def test_any_text_is_taken_as_an_address(text: str) -> None:
    network = network_of(text)
    assert network is None or len(network) in (4, 8)


def test_the_table_is_bounded_and_forgets_the_oldest() -> None:
    clock = Clock()
    table = WrongKeys(addresses=3, clock=clock)
    assert allowed(table, "10.0.0.1") == 20
    for last in range(2, 4):
        table.wrong(f"10.0.0.{last}")
    assert allowed(table, "10.0.0.1") == 0  # still there
    for last in range(4, 100):
        table.wrong(f"10.0.0.{last}")
    assert [allowed(table, f"10.0.0.{last}") for last in (97, 98, 99)] == [19, 19, 19]
    assert allowed(table, "10.0.0.96") == 20


def test_the_keys_that_were_right_are_bounded_and_the_oldest_is_forgotten() -> None:
    table = WrongKeys(addresses=3, clock=Clock())
    for number in range(100):
        table.right("10.0.0.1", f"k_{number}")
    assert allowed(table, "10.0.0.1") == 20
    for number in (97, 98, 99):
        table.right("10.0.0.1", f"k_{number}")  # where it worked before
    with pytest.raises(TooManyWrongKeys):
        table.right("10.0.0.1", "k_96")


def test_an_imported_key_works_where_it_worked_before() -> None:
    table = WrongKeys(clock=Clock())
    table.right("10.0.0.1", "k_old")
    allowed(table, "10.0.0.1")
    table.right("10.0.0.1", "k_old")
    for address, key_id in (("10.0.0.1", "k_other"), ("10.0.0.1", "k_third")):
        with pytest.raises(TooManyWrongKeys):
            table.right(address, key_id)
    table.right("10.0.0.2", "k_other")  # from elsewhere


def test_a_flood_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    table = WrongKeys(clock=clock)
    for second in range(0, 120, 2):
        clock.now = 1000 + second
        allowed(table, "10.0.0.1")
        allowed(table, "10.0.0.1")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "10.0.0.1" in lines[1]


# --- through HTTP --------------------------------------------------------------------------


async def flood(running: Running, key: str | None = None) -> list[int]:
    """Thirty wrong keys; the statuses."""
    return [(await running.json("GET", "/v1/models", key=key or new_key()))[0] for _ in range(30)]


async def test_guessers_are_refused_and_owners_behind_the_same_address_are_not(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway")
    async with make_gateway({}) as running:
        ring = running.gateway.ring
        assert ring is not None
        old = tmp_path / "authKeys.json"
        old.write_text('{"hunter2": {"name": "known"}, "swordfish": {"name": "new"}}')
        await ring.import_legacy(old)
        assert (await running.json("GET", "/models", key="hunter2"))[0] == 200

        caplog.clear()
        assert await flood(running) == [401] * 20 + [429] * 10
        lines = [r.getMessage() for r in caplog.records if r.name == "gateway.access"]
        assert len(lines) == 20, "refused guesses are not logged one by one"

        async with running.request("GET", "/models", key="guess") as response:
            refused = await response.json()
            assert response.status == 429
            assert response.headers["Retry-After"] in ("1", "2", "3")
        assert refused["error"]["code"] == "too_many_wrong_keys"
        # A key of ours works, also one that is new; so does an imported one that is known here.
        assert (await running.json("GET", "/models"))[0] == 200
        _, fresh = await ring.create("fresh")
        assert (await running.json("GET", "/models", key=fresh))[0] == 200
        assert (await running.json("GET", "/models", key="hunter2"))[0] == 200
        # Where all of that took its time, a guess may be free again.
        while (await running.json("GET", "/models", key=new_key()))[0] != 429:
            pass
        # One that could have been guessed right now looks like any wrong one.
        status, answer = await running.json("GET", "/models", key="swordfish")
        assert status == 429
        assert re.sub(r"\d s$", "", answer["error"].pop("message")) == re.sub(
            r"\d s$", "", refused["error"].pop("message")
        )
        assert answer == refused
        # No key at all is no guess.
        assert (await running.json("GET", "/models", key=None))[0] == 401
        assert (await running.json("GET", "/health", key=None))[0] == 200


async def test_revoked_keys_are_no_guesses(make_gateway: MakeGateway) -> None:
    async with make_gateway({}) as running:
        ring = running.gateway.ring
        assert ring is not None
        record, key = await ring.create("left on a shelf")
        await ring.revoke(record.id)
        assert set(await flood(running, key)) == {401}
        assert (await running.json("GET", "/models", key="wrong"))[0] == 401
