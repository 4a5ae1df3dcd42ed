"""What is wrong with a node that doesn't keep it from being one: its programs, its folders."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.backends.command import find_program
from gateway.backends.gpu_drivers import driver_here
from gateway.backends.program_version import program_version
from gateway.cluster.rpc_program import Rpc, rpc_of
from gateway.errors import LoadFailed
from gateway.tasks import spawn

#: Seconds for a folder to answer, which may be on another machine's disk.
_ANSWER: Final = 5.0


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a node. ``llama_server``: its version, or ``no_llama_server`` says why there
    is none that starts. ``storage``: why its models can't be read. ``driver``: that of a GPU there.
    """

    llama_server: str | None = None
    no_llama_server: str | None = None
    storage: str | None = None
    driver: str | None = None


class Examiner:
    """Looks at a node with these settings."""

    def __init__(self, llama_server: str, llm_storage: Path) -> None:
        self._llama_server = llama_server
        self._storage = llm_storage
        self._looking: asyncio.Task[str | None] | None = None

    async def look(self, environ: Mapping[str, str]) -> tuple[Rpc, Condition]:
        """Return what is so now. ``environ``: of llama-servers."""
        rpc, version, problem = await asyncio.to_thread(self._of_program, environ)
        storage = await self._storage_problem()
        return rpc, Condition(version, problem, storage, driver_here())

    def _of_program(self, environ: Mapping[str, str]) -> tuple[Rpc, str | None, str | None]:
        try:
            program = find_program(self._llama_server, os.environ)
        except LoadFailed as error:
            return rpc_of((), environ), None, error.detail or error.message
        version = program_version(program, environ)
        problem = None if version.starts else f"{program[0]} {version.problem}"
        return rpc_of(program, environ), version.text, problem

    async def _storage_problem(self) -> str | None:
        """Return why the folder of models can't be read; one that isn't there is made when a model
        comes. A drive that hangs is asked once.
        """
        if self._looking is None or self._looking.done():
            read = asyncio.to_thread(_why_unreadable, self._storage)
            self._looking = spawn(read, name="look at the folder of models")
        await asyncio.wait([self._looking], timeout=_ANSWER)
        if not self._looking.done():
            return f"{self._storage} doesn't answer: its drive, or the network, hangs"
        return self._looking.result()


def _why_unreadable(folder: Path) -> str | None:
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder} can't be read: {error.strerror}"
    return None
