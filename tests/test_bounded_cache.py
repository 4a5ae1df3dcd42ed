"""A cache that holds what it was given last, and never more than its bound."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bounded_cache import BoundedCache


@given(st.integers(1, 5), st.lists(st.integers(0, 9)))
def test_it_holds_the_keys_that_came_last(bound: int, keys: list[int]) -> None:
    cache: BoundedCache[int, str] = BoundedCache(bound)
    held: list[int] = []
    for key in keys:
        cache[key] = str(key)
        if key not in held:
            held = [*held, key][-bound:]
        assert len(cache) == len(held)
        assert [key for key in range(10) if key in cache] == sorted(held)
        assert [cache.get(key) for key in held] == [str(key) for key in held]


def test_a_key_that_comes_again_gets_its_new_value_and_ousts_nobody() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache["a"], cache["b"], cache["a"] = 1, 2, 3
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, 2, None)


def test_entry_of_a_large_full_cache_costs_what_one_of_a_small_one_does() -> None:
    """It is what a gateway that has run for long pays for each request."""

    def cost(bound: int) -> float:
        cache: BoundedCache[int, int] = BoundedCache(bound)
        for key in range(2 * bound):
            cache[key] = key
        began = time.thread_time()
        for key in range(2 * bound, 2 * bound + 20_000):
            cache[key] = key
        return time.thread_time() - began

    assert cost(50_000) < 8 * min(cost(100) for _ in range(3))


def test_cleared_it_is_empty_and_goes_on() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache["a"] = 1
    cache.clear()
    assert (len(cache), cache.get("a")) == (0, None)
    cache["b"] = 2
    assert cache.get("b") == 2


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BoundedCache(0)
