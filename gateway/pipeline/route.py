"""The rows of the route table, which each group of handlers gives for its own routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gateway.http.request import Handler
from gateway.scope import OF_ANY_KEY, OF_NOBODY, Scope


class Row(NamedTuple):
    """One route.

    ``path`` is in aiohttp's syntax (``/models/{model:.+}``); ``method`` is ``*`` for all methods.

    ``scope`` is the right that a caller needs. ``counts``: whether requests count for the limits of
    their keys. By default those for any key do, so that a new route is no way around limits;
    administration does not, nor does a look at what the gateway has at hand.

    ``answers_with``: the media types of an answer that is not JSON, for the OpenAPI document.
    ``head``: HEAD is answered as well, as it is for probes and documents.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope
    counts: bool | None = None
    answers_with: tuple[str, ...] = ()
    head: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether its requests count towards the limits of their keys."""
        return self.scope in OF_ANY_KEY - OF_NOBODY if self.counts is None else self.counts


Routes = Iterable[Row]
