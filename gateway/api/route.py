"""What a handler asks of its caller: said at its definition, read once for each route."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from gateway.http.request import Handler
from gateway.scope import OF_ANY_KEY, OF_NOBODY, Scope

#: ``(method, path, handler)``
Routes = Iterable[tuple[str, str, Handler]]

H = TypeVar("H", bound=Callable[..., object])

_SCOPE = "_gateway_scope"
_COUNTS = "_gateway_counts"
_MEDIA_TYPES = "_gateway_media_types"


def needs(scope: Scope) -> Callable[[H], H]:
    """Say what a handler asks of its caller. Without it: a valid key."""

    def mark(handler: H) -> H:
        setattr(handler, _SCOPE, scope)
        return handler

    return mark


def counts(yes: bool) -> Callable[[H], H]:
    """Say whether requests to a handler count for the limits of their keys.

    Without it those that ask for no more than a valid key do, so that a new route is no way around
    them. What doesn't count is administration, and a look at what the gateway has at hand.
    """

    def mark(handler: H) -> H:
        setattr(handler, _COUNTS, yes)
        return handler

    return mark


def counted(handler: object) -> bool:
    """Whether requests to a handler count for the limits of their keys."""
    yes: bool = getattr(handler, _COUNTS, scope_of(handler) in OF_ANY_KEY - OF_NOBODY)
    return yes


def scope_of(handler: object) -> Scope:
    """What a handler asks of its caller."""
    scope: Scope = getattr(handler, _SCOPE, Scope.CHAT)
    return scope


def answers_with(*media_types: str) -> Callable[[H], H]:
    """Say what a handler answers with, for the OpenAPI document, where that is no JSON."""

    def mark(handler: H) -> H:
        setattr(handler, _MEDIA_TYPES, media_types)
        return handler

    return mark


def media_types_of(handler: object) -> tuple[str, ...]:
    """What a handler says by :func:`answers_with`; nothing: JSON."""
    found: tuple[str, ...] = getattr(handler, _MEDIA_TYPES, ())
    return found
