"""Paths and queries that two readers could read differently."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.proxy.targets import check_names, check_path, check_sent_on

PLAIN = ["/", "/a%20b", "/%C3%A4", "/ä", "/a%2Fb", "/a%00", "/a%25u0041", "/%F0%9F%A6%99", "/+"]
ODD = [
    "/%u0041",
    "/%U0041",
    "/a%",
    "/a%4",
    "/a%zz",
    "/a%%41",
    "/a%2",
    "/a%+1",
    "/%c0%af",  # overlong
    "/%e0%80%af",
    "/%f0%80%80%af",
    "/%ff",
    "/%80",
    "/%c3",  # cut short
    "/%ed%a0%80",  # a surrogate
    "/%f4%90%80%80",  # beyond Unicode
    "/\udcff",  # a raw byte, as aiohttp has it
    "/\udcc0\udcaf",
    "/\udcc3%a",
]


@pytest.mark.parametrize("path", PLAIN)
def test_plain_targets_pass(path: str) -> None:
    check_path(path)
    check_sent_on(path)


@pytest.mark.parametrize("path", ODD)
@pytest.mark.parametrize(("check", "part"), [(check_path, "path"), (check_sent_on, "query")])
def test_odd_targets_are_refused(path: str, check: Any, part: str) -> None:
    with pytest.raises(BadRequest, match=f"the {part} ") as caught:
        check(path)
    assert (caught.value.status, caught.value.code) == (400, "malformed_target")


def test_half_of_a_character_is_raw_and_half_is_not() -> None:
    check_path("/\udcc3%a4")  # together an ä, to every reader


@pytest.mark.parametrize("query", ["", "a", "a=1&b=1", "a&&b&", "a[]=1&a[]=2", "a=b&b=a", "A&a"])
def test_names_given_once_are_taken(query: str) -> None:
    check_names(query)


@pytest.mark.parametrize("query", ["a&a", "a=1&b&a=1", "model=a&mod%65l=b", "a+b=&a%20b", "=&="])
def test_name_given_twice_is_refused(query: str) -> None:
    with pytest.raises(BadRequest, match="twice"):
        check_names(query)
