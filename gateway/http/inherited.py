"""Listening sockets inherited from a service manager: sd_listen_fds(3).

systemd keeps such a socket open while the service restarts, so that connections wait in the kernel
instead of being refused. Whoever else sets ``LISTEN_FDS`` is taken at their word as well.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, fields, replace
from typing import Final

from gateway.config.settings import Settings

#: The first inherited descriptor (SD_LISTEN_FDS_START).
_FIRST: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
#: The name of an unnamed socket, by sd_listen_fds_with_names(3).
_UNNAMED: Final = "unknown"


class UnusableSocket(Exception):
    """An inherited socket can't be listened on; the message says which one, and why."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """The sockets by the names they came with (``FileDescriptorName=`` in a unit)."""

    http: tuple[socket.socket, ...] = ()
    https: tuple[socket.socket, ...] = ()
    redirect: tuple[socket.socket, ...] = ()
    control: tuple[socket.socket, ...] = ()

    @property
    def main(self) -> tuple[socket.socket, ...]:
        """The sockets of the main port, with or without TLS."""
        return self.http + self.https

    @property
    def controls(self) -> frozenset[str]:
        """The paths of the control sockets."""
        return frozenset(each.getsockname() for each in self.control)

    def differs_from(self, settings: Settings) -> bool:
        """Whether ``settings`` ask for another port than the sockets have."""
        return any(each.getsockname()[1] != settings.port for each in self.main)

    def applied_to(self, settings: Settings) -> Settings:
        """Return ``settings`` with the addresses and ports of the sockets in place of their own.

        Raises :class:`UnusableSocket` if the settings have no use for one of them.
        """
        tls = settings.tls
        if self.https and not tls.enabled:
            raise UnusableSocket("a socket is named https, but tls.enabled is false: name it http")
        if self.http and tls.enabled:
            raise UnusableSocket("a socket is named http, but tls.enabled is true: name it https")
        if self.redirect:
            if not tls.enabled:
                raise UnusableSocket("a socket is named redirect, but tls.enabled is false")
            tls = replace(tls, redirect_port=self.redirect[0].getsockname()[1])
        if not self.main:
            return replace(settings, tls=tls)
        hosts = tuple(dict.fromkeys(each.getsockname()[0] for each in self.main))
        port = self.main[0].getsockname()[1]
        return replace(settings, host=hosts, port=port, tls=tls)


NOTHING_INHERITED: Final = Inherited()
_NAMES: Final = tuple(field.name for field in fields(Inherited))


def take(environ: MutableMapping[str, str]) -> Inherited:
    """Return what was handed over to this process, and remove the variables from ``environ``.

    Children don't inherit them. Raises :class:`UnusableSocket`.
    """
    given = {name: environ.pop(name, "") for name in _VARIABLES}
    if given["LISTEN_PID"] != str(os.getpid()) or not given["LISTEN_FDS"].isdecimal():
        return NOTHING_INHERITED
    count = int(given["LISTEN_FDS"])
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else [_UNNAMED] * count
    if len(names) != count:
        raise UnusableSocket(f"LISTEN_FDNAMES has {len(names)} names, and LISTEN_FDS is {count}")
    found: dict[str, tuple[socket.socket, ...]] = {}
    for name, each in zip(names, _sockets(count), strict=True):
        role = _role(name, each)
        found[role] = (*found.get(role, ()), each)
    return Inherited(**found)


def _sockets(count: int) -> Iterator[socket.socket]:
    for number in range(_FIRST, _FIRST + count):
        os.set_inheritable(number, False)
        try:
            opened = socket.socket(fileno=number)
            listens = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            raise UnusableSocket(f"descriptor {number} of LISTEN_FDS is no socket") from None
        if not listens:
            raise UnusableSocket(f"descriptor {number} of LISTEN_FDS is a socket that listens not")
        opened.setblocking(False)
        yield opened


def _role(name: str, opened: socket.socket) -> str:
    unix = opened.family == getattr(socket, "AF_UNIX", None)
    if name == _UNNAMED:
        name = "control" if unix else "http"
    if name not in _NAMES:
        allowed = ", ".join(_NAMES)
        raise UnusableSocket(f"a socket is named {name!r}: FileDescriptorName= is one of {allowed}")
    if unix != (name == "control"):
        kind = "a Unix socket" if unix else "no Unix socket"
        raise UnusableSocket(f"the socket named {name} is {kind}: only control is one")
    return name
