"""``llm-gateway status``: what a running gateway is doing."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from gateway.cli.client import Client
from gateway.cli.parser import explain
from gateway.cli.terminal import moves, size_of
from gateway.cli.which_gateway import add_gateway, client_for
from gateway.errors import BadRequest, GatewayError

#: The least and the most seconds between two events: the gateway's own bounds.
_OFTEN, _SELDOM = 0.2, 60.0
#: Seconds after an overdue event before the gateway counts as gone.
_PATIENCE: Final = 10.0
#: Seconds between two attempts to reconnect, and between two redraws without events.
_AGAIN: Final = 1.0
_TICK: Final = 0.25


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_gateway(parser)
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.add_argument("--json", action="store_true", help="the same for programs, once")
    parser.add_argument(
        *("--interval",),
        type=float,
        default=1.0,
        metavar="S",
        help=f"seconds between two looks, from {_OFTEN:g} to {_SELDOM:g} (default: 1)",
    )
    parser.set_defaults(run=run)
    explain(
        parser,
        "Shows what a running gateway is doing: memory, models, requests. On a "
        "terminal it is redrawn until Ctrl-C or q; otherwise it is printed once. "
        "If the gateway goes away, the last state stays on the screen until it is"
        " back.",
        examples=[
            "llm-gateway status",
            "llm-gateway status --once",
            "llm-gateway status --json | jq '.models[] | {name, state}'",
        ],
        exits={0: "done; also after Ctrl-C"},
        fields={
            "version": "of the gateway",
            "uptime": "seconds since it started",
            "ready": "whether it takes requests",
            "urls": "where it listens",
            "in_flight": "requests that are at a model",
            "active": "`model` and `personality` that an administrator chose, or null",
            "models_file_error": "what is wrong with models.json, or null",
            "machine": "its devices with bytes in all and free, or null while that isn't known",
            "nodes": "the machines of the cluster, as in `node list`; none without one",
            "models": "each with its state, queue, memory and last error; `usage` is what it has "
            "done since the gateway started",
            "requests.under_way": "those that have not ended, oldest first; nothing of their text",
            "requests.not_shown": "how many more there are",
            "requests.recent": "the last that have ended, newest last",
        },
    )


def run(args: argparse.Namespace) -> int:
    """Return 0, also after Ctrl-C; 1 if there is no gateway to begin with."""
    if not _OFTEN <= args.interval <= _SELDOM:
        raise BadRequest(f"--interval must be from {_OFTEN:g} to {_SELDOM:g}")
    if args.once or args.json or not moves(sys.stdout):
        status = client_for(args).ask("GET", "/admin/status")
        if args.json:
            print(json.dumps(status, indent=2, ensure_ascii=False))
        else:
            from gateway.cli.dashboard import print_status

            print_status(status)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _watch(args)
    return 0


# --- on a terminal ---------------------------------------------------------------------------


def _watch(args: argparse.Namespace) -> None:
    """Draw each new state until the user ends it."""
    feed = Feed(args)
    try:
        first = feed.news.get()  # before the screen is taken: it may be an error
        if isinstance(first, GatewayError):
            raise first
        with _keys() as keys:
            _draw(feed, first, keys)
    finally:
        feed.close()


def _draw(feed: Feed, status: dict[str, Any], keys: int | None) -> None:
    from rich.live import Live

    from gateway.cli.dashboard import Dashboard
    from gateway.cli.terminal import console

    out = console(sys.stdout)
    board = Dashboard(feed.name)
    board.take(status)
    size, drawn = (0, 0), 0.0
    waits = [feed.wake, *([] if keys is None else [keys])]
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            news = False
            with contextlib.suppress(queue.Empty):
                while True:
                    board.take(feed.news.get_nowait())
                    news = True
            now, before = time.monotonic(), size
            size = size_of(sys.stdout)
            if news or size != before or now - drawn >= _AGAIN:
                out.width, out.height = size
                live.update(board.drawn(*size), refresh=True)
                drawn = now
            ready, _, _ = select.select(waits, [], [], _TICK)
            if feed.wake in ready:
                os.read(feed.wake, 4096)
            if keys in ready and os.read(keys, 100) in (b"q", b"Q", b""):
                return


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Let typed keys be read at once, unseen; yields where from, ``None`` without a keyboard.

    The terminal is restored also after a request to end (SIGTERM, SIGHUP).
    """

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    old = termios.tcgetattr(keys) if keys is not None else None
    try:
        if keys is not None:
            new = termios.tcgetattr(keys)
            new[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(keys, termios.TCSADRAIN, new)
        yield keys
    finally:
        if keys is not None and old is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, old)
        for number, handler in before.items():
            signal.signal(number, handler)


class Feed:
    """Follows the gateway in a thread, and looks for it again when it is gone.

    :attr:`news` has each state, or the error that came instead. :attr:`wake` becomes readable with
    it.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.news: queue.SimpleQueue[dict[str, Any] | GatewayError] = queue.SimpleQueue()
        self.name = "the gateway"
        self.wake, self._waker = os.pipe()
        self._args = args
        self._over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Stop following. The thread ends with the process, at the latest."""
        self._over.set()

    def _tell(self, what: dict[str, Any] | GatewayError) -> None:
        self.news.put(what)
        os.write(self._waker, b".")

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                # Each time: a restarted gateway may have another socket.
                client = client_for(self._args)
                self.name = client.name
                self._follow(client)
            except GatewayError as error:
                self._tell(error)
            else:
                self._tell(GatewayError("it has ended"))
            self._over.wait(_AGAIN)

    def _follow(self, client: Client) -> None:
        seconds = self._args.interval
        path = f"/admin/status?follow=true&every={seconds:g}"
        with client.stream("GET", path, timeout=seconds + _PATIENCE) as stream:
            for event in stream:
                status = json.loads(event)
                if "models" not in status:  # the last word of one that shuts down
                    raise GatewayError(str(status.get("error", {}).get("message", "it has ended")))
                self._tell(status)
                if self._over.is_set():
                    return
