"""What ``GET /clients`` tells of each client. Imported when the first one asks."""

from __future__ import annotations

from typing import Any, Final

from gateway.api.openapi_samples import BASE, Example, curl
from gateway.clients import CLIENTS, KEY, Setup, Target

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
) -> dict[str, Any]:
    """The answer, for ``model``; ``embeddings``: the one for those, if there is one."""
    target = Target(url, model, key=key, context=context, vision=vision)
    order = [*_FIRST, *(word for word in CLIENTS if word not in _FIRST)]
    clients = [_told(word, CLIENTS[word], target, embeddings) for word in order]
    clients.insert(len(_FIRST), _curl(target))
    return {
        "url": url,
        "base_url": target.base_url,
        "model": target.model,
        "key_variable": KEY,
        "clients": clients,
    }


def _told(word: str, setup: Setup, target: Target, embeddings: str | None) -> dict[str, Any]:
    if setup.embeds and embeddings is not None:
        target = Target(
            target.url, target.model, target.key, target.context, target.vision, embeddings
        )
    return {
        "client": word,
        "title": setup.title,
        "about": setup.about,
        "parts": [{**part._asdict(), "place": part.place} for part in setup.parts_for(target)],
        "notes": list(setup.notes),
        "needs": list(setup.needs),
        "documentation": setup.documentation,
    }


def _curl(target: Target) -> dict[str, Any]:
    body = {"model": target.model, "messages": [{"role": "user", "content": "Hello!"}]}
    line = curl(Example("POST", "/v1/chat/completions", body=body)).replace(BASE, target.url)
    if target.key is not None:
        line = line.replace(f"${KEY}", target.key)
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
