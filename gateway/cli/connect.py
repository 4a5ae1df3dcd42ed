"""``llm-gateway connect``: the lines that set up a client for the gateway, ready to be pasted."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.cli.client import Client, Refused
from gateway.cli.connect_output import ClientSetup, notes_on
from gateway.cli.parser import explain
from gateway.cli.reached_at import Address, address_of
from gateway.cli.table import print_table
from gateway.cli.which_gateway import add_gateway, client_for
from gateway.clients import CLIENTS, ClientTarget, Setup, models_named
from gateway.config.settings import Settings
from gateway.errors import BadRequest
from gateway.spelling import did_you_mean

_LIST = "without one: list the clients that are known"
#: The key for a gateway without keys; some clients insist on one.
_NO_KEY = "no-key"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of the command."""
    parser.add_argument("client", metavar="CLIENT", nargs="?", help=_LIST)
    parser.add_argument(
        "--model", metavar="NAME[:PERSONALITY]", help="default: the only one, or the active one"
    )
    parser.add_argument(
        "--create-key",
        metavar="NAME",
        nargs="?",
        const="",
        help="make a key for it, good for that model only; NAME: how it is listed (default: the "
        "client's)",
    )
    parser.add_argument(
        "--models", metavar="A,B", help="the models that the new key may use instead"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    add_gateway(parser)
    parser.set_defaults(run=run)
    explain(
        parser,
        "Prints the exact lines of a client's configuration for the running "
        "gateway. On a terminal it tells where they go. In a pipe, stdout has "
        "only the lines, and stderr tells what else to do.",
        examples=[
            "llm-gateway connect codex --model Qwen3-8B --create-key",
            "llm-gateway connect openai-python --create-key laptop",
        ],
        fields={
            "client": "its name here, as CLIENT; without CLIENT there is a list of objects, with "
            "this, `title`, `about`, `needs`, `documentation` and `checked`",
            "title": "its name",
            "url": "address of the gateway",
            "base_url": "the same with what the client wants behind it, like /v1",
            "model": "the model it is set up for",
            "context_size": "tokens of that model's context; or null",
            "ca": "file of the authority to trust; null: the system's are enough",
            "key_variable": "the variable that the lines take the key from",
            "key": "the key that was made, as `keys create --json` prints it; or null",
            "parts[].where": "the file, or the shell, the lines are for",
            "parts[].language": "of the lines: sh, toml, json, ...",
            "parts[].text": "the lines",
            "parts[].example": "whether they are for trying it out, and set nothing up",
            "notes": "list of sentences",
            "needs": "what it needs to be; or null",
            "documentation": "address of its documentation",
            "checked": "the version and the day that its lines were checked with",
        },
    )


def run(args: argparse.Namespace) -> int:
    """Return 0, or 1 with the reason on stderr."""
    if args.client is None:
        if args.create_key in CLIENTS:
            raise BadRequest(f"CLIENT stands before --create-key: connect {args.create_key} ...")
        _list(as_json=args.json)
        return 0
    setup = CLIENTS.get(args.client)
    if setup is None:
        meant = did_you_mean(args.client, CLIENTS)
        raise BadRequest(f"there are no lines for {args.client!r}{meant}: {', '.join(CLIENTS)}")
    scope = _scope(args)
    gateway = client_for(args)
    settings, status = _status(args, gateway)
    # Lines for a shell can't hold more than what can be printed; no model is called otherwise.
    entries = [e for e in gateway.ask("GET", "/v1/models")["data"] if e["id"].isprintable()]
    entry = _chosen(entries, args.model, scope, (status or {}).get("active"))
    address = _address(gateway, settings, status)
    target = _target(setup, entry, entries, address, scope)
    made = _make_key(gateway, args, _own_names(entries, models_named(setup, target)), scope)
    if made is not None:
        target = replace(target, key=made["key"])
    elif settings is not None and not settings.auth.enabled:
        target = replace(target, key=_NO_KEY)
    shown = ClientSetup(args.client, target, made, notes_on(setup, target, settings, made))
    if args.json:
        shown.as_json()
    else:
        shown.as_lines()
    return 0


def _list(*, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "client": word,
                "title": client.title,
                "about": client.about,
                "needs": client.needs,
                "documentation": client.documentation,
                "checked": client.checked,
            }
            for word, client in CLIENTS.items()
        ]
        print(json.dumps(listed, indent=2))
        return
    rows = [(word, f"{client.title}: {client.about}") for word, client in CLIENTS.items()]
    print_table(("CLIENT", "WHAT IT IS"), rows)


# --- what is asked of the gateway ------------------------------------------------------------


def _scope(args: argparse.Namespace) -> list[str] | None:
    """Return the models of ``--models``."""
    if args.models is None:
        return None
    if args.create_key is None:
        raise BadRequest("--models says what a new key is good for: --create-key makes one")
    names = [name for part in args.models.split(",") if (name := part.strip())]
    if not names:
        raise BadRequest("--models names no model")
    return names


def _status(
    args: argparse.Namespace, gateway: Client
) -> tuple[Settings | None, dict[str, Any] | None]:
    """Return the settings of a gateway on this machine, and what any gateway tells
    administrators.
    """
    settings = None
    if gateway.url is None:
        from gateway.cli.serve import demo_if_bare
        from gateway.config.load import load_settings

        settings = demo_if_bare(load_settings(args.config)).settings
        return settings, gateway.ask("GET", "/admin/status")
    with contextlib.suppress(Refused):  # a key that is no administrator's
        return settings, gateway.ask("GET", "/admin/status")
    return settings, None


def _chosen(
    entries: Sequence[Mapping[str, Any]],
    wanted: str | None,
    scope: Sequence[str] | None,
    active: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """Return the entry of ``/v1/models`` for the model that the client shall use."""
    if wanted is not None:
        for entry in entries:
            if entry["id"] == wanted or wanted in entry["aliases"]:
                return {**entry, "id": wanted}
        meant = did_you_mean(wanted, [entry["id"] for entry in entries])
        raise BadRequest(f"there is no model {wanted!r}{meant}")
    models = [entry for entry in entries if "parent" not in entry and _chats(entry)]
    if scope is not None:
        models = [entry for entry in models if entry["id"] in scope]
    if active is not None:
        name = ":".join(filter(None, (active["model"], active["personality"])))
        of_scope = scope is None or active["model"] in scope
        if of_scope and (found := next((e for e in entries if e["id"] == name), None)):
            return found
    if len(models) == 1:
        return models[0]
    if not models:
        raise BadRequest("there is no model to chat with: `llm-gateway models` says what there is")
    names = ", ".join(entry["id"] for entry in models)
    raise BadRequest(f"which model? Add --model with one of: {names}")


def _chats(entry: Mapping[str, Any]) -> bool:
    """Return whether a model chats, rather than embeds or ranks."""
    return not {"embeddings", "rerank"} & set(entry["capabilities"])


def _address(gateway: Client, settings: Settings | None, status: Any) -> Address:
    if gateway.url is not None:
        ca = os.path.abspath(os.path.expanduser(gateway.ca)) if gateway.ca else None  # noqa: PTH100, PTH111
        return Address(gateway.url, ca)
    if settings is None or not status or not status.get("urls"):
        raise BadRequest(
            "the running gateway doesn't say where it listens: --url does, or restart it"
        )
    return address_of(settings, status["urls"])


def _target(
    setup: Setup,
    entry: Mapping[str, Any],
    entries: Iterable[Mapping[str, Any]],
    address: Address,
    scope: Sequence[str] | None,
) -> ClientTarget:
    embeddings = (
        e["id"]
        for e in entries
        if "parent" not in e
        and "embeddings" in e["capabilities"]
        and (scope is None or e["id"] in scope)
    )
    meta = entry.get("meta") or {}
    return ClientTarget(
        address.url,
        entry["id"],
        context=entry.get("context_size") or meta.get("n_ctx"),
        vision="vision" in entry["capabilities"],
        embeddings=next(embeddings, None) if setup.embeds else None,
        ca=address.ca,
    )


def _make_key(
    gateway: Client,
    args: argparse.Namespace,
    named: Iterable[str],
    scope: Sequence[str] | None,
) -> dict[str, Any] | None:
    """Return the new key as ``POST /admin/keys`` answers it; ``None`` if none was asked for."""
    if args.create_key is None:
        return None
    if scope is not None and (missing := [name for name in named if name not in scope]):
        raise BadRequest(f"--models lacks {', '.join(missing)}, which the lines name")
    fields = {
        "name": args.create_key or args.client,
        "description": f"for {CLIENTS[args.client].title}",
        "models": list(named if scope is None else scope),
    }
    made: dict[str, Any] = gateway.ask("POST", "/admin/keys", fields)
    return made


def _own_names(entries: Iterable[Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Return the names in models.json, which limit keys, of the names that a client uses."""
    own = {}
    for entry in entries:
        own[entry["id"]] = entry.get("parent") or entry["id"]
        if "parent" not in entry:
            own.update(dict.fromkeys(entry["aliases"], entry["id"]))
    return list(dict.fromkeys(own[name] for name in names))
