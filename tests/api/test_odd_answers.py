"""A server that answers something else than it should: the client is told, and nothing breaks."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.proxy.routes import TABLE, ModelIn
from tests.harness import FAKE, MakeGateway, Running, fake_model
from tests.remote_server import RemoteServer

JSON, EVENTS = "application/json", "text/event-stream"
#: What is no JSON, or of a shape that nobody expects, and fields of the wrong type.
BODIES = (
    *("", "no json", "{", "\ufeff{}", "null", "1", '"x"', "[]", "[null]", "[[]]", "{}"),
    *('{"error": 1}', '{"error": {"message": 1}}', '{"model": 1}', '{"prompt": 1}'),
    *(
        json.dumps({name: value})
        for name in ("choices", "usage", "timings", "data", "tokens")
        for value in (1, [None], {"prompt_tokens": "x"})
    ),
    *(
        json.dumps({"choices": [{name: value}]})
        for name in ("message", "delta", "text")
        for value in (None, 1, {"content": 1})
    ),
    '{"usage": {"prompt_tokens": -1, "completion_tokens": 1e300}}',
    '{"timings": {"prompt_n": null, "predicted_n": "x", "cache_n": []}}',
    '{"default_generation_settings": {"n_ctx": "x"}, "model_path": 1}',
    '{"type": "message_start", "message": 1}',
    '{"type": "response.completed", "response": []}',
    '{"choices": [{"message": {"content": "\\ud800"}}]}',
)
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "hi"}
#: A personality by name, for what is written down by the model's template.
FIELDS = {
    "model": "m:pirate",
    "messages": [USER],
    "prompt": "x",
    "input": "x",
    "content": "x",
    "tokens": [1],
    "query": "x",
    "documents": ["x"],
    "max_tokens": 1,
    "id": "x",
}


@pytest.fixture(params=["here", "elsewhere"])
async def running(
    make_gateway: MakeGateway, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Running, Callable[[str, str], None]]]:
    """A gateway, and what says how its model's server answers whatever it is asked."""
    people = {"pirate": "Arr."}
    if request.param == "here":
        says = tmp_path / "says"
        recorder = str(FAKE.with_name("recording_llama_server.py"))

        def say(kind: str, body: str) -> None:
            says.write_text(json.dumps({"type": kind, "body": body}))

        model = fake_model(tmp_path, personalities=people, says_in=says)
        async with make_gateway({"m": model}, llama_server=recorder) as running:
            await running.gateway.scheduler.load("m")
            yield running, say
        return

    class Odd(dict[str, Any]):
        answer: Any = (200, {})

        def get(self, path: str, default: Any = None) -> Any:
            return (200, {"data": []}) if path == "/v1/models" else self.answer

    async with RemoteServer() as server:
        odd = Odd()
        server.answers = odd

        def tell(kind: str, body: str) -> None:
            odd.answer = (200, body.encode("utf-8", "surrogatepass"), {"Content-Type": kind})

        model = {"url": server.url, "personalities": people, "modelName": "there"}
        async with make_gateway({"m": model}) as running:
            yield running, tell


def requests(*, streamed: bool) -> list[tuple[str, str, Any]]:
    """Every kind of request; ``streamed``: those whose answer may be a stream."""
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/chat/ask?question=x&model=m", None),
        ("GET", "/chat/ask?question=x&model=m&stream=true", None),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/m", None),
        ("GET", "/upstream/m/props", None),
        ("POST", "/upstream/m/v1/chat/completions", FIELDS),
        ("POST", "/v1/chat/completions", {**FIELDS, "messages": [SYSTEM, USER, SYSTEM, USER]}),
        ("POST", "/completion", {**FIELDS, "prompt": ["x", "y"]}),
    ]
    for route in TABLE:
        path = re.sub(r"{\w+}", "0", route.path)
        if route.refused or route.path != route.target:
            continue
        if route.model is ModelIn.QUERY:
            if not streamed:
                asked.append((route.method, f"{path}?model=m", None))
        elif route.model is ModelIn.FORM:
            asked.append((route.method, path, "m"))
        else:
            if not route.unqueued and (route.streams or not streamed):
                asked.append((route.method, path, {**FIELDS, "stream": streamed}))
            elif not streamed:
                asked.append((route.method, path, FIELDS))
    return asked


async def ask(running: Running, asked: tuple[str, str, Any]) -> tuple[int, bytes]:
    method, path, body = asked
    options: dict[str, Any] = {"json": body} if isinstance(body, dict) else {}
    if isinstance(body, str):
        form = aiohttp.FormData({"model": body})
        form.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
        options = {"data": form}
    async with running.request(method, path, **options) as response:
        try:
            return response.status, await response.read()
        except aiohttp.ClientPayloadError:
            return response.status, b"cut short"


async def test_no_answer_of_a_server_is_our_own_fault(
    running: tuple[Running, Callable[[str, str], None]], caplog: pytest.LogCaptureFixture
) -> None:
    gateway, say = running
    found = {}
    for body in BODIES:
        for kind in (JSON, EVENTS):
            say(kind, f"data: {body}\n\n" if kind == EVENTS else body)
            for asked in requests(streamed=kind == EVENTS):
                status, said = await ask(gateway, asked)
                if status == 500 or b"internal error" in said:
                    found[body, kind, *asked[:2]] = said
    assert not found
    assert not [record.getMessage() for record in caplog.records if record.exc_info]


async def test_it_is_said_what_is_missing(
    running: tuple[Running, Callable[[str, str], None]], subtests: pytest.Subtests
) -> None:
    gateway, say = running
    say(JSON, '{"tokens": 1}')
    for asked, words in (
        (("POST", "/completion", FIELDS), "answered /apply-template without a text `prompt`"),
        (("GET", "/chat/ask?question=x", None), "did not answer with a stream"),
        (("GET", "/chat/ask?question=x&stream=true", None), "did not answer with a stream"),
    ):
        with subtests.test(f"{asked!r:.80}"):
            status, said = await ask(gateway, asked)
            error = json.loads(said)["error"]
            assert (status, error["code"]) == (502, "backend_error")
            assert words in error["message"]
    for event, words in (
        ("{x}", "an event that is no JSON"),
        ('{"choices": [1]}', "an event whose `choices` are none"),
        ('{"choices": [{"delta": {"content": 1}}]}', "an event whose `choices` are none"),
        ('{"usage": {}}', "a stream that has no `choices` in it"),
        ('{"error": "overloaded"}', "overloaded"),
    ):
        with subtests.test(f"{event!r:.80}"):
            say(EVENTS, f"data: {event}\n\ndata: [DONE]\n\n")
            for stream in ("false", "true"):
                path = f"/chat/ask?question=x&stream={stream}"
                status, said = await ask(gateway, ("GET", path, None))
                assert (status, words in json.loads(said)["error"]["message"]) == (502, True), said
