"""The unit of systemd, as a ``systemctl`` tells of it that stands in for systemd's."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.places import skeleton
from gateway.config.settings import Settings
from gateway.doctor import service
from gateway.doctor.checks import Level, Subject
from gateway.models.catalog import EMPTY

LOADED = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no"


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file whose text it answers for the system's unit."""
    answer = tmp_path / "answer"
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --system ] && exec cat {answer}\necho LoadState=not-found\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(service, "BOOTED", tmp_path)
    return answer


@pytest.mark.parametrize(
    ("text", "level", "what"),
    [
        (LOADED, Level.OK, "active, and starts with the machine"),
        ("LoadState=not-found", Level.OK, "not installed"),
        ("LoadState=bad-setting", Level.ERROR, "its unit is bad-setting"),
        (LOADED.replace("active", "failed") + "\nResult=exit-code", Level.ERROR, "(exit-code)"),
        (LOADED.replace("enabled", "disabled"), Level.WARNING, "doesn't start with the machine"),
        (LOADED.replace("active", "inactive"), Level.WARNING, "is inactive"),
        (LOADED.replace("=no", "=yes"), Level.WARNING, "systemd has the old one"),
    ],
)
def test_the_state_of_the_service_is_told(
    systemctl: Path, text: str, level: Level, what: str
) -> None:
    systemctl.write_text(text)
    finding, *_ = service.check_service(Subject(Settings(), EMPTY, {}))
    assert finding.level is level
    assert what in finding.what


def test_unit_of_an_earlier_version_is_warned_of(systemctl: Path, tmp_path: Path) -> None:
    shipped = skeleton(f"systemd/{service.UNIT}").read_text()
    unit = tmp_path / "unit"
    unit.write_text(shipped.replace("/opt/llm-gateway/venv", "/srv/venv"))
    systemctl.write_text(f"{LOADED}\nFragmentPath={unit}")
    where = Subject(Settings(), EMPTY, {})
    assert [one.level for one in service.check_service(where)] == [Level.OK]
    unit.write_text(shipped.replace("WatchdogSec=60s\n", ""))
    old, active = service.check_service(where)
    assert old.level is Level.WARNING
    assert old.what.endswith("without WatchdogSec")
    assert active.level is Level.OK


def test_machine_without_systemd_is_ok(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(service, "BOOTED", tmp_path / "nothing")
    (finding,) = service.check_service(Subject(Settings(), EMPTY, {}))
    assert finding.level is Level.OK
