"""``llm-gateway pull`` by a gateway, to its machine or to another of its cluster: the progress is
shown here.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from typing import Any, Final
from urllib.parse import urlencode

from gateway.cli.client import Client
from gateway.cli.pull_progress import shown
from gateway.cli.pull_table import ask
from gateway.cli.terminal import clean
from gateway.errors import BadRequest
from gateway.models.fetching import PullProgress
from gateway.models.hub import Reference

#: Seconds for the gateway to ask the hub.
_PATIENCE: Final = 120.0
#: A message of gateway.backends.pull_process.
_AGAIN: Final = re.compile(r"(.*); again in (\d+) s", re.DOTALL)


def run(
    client: Client, args: argparse.Namespace, reference: Reference, revision: str | None
) -> int:
    """Return 0 if the model is there; 1 if it failed; 2 if there is a choice to make; 130
    after Ctrl-C.
    """
    model = str(reference)
    if args.json or (reference.quantisation is None and not args.yes):
        offer = _offer(client, reference.repository, revision, args.node)
        if args.json:
            print(json.dumps(offer, indent=2))
            return 0
        name = ask(offer, lambda answer: _taken(offer, answer))
        if name is None:
            return 2
        model = f"{reference.repository}:{name}"
    wanted = {
        "model": model,
        "entry": not args.no_entry,
        "replace": args.replace,
        **({"revision": revision} if revision is not None else {}),
        **({"name": args.name} if args.name is not None else {}),
        **({"node": args.node} if args.node is not None else {}),
    }
    begun = client.ask("POST", "/admin/pulls", wanted, timeout=_PATIENCE)
    here = "this machine" if client.url is None else f"the machine of {client.name}"
    print(f"{model}, onto {begun['node'] or here}")
    try:
        pull = _followed(client, begun["id"])
    except KeyboardInterrupt:
        print(
            f"\n{client.name} goes on fetching it: run the same again to look on",
            file=sys.stderr,
        )
        return 130
    return _told(client, pull)


def _offer(
    client: Client, repository: str, revision: str | None, node: str | None
) -> dict[str, Any]:
    asked = {"model": repository, "revision": revision, "node": node}
    query = {name: value for name, value in asked.items() if value is not None}
    offer: dict[str, Any] = client.ask("GET", f"/admin/hub?{urlencode(query)}", timeout=_PATIENCE)
    return offer


def _taken(offer: dict[str, Any], answer: str | int) -> str:
    if isinstance(answer, str):
        return answer  # the gateway says what it means
    one = offer["quantisations"][answer]
    if one["missing"]:
        raise BadRequest(f"{one['name']} has parts missing: choose another")
    name: str = one["name"]
    return name


def _followed(client: Client, pull_id: str) -> dict[str, Any] | None:
    """Return the pull once it has ended; ``None`` if somebody removed it from the list."""
    with shown(sys.stderr) as told:
        for event in client.events("GET", "/admin/pulls"):
            pulls = json.loads(event)["pulls"]
            pull: dict[str, Any] | None = next((p for p in pulls if p["id"] == pull_id), None)
            if pull is None or pull["ended"] is not None:
                return pull
            told(_progress(pull))
    raise BadRequest(f"{client.name} doesn't say any more how it goes: run the same again")


def _progress(pull: dict[str, Any]) -> PullProgress:
    note, wait = pull["note"], 0.0
    if note is not None and (found := _AGAIN.fullmatch(note)) is not None:
        note, wait = found[1], float(found[2])
    done = pull["bytes"]
    return PullProgress(
        pull["stage"], pull["file"] or "", done, pull["total"] or 0, done, note, wait
    )


def _told(client: Client, pull: dict[str, Any] | None) -> int:
    """Report how the pull ended."""
    if pull is None or pull["stage"] == "ended":
        print(f"error: it was ended, at {client.name}", file=sys.stderr)
        return 1
    if pull["error"] is not None:
        print(f"error: {clean(pull['error']['message'])}", file=sys.stderr)
        return 1
    if pull["name"] is None:
        print(f"done: it is in llm_storage of {pull['node'] or client.name}")
        return 0
    print(
        f"done: it is the model {pull['name']} of {client.name}\n"
        f"Try it: llm-gateway chat {shlex.quote(pull['name'])}"
        + (f" --url {client.url}" if client.url is not None else "")
    )
    return 0
