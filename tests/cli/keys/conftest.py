"""Fixtures of the tests in this folder."""

from pathlib import Path

import pytest

from gateway.cli import main
from tests.cli.keys.commands import Keys


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "conf" / "gateway.yaml"
    file.parent.mkdir()
    file.write_text("port: 0\n")
    return file


@pytest.fixture
def keys(config: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    """``keys(ACTION, ...)`` -> exit status, stdout, stderr."""

    def run(action: str, *arguments: str) -> tuple[int, str, str]:
        status = main(["keys", action, "--config", str(config), *arguments])
        return (status, *capsys.readouterr())

    return run
