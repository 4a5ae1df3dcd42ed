"""The ``llm`` command line, told of the gateway as its documentation says for such servers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.clients.tried import tried
from tests.harness import MakeGateway
from tests.parrot_model import ANSWER, REPORT

LLM = Path(sys.executable).with_name("llm")
pytestmark = pytest.mark.skipif(not LLM.exists(), reason="needs llm")
WEATHER = "def weather(city: str) -> str:\n    return f'40 degrees in {city}'\n"


async def run(environ: dict[str, str], *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        LLM,
        *arguments,
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@tried("llm", "chat", "stream", "tools", "responses")
async def test_llm_gets_answers(
    make_gateway: MakeGateway, parrot_model: Path, tmp_path: Path
) -> None:
    model = {
        "params": {"model": str(parrot_model), "ctxSize": 2048, "threads": 1},
        "personalities": {"pirate": "Arr."},
    }
    async with make_gateway({"m": model}, llama_server="auto") as running:
        base = {"api_base": f"{running.url}/v1", "api_key_name": "gateway"}
        extra = [
            {"model_id": "box", "model_name": "m:pirate", "supports_tools": True, **base},
            {"model_id": "box-responses", "model_name": "m", "responses": True, **base},
        ]

        async def llm(name: str, *arguments: str) -> str:
            home = tmp_path / name  # one each: they migrate their databases when they start
            home.mkdir()
            (home / "extra-openai-models.yaml").write_text(json.dumps(extra))  # JSON is YAML
            (home / "keys.json").write_text(json.dumps({"gateway": running.key}))
            # No plugins: the demo model's wheel is one, which asks for a binding of its own.
            return await run({"LLM_USER_PATH": str(home), "LLM_LOAD_PLUGINS": ""}, *arguments)

        answers = await asyncio.gather(
            llm("tools", "-m", "box", "-s", "Be brief.", "--functions", WEATHER, "Is it hot?"),
            llm("responses", "-m", "box-responses", "--no-stream", "hi"),
        )
        assert [answer.strip() for answer in answers] == [REPORT, ANSWER]
        records = running.gateway.accounting.recent
        assert sorted(str(record.personality) for record in records) == ["None", "pirate", "pirate"]
        assert {record.status for record in records} == {200}
