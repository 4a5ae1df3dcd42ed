"""What a key may not use is, for it, not there: in every answer, of every route.

The same requests once for what is there and may not be used, and once for what is not there at
all: but for the names and the request's id, which are the client's own, the answers are the same.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.proxy.routes import TABLE, ModelIn
from tests.harness import FAKE, MakeGateway, Running, fake_model

#: What is there, and what isn't: so alike that a suggestion of the one for the other would show.
MODELS = ("hidden-one", "bidden-one")
ALIASES = ("hush-alias", "bush-alias")
PERSONALITIES = ("secretive", "decretive")

WORDS = re.compile("[hb](?=idden|ush)|[sd](?=ecretiv)|[HB](?=IDDEN|USH)")
#: Of the requests below, those that stand for all.
FEW = 5


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    people = {"pirate": "Arr.", PERSONALITIES[0]: "Psst."}
    models = {
        "open": {**fake_model(tmp_path, personalities=people), "aliases": ["ajar"]},
        MODELS[0]: {**fake_model(tmp_path, personalities=people), "aliases": [ALIASES[0]]},
    }
    recorder = str(FAKE.with_name("recording_llama_server.py"))
    async with make_gateway(models, llama_server=recorder) as running:
        yield running


def names() -> list[tuple[str, str]]:
    """Ways to name what may not be used, and as many for what isn't there."""
    (model, none), (alias, no_alias), (who, nobody) = MODELS, ALIASES, PERSONALITIES
    return [
        (model, none),
        (alias, no_alias),
        (f"{model}:pirate", f"{none}:pirate"),
        (f"{alias}:pirate", f"{no_alias}:pirate"),
        (f"{model}:nobody", f"{none}:nobody"),
        (f"open:{who}", f"open:{nobody}"),
        (f"ajar:{who}", f"ajar:{nobody}"),
        (model[:-1], none[:-1]),  # with a typing error
        (model.upper(), none.upper()),
        (f"open:{who[:-1]}", f"open:{nobody[:-1]}"),
    ]


BESIDE: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"personality": "none"},
    {"personality": "pirate"},
]


def requests(name: str) -> list[tuple[str, str, Any]]:
    """Every route, with ``name`` where its model is named."""
    message = [{"role": "user", "content": "hi"}]
    fields: dict[str, Any] = {
        "messages": message,
        "prompt": "x",
        "input": "x",
        "content": "x",
        "tokens": [1],
    }
    fields |= {"query": "x", "documents": ["x"], "max_tokens": 1}
    asked: list[tuple[str, str, Any]] = [
        ("POST", "/v1/chat/completions", {**fields, "model": name}),
        ("GET", f"/props?model={name}", None),
        ("GET", f"/v1/models/{name}", None),
        ("POST", "/loadModel", {"model": name}),
        ("GET", f"/chat/ask?question=x&model={name}", None),
        ("GET", f"/chat/ask?question=x&stream=true&model={name}", None),
        ("GET", f"/models/{name}", None),
        ("GET", f"/unloadModel?model={name}", None),
        ("GET", f"/upstream/{name}/props", None),
        ("POST", f"/upstream/{name}/props", {}),
        ("GET", f"/admin/models/{name}/log", None),
        ("POST", "/unloadModel", {"model": name}),
        ("POST", "/models/load", {"model": name}),
        ("POST", "/models/unload", {"model": name}),
        ("POST", "/admin/keys", {"name": "x", "models": [name]}),
    ]
    for route in TABLE:
        path = re.sub(r"{\w+}", "0", route.path)
        if route.refused:
            continue
        if route.model is ModelIn.QUERY:
            for more in ("", "&autoload=true"):
                asked.append((route.method, f"{path}?model={name}{more}", None))
        elif route.model is ModelIn.FORM:
            asked.append((route.method, path, name))
            asked.append((route.method, f"{path}?model={name}", ""))
        else:
            for beside in BESIDE:
                asked.append((route.method, path, {**fields, "model": name, **beside}))
    return asked


def by_personality(name: str) -> list[tuple[str, str, Any]]:
    """The same with a model that may be used, and ``name`` as the personality."""
    changed: list[tuple[str, str, Any]] = []
    for method, path, body in requests("open"):
        if (isinstance(body, dict) and "messages" in body) or path == "/loadModel":
            changed.append((method, path, {**body, "personality": name}))
        elif path.startswith("/chat/ask"):
            changed.append((method, f"{path}&personality={name}", None))
    return changed


async def answer(running: Running, key: str, asked: tuple[str, str, Any]) -> Any:
    """Status, headers and body, without what is different each time."""
    method, path, body = asked
    options: dict[str, Any] = {"json": body} if isinstance(body, dict | list) else {}
    if isinstance(body, str):
        form = aiohttp.FormData({"model": body} if body else {})
        form.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
        options = {"data": form}
    async with running.request(method, path, key=key, **options) as response:
        text = await response.text()
        text = text.replace(response.headers["X-Request-Id"], "ID")
        headers = {k: v for k, v in response.headers.items() if k not in ("X-Request-ID", "Date")}
        return response.status, headers, WORDS.sub("NAME", text)


@pytest.mark.parametrize("loaded", [False, True])
async def test_answers_are_the_same(running: Running, loaded: bool) -> None:
    ring, scheduler = running.gateway.ring, running.gateway.scheduler
    assert ring is not None
    _, key = await ring.create("narrow", models=["open"], personalities=["pirate"])
    if loaded:
        await scheduler.load(MODELS[0])
    starts = [status.starts for status in scheduler.status()]
    pairs = []
    for number, (name, other) in enumerate(names()):
        routes = slice(None if number < 2 else FEW)
        pairs.append((requests(name)[routes], requests(other)[routes]))
    who, nobody = PERSONALITIES
    pairs.append((by_personality(who), by_personality(nobody)))
    for there, not_there in pairs:
        for one, two in zip(there, not_there, strict=True):
            first = await answer(running, key, one)
            assert first == await answer(running, key, two), one
            assert first[0] in (404, 403), (one, first)  # 403: for administrators, whatever it is
    assert [status.starts for status in scheduler.status()] == starts, "nothing is loaded for it"


async def test_who_may_use_it_is_told(running: Running) -> None:
    ring = running.gateway.ring
    assert ring is not None
    _, key = await ring.create("all")
    for which in (key, running.key):
        for there, not_there in names()[:3]:
            chat = {"model": there, "messages": [{"role": "user", "content": "hi"}]}
            path = "/v1/chat/completions"
            assert (await running.json("POST", path, json=chat, key=which))[0] == 200
            chat["model"] = not_there
            status, said = await running.json("POST", path, json=chat, key=which)
            assert (status, f"'{MODELS[0]}'" in said["error"]["message"]) == (404, True)


async def test_lists_show_only_what_a_key_may_use(
    running: Running, subtests: pytest.Subtests
) -> None:
    ring = running.gateway.ring
    assert ring is not None
    _, key = await ring.create("narrow", models=["open"], personalities=["pirate"])
    chat = {"model": MODELS[0], "messages": [{"role": "user", "content": "hi"}]}
    assert (await running.json("POST", "/v1/chat/completions", json=chat))[0] == 200
    load = {"model": MODELS[0], "personality": PERSONALITIES[0]}
    assert (await running.json("POST", "/loadModel", json=load))[0] == 200
    told = ""
    for path in (
        *("/models", "/models?loaded=true", "/models?format=openai", "/v1/models", "/props"),
        *("/v1/models/open", "/openapi.json", "/docs", "/ready", "/nope", "/chat/errors"),
    ):
        async with running.request("GET", path, key=key) as response:
            told += str(response.headers) + await response.text()
    async with running.request("GET", "/status", key=key) as response:
        while not (line := await response.content.readline()).startswith(b"data: "):
            assert line
        told += line.decode()
    assert "open:pirate" in told
    for secret in (MODELS[0], ALIASES[0], PERSONALITIES[0]):
        with subtests.test(f"{secret!r:.80}"):
            assert secret not in told
    assert (await running.json("GET", "/props", key=key))[1]["max_instances"] == 1
    assert (await running.json("GET", "/props"))[1]["max_instances"] == 2
