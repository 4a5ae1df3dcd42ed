"""Lists, in separate processes, what repositories of the hub have and what fits this machine."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

from gateway.backends.backend import Environment
from gateway.backends.job_process import job_process
from gateway.backends.nodes import NodeStatus
from gateway.backends.ram import RAM
from gateway.config.settings import Settings
from gateway.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    NotFound,
    Unavailable,
    Unprocessable,
)
from gateway.tasks import cancel_and_wait, spawn

#: Seconds for the hub to answer, the start of a process and a look at the GPUs included.
_PATIENCE: Final = 60.0
#: Seconds for which a listing is good, and how many are kept.
_GOOD: Final = 30.0
_KEPT: Final = 16
#: How many processes run at once, and how many questions may wait for one.
_AT_ONCE: Final = 2
_MOST: Final = 8
_MODULE: Final = "gateway.backends.hub_process"


_Room = tuple[int, int] | None
_Question = tuple[str, str | None, _Room]  # repository, revision, and for which machine


class HubListings:
    """Answers questions about repositories; the same question is asked once at a time."""

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self._settings = settings
        self._environment = environment
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._asked: dict[_Question, tuple[float, asyncio.Task[dict[str, Any]]]] = {}

    async def get(
        self, repository: str, revision: str | None, node: NodeStatus | None = None
    ) -> dict[str, Any]:
        """Return the offer, as ``llm-gateway pull REPO --json`` prints it; what fits ``node``,
        where that is to have it. Raises GatewayError.
        """
        self._forget()
        room = None if node is None else _room_of(node)
        key = (repository.lower(), revision, room)
        if key not in self._asked:
            if sum(not task.done() for _, task in self._asked.values()) >= _MOST:
                raise Unavailable("the hub is being asked much already: in a moment")
            asking = self._answer(repository, revision, room)
            task = spawn(asking, name=f"ask the hub for {repository}")
            task.add_done_callback(_looked_at)
            self._asked[key] = (time.monotonic() + _GOOD, task)
        answer = await asyncio.shield(self._asked[key][1])
        if "error" in answer:
            raise _error(answer["error"])
        offer: dict[str, Any] = answer["offer"]
        return offer

    async def close(self) -> None:
        """End the processes that run."""
        await cancel_and_wait(*(task for _, task in self._asked.values()))

    def _forget(self) -> None:
        """Drop answers that are too old, and all failures: the same may work the next time."""
        now = time.monotonic()
        over = [
            key
            for key, (until, task) in self._asked.items()
            if task.done() and (until < now or _failed(task))
        ]
        over += [key for key, (_, task) in self._asked.items() if task.done()][:-_KEPT]
        for key in over:
            self._asked.pop(key, None)

    async def _answer(self, repository: str, revision: str | None, room: _Room) -> dict[str, Any]:
        from gateway.backends.hub_process import HubQuestion, as_text  # few gateways ever need it

        settings = self._settings
        wanted = settings.scheduler.memory_budget
        question = HubQuestion(
            repository,
            revision,
            str(settings.llm_storage),
            str(settings.models_file),
            settings.llama_server,
            None if wanted == "auto" else wanted,
            room,
        )
        try:
            async with (
                self._room,
                asyncio.timeout(_PATIENCE),
                job_process(_MODULE, self._environment.for_children, as_text(question)) as process,
            ):
                assert process.stdout is not None
                answer: dict[str, Any] = json.loads(await process.stdout.read())
                return answer
        except TimeoutError:
            return _told(f"the hub has not answered within {_PATIENCE:g} s")
        except OSError as error:
            return _told(f"no process can be started to ask the hub: {error.strerror}")
        except ValueError:
            return _told("the process that asks the hub has ended without an answer")


def _room_of(node: NodeStatus) -> tuple[int, int]:
    """Return bytes for models where they run, and of RAM beside a GPU."""
    sizes = {str(one["name"]): int(one["for_models"]) for one in node.devices}
    ram = sizes.pop(RAM, 0)
    return (sum(sizes.values()), ram) if node.gpu else (ram, 0)


def _told(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "code": "hub_failed", "param": None, "status": 502}}


def _failed(task: asyncio.Task[dict[str, Any]]) -> bool:
    return task.cancelled() or task.exception() is not None or "error" in task.result()


def _looked_at(task: asyncio.Task[dict[str, Any]]) -> None:
    """Look at the error of a task, as whoever asked may have left."""
    if not task.cancelled():
        task.exception()


def _error(told: dict[str, Any]) -> GatewayError:
    from gateway.models.hub_client import HubFailed, NoHubClient

    kinds: dict[int, type[GatewayError]] = {
        400: BadRequest,
        403: Forbidden,
        404: NotFound,
        422: Unprocessable,
        501: NoHubClient,
    }
    kind = kinds.get(told["status"], HubFailed)
    return kind(told["message"], code=told["code"], param=told["param"])
