"""Every route of llama-server through the gateway: what arrives there, and what comes back."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from gateway.proxy.routes import TABLE, ModelIn
from gateway.scope import Scope
from tests.api.routes.recorded import RECORDER, TEACHER, USER, Recorded, model
from tests.harness import MakeGateway, Running

BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [USER]},
    "responses": {"input": "hi"},
    "anthropic": {"messages": [USER], "max_tokens": 3},
    "completion": {"prompt": "hi"},
    "none": {"content": "hi", "input": "hi"},
}
OPEN = [r for r in TABLE if not r.refused]


async def chat_key(running: Running, **options: Any) -> str:
    assert running.gateway.ring is not None
    _, key = await running.gateway.ring.create("chat", **options)
    return key


async def test_each_json_route_arrives_shaped_and_answers(
    running: Running, recorded: Recorded
) -> None:
    """Each: its path at llama-server, its body as it came, and the personality in its format."""
    key = await chat_key(running)
    routes = [r for r in OPEN if r.model is ModelIn.BODY]
    assert len(routes) > 25
    for route in routes:
        assert route.scope is Scope.CHAT
        assert not route.refused
        body = {**BODIES[route.format.name], "model": "m", "x": {"b": 1, "a": [1.5]}}
        status, answer = await running.json("POST", route.path, json=body, key=key)
        assert status == 200, (route.path, answer)
        assert recorded.last["target"] == route.target
        assert json.dumps(json.loads(recorded.last["body"])) == json.dumps(body)
        assert answer.get("model") == "m" or route.target == "/apply-template"
        for how in ({"model": "m:teacher"}, {"personality": "teacher"}):
            await running.json("POST", route.path, json={**body, **how}, key=key)
            sent = recorded.body
            assert "personality" not in sent
            match route.format.name:
                case "chat":
                    assert sent["messages"][0] == {"role": "system", "content": TEACHER}
                case "responses":
                    assert sent["instructions"] == TEACHER
                case "anthropic":
                    assert sent["system"] == TEACHER
                case "completion":
                    assert sent["prompt"] == f"<system>{TEACHER}<user>hi"
                case _:
                    assert TEACHER not in recorded.last["body"]


async def test_defaults_and_fixed_fields_reach_the_body(
    running: Running, recorded: Recorded
) -> None:
    extra = {
        "model": "shaped",
        "temperature": 2,
        "seed": 1,
        "chat_template_kwargs": {"enable_thinking": True, "mine": 1},
    }
    for route in OPEN:
        if route.model is not ModelIn.BODY:
            continue
        await running.json("POST", route.path, json={**BODIES[route.format.name], **extra})
        sent = recorded.body
        assert "temperature" not in sent
        assert sent["seed"] == 7
        assert sent["chat_template_kwargs"] == {"enable_thinking": False, "mine": 1}
        assert ("logit_bias" in sent) == route.defaults
    generating = {r.path for r in OPEN if r.defaults}
    assert {"/v1/chat/completions", "/v1/responses", "/completion", "/infill"} <= generating
    assert not generating & {"/v1/embeddings", "/tokenize", "/v1/messages/count_tokens"}


async def test_completions_take_a_personality_only_if_asked(
    running: Running, recorded: Recorded, subtests: pytest.Subtests
) -> None:
    await running.json("POST", "/loadModel", json={"model": "m", "personality": "teacher"})
    body = {"model": "m", "prompt": ["a", "b"], "stream": False}
    await running.json("POST", "/v1/completions", json=body)
    # Several answers are had as a stream, in which each tells what it took.
    assert recorded.body == {**body, "stream": True}
    await running.json("POST", "/completion", json=body, headers={"X-Personality": "teacher"})
    assert recorded.body["prompt"] == [f"<system>{TEACHER}<user>{x}" for x in "ab"]
    templates = [r for r in recorded() if r["target"] == "/apply-template"]
    assert len(templates) == 2
    for prompt in ([1, 2], ["a", 1], [], None, {"prompt_string": "x"}):
        with subtests.test(f"{prompt!r:.80}"):
            status, answer = await running.json(
                "POST", "/completion", json={"model": "m:teacher", "prompt": prompt}
            )
            assert (status, answer["error"]["param"]) == (400, "prompt")
    # What /loadModel chose goes into conversations.
    await running.chat("m")
    assert recorded.body["messages"][0]["content"] == TEACHER


async def test_nothing_is_fetched_from_elsewhere(
    running: Running, recorded: Recorded, subtests: pytest.Subtests
) -> None:
    url = "http://127.0.0.1:9/x.png"
    image = {"type": "image_url", "image_url": {"url": url}}
    source = {"type": "image", "source": {"type": "url", "url": url}}
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [image]}]}),
        ("/v1/responses", {"input": [{"content": [{"type": "input_image", "image_url": url}]}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [source]}]}),
        ("/v1/embeddings", {"input": [{"content": [image]}]}),
        ("/completion", {"prompt": {"prompt_string": "x", "multimodal_data": [url]}}),
    ):
        with subtests.test(f"{path!r:.80}"):
            status, answer = await running.json("POST", path, json={"model": "m", **body})
            assert status == 400
            assert "data:" in answer["error"]["message"]
    assert not recorded()


async def test_remote_media_is_refused_unless_allowed(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    models = {"m": model(tmp_path)}
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    async with make_gateway(models, llama_server=RECORDER, remote_media=True) as running:
        status, _ = await running.json("POST", "/v1/chat/completions", json=body)
        assert status == 200
        part["image_url"]["url"] = "file:///etc/passwd"
        status, answer = await running.json("POST", "/v1/chat/completions", json=body)
        assert (status, answer["error"]["code"]) == (400, "remote_media_refused")
    (sent,) = Recorded(record)()
    assert "http://127.0.0.1:9/x.png" in sent["body"]


async def test_pictures_that_came_along_arrive(running: Running, recorded: Recorded) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": parts}]
    await running.json("POST", "/v1/chat/completions", json={"model": "m", "messages": messages})
    assert recorded.body["messages"] == messages


async def test_each_get_route_asks_the_model_it_names(
    running: Running, recorded: Recorded, subtests: pytest.Subtests
) -> None:
    key = await chat_key(running)
    status, props = await running.json("GET", "/props", key=key)
    assert (status, props["role"]) == (200, "router")
    for path in ("/props", "/lora-adapters", "/slots"):
        with subtests.test(f"{path!r:.80}"):
            status, answer = await running.json("GET", f"{path}?model=m:teacher")
            assert (status, answer["error"]["code"]) == (400, "model_not_loaded")
    assert not recorded()
    secret = "/secret/folder/"
    status, props = await running.json("GET", "/props?autoload=true&model=org/m&x=%20y")
    assert props["model_path"].startswith(secret)
    assert recorded.last["target"] == "/props?autoload=true&model=org/m&x=%20y"
    url = f"/props?model=m&authKey={key}"
    status, props = await running.json("GET", url, key=None)
    assert (status, props["model_path"]) == (200, "m.gguf")
    assert recorded.last["target"] == "/props?model=m"
    assert key not in json.dumps(recorded())
    status, adapters = await running.json("GET", "/lora-adapters?model=m", key=key)
    assert adapters[0]["path"] == "lora.gguf"
    for path in ("/slots", "/metrics"):
        assert (await running.json("GET", f"{path}?model=m", key=key))[0] == 403
        assert (await running.json("GET", f"{path}?model=m"))[0] == 200
    assert (await running.json("GET", "/slots?model=nope"))[0] == 404


async def test_administrators_routes_are_refused_to_others(
    running: Running, recorded: Recorded, subtests: pytest.Subtests
) -> None:
    key = await chat_key(running)
    await running.chat("m")
    for path in ("/props", "/lora-adapters", "/slots/0"):
        with subtests.test(f"{path!r:.80}"):
            url = f"{path}?model=m&action=erase"
            assert (await running.json("POST", url, json=[{"id": 0}], key=key))[0] == 403
            assert (await running.json("POST", url, json=[{"id": 0}]))[0] == 200
            assert recorded.last["target"] == url
            assert recorded.body == [{"id": 0}]
    for action in ("save", "restore", "%73ave"):
        with subtests.test(f"{action!r:.80}"):
            status, answer = await running.json("POST", f"/slots/0?model=m&action={action}")
            assert (status, answer["error"]["code"]) == (403, "route_refused")


async def test_refused_route_is_refused_however_it_is_written(
    running: Running, recorded: Recorded, subtests: pytest.Subtests
) -> None:
    refused = [r for r in TABLE if r.refused]
    assert {r.path for r in refused} > {"/tools", "/cors-proxy", "/v1/stream"}
    for route in refused:
        path = route.path.replace("{conversation}", "x")
        status, answer = await running.json(route.method, path)
        assert (status, answer["error"]["code"]) == (403, "route_refused")
        assert route.reason in answer["error"]["message"]
        assert (await running.json(route.method, path, key=None))[0] == 401
        status, _ = await running.json(route.method, f"/upstream/m{path}")
        assert status == 403
    for path in ("//tools", "/x/../tools", "/%74ools", "/./cors-proxy", "/slots/0?action=save"):
        with subtests.test(f"{path!r:.80}"):
            assert (await running.json("POST", f"/upstream/m{path}"))[0] == 403, path
    assert not recorded()


async def test_upstream_is_for_administrators_and_passes_all(
    running: Running, recorded: Recorded, subtests: pytest.Subtests
) -> None:
    key = await chat_key(running)
    assert (await running.json("GET", "/upstream/m/slots", key=key))[0] == 403
    for path, target in (
        ("/upstream/m/slots", "/slots"),
        ("/upstream/m", "/"),
        ("/upstream/m/", "/"),
        ("/upstream/org/m/a/b?x=%2F&y", "/a/b?x=%2F&y"),
        ("/upstream/org%2Fm/a%2Fb", "/a%2Fb"),
        ("/upstream/org%2fm:teacher/a", "/a"),
        (f"/upstream/m/a?authKey={running.key}&b=1", "/a?b=1"),
    ):
        with subtests.test(f"{path!r:.80}"):
            async with running.session.get(
                URL(running.url + path, encoded=True),
                headers={"Authorization": f"Bearer {running.key}"},
            ) as response:
                assert response.status == 200
                assert response.headers["X-Gateway-Model"] == "m"
            assert recorded.last["target"] == target
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        with subtests.test(f"{method!r:.80}"):
            body = b"" if method == "DELETE" else b"\x00raw"
            headers = {"Content-Type": "x/y", "Cookie": "c=1", "X-Conversation-Id": "7"}
            async with running.request(
                method, "/upstream/m/x", data=body, headers=headers
            ) as response:
                assert response.status == 200
            sent = recorded.last
            assert (sent["method"], sent["body"].encode("latin-1")) == (method, body)
            assert sent["headers"].get("content-type") == "x/y"
            assert not {"cookie", "authorization", "x-conversation-id"} & set(sent["headers"])
    big = bytes(range(256)) * 8192
    async with running.request("POST", "/upstream/m/big", data=io.BytesIO(big)) as response:
        assert response.status == 200
    assert recorded.last["body"].encode("latin-1") == big
    assert (await running.json("GET", "/upstream/nope/slots"))[0] == 404
    async with running.request("HEAD", "/upstream/m/slots") as response:
        assert response.status == 405


async def test_busy_model_still_counts_tokens_and_shows_its_slots(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """With its only slot taken, a model still counts tokens and shows its slots."""
    models = {"m": model(tmp_path, hold=1)}
    async with make_gateway(models, llama_server=RECORDER) as running:
        await running.gateway.scheduler.load("m")
        taken = asyncio.Event()
        running.gateway.scheduler.subscribe(
            lambda: taken.set() if running.gateway.scheduler.in_flight else None
        )
        waiting = asyncio.ensure_future(running.chat("m"))  # noqa: TID251 - a client's task
        await taken.wait()
        async with asyncio.timeout(5):
            for path, body in (
                ("/tokenize", {"content": "hi"}),
                ("/v1/messages/count_tokens", {"messages": [USER]}),
                ("/v1/responses/input_tokens", {"input": "hi"}),
                ("/v1/chat/completions/control", {"id": "x"}),
            ):
                with subtests.test(f"{path!r:.80}"):
                    status, _ = await running.json("POST", path, json={"model": "m", **body})
                    assert status == 200
            assert (await running.json("GET", "/slots?model=m"))[0] == 200
            assert (await running.json("GET", "/upstream/m/slots"))[0] == 200
        assert running.gateway.scheduler.in_flight == 1
        waiting.cancel()
        await asyncio.wait([waiting])
