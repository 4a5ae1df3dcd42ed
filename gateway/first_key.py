"""The admin key that the first start makes, and the line that it is tried with."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from gateway.api.keys import KeyRing
from gateway.config import Settings, TlsSettings
from gateway.library import Library

_log = logging.getLogger(__name__)


async def make_first_key(ring: KeyRing, settings: Settings, library: Library, url: str) -> None:
    """Make an admin key if there is no key at all, and show it once, with a line to try it."""
    if not settings.auth.enabled or ring.records:
        return
    _, key = await ring.create("admin", "made at the first start", admin=True)
    example = _curl(*await asyncio.to_thread(_as_certified, url, settings.tls), key, library)
    if settings.ui:
        example += f"\n\nOr, in a browser, with that key:\n\n  {url}/ui/"
    if os.environ.get("JOURNAL_STREAM"):
        # What is printed under systemd stays in the journal for ever.
        file = settings.data_dir / "first-admin-key.txt"
        await asyncio.to_thread(_write_private, file, f"{key}\n\n{example}\n")
        _log.warning("the first admin key is in %s: take it, and delete the file", file)
        return
    print(f"\nAdmin key, shown only this once:\n\n  {key}\n\nTry it:\n\n  {example}\n", flush=True)  # noqa: T201


def _write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)


def _as_certified(url: str, tls: TlsSettings) -> tuple[str, tuple[str, ...]]:
    """``url`` by a name that the certificate has, and what makes curl trust that. Blocks."""
    if not tls.enabled or tls.acme is not None or tls.certificate is None:
        return url, ()
    from gateway.tls import inspect  # only with TLS

    certificate = inspect(tls).certificate
    if certificate is None:
        return url, ()
    file = str(tls.ca_chain or tls.certificate)
    trust = ("--cacert", file) if certificate.local else ()
    parts = urlsplit(url)
    names = [name for name in certificate.names if not name.startswith("*.")]
    if parts.hostname in names or not names:
        return url, trust
    # Whether that name leads here is not for us to know.
    name = "localhost" if "localhost" in names else names[0]
    there = f"[{name}]" if ":" in name else name
    return f"https://{there}:{parts.port}", (*trust, "--connect-to", f"::{parts.netloc}")


def _curl(url: str, options: Sequence[str], key: str, library: Library) -> str:
    name = next((name for name, _, p in library.resolver.virtual_names() if p is not None), None)
    name = name or next(iter(library.catalog.names), "MODEL")
    body = {
        "model": name,
        "messages": [{"role": "user", "content": "Who are you, and where is the Nile?"}],
    }
    return (
        f"{shlex.join(('curl', *options, f'{url}/v1/chat/completions'))}"
        f" -H {shlex.quote(f'Authorization: Bearer {key}')}"
        f" -H {shlex.quote('Content-Type: application/json')}"
        f" -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )
