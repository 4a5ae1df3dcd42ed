"""What llama-server says went wrong, made into what clients of each API understand. Pure.

It says ``{"error": {"code": 400, "message": ..., "type": ...}}`` on every route. Its status and
message are kept; nothing is invented.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from gateway.errors import BackendError, BadRequest, GatewayError, RateLimited, Unavailable
from gateway.proxy import headers

_OVERFLOW = "exceed_context_size_error"
#: llama-server's type of an error -> OpenAI's code for it, which clients look for.
_CODES = {_OVERFLOW: "context_length_exceeded"}
#: How it refuses, with a 500, an input for embeddings or rerank that doesn't fit into one batch.
_OVER_BATCH = re.compile(r"input \(\d+ tokens\) is too large to process\b")
#: Those that a client may send again, and when it may.
_KINDS: Mapping[int, type[GatewayError]] = MappingProxyType({429: RateLimited, 503: Unavailable})


@dataclass(frozen=True, slots=True)
class Failure:
    """An error answer. ``code`` is a text where llama-server or OpenAI has one."""

    status: int
    message: str
    type: str
    code: str | None
    #: All that llama-server says, token counts for example.
    fields: dict[str, Any]
    #: ``Retry-After``, as it was said or should have been; None where it has no place.
    retry_after: str | None = None

    @classmethod
    def read(cls, status: int, answer: bytes, said: Iterable[tuple[bytes, bytes]] = ()) -> Failure:
        """The error in the body of an answer, whatever that is; ``said``: its headers.

        Too much input is 400 always: told that it broke by chance, clients would send it again.
        """
        fields = _fields(answer)
        message = fields.get("message")
        if not isinstance(message, str) or not message:
            message = str(message) if message else "the server gave no reason"
        prompt, context = fields.get("n_prompt_tokens"), fields.get("n_ctx")
        if isinstance(prompt, int) and isinstance(context, int) and str(prompt) not in message:
            # Builds before 2025-12 say only that it is too long.
            message = f"{message} ({prompt} tokens, and the context has {context})"
        kind = str(fields.get("type") or "api_error")
        if _OVER_BATCH.match(message):
            kind = _OVERFLOW
        code = _CODES.get(kind, fields.get("code"))
        return cls(
            400 if kind == _OVERFLOW else status,
            message,
            kind,
            code if isinstance(code, str) else None,
            fields,
            headers.retry_after(status, said),
        )

    def in_openai_shape(self) -> bytes:
        """OpenAI's error object: ``code`` is a text, and ``param`` is always there."""
        shaped = {
            **self.fields,
            "message": self.message,
            "type": self.type,
            "code": self.code or self.type,
            "param": self.fields.get("param"),
        }
        return orjson.dumps({"error": shaped})

    def as_error(self, what: str = "") -> GatewayError:
        """The same as an error of ours, ``what`` before the message."""
        kind = _KINDS.get(self.status) or (BadRequest if self.status < 500 else BackendError)
        told = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return kind(what + self.message, code=self.code, headers=told)


def _fields(answer: bytes) -> dict[str, Any]:
    """The error object, whatever is nearest to one: not all servers elsewhere speak as OpenAI."""
    try:
        said = orjson.loads(answer)
    except ValueError:
        said = None
    if isinstance(said, dict):
        key = next((key for key in ("error", "message", "detail") if key in said), None)
        error = said.get(key)
        if isinstance(error, dict):
            return error
        if isinstance(error, str) or key == "error":
            return {"message": error}
    return {"message": answer.decode("utf-8", "replace").strip()[:2000]}
