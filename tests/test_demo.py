"""The whole gateway with the real model, as a person starts it: no configuration at all."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.harness import COMMAND, DEMO, DEMO_GGUF, MakeGateway, Served, wait_until

QUESTION: Any = [{"role": "user", "content": "Say hello."}]


def get(served: Served, path: str, key: str | None = None) -> tuple[int, Any]:
    return call(served, "GET", path, key=key)


def call(
    served: Served, method: str, path: str, body: Any = None, *, key: str | None = None
) -> tuple[int, Any]:
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    headers = {"Authorization": f"Bearer {key or served.key}"}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def backend_slots(served: Served) -> Any:
    """What the demo's llama-server itself says it is doing."""
    (note,) = served.root.glob("share/llm-gateway/data/gateway.json")
    control = Path(json.loads(note.read_text())["control"])
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        (backend,) = (file for file in control.parent.glob("*.sock") if file != control)
        connection.connect(str(backend))
        connection.sendall(b"GET /slots HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def generating(served: Served) -> bool:
    slots = backend_slots(served)
    # An object says why there are none: the model is still loading.
    return isinstance(slots, list) and any(slot["is_processing"] for slot in slots)


def test_the_printed_curl_line_works(demo: Served) -> None:
    assert demo.key
    line = next(line for line in demo.out if line.strip().startswith("curl "))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"]
    assert answer["responses"] == answer["choices"][0]["message"]["content"]


def test_health_ready_and_ping_need_no_key(demo: Served) -> None:
    assert get(demo, "/health", key="nonsense") == (200, {"status": "ok"})
    wait_until(lambda: get(demo, "/ready", key="nonsense")[0] == 200, 10, "/ready is 200")


def test_openai_client_gets_an_answer(demo: Served) -> None:
    with demo.client() as client:
        answer = client.chat.completions.create(model=DEMO, messages=QUESTION, max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.responses == answer.choices[0].message.content  # type: ignore[attr-defined]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8


def test_stream_comes_token_by_token(demo: Served) -> None:
    with demo.client() as client:
        stream = client.chat.completions.create(
            model=f"{DEMO}:pirate",
            messages=QUESTION,
            max_tokens=2000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        texts = (
            text for chunk in stream if chunk.choices and (text := chunk.choices[0].delta.content)
        )
        pieces = [next(texts) for _ in range(6)]
        assert generating(demo)  # what has come, came while the rest is still to be written
        stream.close()
    assert all(pieces)


async def test_async_openai_client_gets_answers(demo: Served) -> None:
    async with demo.async_client() as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model="demo", messages=QUESTION, max_tokens=4)
                for _ in range(3)
            )
        )
        assert all(answer.choices[0].message.content for answer in answers)
        stream = await client.chat.completions.create(
            model="demo", messages=QUESTION, max_tokens=4, stream=True
        )
        assert [chunk async for chunk in stream]


def prompt_tokens(served: Served, model: str, *, key: str | None = None, **extra: Any) -> int:
    with served.client() as client:
        client.api_key = key or client.api_key
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=1, **extra
        )
        assert answer.usage is not None
        return answer.usage.prompt_tokens


def test_a_personality_is_in_every_request(demo: Served) -> None:
    bare = prompt_tokens(demo, DEMO, extra_body={"personality": "none"})
    teacher = prompt_tokens(demo, f"{DEMO}:geography teacher")
    assert teacher > bare
    chosen: list[dict[str, Any]] = [
        {"extra_body": {"personality": "geography teacher"}},
        {"extra_headers": {"X-Personality": "geography teacher"}},
    ]
    for extra in chosen:
        assert prompt_tokens(demo, DEMO, **extra) == teacher
    assert prompt_tokens(demo, f"{DEMO}:pirate", extra_headers={"X-Personality": "none"}) == bare


def test_unknown_names_are_404_and_say_what_there_is(demo: Served) -> None:
    with demo.client() as client:
        with pytest.raises(openai.NotFoundError, match="SmolLM2-135M"):
            client.chat.completions.create(model="nope", messages=QUESTION)
        with pytest.raises(openai.NotFoundError, match="pirate"):
            client.chat.completions.create(model=f"{DEMO}:nope", messages=QUESTION)


def test_openais_client_lists_the_models(demo: Served) -> None:
    with demo.client() as client:
        names = [model.id for model in client.models.list()]
        assert names == [DEMO, f"{DEMO}:geography teacher", f"{DEMO}:pirate"]
        assert client.models.retrieve(f"{DEMO}:pirate").id == f"{DEMO}:pirate"
    assert get(demo, "/models") == (200, [DEMO])


def test_client_of_the_old_system_works_unchanged(demo: Served) -> None:
    """What a client of the old system does, with the key that `keys create NAME TEXT` makes."""
    made = subprocess.run(
        [COMMAND, "keys", "create", "old client", "as in the old system"],
        cwd=demo.root,
        env={**os.environ, "XDG_DATA_HOME": str(demo.root / "share")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "the running gateway has been told" in made.stderr
    key = made.stdout.splitlines()[-1]
    wanted = {"model": DEMO, "personality": "pirate"}
    status, answer = call(demo, "POST", "/loadModel", wanted, key=key)
    assert status == 200
    assert answer["message"] == f"Model {DEMO} loaded with personality pirate."
    assert get(demo, "/models?loaded=true", key) == (200, [DEMO])
    bare, pirate = prompt_tokens(demo, DEMO), prompt_tokens(demo, f"{DEMO}:pirate")
    assert bare < pirate
    assert prompt_tokens(demo, "NotNeeded", key=key) == pirate
    assert prompt_tokens(demo, DEMO, key=key) == pirate  # the choice holds for the name, too
    status, answer = get(demo, "/chat/ask?question=Say%20hello.", key)
    assert status == 200
    assert answer["question"] == "Say hello."
    assert answer["response"]
    assert prompt_tokens(demo, "NotNeeded") == bare  # another key's: there is one model
    assert call(demo, "POST", "/unloadModel", key=key)[0] == 403
    assert call(demo, "POST", "/unloadModel") == (200, {"message": "Model unloaded."})
    assert get(demo, "/models?loaded=true", key) == (200, [])
    assert prompt_tokens(demo, "NotNeeded", key=key) == pirate


def test_a_client_that_hangs_up_ends_the_stream(demo: Served) -> None:
    address = urlsplit(demo.url)
    body = {
        "model": DEMO,
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "max_tokens": 3000,
        "ignore_eos": True,
        "stream": True,
    }
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    headers = {"Authorization": f"Bearer {demo.key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    assert response.getheader("Content-Type", "").startswith("text/event-stream")
    assert response.getheader("X-Accel-Buffering") == "no"
    assert response.getheader("Cache-Control") == "no-cache"
    assert response.read1(10)
    assert generating(demo)
    response.close()
    connection.close()
    # Within a second, but for a busy machine; the whole answer would take half a minute.
    wait_until(lambda: not generating(demo), 5, "the generation has ended")


async def test_a_client_that_hangs_up_ends_the_answer_it_waits_for(
    make_gateway: MakeGateway,
) -> None:
    """llama-server looks once a second whether the client of an unstreamed answer is there.

    So the proof is its log: asking /slots starts that second anew each time.
    """
    model = {"params": {"model": DEMO_GGUF, "ctxSize": 4096}}
    async with make_gateway({"m": model}, llama_server="auto") as running:
        await running.gateway.scheduler.load("m")
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        cancelled = asyncio.Event()
        began = asyncio.Event()

        def look() -> None:
            line = backend.log.tail(1)[0]
            if "processing task" in line:
                began.set()
            elif "cancel task" in line:
                cancelled.set()

        backend.log.listen(look)
        request = asyncio.create_task(  # noqa: TID251 - a client's task, not the gateway's
            running.chat("m", "Tell me a long story.", max_tokens=3000, ignore_eos=True)
        )
        async with asyncio.timeout(20):
            await began.wait()
        await asyncio.sleep(0.3)  # in the middle of it: nothing else tells when that is
        request.cancel()  # closes the client's connection
        async with asyncio.timeout(5):  # as above
            await cancelled.wait()
        assert not running.gateway.scheduler.in_flight


def test_context_overflow_is_a_clear_error(demo: Served) -> None:
    with demo.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=DEMO, messages=[{"role": "user", "content": "word " * 6000}]
        )
    assert "4096" in caught.value.message
    assert isinstance(caught.value.code, str)
