"""The model's name in a multipart form, read from its beginning while it streams by. Pure.

RFC 7578 (multipart/form-data) over RFC 2046, 5.1. Nothing is decoded but the one field: the
bytes go on to llama-server as they came.
"""

from __future__ import annotations

import re
from email.message import Message

from gateway.errors import BadRequest

_MAX_NAME = 1024  # bytes of a model's name
_MAX_HEADERS = 16 * 1024  # bytes of one part's headers
_NAME = re.compile(
    rb'^content-disposition:[^\r\n]*;[ \t]*name=(?:"model"|model)[ \t]*(?:;|\r?$)',
    re.IGNORECASE | re.MULTILINE,
)


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises :class:`BadRequest` if it names none."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise BadRequest("this route takes a form: Content-Type multipart/form-data; boundary=...")
    try:
        return boundary.encode("ascii")
    except UnicodeEncodeError:
        raise BadRequest("the boundary of the form must be ASCII") from None


class ModelField:
    """Looks for the field ``model`` in what is fed to it, and keeps all of it in :attr:`read`."""

    def __init__(self, boundary: bytes) -> None:
        self.read = bytearray()
        self.model: str | None = None
        #: True when there is nothing more to look for: found, or the form has ended.
        self.done = False
        self._boundary = boundary
        self._delimiter = b"\r\n--" + boundary
        self._value: tuple[int, int] | None = None  # where in `read` the name begins and ends
        self._at = 0  # looked at up to here
        self._in_headers = False

    def feed(self, data: bytes) -> None:
        """More of the form. Raises :class:`BadRequest` for what is none."""
        if not self.read:
            data = b"\r\n" + data  # so that the first delimiter looks like the others
        self.read += data
        while not self.done and self._step():
            pass

    @property
    def body(self) -> bytes:
        """What was fed."""
        return bytes(self.read[2:])

    def renamed(self, model: str) -> bytes:
        """What was fed, with ``model`` in that field, which becomes the first if there was none."""
        name = model.encode()
        if self._value is not None:
            start, end = self._value
            return bytes(self.read[2:start] + name + self.read[end:])
        head = b'Content-Disposition: form-data; name="model"'
        return b"--%b\r\n%b\r\n\r\n%b\r\n%b" % (self._boundary, head, name, self.body)

    def _step(self) -> bool:
        """One delimiter, or the headers of one part; False: more is needed first."""
        if not self._in_headers:
            found = self.read.find(self._delimiter, self._at)
            if found < 0:
                self._at = max(self._at, len(self.read) - len(self._delimiter))
                return False
            after = found + len(self._delimiter)
            if len(self.read) < after + 2:
                self._at = found
                return False
            if self.read[after : after + 2] == b"--":
                self.done = True
                return False
            self._at, self._in_headers = after, True
        end = self.read.find(b"\r\n\r\n", self._at)
        if end < 0:
            if len(self.read) - self._at > _MAX_HEADERS:
                raise BadRequest("the headers of a part of the form are too long")
            return False
        if _NAME.search(bytes(self.read[self._at : end])) is None:
            # From the blank line on: an empty part's delimiter begins with it.
            self._at, self._in_headers = end + 2, False
            return True
        return self._take_value(end + 4)

    def _take_value(self, start: int) -> bool:
        end = self.read.find(self._delimiter, start - 2)
        if end < 0:
            if len(self.read) - start > _MAX_NAME + len(self._delimiter):
                raise BadRequest("the field `model` of the form is too long", param="model")
            return False
        try:
            self.model = bytes(self.read[start : max(start, end)]).decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("the field `model` must be UTF-8", param="model") from None
        self._value = start, end
        self.done = True
        return False
