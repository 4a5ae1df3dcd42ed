"""``llm-gateway keys`` for a gateway elsewhere, over its routes for administrators."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gateway.cli.client import Client
from gateway.cli.keys_here import say


def list_keys(client: Client) -> list[dict[str, Any]]:
    """Print the keys as `GET /admin/keys` returns them."""
    keys: list[dict[str, Any]] = client.ask("GET", "/admin/keys")["keys"]
    return keys


def create(client: Client, body: Mapping[str, Any], *, as_json: bool) -> int:
    """Make the key that ``body`` describes. Only the key goes to stdout."""
    same = [key["id"] for key in list_keys(client) if key["name"] == body["name"]]
    made = client.ask("POST", "/admin/keys", body)
    kind = "admin key" if made["admin"] else "key"
    if same:
        say(f"warning: there is another key of that name: {', '.join(same)}")
    say(f"{kind} {made['id']} for {made['name']}, at {client.name}")
    say("it is shown only this once:")
    if as_json:
        print(json.dumps({"key": made.pop("key"), **made}, indent=2, ensure_ascii=False))
    else:
        print(made["key"])
    return 0


def revoke(client: Client, args: argparse.Namespace) -> int:
    """Revoke a key of that gateway."""
    forced = "?force=true" if args.force else ""
    gone = client.ask("DELETE", f"/admin/keys/{quote(args.id, safe='')}{forced}")
    print(f"revoked {gone['id']} ({gone['name']}), at {client.name}")
    return 0
