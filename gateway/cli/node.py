"""``llm-gateway node``: other machines that run models, too."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import logging
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.backends.slot_files import HOSTED
from gateway.cli.node_remote import add_change, add_list
from gateway.cli.node_service import (
    add_leave,
    add_service,
    check_service,
    install_head,
    install_node,
)
from gateway.cli.options import add_config
from gateway.cli.parser import explain
from gateway.cli.terminal import is_terminal
from gateway.cluster.dismissal import EXIT_STATUS, NodeRemoved
from gateway.config.head_address import CLIENT, PORT, parse_head, shown_head
from gateway.errors import BadRequest
from gateway.names import HERE, parse_node

if TYPE_CHECKING:
    from gateway.backends.machine import Machine
    from gateway.cluster.node_settings import NodeSettings
    from gateway.config.settings import Settings

_MIB: Final = 2**20
#: Names of nodes that mean something else.
_RESERVED: Final = frozenset({HERE, "head"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands and their options."""
    explain(
        parser,
        "Lets one gateway run models on several machines, which Ray holds together (pip: the "
        "extra cluster). One machine is the head, the others join it.",
        examples=["llm-gateway node head", "llm-gateway node join 192.168.1.5"],
    )
    below = parser.add_subparsers(dest="node_command", metavar="COMMAND", required=True)
    _add_head(below.add_parser("head", help="run the head of a cluster, beside a gateway"))
    _add_join(below.add_parser("join", help="let this machine run models for a cluster"))
    add_leave(below.add_parser("leave", help="remove the services of head and node from here"))
    add_list(below.add_parser("list", help="list the machines, their devices and models"))
    add_change(below.add_parser("drain", help="let a machine take no more models"), "drain")
    add_change(below.add_parser("resume", help="let it take models again"), "resume")
    add_change(below.add_parser("remove", help="drain it, and forget it"), "remove")


def _add_head(command: argparse.ArgumentParser) -> None:
    add_config(command)
    command.add_argument(
        *("--port",), type=int, default=PORT, metavar="P", help=f"its port (default: {PORT})"
    )
    command.add_argument(
        "--host", metavar="ADDRESS", help="where the others reach it (default: found out)"
    )
    add_service(command)
    command.set_defaults(run=run_head)
    explain(
        command,
        "Runs the head of a cluster on this machine until Ctrl-C, and tells what to type on the "
        "others. What it knows is kept in data_dir: nodes go on while it is away, and are known "
        "to it when it is back. The first start makes the cluster's token. Everybody who has it "
        "can run programs on every machine of the cluster.",
        examples=["llm-gateway node head", "llm-gateway node head --host 192.168.1.5"],
        exits={0: "it was ended"},
    )


def _add_join(command: argparse.ArgumentParser) -> None:
    add_config(command)
    command.add_argument("head", metavar="HEAD", help=f"its address, like 192.168.1.5:{PORT}")
    command.add_argument(
        "--name", metavar="NAME", help="what to call this machine (default: its host name)"
    )
    command.add_argument(
        "--host", metavar="ADDRESS", help="where gateways reach this machine (default: found out)"
    )
    command.add_argument("--llm-storage", type=Path, metavar="DIR", help="the folder of its models")
    command.add_argument(
        "--token-file",
        metavar="FILE",
        help="the file with the cluster's token, - for stdin; it is kept in data_dir",
    )
    add_service(command)
    command.set_defaults(run=run_join)
    explain(
        command,
        "Joins a cluster, tells what this machine brings, and runs what gateways load here, until "
        "Ctrl-C. It joins again by itself when the head was away. llama_server and llm_storage "
        "are those of this machine's gateway.yaml, if there is one.",
        examples=[
            "llm-gateway node join 192.168.1.5",
            "llm-gateway node join 192.168.1.5 --name attic --llm-storage /srv/models",
        ],
        exits={0: "it was ended", EXIT_STATUS: "its node was removed from the cluster"},
    )


# --- the head --------------------------------------------------------------------------------


def run_head(args: argparse.Namespace) -> int:
    """Run it until it is ended. Return 0, or raise what is wrong."""
    from gateway.cluster import joining
    from gateway.cluster.ray_process import folder_of
    from gateway.cluster.token import make_token
    from gateway.own_addresses import own_addresses

    check_service(args)
    _check_ray()
    settings = _settings(args)
    if not 1 <= args.port <= 65535:
        raise BadRequest("--port: ports are from 1 to 65535")
    host = args.host or next(iter(own_addresses()), None)
    if host is None:
        raise BadRequest("this machine has no address in a network: --host gives one")
    if args.service:
        return install_head(args, host)
    with folder_of(settings.data_dir, "head") as folder:
        head = joining.Head(
            host=_address_of(host),
            port=args.port,
            token=make_token(settings.data_dir),
            storage=settings.data_dir / "cluster/head",
            records=settings.data_dir / "cluster/ray",
            folder=folder,
        )
        head.storage.mkdir(mode=0o700, exist_ok=True)
        token = head.token.read_text()

        def ready() -> None:
            _say("The head runs. On each other machine:")
            _say("")
            there = host if args.port == PORT else shown_head(host, args.port)
            _say(f"  llm-gateway node join {there}")
            _say("")
            _say(f"It asks for the token: {token}")
            _say("")
            _say("Ray listens at every address of this machine: let only yours reach it.")
            if settings.cluster is None:
                what = "uses the cluster with `cluster: {engine: ray}` in gateway.yaml."
                _say(f"The gateway here {what}")

        _say(f"Starting the head of a cluster, at {shown_head(host, args.port)}.")
        return _until_ended(head.run(_say, joining.environment(), ready))


# --- a node ----------------------------------------------------------------------------------


def run_join(args: argparse.Namespace) -> int:
    """Join, and stay until this is ended, or the node is removed. Return the exit status, or raise
    what is wrong.
    """
    from gateway.cluster import joining
    from gateway.cluster.node_settings import NodeSettings
    from gateway.cluster.ray_process import WrongToken, folder_of
    from gateway.cluster.token import known_token

    check_service(args)
    _check_ray()
    settings = _settings(args)
    address = _head_of(args.head)
    name = _name_of(args.name)
    if args.service:
        return install_node(args, address, name, _typed(args))
    known = args.token_file is None and known_token(settings.data_dir / "cluster") is not None
    token = _token(args, settings)
    host = _address_of(args.host) if args.host else joining.address_towards(address)
    storage = (args.llm_storage or settings.llm_storage).expanduser().absolute()
    if not storage.is_dir():
        what = "--llm-storage" if args.llm_storage else "llm_storage"
        _say(f"{what}: there is no folder {storage} yet; models come there from other machines.")
    node = NodeSettings(
        llama_server=settings.llama_server,
        llm_storage=storage,
        data_dir=settings.data_dir / f"cluster/nodes/{name}",
        cache_dir=settings.cache_dir / HOSTED / name,
        host=host,
        load_timeout=settings.limits.load_timeout,
    )
    with folder_of(settings.data_dir, name) as folder:
        member = joining.Member(
            address=address,
            name=name,
            token=token,
            settings=node,
            resources=_brought(name, node),
            folder=folder,
        )
        try:
            return _until_ended(member.run(_say, joining.environment()))
        except NodeRemoved as removed:
            print(removed.message, file=sys.stderr, flush=True)
            return EXIT_STATUS
        except WrongToken:
            if not known and token is not None:
                token.unlink(missing_ok=True)  # so that it is asked for again
            raise


def _head_of(text: str) -> str:
    try:
        address = parse_head(text)
    except ValueError as error:
        raise BadRequest(f"HEAD: {error}") from None
    if address.startswith(CLIENT) or ":" not in address:
        what = f"{text!r}: a node needs the head's own address, like box.lan:{PORT}"
        raise BadRequest(f"HEAD: {what}")
    return address


def _name_of(given: str | None) -> str:
    try:
        name = parse_node(given if given is not None else socket.gethostname().partition(".")[0])
    except ValueError as error:
        raise BadRequest(f"--name: {error}") from None
    if name in _RESERVED:
        raise BadRequest(f"--name: {name!r} means another machine: choose another name")
    return name


def _address_of(host: str) -> str:
    """Return the address that a host name means. Raises ``BadRequest``."""
    from gateway.listen_on import addresses_of, why

    try:
        return addresses_of(host)[0]
    except OSError as error:
        raise BadRequest(f"--host {host}: {why(error)}") from None


def _token(args: argparse.Namespace, settings: Settings) -> Path:
    """Return the file with the token: the one given, the one kept, or what is typed."""
    from gateway.cluster.token import known_token, save_token

    known = known_token(settings.data_dir / "cluster")
    if args.token_file is None and known is not None:
        return known
    return save_token(settings.data_dir, _typed(args))


def _typed(args: argparse.Namespace) -> str:
    """Return the token that is given, or typed now. Raises ``BadRequest``."""
    if (file := args.token_file) is not None:
        try:
            return sys.stdin.read() if file == "-" else Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise BadRequest(f"--token-file {file}: {reason}") from None
    if not is_terminal(sys.stdin):
        raise BadRequest(
            "the cluster's token is needed, which `llm-gateway node head` shows: give a file with "
            "it, --token-file FILE, or - for stdin"
        )
    return getpass.getpass("Token (it isn't shown): ")


def _brought(name: str, node: NodeSettings) -> dict[str, int]:
    """Tell what this machine has for models, and return it as Ray's resources."""
    from gateway.cluster.told import resource

    machine = _machine(node)
    every = [*machine.devices, *([machine.ram] if machine.ram is not None else [])]
    _say(f"{name}, at {node.host}, brings:")
    for device in every:
        _say(f"  {device.name:8} {device.budget / 2**30:7.1f} GiB for models  {device.description}")
    files = sum(1 for _ in node.llm_storage.rglob("*.gguf"))
    _say(f"  {'files':8} {files:7} GGUF in {node.llm_storage}")
    brought = {resource(name, device.name): device.budget // _MIB for device in every}
    return {**brought, resource(name, "node"): 1}  # for what takes nothing


def _machine(node: NodeSettings) -> Machine:
    import os

    from gateway.backends.command import find_program
    from gateway.backends.machine import read_machine

    # Without a llama-server nothing can run here: that is told before anything is started.
    return read_machine(find_program(node.llama_server, os.environ), os.environ)


# --- both ------------------------------------------------------------------------------------


def _check_ray() -> None:
    from gateway.cluster.installed import why_no_ray

    if (reason := why_no_ray()) is not None:
        raise BadRequest(f"a cluster {reason}")


def _settings(args: argparse.Namespace) -> Settings:
    from gateway.config.load import load_settings

    return load_settings(args.config).settings


def _say(text: str) -> None:
    print(text, flush=True)


def _until_ended(work: Coroutine[Any, Any, None]) -> int:
    """Run ``work`` until Ctrl-C or SIGTERM. Return 0."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        await work

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run())
    return 0
