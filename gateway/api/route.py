"""The rows of the route table: each group of routes gives its own, and the table is their sum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gateway.http.request import Handler
from gateway.scope import OF_ANY_KEY, OF_NOBODY, Scope


class Row(NamedTuple):
    """One route.

    ``path`` is written as aiohttp has it (``/models/{model:.+}``), and ``method`` is ``*`` where
    all are taken.

    ``counts``: whether requests count for the limits of their keys. Where nothing is said, those
    do that ask for no more than a valid key, so that a new route is no way around them. What
    doesn't count is administration, and a look at what the gateway has at hand.

    ``answers_with`` are the media types of the answer, for the OpenAPI document, where it is not
    JSON and no shape says so. ``head``: HEAD is answered as well; only probes and documents are, as
    an answer that is relayed has no HEAD.
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
        """Whether its requests count for the limits of their keys."""
        return self.scope in OF_ANY_KEY - OF_NOBODY if self.counts is None else self.counts


Routes = Iterable[Row]
