"""Whatever llama-server says in its headers, the client gets only what is for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.headers import find, to_client

NAMES = st.sampled_from(
    """Content-Type X-Other Server set-cookie SET-COOKIE Connection Transfer-Encoding
    transfer-encoding Content-Length Access-Control-Allow-Origin access-control-allow-credentials
    Keep-Alive Upgrade X-Powered-By Strict-Transport-Security""".split()
)
VALUES = st.binary(max_size=20)


@given(st.lists(st.tuples(NAMES.map(str.encode), VALUES)))
def test_only_content_type_and_headers_of_its_own_reach_the_client(
    headers: list[tuple[bytes, bytes]],
) -> None:
    passed = to_client(headers)
    kept = [(n, v) for n, v in headers if n in (b"Content-Type", b"X-Other")]
    assert [(n.encode(), v.encode("latin-1")) for n, v in passed] == kept
    assert find(headers, b"x-other") == next((v for n, v in headers if n == b"X-Other"), None)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=30), VALUES)))
def test_only_safe_headers_are_passed_whatever_the_bytes(
    headers: list[tuple[bytes, bytes]],
) -> None:
    for name, _ in to_client(headers):
        lower = name.lower()
        assert not lower.startswith("access-control-")
        assert lower not in {"server", "set-cookie", "content-length", "transfer-encoding"}


@pytest.mark.parametrize("name", [b"X-Other", b"x-OTHER"])
def test_find_knows_no_case(name: bytes) -> None:
    assert find([(b"a", b"1"), (name, b"2"), (b"x-other", b"3")], b"x-other") == b"2"
