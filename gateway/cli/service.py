"""``llm-gateway service``: the gateway as a service of systemd, from one command."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from gateway.cli.control import control_request
from gateway.cli.parser import explain
from gateway.cli.terminal import is_terminal
from gateway.errors import GatewayError
from gateway.problems import InvalidFiles
from gateway.service.errors import CannotInstall
from gateway.service.install import Service
from gateway.service.places import SYSTEM, UNIT, Places, of_user
from gateway.service.release import CannotRelease, made_from, of_running

#: Seconds until a service that has started lets requests in.
_READY: Final = 60.0
#: The groups that may read the log of the machine's services (journalctl(1)).
_READ_THE_JOURNAL: Final = {"adm", "systemd-journal", "wheel"}
_PAUSE: Final = 0.2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options."""
    explain(
        parser,
        "Installs the gateway as a service of systemd, and drives it.",
        examples=["sudo .venv/bin/llm-gateway service install", "sudo llm-gateway service logs -f"],
    )
    below = parser.add_subparsers(dest="service_command", metavar="COMMAND", required=True)

    command = below.add_parser("install", help="install it, start it, and show its address and key")
    _add_user(command)
    _add_dry_run(command)
    command.set_defaults(run=install)
    explain(
        command,
        "Copies this program to /opt/llm-gateway, makes the account llm-gateway, "
        "/etc/llm-gateway with a configuration, and systemd's units, starts the "
        "service, and waits until it is ready. From then on `llm-gateway`, and `sudo llm-gateway`, "
        "is this copy, by a link in /usr/local/bin. Repeat it after a change of "
        "addresses or ports in gateway.yaml: what is right already stays "
        "untouched, and so does every file that you have edited.",
        examples=[
            "sudo .venv/bin/llm-gateway service install",
            ".venv/bin/llm-gateway service install --user",
        ],
    )

    command = below.add_parser("upgrade", help="let the service run this version of the program")
    _add_user(command)
    _add_dry_run(command)
    command.set_defaults(run=upgrade)
    explain(
        command,
        "Copies this program, that of a new version, beside the one that the service runs, "
        "checks the configuration with it, and restarts the service with it and its units. If "
        "it isn't ready after that, the program, the units and the database of "
        "before are used again. Clients wait meanwhile.",
        examples=["sudo .venv/bin/llm-gateway service upgrade"],
    )

    command = below.add_parser("uninstall", help="remove it; configuration and data stay")
    _add_user(command)
    _add_dry_run(command)
    command.set_defaults(run=uninstall)
    explain(
        command,
        "Stops the service and removes what `service install` has installed, but "
        "for the configuration, keys and models, and says where these are.",
        examples=["sudo llm-gateway service uninstall"],
    )

    command = below.add_parser("status", help="show what systemd knows of it")
    _add_user(command)
    command.set_defaults(run=status)
    explain(
        command,
        "Shows what systemd knows of the service. Its models and requests are shown "
        "by `llm-gateway status`.",
        examples=["llm-gateway service status"],
        exits={3: "it doesn't run", 4: "there is no such service"},
    )

    command = below.add_parser("logs", help="show its log")
    _add_user(command)
    command.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    command.add_argument(
        "-n", "--lines", type=int, default=100, metavar="N", help="how many lines (default: 100)"
    )
    command.set_defaults(run=logs)
    explain(
        command,
        "Shows the service's log, from systemd's journal.",
        examples=["llm-gateway service logs -f"],
    )

    command = below.add_parser("restart", help="restart it, and wait until it is ready")
    _add_user(command)
    command.set_defaults(run=restart)
    explain(
        command,
        "Restarts the service. Running requests are finished first, and new ones wait.",
        examples=["sudo llm-gateway service restart"],
    )


def _add_user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user", action="store_true", help="your own service, without root, in your home folder"
    )


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _places(args: argparse.Namespace) -> Places:
    return of_user(Path.home()) if args.user else SYSTEM


def install(args: argparse.Namespace) -> int:
    """Install it. Return 0, or 1 with the reason on stderr."""
    service = Service(_places(args), print, dry_run=args.dry_run)
    return _do(service, args, first=not service.installed)


def upgrade(args: argparse.Namespace) -> int:
    """Install this version over the one that is installed. Return 0, or 1 with the reason."""
    service = Service(_places(args), print, dry_run=args.dry_run)
    if not service.installed:
        user = " --user" if args.user else ""
        print(
            f"error: nothing is installed: `{service.command} service install{user}`",
            file=sys.stderr,
        )
        return 1
    if (same := of_running(service.places.releases)) is not None:
        sudo, user = ("", " --user") if args.user else ("sudo ", "")
        print(
            "error: this is the program that the service runs. Call the new version by its path: "
            f"`{sudo}{made_from(same)} service upgrade{user}`",
            file=sys.stderr,
        )
        return 1
    return _do(service, args, first=False)


def _do(service: Service, args: argparse.Namespace, *, first: bool) -> int:
    try:
        service.install(lambda: _wait_until_ready(service))
    except (CannotInstall, CannotRelease) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    if args.dry_run:
        return 0
    starts = "when you log in" if args.user else "with the machine"
    print(f"\nThe service runs, and starts {starts}.")
    _show_first_key(service)
    if first and args.user:
        print("\n`loginctl enable-linger` lets it run without you, from the machine's start on.")
    return 0


def _wait_until_ready(service: Service) -> None:
    """Return when requests are let in. Raises :class:`CannotInstall` if that takes too long, or
    can't be any more.
    """
    settings = service.settings
    end = time.monotonic() + _READY
    while time.monotonic() < end:
        try:
            answer = control_request(settings, "GET", "/ready")
        except GatewayError:
            answer = None
        if answer is not None and answer[0] == 200:
            return
        service.check_that_it_lives()
        time.sleep(_PAUSE)
    raise CannotInstall(f"it isn't ready after {_READY:g} s: `llm-gateway service logs` says why")


def _show_first_key(service: Service) -> None:
    """Print the key that the first start has made, with what to do with it, and only once."""
    file = service.settings.data_dir / "first-admin-key.txt"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return
    print(f"\nAdmin key, shown only this once:\n\n  {text.strip()}")
    file.unlink()


def uninstall(args: argparse.Namespace) -> int:
    """Remove it. Return 0, or 1 with the reason on stderr."""
    try:
        Service(_places(args), print, dry_run=args.dry_run).uninstall()
    except (CannotInstall, InvalidFiles) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def status(args: argparse.Namespace) -> int:
    """Show systemd's state of it, as `systemctl status` does, with its exit status."""
    # At a terminal, systemctl cuts command lines and log lines to its width: whole ones are in
    # `service logs`.
    whole = () if is_terminal(sys.stdout) else ("--full",)
    return _hand_over(*_places(args).systemctl, "status", "--no-pager", *whole, UNIT)


def logs(args: argparse.Namespace) -> int:
    """Show its log, as journalctl does: whole lines, which a terminal wraps."""
    if (reason := _why_hidden(args)) is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    follow = ("--follow",) if args.follow else ("--no-pager",)
    return _hand_over(*_places(args).journalctl, f"--lines={args.lines}", *follow)


def _why_hidden(args: argparse.Namespace) -> str | None:
    """Return why the journal, which is quiet about it, shows this user nothing, or ``None``."""
    if args.user or os.geteuid() == 0:
        return None
    import grp

    groups = set()
    for number in os.getgroups():
        with contextlib.suppress(KeyError):
            groups.add(grp.getgrgid(number).gr_name)
    if groups & _READ_THE_JOURNAL:
        return None
    return (
        "the machine's log is root's, and that of the groups adm and systemd-journal: "
        "`sudo llm-gateway service logs`, or `sudo usermod -aG systemd-journal $USER`, once"
    )


def restart(args: argparse.Namespace) -> int:
    """Restart it, and wait until it is ready. Return 0, or 1 with the reason on stderr."""
    places = _places(args)
    began = time.monotonic()
    print("Running requests are finished first, and new ones wait.", flush=True)
    if (code := _hand_over(*places.systemctl, "restart", UNIT)) != 0:
        return code
    try:
        _wait_until_ready(Service(places, print))
    except CannotInstall as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"The service is ready again, after {time.monotonic() - began:.1f} s.")
    return 0


def _hand_over(*command: str) -> int:
    try:
        return subprocess.run(command, check=False, env=os.environ).returncode
    except FileNotFoundError:
        print(
            f"error: this machine has no {command[0]}: it wasn't started by systemd",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
