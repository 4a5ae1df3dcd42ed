"""How a refusal looks to its client."""

from __future__ import annotations

CHATS = "/v1/chat/completions"


MESSAGES = "/v1/messages"
