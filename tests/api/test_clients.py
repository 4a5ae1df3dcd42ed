"""Clients that others wrote, against the gateway with the real demo model."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import DEMO, DEMO_GGUF, FAKE, MakeGateway, Running, Served, fake_model

RECORDER = str(FAKE.with_name("recording_llama_server.py"))
LAST_OF_MESSAGES = 'event: message_stop\ndata: {"type": "message_stop"}\n\n'
QUESTION: list[Any] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def claude(demo: Served) -> Any:
    with anthropic.Anthropic(base_url=demo.url, api_key=demo.key, max_retries=0) as client:
        yield client


# --- anthropic ------------------------------------------------------------------------------


def test_anthropics_client_gets_a_message(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model=DEMO, max_tokens=8, messages=QUESTION)
    assert answer.role == "assistant"
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    assert 0 < answer.usage.output_tokens <= 8


def test_anthropics_client_gets_a_stream(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model=DEMO, max_tokens=12, messages=QUESTION) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == final.content[0].text  # type: ignore[union-attr]


async def test_broken_stream_of_messages_raises_in_anthropics_client(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {"m": fake_model(tmp_path, **{"break": len(LAST_OF_MESSAGES)})}
    options: dict[str, Any] = {"max_tokens": 3, "messages": QUESTION, "stream": True}
    async with (
        make_gateway(models, llama_server=RECORDER) as running,
        anthropic.AsyncAnthropic(
            base_url=running.url, api_key=running.key, max_retries=0
        ) as client,
    ):
        stream = await client.messages.create(model="m", **options)
        events = aiter(stream)
        assert (await anext(events)).type == "message_start"
        with pytest.raises(anthropic.APIStatusError) as caught:
            assert [event async for event in events]
        assert caught.value.type == "api_error"


def test_messages_count_the_personality(claude: anthropic.Anthropic) -> None:
    def tokens(model: str, **more: Any) -> int:
        counted = claude.messages.count_tokens(model=model, messages=QUESTION, **more)
        return counted.input_tokens

    bare = tokens(DEMO, system="Be brief.")
    pirate = tokens(f"{DEMO}:pirate", system="Be brief.")
    assert pirate > bare
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert tokens(f"{DEMO}:pirate", system=blocks) == pirate
    assert (
        tokens(f"{DEMO}:pirate", system="Be brief.", extra_headers={"X-Personality": "none"})
        == bare
    )
    used = claude.messages.create(
        model=f"{DEMO}:pirate", max_tokens=1, messages=QUESTION, system="Be brief."
    ).usage
    assert used.input_tokens + (used.cache_read_input_tokens or 0) == pirate


def test_anthropics_client_knows_our_errors(claude: anthropic.Anthropic, demo: Served) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="nope", max_tokens=1, messages=QUESTION)
    assert missing.value.type == "not_found_error"
    long: list[Any] = [{"role": "user", "content": "word " * 6000}]
    with pytest.raises(anthropic.BadRequestError, match=r"60\d\d.*4096") as overflow:
        claude.messages.create(model=DEMO, max_tokens=1, messages=long)
    assert overflow.value.type == "invalid_request_error"
    with (
        anthropic.Anthropic(base_url=demo.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model=DEMO, max_tokens=1, messages=QUESTION)


# --- openai, beyond chat completions ---------------------------------------------------------


def test_openais_client_gets_a_response(demo: Served) -> None:
    with demo.client() as client:
        bare = client.responses.create(model=DEMO, input="Say hello.", max_output_tokens=8)
        assert bare.output_text
        assert bare.usage is not None
        items: list[Any] = [{"role": "developer", "content": "Be brief."}, *QUESTION]
        pirate = client.responses.create(
            model=f"{DEMO}:pirate", input=items, max_output_tokens=4, instructions="Be kind."
        )
        assert pirate.usage is not None
        assert pirate.usage.input_tokens > bare.usage.input_tokens
        counted = client.responses.input_tokens.count(
            model=f"{DEMO}:pirate", input=items, instructions="Be kind."
        )
        assert counted.input_tokens == pirate.usage.input_tokens


def test_openais_client_gets_a_response_as_a_stream(demo: Served) -> None:
    with demo.client() as client:
        stream = client.responses.create(
            model=DEMO, input="Say hello.", max_output_tokens=12, stream=True
        )
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[-1] == "response.completed"
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-1].response.output_text  # type: ignore[union-attr]


def test_openais_client_gets_a_completion(demo: Served) -> None:
    """A personality only if it is asked for, through the model's own template."""
    with demo.client() as client:
        bare = client.completions.create(model=DEMO, prompt="The Nile is", max_tokens=4)
        pirate = client.completions.create(
            model=f"{DEMO}:pirate", prompt="The Nile is", max_tokens=4
        )
        chat = client.chat.completions.create(
            model=f"{DEMO}:pirate",
            messages=[{"role": "user", "content": "The Nile is"}],
            max_tokens=4,
        )
        assert bare.usage is not None
        assert pirate.usage is not None
        assert chat.usage is not None
        assert bare.usage.prompt_tokens < 10
        assert pirate.usage.prompt_tokens == chat.usage.prompt_tokens
        stream = client.completions.create(model=DEMO, prompt="One", max_tokens=6, stream=True)
        assert len([chunk for chunk in stream if chunk.choices[0].text]) > 2


def test_schema_logprobs_n_stop_and_seed_are_passed_through(demo: Served) -> None:
    """JSON schema, logprobs, n, stop, seed."""
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Cairo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    with demo.client() as client:
        answer = client.chat.completions.create(
            model=f"{DEMO}:geography teacher",
            messages=QUESTION,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "c", "schema": schema},
            },
            logprobs=True,
            top_logprobs=2,
            max_tokens=20,
            seed=1,
        )
        assert json.loads(answer.choices[0].message.content or "")["city"] in ("Cairo", "Rome")
        assert answer.choices[0].logprobs is not None
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model=DEMO, messages=[{"role": "user", "content": "word " * 6000}]
            )
        assert caught.value.code == "context_length_exceeded"
        assert "4096" in caught.value.message


@pytest.fixture
async def embedding(make_gateway: MakeGateway) -> AsyncIterator[Running]:
    model = {
        "params": {"model": DEMO_GGUF, "ctxSize": 512},
        "embeddings": True,
        "extraArgs": ["--pooling", "mean"],
        "personalities": {"pirate": "Arr."},
    }
    async with make_gateway({"e": model}, llama_server="auto") as running:
        yield running


async def test_openais_client_gets_embeddings(embedding: Running) -> None:
    async with embedding.openai() as client:
        # The client asks for base64 by itself and decodes it.
        answer = await client.embeddings.create(model="e", input=["hello", "world"])
        assert [len(item.embedding) for item in answer.data] == [576, 576]
        assert answer.usage.prompt_tokens > 0
        floats = await client.embeddings.create(
            model="e:pirate", input="hello", encoding_format="float"
        )
        assert floats.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-4)
        packed = await client.embeddings.with_raw_response.create(
            model="e", input="hello", encoding_format="base64"
        )
        raw = base64.b64decode(json.loads(packed.content)["data"][0]["embedding"])
        assert struct.unpack("<576f", raw) == pytest.approx(floats.data[0].embedding, abs=1e-4)
        entry = await client.models.retrieve("e")
        assert entry.status == {"value": "loaded"}  # type: ignore[attr-defined]
        assert entry.context_size == 512  # type: ignore[attr-defined]
        assert entry.meta["n_embd"] == 576  # type: ignore[attr-defined]
        status, _ = await embedding.chat("e", max_tokens=2)
        assert ("chat" in entry.capabilities) == (status == 200)  # type: ignore[attr-defined]
        # A model that cannot hear.
        with pytest.raises(openai.BadRequestError, match="mmproj"):
            await client.audio.transcriptions.create(model="e", file=("a.wav", b"RIFF" * 50_000))
    tokens = await embedding.json("POST", "/tokenize", json={"model": "e", "content": "hello"})
    assert tokens[0] == 200
    text = await embedding.json("POST", "/detokenize", json={"model": "e", **tokens[1]})
    assert text == (200, {"content": "hello"})
