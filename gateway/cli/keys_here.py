"""The keys in this machine's database, and the running gateway that is told of changes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.cli.control import ControlError, notify_running_gateway
from gateway.runtime import other_gateways

if TYPE_CHECKING:
    from gateway.access.keys import KeyRing
    from gateway.config.settings import Settings

T = TypeVar("T")
_PATIENCE: Final = 1.0  # seconds


def settings_of(args: argparse.Namespace) -> Settings:
    from gateway.cli.serve import demo_if_bare
    from gateway.config.load import load_settings

    return demo_if_bare(load_settings(args.config)).settings


def no_database(settings: Settings) -> bool:
    """Return whether there is no database yet. Commands that only read don't make one."""
    if settings.store.url is not None:
        return False
    try:
        settings.database.stat()
    except FileNotFoundError:
        return True
    except OSError:
        pass  # opening it reports what is wrong
    return False


def with_ring(settings: Settings, work: Callable[[KeyRing], Awaitable[T]]) -> T:
    from gateway.access.keys import KeyRing
    from gateway.access.store import Store

    async def run() -> T:
        ring = await KeyRing.open(await Store.open(settings.store_at))
        try:
            return await work(ring)
        finally:
            await ring.close()

    return asyncio.run(run())


def tell_gateway(settings: Settings) -> bool:
    """Tell a running gateway, and print how it went. Return whether the change is in effect."""
    try:
        if notify_running_gateway(settings):
            say("the running gateway has been told")
            return True
    except ControlError as error:
        say(f"warning: saved, but {error}; restart it")
        return False
    folder = settings.data_dir
    say(f"no gateway is running on {folder}; it takes effect when one starts")
    others = [str(other) for other in other_gateways(folder)]
    where = f"runs on {' and on '.join(others[:3])}" if others else None
    if where is None and (address := _who_answers(settings)) is not None:
        where = f"answers at {address}, on a data_dir of its own"
    if where is not None:
        say(
            f"warning: a gateway {where}: it has other keys, and doesn't know of this. If it was "
            "meant, use its configuration: --config FILE"
        )
    return True


def _who_answers(settings: Settings) -> str | None:
    """Return the address of ``settings`` if a gateway answers there that has another data
    folder.
    """
    import http.client
    import ssl

    host = settings.hosts[0]
    host = "127.0.0.1" if host in ("0.0.0.0", "localhost") else host  # noqa: S104
    host = "::1" if host == "::" else host
    connection: http.client.HTTPConnection
    if settings.tls.enabled:
        # Only whether a gateway is there: nothing is sent to it.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(
            host, settings.port, timeout=_PATIENCE, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, settings.port, timeout=_PATIENCE)
    try:
        connection.request("GET", "/ping", headers={"Host": "localhost"})
        if connection.getresponse().read(5) != b"pong":
            return None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls.enabled else 'http'}://{shown}:{settings.port}"


def say(text: str) -> None:
    print(text, file=sys.stderr)
