"""The gateway that a command talks to: the one on this machine, or one that an address names.

On this machine it is found by its data folder, over its control socket, where no key is needed:
who may open that is an administrator. Elsewhere it takes an address and a key: ``--url``, a
variable, or a profile that ``llm-gateway login`` has written. What is meant is, in this order:

1. what an option says: ``--url`` or ``--profile``, or ``--config`` for the one on this machine;
2. what a variable says: ``LLM_GATEWAY_URL`` or ``LLM_GATEWAY_PROFILE``;
3. what is on this machine;
4. the default profile.
"""

from __future__ import annotations

import argparse
import os
import socket
from typing import TYPE_CHECKING, Final

from gateway.cli.client import TIMEOUT, Client, NoGateway, error_words, parsed
from gateway.cli.control import ControlError, control_address
from gateway.cli.options import add_config
from gateway.cli.profiles import Profile, read_profiles
from gateway.config.places import SYSTEM
from gateway.errors import BadRequest

if TYPE_CHECKING:
    from gateway.config.load import Loaded

URL: Final = "LLM_GATEWAY_URL"
PROFILE: Final = "LLM_GATEWAY_PROFILE"
KEY: Final = "LLM_GATEWAY_API_KEY"
CA: Final = "LLM_GATEWAY_CA"


def add_gateway(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """Add the options that choose a gateway. ``again``: as in :func:`add_config`."""
    add_config(parser, again=again)
    unset = argparse.SUPPRESS if again else None
    group = parser.add_argument_group("another gateway than this machine's")
    group.add_argument(
        "--url", metavar="URL", default=unset, help=f"like https://box.example.com (or {URL})"
    )
    group.add_argument("--key", metavar="KEY", default=unset, help=f"a key of it; better in {KEY}")
    group.add_argument(
        "--ca",
        metavar="FILE",
        default=unset,
        help=f"PEM file of the authority to trust beside the system's ({CA})",
    )
    group.add_argument(
        "--profile",
        metavar="NAME",
        default=unset,
        help=f"one that `llm-gateway login` has written (or {PROFILE})",
    )


def client_for(args: argparse.Namespace) -> Client:
    """Return a client of the chosen gateway, if it runs. Raises :class:`NoGateway`,
    ``BadRequest``.
    """
    if (client := _named(args)) is not None:
        return client
    profile = None if args.config else _default_profile()
    loaded = _on_this_machine(args)
    try:
        address = control_address(loaded.settings)
        if address is not None and _listens(address):
            return Client(None, None, None, control=address)
    except ControlError:  # it is another user's, say
        if profile is None:
            raise
    if profile is not None:
        return _of_profile(profile)
    raise NoGateway(
        f"no gateway is running on {loaded.settings.data_dir}: `llm-gateway serve` starts one; "
        f"for one elsewhere there is --url, or `llm-gateway login`{_hint_of_service(loaded)}"
    )


def _hint_of_service(loaded: Loaded) -> str:
    """Return how to ask the machine's service, if there is one that wasn't meant by ``loaded``."""
    if loaded.file == SYSTEM or not SYSTEM.exists():
        return ""
    return f"; for this machine's service, `--config {SYSTEM}`"


def remote_client(args: argparse.Namespace) -> Client | None:
    """Return a client of a gateway elsewhere; ``None`` if the one on this machine is meant.

    The default profile is meant if there is neither a configuration nor a database here.
    """
    if (client := _named(args)) is not None or args.config:
        return client
    if (profile := _default_profile()) is None:
        return None
    from gateway.config.load import load_settings

    loaded = load_settings(args.config)
    here = loaded.file or loaded.settings.models_file.exists() or loaded.settings.database.exists()
    return None if here else _of_profile(profile)


def _named(args: argparse.Namespace) -> Client | None:
    """Return a client of the gateway that options or variables name."""
    if args.url and args.profile:
        raise BadRequest("--url and --profile both name a gateway: give one of them")
    if args.config and (args.url or args.profile):
        raise BadRequest(
            f"--config is for the gateway on this machine, {'--url' if args.url else '--profile'} "
            "for one elsewhere: give one of them"
        )
    if args.profile:
        return _of_profile(read_profiles().named(args.profile), args)
    if args.url:
        url = parsed(args.url).geturl()
        known = next((one for one in read_profiles().by_name.values() if one.url == url), None)
        ca = args.ca or os.environ.get(CA) or (str(known.ca) if known and known.ca else None)
        return Client(
            args.url, args.key or os.environ.get(KEY) or (known.key if known else None), ca
        )
    if not args.config and (variable := os.environ.get(URL)):
        return Client(
            variable, args.key or os.environ.get(KEY), args.ca or os.environ.get(CA), source=URL
        )
    if not args.config and (name := os.environ.get(PROFILE)):
        return _of_profile(read_profiles().named(name), args)
    if args.key or args.ca:
        raise BadRequest("--key and --ca are for a gateway elsewhere: --url names it")
    return None


def _of_profile(profile: Profile, args: argparse.Namespace | None = None) -> Client:
    key, ca = (args.key, args.ca) if args is not None else (None, None)
    return Client(
        profile.url,
        key or profile.key,
        ca or (str(profile.ca) if profile.ca is not None else None),
        source=f"profile {profile.name}",
    )


def _default_profile() -> Profile | None:
    profiles = read_profiles()
    return profiles.by_name[profiles.default] if profiles.default is not None else None


def _on_this_machine(args: argparse.Namespace) -> Loaded:
    from gateway.cli.serve import demo_if_bare
    from gateway.config.load import load_settings

    return demo_if_bare(load_settings(args.config))


def _listens(address: str) -> bool:
    """Return whether a gateway listens. Raises :class:`ControlError` if that can't be found out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise ControlError(
                f"the gateway on this machine cannot be talked to: {error_words(error)} ({address})"
            ) from None
    return True
