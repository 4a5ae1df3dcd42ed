"""Whose openings with tools a model has, where several keys have more than there is place for."""

from __future__ import annotations

import pytest

from gateway.conversations.index import Saved
from gateway.conversations.shares import goes_for
from tests.conversations.test_files import named
from tests.conversations.test_index import NOW


def kept(owners: str) -> list[Saved]:
    """One of each of these keys, used a second after the other."""
    found = []
    for number, owner in enumerate(owners):
        saved = named(f"{number}")
        saved.owner, saved.used = owner, NOW + number
        found.append(saved)
    return found


#: Whose there are, whose comes, and the place of what goes for it.
CASES = [
    ("aaaaaaaa", "b", 0),
    ("aaaaaaaa", "a", None),
    ("baaaaaaa", "b", 1),
    ("bbbaaaaa", "b", 3),
    ("bbbbaaaa", "b", None),
    ("bbbbaaaa", "a", None),
    ("bbbaaaaa", "a", None),
    ("bbbbaaaa", "c", 0),
    ("abcdefgh", "i", None),
    ("*aaaaaaa", "*", 1),
]


@pytest.mark.parametrize(("owners", "owner", "place"), CASES)
def test_key_that_has_most_makes_place_for_one_that_has_less(
    owners: str, owner: str, place: int | None
) -> None:
    found = kept(owners)
    expected = None if place is None else found[place]
    assert goes_for(owner, found, NOW + 60) is expected


@pytest.mark.parametrize("owner", ["a", "b"])
def test_what_nobody_used_for_an_hour_goes_first(owner: str) -> None:
    found = kept("abbbbbbb")
    assert goes_for(owner, found, NOW + 3601) is found[0]
