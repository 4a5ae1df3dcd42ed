"""Answers that go on when their client's connection is lost, so that it can read on later.

The work on such an answer is done by a task of its own, which writes into a recording, and to the
client for as long as that is there.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable

from gateway.errors import CLIENT_GONE, GatewayError
from gateway.http.response import Answer
from gateway.pipeline.request_context import RequestContext
from gateway.streams.kept import KeptStreams
from gateway.streams.recorded import RecordedStart
from gateway.tasks import spawn


async def answer_lasting(
    kept: KeptStreams,
    recorded: RecordedStart,
    context: RequestContext,
    work: Callable[[RequestContext], Awaitable[Answer]],
) -> Answer:
    """Return what ``work`` does, which begins its answer by ``recorded``.

    A client that leaves before it can know the name of its stream ends it, as it could not come
    back.
    """
    own = copy.copy(context)

    async def run() -> Answer | GatewayError:
        try:
            return await work(own)
        except GatewayError as error:  # for the client, and no crash of this task
            return error
        finally:
            recorded.end()

    task = spawn(run(), name="answer a client that may come back")
    try:
        answered = await asyncio.shield(task)
    except asyncio.CancelledError:
        recording = recorded.recording
        if recording is None or not recorded.goes_on:
            task.cancel()
        elif not task.done():
            recorded.client_left()
            # It takes its place among its key's requests, and in memory, as before, and the gateway
            # waits for it when it ends.
            context.hand_over()
            lifecycle = context.services.lifecycle
            lifecycle.enter()

            def ended(task: asyncio.Task[Answer | GatewayError]) -> None:
                lifecycle.leave()
                own.release(CLIENT_GONE if task.cancelled() else task.result().status)

            task.add_done_callback(ended)
            kept.leave_alone(recording, task.cancel)
        raise
    if isinstance(answered, GatewayError):
        raise answered
    return answered
