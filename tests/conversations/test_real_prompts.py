"""What changes a prompt, asked of llama-server itself, is what changes the beginning of a chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.conversations.chain import Chains
from tests.harness import DEMO_GGUF, MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Writes everything that a template is given.
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}\n{% endfor %}"
    "{{ tools | tojson if tools else '' }}"
    "{% for value in [enable_thinking, reasoning_effort, word, tool_choice, parallel_tool_calls,"
    " response_format, json_schema, documents] %} {{ value }}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOLS: dict[str, list[dict[str, Any]]] = {
    "chat": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    "anthropic": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
    "responses": [{"type": "function", "name": "f", "parameters": SCHEMA}],
}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions/input_tokens",
        {"messages": [{"role": "user", "content": "a"}]},
    ),
    "anthropic": (
        "/v1/messages/count_tokens",
        {"messages": [{"role": "user", "content": "a"}], "max_tokens": 9},
    ),
    "responses": ("/v1/responses/input_tokens", {"input": [{"role": "user", "content": "a"}]}),
}
#: Whatever the documents of the three formats and of llama-server say may be in a body.
PARAMETERS: list[tuple[str, Any]] = [
    ("system", "You are one."),
    ("instructions", "You are one."),
    ("chat_template_kwargs", {"word": "some words"}),
    ("reasoning_effort", "high"),
    ("reasoning", {"effort": "high"}),
    ("reasoning_format", "none"),
    ("thinking", {"type": "enabled", "budget_tokens": 2000}),
    ("thinking_budget_tokens", 2000),
    ("output_config", {"effort": "high"}),
    ("response_format", {"type": "json_object"}),
    ("json_schema", SCHEMA),
    ("text", {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}),
    ("chat_template", "{{ messages }}"),
    ("documents", [{"text": "a text"}]),
    ("metadata", {"user_id": "somebody"}),
    ("grammar", 'root ::= "a"'),
    ("modalities", ["text"]),
    ("user", "somebody"),
    ("store", False),
    ("stop", ["x"]),
]


def changes(format: str) -> Iterator[tuple[str, Any]]:
    yield from PARAMETERS
    yield "tools", TOOLS[format]


@pytest.mark.parametrize("format", BODIES)
async def test_what_changes_a_prompt_changes_its_chain_and_nothing_else_does(
    make_gateway: MakeGateway, tmp_path: Path, format: str
) -> None:
    (tmp_path / "all.jinja").write_text(TEMPLATE)
    model = {
        "params": {"model": DEMO_GGUF, "ctxSize": 2048},
        "extraArgs": ["--jinja", "--chat-template-file", str(tmp_path / "all.jinja")],
    }
    path, body = BODIES[format]
    async with make_gateway({"a": model}, llama_server="auto") as running:

        async def tokens(**more: Any) -> int:
            return await counted(running, path, {"model": "a", **body, **more})

        plain = await tokens()
        for name, value in changes(format):
            in_prompt = await tokens(**{name: value}) != plain
            one, other = (
                Chains().of(each, format, "k").links for each in (body, {**body, name: value})
            )
            assert in_prompt == (one != other), name


async def counted(running: Running, path: str, body: dict[str, Any]) -> int:
    status, answer = await running.json("POST", path, json=body)
    assert status == 200, answer
    return int(answer["input_tokens"])
