"""Who a gateway is to nodes: its id, its authority, and the certificate that it shows.

All of it is kept in one folder, but for the certificate: that is made at each start, and again
long before it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.cluster.ca import (
    DAYS,
    Authority,
    Credentials,
    Request,
    client_context,
    renew,
    server_name,
)
from gateway.names import HERE
from gateway.private_files import make_folder, write_private

_log = logging.getLogger(__name__)

#: Seconds between two looks at the clock, which may have been wrong when the machine was started.
_LOOK: Final = 60.0
#: How old a certificate gets.
_OLDEST: Final = timedelta(days=DAYS / 3)


class Identity:
    """The identity in ``folder``. :meth:`open` before anything else.

    ``renewed`` is called when a new certificate is shown. Those of nodes were made no earlier than
    the one before, and are to be made anew then, too.
    """

    #: Its name among nodes; several gateways may share it.
    gateway: str
    #: For connections to nodes.
    context: ssl.SSLContext

    def __init__(self, folder: Path, renewed: Callable[[], None]) -> None:
        self._folder = folder
        self._renewed = renewed
        self._authority: Authority
        self._request: Request
        self._since: datetime

    def open(self) -> None:
        """Read it, or make it at the first start. Raises ``OSError``. Blocks."""
        make_folder(self._folder)
        self._authority = Authority.open(self._folder)
        self._request = Request.make()
        self.context = client_context(self._granted())
        file = self._folder / "id"
        self.gateway = ""
        with contextlib.suppress(FileNotFoundError):
            self.gateway = file.read_text().strip()
        if not self.gateway:
            self.gateway = secrets.token_hex(8)
            write_private(file, self.gateway)

    async def keep(self) -> None:
        """Show a certificate that doesn't end soon, for as long as this runs."""
        while True:
            await asyncio.sleep(_LOOK)
            # By the wall clock: that of the loop stands still while a machine is suspended.
            age = datetime.now(UTC) - self._since
            if not -timedelta(hours=1) < age < _OLDEST:
                await asyncio.to_thread(self._renew)
                _log.info("the certificate for nodes is renewed")
                self._renewed()

    def _renew(self) -> None:
        # For the same key: a connection that begins just then has both or neither.
        renew(self.context, self._granted())

    def _granted(self) -> Credentials:
        self._since = datetime.now(UTC)
        signed = self._authority.sign(self._request.text, "gateway", server=False, client=True)
        return self._request.granted(signed, self._authority.pem)

    async def certify(self, node: str, request: bytes) -> tuple[bytes, bytes]:
        """Return a certificate for the key of a node's request, and the authority."""
        signed = await asyncio.to_thread(
            self._authority.sign, request, server_name(node), server=True, client=True
        )
        return signed, self._authority.pem

    def giving(self) -> Credentials:
        """Return what this machine shows to nodes that copy files of it. Blocks."""
        return self._authority.issue(server_name(HERE), server=True, client=False)
