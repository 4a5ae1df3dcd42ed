"""Makes the answer of ``GET /clients``. Imported at the first request for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gateway.clients import CA_AT_HOME, CLIENTS, KEY, ClientTarget, Part, Setup
from gateway.clients.samples import BASE, Example, curl
from gateway.clients.shape import quoted

_CERTIFICATE: Final = re.compile(
    "-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----"
)
#: Listed first, in this order; then the others.
_FIRST: Final = ("openai-python", "openai-node")


def told(
    url: str,
    model: str,
    key: str | None,
    *,
    context: int | None,
    vision: bool,
    embeddings: str | None,
    authority: Path | None,
) -> dict[str, Any]:
    """Return the answer for ``model``; ``embeddings``: the model for those, if there is one.

    ``authority``: the PEM file of the authority that clients have to trust. Blocks.
    """
    ca = _certificates(authority) if authority is not None else None
    home = CA_AT_HOME if ca else None
    target = ClientTarget(url, model, key=key, context=context, vision=vision, ca=home)
    order = [*_FIRST, *(word for word in CLIENTS if word not in _FIRST)]
    clients = [_told(word, CLIENTS[word], target, embeddings) for word in order]
    clients.insert(len(_FIRST), _curl(target))
    if ca:
        first = Part(CA_AT_HOME.replace("$HOME", "~"), "pem", ca)
        for one in clients:
            one["parts"].insert(0, _shown(first))
    return {
        "url": url,
        "base_url": target.base_url,
        "model": target.model,
        "key_variable": KEY,
        "clients": clients,
    }


def _told(word: str, setup: Setup, target: ClientTarget, embeddings: str | None) -> dict[str, Any]:
    if setup.embeds and embeddings is not None:
        target = replace(target, embeddings=embeddings)
    return {
        "client": word,
        "title": setup.title,
        "about": setup.about,
        "parts": [_shown(part) for part in setup.parts_for(target)],
        "notes": [*_notes_on(setup, target), *setup.notes],
        "needs": list(setup.needs),
        "documentation": setup.documentation,
    }


def _certificates(file: Path) -> str | None:
    """Return the certificates in a file, without the key that may stand there too."""
    try:
        text = file.read_text(encoding="ascii", errors="replace")
    except OSError:  # the certificate is in use, and its files have gone
        return None
    return "".join(f"{found}\n" for found in _CERTIFICATE.findall(text)) or None


def _shown(part: Part) -> dict[str, Any]:
    return {**part._asdict(), "place": part.place}


def _notes_on(setup: Setup, target: ClientTarget) -> Iterator[str]:
    if target.ca is None:
        return
    yield (
        "The certificate is signed by an authority of your own, whose certificate is the first "
        "part: save it on the machine of the client."
    )
    if setup.ca_note is not None:
        yield f"{setup.ca_note}."


def _curl(target: ClientTarget) -> dict[str, Any]:
    body = {"model": target.model, "messages": [{"role": "user", "content": "Hello!"}]}
    line = curl(Example("POST", "/v1/chat/completions", body=body)).replace(BASE, target.url)
    if target.key is not None:
        line = line.replace(f"${KEY}", target.key)
    if target.ca is not None:
        line = line.replace("curl ", f"curl --cacert {quoted(target.ca)} ", 1)
    part = {"where": "a shell", "language": "sh", "text": f"{line}\n", "example": True}
    return {
        "client": "curl",
        "title": "curl",
        "about": "one request, from a shell",
        "parts": [{**part, "place": "In a shell"}],
        "notes": [],
        "needs": ["Chat Completions API"],
        "documentation": "https://curl.se/docs/manpage.html",
    }
