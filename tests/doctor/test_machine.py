"""Room, devices and the clock of the machine that the tests run on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import Settings
from gateway.doctor import machine
from gateway.doctor.checks import Finding, Level, Subject
from gateway.models.catalog import EMPTY, parse_catalog
from tests.harness import FAKE


def subject(tmp_path: Path, *, models: str = "{}", **more: Any) -> Subject:
    storage = tmp_path / "LLMs"
    settings = Settings(
        data_dir=tmp_path / "data",
        llm_storage=storage,
        models_file=tmp_path / "data/models.json",
    )
    catalog = parse_catalog(models, file="m") if models != "{}" else EMPTY
    return Subject(settings, catalog, **{"environ": {}, **more})


def by_subject(found: Any) -> dict[str, Finding]:
    return {one.subject: one for one in found}


def test_disks_without_room_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_subject(machine.check_disks(subject(tmp_path)))
    assert " free of " in found["data_dir"].what
    assert found["llm_storage"].level is Level.OK  # not there, and not needed
    needed = '{"m": {"params": {"model": "m.gguf"}}}'
    found = by_subject(machine.check_disks(subject(tmp_path, models=needed)))
    assert found["llm_storage"].level is Level.ERROR
    monkeypatch.setattr(machine, "FULL", 2**60)
    monkeypatch.setattr(machine, "NO_MODEL", 2**60)
    (tmp_path / "LLMs").mkdir()
    found = by_subject(machine.check_disks(subject(tmp_path)))
    assert (found["data_dir"].level, found["data_dir"].do) == (Level.ERROR, "make room there")
    assert found["llm_storage"].level is Level.WARNING


def test_memory_is_told_without_a_gpu(tmp_path: Path) -> None:
    devices, memory = machine.check_devices(subject(tmp_path))
    assert (devices.name, devices.level) == ("devices", Level.OK)
    assert (memory.name, " free of " in memory.what) == ("memory", True)


def test_present_gpu_is_ok_and_a_missing_one_an_error(tmp_path: Path) -> None:
    gpus = tmp_path / "gpus.json"
    gpus.write_text(json.dumps({"CUDA0": ["NVIDIA X", 24576, 1024]}))
    (tmp_path / "data").mkdir()
    environ = {**os.environ, "FAKE_GPUS": str(gpus)}
    seen = {"program": [str(FAKE)], "gpus": ["NVIDIA X", "NVIDIA Y"]}
    (tmp_path / "data/gpus.json").write_text(json.dumps(seen))
    where = subject(tmp_path, environ=environ, program=(str(FAKE),))
    gone, card, memory = machine.check_devices(where)
    assert (gone.level, "the GPU NVIDIA Y is gone" in gone.what) == (Level.ERROR, True)
    assert (card.subject, card.what) == ("CUDA0", "NVIDIA X, 23.0 GiB free of 24.0 GiB")
    assert memory.name == "memory"


def test_file_from_the_future_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data/models.json"
    file.touch()
    os.utime(file, (time.time(), time.time() + 3600))
    (finding,) = machine.check_clock(subject(tmp_path))
    assert finding.level is Level.ERROR
    assert "models.json was written later" in finding.what
    os.utime(file)
    (finding,) = machine.check_clock(subject(tmp_path))
    expected = Level.WARNING if machine.is_synchronised() is False else Level.OK
    assert finding.level is expected
