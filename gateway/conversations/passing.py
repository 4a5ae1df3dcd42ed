"""What of a request changes from turn to turn, while the prompt stays as it is. Pure.

Anthropic's clients mark where a prompt is to be cached, at another message each time, and Claude
Code begins its system prompt with a checksum of the request: llama-server reads neither
(``server_chat_convert_anthropic_to_oai`` in ``tools/server/server-chat.cpp``).
"""

from __future__ import annotations

import re
from typing import Any, Final

#: As it is in JSON.
MARK: Final = b'"cache_control"'
_MARK: Final = "cache_control"
#: The checksum, and what stands before it.
_STAMPED: Final = re.compile(r"(x-anthropic-billing-header:.*?cch=).{5};", re.DOTALL)


def unmarked(value: Any) -> Any:
    """Return ``value``, parsed JSON, without marks for caching."""
    if isinstance(value, dict):
        return {key: unmarked(each) for key, each in value.items() if key != _MARK}
    if isinstance(value, (list, tuple)):
        return [unmarked(each) for each in value]
    return value


def unstamped(system: Any) -> Any:
    """Return a system prompt of Anthropic's format without the checksum."""
    if isinstance(system, str):
        return _STAMPED.sub(r"\1;", system, count=1) if _STAMPED.match(system) else system
    if isinstance(system, list):
        return [
            {**block, "text": unstamped(block["text"])}
            if isinstance(block, dict) and isinstance(block.get("text"), str)
            else block
            for block in system
        ]
    return system
