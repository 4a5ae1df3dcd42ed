"""What ``llm-gateway node join`` and ``node head`` do: keep Ray running on this machine.

Ray itself is in child processes, which end with this one. A node whose head goes away stays, and
what runs there goes on; one whose Ray ends joins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from gateway import __version__
from gateway.cluster import enrol, ray_command
from gateway.cluster.dismissal import NodeRemoved, ends_when_removed
from gateway.cluster.node_settings import NodeSettings
from gateway.cluster.ray_process import CannotJoin, RayProcess, Say, WrongToken
from gateway.config.head_address import shown_head
from gateway.sdnotify import Notifier

#: Seconds in which a head must accept a connection, and tell what it is.
_CONNECT: Final = 5.0
_ASK: Final = 30.0
#: Seconds in which the actor of a node must work: it looks at the machine first.
_ENROL: Final = 120.0
#: Seconds until it is tried again: at first, and at most.
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a cluster, on this machine. ``storage``: where it keeps what it knows;
    ``records``: where its processes are noted; ``folder``: for its temporary files.
    """

    host: str
    port: int
    token: Path
    storage: Path
    records: Path
    folder: Path

    async def run(self, say: Say, environ: Mapping[str, str], ready: Callable[[], object]) -> None:
        """Run it until this is cancelled. ``ready`` is called as soon as it can be joined.

        Raises :class:`CannotJoin` if it can't be started.
        """
        command = ray_command.head(self.host, self.port, self.folder)
        variables = ray_command.head_variables(self.token, self.storage)
        starting = {**environ, **variables, **ray_command.PATIENT}
        ray = RayProcess(command, starting, "head", self.records, at_once=True)

        told = False

        async def start() -> None:
            nonlocal told
            await ray.start()
            order = enrol.order(shown_head(self.host, self.port), self.host)
            await _enrol(order, {**environ, **variables})
            if told:
                say("The head runs again.")
            else:
                ready()
            told = True
            Notifier().ready("the head runs")

        await _keep_running(ray, say, start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node of a cluster, on this machine. ``address``: of the head; ``resources``: what it
    brings; ``folder``: for Ray's temporary files.
    """

    address: str
    name: str
    token: Path | None
    settings: NodeSettings
    resources: Mapping[str, int]
    folder: Path

    async def run(self, say: Say, environ: Mapping[str, str]) -> None:
        """Join, and stay until this is cancelled. Raises :class:`CannotJoin` if that isn't
        possible to begin with, :class:`NodeRemoved` when it is not to be a node any more.
        """
        host = self.settings.host
        command = ray_command.node(self.address, host, self.name, self.resources, self.folder)
        variables = {**environ, **ray_command.variables(self.token)}
        starting = {**variables, **ray_command.PATIENT}
        ray = RayProcess(command, starting, self.name, self.settings.data_dir / "ray")
        settings = replace(self.settings, dismissal=self.folder / "dismissal")
        joined = False

        async def join() -> None:
            nonlocal joined
            known = await ask_head(self.address, variables)
            if (reason := why_not(known, self.name, host)) is not None:
                raise CannotJoin(reason)
            await ray.start()
            node = self.name, settings
            order = enrol.order(self.address, host, node, by_itself=joined)
            await _enrol(order, variables, self.name)
            joined = True
            say(f"{self.name} has joined {self.address}, and is used until this ends.")
            Notifier().ready(f"joined {self.address}")

        async with ends_when_removed(self.name, self.folder / "dismissal"):
            await _keep_running(ray, say, join)


async def _enrol(order: str, environ: Mapping[str, str], node: str = "") -> None:
    done = await _answer("gateway.cluster.enrol", environ, _ENROL, text=order)
    if done["error"] == enrol.REMOVED:
        raise NodeRemoved(node)
    if done["error"] == enrol.TAKEN:
        raise CannotJoin(
            f"a node called {node!r} is in use already: is this machine's service running, or has "
            "it joined with another data_dir? --name gives this one another name"
        )
    if done["error"] is not None:
        raise CannotJoin(f"Ray has started, and nothing works with it: {done['error']}")


async def _keep_running(ray: RayProcess, say: Say, start: Any) -> None:
    """Start it by ``start``, and again whenever it ends; end it when this is cancelled."""
    pause, begun = _PAUSE, False
    try:
        while True:
            try:
                await start()
            except CannotJoin as error:
                await ray.stop()
                if not begun:
                    raise
                say(f"{error}. It is tried again in {pause:.0f} s.")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause, begun = _PAUSE, True
            say(f"Ray has ended, and is started again: {await ray.wait()}")
            await asyncio.sleep(_PAUSE)
    finally:
        await ray.stop()


# --- the head, before it is joined -----------------------------------------------------------


async def ask_head(address: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the head tells of itself (:mod:`gateway.cluster.ask_head`).

    Raises :class:`CannotJoin`, with what to do, if there is none that lets us in.
    """
    await _reach(address)
    known = await _answer("gateway.cluster.ask_head", environ, _ASK, address)
    error = known.get("error")
    if error == "AuthenticationError":
        raise WrongToken(
            f"the head at {address} refuses this token: `llm-gateway node head` shows the right "
            "one, and on the head's machine it is in cluster/token below data_dir"
        )
    if error is not None:
        raise CannotJoin(f"what answers at {address} is no head of Ray ({error})")
    return known


async def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    open_it = (
        f"is `llm-gateway node head` running there, and does its firewall let TCP port {port} in?"
    )
    try:
        async with asyncio.timeout(_CONNECT):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        raise CannotJoin(f"{address} doesn't answer within {_CONNECT:g} s: {open_it}") from None
    except socket.gaierror:
        raise CannotJoin(f"no machine is called {host!r}: give the head's address") from None
    except ConnectionRefusedError:
        raise CannotJoin(f"nothing listens at {address}: {open_it}") from None
    except OSError as error:
        raise CannotJoin(f"{address} cannot be reached: {error.strerror or error}") from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def why_not(known: Mapping[str, Any], name: str, host: str) -> str | None:
    """Return what of the head's versions and nodes keeps this machine out; ``None``: nothing."""
    ray, python = version("ray"), f"{sys.version_info[0]}.{sys.version_info[1]}"
    if known["ray"] not in (None, ray):
        return (
            f"the head has Ray {known['ray']}, and this machine {ray}: they must be the same. "
            f"Here: pip install 'ray=={known['ray']}'"
        )
    theirs = ".".join((known["python"] or python).split(".")[:2])
    if theirs != python:
        return (
            f"the head runs on Python {theirs}, and this machine on {python}: they must be the "
            f"same. Make a virtual environment here with python{theirs}, and install the gateway "
            "there"
        )
    if known["version"] not in (None, __version__):
        return (
            f"the head has llm-gateway {known['version']}, and this machine {__version__}: "
            "install the same version on both"
        )
    there = known["nodes"].get(name)
    if there not in (None, host):
        return (
            f"a node called {name!r} has joined already, at {there}: --name gives this one another"
        )
    return None


async def _answer(
    module: str, environ: Mapping[str, str], seconds: float, *arguments: str, text: str = ""
) -> dict[str, Any]:
    """Run one of our programs that talks to Ray, and return the JSON object that it prints."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, *arguments),
        env=dict(environ),
        cwd=ray_command.WORK_FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            printed, said = await child.communicate(text.encode())
    except TimeoutError:
        raise CannotJoin(f"Ray doesn't answer within {seconds:g} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError):
        last = said.decode("utf-8", "replace").strip().splitlines()
        raise CannotJoin(f"Ray cannot be used: {last[-1] if last else 'no reason'}") from None
    return answer


def address_towards(address: str) -> str:
    """Return the address of this machine that the head at ``address`` sees. Blocks. Raises
    :class:`CannotJoin`.
    """
    host, _, port = address.rpartition(":")
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # sends nothing
            return str(probe.getsockname()[0])
    except socket.gaierror:
        raise CannotJoin(f"no machine is called {host!r}: give the head's address") from None
    except OSError as error:
        raise CannotJoin(f"there is no way to {host}: {error.strerror or error}") from None


def environment() -> dict[str, str]:
    """Return the variables for Ray and what it starts: ours, but for what only this process is
    told by systemd.
    """
    ours = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS")
    return {name: value for name, value in os.environ.items() if name not in ours}
