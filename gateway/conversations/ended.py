"""What an ended request tells of its slot: so much of :class:`gateway.proxy.call.Outcome`."""

from __future__ import annotations

import asyncio
from typing import Protocol


class AnswerUsage(Protocol):
    """What an answer told of its tokens."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def tokens_per_second(self) -> float | None: ...


class Ended(Protocol):
    """What became of a request. ``slots``: a look at the slots after which its connection is
    closed.
    """

    @property
    def usage(self) -> AnswerUsage | None: ...
    @property
    def events(self) -> int: ...
    @property
    def given_up(self) -> bool: ...
    @property
    def began(self) -> float | None: ...
    @property
    def slots(self) -> asyncio.Task[bytes | None] | None: ...
