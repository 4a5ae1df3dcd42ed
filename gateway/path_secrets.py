"""Paths of requests as they may be written down: without keys.

A client may have put one into a path: as a part of it, or, where an encoded question mark or a
forgotten one made the query a part of the path, as a value with a name. Queries are never written.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

#: A key of ours (see :mod:`gateway.access.key_format`), and the forms of others' keys.
_KEY: Final = re.compile(
    r"(?<![^\W_])(llmgw_|sk-|hf_|Bearer[\s+:=]+)(?!\.\.\.)[\w.~+-]+=*", re.ASCII | re.IGNORECASE
)
_OURS: Final = re.compile(r"llmgw_\w+", re.ASCII)
#: What is called a key, a token or a secret, up to the end of its value.
_NAMED: Final = re.compile(
    r"((?:key|token|secret|password|passwd|auth|authorization)=)[^&;/]+", re.ASCII | re.IGNORECASE
)
#: What neither a key nor its name is without, in lower case; and what may hide one.
_SIGNS: Final = ("llmgw_", "sk-", "hf_", "bearer", "=", "%", "?")
#: How often a path may be percent-encoded, and still be read. What is left is nobody's path.
_ENCODED: Final = 4


def without_secrets(target: str) -> str:
    """Return the path of a request's target, without its query, and without what may be a key."""
    small = target.lower()
    if not any(sign in small for sign in _SIGNS):
        return target
    path = plain = target.partition("?")[0]
    for _ in range(_ENCODED):
        plain = unquote(plain)
    read = plain if unquote(plain) == plain else plain.partition("%")[0]
    shown = _KEY.sub(r"\1...", _NAMED.sub(r"\1...", read.partition("?")[0]))
    return path if shown == plain else shown


def without_our_keys(line: str) -> str:
    """Return a line of llama-server's log, which has paths of requests, without keys of ours."""
    return _OURS.sub("llmgw_...", line) if "llmgw_" in line else line
