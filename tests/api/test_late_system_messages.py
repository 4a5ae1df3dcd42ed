"""System messages that come late or twice, with templates that take them and ones that don't.

Real llama-servers, and what they say they found in their cache.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import DEMO_GGUF, MakeGateway, Running

pytestmark = pytest.mark.slow

#: As the templates of Qwen 3.5 and later.
STRICT = """\
{%- for message in messages %}
{%- if message.role == "system" and not loop.first %}
{{- raise_exception("System message must be at the beginning.") }}
{%- endif %}
{%- if message.role not in ("system", "user", "assistant", "tool") %}
{{- raise_exception("Unexpected message role.") }}
{%- endif %}
{{- "<|im_start|>" + message.role + "\\n" + (message.content or "") + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}
"""
#: One that leaves out what it doesn't expect, without a word.
SILENT = """\
{%- if messages[0].role == "system" %}{{- "[SYS]" + messages[0].content + "[/SYS]" }}{%- endif %}
{%- for message in messages %}
{%- if message.role == "user" %}{{- "[USER]" + message.content }}
{%- elif message.role == "assistant" %}{{- "[BOT]" + (message.content or "") }}{%- endif %}
{%- endfor %}[BOT]"""

PIRATE = "You are a pirate."
RULES = " ".join(f"Rule {n}: whatever comes, be kind to the number {n}." for n in range(8))


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    """The demo model with its own template, which takes system messages anywhere, and others."""
    models = {}
    for name, template in (("any", None), ("strict", STRICT), ("silent", SILENT)):
        entry = {
            "params": {"model": DEMO_GGUF, "ctxSize": 4096, "threads": 2},
            "personalities": {"pirate": PIRATE},
        }
        if template is not None:
            file = tmp_path / f"{name}.jinja"
            file.write_text(template)
            entry["extraArgs"] = ["--chat-template-file", str(file)]
        models[name] = entry
    models["named"] = {"params": {"model": DEMO_GGUF, "ctxSize": 512}, "template": "vicuna"}
    async with make_gateway(models, llama_server="auto", limits={"load_timeout": "60s"}) as running:
        yield running


async def prompt_of(running: Running, model: str, messages: list[Any], **fields: Any) -> str:
    """What the model is given, as its llama-server writes it down."""
    body = {"model": model, "messages": messages, **fields}
    status, answer = await running.json("POST", "/apply-template", json=body)
    assert status == 200, answer
    prompt: str = answer["prompt"]
    return prompt


async def test_a_strict_template_takes_late_system_messages(
    running: Running, subtests: pytest.Subtests
) -> None:
    system, user, answer = said("system", "S."), said("user", "U."), said("assistant", "A.")
    developer, late = said("developer", "D."), said("system", "L.")
    start, end, bot = "<|im_start|>", "<|im_end|>\n", "<|im_start|>assistant\n"
    for messages, expected in (
        ([system, developer, user], f"{start}system\nS.\n\nD.{end}{start}user\nU.{end}"),
        ([developer, developer, user], f"{start}system\nD.\n\nD.{end}{start}user\nU.{end}"),
        (
            [system, user, answer, late, user],
            f"{start}system\nS.{end}{start}user\nU.{end}{bot}A.{end}{start}user\nL.\n\nU.{end}",
        ),
        ([user, developer], f"{start}user\nU.\n\nD.{end}"),
    ):
        with subtests.test(f"{messages!r:.80}"):
            assert await prompt_of(running, "strict", messages) == expected + bot
    prompt = await prompt_of(running, "strict:pirate", [system, developer, user, late])
    assert prompt == f"{start}system\n{PIRATE}\n\nS.\n\nD.{end}{start}user\nU.\n\nL.{end}{bot}"
    # Streamed and not, in all dialects.
    both = {"stream": False}, {"stream": True}
    chats: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": [system, developer, user, answer, late, user]}),
        ("/v1/chat/completions/input_tokens", {"messages": [developer, late, user]}),
        ("/v1/responses", {"instructions": "I.", "input": [developer, user, late, user]}),
        ("/v1/responses/input_tokens", {"instructions": "I.", "input": [developer, user]}),
        ("/v1/messages", {"system": "S.", "messages": [late, user, answer, late, user]}),
        ("/v1/messages/count_tokens", {"system": "S.", "messages": [late, user, late]}),
    ]
    for path, body in chats:
        for more in both:
            limits = {"max_tokens": 4, "max_output_tokens": 16}
            sent = {"model": "strict", **limits, **body, **more}
            async with running.request("POST", path, json=sent) as answered:
                assert answered.status == 200, await answered.text()
                assert b"exception" not in await answered.read()


async def test_a_template_that_takes_them_gets_them(running: Running) -> None:
    messages = [said("system", "S."), said("user", "U."), said("system", "L."), said("user", "V.")]
    prompt = await prompt_of(running, "any", messages)
    assert "<|im_start|>system\nL.<|im_end|>\n<|im_start|>user\nV." in prompt
    two = await prompt_of(running, "any", [said("system", "S."), said("developer", "D.")])
    assert two.count("<|im_start|>system") == 2


async def test_a_template_that_says_nothing_loses_nothing(running: Running) -> None:
    messages = [
        said("system", "S."),
        said("developer", "D."),
        said("user", "U."),
        said("system", "L."),
    ]
    prompt = await prompt_of(running, "silent", messages)
    assert prompt == "[SYS]S.\n\nD.[/SYS][USER]U.\n\nL.[BOT]"


async def test_a_named_template_knows_no_developer(running: Running) -> None:
    """llama.cpp's own would leave it out, or take it for the assistant."""
    prompt = await prompt_of(running, "named", [said("developer", "D."), said("user", "U.")])
    assert prompt == await prompt_of(running, "named", [said("system", "D."), said("user", "U.")])
    assert "D." in prompt


async def test_it_is_found_out_once_and_only_where_it_matters(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.upstream import UpstreamPool, UpstreamRequest

    asked: list[str] = []
    fetch = UpstreamPool.fetch

    async def counted(pool: UpstreamPool, request: UpstreamRequest, **options: Any) -> Any:
        asked.append(request.target)
        return await fetch(pool, request, **options)

    monkeypatch.setattr(UpstreamPool, "fetch", counted)
    plain = [said("system", "S."), said("user", "U.")]
    late = [*plain, said("system", "L."), said("user", "V.")]
    for messages in (plain, [said("developer", "D."), said("user", "U.")]):
        await running.json(
            "POST",
            "/v1/chat/completions",
            json={"model": "strict", "messages": messages, "max_tokens": 1},
        )
    assert asked.count("/apply-template") == 0
    for _ in range(3):
        await running.json(
            "POST",
            "/v1/chat/completions",
            json={"model": "strict", "messages": late, "max_tokens": 1},
        )
    assert asked.count("/apply-template") == 1
    # A new start may have another template.
    await running.gateway.scheduler.unload("strict")
    await running.json(
        "POST", "/v1/chat/completions", json={"model": "strict", "messages": late, "max_tokens": 1}
    )
    assert asked.count("/apply-template") == 2


# --- the cache -----------------------------------------------------------------------------


async def cached(running: Running, path: str, body: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt that were in the cache, and all of them."""
    body = {"max_tokens": 1, "max_output_tokens": 1, "temperature": 0, **body}
    status, answer = await running.json("POST", path, json=body)
    assert status == 200, answer
    usage = answer["usage"]
    if path == "/v1/messages":
        hit = usage["cache_read_input_tokens"]
        return hit, hit + usage["input_tokens"]
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return details["cached_tokens"], usage.get("prompt_tokens") or usage["input_tokens"]


@pytest.mark.parametrize("model", ["any", "any:pirate", "strict", "strict:pirate", "silent:pirate"])
async def test_the_cache_holds_over_turns(
    running: Running, model: str, subtests: pytest.Subtests
) -> None:
    """A text of the application in every turn costs that turn's tokens, not all of them."""
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
        with subtests.test(f"{path!r:.80}"):
            field = "input" if path == "/v1/responses" else "messages"
            history = [said("user", f"{RULES} Say something about the number 1.")]
            start: dict[str, Any] = {"model": model}
            if path == "/v1/responses":
                start["instructions"] = RULES
            elif path == "/v1/messages":
                start["system"] = [{"type": "text", "text": RULES}]
            else:
                history = [said("system", RULES), *history]
            _, before = await cached(running, path, {**start, field: history})
            assert before > 200
            for turn in range(2, 5):
                answer: Any = said("assistant", "It is a number.")
                if path == "/v1/responses":
                    part = {"type": "output_text", "text": "It is a number.", "annotations": []}
                    answer = {**answer, "type": "message", "content": [part]}
                late = said("system", f"It is {turn} o'clock now.")
                history = [*history, answer, late, said("user", f"And about the number {turn}?")]
                hit, total = await cached(running, path, {**start, field: history})
                # But for the mark of a new turn at the very end, all of the turn before.
                assert hit >= before - 8, (path, turn, hit, before, total)
                before = total


@pytest.mark.parametrize("blocks", [True, False])
async def test_what_claude_code_puts_first_costs_no_cache(running: Running, blocks: bool) -> None:
    for turn in range(3):
        header = f"x-anthropic-billing-header: cc_version=2.1.{turn}; cch={turn}{turn}abc;"
        system: Any = f"{header}\n{RULES}"
        if blocks:
            system = [{"type": "text", "text": header}, {"type": "text", "text": RULES}]
        body = {"model": "any:pirate", "system": system, "messages": [said("user", "Ahoy!")]}
        hit, total = await cached(running, "/v1/messages", body)
        if turn:  # all but the header's own tokens, and the question behind it
            assert hit > 100, (hit, total)
            assert total - hit < 60, (hit, total)


# --- the real clients ----------------------------------------------------------------------


async def test_what_codex_sends_is_answered(running: Running) -> None:
    """Two texts of a developer before the user's words, and one in a later turn."""
    async with running.openai() as client:
        developer = {"type": "message", "role": "developer"}
        input_: Any = [
            {**developer, "content": [{"type": "input_text", "text": "You may read files."}]},
            {**developer, "content": [{"type": "input_text", "text": "Be brief."}]},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Who are you?"}],
            },
        ]
        events = [
            event
            async for event in await client.responses.create(
                model="strict",
                instructions="You are Codex.",
                input=input_,
                max_output_tokens=8,
                stream=True,
            )
        ]
        assert events[-1].type in ("response.completed", "response.incomplete")


async def test_sdks_may_send_late_system_messages(running: Running) -> None:
    client = anthropic.AsyncAnthropic(base_url=running.url, api_key=running.key, max_retries=0)
    async with client:
        messages: Any = [said("user", "Hi."), said("system", "Be brief."), said("user", "Well?")]
        answer = await client.messages.create(
            model="strict", max_tokens=4, system="You are kind.", messages=messages
        )
        assert answer.usage.output_tokens
    async with running.openai() as chat:
        with pytest.raises(openai.BadRequestError, match=r"messages\[1\]"):
            await chat.chat.completions.create(
                model="strict",
                messages=[said("user", "Hi."), {"content": "x"}],  # type: ignore[list-item]
            )
