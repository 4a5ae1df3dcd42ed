"""One run of ``ray start --block``: a head or a node of Ray on this machine, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.backends import process
from gateway.backends.logring import LogRing
from gateway.cluster.ray_command import LONGEST_FOLDER, STARTED
from gateway.errors import GatewayError
from gateway.private_files import make_folder, open_private
from gateway.runtime import runtime_homes
from gateway.tasks import cancel_and_wait, spawn

#: Seconds for Ray to start, and to end what it has started.
_START: Final = 60.0
_END: Final = 15.0


class CannotJoin(GatewayError):
    """A head, or a node, that can't be: the message says why, and what to do."""

    status = 503
    default_code = "cannot_join"


class WrongToken(CannotJoin):
    """The head doesn't know the token."""


class RayProcess:
    """A run of ``command``, Ray's. ``name``: head, or that of the node; ``records``: a folder to
    note its processes in, so that none of them is left behind, even by one that was killed.

    ``at_once``: it is killed where it must end. A head that ends in good order may write down that
    its own node has ended, and not that the actors there have, which are never started again then.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        environ: Mapping[str, str],
        name: str,
        records: Path,
        *,
        at_once: bool = False,
    ) -> None:
        self._command = command
        self._records = process.Records(records)
        self._at_once = at_once
        self._environ = environ
        self._name = name
        self._log = LogRing()
        self._child: process.Child | None = None

    async def start(self) -> None:
        """Return when Ray is up. Raises :class:`CannotJoin`, and leaves nothing then."""
        await asyncio.to_thread(self._records.reap_leftovers)
        child = self._child = await process.start(
            self._command, self._environ, log=self._log, name=f"Ray of {self._name}"
        )
        await asyncio.to_thread(self._records.write, child)
        up = asyncio.Event()

        def look() -> None:
            if STARTED in self._log.last:
                up.set()

        unlisten = self._log.listen(look)
        started = spawn(up.wait(), name=f"start of Ray ({self._name})")
        ended = spawn(child.wait(), name=f"end of Ray ({self._name})")
        try:
            await asyncio.wait([started, ended], timeout=_START, return_when="FIRST_COMPLETED")
        finally:
            unlisten()
            late = not ended.done()
            await cancel_and_wait(started, ended)
            if not up.is_set():
                await self.stop()
        if not up.is_set():
            what = (
                f" within {_START:g} s: has this machine too much to do? It wrote" if late else ""
            )
            raise CannotJoin(f"Ray doesn't start{what}: {self.last_words()}")

    async def wait(self) -> str:
        """Return when it has ended, with what it wrote last."""
        if self._child is not None:
            await self._child.wait()
        return self.last_words()

    async def stop(self) -> None:
        """End it, and all that it has started."""
        if self._child is None:
            return
        if self._at_once:
            self._child.kill()
        await self._child.stop(_END)
        # Ray's workers notice only after a while that they are alone.
        await asyncio.to_thread(self._records.reap_leftovers)

    def last_words(self) -> str:
        """Return the last line that tells something."""
        lines = [line.strip() for line in self._log.tail() if line.strip()]
        told = [line.partition(" -- ")[2] or line for line in lines]
        told = [line for line in told if not line.startswith("-----")]  # around the tails of logs
        wrong = [line for line in told if "rror:" in line or "exit code" in line]
        return (wrong or told or ["it wrote nothing"])[-1][:500]


@contextlib.contextmanager
def folder_of(data_dir: Path, role: str) -> Iterator[Path]:
    """Yield the folder for Ray's sockets and logs, which is emptied before and afterwards.

    ``role``: ``head``, or the name of a node. Raises :class:`CannotJoin` while another process has
    it. Blocks.
    """
    make_folder(data_dir / "cluster")
    with open_private(data_dir / f"cluster/{role}.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotJoin(
                f"{role} runs already on {data_dir}: `llm-gateway node leave` ends its service"
            ) from None
        name = hashlib.sha256(f"{data_dir} {role}".encode()).hexdigest()[:8]
        folder = next(
            (
                place
                for home in runtime_homes()
                if len(str(place := home / f"ray-{name}")) <= LONGEST_FOLDER
            ),
            None,
        )
        if folder is None:
            raise CannotJoin(
                "Ray needs a folder for its sockets with a shorter path: set XDG_RUNTIME_DIR"
            )
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


Say = Callable[[str], object]
