"""Whatever goes wrong: the right status, OpenAI's error object, and the gateway goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.harness import MakeGateway, Running, fake_model


def is_error(body: Any, *words: str) -> bool:
    error = body["error"]
    assert set(error) >= {"message", "type", "code", "param"}
    assert isinstance(error["code"], str)
    assert all(word in error["message"] for word in words), error["message"]
    return True


async def still_serves(running: Running) -> None:
    status, answer = await running.chat("good")
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "fake answer"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["no body"]),
        (b"{", ["not valid JSON"]),
        (b"[]", ["must be a JSON object"]),
        (b'{"model": "good"}', ["`messages` is missing"]),
        (b'{"model": "good", "messages": "hi"}', ["must be a list", "a text"]),
        (b'{"model": "good", "messages": []}', ["at least one"]),
        (b'{"model": "good", "messages": ["hi"]}', ["messages[0]"]),
        (b'{"model": "good", "messages": [{}], "seed": NaN}', ["not valid JSON"]),
        (b'{"model": "good", "messages": [{}], "seed": 1e400}', ["not valid JSON"]),
        (b'{"model": "good", "messages": [{"content": "\xff"}]}', ["not valid JSON"]),
        (b'{"a":' * 2000, ["nested too deeply", "500"]),
        (b'{"model": "good", "messages": [{}], "personality": 7}', ["personality"]),
    ],
)
async def test_a_bad_body_is_told_with_its_place(
    make_gateway: MakeGateway, tmp_path: Path, body: bytes, words: list[str]
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        status, answer = await running.json("POST", "/v1/chat/completions", data=body)
        assert status == 400
        assert is_error(answer, *words)
        await still_serves(running)


#: Routes that look through their body, each in its way.
READ = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    *("/v1/embeddings", "/completion", "/chat/completions/control"),
    *("/loadModel", "/models/load", "/admin/keys"),
)


@pytest.mark.parametrize("door", ["front", "aiohttp"])
async def test_nesting_has_the_same_end_on_every_route(
    make_gateway: MakeGateway, tmp_path: Path, door: str, subtests: pytest.Subtests
) -> None:
    def body(levels: int) -> bytes:
        depth = levels - 1
        return b'{"model": "good", "messages": [{}], "x": %b%b}' % (b"[" * depth, b"]" * depth)

    async def ask(path: str, raw: bytes) -> tuple[int, Any]:
        async def pieces() -> AsyncIterator[bytes]:
            yield raw

        # A body in chunks is not for the front door.
        data = raw if door == "front" else pieces()
        headers = {"Content-Type": "application/json"}
        return await running.json("POST", path, data=data, headers=headers)

    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        for path in READ:
            with subtests.test(f"{path!r:.80}"):
                for levels in (501, 1000, 20_000, 100_000):
                    status, answer = await ask(path, body(levels))
                    assert (status, levels) == (400, levels)
                    assert "nested too deeply" in json.dumps(answer)
                status, answer = await ask(path, body(500))
                assert "nested too deeply" not in json.dumps(answer)
                await still_serves(running)


async def test_refusals_of_the_server_have_the_shape_of_the_api(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"good": fake_model(tmp_path)}
    async with make_gateway(models, limits={"max_body": "10KiB"}) as running:
        status, answer = await running.json("POST", "/v1/chat/completions", data=b"x" * 20_000)
        assert status == 413
        assert is_error(answer, "10240")
        status, answer = await running.json("GET", "/nope")
        assert status == 404
        assert is_error(answer, "/nope")
        async with running.request("DELETE", "/models") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "GET"
            assert is_error(await response.json(), "DELETE")
        await still_serves(running)


async def test_each_route_wants_a_key_that_may_use_it(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        ring = running.gateway.ring
        assert ring is not None
        _, chat_key = await ring.create("chat only")
        for path in ("/models", "/v1/models", "/status", "/nope", "/chat/ask?question=x"):
            with subtests.test(f"{path!r:.80}"):
                assert (await running.json("GET", path, key=None))[0] == 401
        status, answer = await running.json("GET", "/models", key="wrong")
        assert status == 401
        assert is_error(answer)
        for path, method in (
            ("/unloadModel", "GET"),
            ("/unloadModel", "POST"),
            ("/chat/errors", "GET"),
            ("/admin/models", "GET"),
        ):
            with subtests.test(f"{path!r:.80}"):
                status, answer = await running.json(method, path, key=chat_key)
                assert status == 403
                assert is_error(answer, "admin")
        for headers in ({"X-Api-Key": chat_key}, {"Authorization": f"bearer {chat_key}"}):
            assert (await running.json("GET", "/models", key=None, headers=headers))[0] == 200
        assert (await running.json("GET", f"/models?authKey={chat_key}", key=None))[0] == 200
        status, _ = await running.json(
            "POST", f"/v1/chat/completions?authKey={chat_key}", key=None, json={}
        )
        assert status == 401, "a key in the query is for GET only"


async def test_missing_model_file_is_told_and_others_are_served(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    lost = fake_model(tmp_path)
    lost["params"]["model"] = "TheBloke\\nowhere.gguf"
    async with make_gateway({"lost": lost, "good": fake_model(tmp_path)}) as running:
        status, answer = await running.chat("lost")
        assert status == 500
        assert is_error(answer, "TheBloke/nowhere.gguf", "llm_storage")
        assert answer["error"]["code"] == "model_file_not_found"
        status, answer = await running.json("POST", "/loadModel", json={"model": "lost"})
        assert status == 500
        assert is_error(answer, "does not exist")
        await still_serves(running)


async def test_llama_server_that_exits_at_once_is_told(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"bad": fake_model(tmp_path, exit=3), "good": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        status, answer = await running.json("POST", "/loadModel", json={"model": "bad"})
        assert status == 500
        assert is_error(answer, "status 3", "this fake does not want to start")
        async with running.request(
            "POST", "/v1/chat/completions", json={"model": "bad", "messages": [{}]}
        ) as response:
            assert response.status == 500
            # The OpenAI clients would try twice more.
            assert response.headers["x-should-retry"] == "false"
        _, errors = await running.json("GET", "/chat/errors")
        assert "status 3" in errors["errors"][-1]["message"]
        assert errors["errors"][-1]["model"] == "bad"
        await still_serves(running)


async def test_garbage_of_a_backend_is_a_502(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {"bad": fake_model(tmp_path, garbage=1), "good": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        status, answer = await running.chat("bad")
        assert status == 502
        assert is_error(answer, "not HTTP/1.1")
        await still_serves(running)


async def test_backend_that_dies_before_it_answers_is_replaced_unseen(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"good": fake_model(tmp_path, die_once=tmp_path / "died")}
    async with make_gateway(models) as running:
        await still_serves(running)
        assert (tmp_path / "died").exists()
        (status,) = running.gateway.scheduler.status()
        assert (status.starts, status.deaths) == (2, 1)


@pytest.mark.slow
async def test_request_waits_for_the_late_news_of_a_death(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """A process that takes no connection is as good as dead, however long its end takes."""
    models = {"good": fake_model(tmp_path, linger=2.5, lingered=tmp_path / "lingered")}
    async with make_gateway(models) as running:
        await still_serves(running)
        await still_serves(running)
        (status,) = running.gateway.scheduler.status()
        assert (status.starts, status.deaths) == (2, 1)


async def test_backend_that_dies_in_a_stream_breaks_it(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"dying": fake_model(tmp_path, chunks=9, die_after=3), "good": fake_model(tmp_path)}
    async with make_gateway(models) as running:
        body = {"model": "dying", "messages": [{}], "stream": True}
        text = b""
        async with running.request("POST", "/v1/chat/completions", json=body) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):  # noqa: PT012 - where it breaks varies
                async for piece in response.content.iter_any():
                    text += piece
        assert b"word2" in text
        assert b"[DONE]" not in text
        error = json.loads(text.rpartition(b"data: ")[2])
        assert is_error(error, "dying")
        _, errors = await running.json("GET", "/chat/errors")
        assert errors["errors"][-1]["model"] == "dying"
        await still_serves(running)


async def test_broken_models_json_keeps_the_last_good_one(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        file = running.gateway.settings.models_file
        good = file.read_text()
        file.write_text('{"good": ')
        assert await running.json("GET", "/models") == (200, ["good"])
        status, answer = await running.json("GET", "/v1/models")
        assert (status, [entry["id"] for entry in answer["data"]]) == (200, ["good"])
        await still_serves(running)
        file.write_text(good.replace('"good"', '"better"'))
        assert await running.json("GET", "/models") == (200, ["better"])
        status, _ = await running.chat("better")
        assert status == 200
        assert (await running.chat("good"))[0] == 404


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_refusal_of_a_busy_llama_server_keeps_its_status_and_says_when(
    make_gateway: MakeGateway, tmp_path: Path, status: int, stream: bool
) -> None:
    models = {"m": fake_model(tmp_path, refuses=status)}
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    async with (
        make_gateway(models) as running,
        running.request("POST", "/v1/chat/completions", json=body) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (status, "5")
        assert (await response.json())["error"]["message"] == "not now"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/loadModel"])
async def test_body_of_another_content_type_is_refused(
    make_gateway: MakeGateway, tmp_path: Path, path: str, subtests: pytest.Subtests
) -> None:
    async with make_gateway({"good": fake_model(tmp_path)}) as running:
        for kind, status in (
            ("multipart/form-data; boundary=b", 415),
            ("application/xml", 415),
            ("application/octet-stream", 400),
            ("application/json", 400),
            ("application/problem+JSON; charset=utf-8", 400),
            ("application/x-www-form-urlencoded", 400),
            ("text/plain", 400),
        ):
            with subtests.test(f"{kind!r:.80}"):
                headers = {"Content-Type": kind}
                got, answer = await running.json("POST", path, data=b"--b\r\n", headers=headers)
                assert got == status, kind
                said = f"takes JSON (application/json), not {kind!r}"
                assert (said in answer["error"]["message"]) == (status == 415)
                # JSON is JSON, whatever it is called.
                body = {"model": "good", "messages": [{"role": "user", "content": "hi"}]}
                if path != "/v1/messages":
                    data = json.dumps(body)
                    got, _ = await running.json("POST", path, data=data, headers=headers)
                    assert got == 200, kind
