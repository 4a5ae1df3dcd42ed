"""What handlers know of TLS: the promise to browsers (HSTS), and the proofs of ACME."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from aiohttp import web

from gateway.names import is_public

#: A year, this host only: what else the domain serves is not ours to decide (RFC 6797, 6.1).
HSTS = "max-age=31536000"


@dataclass(slots=True)
class TlsState:
    """Kept up to date by the listeners."""

    #: The Strict-Transport-Security of answers over TLS; None: they carry none.
    hsts: str | None = None
    #: ACME's http-01: token -> key authorization.
    acme_tokens: dict[str, str] = field(default_factory=dict)

    def serves(self, names: Iterable[str], *, local: bool) -> None:
        """Take note of the certificate in use.

        A browser that has once seen HSTS refuses plain HTTP, and any certificate it does not
        trust, for a year: nothing to do to ``localhost``, or to a name with a home-made
        certificate.
        """
        public = not local and any(is_public(name.removeprefix("*.")) for name in names)
        self.hsts = HSTS if public else None


TLS = web.AppKey("tls", TlsState)
