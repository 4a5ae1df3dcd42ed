"""Turns errors of llama-server into errors that clients of each API understand. Pure.

It says ``{"error": {"code": 400, "message": ..., "type": ...}}`` on every route. Its status and
message are kept, but for what it says with a 500 or 501 although the client is who must change
something: those are known by their words, each as llama-server has it (llama.cpp,
``tools/server`` and ``common/chat.cpp``, builds of 2025 and 2026), and become a 400. A 500 of which
nothing is known stays one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from gateway.errors import (
    BackendError,
    BadRequest,
    GatewayError,
    RateLimited,
    Unable,
    Unavailable,
)
from gateway.proxy import headers
from gateway.proxy.ability import (
    DECISIONS,
    EMBEDDINGS,
    GENERATION,
    INFILL,
    MEDIA,
    METRICS,
    POOLING,
    PROPS,
    RERANKING,
    SLOTS,
    TOOLS,
)
from gateway.proxy.body import serialise

_OVERFLOW = "exceed_context_size_error"
#: llama-server's type of an error -> OpenAI's code, which clients look for.
_CODES = {_OVERFLOW: "context_length_exceeded"}
#: The message with which it refuses (500) an input for embeddings or rerank that exceeds one batch.
_OVER_BATCH = re.compile(r"input \(\d+ tokens\) is too large to process\b")
#: Statuses after which a client may retry, and our errors for them.
_KINDS: Mapping[int, type[GatewayError]] = MappingProxyType({429: RateLimited, 503: Unavailable})
#: Messages (with 500, 501 or sometimes 400) about what a model can't do as it was started.
_UNABLE: tuple[tuple[str, re.Pattern[str]], ...] = (
    (TOOLS, re.compile(r"tool(s|_choice) param requires --jinja\b")),
    (MEDIA, re.compile(r"(image|audio|video) input is not supported - hint\b")),
    (MEDIA, re.compile(r"Multimodal data provided, but model does not support\b")),
    (MEDIA, re.compile(r"The current model does not support audio input\b")),
    (MEDIA, re.compile(r"This server does not support image input for decisions\b")),
    (EMBEDDINGS, re.compile(r"This server does not support embeddings\b")),
    (POOLING, re.compile(r"Pooling type 'none' is not OAI compatible\b")),
    (RERANKING, re.compile(r"This server does not support reranking\b")),
    (GENERATION, re.compile(r"the current context does not (support )?logits computation\b")),
    (INFILL, re.compile(r"Infill is not supported by this model\b")),
    (DECISIONS, re.compile(r"This model is not a decision model\b")),
    (METRICS, re.compile(r"This server does not support metrics endpoint\b")),
    (SLOTS, re.compile(r"This server does not support slots endpoint\b")),
    (PROPS, re.compile(r"This server does not support changing global properties\b")),
)
#: Messages (with 500) about what is wrong with the request itself. Newer builds mostly say 400.
_WRONG = re.compile(
    r"""Failed\ to\ parse\ (messages|tools|tool\ call\ arguments\ as\ JSON|grammar)\b
      | Failed\ to\ (load|decode)\ (image|audio)\b
      | ['"]\w+['"]\ is\ required$
      | Cannot\ use\ both\ json_schema\ and\ grammar\b
      | Cannot\ use\ custom\ grammar\ constraints\ with\ tools\b
      | Either\ "json_schema"\ or\ "grammar"\ can\ be\ specified\b
      | Unknown\ reasoning\ format:
      | Invalid\ tool_choice:
      | unsupported\ content\[\]\.type\b
      | Expected\ '(content|messages|tools)'\ to\ be\b
      | All\ non-assistant\ messages\ must\ contain\ 'content'
      | Assistant\ message\ must\ contain\ either\ 'content'
      | Cannot\ have\ 2\ or\ more\ assistant\ messages\ at\ the\ end\b
      | response_format\ type\ must\ be\ one\ of\b
      | invalid\ type\ for\ "enable_thinking"
      | Only\ one\ completion\ choice\ is\ allowed\b
      | Only\ no\ echo\ is\ supported\b
      | top_logprobs\ requires\ logprobs\b
      | Unable\ to\ generate\ parser\ for\ this\ template\b
      | got\ exception:\ Unexpected\ empty\ grammar\ stack\b  # a grammar that nothing fits
      | Jinja\ Exception:
      | [^\n]*\ at\ row\ \d+,\ column\ \d+:\n              # a template's own exception, in 2025
      | \[json\.exception\.(type_error\.302|out_of_range\.403)\]  # a field's type, or its absence
    """,
    re.VERBOSE,
)
_REFUSALS = (400, 500, 501)
#: Statuses after which the same request may succeed later.
_FLEETING = frozenset({408, 409, 429, *range(500, 600)}) - {501}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error answer. ``code`` is a text where llama-server or OpenAI has one."""

    status: int
    message: str
    type: str
    code: str | None
    #: All fields of llama-server's error, token counts for example.
    fields: dict[str, Any]
    #: The value of ``Retry-After``, received or supplied by us; None where it makes no sense.
    retry_after: str | None = None
    #: The ability that the model lacks, if that is the reason: see :mod:`gateway.proxy.ability`.
    lacking: str | None = None

    @classmethod
    def read(cls, status: int, answer: bytes, said: Iterable[tuple[bytes, bytes]] = ()) -> Failure:
        """Return the error in the body of an answer, whatever that is; ``said``: its headers.

        What the client must change is 400 always: told that it broke by chance, it would send the
        same again.
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
        lacking = None
        if status in _REFUSALS:
            lacking = next((what for what, words in _UNABLE if words.match(message)), None)
            if _OVER_BATCH.match(message):
                kind = _OVERFLOW
            elif lacking is not None or (status >= 500 and _WRONG.match(message)):
                status, kind = 400, BadRequest.type
        code = _CODES.get(kind, fields.get("code"))
        if lacking is not None:
            code = Unable.default_code
        return cls(
            400 if kind == _OVERFLOW else status,
            message,
            kind,
            code if isinstance(code, str) else None,
            fields,
            headers.retry_after(status, said),
            lacking,
        )

    @property
    def fleeting(self) -> bool:
        """Whether the same request may succeed when it is sent again."""
        return self.status in _FLEETING

    def in_openai_shape(self) -> bytes:
        """OpenAI's error object: ``code`` is a text, and ``param`` is always there."""
        shaped = {
            **self.fields,
            "message": self.message,
            "type": self.type,
            "code": self.code or self.type,
            "param": self.fields.get("param"),
        }
        return serialise({"error": shaped})

    def as_error(self, what: str = "") -> GatewayError:
        """Return the same as an error of ours, ``what`` before the message."""
        kind = _KINDS.get(self.status) or (BadRequest if self.status < 500 else BackendError)
        told = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        param = self.fields.get("param")
        return kind(
            what + self.message,
            code=self.code,
            param=param if isinstance(param, str) else None,
            headers=told,
        )


def _fields(answer: bytes) -> dict[str, Any]:
    """Return the error object, whatever is nearest to one: not all servers elsewhere speak as
    OpenAI.
    """
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
