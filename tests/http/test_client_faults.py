"""What a client got wrong is a 400 that says where and what to do, and is not sent again."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from gateway.backends import facts
from tests.harness import DEMO_GGUF, MakeGateway, Running
from tests.parrot_model import TOOL

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
USER = {"role": "user", "content": "hi"}
DATA_URL = "data:image/png;base64,iVBORw0KGgo="
WAV = {"data": "UklGRg==", "format": "wav"}
TOOLS = {
    CHAT: [TOOL],
    RESPONSES: [{"type": "function", **TOOL["function"]}],  # type: ignore[dict-item]
    ANTHROPIC: [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}],
}


@pytest.fixture
async def running(
    make_gateway: MakeGateway, parrot_model: Path, minilm_model: Path, tiny_model: Path
) -> AsyncIterator[Running]:
    minilm = {"params": {"model": str(minilm_model), "threads": 1}}
    parrot = {"params": {"model": str(parrot_model), "threads": 1}}
    models = {
        "parrot": {**parrot, "personalities": {"kind": "Be kind."}},
        "named": {"params": {"model": str(tiny_model), "threads": 1}, "template": "zephyr"},
        # The same by a flag, of which models.json doesn't say what it does.
        "flagged": {**parrot, "extraArgs": ["--no-jinja"]},
        "embed": {**minilm, "embeddings": True},
        "rerank": {**minilm, "reranking": True},
        "unmarked": minilm,
    }
    async with make_gateway(models, llama_server="auto") as running:
        yield running


async def refused(
    running: Running, path: str, body: dict[str, Any]
) -> tuple[str, str | None, str | None]:
    """Message, ``param`` and code of the 400 that ``body`` gets, at both doors, streamed or not."""
    found = set()
    for stream in (False, True):
        for query in ("", "?"):  # with a query it is aiohttp that serves it
            sent = {**copy.deepcopy(body), **({"stream": True} if stream else {})}
            async with running.request("POST", path + query, json=sent) as answer:
                said = await answer.json()
                assert answer.status == 400, said
                assert answer.headers["x-should-retry"] == "false"
                assert answer.content_type == "application/json"
                assert answer.headers["X-Request-Id"]
            error = said["error"]
            if "/messages" in path:
                assert said["type"] == "error"
                assert error["type"] == "invalid_request_error"
            found.add((error["message"], error.get("param"), error.get("code")))
    assert len(found) == 1, found
    return found.pop()


def loaded(running: Running) -> list[str]:
    return [status.name for status in running.gateway.scheduler.status() if status.pid]


# --- the model cannot ----------------------------------------------------------------------


async def test_what_models_json_says_is_known_without_loading(running: Running) -> None:
    said = await refused(running, CHAT, {"model": "named", "messages": [USER], "tools": [TOOL]})
    assert "`template`" in said[0]
    assert said[1:] == ("tools", "unsupported_by_model")
    for path, body in (
        (RESPONSES, {"input": "hi", "tools": TOOLS[RESPONSES]}),
        (f"{RESPONSES}/input_tokens", {"input": "hi", "tools": TOOLS[RESPONSES]}),
        (ANTHROPIC, {"messages": [USER], "tools": TOOLS[ANTHROPIC], "max_tokens": 9}),
        (f"{ANTHROPIC}/count_tokens", {"messages": [USER], "tools": TOOLS[ANTHROPIC]}),
        (f"{CHAT}/input_tokens", {"messages": [USER], "tools": [TOOL]}),
        ("/apply-template", {"messages": [USER], "tools": [TOOL]}),
    ):
        assert "`template`" in (await refused(running, path, {"model": "named", **body}))[0]

    def shown(*parts: Any) -> dict[str, Any]:
        return {"model": "parrot", "messages": [USER, {"role": "user", "content": [*parts]}]}

    picture = {"type": "image_url", "image_url": {"url": DATA_URL}}
    text = {"type": "text", "text": "x"}
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "image", "source": source}],
    }
    item = {"role": "user", "content": [{"type": "input_image", "image_url": DATA_URL}]}
    output = {"type": "function_call_output", "call_id": "1", "output": item["content"]}
    for path, body, where in (
        (CHAT, shown(text, picture), "messages[1].content[1]"),
        (CHAT, shown({"type": "input_audio", "input_audio": WAV}), "messages[1].content[0]"),
        (f"{CHAT}/input_tokens", shown(picture), "messages[1].content[0]"),
        (ANTHROPIC, shown({"type": "image", "source": source}), "messages[1].content[0]"),
        (f"{ANTHROPIC}/count_tokens", shown(result), "messages[1].content[0].content[0]"),
        (RESPONSES, {"model": "parrot", "input": [USER, item]}, "input[1].content[0]"),
        (f"{RESPONSES}/input_tokens", {"model": "parrot", "input": [output]}, "input[0].output[0]"),
        (
            "/v1/completions",
            {"model": "parrot", "prompt": {"prompt_string": "x", "multimodal_data": ["AA=="]}},
            "prompt",
        ),
        (
            "/v1/embeddings",
            {"model": "embed", "input": [{"prompt_string": "x", "multimodal_data": ["AA=="]}]},
            "input[0]",
        ),
    ):
        message, param, _ = await refused(running, path, body)
        assert message.startswith(f"`{where}`: the model ")
        assert "mmproj" in message
        if "/messages" not in path:
            assert param == where
    form = aiohttp.FormData({"model": "parrot"})
    form.add_field("file", b"RIFF", filename="x.wav")
    status, answer = await running.json("POST", "/v1/audio/transcriptions", data=form)
    assert status == 400
    assert "mmproj" in answer["error"]["message"]

    for path in ("/embedding", "/embeddings", "/v1/embeddings"):
        body = {"model": "parrot", "input": "x", "content": "x"}
        assert '"embeddings": true' in (await refused(running, path, body))[0]
    for path in ("/rerank", "/v1/reranking"):
        for model in ("parrot", "embed"):
            body = {"model": model, "query": "x", "documents": ["y"]}
            assert '"reranking": true' in (await refused(running, path, body))[0]

    # The file's header says that it only reads.
    for model in ("embed", "rerank", "unmarked"):
        for path, body in (
            (CHAT, {"messages": [USER]}),
            (RESPONSES, {"input": "x"}),
            (ANTHROPIC, {"messages": [USER], "max_tokens": 9}),
            ("/completion", {"prompt": "x"}),
            ("/v1/completions", {"prompt": "x"}),
            ("/infill", {"input_prefix": "x", "input_suffix": "y"}),
        ):
            assert "only reads text" in (await refused(running, path, {"model": model, **body}))[0]
        status, answer = await running.json("GET", f"/chat/ask?question=x&model={model}")
        assert (status, answer["error"]["code"]) == (400, "unsupported_by_model")
    assert not loaded(running)
    assert (await running.json("GET", "/chat/errors"))[1] == {"errors": []}


@pytest.mark.parametrize("given", [False, True])
async def test_who_wants_no_tools_gets_none(running: Running, given: bool) -> None:
    """Agents say so for their last step; a model that can't be given any can do without."""
    for path, body, choice in (
        (CHAT, {"messages": [USER], "max_tokens": 1}, "none"),
        (f"{CHAT}/input_tokens", {"messages": [USER]}, "none"),
        (RESPONSES, {"input": "hi", "max_output_tokens": 1}, "none"),
        (ANTHROPIC, {"messages": [USER], "max_tokens": 1}, {"type": "none"}),
    ):
        tools = {"tools": TOOLS[path.removesuffix("/input_tokens")]} if given else {}
        sent = {**body, **tools, "tool_choice": choice, "grammar": "root ::= [a-z]"}
        for query in ("", "?"):
            answered = await running.json("POST", path + query, json={"model": "named", **sent})
            assert answered[0] == 200, answered
        if given:
            sent = {**sent, "tool_choice": {"type": "auto"} if path == ANTHROPIC else "auto"}
            assert "`template`" in (await refused(running, path, {"model": "named", **sent}))[0]


async def test_what_only_the_model_knows(running: Running) -> None:
    """llama-server says it with a 500 or a 501."""
    body = {"model": "flagged", "messages": [USER], "tools": [TOOL]}
    assert "cannot be given tools" in (await refused(running, CHAT, body))[0]
    body = {"model": "flagged", "messages": [USER], "tool_choice": "required"}
    assert "cannot be given tools" in (await refused(running, CHAT, body))[0]
    body = {"model": "named", "input_prefix": "x", "input_suffix": "y"}
    assert "fills no gaps" in (await refused(running, "/infill", body))[0]
    body = {"model": "parrot", "input": "x"}
    assert "no decision model" in (await refused(running, "/v1/systemone", body))[0]
    # What we say before it is asked, it says too.
    heard = {"prompt_string": "", "multimodal_data": [""]}
    picture = [{"type": "image_url", "image_url": {"url": DATA_URL}}]
    for model, path, body, said in (
        ("embed", CHAT, {"messages": [USER]}, "only reads text"),
        ("embed", "/v1/completions", {"prompt": "x"}, "only reads text"),
        ("named", CHAT, {"messages": [USER], "tools": [TOOL]}, "`template`"),
        ("parrot", CHAT, {"messages": [{"role": "user", "content": picture}]}, "mmproj"),
        (
            "embed",
            "/v1/embeddings",
            {"input": [heard]},
            "mmproj",
        ),
        ("parrot", "/v1/embeddings", {"input": "x"}, '"embeddings": true'),
        ("parrot", "/v1/rerank", {"query": "x", "documents": ["x"]}, '"reranking": true'),
        ("parrot", CHAT, {"messages": [{"content": "x"}]}, "role"),
        ("parrot", "/props", {"seed": 1}, '["--props"]'),
        ("parrot", CHAT, {"messages": [USER], "tools": [{"type": "function"}]}, "function"),
    ):
        assert said in (await refused(running, f"/upstream/{model}{path}", body))[0]
    status, answer = await running.json("POST", f"/upstream/parrot{ANTHROPIC}", json={"input": "x"})
    assert (status, answer["error"]["message"]) == (400, "'messages' is required")
    for path in ("/metrics?model=parrot", "/upstream/parrot/metrics"):
        async with running.request("GET", path) as answer:
            assert answer.status == 400
            assert answer.headers["x-should-retry"] == "false"
            error = (await answer.json())["error"]
        assert '["--metrics"]' in error["message"]
        assert error["code"] == "unsupported_by_model"
    assert (await running.json("GET", "/chat/errors"))[1] == {"errors": []}
    states = {status.name: status for status in running.gateway.scheduler.status()}
    assert {states[name].deaths for name in loaded(running)} == {0}


async def test_a_file_that_comes_later_is_looked_at(
    make_gateway: MakeGateway, minilm_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download, or a drive, that was not there when the first request was."""
    monkeypatch.setattr(facts, "_FRESH", 0.0)
    file = tmp_path / "later.gguf"
    entry = {"params": {"model": str(file)}}
    async with make_gateway({"m": entry}, llama_server="auto") as running:
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (500, "model_file_not_found")
        file.symlink_to(minilm_model)
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (400, "unsupported_by_model")


async def test_a_model_that_both_writes_and_embeds(make_gateway: MakeGateway) -> None:
    entry = {
        "params": {"model": DEMO_GGUF, "ctxSize": 512},
        "embeddings": True,
        "extraArgs": ["--pooling", "mean"],
    }
    async with make_gateway({"m": entry}, llama_server="auto") as running:
        assert (await running.chat("m", max_tokens=1))[0] == 200
        status, _ = await running.json("POST", "/v1/embeddings", json={"model": "m", "input": "x"})
        assert status == 200


# --- the request is wrong ------------------------------------------------------------------


def call(**function: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", **function}}],
    }


RESULT = {"role": "tool", "tool_call_id": "1", "content": "x"}


async def test_arguments_that_are_no_json(running: Running) -> None:
    """In the history, where small models leave them; only some templates mind."""
    history = [USER, call(arguments='{"a": 1}'), RESULT, call(arguments='{"a": '), RESULT]
    for path in (CHAT, f"{CHAT}/input_tokens", "/apply-template"):
        message, param, _ = await refused(running, path, {"model": "parrot", "messages": history})
        assert param == "messages[3].tool_calls[0].function.arguments"
        assert param in message
        assert "JSON" in message
    items = [
        USER,
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
    ]
    for path in (RESPONSES, f"{RESPONSES}/input_tokens"):
        _, param, _ = await refused(running, path, {"model": "parrot", "input": items})
        assert param == "input[1].arguments"
    # Whatever becomes of the messages on their way: they are counted as the client does.
    late = {"role": "system", "content": "S"}
    for model in ("parrot", "parrot:kind"):
        for first in ([late], [late, late], [late, late, USER, late]):
            body = {"model": model, "messages": [*first, *history]}
            where = f"messages[{len(first) + 3}].tool_calls[0].function.arguments"
            for path in (CHAT, f"{CHAT}/input_tokens", "/apply-template"):
                assert (await refused(running, path, body))[1] == where
            body = {"model": model, "input": [*first, *items]}
            for path in (RESPONSES, f"{RESPONSES}/input_tokens"):
                _, param, _ = await refused(running, path, body)
                assert param == f"input[{len(first) + 1}].arguments"
            parts = [{"type": "text", "text": None}, {"type": "text"}]
            body = {"model": model, "messages": [*first, {"role": "user", "content": parts}]}
            where = f"messages[{len(first)}].content[1].text"
            assert (await refused(running, CHAT, body))[1] == where
    # Such a template writes down whatever it is.
    body = {"model": "named", "messages": history}
    assert (await running.json("POST", "/apply-template", json=body))[0] == 200
    assert (await running.json("GET", "/chat/errors"))[1] == {"errors": []}


async def test_tools_and_calls_that_are_none(running: Running) -> None:
    function = TOOL["function"]
    for tools, where in (
        ("x", "tools"),
        ([None], "tools[0]"),
        ([TOOL, {"type": "function"}], "tools[1].function"),
        ([{"type": "function", "function": 7}], "tools[0].function"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": "web_search"}], "tools[0].type"),
        ([{"function": {"name": 7}}], "tools[0].function.name"),
    ):
        body = {"model": "parrot", "messages": [USER], "tools": tools}
        message, param, _ = await refused(running, CHAT, body)
        assert param == where
        assert f"`{where}`" in message
    for tools, where in (
        ([{"type": "function"}], "tools[0].name"),
        ([TOOL], "tools[0].name"),
        ([None], "tools[0]"),
    ):
        _, param, _ = await refused(
            running, RESPONSES, {"model": "parrot", "input": "x", "tools": tools}
        )
        assert param == where
    for tools, where in (([TOOL], "tools[0].name"), ({}, "tools")):
        body = {"model": "parrot", "messages": [USER], "tools": tools, "max_tokens": 9}
        assert f"`{where}`" in (await refused(running, ANTHROPIC, body))[0]
    for calls, where in (
        ("x", "messages[1].tool_calls"),
        ([1], "messages[1].tool_calls[0]"),
        ([{"id": "1", "type": "function"}], "messages[1].tool_calls[0].function"),
        ([{"id": "1", "type": "custom", "custom": {}}], "messages[1].tool_calls[0].type"),
        ([{"function": {"arguments": "{}"}}], "messages[1].tool_calls[0].function.name"),
    ):
        body = {"model": "parrot", "messages": [USER, {"role": "assistant", "tool_calls": calls}]}
        assert (await refused(running, CHAT, body))[1] == where
    item = {"type": "function_call", "call_id": "1", "arguments": "{}"}
    _, param, _ = await refused(running, RESPONSES, {"model": "parrot", "input": [USER, item]})
    assert param == "input[1].name"
    assert not loaded(running)
    # What can only be meant one way is filled in.
    messages = [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, RESULT]
    body = {"messages": messages, "tools": [{"type": None, "function": function}]}
    assert (await running.json("POST", CHAT, json={"model": "parrot", **body}))[0] == 200


async def test_other_values_that_are_none(running: Running) -> None:
    for path, body, said in (
        (CHAT, {"messages": [USER], "reasoning_format": "x"}, "reasoning format"),
        (CHAT, {"messages": [USER], "json_schema": {}, "grammar": "root ::= []"}, "json_schema"),
        (CHAT, {"messages": [{**USER, "name": 7}]}, "must be string"),
        (
            CHAT,
            {"messages": [USER, {"role": "user", "content": [{"type": "text"}]}]},
            "[1].content",
        ),
        ("/detokenize", {"tokens": [10**8]}, "tokens"),
    ):
        assert said in (await refused(running, path, {"model": "parrot", **body}))[0]
    for path in ("/rerank", "/v1/reranking"):
        for number in (-1, 2**70):
            body = {"model": "rerank", "query": "x", "documents": ["x", "y"], "top_n": number}
            message, param, _ = await refused(running, path, body)
            assert (param, "`top_n`" in message) == ("top_n", True)
    for role in (None, 7):
        for path in (CHAT, f"{CHAT}/input_tokens", ANTHROPIC, "/apply-template"):
            body = {"model": "parrot", "messages": [USER, {"role": role, "content": "x"}]}
            assert "`messages[1].role`" in (await refused(running, path, body))[0]


async def test_the_sdks_ask_once(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.access")
    async with running.openai(max_retries=2) as client:
        for model in ("named", "flagged"):
            with pytest.raises(openai.BadRequestError, match="tools"):
                await client.chat.completions.create(
                    model=model,
                    messages=[USER],  # type: ignore[list-item]
                    tools=[TOOL],  # type: ignore[list-item]
                )
        with pytest.raises(openai.BadRequestError, match="embeddings"):
            await client.embeddings.create(model="parrot", input="x")
    async with anthropic.AsyncAnthropic(base_url=running.url, api_key=running.key) as other:
        with pytest.raises(anthropic.BadRequestError, match="tools"):
            await other.messages.create(
                model="flagged",
                max_tokens=9,
                messages=[USER],  # type: ignore[list-item]
                tools=TOOLS[ANTHROPIC],  # type: ignore[arg-type]
            )
    asked = [record for record in caplog.records if record.name == "gateway.access"]
    assert len(asked) == 4


# --- nulls ---------------------------------------------------------------------------------

CALL_ITEM = {
    "type": "function_call",
    "id": "fc",
    "call_id": "1",
    "name": "f",
    "arguments": "{}",
    "status": "completed",
}
BODIES: dict[str, tuple[dict[str, Any], set[str]]] = {
    CHAT: (
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "S"}], "name": "n"},
                {
                    "role": "assistant",
                    "content": "c",
                    "name": "n",
                    "reasoning_content": "r",
                    "refusal": "r",
                    "annotations": [],
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "index": 0,
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "x", "name": "f"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "n"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "description": "d",
                        "strict": False,
                        "parameters": {"type": "object", "properties": {}},
                    },
                }
            ],
            "stream_options": {"include_usage": True},
        },
        {
            "messages",
            "role",
            "tools.0.function",
            "tool_calls.0.function",
            "function.name",
            "content.0.type",
        },
    ),
    RESPONSES: (
        {
            "instructions": "I",
            "input": [
                {
                    "type": "message",
                    "id": "u",
                    "role": "user",
                    "status": "completed",
                    "content": "c",
                },
                {
                    "type": "reasoning",
                    "id": "r",
                    "status": "completed",
                    "summary": [],
                    "encrypted_content": "e",
                    "content": [{"type": "reasoning_text", "text": "t"}],
                },
                {
                    "type": "message",
                    "id": "m",
                    "role": "assistant",
                    "status": "completed",
                    "content": [
                        {"type": "output_text", "text": "t", "annotations": [], "logprobs": []}
                    ],
                },
                CALL_ITEM,
                {"type": "function_call_output", "id": "o", "call_id": "1", "output": "x"},
            ],
            "tools": [
                {
                    "type": "function",
                    "name": "f",
                    "description": "d",
                    "strict": False,
                    "parameters": {"type": "object", "properties": {}},
                }
            ],
            "text": {"format": {"type": "text"}},
            "reasoning": {"effort": "low", "summary": "auto"},
        },
        # What Responses wants of each item.
        {
            "input",
            "role",
            "call_id",
            "name",
            "output",
            "summary",
            "input.1.type",
            "input.2.type",
            "input.3.type",
            "input.4.type",
            "content.0.type",
            "input.0.content",
            "input.2.content",
            "parameters",
        },
    ),
    ANTHROPIC: (
        {
            "max_tokens": 9,
            "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi", "citations": []}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "is_error": False,
                            "content": [{"type": "text", "text": "x"}],
                        }
                    ],
                },
            ],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "metadata": {"user_id": "u"},
        },
        {"messages", "role", "tools.0.name", "max_tokens", "content.0.type"},
    ),
}


def fields(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every field of every object in ``value``, but not below what is the client's own."""
    if isinstance(value, list):
        return [path for n, item in enumerate(value) for path in fields(item, (*at, n))]
    if not isinstance(value, dict):
        return []
    found = []
    for key, inner in value.items():
        found.append((*at, key))
        if key not in ("parameters", "input_schema") and (key != "input" or not at):
            found += fields(inner, (*at, key))
    return found


@pytest.mark.parametrize("path", sorted(BODIES))
async def test_nulls_harm_nothing(running: Running, path: str) -> None:
    """Each field by itself, with a real llama-server: as if it weren't there, and never a 5xx."""
    whole, required = BODIES[path]
    body = {"model": "parrot", "max_tokens": 2, "max_output_tokens": 2, **whole}
    assert (await running.json("POST", path, json=body))[0] == 200
    for field in fields(whole):
        with_null = copy.deepcopy(body)
        holder: Any = with_null
        for step in field[:-1]:
            holder = holder[step]
        holder[field[-1]] = None
        status, answer = await running.json("POST", path, json=with_null)
        name = ".".join(map(str, field))
        needed = any(f".{name}".endswith(f".{end}") for end in required)
        assert status == 200 or (needed and status == 400), (name, answer)
