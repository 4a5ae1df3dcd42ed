"""What requests of Ollama's API become. The bodies are those of its documentation (docs/api.md)."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pytest

from gateway.errors import BadRequest
from gateway.ollama.requests import CHAT, EMBEDDINGS, INFILL, RAW, Asked, translate
from tests.parrot_model import TOOL

STREAM = {"stream": True, "stream_options": {"include_usage": True}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and the rest of it").decode()


def made(kind: str, **body: Any) -> tuple[Asked, dict[str, Any]]:
    asked, raw = translate(json.dumps({"model": "llama3.2", **body}).encode(), kind, 1000)
    parsed: dict[str, Any] = orjson.loads(raw)
    return asked, parsed


def chat(*messages: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made("chat", messages=list(messages), **more)[1]["messages"]
    return found


def test_a_chat_stays_a_chat() -> None:
    messages = [{"role": "user", "content": "why is the sky blue?"}]
    asked, body = made("chat", messages=messages)
    assert asked == Asked("llama3.2", CHAT, stream=True)
    assert body == {"model": "llama3.2", "messages": messages, **STREAM}


def test_an_answer_in_one_piece_is_asked_for_as_a_stream_all_the_same() -> None:
    asked, body = made("chat", messages=[{"role": "user", "content": "hi"}], stream=False)
    assert not asked.stream
    assert body["stream"] is True


def test_tools_and_their_calls_keep_their_order_and_get_ids() -> None:
    city = {"name": "get_weather", "arguments": {"city": "Toronto"}}
    time = {"name": "get_time", "arguments": {}}
    messages = chat(
        {"role": "user", "content": "what is the weather in Toronto, and what time?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": city}, {"function": time}],
        },
        {"role": "tool", "content": "noon", "tool_name": "get_time"},
        {"role": "tool", "content": "11 degrees celsius", "tool_name": "get_weather"},
        tools=[TOOL],
    )
    calls = messages[1]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["get_weather", "get_time"]
    assert [call["function"]["arguments"] for call in calls] == ['{"city":"Toronto"}', "{}"]
    first, second = (call["id"] for call in calls)
    assert [message["tool_call_id"] for message in messages[2:]] == [second, first]
    assert len({first, second}) == 2
    # Templates of Mistral's models refuse ids of another length.
    assert all(len(id_) == 9 and id_.isalnum() for id_ in (first, second))


def test_ids_that_a_client_keeps_are_left_as_they_are() -> None:
    call = {"id": "call_7", "function": {"name": "weather", "arguments": '{"city": "Cairo"}'}}
    messages = chat(
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "hot", "tool_call_id": "call_7"},
    )
    assert messages[0]["tool_calls"][0]["id"] == messages[1]["tool_call_id"] == "call_7"
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == '{"city": "Cairo"}'


@pytest.mark.parametrize(
    ("first", "part"),
    [
        (b"\x89PNG\r\n\x1a\n", ("image_url", "data:image/png;base64,")),
        (b"\xff\xd8\xff\xe0....", ("image_url", "data:image/jpeg;base64,")),
        (b"GIF89a....", ("image_url", "data:image/gif;base64,")),
        (b"RIFF....WEBPVP8 ", ("image_url", "data:image/webp;base64,")),
        (b"RIFF....WAVEfmt ", ("input_audio", "wav")),
        (b"ID3.........", ("input_audio", "mp3")),
    ],
)
def test_pictures_and_sounds_are_said_to_be_what_they_are(
    first: bytes, part: tuple[str, str]
) -> None:
    image = base64.b64encode(first + bytes(99)).decode()
    (message,) = chat({"role": "user", "content": "what is it?", "images": [image]})
    media, text = message["content"]
    assert media["type"] == part[0]
    assert text == {"type": "text", "text": "what is it?"}
    if part[0] == "image_url":
        assert media["image_url"]["url"] == part[1] + image
    else:
        assert media["input_audio"] == {"data": image, "format": part[1]}


def test_thoughts_of_before_are_passed_on() -> None:
    (message,) = chat({"role": "ASSISTANT", "content": "4", "thinking": "2 and 2"})
    assert message == {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}


def test_a_format_options_and_thinking_are_passed_on() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    asked, body = made(
        "chat",
        messages=[{"role": "user", "content": "Ollama is 22 years old"}],
        format=schema,
        options={"temperature": 0, "num_ctx": 8192},
        think=False,
        keep_alive="10m",
        logprobs=True,
        top_logprobs=2,
        personality="pirate",
    )
    assert asked.keep_alive == 600
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["temperature"], body["personality"]) == (0, "pirate")
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "num_ctx" not in body


def test_a_prompt_becomes_a_question_of_a_chat() -> None:
    asked, body = made("generate", prompt="Why?", system="Be brief.", images=[PNG], format="json")
    assert asked.path == CHAT
    system, question = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in question["content"]] == ["image_url", "text"]
    assert body["response_format"] == {"type": "json_object"}


def test_a_raw_prompt_is_sent_as_it_is() -> None:
    asked, body = made(
        "generate", prompt="[INST] hi [/INST]", raw=True, logprobs=True, format="json"
    )
    assert asked == Asked("llama3.2", RAW, stream=True)
    assert body == {
        "model": "llama3.2",
        "personality": "none",
        "prompt": "[INST] hi [/INST]",
        "logprobs": 1,
        "json_schema": {"type": "object"},
        **STREAM,
    }


def test_a_gap_is_filled() -> None:
    gap = {"prompt": "def compute_gcd(a, b):", "suffix": "    return result"}
    asked, body = made("generate", **gap, options={"num_predict": 9}, stream=False)
    assert asked.path == INFILL
    assert (body["input_prefix"], body["input_suffix"]) == (gap["prompt"], gap["suffix"])
    assert body["n_predict"] == 9
    assert "max_tokens" not in body


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", {}),
        ("chat", {"messages": []}),
        ("generate", {}),
        ("generate", {"prompt": ""}),
        ("embed", {}),
        ("embed", {"input": ""}),
        ("embed", {"input": []}),
        ("embeddings", {}),
    ],
)
def test_nothing_to_answer_means_to_load_the_model(kind: str, body: dict[str, Any]) -> None:
    assert made(kind, **body)[0].path == ""


def test_texts_for_embeddings() -> None:
    asked, body = made("embed", input="Why is the sky blue?", dimensions=64)
    assert (asked.path, asked.dimensions) == (EMBEDDINGS, 64)
    assert body["input"] == ["Why is the sky blue?"]
    assert made("embed", input=["a", "b"])[1]["input"] == ["a", "b"]
    assert made("embeddings", prompt="Here is an article")[1]["input"] == ["Here is an article"]


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("chat", {"model": ""}, "model is required"),
        ("chat", {"model": None}, "model is required"),
        ("chat", {"messages": "hi"}, "messages must be an array"),
        ("chat", {"messages": ["hi"]}, r"messages\[0\] must be an object"),
        ("chat", {"messages": [{"content": "hi"}]}, r"messages\[0\].role"),
        ("chat", {"messages": [{"role": "user", "content": [1]}]}, r"messages\[0\].content"),
        ("chat", {"messages": [{"role": "user", "images": ["?!"]}]}, "illegal base64 data"),
        ("chat", {"messages": [{"role": "user", "images": PNG}]}, "images must be an array"),
        ("chat", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "needs its name"),
        ("chat", {"stream": "yes"}, "stream must be a boolean"),
        ("generate", {"prompt": ["hi"]}, "prompt must be a string"),
        ("generate", {"prompt": "hi", "raw": True, "system": "x"}, "raw mode does not support"),
        ("generate", {"prompt": "hi", "template": "{{ .Prompt }}"}, "template can't be chosen"),
        ("generate", {"prompt": "hi", "context": [1, 2, 3]}, "context is none of this server"),
        ("embed", {"input": 3}, "invalid input type"),
        ("embed", {"input": [3]}, "invalid input type"),
        ("embed", {"input": "a", "dimensions": -1}, "dimensions"),
    ],
)
def test_what_is_no_request_is_refused(kind: str, body: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        made(kind, **body)
