"""Attacks in bodies: forms, and what is packed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

from tests.fuzz.bodies import bodies
from tests.fuzz.heads import DOORS, JSON, MANNERS, ROLES, head, key_of
from tests.fuzz.sending import Request


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
    lines = (key_of(draw(ROLES)), f"Content-Type: multipart/form-data; boundary={boundary}")
    return Request(
        "form", draw(DOORS), head("POST", path, *lines, length=len(body)), body, draw(MANNERS)
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
    lines = (key_of(draw(ROLES)), JSON, f"Content-Encoding: {encoding.strip()}")
    return Request(
        "packed", draw(DOORS), head("POST", path, *lines, length=len(data)), data, draw(MANNERS)
    )
