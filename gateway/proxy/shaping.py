"""Shapes a JSON body on its way from the client to a model's llama-server. Pure.

:func:`read` and :func:`shaped` are all of it; what stands between them is the choice of a model,
which needs to know who asks. A body that is large goes through both elsewhere (see
:mod:`gateway.workers`): :func:`look` and :func:`make` take bytes and give bytes, and what they need
to be told, and tell, is small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from gateway.errors import BackendError, BadRequest
from gateway.proxy.asking import Asked, ask_to_tell
from gateway.proxy.body import MAX_VALUES, JsonObject, parse_object, serialise, shape
from gateway.proxy.bounds import Bounds, all_of
from gateway.proxy.fields import Shaping
from gateway.proxy.lenience import drop_nulls
from gateway.proxy.media import DATA_ONLY, Beginnings
from gateway.proxy.personality import (
    ANTHROPIC,
    CHAT,
    COMPLETION,
    DEVELOPER,
    MANY_SYSTEMS,
    NONE,
    RESPONSES,
    MessageFormat,
)
from gateway.proxy.suit import suit
from gateway.proxy.system_messages import as_system, into_users_words, systems
from gateway.proxy.targets import check_query_model
from gateway.proxy.virtual import put_tools

if TYPE_CHECKING:  # the catalog comes with it, which the worker process doesn't need
    from gateway.proxy.resolve import Target

#: Fields of a request for a response that say what it goes on with, or that it is read later.
OF_MEMORY: Final = ("previous_response_id", "conversation", "background")
_NOTHING: Final[Mapping[str, Any]] = {}
_LOOKED_AT: Final = ("model", "personality", *OF_MEMORY)
#: Characters of a name that the worker process sends back.
_LONGEST_NAME = 4096
_FORMATS = {format.name: format for format in (CHAT, RESPONSES, ANTHROPIC, COMPLETION, NONE)}


class Wanted(Protocol):
    """The part of a :class:`gateway.proxy.resolve.Target` that shapes a body."""

    @property
    def sent_as(self) -> str | None: ...
    @property
    def shapings(self) -> Mapping[str, Shaping] | None: ...
    @property
    def lacks(self) -> Mapping[str, str]: ...
    @property
    def defaults(self) -> Mapping[str, object]: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def ends(self) -> bool: ...
    @property
    def tools(self) -> Mapping[str, list[JsonObject]] | None: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for all bodies of a route: its format, and what is allowed in them."""

    format: MessageFormat
    #: The path of llama-server.
    target: str
    bounds: Bounds
    #: Whether the answer can be a stream, because it is generated.
    streams: bool = False
    #: Whether sampling defaults of models.json are put into the bodies.
    defaults: bool = False
    #: The allowed beginnings of media addresses.
    media: Beginnings = DATA_ONLY
    most: int = MAX_VALUES

    #: Whether any answer may have to be asked for its numbers, or only one of several.
    _always: bool = field(init=False)
    _several: bool = field(init=False)

    def __post_init__(self) -> None:
        # Of llama.cpp's own completions, and of several answers: see gateway.proxy.asking.
        always = self.streams and self.format in (COMPLETION, NONE)
        object.__setattr__(self, "_always", always)
        object.__setattr__(self, "_several", self.streams and self.format is not ANTHROPIC)

    def ask_to_tell(self, body: JsonObject, *, here: bool) -> Asked | None:
        """See :func:`gateway.proxy.asking.ask_to_tell`; ``None`` if there is nothing to do."""
        if self._always or (self._several and ("n" in body or "n_cmpl" in body)):
            return ask_to_tell(body, self.target, here=here)
        return None

    def __reduce__(self) -> tuple[Any, ...]:  # formats are compared by identity
        said = self.target, self.bounds, self.streams, self.defaults, self.media, self.most
        return _rules, (self.format.name, *said)


def _rules(name: str, *said: Any) -> Rules:
    return Rules(_FORMATS[name], *said)


def read(
    raw: bytes, rules: Rules, queried: str | None = None
) -> tuple[JsonObject, int, bool, list[Callable[[], None]] | None]:
    """Return the body in ``raw``, what ``check`` found in it, and whether it isn't ``raw`` any
    more.

    The last item is the checks left that may take a while: see
    :meth:`gateway.proxy.bounds.Bounds.check`. ``queried``: the model that the request's query
    names. Raises :class:`gateway.proxy.body.NotJson`, and :class:`gateway.errors.BadRequest` for
    what is no body of this format.
    """
    body = parse_object(raw, rules.most)
    if queried is not None:
        check_query_model(queried, body.get("model"))
    # `find`, not `in`: see gateway.proxy.body.
    changed = raw.find(b"null") >= 0 and drop_nulls(body, rules.format.nulls)
    found = rules.format.check(body, rules.media)
    return body, found, changed, rules.bounds.check(body, rules.format.name, len(raw))


def shaped(
    body: JsonObject,
    found: int,
    changed: bool,
    target: Wanted,
    rules: Rules,
    max_tokens: int | None,
) -> tuple[int, bool, bool, Asked | None]:
    """Make ``body`` what ``target`` is to be sent.

    ``max_tokens``: of its key. Returns what was found in it, whether it changed, whether it asks
    for a stream, and what was asked for so that the answer tells what it took, if anything had to
    be.

    Raises :class:`gateway.errors.BadRequest` for what the model can't do.
    """
    format = rules.format
    if body.pop("personality", None) is not None:
        changed = True
    fixed = _NOTHING
    if target.shapings is not None:
        strip, fixed = target.shapings[format.name]
        shape(body, strip, fixed)
        found = format.check(body, rules.media)
        changed = True
    if target.tools is not None and format.name in target.tools:
        put_tools(body, target.tools[format.name])
        changed = True
    if (name := target.sent_as) is not None:
        body["model"] = name
        changed = True
    elif found or "tools" in body or "tool_choice" in body:
        changed |= suit(format, body, found, target.lacks)
    if rules.defaults:
        for key, value in target.defaults.items():
            if key not in body:
                body[key] = value
                changed = True
    stream = False
    if rules.streams:
        bounds = rules.bounds
        if max_tokens is not None or bounds.max_tokens or "ignore_eos" in body:
            changed |= bounds.answer(body, format.name, max_tokens, ends=target.ends, fixed=fixed)
        stream = body.get("stream") is True
    telling = rules.ask_to_tell(body, here=target.sent_as is None)
    if telling is not None and telling.changed:
        changed = True
    if target.prompt is not None and format.apply is not None:
        format.apply(body, target.prompt)
        changed = True
    return found, changed, stream, telling


def is_to_be_fitted(found: int, *, here: bool, template: bool) -> bool:
    """Return whether a body's system messages may not be as the model's chat template takes them.

    ``here``: the model is one of our own; ``template``: models.json names another for it.
    """
    asked_for = MANY_SYSTEMS | DEVELOPER if template else MANY_SYSTEMS
    return here and bool(found & asked_for)


# --- in a worker process -------------------------------------------------------------------


class Plan(NamedTuple):
    """A :class:`Wanted` that can be sent to another process."""

    sent_as: str | None
    shapings: Mapping[str, Shaping] | None
    lacks: Mapping[str, str]
    defaults: Mapping[str, object]
    prompt: str | None
    ends: bool
    tools: Mapping[str, list[JsonObject]] | None

    @classmethod
    def of(cls, target: Target) -> Plan:
        """Return that of ``target``."""
        return cls(
            target.sent_as,
            None if target.shapings is None else dict(target.shapings),
            dict(target.lacks),
            dict(target.defaults),
            target.prompt,
            target.ends,
            None if target.tools is None else dict(target.tools),
        )


@dataclass(slots=True)
class ShapedByWorker:
    """The result of shaping a body in another process."""

    found: int
    stream: bool
    telling: Asked | None
    #: Whether the body was changed: then the new bytes come with this, else the original ones are
    #: sent.
    changed: bool = field(default=False)


def look(raw: bytes, rules: Rules, queried: str | None) -> tuple[JsonObject, None]:
    """Return the ``model`` and the ``personality`` that the body in ``raw`` names, which is in
    order, and what it says of a memory.
    """
    body, _, _, long = read(raw, rules, queried)
    if long is not None:
        all_of(long)
    return {name: _short(body[name]) for name in _LOOKED_AT if name in body}, None


def make(
    raw: bytes, rules: Rules, plan: Plan, max_tokens: int | None
) -> tuple[ShapedByWorker, bytes | None]:
    """Return the body for a model, of the one in ``raw``."""
    body, found, changed, _ = read(raw, rules)
    found, changed, stream, telling = shaped(body, found, changed, plan, rules, max_tokens)
    made = ShapedByWorker(found, stream, telling, changed)
    return made, serialise(body) if changed else None


def _short(name: Any) -> Any:
    """Return what a name is, without what makes it long: it is wrong then, and still is."""
    if isinstance(name, str):
        return name[:_LONGEST_NAME]
    return type(name)() if isinstance(name, list | dict) else name


def system_roles(
    raw: bytes, format: str, rename: bool
) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], None]:
    """Return the first system messages and the late ones, as ``systems`` of
    :mod:`gateway.proxy.system_messages` tells them apart.

    ``rename``: see :func:`fit`.
    """
    body = _again(raw, format, rename)
    first, late = systems(_FORMATS[format], body)
    return (first[:2], late), None


def fit(raw: bytes, format: str, rename: bool, join: bool, move: bool) -> tuple[None, bytes]:
    """Return the body in ``raw`` with its system messages as a chat template takes them.

    ``rename``: developers are called ``system``. ``join``: those at the beginning become one.
    ``move``: those that come late go into the users' words.
    """
    body, known = _again(raw, format, rename), _FORMATS[format]
    if join:
        assert known.apply is not None
        known.apply(body, None)
    if move:
        into_users_words(known, body)
    return None, serialise(body)


def _again(raw: bytes, format: str, rename: bool) -> JsonObject:
    body = parse_object(raw, len(raw))
    if rename:
        as_system(_FORMATS[format], body)
    return body


def conversations(
    raw: bytes, prompt: str, name: str | None
) -> tuple[tuple[bool, list[int]], bytes]:
    """Return what to ask of /apply-template, so that a completion's prompts begin conversations.

    ``prompt`` is the system's, ``name`` what the model is called by a server elsewhere. Whether
    the body in ``raw`` has a list of prompts, and the lengths of the questions, one for each, which
    stand beside that. Raises :class:`BadRequest` for prompts that are no texts.
    """
    body = parse_object(raw, len(raw))
    asked = body.get("prompt")
    texts: list[Any] = asked if isinstance(asked, list) else [asked]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequest("with a personality, `prompt` must be a text, or texts", param="prompt")
    more = {} if name is None else {"model": name}
    if "chat_template_kwargs" in body:
        more["chat_template_kwargs"] = body["chat_template_kwargs"]
    system = {"role": "system", "content": prompt}
    questions = [
        serialise({"messages": [system, {"role": "user", "content": text}], **more})
        for text in texts
    ]
    return (isinstance(asked, list), [len(question) for question in questions]), b"".join(questions)


def with_prompts(answers: bytes, lengths: list[int], several: bool) -> tuple[None, bytes]:
    """Return a completion's body with its prompts as conversations, which /apply-template wrote.

    ``answers`` are what it said to each, and behind these the body, by their ``lengths``. Raises
    :class:`BackendError` for an answer that holds no prompt.
    """
    parts, start = [], 0
    for length in lengths:
        parts.append(answers[start : start + length])
        start += length
    written = [prompt_in(part) for part in parts]
    if None in written:
        raise BackendError("the model's server answered /apply-template without a text `prompt`")
    body = parse_object(answers[start:], len(answers))
    return None, serialise({**body, "prompt": written if several else written[0]})


def prompt_in(answer: bytes) -> str | None:
    """Return what the template wrote; None if that isn't in an answer of /apply-template."""
    try:
        prompt = orjson.loads(answer)["prompt"]
    except (ValueError, LookupError, TypeError):
        return None
    return prompt if isinstance(prompt, str) else None
