"""Which request a line of llama-server's log is about.

llama-server knows no request ids. Its lines name a slot and a task, whose number it gives: ``slot
launch_slot_: id  0 | task 12 | processing task``. When such a line comes, the gateway knows which
request it has sent to that slot, and from then on what is said about that task is about that
request. What can't be told for sure, isn't told.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from gateway import logs
from gateway.backends.flights import Flights
from gateway.bounded_cache import BoundedCache

_log = logging.getLogger(__name__)

#: In the lines of llama-server that are about a task.
_ABOUT: Final = "| task "
#: In that of its beginning, and what that tells. The one of another answer to the same prompt is a
#: child, of which it isn't told whose.
_BEGUN: Final = "launch_slot_"
_LAUNCHED: Final = re.compile(r"launch_slot_: id +(\d+) \| task (\d+) \| ")
_CHILD: Final = "is_child = 1"
#: The tasks that are remembered, of which the last line may be still to come.
_KEPT: Final = 1024
#: The requests whose tasks are: records are written when two thousand of them wait.
_NOTED: Final = 4096
#: The id of a request -> its slot, and its last task there.
Tasks = BoundedCache[str, tuple[int, int]]


def no_tasks() -> Tasks:
    """Return a place for the tasks of the last requests, all that may wait to be recorded."""
    return BoundedCache(_NOTED)


class LogRequests:
    """The requests of one run of llama-server for ``model``, which are among ``flights``.

    Their tasks are noted in ``tasks``, too.
    """

    def __init__(self, model: str, flights: Flights, tasks: Tasks) -> None:
        self._model = model
        self._flights = flights
        self._tasks = tasks
        self._of: dict[str, str] = {}  # task -> id of its request

    def mark(self, line: str) -> str:
        """Return ``line`` with the id of the request that it is about, if that is known."""
        at = line.find(_ABOUT)
        if at < 0:
            return line
        if _BEGUN in line and (found := _LAUNCHED.search(line)) and _CHILD not in line:
            self._launched(int(found[1]), found[2])
        at += len(_ABOUT)
        request = self._of.get(line[at : line.find(" ", at)])
        return f"{line} | request {request}" if request is not None else line

    def _launched(self, slot: int, task: str) -> None:
        flight = self._flights.launched_in(slot)
        if flight is None or not flight.request:
            return
        while len(self._of) >= _KEPT:
            del self._of[next(iter(self._of))]
        self._of[task] = request = flight.request
        self._tasks[request] = slot, int(task)
        # Text for people would be twice as long with it.
        level = logging.DEBUG if logs.request_ids is None else logging.INFO
        if _log.isEnabledFor(level):
            fields = {"model": self._model, "slot": slot, "task": int(task)}
            _log.log(
                level,
                "model %s: task %s in slot %d is request %s",
                *(self._model, task, slot, request),
                extra={"request_id": request, "fields": fields},
            )
