"""The sockets a gateway listens on: HTTP(S) for everybody, and a control socket for its owner."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aiohttp import web

from gateway.config.settings import Settings, TlsSettings
from gateway.http.connections import Connections
from gateway.http.fast_listener import FastListener, FastRoutes
from gateway.http.head_limits import parser_options
from gateway.http.hosts import Proxies
from gateway.http.inherited import NOTHING_INHERITED, Inherited
from gateway.http.refusals import LINGER, Refusals
from gateway.http.runner import Runner
from gateway.http.tls_state import TlsState
from gateway.listen_on import addresses_of, is_loopback, why
from gateway.problems import InvalidFiles
from gateway.tasks import cancel_and_wait, spawn, spawn_lasting
from gateway.without_keys import warnings_of, why_not_open

if TYPE_CHECKING:
    from gateway.http.tls_port import TlsPort
    from gateway.tls import CertificateInfo, CertificateReloader
    from gateway.tls.acme import AcmeCertificate

_log = logging.getLogger(__name__)

#: The backlog of an inherited socket: asyncio sets it anew, and the kernel caps it
#: (net.core.somaxconn, 4096 by default).
_WAITING: Final = 4096


class CannotListen(Exception):
    """An address is taken, not ours, or not allowed; the message says which one, and why."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the listeners serve: one part by aiohttp, one by the fast JSON protocol.

    ``redirect`` makes what answers plain HTTP, given the port of https.
    """

    app: web.Application
    routes: FastRoutes
    tls: TlsState
    proxies: Proxies
    refusals: Refusals
    redirect: Callable[[int], web.Application]


class Listeners:
    """The listeners of a gateway, opened by :meth:`start`; closed in two steps, so that what runs
    may finish between them.

    ``inherited`` are sockets that are open already; ``settings`` have their addresses.
    """

    def __init__(
        self,
        site: Site,
        settings: Settings,
        control_socket: str,
        inherited: Inherited = NOTHING_INHERITED,
    ) -> None:
        self._settings = settings
        self._inherited = inherited
        self._control_socket = control_socket
        self._site = site
        #: The state of TLS, with the certificate in use.
        self.tls = site.tls
        #: The connections of both ports.
        self.connections = Connections(settings.limits, site.proxies.trusts, site.refusals)
        self._runner = self._make_runner(site.app, site.routes)
        self._redirect_runner: web.AppRunner | None = None
        self._sites: list[web.BaseSite] = []
        self._tls_port: TlsPort | None = None
        self._certificate: CertificateReloader | None = None
        self._tasks: list[asyncio.Task[None]] = []
        #: The certificate that renews itself, with its ``status``; None without ``tls.acme``.
        self.acme: AcmeCertificate | None = None
        #: The URLs for clients, like ``http://127.0.0.1:8080``.
        self.urls: list[str] = []
        #: The URLs where plain HTTP is redirected to https.
        self.redirect_urls: list[str] = []

    @property
    def fast_json(self) -> FastListener:
        """The fast JSON protocol of the main port. Only valid while the port listens."""
        return self._runner.entrance.listener

    async def names(self) -> list[str]:
        """Return names for other machines that are in the certificate, or that it is to have."""
        if (acme := self._settings.tls.acme) is not None:
            return list(acme.domains)
        if self._certificate is not None:
            await self._certificate.inspect()
        return sorted(name for name in self.tls.names if _leads_here(name))

    async def start(self) -> None:
        """Listen. Raises :class:`CannotListen`, or ``InvalidFiles`` for a useless certificate."""
        settings = self._settings
        if (reason := why_not_open(settings)) is not None:
            raise CannotListen(reason)
        if settings.tls.enabled:
            self._certificate = await self._open_certificate(settings.tls)
        await self._runner.setup()
        if self._certificate is not None:
            addresses = await self._listen_tls(self._certificate.context)
            self.urls = [f"https://{_authority(address)}" for address in addresses]
            self._watch_certificate(self._certificate)
            await self._start_redirect(addresses[0][1], self._certificate)
        else:
            addresses = await self._listen(self._runner, settings.port, self._inherited.http)
            self.urls = [f"http://{_authority(address)}" for address in addresses]
        await web.UnixSite(self._runner, self._control_socket).start()
        for control in self._inherited.control:
            await self._serve(web.SockSite(self._runner, control, backlog=_WAITING))
        for warning in warnings_of(settings):
            _log.warning("%s", warning)
        if settings.others_reach is not None and not settings.tls.enabled:
            _log.warning(
                "%s can be reached from other machines, and keys and chats travel in plain "
                "text: switch tls on (see docs/tls.md)",
                settings.others_reach,
            )

    def _make_runner(self, app: web.Application, routes: FastRoutes) -> Runner:
        return Runner(
            app,
            connections=self.connections,
            routes=routes,
            limits=self._settings.limits,
            handler={
                "access_log": None,  # the pipeline writes its own
                "keepalive_timeout": self._settings.limits.keepalive,
                **parser_options(self._settings.limits),
                "auto_decompress": False,  # who reads a body knows when it's enough
                "lingering_time": LINGER,
            },
            handler_cancellation=True,  # a client that hangs up ends its handler and its backend
            shutdown_timeout=1.0,  # what may finish has finished by then
        )

    async def _open_certificate(self, tls: TlsSettings) -> CertificateReloader:
        from gateway.tls import CertificateReloader  # who serves plain HTTP never needs it

        if tls.acme is not None:
            from gateway.tls.acme import AcmeCertificate

            folder = self._settings.data_dir / "acme"
            self.acme = await AcmeCertificate.open(tls.acme, folder, self.tls.acme_tokens)
            tls = await self.acme.to_serve()
        return await CertificateReloader.open(tls)

    async def _listen(
        self, runner: web.AppRunner, port: int, inherited: Sequence[socket.socket]
    ) -> list[tuple[str, int]]:
        """Listen on ``port`` of every host; 0: any that is free, the same on all.

        If sockets are ``inherited`` for it, listen on those.
        """
        for listening in inherited:
            await self._serve(web.SockSite(runner, listening, backlog=_WAITING))
        for host in () if inherited else await self._hosts(port):
            try:
                await self._serve(web.TCPSite(runner, host, port))
            except OSError as error:
                raise self._cannot_listen(host, port, error) from None
            port = port or runner.addresses[0][1]
        return [address[:2] for address in runner.addresses]

    async def _serve(self, site: web.BaseSite) -> None:
        await site.start()
        self._sites.append(site)

    async def _listen_tls(self, context: ssl.SSLContext) -> list[tuple[str, int]]:
        from gateway.http.tls_port import TlsPort  # only with TLS

        settings = self._settings
        listener = self._tls_port = TlsPort(
            self._runner.server,
            context,
            self.connections,
            patience=settings.limits.handshake_timeout,
        )
        port = settings.port
        if self._inherited.https:
            listener.take(self._inherited.https)
            return listener.addresses
        for host in await self._hosts(port):
            try:
                await listener.open(host, port)
            except OSError as error:
                raise self._cannot_listen(host, port, error) from None
            port = port or listener.addresses[0][1]
        return listener.addresses

    async def _hosts(self, port: int) -> Sequence[str]:
        """Return where to listen: of several hosts the addresses, of which each is listened on
        once.
        """
        hosts = self._settings.hosts
        if len(hosts) == 1:
            return hosts
        found: list[str] = []
        for host in hosts:
            try:
                found += await asyncio.to_thread(addresses_of, host)
            except OSError as error:
                raise self._cannot_listen(host, port, error) from None
        return list(dict.fromkeys(found))  # localhost and 127.0.0.1 may be the same

    def _cannot_listen(self, host: str, port: int, error: OSError) -> CannotListen:
        return CannotListen(f"cannot listen on {host} port {port}: {why(error)}")

    async def _start_redirect(self, https_port: int, certificate: CertificateReloader) -> None:
        port = self._settings.tls.redirect_port
        if port is None:
            return
        await certificate.inspect()  # for its names, of which the redirect is

        public_port = self._settings.tls.public_port or https_port
        nothing = replace(self._site.routes, find=lambda _target, _headers: None)
        runner = self._make_runner(self._site.redirect(public_port), nothing)
        self._redirect_runner = runner
        await runner.setup()
        addresses = await self._listen(runner, port, self._inherited.redirect)
        self.redirect_urls = [f"http://{_authority(address)}" for address in addresses]
        _log.info("%s leads to https", ", ".join(self.redirect_urls))

    def _watch_certificate(self, reloader: CertificateReloader) -> None:
        def changed(info: CertificateInfo) -> None:
            self.tls.certificate = info
            self.tls.serves(info.names, local=info.local)

        self.tls.reloader, self.tls.acme = reloader, self.acme
        reloader.changed = changed
        self._tasks += [
            spawn(_tell_problems(reloader), name="inspect the certificate"),
            spawn_lasting(reloader.watch, name="watch the certificate"),
        ]
        if (acme := self.acme) is not None:
            keep = spawn_lasting(lambda: acme.keep(reloader), name="keep the certificate")
            self._tasks.append(keep)

    async def stop_accepting(self) -> None:
        """Take no new connections; those there are go on."""
        for site in self._sites:
            await site.stop()
        self._sites.clear()
        if self._tls_port is not None:
            self._tls_port.stop()

    @property
    def expected(self) -> tuple[int, int]:
        """The numbers of connections whose TLS handshake, and whose first request, is on its
        way.
        """
        handshakes = self._tls_port.handshakes if self._tls_port is not None else 0
        return handshakes, self.connections.expected_heads

    async def reload_certificate(self) -> None:
        """Take the certificate from its files again; a broken one changes nothing."""
        if self._certificate is not None:
            try:
                await self._certificate.reload()
            except InvalidFiles as error:
                _log.error("the certificate in use stays: %s", error)

    async def close(self) -> None:
        """End every connection, whatever runs on it."""
        await cancel_and_wait(*self._tasks)
        if self._tls_port is not None:
            await self._tls_port.close()
        await self._runner.cleanup()
        if self._redirect_runner is not None:
            await self._redirect_runner.cleanup()


async def _tell_problems(reloader: CertificateReloader) -> None:
    """Log what is wrong with a certificate that is served nevertheless, such as an expired one."""
    found = await reloader.inspect()
    for problem in (*found.errors, *found.warnings):
        _log.warning("%s", problem)


def _leads_here(name: str) -> bool:
    """Return whether it is a name, and not an address, nor one that every machine has."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return False
    return not (name.startswith("*.") or is_loopback(name))


def _authority(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"  # where it is reached from this machine
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
