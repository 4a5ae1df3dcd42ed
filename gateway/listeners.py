"""The sockets a gateway listens on: HTTP(S) for everybody, and a control socket for its owner."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.config import Settings
from gateway.tasks import cancel_and_wait, spawn
from gateway.validation import InvalidFiles

if TYPE_CHECKING:
    from gateway.tls import CertificateReloader

_log = logging.getLogger(__name__)


class CannotListen(Exception):
    """The address is taken, not ours, or not allowed; the message says which and why."""


class Listeners:
    """Opened by :meth:`start`; closed in two steps, so that what runs may finish between them."""

    def __init__(self, app: web.Application, settings: Settings, control_socket: str) -> None:
        self._settings = settings
        self._control_socket = control_socket
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,  # a client that hangs up ends its handler and its backend
            access_log=None,  # gateway.api.middleware writes its own
            shutdown_timeout=1.0,  # what may finish has finished by then
        )
        self._public: list[web.BaseSite] = []
        self._certificate: CertificateReloader | None = None
        self._certificate_watch: asyncio.Task[None] | None = None
        #: Where clients reach it, like ``http://127.0.0.1:8080``.
        self.urls: list[str] = []

    async def start(self) -> None:
        """Listen. Raises :class:`CannotListen`, or ``InvalidFiles`` for a useless certificate."""
        settings = self._settings
        context = None
        if settings.tls.enabled:
            from gateway.tls import CertificateReloader  # who serves plain HTTP never needs it

            self._certificate = await CertificateReloader.open(settings.tls)
            context = self._certificate.context
            self._certificate_watch = spawn(self._certificate.watch(), name="watch certificate")
        await self._runner.setup()
        site = web.TCPSite(self._runner, settings.host, settings.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise CannotListen(
                f"cannot listen on {settings.host} port {settings.port}: {reason}"
            ) from None
        self._public.append(site)
        scheme = "https" if context is not None else "http"
        self.urls = [f"{scheme}://{_authority(address)}" for address in self._runner.addresses]
        await web.UnixSite(self._runner, self._control_socket).start()
        if not _is_loopback(settings.host) and not settings.tls.enabled:
            _log.warning(
                "%s can be reached from other machines, and keys and chats travel in plain "
                "text: switch tls on (see README, TLS)",
                settings.host,
            )

    async def stop_accepting(self) -> None:
        """Take no new connections; those there are go on."""
        for site in self._public:
            await site.stop()
        self._public.clear()

    async def reload_certificate(self) -> None:
        """Take the certificate from its files again; a broken one changes nothing."""
        if self._certificate is not None:
            try:
                await self._certificate.reload()
            except InvalidFiles as error:
                _log.error("the certificate in use stays: %s", error)

    async def close(self) -> None:
        """End every connection, whatever runs on it."""
        await cancel_and_wait(self._certificate_watch)
        await self._runner.cleanup()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authority(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"  # where it is reached from this machine
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
