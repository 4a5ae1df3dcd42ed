"""Heads of requests: at which door, by whom, in which manner."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from tests.fuzz.sending import Manner, Request

Requests = st.SearchStrategy[Request]
DOORS: Final = st.sampled_from(["plain", "plain", "tls"])
ROLES: Final = st.sampled_from(["chat"] * 6 + ["limited", "admin"])
MANNERS: Final = st.one_of(
    *[st.just(Manner())] * 6,
    st.builds(
        Manner,
        pieces=st.integers(2, 12),
        pause=st.sampled_from([0.0, 0.001, 0.02, 0.1]),
        whole=st.sampled_from([True, True, False]),
        half_close=st.booleans(),
        leave_after=st.sampled_from([None, None, 0, 1, 200, 600, 3000]),
    ),
)
JSON: Final = "Content-Type: application/json"


def head(method: str, target: str, *lines: str, length: int | None = None) -> bytes:
    """The bytes before a body; ``lines`` in latin-1, as they are."""
    lengths = [] if length is None else [f"Content-Length: {length}"]
    rows = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *lines, *lengths]
    return "\r\n".join([*rows, "Connection: close", "", ""]).encode("utf-8", "surrogatepass")


def key_of(role: str) -> str:
    return f"Authorization: Bearer @{role}@"
