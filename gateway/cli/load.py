"""``llm-gateway load`` and ``unload``: load and unload models by hand."""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
from typing import Any, Final
from urllib.parse import quote

from gateway.cli.client import Client
from gateway.cli.parser import explain
from gateway.cli.terminal import clean, say
from gateway.cli.watching import Stage, shown, stage_of, waited_for
from gateway.cli.which_gateway import add_gateway, client_for
from gateway.errors import GatewayError

#: Seconds that a load may take; the gateway's own limits end it sooner.
_LONGEST: Final = 24 * 3600.0
#: Seconds within which the gateway notices that nobody waits any more.
_NOTICED: Final = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of `load`."""
    add_gateway(parser)
    parser.add_argument("model", metavar="NAME[:PERSONALITY]", help="a model, or an alias")
    parser.set_defaults(run=run_load)
    explain(
        parser,
        "Loads a model, makes it the active one, and ends when it is ready. On a "
        "terminal it shows the progress. Ctrl-C ends the wait, and tells whether "
        "the load goes on.",
        examples=["llm-gateway load Qwen3-8B", "llm-gateway load Qwen3-8B:pirate"],
    )


def run_load(args: argparse.Namespace) -> int:
    """Return 0 when the model is ready, 1 if it failed (stderr says why), 130 after Ctrl-C."""
    client, name = client_for(args), args.model

    def read(event: dict[str, Any]) -> Stage | None:
        # Once it is ready, there is nothing to wait for.
        return stage_of(event, name) if waited_for(event, name) is not None else None

    try:
        with shown(client, name, "/status", read, lines=True):
            said = client.ask("POST", "/loadModel", {"model": name}, timeout=_LONGEST)
    except KeyboardInterrupt:
        say(_what_becomes_of(client, name))
        return 130
    print(clean(said["message"]))
    return 0


def _what_becomes_of(client: Client, wanted: str) -> str:
    """Return a sentence on whether a load goes on that this command no longer waits for."""
    last: dict[str, Any] | None = None
    name = clean(wanted)
    with contextlib.suppress(GatewayError), client.stream("GET", "/status") as stream:
        timer = threading.Timer(_NOTICED, stream.close)
        timer.start()
        with contextlib.suppress(ValueError):
            for event in stream:
                last = json.loads(event)
                found = waited_for(last, wanted)
                if found is None or found["stage"] == "starting":
                    break
        timer.cancel()
    if last is None:
        return f"whether {name} is loaded now isn't known: the gateway doesn't say"
    found = waited_for(last, wanted)
    if found is None:
        if {wanted, wanted.rpartition(":")[0]} & set(last["models"]):
            return f"{name} is loaded, but was not made the active model"
        return f"{name} is not loaded: it had not begun, and is given up"
    name = clean(found["model"])
    if found["stage"] != "starting":
        return f"others wait for {name}, so it will be loaded"
    return (
        f"{name} goes on loading, but will not be the active model; "
        f"`llm-gateway unload {name}` ends it"
    )


def add_unload_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of `unload`."""
    add_gateway(parser)
    parser.add_argument("model", metavar="NAME", nargs="?", help="default: the active model")
    parser.set_defaults(run=run_unload)
    explain(
        parser,
        "Unloads a model as soon as its running requests have ended, and ends "
        "when its process is gone. Ctrl-C only ends the wait.",
        examples=["llm-gateway unload", "llm-gateway unload Qwen3-8B"],
    )


def run_unload(args: argparse.Namespace) -> int:
    """Return 0 when the process is gone, 1 if it failed (stderr says why), 130 after Ctrl-C."""
    client, name = client_for(args), args.model
    query = f"?model={quote(name, safe='')}" if name else ""

    def read(status: dict[str, Any]) -> Stage | None:
        wanted = name or (status["active"] or {}).get("model")
        for model in status["models"]:
            if model["name"] == wanted:
                return _leaving(model)
        return None

    path = "/admin/status?follow=true&every=0.5"
    before = client.ask("GET", "/admin/status")
    try:
        with shown(client, name or "the active model", path, read, lines=True):
            client.ask("POST", f"/unloadModel{query}", timeout=_LONGEST)
    except KeyboardInterrupt:
        what = clean(name or "the active model")
        say(f"{what} will still be unloaded, when its requests have ended")
        return 130
    after = client.ask("GET", "/admin/status")
    print(clean(_what_became(name, before, after)))
    return 0


def _what_became(name: str | None, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return what an unload has done, by the states of the models before and after it."""
    active = (before["active"] or {}).get("model")
    loaded, still = _loaded(before), _loaded(after)
    if name is None:
        name = active or (loaded[0] if len(loaded) == 1 else None)
        if name is None and loaded:
            return f"Nothing unloaded: none is the active model. Loaded: {', '.join(loaded)}."
        if name is None:
            return "No model is loaded."
    elif name not in {model["name"] for model in before["models"]}:
        # An alias, or a model with its personality: it is known by what is gone.
        gone = [one for one in loaded if one not in still]
        name = gone[0] if len(gone) == 1 else name
    if name in loaded:
        return f"Model {name} unloaded."
    choice = "; it is no longer the active model" if name == active else ""
    return f"Model {name} was not loaded{choice}."


def _loaded(status: dict[str, Any]) -> list[str]:
    """Return the models that have a process, or are about to."""
    return [
        model["name"]
        for model in status["models"]
        if model["state"] not in ("stopped", "failed", "backoff")
    ]


def _leaving(model: dict[str, Any]) -> Stage | None:
    if model["state"] == "stopping":
        return Stage("its process ends")
    if model["state"] in ("ready", "draining") and (running := model["in_flight"]):
        return Stage(f"waiting for {running} request{'s' if running > 1 else ''} to end")
    return None
