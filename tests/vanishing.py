"""Clients whose network goes away: sockets in a network namespace of their own (Linux, root)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>


class Network(NamedTuple):
    """A machine of its own, as far as its network goes. ``here``: how it reaches this one."""

    name: str
    here: str

    def connect(self, port: int) -> socket.socket:
        """A connection from there to ``port`` on this machine. In a thread: it changes sides."""
        libc = ctypes.CDLL(None, use_errno=True)
        space = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if libc.setns(space, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(space)
        return socket.create_connection((self.here, port), timeout=10)

    def vanish(self) -> None:
        """From now on nothing comes through, either way, and nobody is told."""
        for chain in ("INPUT", "OUTPUT"):
            _ip("netns", "exec", self.name, "iptables", "-I", chain, "-j", "DROP")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Such a network, or a skipped test that says why not."""
    missing = [tool for tool in ("ip", "iptables") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (iproute2, iptables)")
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network namespace")
    number = os.getpid() % 16384  # one of the /30 of 10.117.0.0/16
    prefix = f"10.117.{number // 64}.{number % 64 * 4}".rpartition(".")
    here, there = (f"{prefix[0]}.{int(prefix[2]) + host}" for host in (1, 2))
    name, cable = f"gone{os.getpid()}", f"gone{number}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        _ip("link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", name)
        _ip("address", "add", f"{here}/30", "dev", cable)
        _ip("link", "set", cable, "up")
        _ip("-n", name, "address", "add", f"{there}/30", "dev", "cable")
        _ip("-n", name, "link", "set", "cable", "up")
        yield Network(name, here)
    finally:
        # The namespace itself stays as long as the kernel has something to say for its sockets.
        subprocess.run(["ip", "link", "delete", cable], check=False, capture_output=True)
        _ip("netns", "delete", name)


async def connect_from(there: Network, port: int) -> socket.socket:
    """A connection from ``there``."""
    connected = await asyncio.to_thread(_in_a_thread_of_its_own, there, port)
    connected.setblocking(False)
    return connected


def _in_a_thread_of_its_own(there: Network, port: int) -> socket.socket:
    import threading

    found: list[socket.socket | BaseException] = []

    def run() -> None:
        try:
            found.append(there.connect(port))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (result,) = found
    if isinstance(result, BaseException):
        raise result
    return result
