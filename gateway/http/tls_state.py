"""The state of TLS as handlers see it: HSTS, the certificate, and the proofs of ACME."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.names import is_public

if TYPE_CHECKING:  # who serves plain HTTP never needs them
    from gateway.tls import CertificateInfo, CertificateReloader
    from gateway.tls.acme import AcmeCertificate

#: A year, for this host only: we must not decide for the rest of the domain (RFC 6797, 6.1).
HSTS = "max-age=31536000"


@dataclass(slots=True)
class TlsState:
    """The state of TLS, kept up to date by the listeners."""

    #: The Strict-Transport-Security header of answers over TLS; None: no such header.
    hsts: str | None = None
    #: The names and addresses of the certificate in use; empty until it has been read.
    names: frozenset[str] = frozenset()
    #: ACME's http-01: token -> key authorization.
    acme_tokens: dict[str, str] = field(default_factory=dict)
    #: The certificate in use, the object that serves it and, with ``tls.acme``, the one that renews
    #: it.
    certificate: CertificateInfo | None = None
    reloader: CertificateReloader | None = None
    acme: AcmeCertificate | None = None

    def serves(self, names: Iterable[str], *, local: bool) -> None:
        """Take note of the certificate in use.

        A browser that has once seen HSTS refuses plain HTTP, and any certificate it does not
        trust, for a year: nothing to do to ``localhost``, or to a name with a home-made
        certificate.
        """
        self.names = frozenset(names)
        public = not local and any(is_public(name.removeprefix("*.")) for name in self.names)
        self.hsts = HSTS if public else None

    def named(self, host: str) -> bool:
        """Return whether ``host``, in lower case, is in the certificate (RFC 6125, 6.4.3)."""
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names
