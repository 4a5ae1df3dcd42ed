"""``llm-gateway status``: what a running gateway is doing."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Iterator
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
    print(*_of_machine(data["machine"]), sep="\n")
    rows = [
        (
            model["name"],
            model["state"],
            _device(model),
            f"{model['in_flight']}/{model['slots']}",
            str(model["queued"]),
            _seconds(model["uptime"]),
            f"{model['starts']}/{model['deaths']}",
        )
        for model in data["models"]
    ]
    header = ("NAME", "STATE", "ON", "RUNNING", "QUEUED", "UPTIME", "STARTS/DEATHS")
    print_table(header, rows)
    for note in _notes(data["models"]):
        print(textwrap.fill(note, 80, subsequent_indent="  ", initial_indent=""))
    return True


def _of_machine(machine: dict[str, Any] | None) -> Iterator[str]:
    """What there is of memory, and what is wrong."""
    if machine is not None:
        yield "free: " + ", ".join(
            f"{device['name']} {_gib(device['free'])} of {_gib(device['total'])}"
            for device in machine["devices"]
        )
        if machine["problem"]:
            yield textwrap.fill(f"warning: {machine['problem']}", 80)
    yield ""


def _device(model: dict[str, Any]) -> str:
    """Where it is; in capitals where it should not be."""
    return "CPU!" if model["degraded"] else ",".join(model["devices"]) or "-"


def _notes(models: list[dict[str, Any]]) -> Iterator[str]:
    """What does not fit into a column."""
    for model in models:
        if model["degraded"]:
            yield f"{model['name']} runs on the CPU: {model['degraded']}"
        if model["last_error"]:
            yield f"{model['name']}, last error: {model['last_error']}"


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.1f} GiB"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
