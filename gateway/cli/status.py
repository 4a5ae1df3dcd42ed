"""``llm-gateway status``: what a running gateway is doing."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from gateway.cli.control import control_request
from gateway.cli.options import add_config
from gateway.cli.serve import demo_if_bare
from gateway.cli.table import print_table
from gateway.config import Settings, load_settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="seconds between two looks"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The state of the gateway and each model, again and again on a terminal."""
    settings = demo_if_bare(load_settings(args.config)).settings
    live = sys.stdout.isatty() and not args.once
    try:
        while True:
            if not _show(settings, clear=live):
                return 1
            if not live:
                return 0
            time.sleep(max(0.1, args.interval))
    except KeyboardInterrupt:
        return 0


def _show(settings: Settings, *, clear: bool) -> bool:
    answer = control_request(settings, "GET", "/admin/status")
    if answer is None or answer[0] != 200:
        print(f"error: no gateway is running on {settings.data_dir}", file=sys.stderr)
        return False
    data: dict[str, Any] = answer[1]
    if clear:
        print("\x1b[H\x1b[2J", end="")
    active = data["active"]
    chosen = f"{active['model']} ({active['personality'] or 'no personality'})" if active else "-"
    print(
        f"ready: {'yes' if data['ready'] else 'no'}   in flight: {data['in_flight']}   "
        f"active: {chosen}"
    )
    if broken := data["models_file_error"]:
        print(f"models.json is broken, the last good one stays in use: {broken}")
    print()
    rows = [
        (
            model["name"],
            model["state"],
            f"{model['in_flight']}/{model['slots']}",
            str(model["queued"]),
            _seconds(model["uptime"]),
            f"{model['starts']}/{model['deaths']}",
            (model["last_error"] or "-")[:60],
        )
        for model in data["models"]
    ]
    header = ("NAME", "STATE", "RUNNING", "QUEUED", "UPTIME", "STARTS/DEATHS", "LAST ERROR")
    print_table(header, rows)
    return True


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
