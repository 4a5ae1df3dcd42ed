"""``llm-gateway keys``: make, list, revoke and import API keys.

It works on the database itself, so it needs no running gateway; one that runs is told.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.cli.control import ControlError, notify_running_gateway
from gateway.cli.options import add_config
from gateway.cli.table import print_table
from gateway.errors import NotFound
from gateway.library import read_catalog
from gateway.runtime import running_elsewhere
from gateway.validation import InvalidFiles

if TYPE_CHECKING:
    from gateway.api.keys import KeyRing
    from gateway.config import Settings
    from gateway.store import KeyRecord

T = TypeVar("T")
_PATIENCE = 1.0  # seconds

_COLUMNS = (
    *("ID", "NAME", "ADMIN", "STATE", "CREATED", "EXPIRES", "LAST ACTIVITY"),
    *("LIMITS", "MODELS", "PERSONALITIES"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    common = argparse.ArgumentParser(add_help=False)
    add_config(common)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = actions.add_parser(
        "create", parents=[common], help="make a key; it is the last line on stdout, shown once"
    )
    create.add_argument("name", metavar="NAME", help="who or what it is for")
    create.add_argument(
        "description", metavar="DESCRIPTION", nargs="?", default="", help="more about it"
    )
    create.add_argument(
        "--admin", action="store_true", help="may unload models, manage keys and see everything"
    )
    create.add_argument("--expires", metavar="TIME", help="ends after this time, like 30d or 12h")
    create.add_argument("--models", metavar="A,B", help="may use only these models")
    create.add_argument(
        "--personalities", metavar="A,B", help="may use only these personalities, or none"
    )
    create.add_argument(
        "--default-personality",
        metavar="NAME",
        help="of every request that names none and whose model has it",
    )
    limits = create.add_argument_group("limits", "over one of them, a request is answered 429")
    limits.add_argument("--rpm", metavar="N", type=int, help="requests per minute")
    limits.add_argument("--tpm", metavar="N", type=int, help="tokens per minute, in and out")
    limits.add_argument("--tpd", metavar="N", type=int, help="tokens per day (UTC), in and out")
    limits.add_argument("--concurrency", metavar="N", type=int, help="requests at once")
    create.set_defaults(run=run_create)

    listing = actions.add_parser("list", parents=[common], help="list keys, never their text")
    listing.set_defaults(run=run_list)

    revoke = actions.add_parser("revoke", parents=[common], help="end a key, at once and for good")
    revoke.add_argument("id", metavar="ID", help="like k_ab12cd34, as `keys list` shows it")
    revoke.add_argument("--force", action="store_true", help="even the last admin key")
    revoke.set_defaults(run=run_revoke)

    importing = actions.add_parser(
        "import", parents=[common], help="take over the old system's data/authKeys.json"
    )
    importing.add_argument("file", metavar="FILE", type=Path, help="the old authKeys.json")
    importing.add_argument(
        "--no-admin", action="store_true", help="none of them may unload models or manage keys"
    )
    importing.set_defaults(run=run_import)


def run_create(args: argparse.Namespace) -> int:
    """Make a key. On stdout stands nothing but the key, so that scripts can take it."""
    settings = _settings(args)
    expires = None
    if args.expires is not None:
        from gateway.api.key_fields import time_after
        from gateway.validation import parse_duration

        try:
            expires = time_after(parse_duration(args.expires))
        except ValueError as error:
            return _fail(f"--expires {error}")

    async def create(ring: KeyRing) -> tuple[list[KeyRecord], KeyRecord, str]:
        same = [record for record in ring.records if record.name == args.name]
        made = await ring.create(
            args.name,
            args.description,
            admin=args.admin,
            expires=expires,
            models=_listed(args.models),
            personalities=_listed(args.personalities),
            default_personality=args.default_personality,
            limits={name: getattr(args, name) for name in ("rpm", "tpm", "tpd", "concurrency")},
        )
        return same, *made

    same, record, key = _with_ring(settings, create)
    _warn_of_names(settings, record)
    _warn_of_same_name(same)
    ends = f", expires {_when(record.expires)}" if record.expires else ""
    kind = "admin key" if record.admin else "key"
    _say(f"{kind} {record.id} for {record.name}{ends}, in {settings.database}")
    _say("it is shown only this once:")
    print(key, flush=True)
    _tell_gateway(settings)
    return 0


def _warn_of_names(settings: Settings, record: KeyRecord) -> None:
    """Say what the key is limited to that isn't there. It may come: models.json is edited later."""
    from gateway.api.key_names import unknown_names

    if not (record.models or record.personalities or record.default_personality):
        return
    try:
        catalog, _ = read_catalog(settings.models_file)
    except InvalidFiles as error:
        _say(f"warning: names of models and personalities were not looked up: {error}")
        return
    for unknown in unknown_names(
        catalog,
        models=record.models or (),
        personalities=record.personalities or (),
        default=record.default_personality,
    ):
        _say(f"warning: {unknown.message}")


def _warn_of_same_name(same: Iterable[KeyRecord]) -> None:
    from gateway.api.key_fields import state_of

    now = datetime.now(UTC)
    if working := [record.id for record in same if state_of(record, now) == "ok"]:
        _say(
            f"warning: there is another key of that name, {', '.join(working)}; "
            "`llm-gateway keys revoke ID` ends one"
        )


def run_list(args: argparse.Namespace) -> int:
    """A table of all keys, by what is public of them."""

    async def records(ring: KeyRing) -> tuple[KeyRecord, ...]:
        return ring.records

    from gateway.api.key_fields import state_of

    settings = _settings(args)
    now = datetime.now(UTC)
    rows = [
        (
            record.id,
            record.name,
            "yes" if record.admin else "no",
            state_of(record, now),
            _when(record.created),
            _when(record.expires),
            _when(record.last_activity),
            _limits(record),
            _allowed(record.models),
            _allowed(record.personalities),
        )
        for record in _with_ring(settings, records)
    ]
    print_table(_COLUMNS, rows)
    _say(f"{len(rows) or 'no'} key{'s' if len(rows) != 1 else ''} in {settings.database}")
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """End a key. 1 also if a running gateway could not be told, and so goes on accepting it."""
    settings = _settings(args)
    try:
        record = _with_ring(settings, lambda ring: ring.revoke(args.id, force=args.force))
    except NotFound as error:
        return _fail(f"{error.message} (looked for in {settings.database})")
    print(f"revoked {record.id} ({record.name})")
    return 0 if _tell_gateway(settings) else 1


def run_import(args: argparse.Namespace) -> int:
    """Take over old keys: all that the file holds, or none."""
    settings = _settings(args)
    report = _with_ring(
        settings, lambda ring: ring.import_legacy(args.file, admin=not args.no_admin)
    )
    for text in report.warnings:
        _say(f"warning: {text}")
    for text in report.skipped:
        _say(f"skipped: {text}")
    if report.imported:
        rows = [(key.id, key.name, "yes" if key.admin else "no") for key in report.imported]
        print_table(("ID", "NAME", "ADMIN"), rows)
    admins = sum(key.admin for key in report.imported)
    count = len(report.imported)
    print(f"imported {count} key{'s' if count != 1 else ''}, {admins} of them admin keys")
    _say(f"they are in {settings.database}")
    if admins:
        _say(
            "they may unload models, as in the old system, and manage keys; `--no-admin` imports "
            "keys that may only load and chat"
        )
    if report.imported:
        _say(f"{args.file} still holds the keys as plain text: delete it when all is well")
        _tell_gateway(settings)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from gateway.cli.serve import demo_if_bare
    from gateway.config import load_settings

    return demo_if_bare(load_settings(args.config)).settings


def _with_ring(settings: Settings, work: Callable[[KeyRing], Awaitable[T]]) -> T:
    from gateway.api.keys import KeyRing
    from gateway.store import Store

    async def run() -> T:
        ring = await KeyRing.open(await Store.open(settings.database))
        try:
            return await work(ring)
        finally:
            await ring.close()

    return asyncio.run(run())


def _tell_gateway(settings: Settings) -> bool:
    """Whether the change holds now, as far as there's a gateway. Says how it stands."""
    try:
        if notify_running_gateway(settings):
            _say("the running gateway knows")
            return True
    except ControlError as error:
        _say(f"warning: saved, but {error}; restart it")
        return False
    folder = settings.data_dir
    _say(f"no gateway is running on {folder}; it takes effect when one starts")
    others = [str(other) for other in running_elsewhere(folder)]
    where = f"runs on {' and on '.join(others[:3])}" if others else None
    if where is None and (address := _who_answers(settings)) is not None:
        where = f"answers at {address}, on a data_dir of its own"
    if where is not None:
        _say(
            f"warning: a gateway {where}: it has other keys, and doesn't know of this. If it was "
            "meant, use its configuration: --config FILE"
        )
    return True


def _who_answers(settings: Settings) -> str | None:
    """The address of ``settings``, if a gateway answers there, though none has its data folder."""
    import http.client
    import ssl

    host = "127.0.0.1" if settings.host in ("0.0.0.0", "localhost") else settings.host  # noqa: S104
    host = "::1" if host == "::" else host
    connection: http.client.HTTPConnection
    if settings.tls.enabled:
        # Only whether somebody is there: nothing is told to them.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(
            host, settings.port, timeout=_PATIENCE, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, settings.port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/ping", headers={"Host": "localhost"})
        if connection.getresponse().read(5) != b"pong":
            return None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls.enabled else 'http'}://{shown}:{settings.port}"


def _listed(text: str | None) -> list[str] | None:
    """The names in ``--models a,b``."""
    return None if text is None else [name for part in text.split(",") if (name := part.strip())]


def _allowed(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ", ".join(names) or "none"


def _limits(record: KeyRecord) -> str:
    return ", ".join(f"{name} {limit}" for name, limit in (record.limits or {}).items()) or "-"


def _when(time: datetime | None) -> str:
    return "-" if time is None else time.strftime("%Y-%m-%d %H:%MZ")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(text: str) -> int:
    _say(f"error: {text}")
    return 1
