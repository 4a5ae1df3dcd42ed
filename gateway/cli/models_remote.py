"""``llm-gateway models`` and its subcommands for a gateway elsewhere."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final
from urllib.parse import quote

from gateway.cli.client import Client, Refused
from gateway.cli.models_json import as_json
from gateway.cli.scan_table import chosen, show_found
from gateway.errors import BadRequest
from gateway.spelling import did_you_mean


def listed(client: Client) -> list[dict[str, Any]]:
    """Return its models like :func:`gateway.cli.models.as_json`; without memory if the key
    isn't an admin's.
    """
    try:
        models = client.ask("GET", "/admin/models")["models"]
    except Refused as refused:
        if refused.answered != 403:
            raise
        return _for_guests(client)
    return [as_json(one["name"], one, one["personalities"]) for one in models]


def _for_guests(client: Client) -> list[dict[str, Any]]:
    listed = client.ask("GET", "/v1/models")["data"]
    loaded = client.ask("GET", "/models?loaded=true")
    return [
        {
            "name": one["id"],
            "display_name": one.get("name"),
            "state": "loaded" if one["id"] in loaded else "not loaded",
            "memory": None,
            "personalities": one["personalities"],
            "elsewhere": None,
        }
        for one in listed
        if "parent" not in one  # a personality, as a model of its own
    ]


def shown(client: Client, name: str) -> dict[str, Any]:
    """Print an entry and the state of its model, as far as the gateway tells. Needs an
    admin key.
    """
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
        "virtual_models": models[name].get("virtual_models", []),
        **{key: models[name].get(key) for key in ("state", "memory", "chosen")},
    }


# --- changes ---------------------------------------------------------------------------------

#: Seconds for the gateway to scan its files, or to finish the requests of a removed model.
_PATIENCE: Final = 300.0


def scan(client: Client, args: argparse.Namespace) -> int:
    """Let the gateway scan its storage and write entries for new files."""
    if args.folder is not None:
        raise BadRequest(f"FOLDER is for this machine: {client.name} looks at its llm_storage")
    found = _new_files(client)
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print(f"no GGUF file that models.json doesn't name, at {client.name}")
        return 0
    show_found(found)
    names = [one["name"] for one in chosen(found, all_of_them=args.yes)]
    for one in found:
        if one["name"] in names:
            _put(client, one["name"], one["entry"])
    if names:
        print(f"\n{len(names)} written at {client.name}: {', '.join(names)}")
    return 0


def add(client: Client, name: str | None, given: str, entry: dict[str, Any] | None) -> int:
    """Let the gateway write ``entry`` under ``name``, or, without one, the entry for the file
    ``given``.
    """
    if entry is None:
        entry, proposed = _proposed(client, given)
        name = name or proposed
    assert name is not None  # an entry comes with one
    _put(client, name, entry)
    print(f"{name} written at {client.name}")
    return 0


def remove(client: Client, args: argparse.Namespace) -> int:
    """Let the gateway remove an entry."""
    if args.file:
        raise BadRequest("--file deletes files of this machine, and none elsewhere")
    client.ask("DELETE", f"/admin/models/{quote(args.name, safe='')}", timeout=_PATIENCE)
    print(f"{args.name} removed at {client.name}")
    return 0


def _new_files(client: Client) -> list[dict[str, Any]]:
    """Return new files as `models scan --json` prints them."""
    found = client.ask("GET", "/admin/storage", timeout=_PATIENCE)
    return [{key: one[key] for key in one if key != "refused"} for one in found]


def _proposed(client: Client, given: str) -> tuple[dict[str, Any], str]:
    """Return the proposed entry for a file there, and its name."""
    found = _new_files(client)
    same = [one for one in found if one["file"] == given]
    same = same or [one for one in found if one["file"].rpartition("/")[2] == given]
    if len(same) != 1:
        files = [one["file"] for one in found]
        raise BadRequest(
            f"{client.name} has no file {given} in its llm_storage that no entry names"
            f"{did_you_mean(given, files)}: `llm-gateway models scan` shows which there are"
            if not same
            else f"there are several: {', '.join(one['file'] for one in same)}"
        )
    (one,) = same
    if one["entry"] is None:
        raise BadRequest(one["problem"] or f"{given} is no model of its own")
    return one["entry"], one["name"]


def _put(client: Client, name: str, entry: dict[str, Any]) -> None:
    try:
        client.ask(
            "PUT",
            f"/admin/models/{quote(name, safe='')}",
            entry,
            headers={"If-None-Match": "*"},  # the faster one keeps its entry
            timeout=_PATIENCE,
        )
    except Refused as refused:
        if refused.answered != 412:
            raise
        raise BadRequest(
            f"there is a model {name!r} already, at {client.name}: give it another name"
        ) from None
