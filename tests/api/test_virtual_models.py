"""Personalities with parameters: one process that is several models to its clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.proxy.routes import TABLE, ModelIn
from gateway.workers import SMALL
from tests.harness import FAKE, MakeGateway, Running, fake_model
from tests.parrot_model import TOOL
from tests.remote_server import RemoteServer

RECORDER = str(FAKE.with_name("recording_llama_server.py"))
USER = {"role": "user", "content": "hi"}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [USER]},
    "responses": {"input": "hi"},
    "anthropic": {"messages": [USER], "max_tokens": 3},
    "completion": {"prompt": "hi"},
    "none": {"content": "hi", "input": "hi"},
}
ROUTES = [r for r in TABLE if not r.refused and r.model is ModelIn.BODY]
PERSONALITIES: dict[str, Any] = {
    "coder": {
        "prompt": "You write code.",
        "setParams": {"temperature": 0, "chat_template_kwargs": {"mine": 1}},
        "stripParams": ["seed"],
        "reasoning": False,
        "templateArgs": {"style": "terse"},
        "description": "for code",
    },
    "plain": {"setParams": {"top_k": 1}},
    "thinker": {"reasoning": "high"},
    "budgeted": {"reasoning": 64},
    "handy": {"tools": [TOOL]},
    "hidden": {"prompt": "Hush.", "unlisted": True},
    "pirate": "Arr.",
}


class Sent:
    """What the scripted llama-server has got last."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def last(self) -> dict[str, Any]:
        body = json.loads(self._file.read_text().splitlines()[-1])["body"]
        parsed: dict[str, Any] = json.loads(body)
        return parsed


@pytest.fixture
def sent(tmp_path: Path) -> Sent:
    return Sent(tmp_path / "record")


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    made = fake_model(tmp_path, record=tmp_path / "record", personalities=PERSONALITIES)
    everything = {"mmproj": made["params"]["model"], "embeddings": True, "reranking": True}
    entry = {**made, **everything, "setParams": {"temperature": 1, "top_p": 0.5}}
    async with make_gateway({"m": entry}, llama_server=RECORDER) as running:
        yield running


async def post(running: Running, path: str, body: dict[str, Any]) -> Any:
    status, answer = await running.json("POST", path, json=body)
    assert status == 200, (path, answer)
    return answer


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_parameters_reach_every_route(running: Running, sent: Sent, large: bool) -> None:
    """A large body goes through another process; what it becomes is the same."""
    more = {"metadata": {"x": "y" * (SMALL + 1)}} if large else {}
    for route in ROUTES:
        kind = route.format.name
        given = {**BODIES[kind], "temperature": 2, "seed": 5, **more}
        given["chat_template_kwargs"] = {"style": "long", "theirs": 1}
        await post(running, route.path, {**given, "model": "m:coder"})
        got = sent.last
        assert (got["temperature"], got["top_p"]) == (0, 0.5), route.path
        assert "seed" not in got
        templated = {"enable_thinking": False, "style": "terse"} if kind != "none" else {}
        style = {} if kind != "none" else {"style": "long"}
        wanted = {"theirs": 1, "mine": 1, **style, **templated}
        assert got["chat_template_kwargs"] == wanted, route.path
        budget = got.get("reasoning_budget_tokens")
        assert budget == (0 if kind in ("chat", "responses") else None)
        assert got.get("thinking") == ({"type": "disabled"} if kind == "anthropic" else None)


@pytest.mark.parametrize(
    ("path", "name", "wanted"),
    [
        ("/v1/chat/completions", "thinker", {"reasoning_effort": "high"}),
        ("/v1/responses", "thinker", {"reasoning": {"effort": "high"}}),
        ("/v1/messages", "thinker", {"output_config": {"effort": "high"}}),
        ("/v1/chat/completions", "budgeted", {"reasoning_budget_tokens": 64}),
        ("/v1/responses", "budgeted", {"reasoning_budget_tokens": 64}),
        ("/v1/messages", "budgeted", {"thinking": {"type": "enabled", "budget_tokens": 64}}),
    ],
)
async def test_reasoning_is_set_in_the_words_of_each_dialect(
    running: Running, sent: Sent, path: str, name: str, wanted: dict[str, Any]
) -> None:
    (kind,) = {route.format.name for route in ROUTES if route.path == path}
    theirs = (
        {"reasoning_effort": "low", "reasoning_budget_tokens": 9} if kind != "anthropic" else {}
    )
    await post(running, path, {**BODIES[kind], **theirs, "model": f"m:{name}"})
    got = sent.last
    assert {key: got[key] for key in wanted} == wanted
    assert got["chat_template_kwargs"]["enable_thinking"] is True


async def test_one_without_a_prompt_leaves_the_messages_alone(running: Running, sent: Sent) -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, USER]
    body = {"model": "m", "messages": messages, "personality": "plain"}
    await post(running, "/v1/chat/completions", body)
    assert sent.last["messages"] == messages
    assert (sent.last["top_k"], sent.last["temperature"]) == (1, 1)


async def test_the_model_itself_and_texts_are_as_before(running: Running, sent: Sent) -> None:
    for name in ("m", "m:pirate"):
        await post(running, "/v1/chat/completions", {"model": name, "messages": [USER], "seed": 5})
        assert (sent.last["temperature"], sent.last["seed"]) == (1, 5)
        assert "chat_template_kwargs" not in sent.last
        assert "tools" not in sent.last


#: What a client may say of reasoning, in whatever API it is used to, to have none or all of it.
CONTRARY: dict[str, Any] = {
    "reasoning_effort": "none",
    "reasoning_budget_tokens": 9,
    "thinking_budget_tokens": 9,
    "thinking": {"type": "enabled", "budget_tokens": 9},
    "reasoning": {"effort": "none", "summary": "auto"},
    "output_config": {"effort": "low"},
    "chat_template_kwargs": {"enable_thinking": "?"},
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_client_cannot_say_otherwise_how_a_personality_reasons(
    running: Running, sent: Sent, path: str
) -> None:
    (kind,) = {route.format.name for route in ROUTES if route.path == path}
    for name, thinks in (("coder", False), ("thinker", True), ("budgeted", True)):
        await post(running, path, {**BODIES[kind], "model": f"m:{name}"})
        alone = sent.last
        await post(running, path, {**BODIES[kind], **CONTRARY, "model": f"m:{name}"})
        got = sent.last
        assert got["chat_template_kwargs"]["enable_thinking"] is thinks
        left = got.get("reasoning", {}).pop("summary")  # of Responses, and no matter of length
        assert left == "auto"
        assert got == {"reasoning": {}, **alone}, name


async def test_tools_come_before_those_of_the_client(running: Running, sent: Sent) -> None:
    function = TOOL["function"]
    assert isinstance(function, dict)
    shapes: dict[str, Any] = {
        "/v1/chat/completions": TOOL,
        "/v1/responses": {"type": "function", **function},
        "/v1/messages": {
            "name": function["name"],
            "description": function.get("description"),
            "input_schema": function["parameters"],
        },
    }
    for path, wanted in shapes.items():
        (kind,) = {route.format.name for route in ROUTES if route.path == path}
        body = {**BODIES[kind], "model": "m:handy"}
        search, own_weather = (
            {"type": "function", **({"function": named} if kind == "chat" else named)}
            for named in ({"name": "search"}, {"name": function["name"]})
        )
        # The last is first again: nothing that is done to one body is in the next.
        for theirs, together in (
            (None, [wanted]),
            ([], [wanted]),
            ([search], [wanted, search]),
            ([search, own_weather], [search, own_weather]),
            (None, [wanted]),
        ):
            await post(running, path, body if theirs is None else {**body, "tools": theirs})
            assert sent.last["tools"] == together, (path, theirs)
    await post(running, "/completion", {"model": "m:handy", "prompt": "hi"})
    assert "tools" not in sent.last
    body = {**BODIES["chat"], "model": "m:handy", "tools": "weather"}
    status, answer = await running.json("POST", "/v1/chat/completions", json=body)
    assert (status, answer["error"]["param"]) == (400, "tools")


async def test_change_of_a_personality_is_in_use_and_restarts_nothing(
    running: Running, sent: Sent
) -> None:
    body = {"model": "m:coder", "messages": [USER]}
    await post(running, "/v1/chat/completions", body)
    backend = running.gateway.scheduler.backend("m")
    assert backend is not None
    pid = backend.pid
    change = {"personalities": {"coder": {"setParams": {"temperature": 0.5}, "prompt": "Code."}}}
    status, entry = await running.json("PATCH", "/admin/models/m", json=change)
    assert status == 200
    given = PERSONALITIES["coder"]
    changed = {**given, "prompt": "Code.", "setParams": {**given["setParams"], "temperature": 0.5}}
    assert entry["personalities"] == {**PERSONALITIES, "coder": changed}
    await post(running, "/v1/chat/completions", body)
    assert sent.last["temperature"] == 0.5
    assert sent.last["messages"][0]["content"] == "Code."
    assert sent.last["chat_template_kwargs"]["style"] == "terse"
    # What was read can be written back, and is the same.
    async with running.request("GET", "/admin/models/m") as response:
        read, etag = await response.json(), response.headers["ETag"]
    headers = {"If-Match": etag}
    assert await running.json("PUT", "/admin/models/m", json=read, headers=headers) == (200, read)
    wrong = {"personalities": {"coder": {"setParams": {"stream": True}}}}
    status, refused = await running.json("PATCH", "/admin/models/m", json=wrong)
    assert status == 422
    assert "coder.setParams.stream" in json.dumps(refused)
    await post(running, "/v1/chat/completions", body)
    backend = running.gateway.scheduler.backend("m")
    assert backend is not None
    assert backend.pid == pid


async def test_lists_say_what_meta_says(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    entry = fake_model(tmp_path, personalities=PERSONALITIES)
    meta = {"displayName": "My Model", "capabilities": ["chat", "tools"]}
    models = {"m": {**entry, "meta": meta}, "secret": {**entry, "meta": {"unlisted": True}}}
    async with make_gateway(models) as running:
        _, listed = await running.json("GET", "/v1/models")
        found = {item["id"]: item for item in listed["data"]}
        assert "m:hidden" not in found
        assert not [name for name in found if name.startswith("secret")]
        assert found["m"]["name"] == "My Model"
        assert found["m"]["capabilities"] == ["chat", "tools"]
        assert found["m:coder"]["name"] == "My Model (coder)"
        assert found["m:coder"]["description"] == "for code"
        assert "hidden" not in found["m"]["personalities"]
        assert await running.json("GET", "/models") == (200, ["m"])
        # Who knows the name may ask for it, and use it.
        for name in ("m:hidden", "secret", "secret:coder"):
            with subtests.test(f"{name!r:.80}"):
                status, item = await running.json("GET", f"/v1/models/{name}")
                assert (status, item["id"]) == (200, name)
                status, lines = await running.json("GET", f"/clients?model={name}")
                assert (status, lines["model"]) == (200, name)
        await post(running, "/v1/chat/completions", {"model": "secret", "messages": [USER]})
        assert await running.json("GET", "/models?loaded=true") == (200, [])
        for wrong in ("m:hiddn", "m:nobody", "secrets", "secret:nobody"):
            with subtests.test(f"{wrong!r:.80}"):
                for path in ("/v1/chat/completions", "/v1/responses"):
                    body = {**BODIES["chat"], **BODIES["responses"], "model": wrong}
                    status, refused = await running.json("POST", path, json=body)
                    assert status == 404
                    said = refused["error"]["message"].replace(repr(wrong), "")
                    assert "hidden" not in said
                    assert "'secret'" not in said or wrong.startswith("secret:")
        _, admin = await running.json("GET", "/admin/models")
        m, secret = admin["models"]
        assert (m["display_name"], m["unlisted"]) == ("My Model", False)
        assert (m["capabilities"], secret["capabilities"]) == (["chat", "tools"], None)
        assert secret["unlisted"] is True
        virtual = {one["personality"]: one for one in m["virtual_models"]}
        assert list(virtual) == m["personalities"] == list(PERSONALITIES)
        assert (virtual["coder"]["id"], virtual["coder"]["description"]) == ("m:coder", "for code")
        assert [name for name, one in virtual.items() if one["unlisted"]] == ["hidden"]
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("guest", "")
        for whose, seen in ((running.key, ["secret"]), (key, [])):
            async with running.request("GET", "/status", key=whose) as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        assert json.loads(line[6:])["models"] == seen
                        break


async def test_personality_shapes_requests_to_a_model_elsewhere(make_gateway: MakeGateway) -> None:
    async with RemoteServer() as there:
        entry = {"url": there.url, "modelName": "there", "personalities": PERSONALITIES}
        async with make_gateway({"m": entry}) as running:
            for name in ("coder", "thinker"):
                body = {"model": f"m:{name}", "messages": [USER], "seed": 5}
                await post(running, "/v1/chat/completions", body)
        coder, thinker = (one.json for one in there.asked)
        assert (coder["model"], coder["temperature"]) == ("there", 0)
        assert "seed" not in coder
        assert coder["chat_template_kwargs"]["enable_thinking"] is False
        assert thinker["reasoning_effort"] == "high"
        assert "chat_template_kwargs" not in thinker  # OpenAI's own servers refuse it
