"""Pages of lists, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiohttp import web

from gateway.errors import BadRequest
from gateway.quantities import whole_number

_PAGE: Final = 20
_LARGEST_PAGE: Final = 100


class Page(NamedTuple):
    """A page of a list, as OpenAI's API has them."""

    after: str | None
    limit: int
    descending: bool

    @classmethod
    def of(cls, request: web.Request) -> Page:
        """Return the page that the query of ``request`` names. Raises :class:`BadRequest`."""
        query = request.query
        limit = whole_number(query.get("limit", str(_PAGE)))
        if limit is None or not 1 <= limit <= _LARGEST_PAGE:
            raise BadRequest(f"`limit` must be a number from 1 to {_LARGEST_PAGE}", param="limit")
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise BadRequest("`order` must be asc or desc", param="order")
        return cls(query.get("after"), limit, order == "desc")

    def cut(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return this page of ``items``, which are in ascending order."""
        listed = [*reversed(items)] if self.descending else [*items]
        if self.after is not None:
            places = [place for place, item in enumerate(listed) if item["id"] == self.after]
            if not places:
                raise BadRequest("`after` must be the id of an item in this list", param="after")
            listed = listed[places[0] + 1 :]
        page = listed[: self.limit]
        return {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(listed) > len(page),
        }
