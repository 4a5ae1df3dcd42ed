"""``llm-gateway logs``: the output of llama-servers, of one model or of all that were loaded."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import queue
import sys
import threading
from typing import Any, Final
from urllib.parse import quote

from gateway.cli.client import Client
from gateway.cli.parser import explain
from gateway.cli.terminal import clean, has_colours
from gateway.cli.which_gateway import add_gateway, client_for
from gateway.errors import BadRequest, GatewayError

#: Colours of models' names, where lines of several stand below one another (ECMA-48, SGR).
_COLOURS: Final = (36, 33, 35, 32, 34, 31)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options of the command."""
    add_gateway(parser)
    parser.add_argument(
        "model",
        metavar="NAME",
        nargs="?",
        help="default: every model that has been loaded; each line begins with its name",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="follow the output")
    parser.add_argument(
        *("-n", "--lines"),
        type=int,
        metavar="N",
        default=50,
        help="the last N lines of each (default: 50; at most 1000 are kept)",
    )
    parser.add_argument(
        "--json", action="store_true", help="the same for programs; with -f an object a line"
    )
    parser.set_defaults(run=run)
    explain(
        parser,
        "Shows the last output of a model's llama-server and, with -f, follows it"
        " through all restarts. Lines about a request end with its id. Control characters"
        " are written as escapes.",
        examples=["llm-gateway logs", "llm-gateway logs Qwen3-8B -f -n 200"],
        fields={
            "[].model": "the model's name; with -f the objects come without the list around them",
            "[].line": "what its llama-server wrote, with ` | request ID` where that is known",
        },
        exits={0: "done; also after Ctrl-C, with -f"},
    )


def run(args: argparse.Namespace) -> int:
    """Return 0, also after Ctrl-C while it follows."""
    if args.lines < 0:
        raise BadRequest("-n must be 0 or more")
    client = client_for(args)
    if args.model is not None:
        names = [args.model]
    else:
        names = [model["name"] for model in _models(client) if _has_log(model)]
        if not names and not args.follow and not args.json:
            print("no model has been loaded since the gateway started", file=sys.stderr)
    printer: _Printer | _JsonLines = (
        _JsonLines() if args.json else _Printer(names, named=args.model is None)
    )
    known = {}
    written = []
    for name in names:
        lines = client.ask("GET", f"{_path(name)}?follow=false")["lines"]
        known[name] = len(lines)
        for line in lines[max(len(lines) - args.lines, 0) :]:
            if args.json and not args.follow:
                written.append({"model": name, "line": line})
            else:
                printer.line(name, line)
    if args.json and not args.follow:
        print(json.dumps(written, indent=2))
    if args.follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(client, known, printer, all_of_them=args.model is None)
    return 0


def _path(name: str) -> str:
    return f"/admin/models/{quote(name, safe='')}/log"


def _models(client: Client) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = client.ask("GET", "/admin/models")["models"]
    return models


def _has_log(model: dict[str, Any]) -> bool:
    return bool(model["starts"] or model["pid"]) and not model["servers"]


class _Printer:
    """Writes lines; if ``named``, with the name of their model in front."""

    def __init__(self, names: list[str], *, named: bool) -> None:
        self._named = named
        self._width = max((len(clean(name)) for name in names), default=0)
        self._colours = itertools.cycle(_COLOURS)
        self._colour: dict[str, int] = {}
        self._coloured = named and has_colours(sys.stdout)

    def line(self, name: str, line: str) -> None:
        """Write one line at once."""
        front = ""
        if self._named:
            front = f"{clean(name).ljust(self._width)} | "
            if self._coloured:
                if name not in self._colour:
                    self._colour[name] = next(self._colours)
                front = f"\x1b[{self._colour[name]}m{front}\x1b[0m"
        print(front + clean(line, lines=True), flush=True)


class _JsonLines:
    """Writes lines as JSON, one object each."""

    def line(self, name: str, line: str) -> None:
        """Write one line at once."""
        print(json.dumps({"model": name, "line": line}), flush=True)


def _follow(
    client: Client, known: dict[str, int], printer: _Printer | _JsonLines, *, all_of_them: bool
) -> None:
    """Write the lines of each model as they arrive. Raises ``GatewayError`` if the gateway
    goes away.
    """
    news: queue.SimpleQueue[tuple[str, str] | GatewayError] = queue.SimpleQueue()

    def read(name: str, seen: int) -> None:
        try:
            for line in client.events("GET", _path(name)):
                # The stream begins with what there is, too.
                if seen:
                    seen -= 1
                else:
                    news.put((name, line))
        except GatewayError as error:
            news.put(error)
        else:
            news.put(GatewayError("the gateway has ended the log"))

    def begin(name: str, seen: int) -> None:
        threading.Thread(target=read, args=(name, seen), daemon=True).start()

    def look_for_more() -> None:
        """Follow models that are loaded from now on, too."""
        try:
            for event in client.events("GET", "/status"):
                status = json.loads(event)
                loading = [one["model"] for one in status["waiting"] if one["stage"] == "starting"]
                for name in (*status["models"], *loading):
                    if name not in known:
                        known[name] = 0
                        begin(name, 0)
        except GatewayError as error:
            news.put(error)

    for name, seen in known.copy().items():
        begin(name, seen)
    if all_of_them:
        threading.Thread(target=look_for_more, daemon=True).start()
    while True:
        match news.get():
            case GatewayError() as error:
                raise error
            case name, line:
                printer.line(name, line)
