"""What a backend really gets: recorded by the scripted llama-server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, fake_model

TEACHER = "You are a teacher."


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def recorded(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_a_personality_is_in_the_body_of_every_dialect(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    model = fake_model(tmp_path, record=record, personalities={"teacher": TEACHER, "mute": ""})
    model["params"]["logitBias"] = "15+2.5"
    model["mmproj"] = model["params"]["model"]  # it takes pictures
    async with make_gateway({"m": model}) as running:
        user = {"role": "user", "content": "hi"}
        system = {"role": "system", "content": "Be brief."}
        late = {"role": "developer", "content": [{"type": "text", "text": "In French."}]}
        image = {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
        cases: list[tuple[str, list[Any], list[Any]]] = [
            ("m", [user], [user]),
            ("m", [system, user], [system, user]),
            ("m:teacher", [user], [{"role": "system", "content": TEACHER}, user]),
            (
                "m:teacher",
                [system, user, late],
                # The scripted llama-server has no /apply-template, so it takes no late ones.
                [
                    {"role": "system", "content": f"{TEACHER}\n\nBe brief."},
                    {"role": "user", "content": [text("hi"), text("\n\n"), text("In French.")]},
                ],
            ),
            (
                "m:teacher",
                [image, user],
                [
                    {
                        "role": "system",
                        "content": [{"type": "text", "text": TEACHER}, *image["content"]],
                    },
                    user,
                ],
            ),
        ]
        for name, messages, expected in cases:
            body = {"model": name, "messages": messages, "seed": 2**70, "unknown": {"b": 1, "a": 2}}
            status, _ = await running.json("POST", "/v1/chat/completions", json=body)
            assert status == 200
            sent = recorded(record)[-1]
            assert sent["messages"] == expected
            assert sent["seed"] == 2**70
            assert list(sent["unknown"]) == ["b", "a"]
            assert sent["logit_bias"] == [[15, 2.5]]
        await running.chat("m", personality="teacher", logit_bias=[])
        sent = recorded(record)[-1]
        assert sent["messages"][0]["content"] == TEACHER
        assert "personality" not in sent
        assert sent["logit_bias"] == []


async def test_the_loaded_personality_goes_into_every_request(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    record = tmp_path / "record"
    model = fake_model(tmp_path, record=record, personalities={"teacher": TEACHER})
    async with make_gateway({"m": model, "other": fake_model(tmp_path)}) as running:
        wanted = {"model": "m", "personality": "teacher"}
        assert (await running.json("POST", "/loadModel", json=wanted))[0] == 200
        for name in ("NotNeeded", "", "m", None):
            with subtests.test(f"{name!r:.80}"):
                assert (await running.chat(name))[0] == 200
                assert recorded(record)[-1]["messages"][0]["content"] == TEACHER
        await running.chat("m", personality="none")
        assert recorded(record)[-1]["messages"][0]["role"] == "user"
        status, answer = await running.json(
            "POST", "/loadModel", json={"model": "m", "personality": "nobody"}
        )
        assert status == 404
        assert "teacher" in answer["error"]["message"]
        # Loading without one ends it.
        assert (await running.json("POST", "/loadModel", json={"model": "m"}))[0] == 200
        await running.chat("NotNeeded")
        assert recorded(record)[-1]["messages"][0]["role"] == "user"


async def test_an_unchanged_body_is_forwarded_as_it_came(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    async with make_gateway({"m": fake_model(tmp_path, record=record)}) as running:
        raw = '{ "messages" : [ {"role":"user", "content":"\\u00e4"} ],  "x":1.0e0, "model":"m"}'
        status, _ = await running.json("POST", "/chat/completions", data=raw)
        assert status == 200
        assert recorded(record)[-1] == json.loads(raw)
