"""The last event of a stream that breaks in the middle of another one. Pure.

Server-Sent Events have no way to take back what has gone out of an event: whatever follows belongs
to it, and a blank line makes a client parse half of a JSON text, which fails with an error of the
parser's own. So what was begun is brought to an end that can be read: open texts, lists and objects
are closed, and the error becomes a member of the object, where clients look for it. Of two members
with one name, parsers take the last (RFC 8259, 4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

_TOKEN = re.compile(
    rb"""\s+ | (?P<mark>[][{}:,]) | (?P<text>"(?:[^"\\]|\\.)*") | (?P<open>".*)
    | (?P<plain>[-+.\w]+)""",
    re.DOTALL | re.VERBOSE,
)
_LITERALS = (b"true", b"false", b"null")
#: The end of a text that breaks off within an escape, if the number of backslashes is odd.
_ESCAPE = re.compile(rb"(\\+)(u[0-9a-fA-F]{0,3})?\Z")
#: The end of a text that breaks off between two surrogates, on the same condition.
_SURROGATE = re.compile(rb"(\\+)u[dD][89abAB][0-9a-fA-F]{2}\Z")


def last_event(half: bytes | None, name: str, error: Mapping[str, Any], message: str) -> bytes:
    """Return what ends a stream of which ``half`` an event has gone out (None: that isn't known).

    ``error`` is the object that says so, ``name`` that of its event (may be empty). Where an event
    is begun that can't be brought to an end, ``message`` goes out as a comment: a client drops
    that event, and sees that the connection ends too soon.
    """
    named = f"event: {name}\n".encode() if name else b""
    event = b"%bdata: %b\n\n" % (named, orjson.dumps(error))
    if half is not None:
        *lines, last = half.split(b"\n")
        said = [line for line in lines if line.startswith(b"data")]
        field, colon, value = last.partition(b":")
        if field != b"data" or not colon:
            # At most a line is to be ended that says nothing of its own, and the blank line of an
            # event that is complete.
            return b"%b%b%b" % (b"\n" if last else b"", b"\n" if said else b"", event)
        if not said and (rest := rest_of(value, error)) is not None:
            return b"%b\n%b\n" % (rest, named)
        if not said and _is_whole(value):
            return b"\n\n" + event
    return b"\n: %b\n" % " ".join(message.split()).encode("utf-8", "replace")


def rest_of(begun: bytes, members: Mapping[str, Any]) -> bytes | None:
    """Return what makes ``begun`` the JSON text of an object, ``members`` among its own.

    None where it can't become one. What was a whole object already is left to itself: then this is
    an event of its own.
    """
    if not begun.strip():
        return orjson.dumps(members)
    open_: list[list[str]] = []  # kind of each object or list that is open, and what comes next
    rest = b""
    at = start = len(begun) - len(begun.lstrip())
    while at < len(begun):
        token = _TOKEN.match(begun, at)
        if token is None or (at > start and not open_ and token.lastgroup):
            return None
        at = token.end()
        if token.lastgroup == "mark":
            if not _mark(token[0], open_):
                return None
        elif token.lastgroup:
            if not open_:
                return None
            if token.lastgroup == "open":
                rest = _rest_of_text(token[0][1:]) + b'"'
            elif token.lastgroup == "plain" and at == len(begun):
                rest = _rest_of_plain(token[0])
            inner = open_[-1]
            inner[1] = ":" if inner[0] == "{" and inner[1] in ("first", "key") else ","
    if not open_:
        return None
    while open_:
        kind, state = open_.pop()
        if state == ":":
            rest += b":null"
        elif state == "value":
            rest += b"null"
        elif state == "key" and open_:
            rest += b'"":null'
        if open_:
            rest += b"}" if kind == "{" else b"]"
        elif kind != "{":
            return None
        elif state not in ("first", "key"):
            rest += b","
    return rest + orjson.dumps(members)[1:]


def _is_whole(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def _mark(mark: bytes, open_: list[list[str]]) -> bool:
    """Take note of a mark; whether it may stand there, as far as that is looked at."""
    if mark in b"{[":
        if open_:
            open_[-1][1] = ","
        open_.append([mark.decode(), "first"])
        return True
    if not open_:
        return False
    if mark in b"}]":
        open_.pop()
    elif mark == b":":
        open_[-1][1] = "value"
    else:
        open_[-1][1] = "key" if open_[-1][0] == "{" else "value"
    return True


def _rest_of_plain(begun: bytes) -> bytes:
    """Return the rest of a number, or of one of the three literals."""
    for word in _LITERALS:
        if word.startswith(begun):
            return word[len(begun) :]
    return b"0" if begun[-1:] in b"-+.eE" else b""


def _rest_of_text(begun: bytes) -> bytes:
    """Return the rest of a text without its quotation mark: of its last escape, or its last
    character.
    """
    rest = b""
    found = _ESCAPE.search(begun)
    if found is not None and len(found[1]) % 2:
        before = begun[: found.end(1) - 1]
        if found[2] is not None:
            rest = (b"dc00" if _needs_second(before) else b"0000")[len(found[2]) - 1 :]
        else:
            rest = b"udc00" if _needs_second(before) else b"\\"
    elif not found:
        rest = _rest_of_character(begun)
    return rest + (b"\\udc00" if _needs_second(begun + rest) else b"")


def _needs_second(text: bytes) -> bool:
    """Return whether it ends with the first half of a pair of surrogates."""
    found = _SURROGATE.search(text)
    return found is not None and len(found[1]) % 2 == 1


def _rest_of_character(text: bytes) -> bytes:
    """Return bytes that complete the last character, in UTF-8 (RFC 3629, 4)."""
    for have in range(1, min(3, len(text)) + 1):
        byte = text[-have]
        if byte >= 0xC0:
            missing = (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) - have
            first = {0xE0: b"\xa0", 0xF0: b"\x90"}.get(byte, b"\x80") if have == 1 else b"\x80"
            return (first + b"\x80\x80")[:missing] if missing > 0 else b""
        if byte < 0x80:
            break
    return b""
