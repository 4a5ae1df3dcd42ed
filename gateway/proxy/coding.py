"""Content codings (RFC 9110, 8.4): packed bodies, unpacked piece by piece. Pure.

However much a body unpacks to, no more of it exists here than one piece of about
:data:`PIECE` bytes, and making that takes a fraction of a millisecond: who reads it decides, after
each, whether it wants more. gzip and deflate are in Python; zstd and br are taken where
``backports.zstd`` (or Python 3.14) and ``brotli`` (1.2 or newer, the first one that can be stopped)
are installed.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

PIECE = 64 * 1024
#: Bytes that are given to a decoder at once: it copies what it doesn't take.
_WINDOW = 16 * 1024
#: The most members of one gzip file (RFC 1952, 2.2), or frames of zstd; nobody needs more than a
#: few.
_MOST_MEMBERS = 1024
#: log2 of the largest window that a zstd decoder has to support (RFC 9659: 8 MiB).
_ZSTD_WINDOW = 23


def _module(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


_zstd = _module("compression.zstd", "backports.zstd")
_brotli = _module("brotli")
if not hasattr(getattr(_brotli, "Decompressor", None), "can_accept_more_data"):
    _brotli = None  # an old one, which unpacks all that there is at once
_ERRORS = (zlib.error,) if _zstd is None else (zlib.error, _zstd.ZstdError)


class Damaged(ValueError):
    """The bytes of a body don't follow its coding, or end too soon."""


class Decoder(Protocol):
    """A decoder of one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` brings, in pieces, some of them empty. Raises :class:`Damaged`."""

    def end(self) -> None:
        """End the body. Raises :class:`Damaged` if more should have come."""


class _MemberDecoder(Protocol):
    """The common part of zlib's and zstd's decoders, each of which is for one member."""

    eof: bool
    unused_data: bytes


class _MembersDecoder:
    """A decoder of consecutive members, each of which needs a decoder of its own."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._member: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _WINDOW):
            rest = data[start : start + _WINDOW]
            while rest:
                if self._member is None:
                    if not self._left:
                        raise Damaged("there is more behind its end")
                    self._left -= 1
                    self._member = self._begin(rest)
                try:
                    yield from self._unpack(rest)
                except _ERRORS as error:
                    raise Damaged(str(error)) from None
                rest = b""
                if self._member.eof:
                    rest, self._member = self._member.unused_data, None

    def end(self) -> None:
        if self._member is not None:
            raise Damaged("it ends too soon")

    def _begin(self, first: bytes) -> _MemberDecoder:
        raise NotImplementedError

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        raise NotImplementedError


class _Zlib(_MembersDecoder):
    def __init__(self, coding: str) -> None:
        super().__init__(_MOST_MEMBERS if coding == "gzip" else 1)
        self._coding = coding

    def _begin(self, first: bytes) -> Any:
        if self._coding == "gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        # RFC 9110, 8.4.1.2: deflate is zlib's format, and "some non-conformant implementations"
        # send the bare one; the first byte tells (RFC 1950, 2.2: CM is 8).
        return zlib.decompressobj(zlib.MAX_WBITS if first[0] & 15 == 8 else -zlib.MAX_WBITS)

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        member = self._member
        while True:
            piece = member.decompress(data, PIECE)
            yield piece
            data = member.unconsumed_tail
            # A piece that is full: there may be more within the decoder itself.
            if member.eof or (not data and len(piece) < PIECE):
                return


class _Zstd(_MembersDecoder):
    def __init__(self, module: Any) -> None:
        super().__init__(_MOST_MEMBERS)
        self._new: Callable[[], Any] = lambda: module.ZstdDecompressor(
            options={module.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        )

    def _begin(self, first: bytes) -> Any:
        return self._new()

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        member = self._member
        yield member.decompress(data, PIECE)
        while not (member.eof or member.needs_input):
            yield member.decompress(b"", PIECE)


class _Brotli:
    def __init__(self, module: Any) -> None:
        self._decoder = module.Decompressor()
        self._error: type[Exception] = module.error
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _WINDOW):
            self._begun = True
            part = data[start : start + _WINDOW]
            if self._decoder.is_finished():
                raise Damaged("there is more behind its end")
            while True:
                try:
                    piece = self._decoder.process(part, output_buffer_limit=PIECE)
                except self._error as error:
                    raise Damaged(str(error)) from None
                yield piece
                if not piece:
                    break
                part = b""

    def end(self) -> None:
        if self._begun and not self._decoder.is_finished():
            raise Damaged("it ends too soon")


#: Coding -> what makes a decoder of it.
DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib("gzip"),
    "deflate": lambda: _Zlib("deflate"),
}
if _zstd is not None:
    DECODERS["zstd"] = lambda: _Zstd(_zstd)
if _brotli is not None:
    DECODERS["br"] = lambda: _Brotli(_brotli)


def unpacked(coding: str, data: bytes, most: int) -> bytes:
    """Return the beginning of what ``data`` holds, about ``most`` bytes; nothing if it can't be
    read.
    """
    if (make := DECODERS.get(coding.strip().lower())) is None:
        return b""
    found = b""
    try:
        for piece in make().feed(data):
            found += piece
            if len(found) >= most:
                break
    except Damaged:
        return b""
    return found
