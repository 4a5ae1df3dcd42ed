"""Reads the model's name from the beginning of a multipart form that is streamed. Pure.

RFC 7578 (multipart/form-data) over RFC 2046, 5.1. Nothing is decoded but the one field: the
bytes go on to llama-server as they came.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from email.message import Message
from types import MappingProxyType

from gateway.errors import BadRequest, UnsupportedMediaType

_MAX_NAME = 1024  # bytes of a model's name
_MAX_HEADERS = 16 * 1024  # bytes of one part's headers
_MAX_PARTS = 128  # llama-server takes 1024, and has a use for a dozen
#: A parameter of Content-Disposition (RFC 2183, 2): its name, and a value that is quoted or not. In
#: a quoted value a backslash stands for the next character (RFC 9110, 5.6.4), or for itself:
#: browsers write a quote as %22 and a backslash as it is (WHATWG HTML, "multipart form data"). The
#: expression never backtracks, because strangers write these headers.
_PARAMETER = rb';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+(?:"(%b)"[ \t]*+|([^;"]*+))(?=;|\Z)'
_QUOTED = rb'(?:[^"\\]|\\.)*+'
_AS_IN_RFCS, _AS_IN_BROWSERS = (re.compile(_PARAMETER % part) for part in (_QUOTED, rb'[^"]*+'))
_ESCAPED = re.compile(rb"\\(.)")
#: What follows a boundary: blanks and the end of the line, or the end of the form. If neither group
#: matches, it isn't complete yet.
_LINE_END = re.compile(rb"[ \t]*+(?:(\r\n)|\r?\Z)|(--)|-\Z")
_MAX_PADDING = 1024
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,200}")  # RFC 2046 has 70 at most
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_FOLDED = re.compile(rb"\r\n(?=[ \t])")


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type names.

    Raises :class:`UnsupportedMediaType` for what is no form, :class:`BadRequest` for one without.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() != "multipart/form-data":
        came = f", not {content_type[:100]!r}" if content_type else ""
        raise UnsupportedMediaType(f"this route takes a form (multipart/form-data){came}")
    boundary = header.get_boundary()
    if not boundary:
        raise BadRequest("the Content-Type of the form lacks its boundary: boundary=...")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest("the boundary of the form is none (RFC 2046, 5.1.1)")
    return boundary.encode("ascii")


def content_type_of(boundary: bytes) -> bytes:
    """Return the Content-Type of a form with this ``boundary``, which nobody can read otherwise."""
    if _TOKEN.fullmatch(boundary):
        return b"multipart/form-data; boundary=" + boundary
    return b'multipart/form-data; boundary="%b"' % boundary


def field_name(headers: bytes) -> bytes | None:
    """Return the name of the field whose part has these ``headers``, or None if they give it none.

    Raises :class:`BadRequest` for what two readers could understand differently: then a file's
    name, say, could be a field to one of them.
    """
    lines = _FOLDED.sub(b"", headers).split(b"\r\n")
    if any(b"\n" in line or b"\r" in line for line in lines):
        raise _unclear("a line end within a header of a part")
    given = []
    for line in lines:
        key, _, value = line.partition(b":")
        if key.strip(b" \t").lower() == b"content-disposition":
            given.append(value)
    if not given:
        return None
    if len(given) > 1:
        raise _unclear("a part with more than one Content-Disposition")
    kind, semicolon, rest = given[0].partition(b";")
    if kind.strip(b" \t").lower() != b"form-data":
        return None
    parameters = semicolon + rest
    by_rfcs, readable = _names(_AS_IN_RFCS, parameters)
    names, readable_by_browsers = _names(_AS_IN_BROWSERS, parameters)
    by_rfcs = [_ESCAPED.sub(rb"\1", name) for name in by_rfcs]
    if not (readable or readable_by_browsers) or by_rfcs != names or len(names) > 1:
        raise _unclear("a part whose Content-Disposition doesn't clearly name one field")
    return names[0] if names else None


def _names(pattern: re.Pattern[bytes], parameters: bytes) -> tuple[list[bytes], bool]:
    """Return every ``name`` among the parameters as ``pattern`` reads them, and whether it reads
    all.
    """
    names: list[bytes] = []
    at = 0
    while found := pattern.match(parameters, at):
        key, quoted, plain = found.groups()
        if key.lower().partition(b"*")[0] == b"name":
            if b"*" in key:
                return names, False  # RFC 8187 is not for forms (RFC 7578, 4.2)
            names.append(plain.rstrip(b" \t") if quoted is None else quoted)
        at = found.end()
    return names, not parameters[at:].strip(b"; \t")


def _unclear(what: str) -> BadRequest:
    return BadRequest(f"the form has {what} (RFC 7578, 4.2)", code="malformed_form")


class ModelField:
    """A reader that looks for the field ``model`` in what is fed to it, and keeps all of it in
    :attr:`read`.

    ``expected``: what the model was called elsewhere in the request, if it was. ``refused``: fields
    that may not be in the form, and what is said of each.
    """

    def __init__(
        self,
        boundary: bytes,
        expected: str | None = None,
        refused: Mapping[bytes, str] = MappingProxyType({}),
    ) -> None:
        self.read = bytearray()
        self.model: str | None = None
        self._expected = expected
        self._refused = refused
        self._boundary = boundary
        self._delimiter = b"\r\n--" + boundary
        self._value: tuple[int, int] | None = None  # where in `read` the name begins and ends
        self._at = 0  # looked at up to here
        self._inside = _Inside.PART
        self._begun = self._ended = self._passing = False
        self._parts = 0
        self._names: set[bytes] = set()

    @property
    def done(self) -> bool:
        """Whether the search is over: the field was found, or the form has ended."""
        return self.model is not None or self._ended

    def feed(self, data: bytes) -> None:
        """Read more of the form.

        Raises :class:`BadRequest` for what is none, and for a field that comes twice: of two, one
        reader takes the first, and another the last.
        """
        if not self._begun:
            data = b"\r\n" + data  # so that the first delimiter looks like the others
            self._begun = True
        self.read += data
        while not self._ended and self._step():
            pass
        if self._passing:
            del self.read[: self._at]
            self._at = 0

    @property
    def body(self) -> bytes:
        """All that was fed."""
        return bytes(self.read[2:])

    def renamed(self, model: str) -> bytes:
        """Return what was fed, with ``model`` in that field, which becomes the first if there was
        none.
        """
        name = model.encode()
        if self._value is not None:
            start, end = self._value
            return bytes(self.read[2:start] + name + self.read[end:])
        self._names.add(b"model")
        return self.part(b"model", name) + self.body

    def part(self, name: bytes, value: bytes) -> bytes:
        """Return a field as it may stand before what was fed."""
        head = b'Content-Disposition: form-data; name="%b"' % name
        return b"--%b\r\n%b\r\n\r\n%b\r\n" % (self._boundary, head, value)

    def pass_by(self, data: bytes) -> None:
        """Do the same as :meth:`feed`, but keep nothing from now on."""
        self._passing = True
        self.feed(data)

    def _step(self) -> bool:
        """Read one delimiter, the headers of one part, or the name; return False where more
        is needed first.
        """
        match self._inside:
            case _Inside.PART:
                return self._to_a_delimiter()
            case _Inside.HEADERS:
                return self._through_headers()
            case _Inside.NAME:
                return self._take_name()

    def _to_a_delimiter(self) -> bool:
        found = self.read.find(self._delimiter, self._at)
        if found < 0:
            self._at = max(self._at, len(self.read) - len(self._delimiter))
            return False
        after = found + len(self._delimiter)
        line_end = _LINE_END.match(self.read, after)
        if line_end is None:
            self._at = after  # a longer word that begins like it (RFC 2046, 5.1.1)
            return True
        if line_end.lastindex is None:
            self._at = found  # how its line goes on isn't here yet
            if len(self.read) - after > _MAX_PADDING:
                raise BadRequest("a delimiter of the form is followed by too many blanks")
            return False
        if line_end[2]:
            self._ended = True
            return False
        self._at, self._inside = line_end.start(1), _Inside.HEADERS
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise BadRequest(f"the form has more than {_MAX_PARTS} parts")
        return True

    def _through_headers(self) -> bool:
        end = self.read.find(b"\r\n\r\n", self._at)
        if end < 0:
            if len(self.read) - self._at > _MAX_HEADERS:
                raise BadRequest("the headers of a part of the form are too long")
            return False
        name = field_name(bytes(self.read[self._at : end]))
        # From the blank line on: an empty part's delimiter begins with it.
        self._at, self._inside = end + 2, _Inside.PART
        if name is None:
            return True
        if (why := self._refused.get(name)) is not None:
            raise BadRequest(why, code="request_limit", param=name.decode())
        if name in self._names and not name.endswith(b"[]"):
            raise _twice(name)
        self._names.add(name)
        if name == b"model":
            self._inside = _Inside.NAME
        return True

    def _take_name(self) -> bool:
        start = self._at + 2
        end = self.read.find(self._delimiter, self._at)
        if end < 0:
            if len(self.read) - start > _MAX_NAME + len(self._delimiter):
                raise BadRequest("the field `model` of the form is too long", param="model")
            return False
        try:
            self.model = bytes(self.read[start : max(start, end)]).decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("the field `model` must be UTF-8", param="model") from None
        if self._expected not in (None, self.model):
            raise BadRequest(
                "the form's field `model` names another model than ?model= or X-Model does",
                param="model",
            )
        self._value = start, end
        self._at, self._inside = end, _Inside.PART
        return True


class _Inside(enum.Enum):
    """The part of a form that a reader is in."""

    PART = "a part's content, or what stands before the first"
    HEADERS = "a part's headers"
    NAME = "the content of the field `model`"


def _twice(name: bytes) -> BadRequest:
    if name == b"model":
        return BadRequest(
            "the form names its `model` twice, or behind a file that is too long: it is to be "
            "named once, before the file",
            param="model",
        )
    shown = name.decode("utf-8", "replace")[:100]
    return BadRequest(f"the form has the field {shown!r} twice", param=shown)
