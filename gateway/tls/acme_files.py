"""The ACME files in the data folder: ``acme/DOMAIN/certificate.pem``, and records of attempts.

Key and chain are in one file, so that there is never a new key beside an old certificate. Its first
line, which PEM readers skip (RFC 7468, 2), says which authority was asked. All methods block.
"""

from __future__ import annotations

import contextlib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.config.settings import AcmeSettings, TlsSettings
from gateway.names import file_stem, parse_name
from gateway.private_files import make_folder
from gateway.tls import pem
from gateway.tls.acme_challenges import self_signed_pem
from gateway.tls.acme_client import AcmeError
from gateway.tls.files import write_whole
from gateway.tls.inspection import inspect

_FIRST_LINE = "Key and certificate, by ACME from "
_REMEMBERED = 100  # tries; an hour holds few


class Held(NamedTuple):
    """The certificate in the file. Times are aware."""

    directory: str
    names: frozenset[str]
    start: datetime
    end: datetime
    serial: int
    certificate: bytes  # the server's own, PEM


class AcmeFiles:
    """The files of one set of domains."""

    def __init__(self, settings: AcmeSettings, folder: Path) -> None:
        self._settings = settings
        authority = urlsplit(settings.directory).netloc.replace(":", "_")
        self.account_key = folder / f"account-{authority}.pem"
        self._home = folder / file_stem(parse_name(settings.domains[0]))
        self.certificate = self._home / "certificate.pem"
        self._temporary = self._home / "temporary.pem"
        self._tries = self._home / "tries.json"

    def held(self) -> Held | None:
        """Return the present certificate; None if there is none that can be read."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        try:
            data = self.certificate.read_bytes()
            own = x509.load_der_x509_certificate(pem.certificates(data)[0])
            alternative = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, IndexError, x509.ExtensionNotFound):
            return None
        if pem.private_key(data) is None:
            return None
        first, _, _ = data.partition(b"\n")
        names = (
            *alternative.get_values_for_type(x509.DNSName),
            *map(str, alternative.get_values_for_type(x509.IPAddress)),
        )
        return Held(
            first.decode(errors="replace").removeprefix(_FIRST_LINE).strip(),
            frozenset(names),
            own.not_valid_before_utc,
            own.not_valid_after_utc,
            own.serial_number,
            own.public_bytes(Encoding.PEM),
        )

    def to_serve(self) -> TlsSettings:
        """Return the certificate, or one that nobody trusts until the first one arrives."""
        if self.held() is not None:
            return _settings_for(self.certificate)
        make_folder(self._home)
        write_whole(self._temporary, self_signed_pem(self._settings.domains), secret=True)
        return _settings_for(self._temporary)

    def take(self, data: bytes) -> TlsSettings:
        """Replace key and chain by new ones, if these can be served."""
        make_folder(self._home)
        candidate = self._home / "new.pem"
        line = f"{_FIRST_LINE}{self._settings.directory}\n"
        write_whole(candidate, line.encode() + data, secret=True)
        found = inspect(_settings_for(candidate))
        if found.errors:
            reasons = "; ".join(problem.message for problem in found.errors)
            raise AcmeError(f"the certificate that came cannot be used, it {reasons}")
        candidate.replace(self.certificate)
        self._temporary.unlink(missing_ok=True)
        return _settings_for(self.certificate)

    def tries(self) -> list[float]:
        """Return the times of tries since the last success: an authority's limits outlive a
        restart.
        """
        try:
            times = json.loads(self._tries.read_bytes())
        except (OSError, ValueError):
            return []
        return [float(t) for t in times if isinstance(t, int | float)][-_REMEMBERED:]

    def note_try(self) -> None:
        """Record that a try begins; before it, because the process may not survive it."""
        make_folder(self._home)
        times = [*self.tries(), time.time()]
        with contextlib.suppress(OSError):  # a full disk: the pace in memory still holds
            write_whole(self._tries, json.dumps(times).encode(), secret=True)

    def forget_tries(self) -> None:
        """Forget the tries, as the last one succeeded."""
        self._tries.unlink(missing_ok=True)


def _settings_for(file: Path) -> TlsSettings:
    return TlsSettings(enabled=True, private_key=file, certificate=file)
