"""The gateway's end of the link to its driver process, which is started anew when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gateway.backends.process import launcher
from gateway.cluster.frames import Unreadable, packed, receive
from gateway.cluster.ray_command import WORK_FOLDER, variables
from gateway.cluster.token import known_token
from gateway.cluster.told import REGISTRY
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)

#: Seconds until a driver that could not join, or has died, is followed by another: first, at most.
_AGAIN, _LONGEST = 1.0, 30.0
#: Seconds for an answer. Actors answer within 20, if only that there is no news. Ray hears of a
#: machine without power from the head, and of the head's from nobody.
ANSWER = 30.0
#: Seconds without an answer of the registry until another driver is tried: first, at most.
_SILENT, _LONG_SILENT = 10.0, 120.0
#: Seconds for a driver to end when the socket is closed.
_END = 5.0


class Unreachable(GatewayError):
    """503: the cluster, or a machine of it, gives no answer. ``final``: what was asked has ended,
    and Ray knows it. ``late``: it may still come.
    """

    status = 503
    default_code = "cluster_unreachable"

    def __init__(self, message: str, *, final: bool = False, late: bool = False) -> None:
        super().__init__(message)
        self.final = final
        self.late = late


class Refused(GatewayError):
    """An actor was reached, and has raised something; ``kind`` is the name of the exception."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


#: The exceptions of Ray by which an actor gives no answer (ray.exceptions), not those of its
#: methods.
_NO_ANSWER = frozenset(
    """ActorDiedError ActorUnavailableError ActorUnschedulableError RayActorError NodeDiedError
    WorkerCrashedError GetTimeoutError RpcError RaySystemError ConnectionError OwnerDiedError
    ObjectLostError OutOfDiskError TaskUnschedulableError RayTaskError""".split()
)

#: What these mean, for whoever looks at the machines: Ray's own words say how it came to know.
_MEANING = {
    "ActorDiedError": "its process has ended",
    "ActorUnavailableError": "it cannot be reached",
    "ActorUnschedulableError": "its machine has left the cluster, or cannot be reached",
    "NodeDiedError": "its machine has left the cluster, or cannot be reached",
}

#: Those of them that tell of an end.
_FINAL = frozenset({"ActorDiedError", "NodeDiedError", "ActorUnschedulableError"})


def why_silent(kind: str, text: str) -> str:
    """Return why an actor gives no answer, from Ray's exception."""
    first = f"{kind}: {text.strip().splitlines()[0]}" if text.strip() else kind
    return _MEANING.get(kind, first)


class _NotJoined(Exception):
    """A driver could not join; the text says why."""


class _Driver(NamedTuple):
    """A driver that has joined. ``said``: what reads its output."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    said: asyncio.Task[None]


class Link:
    """The link to Ray at ``address``. ``changed`` is called when it is joined, and when it is lost.

    ``folder``: where the cluster's token may be. ``patience``: seconds without an answer of the
    registry until another driver is tried, at first. ``problem``: why it isn't joined.
    """

    def __init__(
        self,
        address: str,
        changed: Callable[[], None],
        folder: Path | None = None,
        *,
        patience: float = _SILENT,
    ) -> None:
        self._address = address
        self._changed = changed
        self._folder = folder
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()
        #: The driver that takes the place of the one that is there, and what starts it.
        self._next: _Driver | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renew_at: float | None = None  # monotonic; the registry is silent
        self._first_patience = self._patience = patience
        self.joined = False
        self.problem: str | None = "not joined yet"

    def open(self) -> None:
        """Begin to join, and join again whenever that is needed."""
        self._keeping = spawn(self._keep(), name="keep the link to Ray")

    async def close(self) -> None:
        """End the driver."""
        await cancel_and_wait(self._renewing)
        await cancel_and_wait(self._keeping)
        if self._next is not None:
            self._end(self._next)
        if self._endings:
            await asyncio.wait(tuple(self._endings))

    async def call(self, actor: str, method: str, *arguments: Any, within: float = ANSWER) -> Any:
        """Return what ``method`` of an actor returns.

        Raises :class:`Unreachable` where it gives no answer ``within`` so many seconds,
        :class:`Refused` for what it raises.
        """
        try:
            answer = await self._ask("call", actor, method, arguments, within=within)
        except Unreachable:
            if actor == REGISTRY and self.joined:
                self._registry_is_silent()
            raise
        if actor == REGISTRY:
            self._renew_at, self._patience = None, self._first_patience
        return answer

    async def kill(self, actor: str) -> None:
        """End an actor for good."""
        await self._ask("kill", actor)

    async def reserve(self, name: str, resources: dict[str, float]) -> None:
        """Have Ray set ``resources`` aside under ``name``; see :func:`.told.resource`."""
        await self._ask("reserve", name, resources)

    async def reserved(self, prefix: str) -> dict[str, tuple[str, ...]]:
        """Return the resources that are reserved under names that begin so, by name."""
        found: dict[str, tuple[str, ...]] = await self._ask("reserved", prefix)
        return found

    async def release(self, name: str) -> None:
        """Give back what was reserved, if anything is."""
        await self._ask("release", name)

    async def _ask(self, operation: str, *arguments: Any, within: float = ANSWER) -> Any:
        writer = self._writer
        if writer is None or not self.joined:
            raise Unreachable(f"Ray is not joined: {self.problem}")
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        writer.write(packed((number, operation, *arguments)))
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            if not writer.is_closing():
                writer.write(packed((0, "cancel", number)))
            raise Unreachable(f"it gives no answer within {within:g} s", late=True) from None
        except asyncio.CancelledError:
            if not writer.is_closing():
                writer.write(packed((0, "cancel", number)))
            raise
        finally:
            self._waiting.pop(number, None)

    # --- the driver ----------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause = _AGAIN
        while True:
            try:
                driver, self._next = self._next or await self._start(), None
                pause = _AGAIN
                await self._serve(driver)
            except _NotJoined as error:
                self._lost(str(error))
            if self._next is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST)

    async def _start(self) -> _Driver:
        """Return a driver that has joined. Raises :class:`_NotJoined`."""
        token = None if self._folder is None else await asyncio.to_thread(known_token, self._folder)
        ours, its = socket.socketpair()
        try:
            with its:
                process = await asyncio.create_subprocess_exec(
                    *launcher(),
                    sys.executable,
                    "-P",
                    "-m",
                    "gateway.cluster.driver",
                    self._address,
                    stdin=its.fileno(),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    env={**os.environ, **variables(token)},
                    cwd=WORK_FOLDER,
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise _NotJoined(f"its driver cannot be started: {error}") from error
        assert process.stdout is not None
        said = spawn(_log_lines(process.stdout), name="what Ray's driver says")
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**26)
        driver = _Driver(process, reader, writer, said)
        try:
            number, refused, _ = await receive(reader)
            if refused is not None:
                hint = "" if token else f" (no token of a cluster is in {self._folder})"
                raise _NotJoined(f"{refused[0]}{hint}: {refused[1]}")
            assert number == 0
        except (asyncio.IncompleteReadError, ConnectionError):
            await asyncio.shield(self._end(driver))
            raise _NotJoined("its driver has ended") from None
        except Unreadable as error:  # installed while this process ran, for example
            await asyncio.shield(self._end(driver))
            raise _NotJoined(_of_another_version(error)) from error
        except BaseException:
            await asyncio.shield(self._end(driver))
            raise
        return driver

    async def _serve(self, driver: _Driver) -> None:
        """Pass on what a driver answers until it ends, or another takes its place."""
        self._writer, self.joined, self.problem = driver.writer, True, None
        _log.info("joined the Ray cluster at %s", self._address)
        self._changed()
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    self._answer(*await receive(driver.reader))
            self._lost("its driver has ended" if self._next is None else "another driver follows")
        except Unreadable as error:
            self._lost(_of_another_version(error))
        finally:
            self._writer = None
            self._lost(self.problem or "the gateway ends")
            ending = self._end(driver)
            if self._next is None:
                await asyncio.shield(ending)

    def _end(self, driver: _Driver) -> asyncio.Task[None]:
        driver.writer.close()
        ending = spawn(_end(driver.process, driver.said), name="end Ray's driver")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    def _registry_is_silent(self) -> None:
        """Try another driver, if that is so for long. Ray's drivers may go on calling an actor
        where it was, though it has been started anew on a head that came back at once.
        """
        now = time.monotonic()
        if self._renewing is not None and not self._renewing.done():
            return
        if self._renew_at is None:
            self._renew_at = now + self._patience
        elif now >= self._renew_at:
            self._renew_at, self._patience = None, min(2 * self._patience, _LONG_SILENT)
            self._renewing = spawn(self._renew(), name="join Ray anew")

    async def _renew(self) -> None:
        """Have another driver in place of the one that is there, if it can join."""
        try:
            driver = await self._start()
        except _NotJoined as error:  # the head is away: this one still reaches the nodes
            _log.debug("Ray cannot be joined anew: %s", error)
            return
        if (writer := self._writer) is None or writer.is_closing():
            self._end(driver)  # that one has ended meanwhile, and is followed by another
        else:
            self._next = driver
            writer.close()

    def _answer(self, number: int, error: tuple[str, str] | None, value: Any) -> None:
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(value)
        elif error[0] in _NO_ANSWER:
            _log.debug("%s: %s", *error)
            answer.set_exception(Unreachable(why_silent(*error), final=error[0] in _FINAL))
        else:
            answer.set_exception(Refused(*error))

    def _lost(self, why: str) -> None:
        if why != self.problem:
            _log.warning("Ray is not joined: %s", why.strip().splitlines()[0])
        was, self.joined, self.problem = self.joined, False, why
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(Unreachable(f"Ray is not joined: {why}"))
        if was:
            self._changed()


def _of_another_version(error: Unreadable) -> str:
    return f"its driver is of another version: restart the gateway ({error})"


async def _log_lines(output: asyncio.StreamReader) -> None:
    """Log what Ray writes: what matters of it, its exceptions say."""
    with contextlib.suppress(ValueError):  # a line without an end
        async for line in output:
            _log.debug("Ray: %s", line.decode("utf-8", "replace").rstrip())


async def _end(process: asyncio.subprocess.Process, said: asyncio.Task[None]) -> None:
    ending = spawn(process.wait(), name="end of Ray's driver")
    await asyncio.wait([ending], timeout=_END)
    if not ending.done():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait([ending])
    await cancel_and_wait(said)
