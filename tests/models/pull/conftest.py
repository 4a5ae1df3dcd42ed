"""Fixtures of the tests in this folder."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from gateway.models import fetching
from tests.hub_server import HubServer, Repo, hub_server
from tests.models.pull.fetching import NAME


@pytest.fixture
def data() -> bytes:
    return random.Random(5).randbytes(3_000_000)


@pytest.fixture
def server(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(fetching, "WAITS", (0.01, 0.01, 0.01))
    with hub_server() as server:
        server.repos[NAME] = Repo({"thing-Q4_0.gguf": data, "other-file.txt": b"x"})
        yield server
