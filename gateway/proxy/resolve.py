"""Which model and which personality a request means. Pure.

A name is looked up as: a model's own name, an alias, ``NAME:PERSONALITY`` (a virtual model:
same process, other system prompt), and last, for clients of the old system, which send
``"NotNeeded"`` or nothing, the active model - the one chosen by ``/loadModel``. Where nothing was
chosen, who asks decides what else may be meant (:class:`NothingChosen`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gateway.backends.command import request_defaults
from gateway.catalog import Catalog, ModelSpec
from gateway.errors import BadRequest, Forbidden, ModelNotFound
from gateway.proxy.ability import lacks
from gateway.proxy.body import json_type
from gateway.spelling import did_you_mean

#: Switches personalities off for one request.
NO_PERSONALITY = "none"
#: What clients send that have no model to name (the old wrapper's examples do).
_UNNAMED = frozenset({"", "notneeded"})
#: Resolved names that are kept, and characters of one: as a name for nothing any blanks will do.
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
    """What a request resolves to.

    ``prompt`` is the personality's text, if there is one; ``asked`` says that the client itself
    named it, in the request or with the model; ``defaults`` are body fields for requests that
    don't set them. The next four are those of ``spec``, whose own attributes, which are
    pydantic's, cost ten times as much. ``lacks``: see :func:`gateway.proxy.ability.lacks`.
    """

    spec: ModelSpec
    defaults: Mapping[str, object]
    name: str
    sent_as: str | None
    set_params: Mapping[str, Any]
    strip_params: tuple[str, ...]
    lacks: Mapping[str, str]
    personality: str | None = None
    prompt: str | None = None
    asked: bool = False


class Resolver:
    """Names of one catalog. Built once for each version of models.json."""

    def __init__(self, catalog: Catalog) -> None:
        self._specs = catalog.models
        self._plain = {name: _without_personality(s) for name, s in catalog.models.items()}
        self._names: dict[str, tuple[ModelSpec, str | None]] = {}
        #: Models that are known to write text, by name: whoever finds out adds them.
        self.writers = {name for name, spec in catalog.models.items() if spec.url}
        #: What was asked for before, and found: it can't mean anything else.
        self._found: dict[tuple[object, ...], Target] = {}
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
        models: Collection[str] | None = None,
        personalities: Collection[str] | None = None,
    ) -> Target:
        """The target of one request.

        ``requested`` is the body's ``model``; ``choice`` the personality named by the body or
        ``X-Personality``, which wins over a virtual name, which wins over what ``/loadModel``
        chose for that model, which wins over ``default`` (the key's own). Raises
        :class:`BadRequest` for what is no name, :class:`ModelNotFound` with what would have been
        possible: of ``models`` and ``personalities``, where they are given, because who asks may
        know of no others.
        """
        if not isinstance(requested, str):
            requested = model_name(requested)
        asked_for = (requested, choice, active, default)
        target = self._found.get(asked_for)
        if target is None:
            allowed = _Allowed(models, personalities)
            target = self._resolve(requested, choice, active, default, allowed)
            if requested is not None and len(requested) > _LONGEST:
                return target
            if len(self._found) >= _KEPT:
                self._found.clear()
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
        prompt = self._prompt(spec, personality, allowed)
        return replace(plain, personality=personality, prompt=prompt, asked=asked)

    def knows(self, name: str) -> bool:
        """Whether ``name`` is a model, an alias or a virtual model."""
        return name in self._names

    def virtual_names(self) -> Iterator[tuple[str, ModelSpec, str | None]]:
        """Every name that ``/v1/models`` lists: ``(name, spec, personality or None)``."""
        for name, spec in self._specs.items():
            yield name, spec, None
            for personality in spec.personalities:
                yield f"{name}:{personality}", spec, personality

    def _lookup(
        self, requested: str | None, active: Active | None, allowed: _Allowed
    ) -> tuple[ModelSpec, str | None]:
        if requested is not None and (found := self._names.get(requested)) is not None:
            return found
        usable = [name for name in self._specs if allowed.model(name)]
        if requested is None or requested.strip().lower() in _UNNAMED:
            if active is not None and (spec := self._specs.get(active.model)) is not None:
                return spec, None
            raise NothingChosen(
                "no model is named, and none was chosen: name one in `model`, or load one with "
                f"POST /loadModel. Models: {_listed(usable)}",
                param="model",
            )
        name, _, personality = requested.partition(":")
        if (
            personality
            and (known := self._names.get(name)) is not None
            and allowed.model(known[0].name)
        ):
            self._prompt(known[0], personality, allowed)
        names = (
            name
            for name, (spec, personality) in self._names.items()
            if allowed.model(spec.name) and allowed.personality(personality)
        )
        meant = did_you_mean(requested, names) or "."
        raise ModelNotFound(
            f"there is no model {requested[:200]!r}{meant} Models: {_listed(usable)}. A name that "
            "clients insist on can be added to the aliases of a model in models.json",
            param="model",
        )

    @staticmethod
    def _prompt(spec: ModelSpec, personality: str, allowed: _Allowed) -> str:
        try:
            return spec.personalities[personality]
        except KeyError:
            pass
        if not allowed.model(spec.name):
            raise Forbidden(f"this key may not use the model {spec.name!r}")
        usable = [name for name in spec.personalities if allowed.personality(name)]
        meant = did_you_mean(personality, usable) or "."
        raise ModelNotFound(
            f"the model {spec.name!r} has no personality {personality[:200]!r}{meant} "
            f"Personalities: {_listed(usable)}, or {NO_PERSONALITY!r}",
            code="personality_not_found",
            param="personality",
        )


class _Allowed(NamedTuple):
    """What who asks may use, and know of; ``None``: everything."""

    models: Collection[str] | None
    personalities: Collection[str] | None

    def model(self, name: str) -> bool:
        return self.models is None or name in self.models

    def personality(self, name: str | None) -> bool:
        return name is None or self.personalities is None or name in self.personalities


def model_name(value: object) -> str | None:
    """The model that a body names; None if it names none.

    Raises :class:`BadRequest` for what cannot be a name.
    """
    if value is None or isinstance(value, str):
        return value
    raise BadRequest(
        f"`model` must be a text, the name of a model, not {json_type(value)}", param="model"
    )


def _without_personality(spec: ModelSpec) -> Target:
    return Target(
        spec,
        request_defaults(spec),
        spec.name,
        spec.sent_as,
        spec.set_params,
        spec.strip_params,
        lacks(spec),
    )


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:20]]
    if len(names) > len(shown):
        shown.append(f"and {len(names) - len(shown)} more")
    return ", ".join(shown) or "none"
