"""Installs the service, brings it up to date, and removes it. Each step may be repeated.

Everything blocks: it is for the command line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.backup import BackupError
from gateway.config.places import skeleton
from gateway.config.settings import Settings
from gateway.listen_on import addresses_of, why
from gateway.service import host, linked, managed, release, units
from gateway.service.configuration import Configuration
from gateway.service.database_before import DatabaseBefore
from gateway.service.errors import CannotInstall
from gateway.service.managed import Originals, Written
from gateway.service.places import ACCOUNT, MEMBERS, REDIRECT_SOCKET, SOCKET, UNIT, Places

_ACCOUNTS: Final = Path("/etc/sysusers.d/llm-gateway.conf")
#: What is told of a file in a dry run.
_WOULD: Final = {Written.NEW: "write", Written.UPDATED: "update"}
#: What we may have put into the folder of drop-ins.
_DROP_INS: Final = ("cuda.conf", "rocm.conf", "cluster.conf", units.NO_PRIVATE_USERS)


class Service:
    """The service at ``places``. ``say`` is told each thing that is done, or would be."""

    def __init__(
        self, places: Places, say: Callable[[str], object], *, dry_run: bool = False
    ) -> None:
        self.places = places
        self._say = say
        self._dry_run = dry_run
        self._configuration = Configuration(places, say, dry_run=dry_run)
        self._changed: set[str] = set()  # names of units that were written
        self._originals = Originals()  # of these

    @property
    def _runs(self) -> str:
        """The command that the service runs."""
        return "serve"

    @property
    def _words(self) -> str:
        """The command that installs the service."""
        return "service"

    @property
    def command(self) -> str:
        """What to call the running program by: its path, where sudo wouldn't find it."""
        own = release.of_running(self.places.releases) is not None
        return "llm-gateway" if own and linked.is_ours(self.places) else release.running_command()

    # --- install -----------------------------------------------------------------------------

    @property
    def installed(self) -> bool:
        """Whether there is a unit."""
        return (self.places.units / UNIT).exists()

    @property
    def settings(self) -> Settings:
        """The settings of its configuration. Raises ``InvalidFiles``."""
        return self._configuration.settings

    def install(self, wait_until_ready: Callable[[], object]) -> None:
        """Bring everything up to date, and have it run; what is already right stays untouched.

        ``wait_until_ready`` returns when requests are let in, or raises :class:`CannotInstall`. If
        it comes to that, the program and the units of before run again. Raises
        :class:`CannotInstall`, ``CannotRelease``, ``InvalidFiles`` or ``OSError``.
        """
        self._check_machine()
        places = self.places
        before = release.in_use(places.program)
        changed = self._make_account()
        self._configuration.make()
        used = self._make_release()
        if used is not None:
            self._configuration.check(used)
        database = DatabaseBefore(self.settings.database)
        try:
            changed |= self._write_units()
            changed |= self._switch(before, used, database)
            linked.make(places, self._say, dry_run=self._dry_run)
            self._start(changed)
            if not self._dry_run:
                wait_until_ready()
        except (CannotInstall, OSError) as problem:
            if before is None or self._dry_run:
                raise
            raise self._go_back(before, database, problem) from problem
        database.forget()
        if used is not None:
            release.clean_up(places.releases, used)

    def _check_machine(self) -> None:
        if not host.is_booted_by_systemd():
            raise CannotInstall(
                f"this machine wasn't started by systemd: run `llm-gateway {self._runs}` by what "
                "starts its services"
            )
        if not self.places.user and os.geteuid() != 0:
            raise CannotInstall(
                "a service of the whole machine is root's to install: use sudo, or --user for a "
                f"service of your own (`sudo {self.command} {self._words} ...`)"
            )

    def _make_account(self) -> bool:
        """Make the user, with the groups of GPUs; return whether that was new."""
        if self.places.user:
            return False
        home = self.places.data
        text = f'u {ACCOUNT} - "LLM-API Gateway" {home} /usr/sbin/nologin\n' + "".join(
            f"m {ACCOUNT} {name}\n" for name in host.gpu_groups()
        )
        if not self._write(_ACCOUNTS, text):
            return False
        self._run("systemd-sysusers", str(_ACCOUNTS), what=f"make the account {ACCOUNT}")
        return True

    def _make_release(self) -> Path | None:
        places = self.places
        if self._dry_run:
            planned, there = release.planned(places.releases)
            self._say(f"kept     {planned}" if there else f"copy     this program to {planned}")
            return None
        used = release.make(places.releases)
        self._say(f"program  {used}")
        return used

    # --- units -------------------------------------------------------------------------------

    def _write_units(self) -> bool:
        places = self.places
        text = units.service(_shipped(UNIT), places, waits_for_reload=host.knows_notify_reload())
        changed = self._write(places.units / UNIT, text)
        sockets = self._sockets()
        for name, text in sockets.items():
            changed |= self._write(places.units / name, text)
        if REDIRECT_SOCKET not in sockets:
            changed |= self._forget(places.units / REDIRECT_SOCKET)
        if not places.user:
            changed |= self._write_drop_ins()
        return changed

    def _write_drop_ins(self) -> bool:
        folder = self.places.drop_ins
        shipped = {name: _shipped(f"drop-ins/{name}") for name in ("cuda.conf", "rocm.conf")}
        wanted = units.gpu_drop_ins(host.gpu_vendors(), shipped)
        if not host.has_user_namespaces():
            self._say("PrivateUsers=yes doesn't work on this machine: done without it")
            wanted[units.NO_PRIVATE_USERS] = units.WITHOUT_PRIVATE_USERS
        changed = [self._write(folder / name, text) for name, text in wanted.items()]
        if units.NO_PRIVATE_USERS not in wanted:
            changed.append(self._forget(folder / units.NO_PRIVATE_USERS))
        return any(changed)

    def _sockets(self) -> dict[str, str]:
        settings = self.settings
        name = "https" if settings.tls.enabled else "http"
        texts = {SOCKET: units.socket(name, "the port of clients", _at(settings, settings.port))}
        redirect = settings.tls.redirect_port if settings.tls.enabled else None
        if redirect is not None:
            texts[REDIRECT_SOCKET] = units.socket(
                "redirect", "the port that leads to https", _at(settings, redirect)
            )
        return texts

    def _forget(self, file: Path) -> bool:
        """Remove what is no longer wanted, unless it was edited; return whether it was there."""
        if not file.exists() or not managed.is_ours(file.read_text(encoding="utf-8")):
            return False
        if file.suffix == ".socket":
            self._run(*self.places.systemctl, "disable", "--now", file.name)
        self._say(f"remove   {file}")
        if not self._dry_run:
            self._originals.keep(file)
            managed.remove(file)
        return True

    def _write(self, file: Path, text: str) -> bool:
        """Return whether that changed something, or would."""
        if self._dry_run:
            written = managed.compare(file, text)
        else:
            self._originals.keep(file)
            written = managed.write(file, text)
        if written is Written.EDITED:
            self._say(f"kept     {file}, which was edited; this version's is {file}.new")
        else:
            did = _WOULD.get(written, written.value) if self._dry_run else written.value
            self._say(f"{did:<8} {file}")
        if written not in (Written.NEW, Written.UPDATED):
            return False
        self._changed.add(file.name)
        return True

    # --- switching over ----------------------------------------------------------------------

    def _switch(self, before: Path | None, used: Path | None, database: DatabaseBefore) -> bool:
        if used is None or used == before:
            return False
        if before is not None:
            try:
                database.save()
            except BackupError as error:
                raise CannotInstall(f"nothing is saved to go back to: {error}") from None
        release.use(self.places.program, used)
        return True

    def _start(self, changed: bool) -> None:
        control = self.places.systemctl
        names = [*self._sockets(), UNIT]
        if changed:
            self._run(*control, "daemon-reload")
        self._run(*control, "enable", *names)
        if self._dry_run:
            self._say("start it, and wait until it is ready")
        elif changed or not self._is_active(UNIT):
            self._restart()

    def _go_back(self, before: Path, database: DatabaseBefore, problem: Exception) -> CannotInstall:
        """Let the program and the units of before run again, and return what to tell."""
        try:
            self._put_back(before, database)
        except (CannotInstall, OSError) as worse:
            return CannotInstall(f"{problem}\nNor does the version before start: {worse}")
        return CannotInstall(f"{problem}\nThe version before ({before.name}) runs again.")

    def _put_back(self, before: Path, database: DatabaseBefore) -> None:
        control = self.places.systemctl
        self._run(*control, "stop", UNIT, check=False)
        for file in self._originals.put_back():
            self._say(f"put back {file}")
        if release.in_use(self.places.program) != before:
            release.go_back(self.places.program, before)
            self._say(f"program  {before}")
        if database.put_back():
            self._say("put back the database, which the new version had changed")
        database.forget()
        self._run(*control, "daemon-reload")
        self._restart()

    def _restart(self) -> None:
        """Start it, or anew. Sockets whose addresses are the same stay open meanwhile."""
        control = self.places.systemctl
        for name in (SOCKET, REDIRECT_SOCKET):
            if not (self.places.units / name).exists():
                continue
            if name in self._changed or not self._is_active(name):
                self._run(*control, "stop", UNIT, name)
                self._run(*control, "start", name)
        if self._run(*control, "restart", UNIT, check=False) != 0:
            raise CannotInstall(f"it doesn't start:\n{self._newest_log()}")

    def check_that_it_lives(self) -> None:
        """Raise :class:`CannotInstall` if it started and ended by itself, or was ended."""
        command = [*self.places.systemctl, "show", "--property=ActiveState,SubState", UNIT]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if "ActiveState=failed" in shown or "SubState=auto-restart" in shown:
            raise CannotInstall(f"it starts, and ends by itself:\n{self._newest_log()}")

    def _newest_log(self) -> str:
        command = [*self.places.journalctl, "-n", "15", "-o", "cat", "--no-pager"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def _is_active(self, name: str) -> bool:
        command = [*self.places.systemctl, "is-active", "--quiet", name]
        return subprocess.run(command, check=False).returncode == 0

    # --- uninstall -----------------------------------------------------------------------------

    def uninstall(self) -> None:
        """Stop it, and remove what was installed, but for configuration and data."""
        self._check_machine()
        places = self.places
        ours = (SOCKET, REDIRECT_SOCKET, *MEMBERS, UNIT)
        names = [name for name in ours if (places.units / name).exists()]
        if names:
            self._run(*places.systemctl, "disable", "--now", *names, check=False)
        for name in names:
            self._remove(places.units / name)
        for name in _DROP_INS:
            self._remove(places.drop_ins / name)
        if not places.user:
            self._remove(_ACCOUNTS)
        self._run(*places.systemctl, "daemon-reload")
        linked.remove(places, self._say, dry_run=self._dry_run)
        if places.program.is_symlink():
            self._remove(places.program)
        if places.releases.exists():
            self._say(f"remove   {places.releases}")
            if not self._dry_run:
                shutil.rmtree(places.releases)
        for left in self.left():
            self._say(f"kept     {left}")

    def left(self) -> Iterator[str]:
        """Yield what an uninstalled service leaves."""
        places = self.places
        for folder in (places.config.parent, places.data, places.cache, places.drop_ins):
            if folder.exists():
                yield str(folder)
        if not places.user:
            yield f"the account {ACCOUNT}"

    def _remove(self, file: Path) -> None:
        if not (file.exists() or file.is_symlink()):
            return
        self._say(f"remove   {file}")
        if not self._dry_run:
            if file.is_symlink():
                file.unlink()
            else:
                managed.remove(file)

    def _run(self, *command: str, what: str = "", check: bool = True) -> int:
        self._say(f"run      {' '.join(command)}")
        if self._dry_run:
            return 0
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise CannotInstall(f"could not {what or ' '.join(command)}: {done.stderr.strip()}")
        return done.returncode


def _shipped(name: str) -> str:
    return skeleton(f"systemd/{name}").read_text(encoding="utf-8")


def _at(settings: Settings, port: int) -> Sequence[tuple[str, int]]:
    addresses: dict[str, None] = {}
    for name in settings.hosts:
        try:
            addresses.update(dict.fromkeys(addresses_of(name)))
        except OSError as error:
            raise CannotInstall(f"host {name}: {why(error)}") from None
    return [(each, port) for each in addresses]
