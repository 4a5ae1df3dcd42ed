"""The queue of requests that wait for models: a line for each model, with a common bound.

To join, to leave and to be sent away is done here; who is served, and when, is not decided here.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.backends.backend import State
from gateway.backends.lease import Lease
from gateway.backends.scheduled_model import ScheduledModel, Waiter
from gateway.errors import GatewayError, Unavailable


class WaitQueue:
    """A queue of at most ``size`` waiters. ``decide`` is called when somebody has come or left."""

    def __init__(self, size: int, decide: Callable[[], None]) -> None:
        self._size = size
        self._decide = decide
        #: The number of waiters in all lines.
        self.waiting = 0

    def check(self, model: ScheduledModel) -> None:
        """Raise if nobody may wait for ``model`` now."""
        backend = model.backend
        if backend.state is State.FAILED and backend.retry_at > time.monotonic():
            raise backend.failure()
        if self.waiting >= self._size:
            raise Unavailable(
                f"{self.waiting} requests are waiting already",
                code="queue_full",
                headers={"Retry-After": "5"},
            )

    async def lease(self, model: ScheduledModel, timeout: float) -> Lease:
        """Wait for a lease, for so many seconds. A cancelled waiter leaves the queue."""
        model.asked(time.monotonic())
        lease = await self._wait(model, model.queue, timeout)
        assert lease is not None
        return lease

    async def loaded(self, model: ScheduledModel, timeout: float | None, *, explicit: bool) -> None:
        """Wait until ``model`` is ready. ``explicit``: as an administrator wishes."""
        await self._wait(model, model.loaders, timeout, explicit=explicit)

    async def _wait(
        self,
        model: ScheduledModel,
        line: deque[Waiter],
        timeout: float | None,
        *,
        explicit: bool = False,
    ) -> Lease | None:
        future: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()
        waiter = Waiter(future, time.monotonic(), asyncio.current_task(), explicit)
        line.append(waiter)
        self.waiting += 1
        if not model.resident:
            model.looked_up = None  # its file may have changed since
        try:
            self._decide()
            async with asyncio.timeout(timeout):
                await asyncio.wait([future])
        except TimeoutError:
            if not future.done():
                raise _waited_too_long(model, timeout or 0.0) from None
        except BaseException:
            # The lease may have been granted in the very moment in which we gave up.
            if future.done() and future.exception() is None and (lease := future.result()):
                lease.release()
            raise
        finally:
            if waiter in line:
                line.remove(waiter)
                self.waiting -= 1
                self._decide()
        return future.result()

    def serve(self, model: ScheduledModel, lease: Lease) -> None:
        """Give ``lease`` to the first in line."""
        waiter = model.queue.popleft()
        self.waiting -= 1
        waiter.future.set_result(lease)

    def tell_loaded(self, model: ScheduledModel) -> None:
        """Tell those who only wanted it loaded that it is."""
        while model.loaders:
            self.waiting -= 1
            waiter = model.loaders.popleft()
            model.was_loaded(explicit=waiter.explicit)
            waiter.future.set_result(None)

    def refuse(self, model: ScheduledModel, error: GatewayError) -> None:
        """Send everyone away who waits for ``model``."""
        for line in (model.queue, model.loaders):
            while line:
                waiter = line.popleft()
                self.waiting -= 1
                waiter.future.set_exception(copy.copy(error))  # each raises one of its own
                waiter.future.exception()  # who waits raises it; one who just left must not


def place_in(model: ScheduledModel, task: asyncio.Task[Any]) -> int | None:
    """Return where the request of ``task`` stands in the queue of its model; 1 is next."""
    return next((place for place, w in enumerate(model.queue, 1) if w.task is task), None)


def _waited_too_long(model: ScheduledModel, timeout: float) -> Unavailable:
    return Unavailable(
        f"waited {timeout:g} s for {model.spec.name!r}, which is {model.backend.state} "
        f"with {model.in_flight} requests running",
        code="queue_timeout",
        headers={"Retry-After": "30"},
    )
