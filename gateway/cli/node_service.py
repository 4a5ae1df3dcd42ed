"""``llm-gateway node ... --service`` and ``node leave``: parts of a cluster as services."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.parser import explain
from gateway.config.head_address import shown_head
from gateway.errors import BadRequest

if TYPE_CHECKING:
    from gateway.service.member import MemberService


def add_service(parser: argparse.ArgumentParser) -> None:
    """Add the options that make a service of it."""
    parser.add_argument(
        "--service",
        action="store_true",
        help="install it as a service of systemd, which starts with the machine",
    )
    _add_where(parser)


def check_service(args: argparse.Namespace) -> None:
    """Raise ``BadRequest`` if there are options of a service, and it is to be none."""
    if not args.service and (args.user or args.dry_run):
        raise BadRequest("--user and --dry-run are for --service")


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user", action="store_true", help="your own service, without root, in your home folder"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def add_leave(parser: argparse.ArgumentParser) -> None:
    """Add the options of `node leave`."""
    _add_where(parser)
    parser.set_defaults(run=run_leave)
    explain(
        parser,
        "Ends and removes the services that `node head --service` and `node join --service` have "
        "installed on this machine. Configuration and data stay.",
        examples=["sudo llm-gateway node leave"],
    )


def install_head(args: argparse.Namespace, host: str) -> int:
    """Install the head as a service. Return 0, or raise what is wrong."""
    from gateway.cluster.token import token_file

    service = _service(args, "head")
    _do(service, ["--host", host, "--port", str(args.port)], None)
    if not args.dry_run:
        there = shown_head(host, args.port)
        print(f"\nThe head runs. On each other machine: llm-gateway node join {there}")
        print(f"It asks for the token: {token_file(service.data_dir).read_text()}")
    return 0


def install_node(args: argparse.Namespace, address: str, name: str, token: str) -> int:
    """Install a node as a service. Return 0, or raise what is wrong."""
    words = [address, "--name", name]
    words += ["--host", args.host] if args.host else []
    storage: Path | None = args.llm_storage
    words += ["--llm-storage", str(storage.expanduser().absolute())] if storage else []
    _do(_service(args, "node"), words, token)
    if not args.dry_run:
        print(f"\n{name} has joined {address}, and joins again with each start of the machine.")
    return 0


def run_leave(args: argparse.Namespace) -> int:
    """Remove the services. Return 0, or raise what is wrong."""
    from gateway.service.errors import CannotInstall

    try:
        left = [role for role in ("node", "head") if _service(args, role).leave()]
    except (CannotInstall, OSError) as error:
        raise BadRequest(str(error)) from error
    if not left:
        raise BadRequest("no part of a cluster is installed here as a service")
    return 0


def _service(args: argparse.Namespace, role: str) -> MemberService:
    from gateway.service.member import MemberService
    from gateway.service.places import SYSTEM, of_user

    places = of_user(Path.home()) if args.user else SYSTEM
    return MemberService(places, role, print, dry_run=args.dry_run)


def _do(service: MemberService, words: list[str], token: str | None) -> None:
    from gateway.service.errors import CannotInstall
    from gateway.service.release import CannotRelease

    try:
        service.install_member(words, token)
    except (CannotInstall, CannotRelease, OSError) as error:
        raise BadRequest(str(error)) from error
