"""Models whose server isn't made with llama.cpp's HTTP library."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import other_servers
from tests.harness import MakeGateway


@pytest.mark.parametrize("kind", ["go", "nginx", "node"])
async def test_it_loads_and_answers(kind: str, make_gateway: MakeGateway, tmp_path: Path) -> None:
    program = other_servers.make(kind, tmp_path)
    gguf = tmp_path / "m.gguf"
    gguf.touch()
    model = {"params": {"model": str(gguf)}}
    async with make_gateway({"m": model}, llama_server=str(program)) as running:
        for _ in range(2):  # on a kept connection too
            status, answer = await running.chat("m")
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "from elsewhere")
