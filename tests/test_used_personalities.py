"""What is computed ahead of a personality is what requests with it begin with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.config.settings import RequestSettings
from gateway.conversations.chain import Chains, wish_of
from gateway.models.catalog import parse_catalog
from gateway.proxy.body import serialise
from gateway.proxy.bounds import Bounds
from gateway.proxy.personality import ANTHROPIC, CHAT, RESPONSES, MessageFormat
from gateway.proxy.resolve import Resolver
from gateway.proxy.shaping import Rules, read, shaped
from gateway.used_personalities import request_of, texts_of, written_of

TEXT = "You are a pirate."
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
PERSONALITIES: dict[str, Any] = {
    "text": TEXT,
    "cold": {"prompt": TEXT, "setParams": {"temperature": 0}},
    "quiet": {"prompt": TEXT, "reasoning": False},
    "deep": {"prompt": TEXT, "reasoning": "high"},
    "told": {"prompt": TEXT, "templateArgs": {"style": ["terse", 1]}},
    "deep and told": {"prompt": TEXT, "reasoning": "low", "templateArgs": {"style": "terse"}},
    "handy": {"prompt": TEXT, "tools": [TOOL], "templateArgs": {"style": "terse"}},
    "only tools": {"tools": [TOOL]},
}
OF_MODEL: dict[str, Any] = {"chat_template_kwargs": {"own": True}, "seed": 1}
USER = {"role": "user", "content": "Hi"}
BODIES: list[tuple[MessageFormat, str, dict[str, Any]]] = [
    (CHAT, "/v1/chat/completions", {"messages": [USER]}),
    (RESPONSES, "/v1/responses", {"input": [USER]}),
    (ANTHROPIC, "/v1/messages", {"messages": [USER], "max_tokens": 5}),
]


@pytest.mark.parametrize("set_params", [{}, OF_MODEL], ids=["", "model sets some"])
@pytest.mark.parametrize("name", PERSONALITIES)
@pytest.mark.parametrize(
    ("format", "path", "body"), BODIES, ids=lambda given: getattr(given, "name", "")
)
def test_request_begins_with_what_is_expected_of_its_personality(
    format: MessageFormat,
    path: str,
    body: dict[str, Any],
    name: str,
    set_params: dict[str, Any],
) -> None:
    entry = {
        "params": {"model": "m.gguf"},
        "setParams": set_params,
        "personalities": PERSONALITIES,
    }
    catalog = parse_catalog(json.dumps({"m": entry}))
    spec = catalog.models["m"]
    personality = spec.personalities[name]
    written = written_of(spec, personality)
    expected = wish_of(request_of(spec, personality), Chains(), "chat", "*", written)
    assert expected.chain.shared

    rules = Rules(format, path, Bounds(RequestSettings()), streams=True, defaults=True)
    target = Resolver(catalog).resolve(f"m:{name}")
    read_body, found, changed, _ = read(serialise({**body, "model": "m"}), rules)
    shaped(read_body, found, changed, target, rules, None)
    wish = wish_of(read_body, Chains(), format.name, "somebody", written)
    assert wish.chain.links[: wish.chain.shared] == expected.chain.links[: expected.chain.shared]
    assert written in texts_of(catalog)["m"] or not personality.prompt
