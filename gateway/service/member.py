"""A part of a cluster as a service of systemd: its head, or a node.

It has the program, the account and the folders of the gateway's own service, whether that is
installed or not, and a unit like the gateway's. Everything blocks: it is for the command line.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.cluster.dismissal import EXIT_STATUS
from gateway.cluster.token import save_token, token_file
from gateway.config.places import skeleton
from gateway.service import host, linked, managed, release, units
from gateway.service.errors import CannotInstall
from gateway.service.install import Service
from gateway.service.places import ACCOUNT, UNIT, Places

HEAD: Final = "head"
NODE: Final = "node"
#: Role -> the command that its unit runs, and what it says of itself.
_COMMAND: Final = {HEAD: "head", NODE: "join"}
_ABOUT: Final = {HEAD: "the head of its cluster", NODE: "a node of a cluster"}
#: Lines of the gateway's unit that are not for it: it is told neither to reload nor to prove that
#: it lives, and saves no conversations.
_NOT_OURS: Final = re.compile(r"^(ExecReload|WatchdogSec|Cache\w+|Wants|After)=.*\n", re.M)
#: What lets the gateway's service use the Ray that runs beside it, whose folder is in /run.
_BESIDE: Final = "cluster.conf"
_BESIDE_TEXT: Final = """# LLM-API Gateway, by `llm-gateway node head --service`.

[Unit]
After=llm-gateway-head.service llm-gateway-node.service

[Service]
# Ray's log of what the gateway asks of it is there.
ReadWritePaths=-/run/llm-gateway-head -/run/llm-gateway-node
# Ray looks for its own processes, which are in other namespaces: without this it waits for ever.
ProtectProc=default
"""
#: It stays ended when its node is removed from the cluster, until somebody starts it.
_REMOVED: Final = f"SuccessExitStatus={EXIT_STATUS}"


def unit_of(role: str) -> str:
    """Return the name of its unit."""
    return f"llm-gateway-{role}.service"


class MemberService(Service):
    """The service of ``role`` at ``places``. ``say`` is told each thing that is done, or would
    be.
    """

    def __init__(
        self, places: Places, role: str, say: Callable[[str], object], *, dry_run: bool = False
    ) -> None:
        super().__init__(places, say, dry_run=dry_run)
        self._role = role
        self._unit = unit_of(role)

    @property
    def _runs(self) -> str:
        return f"node {_COMMAND[self._role]}"

    @property
    def _words(self) -> str:
        return self._runs

    @property
    def data_dir(self) -> Path:
        """The folder of its data, with the cluster's token below it."""
        return self.places.data

    def install_member(self, words: Sequence[str], token: str | None) -> None:
        """Have ``llm-gateway node COMMAND WORDS`` run, now and from each start of the machine on.

        ``token``: of the cluster, if it is another's. Returns when it works. Raises
        :class:`CannotInstall`, ``CannotRelease``, ``BadRequest`` or ``OSError``.
        """
        self._check_machine()
        self._make_account()
        self._configuration.make()
        self._use_program()
        if token is not None:
            self._keep_token(token)
        changed = self._write(self.places.units / self._unit, self._text(words))
        if not self.places.user:
            for name, text in self._gpu_drop_ins().items():
                changed |= self._write(self.places.units / f"{self._unit}.d" / name, text)
            if self._write(self.places.drop_ins / _BESIDE, _BESIDE_TEXT) and self.installed:
                self._say(f"         restart {UNIT}, so that it can use the cluster")
        control = self.places.systemctl
        if changed:
            self._run(*control, "daemon-reload")
        self._run(*control, "enable", self._unit)
        if self._run(*control, "restart", self._unit, check=False) != 0:
            raise CannotInstall(f"it doesn't work:\n{self._newest_log()}")

    def leave(self) -> bool:
        """End and remove what :meth:`install_member` has installed; return whether there was
        anything.
        """
        self._check_machine()
        places = self.places
        if not (places.units / self._unit).exists():
            return False
        self._run(*places.systemctl, "disable", "--now", self._unit, check=False)
        self._remove(places.units / self._unit)
        for file in sorted((places.units / f"{self._unit}.d").glob("*.conf")):
            if managed.is_ours(file.read_text(encoding="utf-8")):
                self._remove(file)
        others = [unit_of(role) for role in _ABOUT if role != self._role] + [UNIT]
        if not any((places.units / name).exists() for name in others):
            self._remove(places.drop_ins / _BESIDE)
            linked.remove(places, self._say, dry_run=self._dry_run)
            if places.program.is_symlink():
                self._remove(places.program)
            if places.releases.exists():
                self._say(f"remove   {places.releases}")
                if not self._dry_run:
                    shutil.rmtree(places.releases)
        self._run(*places.systemctl, "daemon-reload")
        return True

    def _use_program(self) -> None:
        """Have the program copied, and its link made, where that isn't done yet."""
        before, made = release.in_use(self.places.program), self._make_release()
        if before is not None and made is not None and made != before:
            raise CannotInstall(
                f"the service here runs another version ({before.name}): bring it up to date "
                "first, with `llm-gateway service upgrade`"
            )
        if made is not None and before is None:
            release.use(self.places.program, made)
        linked.make(self.places, self._say, dry_run=self._dry_run)

    def _keep_token(self, token: str) -> None:
        self._say(f"write    {token_file(self.data_dir)}")
        if self._dry_run:
            return
        file = save_token(self.data_dir, token)
        if not self.places.user:
            for one in (self.data_dir, file.parent, file):
                shutil.chown(one, user=ACCOUNT, group=ACCOUNT)

    def _text(self, words: Sequence[str]) -> str:
        places, role = self.places, self._role
        text = units.service(
            skeleton(f"systemd/{UNIT}").read_text(encoding="utf-8"), places, waits_for_reload=False
        )
        text = _NOT_OURS.sub("", text)
        text = re.sub(
            r"^Description=.*$", f"Description=LLM-API Gateway, {_ABOUT[role]}", text, flags=re.M
        )
        arguments = " ".join(map(_quoted, (_COMMAND[role], *words, "--config", str(places.config))))
        command = f"ExecStart={places.command} node {arguments}"
        text = re.sub(r"^ExecStart=.*$", lambda _: command, text, flags=re.M)
        # Ray's sockets are there, which a gateway beside it uses: they stay through a restart.
        folder = f"RuntimeDirectory=llm-gateway-{role}\nRuntimeDirectoryPreserve=yes"
        text = re.sub(r"^RuntimeDirectory=.*$", folder, text, flags=re.M)
        waits = (
            "Wants=network-online.target\nAfter=network-online.target nvidia-persistenced.service"
        )
        text = text.replace("[Unit]\n", f"[Unit]\n{waits}\n", 1)
        if role == NODE:
            text = text.replace("\nRestart=", f"\n{_REMOVED}\nRestart=", 1)
        return text.replace("Type=notify\n", "Type=notify\nTimeoutStartSec=300s\n", 1)

    def _gpu_drop_ins(self) -> dict[str, str]:
        shipped = {
            name: skeleton(f"systemd/drop-ins/{name}").read_text(encoding="utf-8")
            for name in ("cuda.conf", "rocm.conf")
        }
        wanted = units.gpu_drop_ins(host.gpu_vendors(), shipped) if self._role == NODE else {}
        if not host.has_user_namespaces():
            wanted[units.NO_PRIVATE_USERS] = units.WITHOUT_PRIVATE_USERS
        return wanted

    def _newest_log(self) -> str:
        command = [*self.places.journalctl[:-1], self._unit, "-n", "15", "-o", "cat", "--no-pager"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()


def _quoted(word: str) -> str:
    """Return a word as a unit's command line has it (systemd.service(5), "Command lines")."""
    text = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@:./,=+-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
