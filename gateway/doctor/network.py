"""Checks the ports, the certificate, and whether the names in ``allowed_hosts`` lead here."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from gateway.config.places import SYSTEM
from gateway.config.settings import Settings
from gateway.doctor.checks import Finding, Level, Subject
from gateway.doctor.service import UNIT, socket_unit_at
from gateway.listen_on import addresses_of, why
from gateway.plurals import counted
from gateway.without_keys import warnings_of, why_not_open

PATIENCE: Final = 8.0  # seconds for one connection
_LISTENING: Final = "0A"  # in /proc/net/tcp


def check_ports(subject: Subject) -> Iterator[Finding]:
    """Check whether each port is free, or who has it."""
    settings = subject.settings
    for host in settings.hosts:
        yield _port(subject, "", host, settings.port)
    redirect = settings.tls.redirect_port
    if settings.tls.enabled and redirect is not None:
        for host in settings.hosts:
            yield _port(subject, "tls.redirect_port", host, redirect)
    if (error := why_not_open(settings)) is not None:
        yield Finding("exposure", Level.ERROR, error)
    for warning in warnings_of(settings):
        yield Finding("exposure", Level.WARNING, warning)
    if settings.others_reach and not settings.tls.enabled and not settings.trusted_proxies:
        what = f"{settings.others_reach} is reached by others, and keys go there unencrypted"
        do = "tls.enabled: true (llm-gateway tls self-signed makes a certificate)"
        yield Finding("exposure", Level.WARNING, what, do)


def _port(subject: Subject, name: str, host: str, port: int) -> Finding:
    shown = f"{f'[{host}]' if ':' in host else host}:{port}"
    tell = partial(Finding, "port", subject=name)
    if subject.running is not None and not name:
        urls = [str(url) for url in subject.running.status.get("urls", ())]
        at = f"our gateway listens at {' and '.join(urls) or 'no address'}"
        if port in (0, *(urlsplit(url).port for url in urls)):
            return tell(Level.OK, at)
        what = f"{at}, not at {shown}: it was started with other settings"
        return tell(Level.WARNING, what, "restart it, if the settings were changed since")
    if port == 0:
        return tell(Level.OK, f"{host}, any port that is free")
    try:
        addresses = addresses_of(host)
    except OSError as error:
        return tell(Level.ERROR, f"{shown}: {why(error)}", f"change {name or 'host'}")
    pid = subject.running.pid if subject.running is not None else None
    for address in addresses:
        try:
            _bind(address, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return tell(Level.ERROR, f"{shown}: {why(error)}")
            holder = holder_of(port)
            if pid is not None and (holder is None or holder.pid == pid):
                return tell(Level.OK, f"our gateway listens at {shown}")
            if (holder is None or holder.name == "systemd") and socket_unit_at(port):
                do = f"its configuration is {SYSTEM} (--config); for another one, another port"
                return tell(Level.WARNING, f"{shown} is the service's, {UNIT}", do)
            who = f"by {holder.name} (process {holder.pid})" if holder else "by another program"
            do = f"end that program, or choose another {name or 'port'}"
            return tell(Level.ERROR, f"{shown} is in use {who}", do)
    return tell(Level.OK, f"{shown} is free")


def _bind(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((address, port))
        probe.listen(1)


class Holder(NamedTuple):
    """The process that listens on a port."""

    pid: int
    name: str


def holder_of(port: int, proc: Path = Path("/proc")) -> Holder | None:
    """Return who listens on ``port``; ``None`` if that can't be seen. Only root sees other
    users' processes.
    """
    inodes = {inode for kind in ("tcp", "tcp6") for inode in _listening(proc / "net" / kind, port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in proc.glob("[0-9]*/fd") if wanted else ():
        with contextlib.suppress(OSError):
            for file in folder.iterdir():
                with contextlib.suppress(OSError):
                    if str(file.readlink()) in wanted:
                        name = (folder.parent / "comm").read_text().strip()
                        return Holder(int(folder.parent.name), name)
    return None


def _listening(table: Path, port: int) -> Iterator[str]:
    """Return the inodes of sockets in ``table`` (proc(5), /proc/net/tcp) that listen on
    ``port``.
    """
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if len(fields) <= 9 or fields[3] != _LISTENING:
                continue
            if int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


# --- certificate -----------------------------------------------------------------------------


def check_certificate(subject: Subject) -> Iterator[Finding]:
    """Check whether the certificate's files fit, and how long they last."""
    settings, name = subject.settings, "certificate"
    if not settings.tls.enabled:
        if settings.others_reach is None:
            yield Finding(name, Level.OK, "TLS is off, and only this machine reaches the gateway")
        else:
            yield Finding(name, Level.OK, "TLS is off")
        return
    if settings.tls.acme is not None:
        yield from _of_acme(settings)
        return
    from gateway.tls import inspect

    found = inspect(settings.tls)
    for problem in found.errors:
        yield Finding(name, Level.ERROR, _without_file(str(problem), problem.file))
    for problem in found.warnings:
        yield Finding(name, Level.WARNING, _without_file(str(problem), problem.file))
    if found.certificate is not None and not found.errors:
        names, end = ", ".join(found.certificate.names), found.certificate.not_after
        yield Finding(name, Level.OK, f"for {names}, valid for {_days(end)}")


def _of_acme(settings: Settings) -> Iterator[Finding]:
    from gateway.tls.acme import inspect_acme
    from gateway.tls.acme_files import AcmeFiles

    acme, name = settings.tls.acme, "certificate"
    assert acme is not None
    found = inspect_acme(settings.tls)
    for level, problems in ((Level.ERROR, found.errors), (Level.WARNING, found.warnings)):
        for problem in problems:
            yield Finding(name, level, _without_file(str(problem), problem.file))
    held = AcmeFiles(acme, settings.data_dir / "acme").held()
    if held is None:
        do = "the gateway gets it when it runs and is reached from outside"
        yield Finding(name, Level.WARNING, "there is none from the ACME authority yet", do)
        return
    left, life = held.end - datetime.now(UTC), held.end - held.start
    names = ", ".join(sorted(held.names))
    if left < life / 6:  # renewals begin when a third is left
        do = "it should have been renewed: the gateway's log says why not"
        level = Level.ERROR if left.total_seconds() < 0 else Level.WARNING
        yield Finding(name, level, f"for {names}, {_ends(held.end)}", do)
    else:
        yield Finding(name, Level.OK, f"for {names}, by ACME, valid for {_days(held.end)}")


def _ends(end: datetime) -> str:
    return f"{'expired' if end < datetime.now(UTC) else 'expires'} on {end:%Y-%m-%d %H:%M} UTC"


def _days(end: datetime) -> str:
    return counted((end - datetime.now(UTC)).days, "more day")


def _without_file(text: str, file: str) -> str:
    return text.removeprefix(f"{file}: ")


# --- reachable -------------------------------------------------------------------------------


class _UnreachableName(Exception):
    """A name doesn't lead to the gateway: the reason, and whether it is certainly an error."""

    def __init__(self, what: str, do: str, level: Level = Level.WARNING) -> None:
        super().__init__(what)
        self.what, self.do, self.level = what, do, level


def check_reachable(subject: Subject) -> Iterator[Finding]:
    """Check whether each name of ``allowed_hosts`` (or of ``tls.acme``) leads to our ``/ping``.

    The check is made from this machine, which may see something else than the world; the finding
    says so.
    """
    settings = subject.settings
    acme = settings.tls.acme
    names = settings.allowed_hosts or (acme.domains if acme is not None else ())
    names = tuple(name for name in names if "*" not in name)
    if not names:
        what = "allowed_hosts names no host: nothing to try"
        yield Finding("reachable", Level.OK, what)
        return
    for name in names:
        try:
            yield Finding("reachable", Level.OK, _reach(subject, name), "", name)
        except _UnreachableName as error:
            yield Finding("reachable", error.level, error.what, error.do, name)


def _reach(subject: Subject, name: str) -> str:
    settings = subject.settings
    address = _resolve(name)
    if subject.running is None:
        return f"leads to {address}; not tried further, as no gateway is running"
    behind = bool(settings.trusted_proxies) and not settings.tls.enabled
    tls = settings.tls.enabled or behind
    port = 443 if behind else settings.tls.public_port or settings.port
    url = f"http{'s' if tls else ''}://{name}" + (f":{port}" if port != 443 else "")
    try:
        status, body = _ping(settings, name, port, tls=tls)
    except ssl.SSLCertVerificationError as error:
        what = f"{url} has a certificate that is not trusted: {error.verify_message}"
        raise _UnreachableName(
            what, "is it for this name, and complete (ca_chain)?", Level.ERROR
        ) from None
    except TimeoutError:
        what = f"{url} ({address}) gives no answer, tried from inside"
        raise _UnreachableName(what, _ROUTER) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise _UnreachableName(f"{url} ({address}): {reason}, tried from inside", _ROUTER) from None
    if status != 200 or body != b"pong":
        what = f"{url} ({address}) is answered by something else (status {status})"
        raise _UnreachableName(what, "the name, or the port in the router, leads to another server")
    return f"{url} ({address}) answers, tried from inside"


_ROUTER: Final = (
    "does the router forward the port here, and a firewall let it in? Many routers don't lead "
    "back from inside: try it from a phone without Wi-Fi"
)


def _resolve(name: str) -> str:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        temporary = getattr(error, "errno", None) == socket.EAI_AGAIN
        if temporary:
            what = "its address can't be had: the name server doesn't answer"
            raise _UnreachableName(what, "is there a network?") from None
        raise _UnreachableName(
            "there is no such name in the DNS", "register it (dynamic DNS)"
        ) from None
    return str(found[0][4][0])


def _ping(settings: Settings, name: str, port: int, *, tls: bool) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        for file in _own_authorities(settings):
            with contextlib.suppress(OSError, ssl.SSLError):
                context.load_verify_locations(file)
        connection = http.client.HTTPSConnection(name, port, timeout=PATIENCE, context=context)
    else:
        connection = http.client.HTTPConnection(name, port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/ping")
        answer = connection.getresponse()
        return answer.status, answer.read(16)


def _own_authorities(settings: Settings) -> Iterator[Path]:
    """Return the CA of ``tls self-signed``: clients in this network may trust it."""
    if settings.tls.certificate is not None:
        yield from settings.tls.certificate.parent.glob("local-ca-crt.pem")
    if settings.tls.acme is not None and settings.tls.acme.ca_file is not None:
        yield settings.tls.acme.ca_file
