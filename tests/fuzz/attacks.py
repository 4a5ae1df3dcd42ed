"""Requests of every kind, as hypothesis strategies."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

from hypothesis import strategies as st

from tests.fuzz.bodies import CHAT, EMBED, FAR, GOOD, bodies, body_of, grammars
from tests.fuzz.sending import Manner, Request

Requests = st.SearchStrategy[Request]

_DOORS: Final = st.sampled_from(["plain", "plain", "tls"])
_ROLES: Final = st.sampled_from(["chat"] * 6 + ["limited", "admin"])
_MANNERS: Final = st.one_of(
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
_JSON: Final = "Content-Type: application/json"


def head(method: str, target: str, *lines: str, length: int | None = None) -> bytes:
    """The bytes before a body; ``lines`` in latin-1, as they are."""
    lengths = [] if length is None else [f"Content-Length: {length}"]
    rows = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *lines, *lengths]
    return "\r\n".join([*rows, "Connection: close", "", ""]).encode("utf-8", "surrogatepass")


def _key(role: str) -> str:
    return f"Authorization: Bearer @{role}@"


@st.composite
def dialects(draw: st.DrawFn) -> Request:
    """A body in a dialect, with something strange in it."""
    path, body = draw(bodies())
    lines = [_key(draw(_ROLES)), _JSON]
    if draw(st.integers(0, 15)) == 0:
        lines[1] = draw(st.sampled_from(["X-A: b", "Content-Type: text/plain", _JSON + "; a=\xff"]))
    if draw(st.integers(0, 7)) == 0:
        path = draw(st.sampled_from([f"/upstream/chat{path}", f"/v1{path}", f"{path}?model=embed"]))
    before = head("POST", path, *lines, length=len(body))
    return Request("dialect", draw(_DOORS), before, body, draw(_MANNERS))


# --- HTTP itself -----------------------------------------------------------------------------

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
    lines = [_key(draw(_ROLES)), _JSON, *draw(st.lists(st.sampled_from(_LINES), max_size=3))]
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
    return Request("wire", door, data, b"", draw(_MANNERS))


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
    lines = (_key(draw(_ROLES)), _JSON)
    return Request(
        "target", draw(_DOORS), head(method, target, *lines, length=len(body)), body, draw(_MANNERS)
    )


# --- other bodies ----------------------------------------------------------------------------


@st.composite
def forms(draw: st.DrawFn) -> Request:
    """multipart/form-data, of which parts, names and boundaries are strange."""
    names = st.sampled_from(
        [
            *('name="model"', "name=model", "name*=UTF-8''model", 'name="mo\\del"', 'name="file"'),
            *(
                'name="file"; filename="a.wav"',
                "name=\"file\"; filename*=UTF-8''a",
                'name="prompt"',
            ),
            *('name="temperature"', 'name=""', "", 'name="model"; name="file"', 'name="a\0"'),
        ]
    )
    values = st.sampled_from(
        [b"chat", b"embed", b"", b"\xff" * 30, b"RIFF" + b"\0" * 60, b"a" * 100_000, b"\r\n--b"]
    )
    boundary = draw(st.sampled_from(["b", "b" * 70, "b" * 5000, "", '"b c"', "\xe9"]))
    edge = boundary.strip('"').encode("utf-8")
    body = b""
    for _ in range(draw(st.integers(0, 5))):
        extra = draw(
            st.sampled_from(
                [
                    b"",
                    b"\r\nContent-Type: x",
                    b"\r\nContent-Transfer-Encoding: base64",
                    b"\r\nX: " + b"a" * 9000,
                ]
            )
        )
        body += b"--%b\r\nContent-Disposition: form-data; %b%b\r\n\r\n%b\r\n" % (
            edge,
            draw(names).encode(),
            extra,
            draw(values),
        )
    body += draw(
        st.sampled_from(
            [b"--%b--\r\n" % edge, b"", b"--%b" % edge, b"--%b--\r\nmore" % edge, b"\r\n\r\n"]
        )
    )
    path = draw(
        st.sampled_from(
            [
                "/v1/audio/transcriptions",
                "/audio/transcriptions?model=embed",
                "/v1/chat/completions",
                "/upstream/chat/v1/files",
            ]
        )
    )
    lines = (_key(draw(_ROLES)), f"Content-Type: multipart/form-data; boundary={boundary}")
    return Request(
        "form", draw(_DOORS), head("POST", path, *lines, length=len(body)), body, draw(_MANNERS)
    )


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


_PACKERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "deflate": zlib.compress,
    "x-gzip": lambda data: (
        gzip.compress(data[:100], 1, mtime=0) + gzip.compress(data[100:], 1, mtime=0)
    ),
    "deflate ": _raw_deflate,
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data, 1, mtime=0), 1, mtime=0),
    "br": bytes,
    "zstd": bytes,
    "identity": bytes,
}


@st.composite
def packed(draw: st.DrawFn) -> Request:
    """Bodies in a Content-Encoding: true, cut, of another kind, or that unpack to very much."""
    path, body = draw(bodies())
    encoding = draw(st.sampled_from(sorted(_PACKERS)))
    if draw(st.integers(0, 9)) == 0:
        body = b'{"model": "chat", "x": "' + b"a" * 80_000_000
    data = _PACKERS[encoding](body)
    match draw(st.integers(0, 5)):
        case 0:
            data = data[: len(data) // 2]
        case 1:
            data = data[:10] + b"\xff" + data[11:]
        case 2:
            data += b"more"
    lines = (_key(draw(_ROLES)), _JSON, f"Content-Encoding: {encoding.strip()}")
    return Request(
        "packed", draw(_DOORS), head("POST", path, *lines, length=len(data)), data, draw(_MANNERS)
    )


# --- what has been found before --------------------------------------------------------------


def _chat(**fields: Any) -> bytes:
    return body_of({**GOOD["/v1/chat/completions"], **fields})


_CLASSICS: Final[dict[str, Callable[[], tuple[str, bytes]]]] = {
    "a group 400 times": lambda: (
        "/v1/chat/completions",
        _chat(grammar="root ::= " + '("a"|"a")?' * 400, max_tokens=100),
    ),
    "400 KB of parentheses": lambda: (
        "/v1/chat/completions",
        _chat(grammar="root ::= " + "(" * 200_000 + '"a"' + ")" * 200_000),
    ),
    "57 MB of lists": lambda: (
        "/v1/chat/completions",
        b'{"model": "chat", "x": [' + b"[]," * 19_000_000 + b"[]]}",
    ),
    "57 MB of lists, no JSON": lambda: ("/tokenize", b"[" + b"[]," * 19_000_000),
    "40 MB of brackets": lambda: ("/v1/embeddings", b"[" * 40_000_000),
    "30 MB of short keys": lambda: (
        "/completion",
        b"{" + b",".join(b'"%d":0' % i for i in range(2_500_000)) + b"}",
    ),
    "60 MB of one text": lambda: (
        "/tokenize",
        b'{"model": "chat", "content": "' + b"a" * 60_000_000 + b'"}',
    ),
    "20 MB of escapes": lambda: (
        "/v1/responses",
        b'{"model": "chat", "input": "' + b"\\u00e9" * 3_300_000 + b'"}',
    ),
    "2 MB for the tokenizer": lambda: (
        "/tokenize",
        b'{"model": "chat", "content": "' + b"a b " * 500_000 + b'"}',
    ),
    "windows without end": lambda: (
        "/completion",
        body_of(
            {
                "model": CHAT,
                "prompt": "a",
                "repeat_last_n": 2**31 - 1,
                "dry_penalty_last_n": 2**31 - 1,
                "dry_multiplier": 1,
                "n_predict": 4,
            }
        ),
    ),
    "probabilities of everything": lambda: (
        "/completion",
        body_of({"model": CHAT, "prompt": "a", "n_probs": 10**9, "n_predict": 64}),
    ),
    "no end": lambda: (
        "/completion",
        body_of({"model": CHAT, "prompt": "a", "n_predict": -1, "ignore_eos": True}),
    ),
    "many answers": lambda: ("/v1/chat/completions", _chat(n=10_000)),
    "many prompts": lambda: (
        "/v1/completions",
        body_of({"model": CHAT, "prompt": ["a"] * 50_000, "max_tokens": 1}),
    ),
    "a model named twice": lambda: (
        "/v1/chat/completions",
        b'{"model": "chat", "model": "embed", "messages": []}',
    ),
    "a schema that repeats": lambda: (
        "/v1/chat/completions",
        _chat(json_schema={"type": "string", "minLength": 100_000}),
    ),
    "a schema deep as the sea": lambda: (
        "/completion",
        b'{"model": "chat", "prompt": "a", "json_schema": '
        + b'{"items":' * 400
        + b"{}"
        + b"}" * 401,
    ),
}


@st.composite
def classics(draw: st.DrawFn) -> Request:
    """Those that have been somebody's evil day."""
    path, body = _CLASSICS[draw(st.sampled_from(sorted(_CLASSICS)))]()
    before = head("POST", path, _key(draw(_ROLES)), _JSON, length=len(body))
    return Request("classic", draw(_DOORS), before, body, draw(_MANNERS))


@st.composite
def constrained(draw: st.DrawFn) -> Request:
    """A grammar, in each way to give one."""
    grammar = draw(grammars())
    path = draw(
        st.sampled_from(
            ["/v1/chat/completions", "/completion", "/infill", "/v1/messages", "/responses"]
        )
    )
    body = body_of({**GOOD[path], "grammar": grammar, "stream": draw(st.booleans())})
    before = head("POST", path, _key("chat"), _JSON, length=len(body))
    return Request("grammar", draw(_DOORS), before, body, draw(_MANNERS))


# --- what the OpenAPI document allows --------------------------------------------------------


def documented(document: dict[str, Any]) -> Requests:
    """What schemathesis makes of the gateway's own document, on every route of it."""
    import schemathesis  # takes a second

    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]

    @st.composite
    def request(draw: st.DrawFn) -> Request:
        operation = draw(st.sampled_from(operations))
        case = draw(operation.as_strategy())
        options = case.as_transport_kwargs(base_url="http://127.0.0.1")
        body = options.get("json")
        model = draw(st.sampled_from([CHAT, CHAT, EMBED, FAR, "none such"]))
        if isinstance(body, dict) and "model" in body:
            body = {**body, "model": model}
        data = b"" if body is None else json.dumps(body).encode()
        path = re.sub(r"^https?://[^/]*", "", options["url"])
        query = {**(options.get("params") or {})}
        if "model" in query:
            query["model"] = model
        if query:
            path += "?" + urlencode(query, doseq=True, errors="surrogatepass")
        path = re.sub(r"[\x00-\x20\x7f-\uffff]", "%20", path)
        lines = [_key(draw(st.sampled_from(["chat", "chat", "admin", "limited"])))]
        lines += [_JSON] if data else []
        return Request(
            "documented",
            draw(_DOORS),
            head(case.method, path, *lines, length=len(data)),
            data,
            Manner(),
        )

    return request()


def everything(document: dict[str, Any]) -> dict[str, Requests]:
    """The strategies by their names, as often as each comes."""
    return {
        "dialect": dialects(),
        "documented": documented(document),
        "wire": wires(),
        "dialect again": dialects(),
        "grammar": constrained(),
        "target": targets(),
        "form": forms(),
        "packed": packed(),
        "classic": classics(),
    }
