"""Files on other machines of the cluster, as a source for :mod:`gateway.models.fetching`. Blocks.

Of several machines that have the same file one is asked, and the next where that one fails: what
has come stays, as their hashes are the same.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gateway.cluster.ca import server_name
from gateway.cluster.offer import Offer
from gateway.errors import GatewayError
from gateway.models.fetching import part_of
from gateway.models.hub import HubFile, safe_path
from gateway.models.hub_client import Interrupted, Pieces

#: Seconds to connect, and for which the other end may send nothing.
_CONNECT: Final = 5.0
_SILENCE: Final = 30.0
_PIECE: Final = 256 * 1024
_SHA256: Final = re.compile(r"(\S+) ([0-9a-f]{64})")


class CopyFailed(GatewayError):
    """502: no machine of the cluster gives what is needed."""

    status = 502
    default_code = "copy_failed"


class _Version(NamedTuple):
    """One state of a file: its size, what tells it from another, and its hash."""

    size: int
    mark: str
    sha256: str


class CopyPlan(NamedTuple):
    """Files from other machines, and where they go: below ``storage``."""

    storage: Path
    files: tuple[HubFile, ...]

    def place(self, file: HubFile) -> Path:
        """Return where a file goes. Raises ValueError for a path that leads elsewhere."""
        if safe_path(file.path) is None:
            raise ValueError(f"no name for a file: {file.path!r}")
        return self.storage.joinpath(*file.path.split("/"))

    def part(self, file: HubFile) -> Path:
        """Return where it grows."""
        return part_of(self.place(file), file)


class NodeSource:
    """What the ``offers`` have. ``context``: see :func:`gateway.cluster.ca.client_context`."""

    def __init__(self, offers: Sequence[Offer], context: ssl.SSLContext) -> None:
        self._offers = list(offers)
        self._context = context
        self._at = 0
        self._versions: dict[tuple[str, str], _Version] = {}
        self._passed_over: list[str] = []  # why the machines before the present one were

    @property
    def host(self) -> str:
        """The machine that is asked at present."""
        return self._offers[self._at].node

    def file(self, path: str, told: Callable[[int], None]) -> HubFile:
        """Return size and hash of a file, as the first machine says that has it.

        ``told`` of the bytes that are hashed, where that takes a while. Raises
        :class:`CopyFailed`, and :class:`Interrupted` if a retry may work soon.
        """
        problems, lost = [], False
        for number, offer in enumerate(self._offers):
            if path not in offer.files:
                continue
            self._at = number
            try:
                version = self._version(offer, path, told)
            except (Interrupted, CopyFailed) as error:
                problems.append(error.message)
                lost = lost or isinstance(error, Interrupted)
                continue
            return HubFile(path, version.size, version.sha256)
        if lost:
            raise Interrupted("; ".join(problems))
        raise CopyFailed("; ".join(problems) or f"no machine of the cluster has {path}")

    def stream(self, file: HubFile, start: int) -> Pieces:
        """Yield the bytes of a file from ``start`` on, from one machine."""
        offer = self._fitting(file)
        version = self._versions[offer.id, file.path]
        headers = {"If-Match": f'"{version.mark}"', "Range": f"bytes={start}-"}
        with self._next_after_failure(), self._asked(offer, file.path, "", headers) as answer:
            if answer.status == 412:
                del self._versions[offer.id, file.path]
                raise Interrupted(f"{file.path} has changed on {offer.node} while it was copied")
            if answer.status != (206 if start else 200):
                raise Interrupted(f"{offer.node} has answered {answer.status} for {file.path}")
            while piece := answer.read(_PIECE):
                yield piece

    def _fitting(self, file: HubFile) -> Offer:
        """Return the machine to ask: from the present one on the first that has the same file."""
        others, lost = [], False
        for step in range(len(self._offers)):
            number = (self._at + step) % len(self._offers)
            offer = self._offers[number]
            if file.path not in offer.files:
                continue
            try:
                version = self._version(offer, file.path, lambda _: None)
            except (Interrupted, CopyFailed) as error:
                others.append(error.message)
                lost = lost or isinstance(error, Interrupted)
                continue
            if version.sha256 == file.sha256:
                self._at, self._passed_over = number, others
                return offer
            others.append(f"{offer.node} has another {file.path} by now")
        raise Interrupted("; ".join(others)) if lost else CopyFailed("; ".join(others))

    @contextlib.contextmanager
    def _next_after_failure(self) -> Iterator[None]:
        try:
            yield
        except Interrupted as error:
            self._at = (self._at + 1) % len(self._offers)
            raise Interrupted("; ".join((error.message, *self._passed_over))) from None

    def _version(self, offer: Offer, path: str, told: Callable[[int], None]) -> _Version:
        known = self._versions.get((offer.id, path))
        if known is None:
            known = self._versions[offer.id, path] = self._ask_version(offer, path, told)
        return known

    def _ask_version(self, offer: Offer, path: str, told: Callable[[int], None]) -> _Version:
        with self._asked(offer, path, "/sha256", {}) as answer:
            if answer.status != 200:
                raise CopyFailed(f"{offer.node} gives no {path} any more ({answer.status})")
            while line := answer.readline(300):
                text = line.decode("ascii", "replace").strip()
                if text.isdecimal():
                    told(int(text))
                elif (match := _SHA256.fullmatch(text)) is not None:
                    size = match[1].partition("-")[0]
                    return _Version(int(size), match[1], match[2])
        raise Interrupted(f"{offer.node} has not said what {path} is")

    @contextlib.contextmanager
    def _asked(
        self, offer: Offer, path: str, what: str, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer to a question. Raises :class:`Interrupted`."""
        target = f"/{offer.files.index(path)}{what}"
        key = {"Authorization": f"Bearer {offer.key.reveal()}"}
        try:
            with (
                socket.create_connection((offer.host, offer.port), _CONNECT) as plain,
                self._context.wrap_socket(plain, server_hostname=server_name(offer.node)) as tls,
            ):
                tls.settimeout(_SILENCE)
                connection = http.client.HTTPConnection(offer.host, offer.port)
                connection.sock = tls
                connection.request("GET", target, headers=key | headers)
                with connection.getresponse() as answer:
                    yield answer
        except TimeoutError:
            raise Interrupted(f"{offer.node} does not answer") from None
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(f"the connection to {offer.node} broke off{_why(error)}") from None


def _why(error: Exception) -> str:
    """Return the part of a message that says why, where that is known in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f" (its certificate is not trusted: {error.verify_message})"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return f" ({error.strerror})"
    return ""
