"""The limits on the work that one request may cause: ``limits.request``.

Fields that set how much memory llama-server takes, or for how long it computes without giving
anything, are looked at before anything is sent, in every dialect alike. Which there are was seen
in ``tools/server/server-schema.cpp`` of llama.cpp; a number that it would cut to 32 bits is over
any limit. Fields that only choose among what is computed anyway (``top_k``, ``min_keep``,
``n_keep``, ``t_max_predict_ms``) are not here.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NoReturn

import orjson

from gateway.bounded_cache import BoundedCache
from gateway.config.settings import RequestSettings
from gateway.errors import BadRequest
from gateway.proxy.fields import LENGTH, limit_length
from gateway.proxy.grammar import measure_grammar
from gateway.proxy.prompt_size import MEDIA
from gateway.proxy.schemas import Excess, check_grammar, check_schema

JsonObject = dict[str, Any]

#: The least size, in bytes, of a body that could hold too many messages or inputs.
_FEW: Final = 4096
#: The size, in bytes, from which a grammar or schema is measured in another thread, and how many
#: are measured at once: all share one interpreter.
_LONG: Final = 2 * 1024
_AT_ONCE: Final = 2
#: How many accepted schemas are remembered: agents send theirs with each request.
_REMEMBERED: Final = 256
_NUMBERS: Final = (int, float)

_INTERNAL: Final = ("chat_parser",)
#: Fields that hold a list, or one text instead.
_LISTS: Final = (
    "stop",
    "stop_sequences",
    "samplers",
    "dry_sequence_breakers",
    "lora",
    "preserved_tokens",
    "grammar_triggers",
    "response_fields",
    "reasoning_budget_end_tags",
)
_SCHEMAS: Final = ("json_schema", "response_format", "output_format", "text", "output_config")
_TALKS: Final = ("messages", "input", "input_extra", "system")
_INPUTS: Final = ("input", "content", "documents", "texts")

#: ``(name, value)`` -> raises :class:`Excess`, or returns what remains to be measured in a thread.
_Check = Callable[[str, Any], "Callable[[], None] | None"]


class Bounds:
    """The limits of one gateway, ready to check bodies."""

    def __init__(self, limits: RequestSettings) -> None:
        self._limits = limits
        self.max_tokens = limits.max_tokens
        checks: dict[str, _Check] = {}
        for setting, names in (
            ("answers", ("n", "n_cmpl", "best_of")),
            ("logprobs", ("n_probs", "logprobs", "top_logprobs")),
            ("last_n", ("repeat_last_n", "dry_penalty_last_n")),
            ("last_n", ("speculative.n_max", "speculative.n_min")),
        ):
            number = partial(_check_number, setting, getattr(limits, setting))
            checks |= dict.fromkeys(names, number)
        checks |= dict.fromkeys(_LISTS, self._check_list)
        checks |= dict.fromkeys(_SCHEMAS, self._check_schema)
        checks |= dict.fromkeys(_INTERNAL, _refuse)
        checks["sse_ping_interval"] = _check_interval
        checks["logit_bias"] = self._check_biases
        checks["grammar"] = self._check_grammar
        checks["tools"] = checks["functions"] = self._check_tools
        #: Fields that a form may not have, because llama-server would take them as texts, and why.
        self.not_in_forms = MappingProxyType(
            {
                name.encode(): f"`{name}` can't be set in a form: leave it out"
                for name in checks
                if name != "response_format"  # a word there
            }
        )
        self._checks = checks
        self._names = frozenset(checks)
        self._good: BoundedCache[bytes, None] = BoundedCache(_REMEMBERED)
        self._places = asyncio.Semaphore(_AT_ONCE)

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_another_process, (self._limits,)

    def check(self, body: JsonObject, kind: str, size: int) -> list[Callable[[], None]] | None:
        """Raise :class:`BadRequest` for a ``body``, of ``size`` bytes, that asks for too much.

        ``kind`` is the name of its message format. What comes back is to be called where it may
        take a while, and raises as well.
        """
        names = self._names
        later: list[Callable[[], None]] | None = None
        if not names.isdisjoint(body):
            for name in names.intersection(body):
                if (more := self._checked(name, body[name])) is not None:
                    later = [*(later or ()), more]
        if size > _FEW or body.get("prompt").__class__ is list:
            self._check_many(body, kind)
        if size > self._limits.text_bytes:
            self._check_text(body)
        return later

    async def measure(self, checks: Iterable[Callable[[], None]]) -> None:
        """Do what :meth:`check` has left to be done, which raises the same."""
        async with self._places:
            await asyncio.to_thread(all_of, checks)

    def answer(
        self,
        body: JsonObject,
        kind: str,
        of_key: int | None,
        *,
        ends: bool,
        fixed: Mapping[str, Any] = MappingProxyType({}),
    ) -> bool:
        """Bound the answer to what the key and the settings allow; whether ``body`` was changed.

        ``ends``: whether llama-server has a limit of its own for it, by models.json. ``fixed``:
        what models.json set in the body: there is no client to blame for that.
        """
        most, whose = self.longest(of_key)
        if most is not None:
            for name, value in fixed.items():
                if name in LENGTH.names and value.__class__ in _NUMBERS and value > most:
                    body[name] = most
            return limit_length(body, kind, most, whose)
        if body.get("ignore_eos") and not ends:
            lengths = [body.get(name) for name in LENGTH.read[kind]]  # type: ignore[arg-type]
            given = [length for length in lengths if length.__class__ in _NUMBERS]
            if not given or any(not 0 <= length < 2**31 for length in given):
                raise BadRequest(
                    f"`ignore_eos` needs a limit beside it: `{LENGTH.read[kind][-1]}`",
                    param="ignore_eos",
                )
        return False

    def longest(self, of_key: int | None) -> tuple[int | None, str]:
        """Return how many tokens an answer may have, and what says so."""
        most = self.max_tokens
        if of_key is not None and (most is None or of_key < most):
            return of_key, "max_tokens of the key"
        return most, "limits.request.max_tokens"

    # --- one field -------------------------------------------------------------------------

    def _checked(self, name: str, value: Any) -> Callable[[], None] | None:
        try:
            later = self._checks[name](name, value)
        except Excess as excess:
            _tell(name, excess)
        return None if later is None else partial(_in_words, name, later)

    def _check_list(self, name: str, value: Any) -> None:
        limits = self._limits
        items = value if value.__class__ is list else [value]
        if name == "samplers" and value.__class__ is str:
            items = list(value)  # one letter each
        if len(items) > limits.list_items:
            raise Excess(f"it has {len(items)} entries", limits.list_items, "list_items")
        size = sum(map(_length, items))
        if size > limits.list_bytes:
            raise Excess(f"it has {size} bytes", limits.list_bytes, "list_bytes")
        if name == "grammar_triggers":
            for item in items:
                if isinstance(item, dict) and item.get("type") not in (None, 0, 1, "word"):
                    raise BadRequest(
                        "`grammar_triggers` may be words and tokens, not patterns", param=name
                    )

    def _check_biases(self, name: str, value: Any) -> None:
        entries: Iterable[Any] = ()
        if value.__class__ is list:
            entries = (item[0] if item.__class__ is list and item else item for item in value)
        elif value.__class__ is dict:
            entries = value
        # A text is a bias of each of its tokens, as many as letters perhaps.
        count = sum(
            len(entry) if entry.__class__ is str and not entry.isdecimal() else 1
            for entry in entries
        )
        if count > self._limits.logit_bias:
            raise Excess(f"it has {count} entries", self._limits.logit_bias, "logit_bias")

    def _check_grammar(self, name: str, value: Any) -> Callable[[], None] | None:
        if value.__class__ is not str:
            return None
        check = partial(check_grammar, value, self._limits, measure_grammar, "it")
        if _LONG < len(value) <= self._limits.grammar_bytes:
            return check
        check()
        return None

    def _check_tools(self, name: str, value: Any) -> Callable[[], None] | None:
        limits = self._limits
        if value.__class__ is list and len(value) > limits.tools:
            raise Excess(f"it has {len(value)} entries", limits.tools, "tools")
        return self._check_schema(name, value)

    def _check_schema(self, name: str, value: Any) -> Callable[[], None] | None:
        if not value or value.__class__ not in (dict, list):
            return None
        if len(value) == 1 and value.__class__ is dict and value.get("type").__class__ is str:
            # {"type": "json_object"}
            return None
        limits = self._limits
        try:
            written = orjson.dumps(value)
        except TypeError:  # deeper than 254 levels, or a number of over 64 bits
            check_schema(value, limits)
            return None
        if len(written) > limits.schema_bytes:
            raise Excess(f"it has {len(written)} bytes", limits.schema_bytes, "schema_bytes")
        digest = hashlib.blake2b(written, digest_size=16).digest()
        if digest in self._good:
            return None
        check = partial(self._check_new_schema, digest, value)
        if len(written) > _LONG:
            return check
        check()
        return None

    def _check_new_schema(self, digest: bytes, value: Any) -> None:
        check_schema(value, self._limits)
        self._good[digest] = None

    # --- how many --------------------------------------------------------------------------

    def _check_many(self, body: JsonObject, kind: str) -> None:
        try:
            if kind in ("none", "completion"):
                self._check_inputs(body)
            else:
                self._check_talk(body)
        except _TooMany as many:
            _tell(many.name, many.excess)

    def _check_text(self, body: JsonObject) -> None:
        """Check all texts to be tokenized: for a text without breaks, llama-server takes 200 bytes
        of memory per byte.
        """
        sizes = {name: _text_size(value) for name, value in body.items() if name not in MEDIA}
        if sizes and (total := sum(sizes.values())) > self._limits.text_bytes:
            longest = max(sizes, key=lambda name: sizes[name])
            what = f"the request has {total} bytes of text"
            _tell(longest, Excess(what, self._limits.text_bytes, "text_bytes"))

    def _check_inputs(self, body: JsonObject) -> None:
        limits = self._limits
        for name in _INPUTS:
            value = body.get(name)
            if value.__class__ is list and len(value) > limits.inputs and not _is_tokens(value):
                raise _TooMany(name, len(value), limits.inputs, "inputs")
        prompts = body.get("prompt")
        if prompts.__class__ is list and not _is_tokens(prompts):
            answers = next((body[name] for name in ("n_cmpl", "n") if name in body), 1)
            times = int(answers) if answers.__class__ in _NUMBERS else 1
            if len(prompts) * max(times, 1) > limits.prompts:
                raise _TooMany("prompt", len(prompts) * max(times, 1), limits.prompts, "prompts")
        extra = body.get("input_extra")
        if extra.__class__ is list and len(extra) > limits.parts:
            raise _TooMany("input_extra", len(extra), limits.parts, "parts")

    def _check_talk(self, body: JsonObject) -> None:
        limits = self._limits
        parts = 0
        for name in _TALKS:
            items = body.get(name)
            if items.__class__ is not list:
                continue
            if len(items) > limits.messages:
                raise _TooMany(name, len(items), limits.messages, "messages")
            for item in items:
                if item.__class__ is not dict:
                    continue
                for inner in ("content", "tool_calls", "output", "summary"):
                    content = item.get(inner)
                    if content.__class__ is list:
                        parts += len(content)
            if parts > limits.parts:
                raise _TooMany(name, parts, limits.parts, "parts", "parts in its messages")


@functools.lru_cache(1)
def _of_another_process(limits: RequestSettings) -> Bounds:
    """Return the bounds in the worker process; normally the limits are those of the last call."""
    return Bounds(limits)


def all_of(checks: Iterable[Callable[[], None]]) -> None:
    """Do the checks that :meth:`Bounds.check` has left."""
    for check in checks:
        check()


class _TooMany(Exception):
    def __init__(
        self, name: str, count: int, allowed: int, setting: str, what: str = "entries"
    ) -> None:
        self.name = name
        self.excess = Excess(f"it has {count} {what}", allowed, setting)


def _check_number(setting: str, most: int, name: str, value: Any) -> None:
    # -1 is llama-server's word for "all there is", which is bounded by the model's context. What
    # is below that would come out anywhere, cut to 32 bits.
    if value.__class__ in _NUMBERS and not -1 <= value <= most:
        raise Excess(f"it is {value}", most, setting)


def _check_interval(name: str, value: Any) -> None:
    if value.__class__ in _NUMBERS and 0 <= value < 1:
        raise BadRequest(f"`{name}` must be 1 or more, or -1 for no pings", param=name)


def _refuse(name: str, value: Any) -> NoReturn:
    raise BadRequest(f"`{name}` is llama-server's own business: it can't be sent here", param=name)


def _text_size(held: Any) -> int:
    """Return bytes of all texts in a part of a body, but for pictures and sounds."""
    size, left = 0, [held]
    while left:
        value = left.pop()
        if value.__class__ is str:
            size += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif value.__class__ is list:
            left += value
        elif value.__class__ is dict:
            # A document's source may be a text (Anthropic).
            left += [
                item
                for name, item in value.items()
                if name not in MEDIA or (name == "source" and _is_text(item))
            ]
    return size


def _is_text(source: Any) -> bool:
    return source.__class__ is dict and source.get("type") in ("text", "content")


def _length(item: Any) -> int:
    if item.__class__ is str:
        return len(item)
    return len(orjson.dumps(item)) if item.__class__ in (dict, list) else 1


def _is_tokens(value: list[Any]) -> bool:
    """Return whether a list is one prompt, of tokens or of tokens and texts.

    The first item decides: llama-server refuses a list of prompts with a number among them.
    """
    return bool(value) and value[0].__class__ is int


def _in_words(name: str, check: Callable[[], None]) -> None:
    try:
        check()
    except Excess as excess:
        _tell(name, excess)


def _tell(name: str, excess: Excess) -> NoReturn:
    if not excess.setting:
        raise BadRequest(f"`{name}`: {excess.what}", param=name) from None
    allowed = f"the {excess.allowed} that " if excess.allowed != "" else ""
    raise BadRequest(
        f"`{name}`: {excess.what}, more than {allowed}one request may have "
        f"(limits.request.{excess.setting})",
        code="request_limit",
        param=name,
    ) from None
