"""What a model can't do is a 400 that says what would, and is not sent again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from gateway.backends import facts
from tests.harness import DEMO_GGUF, MakeGateway, Running
from tests.http.faulty_bodies import ANTHROPIC, CHAT, RESPONSES, USER, loaded, refused
from tests.parrot_model import TOOL

DATA_URL = "data:image/png;base64,iVBORw0KGgo="


WAV = {"data": "UklGRg==", "format": "wav"}


TOOLS = {
    CHAT: [TOOL],
    RESPONSES: [{"type": "function", **TOOL["function"]}],
    ANTHROPIC: [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}],
}


# --- the model cannot ----------------------------------------------------------------------


async def test_what_models_json_says_is_known_without_loading(
    running: Running, subtests: pytest.Subtests
) -> None:
    body: dict[str, Any]
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
        with subtests.test(f"{path!r:.80}"):
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
        with subtests.test(f"{path!r:.80}"):
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
        with subtests.test(f"{path!r:.80}"):
            body = {"model": "parrot", "input": "x", "content": "x"}
            assert '"embeddings": true' in (await refused(running, path, body))[0]
    for path in ("/rerank", "/v1/reranking"):
        for model in ("parrot", "embed"):
            body = {"model": model, "query": "x", "documents": ["y"]}
            assert '"reranking": true' in (await refused(running, path, body))[0]

    # The file's header says that it only reads.
    for model in ("embed", "rerank", "unmarked"):
        with subtests.test(f"{model!r:.80}"):
            for path, body in (
                (CHAT, {"messages": [USER]}),
                (RESPONSES, {"input": "x"}),
                (ANTHROPIC, {"messages": [USER], "max_tokens": 9}),
                ("/completion", {"prompt": "x"}),
                ("/v1/completions", {"prompt": "x"}),
                ("/infill", {"input_prefix": "x", "input_suffix": "y"}),
            ):
                assert (
                    "only reads text" in (await refused(running, path, {"model": model, **body}))[0]
                )
            status, answer = await running.json("GET", f"/chat/ask?question=x&model={model}")
            assert (status, answer["error"]["code"]) == (400, "unsupported_by_model")
    assert not loaded(running)
    assert (await running.json("GET", "/chat/errors"))[1] == {"errors": []}


@pytest.mark.parametrize("given", [False, True])
async def test_request_without_tools_gets_none(running: Running, given: bool) -> None:
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


async def test_what_only_the_model_knows_is_a_400(
    running: Running, subtests: pytest.Subtests
) -> None:
    """llama-server says it with a 500 or a 501."""
    body: dict[str, Any]
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
        with subtests.test(f"{model!r:.80}"):
            assert said in (await refused(running, f"/upstream/{model}{path}", body))[0]
    status, answer = await running.json("POST", f"/upstream/parrot{ANTHROPIC}", json={"input": "x"})
    assert (status, answer["error"]["message"]) == (400, "'messages' is required")
    for path in ("/metrics?model=parrot", "/upstream/parrot/metrics"):
        async with running.request("GET", path) as answer:
            assert answer.status == 400
            assert answer.headers["x-should-retry"] == "false"
            error = (await answer.json())["error"]
        assert '["--metrics"]' in error["message"]
        assert "`metrics.backends: true`" in error["message"]
        assert error["code"] == "unsupported_by_model"
    assert (await running.json("GET", "/chat/errors"))[1] == {"errors": []}
    states = {status.name: status for status in running.gateway.scheduler.status()}
    assert {states[name].deaths for name in loaded(running)} == {0}


async def test_file_that_comes_later_is_looked_at(
    make_gateway: MakeGateway, minilm_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download, or a drive, that was not there when the first request was."""
    monkeypatch.setattr(facts, "FRESH", 0.0)
    file = tmp_path / "later.gguf"
    entry = {"params": {"model": str(file)}}
    async with make_gateway({"m": entry}, llama_server="auto") as running:
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (500, "model_file_not_found")
        file.symlink_to(minilm_model)
        status, answer = await running.chat("m")
        assert (status, answer["error"]["code"]) == (400, "unsupported_by_model")


async def test_model_may_both_write_and_embed(make_gateway: MakeGateway) -> None:
    entry = {
        "params": {"model": DEMO_GGUF, "ctxSize": 512},
        "embeddings": True,
        "extraArgs": ["--pooling", "mean"],
    }
    async with make_gateway({"m": entry}, llama_server="auto") as running:
        assert (await running.chat("m", max_tokens=1))[0] == 200
        status, _ = await running.json("POST", "/v1/embeddings", json={"model": "m", "input": "x"})
        assert status == 200


async def test_official_clients_ask_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
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
