"""When certificates are renewed and tries repeated, by arithmetic alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tls.acme_schedule import Pace, ask_again, renewal_due, with_advice

START = datetime(2026, 1, 1, tzinfo=UTC)
LIVES = [timedelta(hours=1), timedelta(days=6), timedelta(days=47), timedelta(days=90)]


@pytest.mark.parametrize("life", LIVES)
@given(serial=st.integers(1, 2**159))
def test_renewal_is_due_at_two_thirds_of_life_with_jitter(life: timedelta, serial: int) -> None:
    due = renewal_due(START, START + life, serial)
    assert life * 2 / 3 <= due - START <= life * 0.7001
    assert due == renewal_due(START, START + life, serial)  # a restart does not move it


def test_the_jitter_spreads() -> None:
    life = timedelta(days=90)
    days = {renewal_due(START, START + life, serial).date() for serial in range(1, 200)}
    assert len(days) >= 3


def test_the_authority_may_ask_for_it_earlier_or_later_but_not_too_late() -> None:
    end = START + timedelta(days=90)
    own = START + timedelta(days=60)

    def due(advised: datetime | None) -> datetime:
        return datetime.fromtimestamp(with_advice(START, end, own, advised), UTC)

    assert due(None) == own
    assert due(START + timedelta(days=1)) == START + timedelta(days=1)
    assert due(START + timedelta(days=70)) == START + timedelta(days=70)
    assert due(START + timedelta(days=89)) == START + timedelta(days=81)
    assert due(START + timedelta(days=900)) == START + timedelta(days=81)


@pytest.mark.parametrize(
    ("wished", "seconds"), [(0, 60), (-1e6, 60), (3600, 3600), (86400 * 30, 86400)]
)
def test_advice_is_asked_for_within_bounds(wished: float, seconds: float) -> None:
    now = datetime.now()
    again = ask_again(now.timestamp(), now + timedelta(seconds=wished))
    assert again - now.timestamp() == pytest.approx(seconds)


def test_back_off_doubles_to_half_a_day() -> None:
    pace = Pace()
    minutes = [pace.wait(failures) / 60 for failures in range(1, 12)]
    for found, least in zip(minutes, [15, 30, 60, 120, 240, 480, *[720] * 5], strict=True):
        assert least <= found <= least * 1.2
    assert pace.wait(100_000) <= 12 * 3600 * 1.2


@given(
    restarts=st.lists(st.integers(0, 7200), max_size=60),  # floats that are tiny get lost in sums
)
def test_no_hour_sees_more_tries_than_lets_encrypt_lets_fail(restarts: list[int]) -> None:
    """The gateway is restarted at these seconds, and fails at once whenever it may try."""
    pace, tried = Pace(), list[float]()
    for now in sorted(restarts):
        if pace.permitted(tried, now) <= now:
            tried.append(now)
    for time in tried:
        assert len([t for t in tried if time - 3600 < t <= time]) <= 4


def test_a_try_is_permitted_as_soon_as_the_oldest_is_an_hour_old() -> None:
    pace = Pace()
    assert pace.permitted([], 100.0) == 100.0
    assert pace.permitted([10.0, 20.0, 30.0], 100.0) == 100.0
    assert pace.permitted([40.0, 10.0, 20.0, 30.0], 100.0) == 3610.0
    assert pace.permitted([5.0, 10.0, 20.0, 30.0, 40.0], 100.0) == 3610.0
    assert pace.permitted([10.0, 20.0, 30.0, 40.0], 3620.0) == 3620.0
    assert pace.permitted([1e9] * 9, 100.0) == 100.0  # a clock that has been set back
