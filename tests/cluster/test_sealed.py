"""What is sealed for a node, it alone can open."""

from __future__ import annotations

import pytest

from gateway.cluster.ca import Request
from gateway.cluster.sealed import seal, unseal
from gateway.secret import Secret

TOKEN = Secret("hf_überraschung")


def test_who_has_the_key_opens_it() -> None:
    request = Request.make()
    sealed = seal(TOKEN, request.text)
    assert b"hf_" not in sealed
    assert unseal(sealed, request) == TOKEN
    assert seal(TOKEN, request.text) != sealed


def test_nobody_else_does() -> None:
    sealed = seal(TOKEN, Request.make().text)
    with pytest.raises(ValueError, match="cannot be opened"):
        unseal(sealed, Request.make())


@pytest.mark.parametrize("place", [70, -1])
def test_what_was_changed_is_not_opened(place: int) -> None:
    request = Request.make()
    sealed = bytearray(seal(TOKEN, request.text))
    sealed[place] ^= 1
    with pytest.raises(ValueError, match="cannot be opened"):
        unseal(bytes(sealed), request)


@pytest.mark.parametrize("sealed", [b"", b"\4" + bytes(64), b"x" * 200])
def test_what_is_no_point_is_refused(sealed: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unseal(sealed, Request.make())
