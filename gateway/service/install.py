"""Installs the service, brings it up to date, and removes it. Each step may be repeated.

Everything blocks: it is for the command line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.config.load import load_settings
from gateway.config.places import skeleton
from gateway.config.settings import Settings
from gateway.listen_on import addresses_of, why
from gateway.service import managed, release, units
from gateway.service.managed import Written
from gateway.service.places import ACCOUNT, REDIRECT_SOCKET, SOCKET, UNIT, Places

#: A folder that exists if systemd has booted the machine (sd_booted(3)).
_BOOTED: Final = Path("/run/systemd/system")
_ACCOUNTS: Final = Path("/etc/sysusers.d/llm-gateway.conf")
_GPU_GROUPS: Final = ("video", "render")
_DEVICES: Final = Path("/sys/bus/pci/devices")
_SECRETS: Final = """\
# Variables of the service, for root alone. Any setting can be here, and what models.json asks for:
# LLM_GATEWAY_TLS__PASSPHRASE=...
"""


class CannotInstall(Exception):
    """The service can't be installed; the message says why, and what to do."""


class Service:
    """The service at ``places``. ``say`` is told each thing that is done, or would be."""

    def __init__(
        self, places: Places, say: Callable[[str], object], *, dry_run: bool = False
    ) -> None:
        self.places = places
        self._say = say
        self._dry_run = dry_run
        self._changed: set[str] = set()  # names of units that were written

    # --- install -----------------------------------------------------------------------------

    @property
    def installed(self) -> bool:
        """Whether there is a unit."""
        return (self.places.units / UNIT).exists()

    def install(self) -> None:
        """Bring everything up to date, and have it run; what is already right stays untouched.

        If the new program doesn't start, the one before runs again. Raises
        :class:`CannotInstall`, ``CannotRelease``, ``InvalidFiles`` or ``OSError``.
        """
        self._check_machine()
        places = self.places
        before = release.in_use(places.program)
        changed = self._make_account()
        self._make_configuration()
        used = self._make_release()
        self._check(used or before)
        changed |= self._write_units()
        changed |= self._switch(before, used)
        self._start(changed, before)
        if used is not None and not self._dry_run:
            release.clean_up(places.releases, used)

    def _check_machine(self) -> None:
        if not _BOOTED.is_dir():
            raise CannotInstall(
                "this machine wasn't started by systemd: run `llm-gateway serve` by what starts "
                "its services"
            )
        if not self.places.user and os.geteuid() != 0:
            raise CannotInstall(
                "a service of the whole machine is root's to install: use sudo, or --user for a "
                "service of your own"
            )

    def _make_account(self) -> bool:
        """Make the user, with the groups of GPUs; return whether that was new."""
        if self.places.user:
            return False
        groups = [name for name in _GPU_GROUPS if _has_group(name)]
        home = self.places.data
        text = f'u {ACCOUNT} - "LLM-API Gateway" {home} /usr/sbin/nologin\n' + "".join(
            f"m {ACCOUNT} {name}\n" for name in groups
        )
        if not self._write(_ACCOUNTS, text):
            return False
        self._run("systemd-sysusers", str(_ACCOUNTS), what=f"make the account {ACCOUNT}")
        return True

    def _make_configuration(self) -> None:
        places = self.places
        for target, source in (
            (places.config, "conf/gateway.yaml"),
            (places.models, "data/models.json"),
        ):
            self._make_file(target, self._in_place(skeleton(source).read_text()), 0o640)
        self._make_file(places.environment, _SECRETS, 0o600)
        if not places.user and not self._dry_run:
            self._let_account_read()

    def _let_account_read(self) -> None:
        """Let the service read its configuration and certificate, and neither write them, nor let
        others read them.
        """
        places, tls = self.places, self.settings.tls
        folder = places.config.parent
        named = (places.config, places.models, tls.private_key, tls.certificate, tls.ca_chain)
        for file in named:
            if file is None or not file.is_relative_to(folder) or not file.is_file():
                continue  # another program's, like certbot's
            shutil.chown(file, group=ACCOUNT)
            file.chmod(0o640)
            if not file.parent.stat().st_mode & 0o001:
                shutil.chown(file.parent, group=ACCOUNT)
                file.parent.chmod(0o750)

    def _in_place(self, text: str) -> str:
        """Return a new configuration with the places of the service, which commands read there."""
        text = re.sub(r"^data_dir: data\b", f"data_dir: {self.places.data}", text, flags=re.M)
        models = f"models_file: {self.places.models}"
        return re.sub(r"^models_file: data/models.json\b", models, text, flags=re.M)

    def _make_file(self, target: Path, text: str, mode: int) -> None:
        if target.exists():
            self._say(f"kept     {target}")
            return
        self._say(f"write    {target}")
        if self._dry_run:
            return
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        target.touch(mode=mode)
        target.chmod(mode)
        target.write_text(text, encoding="utf-8")

    def _make_release(self) -> Path | None:
        places = self.places
        if self._dry_run:
            self._say(f"copy     this program to {places.releases}")
            return None
        used = release.make(places.releases)
        self._say(f"program  {used}")
        return used

    def _check(self, used: Path | None) -> None:
        """Let the program that is to run say whether the configuration is right."""
        if self._dry_run or used is None:
            return
        command = [str(used / "bin/llm-gateway"), "check", "--config", str(self.places.config)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **self._variables},
            timeout=120,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise CannotInstall(f"the configuration is not right, nothing was changed:\n{said}")

    @property
    def _variables(self) -> dict[str, str]:
        """The service's variables: places of files, and secrets."""
        file = self.places.environment
        return {
            **(variables_in(file.read_text(encoding="utf-8")) if file.exists() else {}),
            "LLM_GATEWAY_DATA_DIR": str(self.places.data),
            "LLM_GATEWAY_MODELS_FILE": str(self.places.models),
            "LLM_GATEWAY_CACHE__DIR": str(self.places.cache),
        }

    @property
    def settings(self) -> Settings:
        """The settings of the configuration, or of the one that will be made. Raises
        ``InvalidFiles``.
        """
        file = self.places.config
        given = file if file.exists() else None
        return load_settings(given, environ={**os.environ, **self._variables}).settings

    # --- units -------------------------------------------------------------------------------

    def _write_units(self) -> bool:
        places = self.places
        changed = self._write(places.units / UNIT, units.service(_shipped(UNIT), places))
        sockets = self._sockets()
        for name, text in sockets.items():
            changed |= self._write(places.units / name, text)
        if REDIRECT_SOCKET not in sockets:
            changed |= self._forget_redirect()
        if not places.user:
            shipped = {name: _shipped(f"drop-ins/{name}") for name in ("cuda.conf", "rocm.conf")}
            for name, text in units.gpu_drop_ins(_gpu_vendors(), shipped).items():
                changed |= self._write(places.drop_ins / name, text)
        return changed

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

    def _forget_redirect(self) -> bool:
        file = self.places.units / REDIRECT_SOCKET
        if not file.exists() or not managed.is_ours(file.read_text(encoding="utf-8")):
            return False
        self._run(*self.places.systemctl, "disable", "--now", REDIRECT_SOCKET)
        self._say(f"remove   {file}")
        return self._dry_run or managed.remove(file)

    def _write(self, file: Path, text: str) -> bool:
        """Return whether that changed something, or would."""
        if self._dry_run:
            self._say(f"write    {file}")
            return True
        written = managed.write(file, text)
        if written is Written.EDITED:
            self._say(f"kept     {file}, which was edited; this version's is {file}.new")
        else:
            self._say(f"{written.value:<8} {file}")
        if written not in (Written.NEW, Written.UPDATED):
            return False
        self._changed.add(file.name)
        return True

    # --- switching over ----------------------------------------------------------------------

    def _switch(self, before: Path | None, used: Path | None) -> bool:
        if used is None or used == before:
            return False
        release.use(self.places.program, used)
        return True

    def _start(self, changed: bool, before: Path | None) -> None:
        control = self.places.systemctl
        names = [*self._sockets(), UNIT]
        if changed:
            self._run(*control, "daemon-reload")
        self._run(*control, "enable", *names)
        if self._dry_run:
            self._say("start it, and wait until it is ready")
            return
        if self._is_active(UNIT) and not changed:
            return
        try:
            self._restart()
        except CannotInstall as problem:
            now = release.in_use(self.places.program)
            if before is None or before == now:
                raise
            release.use(self.places.program, before)
            self._restart()
            raise CannotInstall(
                f"{problem}\nThe version before ({before.name}) runs again."
            ) from None

    def _restart(self) -> None:
        """Start it, or anew. Sockets whose addresses are the same stay open meanwhile."""
        control = self.places.systemctl
        for name in self._sockets():
            if name in self._changed or not self._is_active(name):
                self._run(*control, "stop", UNIT, name)
                self._run(*control, "start", name)
        if self._run(*control, "restart", UNIT, check=False) != 0:
            log = subprocess.run(
                [*self.places.journalctl, "-n", "15", "-o", "cat", "--no-pager"],
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            raise CannotInstall(f"it doesn't start:\n{log.strip()}")

    def _is_active(self, name: str) -> bool:
        command = [*self.places.systemctl, "is-active", "--quiet", name]
        return subprocess.run(command, check=False).returncode == 0

    # --- uninstall -----------------------------------------------------------------------------

    def uninstall(self) -> None:
        """Stop it, and remove what was installed, but for configuration and data."""
        self._check_machine()
        places = self.places
        names = [name for name in (SOCKET, REDIRECT_SOCKET, UNIT) if (places.units / name).exists()]
        if names:
            self._run(*places.systemctl, "disable", "--now", *names, check=False)
        for name in names:
            self._remove(places.units / name)
        for name in ("cuda.conf", "rocm.conf"):
            self._remove(places.drop_ins / name)
        if not places.user:
            self._remove(_ACCOUNTS)
        self._run(*places.systemctl, "daemon-reload")
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


def variables_in(text: str) -> dict[str, str]:
    """Return the variables in ``text`` as ``EnvironmentFile=`` reads them (systemd.exec(5)).

    A value may stand in quotes; continued lines are not understood.
    """
    found = {}
    for line in map(str.strip, text.splitlines()):
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found[name.strip()] = value[1:-1] if quoted else value
    return found


def _at(settings: Settings, port: int) -> Sequence[tuple[str, int]]:
    addresses: dict[str, None] = {}
    for host in settings.hosts:
        try:
            addresses.update(dict.fromkeys(addresses_of(host)))
        except OSError as error:
            raise CannotInstall(f"host {host}: {why(error)}") from None
    return [(each, port) for each in addresses]


def _gpu_vendors() -> Iterator[str]:
    """Yield the PCI vendors of display controllers (class 03)."""
    for device in _DEVICES.glob("*"):
        try:
            if (device / "class").read_text().startswith("0x03"):
                yield (device / "vendor").read_text().strip()
        except OSError:
            continue


def _has_group(name: str) -> bool:
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
