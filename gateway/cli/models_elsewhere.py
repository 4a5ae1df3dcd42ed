"""``llm-gateway models`` and ``models show`` of a gateway elsewhere, and what only goes here."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from gateway.cli.client import Client, Refused
from gateway.cli.models_json import as_json
from gateway.errors import BadRequest
from gateway.spelling import did_you_mean


def only_here(args: argparse.Namespace) -> None:
    """Raise :class:`BadRequest` where a gateway elsewhere is named for what can't be done there."""
    if getattr(args, "url", None) or getattr(args, "profile", None):
        raise BadRequest("this looks at files of this machine: --url and --profile are not for it")


def listed(client: Client) -> list[dict[str, Any]]:
    """Its models, as :func:`gateway.cli.models.as_json` has them; without memory for a guest."""
    try:
        models = client.ask("GET", "/admin/models")["models"]
    except Refused as refused:
        if refused.answered != 403:
            raise
        return _for_guests(client)
    return [as_json(one["name"], one, one["personalities"]) for one in models]


def _for_guests(client: Client) -> list[dict[str, Any]]:
    ids = [one["id"] for one in client.ask("GET", "/v1/models")["data"]]
    loaded = client.ask("GET", "/models?loaded=true")
    names: dict[str, list[str]] = {one: [] for one in ids}
    for one in ids:
        name, colon, personality = one.partition(":")
        if colon and name in names:  # a personality, as a model of its own
            names[name].append(personality)
            del names[one]
    return [
        {
            "name": name,
            "state": "loaded" if name in loaded else "not loaded",
            "memory": None,
            "personalities": personalities,
            "elsewhere": None,
        }
        for name, personalities in names.items()
    ]


def shown(client: Client, name: str) -> dict[str, Any]:
    """An entry and how its model stands, as far as the gateway says. For administrators."""
    models = {one["name"]: one for one in client.ask("GET", "/admin/models")["models"]}
    if name not in models:
        raise BadRequest(
            f"{client.name} has no model {name!r}{did_you_mean(name, models)}; "
            f"it has: {', '.join(models) or 'none'}"
        )
    try:
        entry = client.ask("GET", f"/admin/models/{quote(name, safe='')}")
    except Refused as refused:
        if refused.answered != 404:
            raise
        entry = None  # the demo model, which stands in no models.json
    return {
        "name": name,
        "entry": entry,
        **{key: models[name].get(key) for key in ("state", "memory", "chosen")},
    }
