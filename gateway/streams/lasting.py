"""Answers that go on when their client's connection is lost, so that it can read on later.

The work on such an answer is done by a task of its own, which writes into a recording, and to the
client for as long as that is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.errors import GatewayError
from gateway.http.lifecycle import Lifecycle
from gateway.http.response import Answer
from gateway.streams.kept import KeptStreams
from gateway.streams.recorded import RecordedStart
from gateway.tasks import spawn


async def answer_lasting(
    kept: KeptStreams,
    lifecycle: Lifecycle,
    recorded: RecordedStart,
    work: Callable[[], Awaitable[Answer]],
) -> Answer:
    """Return what ``work`` does, which begins its answer by ``recorded``.

    A client that leaves before there is a stream ends it, as it could not come back.
    """

    async def run() -> Answer | GatewayError:
        try:
            return await work()
        except GatewayError as error:  # for the client, and no crash of this task
            return error
        finally:
            recorded.end()

    task = spawn(run(), name="answer a client that may come back")
    try:
        answered = await asyncio.shield(task)
    except asyncio.CancelledError:
        recording = recorded.recording
        if recording is None or recording.lost:
            task.cancel()
        elif not task.done():
            # The gateway waits for it when it ends, as for any other request.
            lifecycle.enter()
            task.add_done_callback(lambda _: lifecycle.leave())
            kept.leave_alone(recording, task.cancel)
        raise
    if isinstance(answered, GatewayError):
        raise answered
    return answered
