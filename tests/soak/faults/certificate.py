"""The certificate's files are replaced, or broken: new connections get the new one, or the old."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from gateway.tls.selfsigned import self_signed
from tests.soak.client import Connection
from tests.soak.faults.driver import Driver, Strike

#: Seconds within which a new certificate must be presented.
_SOON = 30.0


def _file(strike: Strike) -> Path:
    return strike.door.certificates / "127.0.0.1-crt.pem"


async def _replaced(strike: Strike) -> None:
    for old in strike.door.certificates.glob("*.bak*"):
        old.unlink()
    self_signed(["127.0.0.1"], strike.door.certificates, force=True)
    wanted = ssl.PEM_cert_to_DER_cert(_first(_file(strike).read_text()))
    try:
        async with asyncio.timeout(_SOON):
            while await _presented(strike) != wanted:
                await asyncio.sleep(0.2)
    except TimeoutError:
        strike.door.tally.breach(f"{strike.door.name}: a new certificate is not in use")


async def _broken(strike: Strike) -> None:
    file = _file(strike)
    text = file.read_text()
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    await asyncio.sleep(3)
    if await _presented(strike) != ssl.PEM_cert_to_DER_cert(_first(text)):
        strike.door.tally.breach(f"{strike.door.name}: the certificate changed, for a broken one")
    file.write_text(text)


async def _presented(strike: Strike) -> bytes:
    connection = await Connection.open(strike.door.port, strike.door.trust)
    try:
        return connection.certificate
    finally:
        connection.abort()


def _first(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    return text[: text.index(end)] + end + "\n"


async def _strike(strike: Strike) -> None:
    async with strike.door.alone:  # a gateway that starts needs a whole one
        with strike.ledger.in_force(strike.door.name, "certificate"):
            await strike.chance.choice((_replaced, _replaced, _broken))(strike)


DRIVER = Driver(every=30, strike=_strike, meant_for=lambda kind: kind.tls)
