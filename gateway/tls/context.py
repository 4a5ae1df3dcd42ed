"""The server's SSLContext, and its replacement while connections stay open."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gateway.config.settings import TlsSettings
from gateway.problems import InvalidFiles, Problem
from gateway.tls import pem
from gateway.tls.inspection import FILE, CertificateInfo, Inspection, inspect

_log = logging.getLogger(__name__)

# Mozilla's "intermediate" list for TLS 1.2: forward secrecy and authenticated encryption only.
# TLS 1.3 has no others, and OpenSSL's own order there is theirs too.
CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)

#: Seconds between two looks at the files. New ones are used after two looks that find them
#: unchanged: within 3 s of the last write. Polling works even where no events come (network drives,
#: mounts into containers, links to elsewhere), and costs three stats.
_LOOK_EVERY = 1.0
#: How many looks may find unusable files before that is logged: a tool may be writing them.
_BENEFIT_OF_DOUBT = 3
#: How often files are read again because they were written meanwhile, and the seconds between.
_READINGS, _PAUSE = 20, 0.2

_Signature = tuple[tuple[int, int, int] | None, ...]


def build_context(tls: TlsSettings, *, file: str = FILE) -> ssl.SSLContext:
    """Return a context that serves this certificate over TLS 1.2 and 1.3, HTTP/1.1 only.

    Blocks (files, and a key derivation if the key is encrypted): call it in a thread. Raises
    :class:`InvalidFiles`, whose problems name the keys of ``file``, if it cannot be served. A
    certificate that clients will not accept (expired, wrong chain) can be served, see
    :func:`inspect`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # All of the list is good, so the client chooses what its processor is fast at.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    try:
        _load(context, tls)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidFiles(_explain(error, tls, file)) from error
    return context


def _load(context: ssl.SSLContext, tls: TlsSettings) -> None:
    if tls.private_key is None or tls.certificate is None:
        raise ValueError("private_key and certificate are both needed")
    ca_chain = tls.ca_chain.read_bytes() if tls.ca_chain else b""
    chain = pem.served_chain(tls.certificate.read_bytes(), ca_chain)
    if not chain:
        raise ValueError("no certificate in the file")

    def passphrase() -> str:
        # Without it OpenSSL would ask on the terminal, and wait.
        if tls.passphrase is None:
            raise ValueError("the key is encrypted and no passphrase is given")
        return tls.passphrase.reveal()

    # OpenSSL takes the chain from one file. It is public and lies there for a moment only; the
    # key is read from its own file and is never written anywhere.
    with tempfile.NamedTemporaryFile("w", prefix="llm-gateway-", suffix=".pem") as together:
        together.write("".join(ssl.DER_cert_to_PEM_cert(der) for der in chain))
        together.flush()
        context.load_cert_chain(together.name, tls.private_key, passphrase)


def _explain(error: Exception, tls: TlsSettings, file: str) -> list[Problem]:
    """Return what is wrong in the words of :func:`inspect`, or in OpenSSL's if it found nothing."""
    if errors := inspect(tls, file=file).errors:
        return list(errors)
    reason = getattr(error, "reason", None) or error
    return [Problem(file, "tls.certificate", str(tls.certificate), f"cannot be used: {reason}")]


class CertificateReloader:
    """Serves the current certificate through one listening context that never changes.

    A callback of the listening context moves each new handshake to the newest context; it runs
    for clients that send no server name too. Loading a new pair into the context in use would
    be shorter, but is not atomic (certificate in, key refused), and an old RSA certificate
    would stay beside a new EC one, as OpenSSL keeps one of each kind. Open connections hold
    the context they began with. Session tickets stay valid, for they are sealed with the
    listening context's keys.
    """

    def __init__(
        self, tls: TlsSettings, context: ssl.SSLContext, signature: _Signature, file: str
    ) -> None:
        self._tls = tls
        self._file = file
        self._newest = context
        self._tried = self._seen = signature
        self._unsaid = 0
        self._reloading = asyncio.Lock()
        self.problems: tuple[Problem, ...] = ()
        """Why the files as they are now are not what is served; empty when they are."""
        self.context = context
        """What to listen with, for as long as the gateway runs."""
        self.special: Callable[[ssl.SSLObject, str | None], ssl.SSLContext | None] | None = None
        """Asked at every handshake (connection, server name) for a context of its own."""
        self.changed: Callable[[CertificateInfo], None] | None = None
        """Told of every new certificate."""
        context.sni_callback = self._choose

    @classmethod
    async def open(cls, tls: TlsSettings, *, file: str = FILE) -> CertificateReloader:
        """Load the certificate for the first time. Raises as :func:`build_context` does."""
        # Before the files are read: a change while they are being read is then seen later.
        signature = await asyncio.to_thread(_signature, tls)
        context = await asyncio.to_thread(build_context, tls, file=file)
        return cls(tls, context, signature, file)

    async def reload(self, tls: TlsSettings | None = None) -> None:
        """Read the files again, or those of new settings, for new handshakes.

        Raises :class:`InvalidFiles`, and keeps the certificate in use, if anything is wrong with
        the new one: a good certificate is never replaced by an expired one.
        """
        async with self._reloading:
            wanted = tls or self._tls
            self._unsaid = 0  # the caller gets it
            for _ in range(_READINGS):
                before = await asyncio.to_thread(_signature, wanted)
                try:
                    context, info = await asyncio.to_thread(_build_flawless, wanted, self._file)
                    problems: tuple[Problem, ...] = ()
                except InvalidFiles as error:
                    problems = error.problems
                # The files are read one after the other: written to meanwhile, they may be half
                # of the old and half of the new.
                self._tried = self._seen = await asyncio.to_thread(_signature, wanted)
                if self._tried == before:
                    break
                await asyncio.sleep(_PAUSE)
            self.problems = problems
            if problems:
                raise InvalidFiles(problems)
            self._tls, self._newest = wanted, context
        if self.changed is not None:
            self.changed(info)

    async def inspect(self) -> Inspection:
        """Check the files as they are now, and tell :attr:`changed` of the certificate."""
        found = await asyncio.to_thread(inspect, self._tls, file=self._file)
        if self.changed is not None and found.certificate is not None:
            self.changed(found.certificate)
        return found

    async def check(self) -> bool:
        """Look at the files once; return True if a new certificate is in use.

        New files are taken at the second look that finds them the same, because tools write key,
        certificate and chain one after the other. Broken ones are reported once, and only if they
        stay as they are: a slow tool may still be writing the certificate for its new key.
        """
        seen = await asyncio.to_thread(_signature, self._tls)
        settled, self._seen = seen == self._seen, seen
        if not settled:
            return False
        if seen == self._tried:
            self._tell_refused()
            return False
        try:
            await self.reload()
        except InvalidFiles:
            self._unsaid = _BENEFIT_OF_DOUBT
            return False
        _log.info("new certificate in use: %s", self._tls.certificate)
        return True

    def _tell_refused(self) -> None:
        if self._unsaid:
            self._unsaid -= 1
            if not self._unsaid:
                reasons = "\n".join(map(str, self.problems))
                _log.error("new certificate refused, the old one stays in use: %s", reasons)

    async def watch(self, interval: float = _LOOK_EVERY) -> NoReturn:
        """Call :meth:`check` every ``interval`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            await self.check()

    def _choose(
        self, connection: ssl.SSLObject, server_name: str | None, _listening: ssl.SSLContext
    ) -> None:
        special = self.special(connection, server_name) if self.special is not None else None
        if special is not None:
            connection.context = special
        elif self._newest is not self.context:
            connection.context = self._newest


def _build_flawless(tls: TlsSettings, file: str) -> tuple[ssl.SSLContext, CertificateInfo]:
    found = inspect(tls, file=file)
    if found.errors or found.certificate is None:
        raise InvalidFiles(found.errors)
    for warning in found.warnings:
        _log.warning("%s", warning)
    return build_context(tls, file=file), found.certificate


def _signature(tls: TlsSettings) -> _Signature:
    """Return a value that changes when one of the files is written, replaced, or linked
    elsewhere.
    """
    return tuple(_stat(path) for path in (tls.private_key, tls.certificate, tls.ca_chain))


def _stat(path: Path | None) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path) if path else None  # noqa: PTH116 - follows links, as open() does
    except OSError:
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None
