"""The addresses of this machine in its networks. Blocks for no more than system calls."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import re
import socket
import struct
from pathlib import Path
from typing import Final

#: The ioctl(2) for the address of a network device (netdevice(7)), and the place of the address in
#: the result.
_SIOCGIFADDR: Final = 0x8915
_AT: Final = slice(20, 24)
#: Networks within this machine: of containers and virtual machines.
_INSIDE: Final = re.compile(r"(docker|br-|veth|virbr|lxc|lxd|cni|flannel|cali|podman|vnet)")
#: Addresses for documentation (RFC 5737, RFC 3849): nothing is sent, but the system tells the
#: route.
_OUTSIDE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
#: Flags of /proc/net/if_inet6 (linux/if_addr.h): temporary, tentative, failed, deprecated.
_PASSING: Final = 0x01 | 0x08 | 0x20 | 0x40
_GLOBAL_SCOPE: Final = 0x00


def own_addresses(*, root: Path = Path("/")) -> list[str]:
    """Return the addresses at which other machines may reach this one, the outgoing one first.

    They include no link-local ones, which browsers don't accept, no temporary ones, and none of
    networks within this machine.
    """
    found = [*_going_out(), *_of_devices(), *_ipv6(root)]
    return list(dict.fromkeys(address for address in found if _is_of_use(address)))


def _going_out() -> list[str]:
    addresses = []
    for family, elsewhere in _OUTSIDE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            addresses.append(str(probe.getsockname()[0]))
    # An IPv6 address that is chosen to go out may be one for today only: _ipv6 knows them all.
    return [address for address in addresses if ":" not in address]


def _of_devices() -> list[str]:
    addresses = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            if _INSIDE.match(name):
                continue
            with contextlib.suppress(OSError):  # it has no address
                request = struct.pack("256s", name.encode()[:15])
                answer = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, request)
                addresses.append(socket.inet_ntoa(answer[_AT]))
    return addresses


def _ipv6(root: Path) -> list[str]:
    """Return those of /proc/net/if_inet6: address, index, length of the prefix, scope,
    flags, device.
    """
    addresses = []
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/net/if_inet6").read_text().splitlines():
            address, _, _, scope, flags, name = line.split()
            lasts = not int(flags, 16) & _PASSING
            if int(scope, 16) == _GLOBAL_SCOPE and lasts and not _INSIDE.match(name):
                addresses.append(str(ipaddress.IPv6Address(bytes.fromhex(address))))
    return addresses


def _is_of_use(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)
