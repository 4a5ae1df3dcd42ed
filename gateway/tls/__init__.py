"""The gateway's own certificate: serving, replacing, checking and making it.

``cryptography`` takes a tenth of a second to import, so every module here imports it inside the
functions that need it: a gateway without TLS never pays for it.
"""

from gateway.names import default_domains
from gateway.tls.context import CertificateReloader, build_context
from gateway.tls.inspection import CertificateInfo, Inspection, inspect
from gateway.tls.selfsigned import DEFAULT_DAYS, MAX_DAYS, SelfSigned, self_signed

__all__ = [
    "DEFAULT_DAYS",
    "MAX_DAYS",
    "CertificateInfo",
    "CertificateReloader",
    "Inspection",
    "SelfSigned",
    "build_context",
    "default_domains",
    "inspect",
    "self_signed",
]
