"""The admin key that the first start makes, shown as a link to the page and a curl command.

In the link the key is the fragment, which a browser keeps to itself: no request contains it, so no
log does, here or on the way (RFC 9110, 4.2.5). The page removes it from the address bar.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
from collections.abc import Sequence
from urllib.parse import urlsplit

from gateway.access.keys import KeyRing
from gateway.config.settings import Settings, TlsSettings
from gateway.greeting import page_at, say
from gateway.library import Library
from gateway.private_files import write_private

_log = logging.getLogger(__name__)


async def make_first_key(ring: KeyRing, settings: Settings, library: Library, url: str) -> None:
    """Make an admin key if there is no key at all, and show it once, with a command to try it."""
    if not settings.auth.enabled or ring.records:
        return
    key = await ring.create_first("admin", "made at the first start", admin=True)
    if key is None:  # another gateway with the same database has just made, and shown, one
        return
    certified, options = await asyncio.to_thread(_as_certified, url, settings.tls)
    tries = [f"Try it in a terminal:\n\n  {_curl(certified, options, key, library)}\n"]
    if (
        page := await asyncio.to_thread(page_at, settings, _certified_here(certified, url))
    ) is None:
        pass
    elif page.endswith("/ui/"):
        tries.append(f"Or, in a browser, with that key:\n\n  {page}\n")
    else:
        tries.insert(0, f"Open in a browser:\n\n  {page}#key={key}\n")
    example = "\n".join(tries)
    text = f"\nAdmin key, shown only this once:\n\n  {key}\n\n{example}"
    # What is printed under systemd stays in the journal for ever.
    if os.environ.get("JOURNAL_STREAM") or not await asyncio.to_thread(say, text):
        file = settings.data_dir / "first-admin-key.txt"
        await asyncio.to_thread(write_private, file, f"{key}\n\n{example}")
        _log.warning("the first admin key is in %s: take it, and delete the file", file)


def _as_certified(url: str, tls: TlsSettings) -> tuple[str, tuple[str, ...]]:
    """Return ``url`` by a name in the certificate, and the option by which curl trusts it.
    Blocks.
    """
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


def _certified_here(certified: str, url: str) -> str:
    """Return the address for a browser on this machine: a name of the certificate if it
    leads here.
    """
    host = urlsplit(certified).hostname
    return certified if host in ("localhost", urlsplit(url).hostname) else url


def _curl(url: str, options: Sequence[str], key: str, library: Library) -> str:
    authorization = f"-H {shlex.quote(f'Authorization: Bearer {key}')}"
    if not library.catalog.models:
        return f"{shlex.join(('curl', *options, f'{url}/v1/models'))} {authorization}"
    names = [(name, p) for name, s, p in library.resolver.virtual_names() if s.lists(p)]
    name = next((name for name, personality in names if personality is not None), None)
    name = name or next(iter(library.catalog.names), "MODEL")
    body = {
        "model": name,
        "messages": [{"role": "user", "content": "Who are you, and where is the Nile?"}],
    }
    return (
        f"{shlex.join(('curl', *options, f'{url}/v1/chat/completions'))}"
        f" {authorization}"
        f" -H {shlex.quote('Content-Type: application/json')}"
        f" -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )
