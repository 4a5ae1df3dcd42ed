"""Refuses request targets that two parsers could read differently. Pure.

llama-server (cpp-httplib) decodes ``%uXXXX``, which no standard has, and takes bytes as they come
where Python puts U+FFFD in place of what is no UTF-8. A path that is checked here, and then read
there, must mean the same to both (RFC 3986, 2.1; RFC 3629, 3: no overlong forms).
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus, unquote_to_bytes

from gateway.errors import BadRequest

_BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def check_path(path: str) -> None:
    """Raise :class:`BadRequest` for a raw path, as aiohttp has it, that is not plainly UTF-8."""
    if "%" in path or not path.isascii():
        _check("path", path)


def check_sent_on(query: str) -> None:
    """Raise :class:`BadRequest` for a raw query that llama-server may read otherwise."""
    if "%" in query or not query.isascii():
        _check("query", query)


def check_names(query: str) -> None:
    """Raise :class:`BadRequest` for a raw query that gives a name twice.

    One parser takes the first value, another the last. A list as in PHP (``a[]=``) may repeat its
    name.
    """
    if "&" not in query:
        return
    seen: set[str] = set()
    for field in query.split("&"):
        name = unquote_plus(field.partition("=")[0])
        if name in seen and not name.endswith("[]"):
            raise BadRequest(
                f"the query gives {name[:100]!r} twice: it is to be given once", param=name[:100]
            )
        if field:
            seen.add(name)


def check_query_model(query: str, body: object) -> None:
    """Raise :class:`BadRequest` where ?model= is not the model that the body names."""
    if query != body:
        raise BadRequest(
            "?model= is not the `model` of the body, where this route reads it: name it there, "
            "and nowhere else",
            param="model",
        )


def _check(part: str, text: str) -> None:
    raw = text.encode("utf-8", "surrogateescape")
    if _BROKEN.search(raw):
        raise BadRequest(
            f"the {part} has a % without two hexadecimal digits behind it: a percent sign itself "
            "is written %25",
            code="malformed_target",
        )
    try:
        unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(
            f"the {part} is not UTF-8, percent-decoded", code="malformed_target"
        ) from None
