"""Copies of model files between the machines of a cluster: one gives, the other fetches.

Both do it in processes of their own, which end with them. The bytes go straight from one to the
other, over TLS, and not through Ray.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.backends.job_process import job_process
from gateway.cluster import copy_process, give_process
from gateway.cluster.ca import Credentials
from gateway.cluster.node_source import CopyFailed
from gateway.cluster.offer import Offer
from gateway.secret import Secret
from gateway.tasks import cancel_and_wait, spawn

_log = logging.getLogger(__name__)

_GIVES: Final = "gateway.cluster.give_process"
_COPIES: Final = "gateway.cluster.copy_process"
#: Seconds after which an offer ends that nobody takes.
_IDLE: Final = 120.0


class CopyProgress(NamedTuple):
    """The progress of a copy. ``stage``: hashing, copying, checking or waiting.

    ``done`` of ``total`` bytes of all files; ``speed``: bytes per second; ``note``: what it waits
    for; ``source``: the machine that it comes from.
    """

    stage: str
    file: str | None = None
    done: int = 0
    total: int | None = None
    speed: int | None = None
    seconds_left: int | None = None
    note: str | None = None
    source: str | None = None


Told = Callable[[CopyProgress], None]


class Offers:
    """What a machine gives: ``node`` is its name, ``host`` the address that it is reached at.

    ``hashes``: the file that hashes are remembered in.
    """

    def __init__(
        self,
        node: str,
        host: str,
        environ: Callable[[], Mapping[str, str]],
        hashes: Path | None = None,
        *,
        idle: float = _IDLE,
    ) -> None:
        self._node = node
        self._host = host
        self._environ = environ
        self._hashes = hashes
        self._idle = idle
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def open_ids(self) -> tuple[str, ...]:
        """The offers that haven't ended."""
        return tuple(self._tasks)

    async def open(self, files: Mapping[str, Path], credentials: Credentials) -> Offer:
        """Give ``files`` (see :func:`gateway.cluster.files.given`) to who is of the cluster.

        It ends by :meth:`close`, or when nobody has asked for a while. Raises
        :class:`CopyFailed`.
        """
        key = Secret(secrets.token_hex(32))
        job = give_process.GiveJob(
            host=self._host,
            key=key.reveal(),
            certificate=credentials.certificate.decode(),
            private_key=credentials.private_key.reveal(),
            authorities=credentials.authorities.decode(),
            files=[str(path) for path in files.values()],
            hashes=str(self._hashes) if self._hashes is not None else None,
            idle=self._idle,
        )
        id_ = secrets.token_hex(4)
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._tasks[id_] = spawn(self._give(id_, job, port), name=f"give files ({id_})")
        try:
            listens = await port
        except asyncio.CancelledError:
            await self.close(id_)
            raise
        return Offer(id_, self._node, self._host, listens, key, tuple(files))

    async def close(self, id_: str) -> None:
        """End an offer; one that has ended already is no error."""
        await cancel_and_wait(self._tasks.get(id_))

    async def close_all(self) -> None:
        """End every offer."""
        await cancel_and_wait(*self._tasks.values())

    async def _give(self, id_: str, job: give_process.GiveJob, port: asyncio.Future[int]) -> None:
        failure = "files cannot be given: its process has ended"
        try:
            async with job_process(_GIVES, self._environ(), give_process.as_text(job)) as process:
                assert process.stdout is not None
                told = json.loads(await process.stdout.readline() or b"{}")
                if "port" in told:
                    if not port.done():
                        port.set_result(told["port"])
                    await process.wait()
                else:
                    failure = f"files cannot be given: {told.get('error', 'no port')}"
        except (OSError, ValueError) as error:
            failure = f"files cannot be given: {error}"
        finally:
            del self._tasks[id_]
            if not port.done():
                port.set_exception(CopyFailed(failure))


@dataclass(slots=True, eq=False)
class _Running:
    """A copy that runs, and who waits for it."""

    files: frozenset[str]
    task: asyncio.Task[CopyFailed | None]
    listeners: list[Told]


class Copies:
    """What a machine fetches from others, into ``storage``: no file twice at the same time.

    ``environ``: for the processes. What has come of a copy that ends early stays, and the next one
    goes on from there.
    """

    def __init__(self, storage: Path, environ: Callable[[], Mapping[str, str]]) -> None:
        self._storage = storage.expanduser().absolute()
        self._environ = environ
        self._running: list[_Running] = []

    async def copy(
        self,
        files: Sequence[str],
        offers: Sequence[Offer],
        credentials: Credentials,
        told: Told,
    ) -> None:
        """Return when ``files`` (paths below ``llm_storage``) are here, each of them whole.

        Who wants a file that is on its way waits for that. If all who wait for a copy are
        cancelled, it ends. Raises :class:`CopyFailed`, whose ``code`` says more.
        """
        wanted = frozenset(files)
        while others := [one for one in self._running if one.files & wanted]:
            if await self._follow(others[0], told) is None:
                wanted = wanted - others[0].files
        if not wanted:
            return
        left = [file for file in files if file in wanted]
        job = copy_process.as_text(self._storage, left, list(offers), credentials)
        running = _Running(
            wanted, spawn(self._run(job, wanted), name=f"copy {left[0]}"), listeners=[]
        )
        self._running.append(running)
        if (failure := await self._follow(running, told)) is not None:
            raise failure

    async def close(self) -> None:
        """End every copy."""
        await cancel_and_wait(*(one.task for one in self._running))

    async def _follow(self, running: _Running, told: Told) -> CopyFailed | None:
        """Wait for a copy, and return why it has failed. The last who is cancelled ends it."""
        running.listeners.append(told)
        try:
            await asyncio.wait([running.task])
        finally:
            running.listeners.remove(told)
            if not running.listeners:
                await cancel_and_wait(running.task)
        if running.task.cancelled():
            return CopyFailed("the copy was ended", code="copy_ended")
        return running.task.result()

    async def _run(self, job: bytes, files: frozenset[str]) -> CopyFailed | None:
        try:
            end = await self._work(job, files)
        except (OSError, ValueError) as error:
            return CopyFailed(f"its process cannot be started or understood: {error}")
        finally:
            self._running = [one for one in self._running if one.files != files]
        if end["stage"] == "done":
            return None
        _log.warning("copy of %s: %s", ", ".join(sorted(files)), end["error"]["message"])
        return CopyFailed(end["error"]["message"], code=end["error"]["code"])

    async def _work(self, job: bytes, files: frozenset[str]) -> Mapping[str, Any]:
        """Let a process do it; returns the last that it says."""
        async with job_process(_COPIES, self._environ(), job) as process:
            assert process.stdout is not None
            async for line in process.stdout:
                told: dict[str, Any] = json.loads(line)
                if told["stage"] in ("done", "failed"):
                    return told
                self._tell(files, told)
            ended = f"its process has ended with {await process.wait()}"
            return {"stage": "failed", "error": {"message": ended, "code": "copy_failed"}}

    def _tell(self, files: frozenset[str], told: Mapping[str, Any]) -> None:
        progress = CopyProgress(
            told["stage"],
            told.get("file"),
            told.get("bytes", 0),
            told.get("total"),
            told.get("speed"),
            told.get("seconds_left"),
            told.get("note"),
            told.get("source"),
        )
        for running in self._running:
            if running.files == files:
                for listener in tuple(running.listeners):
                    listener(progress)
