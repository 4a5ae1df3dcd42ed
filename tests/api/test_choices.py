"""``/loadModel`` with any key, what it chooses for whom, and what "NotNeeded" means."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness import MakeGateway, Running, fake_model

PIRATE = {"pirate": "Arr.", "teacher": "Class!"}


def models(tmp_path: Path, *names: str) -> dict[str, Any]:
    record = {"record": tmp_path / "record"}
    return {name: fake_model(tmp_path, personalities=PIRATE, **record) for name in names}


async def plain(running: Running, name: str = "app", **fields: Any) -> str:
    assert running.gateway.ring is not None
    return (await running.gateway.ring.create(name, **fields))[1]


async def load(running: Running, key: str, **body: Any) -> tuple[int, Any]:
    return await running.json("POST", "/loadModel", key=key, json=body)


async def meant(running: Running, key: str, model: str | None = "NotNeeded") -> Any:
    """The model that answers, or the error's message."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    if model is not None:
        body["model"] = model
    async with running.request("POST", "/v1/chat/completions", key=key, json=body) as response:
        if response.status != 200:
            return (await response.json())["error"]["message"]
        return response.headers["X-Gateway-Model"]


def system(tmp_path: Path) -> str | None:
    """The system message of the last request that came to a model."""
    last = json.loads((tmp_path / "record").read_text().splitlines()[-1])
    first = last["messages"][0]
    return first["content"] if first["role"] == "system" else None


async def told(running: Running, key: str) -> tuple[str | None, str | None]:
    """The active model and personality, as /status has them."""
    async with running.request("GET", "/status", key=key) as response:
        text = (await response.content.readuntil(b"\n\n")).partition(b"data: ")[2]
    event = json.loads(text)
    return event["active"], event["personality"]


async def test_a_choice_is_the_keys_own(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway(models(tmp_path, "a", "b", "c")) as running:
        one, two, three = [await plain(running, name) for name in ("one", "two", "three")]
        assert await load(running, one, model="a", personality="pirate") == (
            200,
            {"message": "Model a loaded with personality pirate."},
        )
        assert (await load(running, two, model="b"))[0] == 200
        assert await meant(running, one) == "a"
        assert system(tmp_path) == "Arr."
        assert await meant(running, one, "a") == "a"
        assert system(tmp_path) == "Arr.", "the personality holds for the model by its name, too"
        assert await meant(running, two) == "b"
        assert system(tmp_path) is None
        assert await meant(running, two, "a") == "a"
        assert system(tmp_path) is None, "another key's personality"
        assert "/loadModel" in await meant(running, three)
        assert [await told(running, key) for key in (one, two, three)] == [
            ("a", "pirate"),
            ("b", None),
            (None, None),
        ]
        # An administrator's is that of all who have none.
        assert (await load(running, running.key, model="c", personality="teacher"))[0] == 200
        for key, model in ((one, "a"), (two, "b"), (three, "c"), (running.key, "c")):
            with subtests.test(f"{key!r:.80}"):
                assert await meant(running, key) == model
        assert system(tmp_path) == "Class!"
        assert await told(running, three) == ("c", "teacher")
        assert (await running.json("GET", "/admin/status"))[1]["active"]["model"] == "c"
        async with running.request("GET", "/chat/ask?question=hi", key=one) as response:
            assert response.headers["X-Gateway-Model"] == "a"
        # Unloading is for administrators; it takes back their own choice.
        assert (await running.json("POST", "/unloadModel", key=one))[0] == 403
        assert (await running.json("POST", "/unloadModel"))[0] == 200
        assert await told(running, three) == (None, None)
        assert await meant(running, one) == "a"


async def test_only_model_there_is_is_meant_without_a_name(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway(models(tmp_path, "a")) as running:
        key = await plain(running)
        for name in ("NotNeeded", "", None):
            with subtests.test(f"{name!r:.80}"):
                assert await meant(running, key, name) == "a"
        async with running.request("GET", "/chat/ask?question=hi", key=key) as response:
            assert (response.status, response.headers["X-Gateway-Model"]) == (200, "a")


async def test_only_loaded_model_is_meant_without_a_name(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(models(tmp_path, "a", "b", "c")) as running:
        everywhere = await plain(running)
        restricted = await plain(running, "restricted", models=["a", "b"])
        only = await plain(running, "only", models=["c"])
        for key in (everywhere, restricted):
            assert "POST /loadModel" in await meant(running, key)
        assert await meant(running, only) == "c", "the only one that this key may use"
        # It is loaded now: alone, but nothing that the restricted key may use.
        assert await meant(running, everywhere) == "c"
        assert "/loadModel" in await meant(running, restricted)
        assert await meant(running, restricted, "b") == "b"
        assert await meant(running, restricted) == "b"
        message = await meant(running, everywhere)
        assert "/loadModel" in message, "two are loaded: nobody guesses which is meant"
        # Naming it "NotNeeded" to load it would be a guess, too.
        assert (await load(running, everywhere, model="NotNeeded"))[0] == 404


async def test_a_key_loads_what_it_may_use(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway(models(tmp_path, "a", "b")) as running:
        key = await plain(running, models=["a"], personalities=["pirate"])
        assert (await load(running, key, model="b"))[0] == 404
        assert (await load(running, key, model="a", personality="teacher"))[0] == 404
        assert (await load(running, key, model="nope"))[0] == 404
        assert await running.json("GET", "/models?loaded=true") == (200, [])
        assert (await load(running, key, model="a", personality="pirate"))[0] == 200
        # What an administrator chose for everybody is no way around what this key may not use.
        other = await plain(running, "other", models=["a"], personalities=[])
        await load(running, running.key, model="b")
        assert await meant(running, other) == "a", "the only one that it may use"
        assert await told(running, other) == (None, None)
        assert await meant(running, key) == "a"
        await load(running, running.key, model="a", personality="teacher")
        assert await meant(running, other) == "a"
        assert system(tmp_path) is None
        assert await told(running, other) == ("a", None)


async def test_a_choice_that_a_key_may_not_use_is_none(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(models(tmp_path, "a", "b", "hidden")) as running:
        ring = running.gateway.ring
        assert ring is not None
        key = await plain(running, models=["a", "b"])
        await load(running, running.key, model="hidden")
        message = await meant(running, key)
        assert "POST /loadModel" in message
        assert "hidden" not in message
        # Its own, from before it lost the right to it.
        await load(running, key, model="b")
        await load(running, running.key, model="a")
        (record,) = [record for record in ring.records if record.name == "app"]
        await ring.change(record.id, {"models": ["a"]})
        assert await meant(running, key) == "a"
        assert await told(running, key) == (None, None)
        await ring.change(record.id, {"models": ["a", "b"]})
        assert await meant(running, key) == "b"


async def test_choices_go_with_their_model_and_their_key(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(models(tmp_path, "a", "b", "c")) as running:
        ring, library = running.gateway.ring, running.gateway.library
        assert ring is not None
        key = await plain(running)
        await load(running, key, model="a", personality="pirate")
        await load(running, running.key, model="b", personality="pirate")
        changed = models(tmp_path, "a", "b", "c")
        changed["a"]["personalities"] = {}
        library.file.write_text(json.dumps(changed))
        await library.refresh()
        assert await told(running, key) == ("a", None)
        assert await told(running, running.key) == ("b", "pirate")
        del changed["a"]
        library.file.write_text(json.dumps(changed))
        await library.refresh()
        assert await told(running, key) == ("b", "pirate"), "as if it had never chosen"
        await load(running, key, model="c")
        (record,) = [record for record in ring.records if record.name == "app"]
        assert library.choices.of(record.id, admin=False).model == "c"
        await ring.revoke(record.id)
        assert library.choices.of(record.id, admin=False).model == "b"


async def test_loading_is_a_request_and_a_failed_one_is_not(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    bad = fake_model(tmp_path, exit=3)
    async with make_gateway({"a": fake_model(tmp_path), "bad": bad}) as running:
        key = await plain(running, limits={"rpm": 2, "tpm": 100, "concurrency": 1})
        for _ in range(3):
            async with running.request(
                "POST", "/loadModel", key=key, json={"model": "bad"}
            ) as response:
                assert response.status == 500
                assert response.headers["x-ratelimit-remaining-requests"] == "2"
        for left in "10":
            async with running.request(
                "POST", "/loadModel", key=key, json={"model": "a"}
            ) as response:
                assert response.status == 200
                assert response.headers["x-ratelimit-remaining-requests"] == left
        assert (await load(running, key, model="a"))[0] == 429
        assert await told(running, key) == ("a", None)


async def test_only_an_administrator_starts_again_what_failed(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """A model that died too often stays down until an administrator loads it."""
    async with make_gateway({"bad": fake_model(tmp_path, exit=3)}) as running:
        key = await plain(running)
        said = ""
        async with asyncio.timeout(60):
            while "tries again in" not in said:
                said = (await load(running, key, model="bad"))[1]["error"]["message"]
        (before,) = running.gateway.scheduler.status()
        assert (await load(running, key, model="bad"))[0] == 500
        (after,) = running.gateway.scheduler.status()
        assert after.starts == before.starts
        await load(running, running.key, model="bad")
        (after,) = running.gateway.scheduler.status()
        assert after.starts == before.starts + 1
