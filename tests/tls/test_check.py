"""What `check` and `serve` say of each thing that can be wrong with key and certificate."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from tests.harness import COMMAND, FAKE, Served, project

DAY = datetime.timedelta(days=1)


def configured(tls: Any, folder: Path, **changed: Any) -> str:
    values = {name: str(getattr(tls, name)) for name in ("private_key", "certificate")}
    if tls.passphrase is not None:
        values["passphrase"] = tls.passphrase.reveal()
    settings = {"enabled": True, **values, **changed}
    return str(project(folder / "p", {}, llama_server=str(FAKE), tls=settings))


def wrong_passphrase(forge: Any, folder: Path) -> str:
    return configured(forge.write(forge.issue(), passphrase="right"), folder, passphrase="wrong")


def another_key(forge: Any, folder: Path) -> str:
    return configured(forge.write(forge.issue(), key=forge.issue().key_pem()), folder)


def no_such_file(forge: Any, folder: Path) -> str:
    return configured(forge.write(forge.issue()), folder, certificate="ssl/none.pem")


def expired(forge: Any, folder: Path) -> str:
    pair = forge.issue(start=forge.now - 9 * DAY, end=forge.now - DAY)
    return configured(forge.write(pair), folder)


def not_yet_valid(forge: Any, folder: Path) -> str:
    return configured(forge.write(forge.issue(start=forge.now + DAY)), folder)


def readable_by_all(forge: Any, folder: Path) -> str:
    tls = forge.write(forge.issue())
    tls.private_key.chmod(0o644)
    return configured(tls, folder)


@pytest.mark.parametrize(
    ("make", "words", "status"),
    [
        (wrong_passphrase, "tls.passphrase: is wrong: it does not open the private key", 1),
        (another_key, "does not belong to the certificate", 1),
        (no_such_file, "cannot be read: No such file or directory", 1),
        (expired, "tls.certificate: expired on ", 1),
        (not_yet_valid, "tls.certificate: is not valid before ", 1),
        (readable_by_all, "can be read by every user of this machine: chmod 640 it", 0),
    ],
)
def test_check_tells_what_is_wrong_with_certificates(
    make: Callable[[Any, Path], str],
    words: str,
    status: int,
    forge: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "--config", make(forge, tmp_path)]) == status
    said = capsys.readouterr()
    assert words in (said.out if status else said.err)


def test_serve_refuses_what_cannot_be_served(forge: Any, tmp_path: Path) -> None:
    config = wrong_passphrase(forge, tmp_path)
    serve = subprocess.run(
        [COMMAND, "serve", "--config", config], capture_output=True, text=True, timeout=60
    )
    assert serve.returncode == 1
    assert "tls.passphrase: is wrong: it does not open the private key" in serve.stderr
    assert "Traceback" not in serve.stderr


def test_serve_tells_of_what_it_serves_nevertheless(
    forge: Any, serve: Callable[..., Served], tmp_path: Path
) -> None:
    served = serve("--config", readable_by_all(forge, tmp_path))
    assert served.url.startswith("https://")
    assert served.wait_for(r"(can be read by every user of this machine)", served.log)
