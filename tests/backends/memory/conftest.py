"""Fixtures of the tests in this folder."""

from pathlib import Path

import pytest

from tests.backends.memory.headers import LLAMA, MIB, gguf


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "m.gguf").write_bytes(gguf(LLAMA, weights=MIB))
    return tmp_path
