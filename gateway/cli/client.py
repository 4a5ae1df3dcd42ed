"""Requests to one gateway: over its control socket, or at an address, with a key."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from gateway.cli.control import ControlError
from gateway.errors import BadRequest, GatewayError

#: OpenSSL's codes for a certificate that no trusted authority has signed (x509_vfy.h).
UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
#: Seconds for the answer to a quick request.
TIMEOUT: Final = 10.0
_JSON: Final = "application/json"

#: OpenSSL's errors for an answer in plain text, by version (the last: 3.5).
_NOT_TLS: Final = (
    "WRONG_VERSION_NUMBER",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
)


class NoGateway(GatewayError):
    """There is no gateway, or it can't be reached."""

    status = 503
    default_code = "no_gateway"


class Untrusted(NoGateway):
    """This machine doesn't trust the gateway's certificate. ``verify_code``: OpenSSL's reason."""

    def __init__(self, message: str, verify_code: int) -> None:
        super().__init__(message)
        self.verify_code = verify_code


class Refused(GatewayError):
    """The gateway answered with an error, which is the message. ``answered``: the status."""

    def __init__(self, message: str, answered: int | None = None) -> None:
        super().__init__(message)
        self.answered = answered


class Client:
    """Requests to one gateway, each over a connection of its own."""

    def __init__(
        self,
        url: str | None,
        key: str | None,
        ca: str | None,
        *,
        control: str | None = None,
        authority: bytes | None = None,
        source: str | None = None,
    ) -> None:
        """Set up a client of the gateway at an address.

        ``ca`` is the file of an authority to trust, ``authority`` the same as PEM. ``source`` is
        what named the gateway, if that wasn't an option; errors mention it.
        """
        self._headers = {"Accept": f"{_JSON}, text/event-stream"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._control = control
        self._prefix = ""
        self.name = "the gateway on this machine"
        self._source = source
        #: The URL of a remote gateway, without ``/v1``, and the authority's file to trust; None for
        #: the local one.
        self.url: str | None = None
        self.ca = ca
        if url is not None:
            parts = parsed(url)
            self._tls = _context(ca, authority) if parts.scheme == "https" else None
            self._host, self._port = parts.hostname or "", parts.port
            self._prefix = parts.path
            self.name = f"{parts.scheme}://{parts.netloc}"
            self.url = parts.geturl()
            if source is not None:
                self.name += f" ({source})"

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Any:
        """Return the answer as JSON; ``None`` if it is empty.

        Raises :class:`Refused`, :class:`NoGateway`.
        """
        with self._opened(method, path, body, timeout, headers) as (answer, _):
            return None if answer.status == 204 else _read(answer)

    def events(self, method: str, path: str, body: object = None) -> Iterator[str]:
        """Yield the data of each event of a stream as it arrives, however long that takes.

        Raises as :meth:`ask` does, also if the stream breaks in between.
        """
        with self.stream(method, path, body) as stream:
            yield from stream

    @contextlib.contextmanager
    def stream(
        self, method: str, path: str, body: object = None, *, timeout: float | None = None
    ) -> Iterator[Stream]:
        """Return the same as an object that another thread can close. ``timeout``: seconds
        of silence.
        """
        with self._opened(method, path, body, timeout) as (answer, carrier):
            if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise Refused(f"{self.name} has answered {answer.status} without a stream")
            yield Stream(answer, carrier, self.name)

    @contextlib.contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        body: object,
        timeout: float | None,
        more: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[HTTPResponse, socket.socket | None]]:
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": _JSON} if data is not None else {}
        headers = {**self._headers, **kind, **(more or {})}
        with contextlib.closing(self._connection(timeout)) as connection:
            try:
                connection.request(method, self._prefix + path, data, headers)
                carrier = connection.sock  # not there any more where the answer ends with it
                answer = connection.getresponse()
            except ssl.SSLCertVerificationError as error:
                words = f"{self.name} cannot be reached: {error_words(error)}"
                raise Untrusted(words, error.verify_code) from None
            except (OSError, HTTPException) as error:
                raise NoGateway(f"{self.name} cannot be reached: {error_words(error)}") from None
            with answer:
                if answer.status >= 400:
                    raise self._refused(answer)
                if answer.status >= 300:
                    place = answer.headers.get("Location", "an address that it doesn't tell")
                    raise Refused(f"{self.name} answers {answer.status}: it is at {place}")
                yield answer, carrier

    def _refused(self, answer: HTTPResponse) -> Refused:
        message = _message(_read(answer), answer.status)
        if self._source is not None:
            message = f"{self.name}: {message}"
        return Refused(message, answer.status)

    def _connection(self, timeout: float | None) -> HTTPConnection:
        if self._control is not None:
            connection = HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(timeout)
            try:
                connection.sock.connect(self._control)
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                raise NoGateway("no gateway is running here: `llm-gateway serve`") from None
            return connection
        if self._tls is not None:
            return HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)
        return HTTPConnection(self._host, self._port, timeout=timeout)


def parsed(url: str) -> SplitResult:
    """Return ``url`` reduced to the gateway's address: without a user, ``/v1`` and a query.

    Without a scheme it is https. Raises :class:`BadRequest`.
    """
    try:
        parts = urlsplit(url.strip() if "//" in url else f"https://{url.strip()}")
        parts.port  # noqa: B018 - it is read to see whether it is one
    except ValueError as error:
        raise BadRequest(f"--url {url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"--url {url}: must be like https://box.example.com:8443")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    netloc = parts.netloc.rpartition("@")[2].lower()
    return parts._replace(netloc=netloc, path=path, query="", fragment="")


class Stream:
    """The data of each event of an answer (WHATWG HTML, Server-sent events), as it arrives."""

    def __init__(self, answer: HTTPResponse, carrier: socket.socket | None, whose: str) -> None:
        self._answer = answer
        self._carrier = carrier
        self._whose = whose
        self._closed = False

    def __iter__(self) -> Iterator[str]:
        """Yield the data of each event, up to :meth:`close`. Raises :class:`NoGateway` if
        it breaks off.
        """
        lines: list[str] = []
        try:
            for raw in self._answer:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if line.startswith("data:"):
                    lines.append(line[5:].removeprefix(" "))
                elif not line and lines:
                    yield "\n".join(lines)
                    lines.clear()
        except (OSError, HTTPException) as error:
            if not self._closed:
                raise NoGateway(f"{self._whose} broke off: {error_words(error)}") from None

    def close(self) -> None:
        """End the stream, whichever thread waits for it."""
        self._closed = True
        if self._carrier is not None:
            with contextlib.suppress(OSError):  # it has ended
                # That of TLS would say goodbye first, and take away what the other thread reads by.
                socket.socket.shutdown(self._carrier, socket.SHUT_RDWR)


def _context(ca: str | None, authority: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # That of a server alone, without its authority's, is trusted as well: as from 3.13 on.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if authority is not None:
        context.load_verify_locations(cadata=authority.decode("ascii", "ignore"))
    if ca is not None:
        try:
            context.load_verify_locations(os.path.expanduser(ca))  # noqa: PTH111 - as ssl wants it
        except (OSError, ssl.SSLError) as error:
            raise BadRequest(f"--ca {ca}: {error_words(error)}") from None
    return context


def _read(answer: HTTPResponse) -> Any:
    try:
        raw = answer.read()
    except (OSError, HTTPException) as error:
        raise NoGateway(f"the answer broke off: {error_words(error)}") from None
    try:
        return json.loads(raw)
    except ValueError:
        raise ControlError(
            f"the answer ({answer.status}) is no JSON: is it an LLM-API Gateway?"
        ) from None


def _message(content: Any, status: int) -> str:
    error = content.get("error") if isinstance(content, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or f"it has answered {status}")


def error_words(error: Exception) -> str:
    """Return what to tell a person of why a gateway cannot be reached."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        told = f"its certificate is not trusted ({error.verify_message})"
        unknown = error.verify_code in UNKNOWN_AUTHORITY
        return f"{told}: --ca names its authority, or `llm-gateway login`" if unknown else told
    if isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS:
        return "it doesn't speak https there: begin the address with http:// if that is meant"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
