"""Attacks on HTTP itself: lines, chunks, targets."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from hypothesis import strategies as st

from tests.fuzz.bodies import CHAT, EMBED, FAR, GOOD, body_of
from tests.fuzz.heads import DOORS, JSON, MANNERS, ROLES, head, key_of
from tests.fuzz.sending import Request

_LINES: Final = [
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: x"),
    *("Content-Length: 0", "Content-Length: -1", "Content-Length: +5", "Content-Length: 5, 5"),
    *("Content-Length: 99999999999999999999", "Content-Length: 0x10", "Content-Length : 5"),
    *("Expect: 100-continue", "Expect: x", "Upgrade: websocket", "Upgrade: h2c", "Range: bytes=0-"),
    *(
        "Host: evil.example",
        "Host: 127.0.0.1:99999",
        "Host:",
        "Host: [::1",
        "X: a\0b",
        " folded: x",
    ),
    *("Connection: keep-alive, close, x", "Content-Encoding: gzip", "Content-Encoding: br, gzip"),
    *("X-Forwarded-For: 1.2.3.4, \xff", "Origin: null", "Origin: https://evil.example", ": x"),
    *(
        "Sec-Fetch-Site: cross-site",
        "Accept: \xff\xfe",
        "Accept-Encoding: *;q=0",
        "X-Request-Id: \t",
    ),
    *("Cookie: " + "a" * 9000, "X-Big: " + "b" * 40_000, "Last-Event-ID: " + "9" * 400),
    *("X-Api-Key: @chat@", "Authorization: Basic QQ==", "Authorization: Bearer", "If-Match: *"),
    *("X-Personality: \u2603", "X-Personality: poet", "Content-Type: multipart/form-data"),
    "\r\n".join(f"X-{i}: y" for i in range(200)),
]
_CHUNKS: Final = [
    *(
        b"5\r\nhello\r\n0\r\n\r\n",
        b"-1\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"5;a=b\r\nhello\r\n0\r\n\r\n",
    ),
    *(
        b"0\r\nX: y\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"zz\r\n",
    ),
    *(b"1\r\n{\r\n" * 20_000, b"0" * 5000 + b"2\r\n{}\r\n0\r\n\r\n", b"2;" + b"x" * 70_000),
]
_PATHS: Final = [
    *("/health", "/ping", "/ready", "/models", "/v1/models", "/status", "/admin/status", "/props"),
    *("/v1/chat/completions", "/chat/ask", "/tokenize", "/openapi.json", "/docs", "/", "/nowhere"),
    *(
        "/models/sse",
        "/chat/errors",
        "/admin/usage",
        "/admin/keys",
        "/slots",
        "/metrics?model=chat",
    ),
]


@st.composite
def wires(draw: st.DrawFn) -> Request:
    """Bytes of a good request, cut, changed and added to; or no request at all."""
    path, good = draw(st.sampled_from(sorted(GOOD.items())))
    body = body_of(dict(good))
    lines = [key_of(draw(ROLES)), JSON, *draw(st.lists(st.sampled_from(_LINES), max_size=3))]
    method = draw(
        st.sampled_from("POST POST POST GET HEAD PUT OPTIONS TRACE CONNECT PRI \0 post".split())
    )
    target = draw(st.sampled_from([path] * len(_PATHS) + _PATHS))
    chunked = draw(st.integers(0, 3)) == 0
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        body = draw(st.sampled_from([*_CHUNKS, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)]))
    data = head(method, target, *lines, length=None if chunked else len(body)) + body
    if draw(st.integers(0, 9)) == 0:
        data += data  # in one go
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, min(len(data), 400)))
        gone = draw(st.integers(0, 3))
        new = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\0", b" ", b"\xff", b":", b"%"])
            | st.binary(max_size=4)
        )
        data = data[:at] + new + data[at + gone :]
    if draw(st.integers(0, 19)) == 0:
        data = draw(
            st.binary(max_size=200)
            | st.sampled_from(
                [
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9,
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
                    b"GET / HTTP/0.9\r\n\r\n",
                    b"GET /" + b"a" * 100_000,
                    b"\r\n" * 50_000,
                    b"A" * 200_000,
                ]
            )
        )
    door = draw(st.sampled_from(["plain", "plain", "tls", "tls-raw"]))
    return Request("wire", door, data, b"", draw(MANNERS))


_STRANGE: Final = (
    "%u0041 % %z %2 %zz %2e%2e/ %2f ../ ..%2f..%2fprops %00 %c0%af %c0%ae %ff %e2%98 %ed%a0%80 "
    "//evil.example/ ;x # ? ?? &a=b \\ %5c %0d%0aX:y + %2b @ : %25u0041 \u2603 \xff"
).split()
_LONG: Final = ("a" * 3000, "%41" * 2000, "/" * 3000, "?a=" + "b" * 50_000, "?" + "&" * 20_000)


@st.composite
def targets(draw: st.DrawFn) -> Request:
    """Paths and queries that two readers may read differently."""
    path = draw(
        st.sampled_from([*GOOD, *_PATHS, "/upstream/chat/props", "/models/chat", "/slots/0"])
    )
    strange = draw(st.sampled_from([*_STRANGE, *_LONG]))
    at = draw(st.integers(0, len(path)))
    target = path[:at] + strange + path[at:]
    if draw(st.booleans()):
        names = st.sampled_from(
            ["model", "authKey", "question", "stream", "loaded", "autoload", "format"]
        )
        values = st.sampled_from(
            [CHAT, EMBED, FAR, "", "true", "\0", "\ud800", "9" * 400, "a" * 2000]
        )
        pairs = draw(st.lists(st.tuples(names, values), max_size=4))
        target += "?" + urlencode(pairs, errors="surrogatepass")
    method = draw(st.sampled_from(["GET", "POST", "DELETE", "PATCH"]))
    body = b"{}" if method != "GET" else b""
    lines = (key_of(draw(ROLES)), JSON)
    return Request(
        "target", draw(DOORS), head(method, target, *lines, length=len(body)), body, draw(MANNERS)
    )
