"""The pulls of a machine: a few at once, each in a process that ends with whoever has begun it.

What has come of one that was ended stays, so that the same again goes on from there. Ended ones
are remembered for a while. A gateway's list also has those that run on nodes of its cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.backends.job_process import job_process
from gateway.errors import GatewayError, NotFound, Unavailable
from gateway.tasks import cancel_and_wait, spawn

#: How many pulls run at once: they share one network and one disk.
_AT_ONCE: Final = 2
#: How many unfinished pulls there may be, and how many finished ones are remembered.
_MOST: Final = 16
_REMEMBERED: Final = 50
_MODULE: Final = "gateway.backends.pull_process"
_log = logging.getLogger(__name__)


Told = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class PullWish:
    """What is to be fetched: ``OWNER/REPO[:QUANT]``. ``name``: of its entry in models.json, if one
    is to be written. ``replace``: also what is there and differs from the hub's.
    """

    model: str
    revision: str | None = None
    name: str | None = None
    entry: bool = True
    replace: bool = False


class PullThere(Protocol):
    """A pull on a node."""

    id: str
    node: str
    wish: PullWish
    created: float

    async def follow(self, told: Told, /) -> Mapping[str, Any]:
        """Tell how it goes; returns the last that there is to tell."""

    async def end(self, *, discard: bool) -> None:
        """End it there, or forget one that has ended. ``discard``: delete what has come of it."""


_Work = Callable[[], Awaitable[Mapping[str, Any]]]
#: Does what is left when the files are there; returns the last that is told.
Finish = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


@dataclass(slots=True)
class Pull:
    """A pull. ``stage``: waiting, listing, downloading, checking, done, failed or ended.

    ``bytes`` have come of ``total``, of all its files; ``speed``: bytes per second; times are
    seconds since 1970. ``name``: of its entry; ``entry``: one to be written by somebody else.
    ``node``: where its files go, if not to this machine. A ``note`` says what it waits for.
    """

    id: str
    model: str
    revision: str | None
    created: float
    stage: str = "waiting"
    quantisation: str | None = None
    file: str | None = None
    bytes: int = 0
    total: int | None = None
    speed: int | None = None
    seconds_left: int | None = None
    note: str | None = None
    error: dict[str, str] | None = None
    name: str | None = None
    ended: float | None = None
    node: str | None = None
    entry: dict[str, Any] | None = None
    parts: list[Path] = field(default_factory=list)
    there: PullThere | None = None

    @property
    def over(self) -> bool:
        """Whether the pull has ended, in whatever way."""
        return self.ended is not None

    def take(self, told: Mapping[str, Any]) -> None:
        """Take over what its process tells."""
        self.speed = self.seconds_left = self.note = None
        for name in _TOLD & told.keys():
            setattr(self, name, told[name])
        if "parts" in told:
            self.parts = [Path(part) for part in told["parts"]]

    def report(self) -> dict[str, Any]:
        """Return the pull as JSON."""
        left_out = ("entry", "parts", "there")
        names = (name for name in self.__slots__ if name not in left_out)
        return {name: getattr(self, name) for name in names}


_TOLD: Final = frozenset(
    "stage quantisation file bytes total speed seconds_left note error name entry".split()
)


class Pulls:
    """The pulls of a machine. ``environ``: what their processes may be given of the environment.

    ``done``: what is to happen before it is said that one has come.
    """

    def __init__(
        self, environ: Callable[[], Mapping[str, str]], done: Callable[[], Awaitable[None]]
    ) -> None:
        self._environ = environ
        self._done = done
        self._pulls: dict[str, Pull] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._listeners: set[Callable[[], None]] = set()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every change; returns how to end it."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    def reports(self) -> list[dict[str, Any]]:
        """Return all of them, the oldest first."""
        return [one.report() for one in self._pulls.values()]

    def running(self, model: str, revision: str | None, node: str | None = None) -> Pull | None:
        """Return the one that fetches this already, to here or to ``node``."""
        wanted = (model.lower(), revision, node)
        for one in self._pulls.values():
            if not one.over and (one.model.lower(), one.revision, one.node) == wanted:
                return one
        return None

    def check_room(self) -> None:
        """Raise :class:`Unavailable` where too many wait already."""
        if sum(not one.over for one in self._pulls.values()) >= _MOST:
            raise Unavailable(f"{_MOST} pulls wait already: one of them has to end first")

    def begin(
        self,
        model: str,
        revision: str | None,
        job: bytes,
        environ: Mapping[str, str] | None = None,
    ) -> Pull:
        """Begin ``job``, or let it wait for its turn. Raises :class:`Unavailable`: too many.

        ``environ``: the environment of its process, if not that of all.
        """
        self.check_room()
        pull = Pull(secrets.token_hex(4), model, revision, round(time.time(), 3))
        return self._add(pull, partial(self._run_here, pull, job, environ))

    def follow(self, there: PullThere, finish: Finish) -> Pull:
        """Have a pull on a node in the list. ``finish``: for when its files are there."""
        known = self._pulls.get(there.id)
        if known is not None and not known.over:
            return known
        wish = there.wish
        pull = Pull(there.id, wish.model, wish.revision, there.created)
        pull.node, pull.there = there.node, there
        return self._add(pull, partial(self._run_there, pull, there, finish))

    def _add(self, pull: Pull, work: _Work) -> Pull:
        self._pulls[pull.id] = pull
        over = [one.id for one in self._pulls.values() if one.over]
        for old in over[: max(0, len(over) - _REMEMBERED)]:
            del self._pulls[old]
        self._tasks[pull.id] = spawn(self._run(pull, work), name=f"pull {pull.model}")
        self._changed()
        return pull

    async def end(self, id_: str, *, discard: bool = False) -> Pull:
        """End one, or forget one that has ended. ``discard``: delete what has come of it.

        Raises :class:`NotFound`, and :class:`GatewayError` where a node can't be told.
        """
        pull = self._pulls.get(id_)
        if pull is None:
            raise NotFound(f"there is no pull {id_[:50]!r}", param="id")
        if pull.there is not None:
            try:
                await pull.there.end(discard=discard)
            except GatewayError:
                if not pull.over or discard:
                    raise
        if pull.over:
            self._pulls.pop(id_, None)
        else:
            await cancel_and_wait(self._tasks.get(id_))
        if discard:
            await asyncio.to_thread(_delete, pull.parts)
            if pull.stage != "done":
                pull.bytes = 0
        self._changed()
        return pull

    async def close(self) -> None:
        """End all of them; those on nodes go on, and are found there again."""
        await cancel_and_wait(*self._tasks.values())

    # --- one of them -------------------------------------------------------------------------

    async def _run(self, pull: Pull, work: _Work) -> None:
        try:
            end = await work()
            if end.get("stage") == "done":
                await self._done()  # it is served when that is said
            pull.take(end)
        except asyncio.CancelledError:
            pull.take({"stage": "ended"})
            raise
        except OSError as error:
            pull.take(_failed(f"its process cannot be started: {error.strerror}"))
        except ValueError as error:
            pull.take(_failed(f"what its process says cannot be read: {error}"))
        finally:
            if pull.error is not None:
                _log.warning("pull %s: %s", pull.model, pull.error["message"])
            else:
                _log.info("pull %s: %s", pull.model, pull.stage)
            pull.ended = round(time.time(), 3)
            self._tasks.pop(pull.id, None)
            self._changed()

    async def _run_there(self, pull: Pull, there: PullThere, finish: Finish) -> Mapping[str, Any]:
        def told(news: Mapping[str, Any]) -> None:
            pull.take(news)
            self._changed()

        end = await there.follow(told)
        if end["stage"] != "done":
            return end
        try:
            return await finish(end)
        except GatewayError as error:
            return {"stage": "failed", "error": {"message": error.message, "code": error.code}}

    async def _run_here(
        self, pull: Pull, job: bytes, environ: Mapping[str, str] | None
    ) -> Mapping[str, Any]:
        """Let a process do it; returns the last that it says."""
        given = self._environ() if environ is None else environ
        async with self._room, job_process(_MODULE, given, job) as process:
            assert process.stdout is not None
            async for line in process.stdout:
                told: dict[str, Any] = json.loads(line)
                if told["stage"] in ("done", "failed"):
                    return told
                pull.take(told)
                self._changed()
            return _failed(f"its process has ended with {await process.wait()}")

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _failed(message: str) -> dict[str, Any]:
    return {"stage": "failed", "error": {"message": message, "code": "pull_failed"}}


def _delete(parts: list[Path]) -> None:
    """Delete ``parts``, except those that another pull, or a command, has locked."""
    for part in parts:
        with contextlib.suppress(OSError), part.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)
