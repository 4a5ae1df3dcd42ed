"""A cache that holds what it was given last, and never more than its bound."""

from __future__ import annotations

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
