"""The gateway's end of the link to its driver process, which is started anew when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.backends.process import launcher
from gateway.cluster.frames import Unreadable, packed, receive
from gateway.cluster.ray_command import WORK_FOLDER, variables
from gateway.cluster.token import known_token
from gateway.errors import GatewayError
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)

#: Seconds until a driver that could not join, or has died, is followed by another: first, at most.
_AGAIN, _LONGEST = 1.0, 30.0
#: Seconds for an answer. Actors answer within 20, if only that there is no news. Ray hears of a
#: machine without power from the head, and of the head's from nobody.
ANSWER = 30.0
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


class Link:
    """The link to Ray at ``address``. ``changed`` is called when it is joined, and when it is lost.

    ``folder``: where the cluster's token may be. ``problem``: why it isn't joined.
    """

    def __init__(
        self, address: str, changed: Callable[[], None], folder: Path | None = None
    ) -> None:
        self._address = address
        self._changed = changed
        self._folder = folder
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.joined = False
        self.problem: str | None = "not joined yet"

    def open(self) -> None:
        """Begin to join, and join again whenever that is needed."""
        self._keeping = spawn(self._keep(), name="keep the link to Ray")

    async def close(self) -> None:
        """End the driver."""
        await cancel_and_wait(self._keeping)
        if self._ending is not None:
            await self._ending

    async def call(self, actor: str, method: str, *arguments: Any, within: float = ANSWER) -> Any:
        """Return what ``method`` of an actor returns.

        Raises :class:`Unreachable` where it gives no answer ``within`` so many seconds,
        :class:`Refused` for what it raises.
        """
        return await self._ask("call", actor, method, arguments, within=within)

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
                if await self._serve():
                    pause = _AGAIN
            except OSError as error:
                self._lost(f"its driver cannot be started: {error}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def _serve(self) -> bool:
        """Run one driver until it ends. Returns whether it had joined."""
        token = None if self._folder is None else await asyncio.to_thread(known_token, self._folder)
        ours, its = socket.socketpair()
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
        had = False
        assert process.stdout is not None
        said = spawn(_log_lines(process.stdout), name="what Ray's driver says")
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**26)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                number, error, _ = await receive(reader)
                if error is not None:
                    hint = "" if token else f" (no token of a cluster is in {self._folder})"
                    self._lost(f"{error[0]}{hint}: {error[1]}")
                    return False
                assert number == 0
                had, self._writer, self.joined, self.problem = True, writer, True, None
                _log.info("joined the Ray cluster at %s", self._address)
                self._changed()
                while True:
                    self._answer(*await receive(reader))
            self._lost("its driver has ended")
        except Unreadable as error:  # installed while this process ran, for example
            self._lost(f"its driver is of another version: restart the gateway ({error})")
        finally:
            self._writer = None
            writer.close()
            self._lost(self.problem or "the gateway ends")
            self._ending = spawn(_end(process, said), name="end Ray's driver")
            await asyncio.shield(self._ending)
        return had

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
