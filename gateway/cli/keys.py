"""``llm-gateway keys``: make, list, revoke and import API keys.

It works on the database itself, so it needs no running gateway, but notifies one that runs. For a
gateway elsewhere it asks that gateway: see :mod:`gateway.cli.keys_remote`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.key_options import FIELDS, add_key_options, body_of
from gateway.cli.keys_here import no_database, say, settings_of, tell_gateway, with_ring
from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.cli.table import print_table
from gateway.cli.which_gateway import add_gateway, remote_client
from gateway.errors import NotFound
from gateway.library import read_catalog
from gateway.plurals import counted
from gateway.problems import InvalidFiles

if TYPE_CHECKING:
    from gateway.access.keys import KeyRing
    from gateway.access.store import KeyRecord
    from gateway.config.settings import Settings


_COLUMNS = (
    *("ID", "NAME", "ADMIN", "STATE", "CREATED", "EXPIRES", "LAST ACTIVITY"),
    *("LIMITS", "MODELS", "PERSONALITIES"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options."""
    common = argparse.ArgumentParser(add_help=False)
    add_gateway(common)
    explain(
        parser,
        "Makes, lists, revokes and imports API keys.",
        examples=["llm-gateway keys create laptop"],
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = actions.add_parser(
        "create", parents=[common], help="make a key; it is the last line on stdout, shown once"
    )
    add_key_options(create)
    create.add_argument("--json", action="store_true", help="print all of it, as JSON")
    create.set_defaults(run=run_create)
    explain(
        create,
        "Makes a key. It is the last line on stdout, and shown only this once.",
        examples=["llm-gateway keys create laptop --expires 90d --models qwen,tiny"],
        fields={"key": "the key's text, shown only here", **FIELDS},
    )

    listing = actions.add_parser("list", parents=[common], help="list keys, never their text")
    listing.add_argument("--json", action="store_true", help="the same for programs")
    listing.set_defaults(run=run_list)
    explain(
        listing,
        "Lists all keys, also revoked ones, without their text.",
        examples=["llm-gateway keys list"],
        fields={f"[].{name}": what for name, what in FIELDS.items()},
    )

    revoke = actions.add_parser("revoke", parents=[common], help="end a key, at once and for good")
    revoke.add_argument("id", metavar="ID", help="like k_ab12cd34, as `keys list` shows it")
    revoke.add_argument("--force", action="store_true", help="even the last admin key")
    revoke.set_defaults(run=run_revoke)
    explain(
        revoke,
        "Revokes a key, at once and for good.",
        examples=["llm-gateway keys revoke k_ab12cd34"],
        exits={1: "there is no such key, or a running gateway could not be told"},
    )

    importing = actions.add_parser("import", help="take over the old system's data/authKeys.json")
    add_config(importing)
    importing.add_argument("file", metavar="FILE", type=Path, help="the old authKeys.json")
    importing.add_argument(
        "--no-admin", action="store_true", help="none of them may unload models or manage keys"
    )
    importing.set_defaults(run=run_import)
    explain(
        importing,
        "Imports the keys of the old system: all that are in the file, or none.",
        examples=["llm-gateway keys import ~/LLM-API/data/authKeys.json"],
    )


def run_create(args: argparse.Namespace) -> int:
    """Make a key. Only the key goes to stdout, so that scripts can read it."""
    from gateway.access.key_schema import fields_in, shown

    try:
        body = body_of(args)
    except ValueError as error:
        return _fail(f"--expires {error}")
    fields = fields_in(body)
    if (client := remote_client(args)) is not None:
        from gateway.cli.keys_remote import create as create_remote

        return create_remote(client, body, as_json=args.json)
    settings = settings_of(args)

    async def create(ring: KeyRing) -> tuple[list[KeyRecord], KeyRecord, str]:
        same = [record for record in ring.records if record.name == args.name]
        return same, *await ring.create(**fields)

    same, record, key = with_ring(settings, create)
    _warn_of_names(settings, record)
    _warn_of_same_name(same)
    ends = f", expires {_when(record.expires)}" if record.expires else ""
    kind = "admin key" if record.admin else "key"
    say(f"{kind} {record.id} for {record.name}{ends}, in {settings.store_shown}")
    say("it is shown only this once:")
    _print_key({"key": key, **shown(record)}, as_json=args.json)
    tell_gateway(settings)
    return 0


def _print_key(made: Mapping[str, Any], *, as_json: bool) -> None:
    print(json.dumps(made, indent=2, ensure_ascii=False) if as_json else made["key"], flush=True)


def _warn_of_names(settings: Settings, record: KeyRecord) -> None:
    """Warn of models and personalities in a key's limits that don't exist (yet)."""
    from gateway.access.key_names import unknown_names

    if not (record.models or record.personalities or record.default_personality):
        return
    try:
        catalog, _ = read_catalog(settings.models_file)
    except InvalidFiles as error:
        say(f"warning: names of models and personalities were not looked up: {error}")
        return
    for unknown in unknown_names(
        catalog,
        models=record.models or (),
        personalities=record.personalities or (),
        default=record.default_personality,
    ):
        say(f"warning: {unknown.message}")


def _warn_of_same_name(same: Iterable[KeyRecord]) -> None:
    from gateway.access.key_schema import state_of

    now = datetime.now(UTC)
    if working := [record.id for record in same if state_of(record, now) == "ok"]:
        say(
            f"warning: there is another key of that name, {', '.join(working)}; "
            "`llm-gateway keys revoke ID` ends one"
        )


def run_list(args: argparse.Namespace) -> int:
    """Print a table of all keys, without the keys themselves."""

    if (client := remote_client(args)) is not None:
        from gateway.cli.keys_remote import list_keys

        keys, where = list_keys(client), f"at {client.name}"
    else:
        keys, where = _keys_here(settings := settings_of(args)), f"in {settings.store_shown}"
    if args.json:
        print(json.dumps(keys, indent=2, ensure_ascii=False))
        return 0
    rows = [
        (
            key["id"],
            key["name"],
            "yes" if key["admin"] else "no",
            key["state"],
            _minute(key["created"]),
            _minute(key["expires"]),
            _minute(key["lastActivity"]),
            ", ".join(f"{name} {limit}" for name, limit in (key["limits"] or {}).items()) or "-",
            _allowed(key["models"]),
            _allowed(key["personalities"]),
        )
        for key in keys
    ]
    print_table(_COLUMNS, rows)
    say(f"{len(rows) or 'no'} key{'s' if len(rows) != 1 else ''} {where}")
    return 0


def _keys_here(settings: Settings) -> list[dict[str, Any]]:
    from gateway.access.key_schema import shown

    if no_database(settings):
        return []

    async def records(ring: KeyRing) -> tuple[KeyRecord, ...]:
        return ring.records

    return [shown(record) for record in with_ring(settings, records)]


def run_revoke(args: argparse.Namespace) -> int:
    """Revoke a key. Return 1 also if a running gateway could not be told, and still accepts it."""
    if (client := remote_client(args)) is not None:
        from gateway.cli.keys_remote import revoke

        return revoke(client, args)
    settings = settings_of(args)
    try:
        if no_database(settings):
            raise NotFound("there is no key yet")
        record = with_ring(settings, lambda ring: ring.revoke(args.id, force=args.force))
    except NotFound as error:
        return _fail(f"{error.message} (looked for in {settings.store_shown})")
    print(f"revoked {record.id} ({record.name})")
    return 0 if tell_gateway(settings) else 1


def run_import(args: argparse.Namespace) -> int:
    """Import old keys: all that are in the file, or none."""
    settings = settings_of(args)
    report = with_ring(
        settings, lambda ring: ring.import_legacy(args.file, admin=not args.no_admin)
    )
    for text in report.warnings:
        say(f"warning: {text}")
    for text in report.skipped:
        say(f"skipped: {text}")
    if report.imported:
        rows = [(key.id, key.name, "yes" if key.admin else "no") for key in report.imported]
        print_table(("ID", "NAME", "ADMIN"), rows)
    admins = sum(key.admin for key in report.imported)
    count = len(report.imported)
    print(f"imported {counted(count, 'key')}, {admins} of them admin keys")
    say(f"they are in {settings.store_shown}")
    if admins:
        say(
            "they may unload models, as in the old system, and manage keys; `--no-admin` imports "
            "keys that may only load and chat"
        )
    if report.imported:
        say(f"{args.file} still holds the keys as plain text: delete it when all is well")
        tell_gateway(settings)
    return 0


def _minute(time: str | None) -> str:
    """Return a time like ``2030-12-31T23:59:59Z`` as a table shows it."""
    return "-" if time is None else f"{time[:10]} {time[11:16]}Z"


def _allowed(names: Sequence[str] | None) -> str:
    return "all" if names is None else ", ".join(names) or "none"


def _when(time: datetime | None) -> str:
    return "-" if time is None else time.strftime("%Y-%m-%d %H:%MZ")


def _fail(text: str) -> int:
    say(f"error: {text}")
    return 1
