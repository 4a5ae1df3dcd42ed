"""Pebble, Let's Encrypt's own ACME server for tests, with a DNS of its own; all on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from gateway.tls import self_signed
from tests.harness import tied, wait_until

MISSING = next((p for p in ("pebble", "pebble-challtestsrv") if not shutil.which(p)), None)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Pebble:
    """The server, listening and answering. Proofs are looked for on the ports of this object."""

    def __init__(self, folder: Path) -> None:
        own = self_signed(["localhost", "127.0.0.1"], folder)
        self.ca_file = own.chain
        self.http_port, self.tls_port = free_port(), free_port()
        listen, manage, dns = free_port(), free_port(), free_port(socket.SOCK_DGRAM)
        self._management = f"https://127.0.0.1:{manage}"
        self._dns_management = f"http://127.0.0.1:{(dns_manage := free_port())}"
        self.directory = f"https://127.0.0.1:{listen}/dir"
        config = {
            "listenAddress": f"127.0.0.1:{listen}",
            "managementListenAddress": f"127.0.0.1:{manage}",
            "certificate": str(own.certificate),
            "privateKey": str(own.private_key),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
        }
        file = folder / "pebble.json"
        file.write_text(json.dumps({"pebble": config}))
        # Some nonces are refused, as Let's Encrypt does now and then; authorizations are never
        # used again, so that each certificate is proved.
        env = {
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": "10",
            "PEBBLE_AUTHZREUSE": "0",
        }
        self._trust = ssl.create_default_context(cafile=str(own.chain))
        unused = [f"-{kind}=" for kind in ("http01", "https01", "tlsalpn01", "defaultIPv6")]
        dns_at = f"127.0.0.1:{dns}"
        manage_at = self._dns_management.removeprefix("http://")
        commands = (
            ["pebble-challtestsrv", f"-management={manage_at}", f"-dns01={dns_at}", *unused],
            ["pebble", f"-config={file}", f"-dnsserver={dns_at}"],
        )
        with (folder / "pebble.log").open("wb") as log:
            self._processes = [
                subprocess.Popen(
                    tied(*command), env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT
                )
                for command in commands
            ]
        try:
            for port in (listen, manage, dns_manage):
                wait_until(lambda port=port: accepts(port), 10, f"pebble listens on {port}")  # type: ignore[misc]
        except BaseException:
            self.stop()
            raise

    def root(self) -> str:
        """The certificate that vouches for what it issues, PEM."""
        return self._get(f"{self._management}/roots/0").decode()

    def resolve_to(self, address: str) -> None:
        """From now on every name leads to ``address``."""
        self._get(f"{self._dns_management}/set-default-ipv4", {"ip": address})

    def resources(self) -> dict[str, Any]:
        """The directory (RFC 8555, 7.1.1)."""
        found: dict[str, Any] = json.loads(self._get(self.directory))
        return found

    def _get(self, url: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(url, data, timeout=10, context=self._trust) as answer:
            content: bytes = answer.read()
            return content

    def stop(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(10)


def accepts(port: int) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
