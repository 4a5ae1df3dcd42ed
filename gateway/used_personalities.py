"""Which personalities of a model are used: they are computed ahead when it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.access.accounting import Accounting
from gateway.access.gate import KeyGate
from gateway.access.past_requests import RequestFilter
from gateway.bounded_cache import BoundedCache
from gateway.conversations.chain import NOTHING_WRITTEN
from gateway.conversations.opening import Written, functions_of
from gateway.conversations.shared import as_written
from gateway.library import Library
from gateway.models.catalog import Catalog
from gateway.models.model import Model
from gateway.models.personalities import Personality
from gateway.proxy.virtual import shapings_of

if TYPE_CHECKING:
    from gateway.conversations.keeper import Conversations, Expected

#: Requests to a model that are looked at, the last ones, and personalities that are expected.
_LOOKED_AT: Final = 200
_EXPECTED: Final = 8
#: Personalities of which it is remembered what their operator wrote.
_WRITTEN: Final = 1024


def expect_used(
    conversations: Conversations, library: Library, accounting: Accounting, gate: KeyGate
) -> None:
    """Let ``conversations`` know which personalities to expect, and which there are.

    Expected are those that were chosen with a model, those that a key has without choosing, and
    those that the last requests had, the most frequent first.
    """

    async def expected(model: str) -> Iterable[Expected]:
        page = await accounting.log.page(RequestFilter(_LOOKED_AT, model=model))
        spec = library.catalog.models.get(model)
        if spec is None:
            return ()
        used = Counter(past.personality for past in page.requests if past.personality is not None)
        keys = () if gate.ring is None else gate.ring.records
        defaults = (key.default_personality for key in keys)
        chosen = library.choices.personalities_of(model)
        names = dict.fromkeys([*chosen, *defaults, *(name for name, _ in used.most_common())])
        found = (spec.personalities.get(name) for name in names if name is not None)
        there = [one for one in found if one is not None]
        return [(request_of(spec, one), written_of(spec, one)) for one in there[:_EXPECTED]]

    conversations.expected, conversations.written = expected, written_in(library)
    library.choices.chosen = lambda active: conversations.look_ahead(active.model)
    before = library.changed

    def changed(catalog: Catalog) -> None:
        before(catalog)
        conversations.keep_texts(texts_of(catalog))

    library.changed = changed


def texts_of(catalog: Catalog) -> Mapping[str, Collection[Written]]:
    """Return what begins prompts of the personalities of each model."""
    return {
        name: {written_of(spec, one) for one in spec.personalities.values() if one.prompt}
        for name, spec in catalog.models.items()
    }


def written_in(library: Library) -> Callable[[str, str], Written]:
    """Return what finds what an operator wrote for a model's personality, as far as it is still
    that.
    """
    known: BoundedCache[tuple[str, str], tuple[Personality, Written]] = BoundedCache(_WRITTEN)

    def written(model: str, name: str) -> Written:
        spec = library.catalog.models.get(model)
        personality = None if spec is None else spec.personalities.get(name)
        if spec is None or personality is None:
            return NOTHING_WRITTEN
        found = known.get((model, name))
        if found is None or found[0] is not personality:
            found = known[model, name] = personality, written_of(spec, personality)
        return found[1]

    return written


def written_of(spec: Model, personality: Personality) -> Written:
    """Return what of a personality of ``spec`` makes prompts."""
    arguments = _fixed(spec, personality).get("chat_template_kwargs")
    return Written(
        personality.prompt,
        functions_of([*personality.tools], "chat"),
        None if arguments is None else as_written(arguments),
    )


def request_of(spec: Model, personality: Personality) -> dict[str, Any]:
    """Return a chat request as llama-server gets it with ``personality``."""
    messages = [{"role": "user", "content": ""}]
    if personality.prompt:
        messages.insert(0, {"role": "system", "content": personality.prompt})
    tools = {"tools": [*personality.tools]} if personality.tools else {}
    return {"messages": messages, **_fixed(spec, personality), **tools}


def _fixed(spec: Model, personality: Personality) -> Mapping[str, Any]:
    """Return what is set in chats with ``personality``."""
    shapings = shapings_of(spec, personality)
    return shapings["chat"].fixed if shapings is not None else {}
