"""Applies what a personality sets in requests besides its system prompt, in each dialect. Pure.

Seen in llama.cpp's ``tools/server/server-chat.cpp``: Responses keep every field of the body, while
of Anthropic's Messages only ``chat_template_kwargs`` and ``thinking`` reach the template. What
OpenAI's own servers refuse as unknown is sent to a model elsewhere only where there is no other
way to say it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from gateway.models.model import Model
from gateway.models.personalities import Personality
from gateway.proxy.fields import KINDS, Shaping, same_field, shapings, without

JsonObject = dict[str, Any]

#: Message formats with tools of their own, see :func:`tools_of`.
_WITH_TOOLS: Final = ("chat", "responses", "anthropic")
#: What says whether and how long a model thinks. An effort of "none", or a budget of 0, wins over
#: ``enable_thinking`` (llama.cpp's ``server-common.cpp``).
_REASONING: Final = ("reasoning_effort", "reasoning_budget_tokens", "thinking")
#: Message formats of which llama-server makes a prompt by the model's chat template.
_TEMPLATED: Final = (*_WITH_TOOLS, "completion")


def shapings_of(spec: Model, personality: Personality) -> Mapping[str, Shaping] | None:
    """Return what ``spec`` and its ``personality`` do to a body, by the name of its message format,
    see :func:`gateway.proxy.fields.shapings`. What the personality sets wins over the model's.
    """
    # A template can be told what it likes where the model is one of our own.
    over = {kind: _fixed(kind, personality, here=spec.ours) for kind in KINDS}
    strip = dict.fromkeys((*spec.strip_params, *personality.strip_params))
    fixed = spec.set_params
    if personality.reasoning is not None:
        strip |= dict.fromkeys(_REASONING)
        fixed = without(fixed, {*_REASONING, *same_field(*_REASONING)})
    return shapings(strip, fixed, over)


def _fixed(kind: str, personality: Personality, *, here: bool) -> JsonObject:
    fixed = dict(personality.set_params)
    if kind not in _TEMPLATED:
        return fixed
    reasoning = personality.reasoning
    arguments = dict(personality.template_args)
    if isinstance(reasoning, str):
        if here:
            arguments = {"enable_thinking": True, "reasoning_effort": reasoning, **arguments}
        fixed |= _effort(kind, reasoning)
    elif reasoning is not None:
        thinks = bool(reasoning)
        arguments = {"enable_thinking": thinks, **arguments}
        if reasoning is not True:
            fixed |= _budget(kind, int(reasoning))
    if arguments:
        given = fixed.get("chat_template_kwargs")
        fixed["chat_template_kwargs"] = {
            **arguments,
            **(given if isinstance(given, dict) else {}),
        }
    return fixed


def _effort(kind: str, effort: str) -> JsonObject:
    """Return how hard the model shall think, in the words of each API."""
    said: dict[str, JsonObject] = {
        "chat": {"reasoning_effort": effort},
        "responses": {"reasoning": {"effort": effort}},
        "anthropic": {"output_config": {"effort": effort}},
    }
    return said.get(kind, {})


def _budget(kind: str, tokens: int) -> JsonObject:
    """Return the fields that limit reasoning to so many tokens."""
    if kind == "anthropic":
        enabled = {"type": "enabled", "budget_tokens": tokens}
        return {"thinking": enabled if tokens else {"type": "disabled"}}
    return {"reasoning_budget_tokens": tokens} if kind in _WITH_TOOLS else {}


def tools_of(personality: Personality) -> Mapping[str, list[JsonObject]] | None:
    """Return its tools in the shape of each message format that has some."""
    if not personality.tools:
        return None
    functions: list[JsonObject] = [_function(tool) for tool in personality.tools]
    return MappingProxyType(
        {
            "chat": [dict(tool) for tool in personality.tools],
            "responses": [{"type": "function", **function} for function in functions],
            "anthropic": [_for_anthropic(function) for function in functions],
        }
    )


def put_tools(body: JsonObject, tools: list[JsonObject]) -> None:
    """Put ``tools`` of a personality, in the shape of its format, before those of ``body``.

    They come first, so that every conversation of the personality begins with them. Of two with
    the same name the client's is kept: it is the client that gets the calls. What is no list of
    tools is left for others to refuse.
    """
    theirs = body.get("tools")
    if theirs is None:
        theirs = []
    if not isinstance(theirs, list):
        return
    taken = {_name(tool) for tool in theirs}
    added = [copy.deepcopy(tool) for tool in tools if _name(tool) not in taken]
    body["tools"] = [*added, *theirs]  # a copy, as bodies are changed in place


def _name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    name = (function if isinstance(function, dict) else tool).get("name")
    return name if isinstance(name, str) else None


def _function(tool: Mapping[str, Any]) -> JsonObject:
    function: JsonObject = tool["function"]
    return function


def _for_anthropic(function: JsonObject) -> JsonObject:
    made = {
        "name": function["name"],
        "input_schema": function.get("parameters", {"type": "object"}),
    }
    if "description" in function:
        made["description"] = function["description"]
    return made
