"""``llm-gateway cache``: what is saved of conversations, and removing it.

A running gateway is asked. Where none runs, or where it doesn't save any, what an earlier one has
left is looked at in the folder itself, which is locked meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from gateway.cli.client import NoGateway
from gateway.cli.keys_here import no_database, settings_of, with_ring
from gateway.cli.options import add_json
from gateway.cli.parser import explain
from gateway.cli.table import print_table
from gateway.cli.terminal import clean
from gateway.cli.which_gateway import add_gateway, client_for
from gateway.errors import BadRequest, GatewayError
from gateway.plurals import counted

if TYPE_CHECKING:
    from gateway.access.keys import KeyRing
    from gateway.cli.client import Client
    from gateway.config.settings import Settings

_COLUMNS = ("SAVED", "SIZE", "DISK", "SLOT", "TOKENS", "SECONDS")
#: Seconds that a gateway may take to remove files.
_LONGEST = 120.0
_ONE = {
    "conversations": "on disk",
    "size": "of their files, bytes",
    "hits": "requests for which one was read back from disk, since the gateway started",
    "tokens": "that had not to be computed for these",
    "seconds": "that this would have taken, about",
    "slot_hits": "requests whose conversation was still in a slot, since the gateway started",
    "slot_tokens": "that had not to be computed for these",
    "slot_seconds": "that this would have taken, about",
    "bytes_read": "of files, since the gateway started",
    "bytes_written": "of files, since the gateway started",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, and the command below it."""
    add_gateway(parser)
    add_json(parser)
    parser.set_defaults(run=run)
    explain(
        parser,
        "Shows what is saved of conversations (`cache` in gateway.yaml) by model and by key, and "
        "what has been spared since the gateway started. DISK and SLOT: requests whose "
        "conversation was read back from disk, or still in a slot; TOKENS and SECONDS: what these "
        "had not to compute. If none runs: what is in the folder.",
        examples=["llm-gateway cache", "llm-gateway cache clear --model Qwen3-8B"],
        fields={
            "enabled": "whether conversations are saved",
            "folder": "where, or null",
            "problem": "why the folder isn't used, or null",
            "conversations": "number of all of them in the folder",
            "size": "of their files, bytes",
            "budget": "bytes that they may have",
            "nodes[].node": "name of a node of the cluster, with conversations on its disk",
            "nodes[].problem": "why nothing is saved there now, or null",
            "nodes[].conversations": "number of those there",
            "nodes[].size": "of their files, bytes",
            "nodes[].budget": "bytes that they may have, 0 if nobody knows",
            "models[].model": "name of the model",
            **{f"models[].{name}": what for name, what in _ONE.items()},
            "models[].nodes": "how many of them are on the disk of each node that has some",
            "models[].switched_off": "why its conversations are not saved any more, or null",
            "models[].not_private": "why a key may notice what another one asked, or null",
            "keys[].key": "id of the key",
            "keys[].name": "its name, or null for one that is unknown",
            **{f"keys[].{name}": what for name, what in _ONE.items()},
            "openings[].model": "name of the model; saved is what its conversations begin with",
            "openings[].key": "id of the key whose it is, or * for one that all keys share",
            "openings[].kind": "personality, or tools",
            "openings[].size": "of its file, bytes",
            "openings[].tokens": "in it",
            "openings[].used": "when it was used last, in seconds since 1970",
        },
    )
    actions = parser.add_subparsers(metavar="[ACTION]", title="actions")
    clearing = actions.add_parser("clear", help="remove saved conversations")
    add_gateway(clearing, again=True)
    clearing.add_argument("--of-key", metavar="ID", help="of the key with this id only")
    clearing.add_argument("--model", metavar="NAME", help="of this model only")
    clearing.add_argument("--yes", action="store_true", help="don't ask")
    clearing.set_defaults(run=run_clear)
    explain(
        clearing,
        "Removes saved conversations, for good: all, or those of a key or a model. What is in the "
        "slots of loaded models stays there, and is not saved unless somebody goes on with it. If "
        "no gateway runs, they are removed from the folder; nodes remove theirs when one does.",
        examples=[
            "llm-gateway cache clear",
            "llm-gateway cache clear --of-key k_ab12cd34 --model Qwen3-8B --yes",
        ],
    )


def run(args: argparse.Namespace) -> int:
    """Print what is saved: all of it, by model, and by key."""
    report = _report(args)
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return 0
    for line in _about(report):
        print(clean(line))
    if report["models"]:
        print()
        states = [(one["model"], *_counted(one), _state(one)) for one in report["models"]]
        print_table(("MODEL", *_COLUMNS, "STATE"), states)
    if report["keys"]:
        print()
        rows = [(one["key"], one["name"] or "-", *_counted(one)) for one in report["keys"]]
        print_table(("KEY", "NAME", *_COLUMNS), rows)
    if openings := report.get("openings"):
        print()
        lines = [_opening(one) for one in openings]
        print_table(("MODEL", "KEY", "BEGINS WITH", "SIZE", "TOKENS", "USED"), lines)
    return 0


def run_clear(args: argparse.Namespace) -> int:
    """Return 0 if they were removed, or were not to be; 1 if that failed (stderr says why)."""
    client = _gateway(args)
    if not args.yes:
        if not sys.stdin.isatty():
            raise BadRequest("nothing was removed: --yes removes without a question")
        where = f", at {client.name}" if client is not None else ""
        question = f"Remove {_those(args)}{where} for good? [no] "
        if input(question).strip().lower() not in ("y", "yes"):
            return 0
    removed = _removed_there(client, args) if client is not None else _removed_here(args)
    print(f"removed {counted(removed, 'conversation')}")
    return 0


# --- where they are --------------------------------------------------------------------------


def _gateway(args: argparse.Namespace) -> Client | None:
    """Return a client of the gateway that is meant; ``None``: none that saves any runs here."""
    try:
        client = client_for(args)
    except NoGateway:
        return None
    if client.url is None and not client.ask("GET", "/admin/cache")["enabled"]:
        return None
    return client


def _report(args: argparse.Namespace) -> dict[str, Any]:
    if (client := _gateway(args)) is not None:
        there: dict[str, Any] = client.ask("GET", "/admin/cache")
        return there
    from gateway.conversations.at_rest import look
    from gateway.conversations.counts import shown

    settings = settings_of(args)
    with _told():
        report = look(settings.cache_dir, settings.cache.max_size)
    names = _names(settings) if report.keys else {}
    return shown(report, names.get, enabled=settings.cache.enabled)


def _names(settings: Settings) -> dict[str, str]:
    from gateway.access.principal import WITHOUT_KEY

    if no_database(settings):
        return dict(WITHOUT_KEY)

    async def names(ring: KeyRing) -> dict[str, str]:
        return {record.id: record.name for record in ring.records}

    return {**WITHOUT_KEY, **with_ring(settings, names)}


def _removed_there(client: Client, args: argparse.Namespace) -> int:
    chosen = {"key": args.of_key, "model": args.model}
    query = urlencode({name: value for name, value in chosen.items() if value is not None})
    path = f"/admin/cache?{query}" if query else "/admin/cache"
    removed: int = client.ask("DELETE", path, timeout=_LONGEST)["removed"]
    return removed


def _removed_here(args: argparse.Namespace) -> int:
    from gateway.conversations.at_rest import clear

    with _told():
        return clear(settings_of(args).cache_dir, args.of_key, args.model)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Have a folder that cannot be used end the command with its reason."""
    from gateway.conversations.locked_folder import Unusable

    try:
        yield
    except Unusable as error:
        raise GatewayError(str(error)) from None


# --- what is said ----------------------------------------------------------------------------


def _about(report: dict[str, Any]) -> Iterator[str]:
    if not report["enabled"]:
        yield "Conversations are not saved: `cache: {enabled: true}` in gateway.yaml saves them."
    if report["problem"]:
        yield f"Conversations are not saved: {report['problem']}"
    if report["folder"]:
        saved = f"{counted(report['conversations'], 'conversation')}, {_size(report['size'])}"
        yield f"{report['folder']}: {saved} of at most {_size(report['budget'])}"
    for one in report.get("nodes", ()):  # a gateway that is older doesn't tell
        saved = f"{counted(one['conversations'], 'conversation')}, {_size(one['size'])}"
        most = f" of at most {_size(one['budget'])}" if one["budget"] else ""
        problem = f" ({one['problem']})" if one["problem"] else ""
        yield f"node {one['node']}: {saved}{most}{problem}"
    read, written = (
        sum(one.get(name, 0) for one in report["models"])
        for name in ("bytes_read", "bytes_written")
    )
    if read or written:
        yield f"Written since the start: {_size(written)}, read: {_size(read)}"


def _those(args: argparse.Namespace) -> str:
    whose = [
        *([f"of the key {clean(args.of_key)}"] if args.of_key is not None else ()),
        *([f"of the model {clean(args.model)}"] if args.model is not None else ()),
    ]
    return " ".join(["the saved conversations" if whose else "all saved conversations", *whose])


def _counted(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{one['conversations']:,}",
        _size(one["size"]),
        f"{one['hits']:,}",
        f"{one.get('slot_hits', 0):,}",  # a gateway that is older doesn't tell
        f"{one['tokens'] + one.get('slot_tokens', 0):,}",
        f"{one['seconds'] + one.get('slot_seconds', 0):,.1f}",
    )


def _opening(one: dict[str, Any]) -> tuple[str, ...]:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["used"]))
    return one["model"], one["key"], one["kind"], _size(one["size"]), f"{one['tokens']:,}", used


def _state(one: dict[str, Any]) -> str:
    states = {"switched off": one["switched_off"], "not private": one.get("not_private")}
    return "; ".join(f"{name}: {why}" for name, why in states.items() if why) or "ok"


def _size(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
