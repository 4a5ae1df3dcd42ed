"""Resolves which model and which personality a request means. Pure.

A name is looked up as: a model's own name, an alias, ``NAME:PERSONALITY`` (a virtual model:
same process, other system prompt), and last, for clients of the old system, which send
``"NotNeeded"`` or nothing, the active model - the one chosen by ``/loadModel``. Where nothing was
chosen, who asks decides what else may be meant (:class:`NothingChosen`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gateway.bounded_cache import BoundedCache
from gateway.errors import BadRequest, ModelNotFound
from gateway.models.catalog import Catalog
from gateway.models.model import Model
from gateway.models.personalities import Personality
from gateway.proxy.ability import GENERATION, is_claimed, lacks
from gateway.proxy.body import json_type
from gateway.proxy.fields import Shaping, shapings
from gateway.proxy.virtual import shapings_of, tools_of
from gateway.spelling import did_you_mean

#: The name that switches personalities off for one request.
NO_PERSONALITY = "none"
#: The tag that Ollama's clients add to a name that has none.
_LATEST = ":latest"
#: What clients send that have no model to name (as the old wrapper's examples do).
_UNNAMED = frozenset({"", "notneeded"})
#: How many resolved names are cached, and how many characters one may have: any number of blanks
#: can stand for no name.
_KEPT = 1024
_LONGEST = 256


class NothingChosen(ModelNotFound):
    """404: no model is named, and none was chosen by ``/loadModel``."""


class Active(NamedTuple):
    """A model and personality that ``/loadModel`` chose."""

    model: str
    personality: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The model, personality and names that a request resolves to.

    ``prompt`` is the personality's text, if there is one; ``asked`` says that the client itself
    named it, in the request or with the model; ``defaults`` are body fields for requests that
    don't set them. ``sent_as`` is that of ``spec``, computed once. ``shapings``: what ``setParams``
    and ``stripParams`` do, see :func:`gateway.proxy.fields.shapings`. ``lacks``: see
    :func:`gateway.proxy.ability.lacks`. ``ends``: whether models.json bounds how long its answers
    are. ``tools``: those of the personality, see :func:`gateway.proxy.virtual.tools_of`.
    """

    spec: Model
    defaults: Mapping[str, object]
    name: str
    sent_as: str | None
    shapings: Mapping[str, Shaping] | None
    lacks: Mapping[str, str]
    personality: str | None = None
    prompt: str | None = None
    asked: bool = False
    ends: bool = False
    tools: Mapping[str, list[dict[str, Any]]] | None = None


class Resolver:
    """A resolver of the names of one catalog. Built once for each version of models.json."""

    def __init__(self, catalog: Catalog) -> None:
        self._specs = catalog.models
        self._plain = {name: _without_personality(s) for name, s in catalog.models.items()}
        self._virtual = {
            (name, label): _with_personality(self._plain[name], label, personality)
            for name, spec in catalog.models.items()
            for label, personality in spec.personalities.items()
        }
        self._names: dict[str, tuple[Model, str | None]] = {}
        #: Names of models that are known to write text; added when that is found out.
        self.writers = {
            name
            for name, spec in catalog.models.items()
            if not spec.ours or is_claimed(spec, GENERATION)
        }
        #: The results of earlier lookups, which can't change.
        self._found: BoundedCache[tuple[object, ...], Target] = BoundedCache(_KEPT)
        for alias, name in catalog.aliases.items():
            self._names[alias] = (catalog.models[name], None)
        for name, spec in catalog.models.items():
            self._names[name] = (spec, None)
        for name, (spec, _) in list(self._names.items()):
            for personality in spec.personalities:
                # A model that is really called "a:b" keeps its name.
                self._names.setdefault(f"{name}:{personality}", (spec, personality))

    def resolve(
        self,
        requested: object,
        *,
        choice: str | None = None,
        active: Active | None = None,
        default: str | None = None,
        models: frozenset[str] | None = None,
        personalities: frozenset[str] | None = None,
    ) -> Target:
        """Return the target of one request.

        ``requested`` is the body's ``model``; ``choice`` the personality named by the body or
        ``X-Personality``, which wins over a virtual name, which wins over what ``/loadModel``
        chose for that model, which wins over ``default`` (the key's own). ``models`` and
        ``personalities``: all that who asks may use, where they are given. Others are for them as
        if they weren't there: in what is raised, too, which is :class:`BadRequest` for what is no
        name, else :class:`ModelNotFound` with what would have been possible.
        """
        if not isinstance(requested, str):
            requested = model_name(requested)
        asked_for = (requested, choice, active, default, models, personalities)
        target = self._found.get(asked_for)
        if target is None:
            allowed = _Allowed(models, personalities)
            target = self._resolve(requested, choice, active, default, allowed)
            if requested is not None and len(requested) > _LONGEST:
                return target
            self._found[asked_for] = target
        return target

    def _resolve(
        self,
        requested: str | None,
        choice: str | None,
        active: Active | None,
        default: str | None,
        allowed: _Allowed,
    ) -> Target:
        spec, personality = self._lookup(requested, active, allowed)
        asked = choice is not None or personality is not None
        if choice is not None:
            personality = choice
        elif personality is None:
            if active is not None and active.model == spec.name:
                personality = active.personality
            if personality is None and default in spec.personalities:
                personality = default
        plain = self._plain[spec.name]
        if personality is None or personality.lower() == NO_PERSONALITY:
            return plain
        self._check(spec, personality, allowed)
        target = self._virtual[spec.name, personality]
        return replace(target, asked=True) if asked else target

    def knows(self, name: str) -> bool:
        """Return whether ``name`` is a model, an alias or a virtual model."""
        return name in self._names

    def virtual_names(self) -> Iterator[tuple[str, Model, str | None]]:
        """Yield every name that ``/v1/models`` lists: ``(name, spec, personality or None)``."""
        for name, spec in self._specs.items():
            yield name, spec, None
            for personality in spec.personalities:
                yield f"{name}:{personality}", spec, personality

    def _lookup(
        self, requested: str | None, active: Active | None, allowed: _Allowed
    ) -> tuple[Model, str | None]:
        if requested is not None:
            for called in (requested, requested.removesuffix(_LATEST)):
                found = self._names.get(called)
                if (
                    found is not None
                    and allowed.model(found[0].name)
                    and allowed.personality(found[1])
                ):
                    return found
        usable = [
            name for name, spec in self._specs.items() if allowed.model(name) and spec.lists(None)
        ]
        if requested is None or requested.strip().lower() in _UNNAMED:
            if active is not None and (spec := self._specs.get(active.model)) is not None:
                return spec, None
            raise NothingChosen(
                "no model is named, and none was chosen: name one in `model`, or load one with "
                f"POST /loadModel or `llm-gateway load NAME`. Models: {_listed(usable)}",
                param="model",
            )
        name, _, personality = requested.partition(":")
        if (
            personality
            and (known := self._names.get(name)) is not None
            and allowed.model(known[0].name)
        ):
            self._check(known[0], personality, allowed)
        names = (
            name
            for name, (spec, personality) in self._names.items()
            if allowed.model(spec.name)
            and allowed.personality(personality)
            and spec.lists(personality)
        )
        meant = did_you_mean(requested, names) or "."
        raise ModelNotFound(
            f"there is no model {requested[:200]!r}{meant} Models: {_listed(usable)}. A name that "
            "clients insist on can be added to the aliases of a model in models.json",
            param="model",
        )

    @staticmethod
    def _check(spec: Model, personality: str, allowed: _Allowed) -> None:
        """Raise :class:`ModelNotFound` unless ``spec`` has a ``personality`` that may be used."""
        if personality in spec.personalities and allowed.personality(personality):
            return
        usable = [
            name
            for name, one in spec.personalities.items()
            if allowed.personality(name) and not one.unlisted
        ]
        meant = did_you_mean(personality, usable) or "."
        raise ModelNotFound(
            f"the model {spec.name!r} has no personality {personality[:200]!r}{meant} "
            f"Personalities: {_listed(usable)}, or {NO_PERSONALITY!r}",
            code="personality_not_found",
            param="personality",
        )


class _Allowed(NamedTuple):
    """The models that the principal may use and know of; ``None``: all."""

    models: frozenset[str] | None
    personalities: frozenset[str] | None

    def model(self, name: str) -> bool:
        return self.models is None or name in self.models

    def personality(self, name: str | None) -> bool:
        return name is None or self.personalities is None or name in self.personalities


def model_name(value: object) -> str | None:
    """Return the model that a body names; None if it names none.

    Raises :class:`BadRequest` for what cannot be a name.
    """
    if value is None or isinstance(value, str):
        return value
    raise BadRequest(
        f"`model` must be a text, the name of a model, not {json_type(value)}", param="model"
    )


def _without_personality(spec: Model) -> Target:
    return Target(
        spec,
        spec.request_defaults(),
        spec.name,
        spec.sent_as,
        shapings(spec.strip_params, spec.set_params),
        lacks(spec),
        ends=spec.limits_answers,
    )


def _with_personality(plain: Target, name: str, personality: Personality) -> Target:
    target = replace(plain, personality=name, prompt=personality.prompt)
    if personality == Personality(prompt=personality.prompt):  # a text
        return target
    return replace(
        target, shapings=shapings_of(plain.spec, personality), tools=tools_of(personality)
    )


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:20]]
    if len(names) > len(shown):
        shown.append(f"and {len(names) - len(shown)} more")
    return ", ".join(shown) or "none"
