"""The greeting that ``serve`` prints: its addresses, its models, and the source of its settings.

It goes to stdout, for people; what programs read is in the log, on stderr.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway import __version__
from gateway.config.settings import Settings
from gateway.listen_on import is_loopback
from gateway.models.catalog import Catalog
from gateway.own_addresses import own_addresses
from gateway.web.files import is_built

#: How many addresses, and names of models, are shown.
_ADDRESSES: Final = 3
_MODELS: Final = 3
#: What to do if there is no model.
_NO_MODEL: Final = (
    "no model yet; three ways to get one:",
    "  llm-gateway pull OWNER/REPO  (from Hugging Face)",
    "  llm-gateway models scan      (all in {storage})",
    "  llm-gateway models add FILE  (or NAME=URL of a server)",
)


#: Whether stdout has lost its reader.
_unread = False


def say(text: str) -> bool:
    """Print ``text``; return whether somebody can read it. Blocks as long as nobody does."""
    global _unread
    if _unread:
        return False
    try:
        print(text, flush=True)  # noqa: T201
    except (OSError, ValueError):  # the pipe is closed
        # Python would complain once more when it flushes stdout, and end with a status of its own.
        _unread = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def greeting(
    settings: Settings,
    catalog: Catalog,
    urls: Sequence[str],
    source: Path | None,
    names: Sequence[str] = (),
) -> str:
    """Return the lines, fewer than ten. Blocks for no more than system calls.

    ``urls``: what is listened on, as reached from here. ``source``: the file of the settings.
    ``names``: those in the certificate that lead here from other machines.
    """
    here = next((url for url in urls if is_loopback(urlsplit(url).hostname or "")), urls[0])
    rows = [
        ("on this machine", here),
        ("on the network", _on_the_network(settings, urls, names)),
        *_in_a_browser(settings, here),
        *_served(settings, catalog),
        ("settings", str(source.absolute()) if source is not None else _built_in(settings)),
    ]
    lines = [f"LLM-API Gateway {__version__}"]
    lines += [f"  {label:<15}  {text}" for label, text in rows]
    return "\n".join(lines)


def page_at(settings: Settings, url: str) -> str | None:
    """Return the page at ``url``: the gateway's, else llama.cpp's, else ``None``. Blocks."""
    if settings.page and is_built():
        return f"{url}/"
    return f"{url}/ui/" if settings.ui else None


def _in_a_browser(settings: Settings, here: str) -> list[tuple[str, str]]:
    page = page_at(settings, here)
    if settings.page and not is_built():
        how = f"{here}/ says how to build the page"
        return [("in a browser", f"{page}; {how}" if page else how)]
    return [("in a browser", page)] if page else []


def _on_the_network(settings: Settings, urls: Sequence[str], names: Sequence[str]) -> str:
    if settings.others_reach is None:
        return f"no: this machine only (host: {', '.join(settings.hosts)})"
    parts = urlsplit(urls[0])
    port = settings.tls.public_port if settings.tls.enabled else None
    port = port or parts.port
    hosts = [*names, *_listened_on(settings)]
    if not hosts:
        return "this machine has no address there"
    usual = port == (443 if parts.scheme == "https" else 80)
    shown = [
        f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{'' if usual else f':{port}'}"
        for host in dict.fromkeys(hosts)
    ]
    return _some(shown, _ADDRESSES)


def _listened_on(settings: Settings) -> list[str]:
    found: list[str] = []
    for host in settings.hosts:
        if is_loopback(host):
            continue
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host)
            if address.is_unspecified:
                kind = ipaddress.IPv4Address if address.version == 4 else ipaddress.IPv6Address
                every = own_addresses()
                found += [one for one in every if isinstance(ipaddress.ip_address(one), kind)]
                continue
        found.append(host)
    return found


def _served(settings: Settings, catalog: Catalog) -> list[tuple[str, str]]:
    if not catalog.models:
        storage = settings.llm_storage
        return [
            ("serves" if not at else "", line.format(storage=storage))
            for at, line in enumerate(_NO_MODEL)
        ]
    names, count = catalog.names, len(catalog.names)
    models = _some(names, _MODELS)
    return [
        ("serves", f"{count} models: {models}" if count > 1 else models),
        ("models", str(settings.models_file)),
    ]


def _built_in(settings: Settings) -> str:
    return f"built-in; data in {settings.data_dir}"


def _some(texts: Sequence[str], most: int) -> str:
    left = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {left} more" if left > 0 else "")
