"""A server of Debian's PostgreSQL in a folder of its own, on loopback, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.harness import wait_until
from tests.pebble import free_port

#: With characters that have a meaning in URLs, and in libpq's own strings.
PASSWORD = "it's a s3cret/of @ll"
_QUOTED = "it%27s%20a%20s3cret%2Fof%20%40ll"


def program(name: str) -> str:
    """A program of PostgreSQL's: Debian has them off PATH, in a folder for each version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name) or ""


#: What has to be installed.
MISSING = next((n for n in ("initdb", "postgres", "pg_dump") if not program(n)), None)


class PostgresServer:
    """A server that can be stopped and started; :meth:`new_database` makes a database in it."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        """``address``: where it listens, and whose network of 256 addresses may connect."""
        self._address = address
        # Not below pytest's folder, which is closed to the user that it runs as: never root.
        self._folder = Path(tempfile.mkdtemp(prefix="gateway-postgres-"))
        self.port = free_port()
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._user is not None:
            os.chown(secret, self._user, -1)
        self._data = self._folder / "data"
        subprocess.run(
            self._as_its_user(
                "initdb",
                f"--pgdata={self._data}",
                "--username=gateway",
                "--auth=scram-sha-256",
                f"--pwfile={secret}",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ),
            check=True,
            capture_output=True,
            cwd="/",
        )
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {address}/24 scram-sha-256\n")

    def _as_its_user(self, name: str, *arguments: str) -> list[str]:
        """The command for one of its programs: never as root, and gone with this process."""
        user = () if self._user is None else (f"--reuid={self._user}", "--clear-groups")
        return ["setpriv", "--pdeathsig=KILL", *user, program(name), *arguments]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {
            "listen_addresses": self._address,
            "port": self.port,
            "unix_socket_directories": self._folder,
            "fsync": "off",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_its_user("postgres", "-D", str(self._data), *options),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
            )
        wait_until(self._answers, 60, "PostgreSQL answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop it, and end its connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast"
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, database: str, *, password: str = _QUOTED) -> str:
        """The URL of a database."""
        return f"postgresql://gateway:{password}@{self._address}:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database, and return its URL."""
        self._count += 1
        name = f"gateway_{self._count}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)
