"""The unit file, read by systemd's own parser and held against the settings' defaults."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.load import load_settings
from gateway.config.places import skeleton
from gateway.config.settings import Settings
from gateway.quantities import parse_duration

UNIT = skeleton("systemd/llm-gateway.service")
PROGRAM = "/opt/llm-gateway/venv/bin/llm-gateway"


def directives() -> dict[str, list[str]]:
    """Every ``Key=value`` of the unit, in order, without its sections (no key is in two)."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def only(key: str) -> str:
    (value,) = directives()[key]
    return value


def environment() -> dict[str, str]:
    return dict(line.split("=", 1) for line in directives()["Environment"])


def verify(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # verify wants ExecStart to exist; here it is not installed in /opt.
    copy = folder / UNIT.name
    copy.write_text(text.replace(PROGRAM, sys.executable))
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_systemd_accepts_it_without_a_word(tmp_path: Path) -> None:
    done = verify(tmp_path, UNIT.read_text())
    # An unknown key is only a warning, with status 0.
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_have_told_a_mistake(tmp_path: Path) -> None:
    done = verify(tmp_path, UNIT.read_text().replace("KillMode=", "KilMode="))
    assert "KilMode" in done.stderr


def test_the_command_line_is_the_gateways_own() -> None:
    program, *arguments = only("ExecStart").split()
    assert program == PROGRAM
    assert arguments == ["serve", "--config", "/etc/llm-gateway/gateway.yaml"]


def test_unit_notifies_and_stops_as_the_gateway_does() -> None:
    assert only("Type") == "notify"
    assert only("NotifyAccess") == "main"
    assert only("Restart") == "on-failure"
    assert only("KillMode") == "mixed"
    # Streams get shutdown_timeout to finish, and the llama-servers then some seconds to stop.
    assert parse_duration(only("TimeoutStopSec")) >= Settings().shutdown_timeout + 10


def test_what_the_gateway_writes_is_in_the_units_directories(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("port: 8443\n")

    settings = load_settings(file, environ=environment()).settings

    assert settings.data_dir == Path("/var/lib") / only("StateDirectory")
    assert settings.cache.dir == Path("/var/cache") / only("CacheDirectory")
    assert only("CacheDirectoryMode") == "0700"
    assert settings.models_file == Path("/etc/llm-gateway/models.json")


def test_the_service_cannot_change_its_own_configuration() -> None:
    """models.json names arguments and environment of programs: a way to come back if written."""
    assert only("ProtectSystem") == "strict"
    # Seen with systemd 252: it makes the folder the user's own, and writable under strict.
    assert "ConfigurationDirectory" not in directives()
    assert not any("/etc" in value for value in directives().get("ReadWritePaths", []))


def test_gpus_can_be_reached_and_memory_locked() -> None:
    unit = directives()
    for key in ("PrivateDevices", "MemoryDenyWriteExecute"):
        assert key not in unit
    devices = {value.split()[0] for value in unit["DeviceAllow"]}
    assert devices == {"char-nvidia*", "char-drm", "char-kfd", "/dev/dxg"}
    assert only("LimitMEMLOCK") == "infinity"
    assert only("OOMPolicy") == "continue"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_exposure_that_systemd_finds_is_at_most_two() -> None:
    """Of 10. The unit tells why the rest is left open."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["llm-gateway.socket", "llm-gateway-redirect.socket"])
def test_systemd_accepts_the_sockets(tmp_path: Path, name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = UNIT.read_text().replace(PROGRAM, sys.executable)
    (tmp_path / UNIT.name).write_text(unit)  # which the socket starts
    copy = shutil.copy(UNIT.with_name(name), tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["cuda", "ports", "rocm"])
def test_systemd_accepts_the_unit_with_each_drop_in(tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    shutil.copy(UNIT.parent / f"drop-ins/{name}.conf", folder)
    done = verify(tmp_path, UNIT.read_text())
    assert (done.returncode, done.stderr) == (0, "")
