"""What OpenAI's API takes and llama-server doesn't, made into what it takes. Pure."""

from __future__ import annotations

from typing import Any

from gateway.proxy.body import JsonObject


def drop_nulls(body: JsonObject) -> bool:
    """Take out what is ``null`` and might as well not be there; whether there was anything.

    That is any field of the body itself, and the description of a tool. Clients send them for
    what they were not told (litellm ``encoding_format``, the ``llm`` command a description), and
    llama-server answers that a type must be string.
    """
    dropped = False
    if None in body.values():
        for name in [name for name, value in body.items() if value is None]:
            del body[name]
        dropped = True
    if "tools" in body:
        dropped |= _drop_null_descriptions(body["tools"])
    return dropped


def _drop_null_descriptions(tools: Any) -> bool:
    dropped = False
    for tool in tools if isinstance(tools, list) else ():
        # Chat completions have it in `function`, Responses and Anthropic's API beside `name`.
        for holder in (tool, tool.get("function")) if isinstance(tool, dict) else ():
            if isinstance(holder, dict) and holder.get("description", "") is None:
                del holder["description"]
                dropped = True
    return dropped
