"""Real servers elsewhere: another gateway, and a llama-server."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.backends.command import bundled_program
from tests.api.remote.entries import CHAT, USER
from tests.harness import MakeGateway, fake_model, tied
from tests.tiny_model import GRAMMAR


async def test_gateway_works_behind_a_gateway(make_gateway: MakeGateway, tmp_path: Path) -> None:
    inner = {"there": fake_model(tmp_path, personalities={"p": "Inner."}, chunks=3)}
    async with make_gateway(inner, folder="inner") as behind:
        _, key = await behind.gateway.ring.create("outer", "", admin=False)
        outer = {
            "m": {"url": behind.url, "key": key, "modelName": "there:p"},
            "wrong": {"url": behind.url, "key": "llmgw_wrong", "modelName": "there"},
        }
        async with make_gateway(outer, folder="outer") as running, running.openai() as client:
            answer = await client.chat.completions.create(model="m", messages=[USER])
            assert answer.choices[0].message.content == "fake answer"
            stream = await client.chat.completions.create(model="m", messages=[USER], stream=True)
            texts = [chunk.choices[0].delta.content async for chunk in stream]
            assert "".join(text or "" for text in texts) == "word0 word1 word2 "
            assert (await running.json("GET", "/chat/ask?question=hi&model=m"))[0] == 200
            status, answer = await running.chat("wrong")
            message = "the server of 'wrong' cannot be used: it refuses the key"
            assert (status, answer["error"]["message"]) == (502, message)


@pytest.fixture
def llama_server(tiny_model: Path) -> Any:
    """The bundled llama-server on a port of its own."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    flags = ["--host", "127.0.0.1", "--port", str(port), "--model", str(tiny_model)]
    flags += ["--alias", "tiny", "--ctx-size", "2048", "--parallel", "2"]
    process = subprocess.Popen(
        tied(*bundled_program(), *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


async def test_a_real_llama_server_elsewhere_answers(
    make_gateway: MakeGateway, llama_server: str, subtests: pytest.Subtests
) -> None:
    models = {"m": {"url": llama_server, "modelName": "tiny", "personalities": {"p": "Be brief."}}}
    async with make_gateway(models) as running:
        async with asyncio.timeout(60):
            while (await running.json("POST", "/loadModel", json={"model": "m"}))[0] != 200:
                await asyncio.sleep(0.05)  # it is still starting
        fixed: dict[str, Any] = {"grammar": GRAMMAR, "temperature": 0, "max_tokens": 30}
        status, whole = await running.chat("m:p", **fixed)
        assert status == 200
        text = whole["choices"][0]["message"]["content"]
        assert whole["responses"] == text
        assert len(text) == 20
        pieces = []
        async with running.openai() as client:
            stream = await client.chat.completions.create(
                model="m:p",
                messages=[USER],
                stream=True,
                temperature=0,
                max_tokens=30,
                extra_body={"grammar": GRAMMAR},
            )
            async for chunk in stream:
                pieces += [choice.delta.content or "" for choice in chunk.choices]
        assert "".join(pieces) == text
        status, tokens = await running.json(
            "POST", "/tokenize", json={"model": "m", "content": "a"}
        )
        assert (status, len(tokens["tokens"]) > 0) == (200, True)
        prompted = {"model": "m", "prompt": "a", "personality": "p", **fixed}
        status, completed = await running.json("POST", "/v1/completions", json=prompted)
        assert (status, len(completed["choices"][0]["text"])) == (200, 20)
        status, answer = await running.chat("m", "a " * 3000)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        # What its client got wrong is its client's to change, and not our models.json's.
        before = await running.json("GET", "/chat/errors")
        for path, body, said in (
            ("/v1/embeddings", {"input": "x"}, "--embeddings"),
            (CHAT, {"messages": [{"content": "x"}]}, "`messages[0].role`"),
            (CHAT, {"messages": [USER], "tools": [{"type": "function"}]}, "function"),
        ):
            with subtests.test(f"{path!r:.80}"):
                async with running.request("POST", path, json={"model": "m", **body}) as response:
                    answer = await response.json()
                    assert response.status == 400
                    assert response.headers["x-should-retry"] == "false"
                assert said in answer["error"]["message"]
                assert "models.json" not in answer["error"]["message"]
        assert await running.json("GET", "/chat/errors") == before
        (model,) = running.gateway.scheduler.status()
        assert (model.state, model.servers[0].up) == (State.READY, True)
