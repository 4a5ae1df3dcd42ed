"""OpenAI's Responses with a memory: those of a model that are kept, and gone on with.

llama-server keeps none. Here each is kept for its key, unless it says ``"store": false``.
"""

from __future__ import annotations

import asyncio
import copy
import time
from functools import partial
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.api.inference import JsonRoute, lasts, metered_call, relayed, stream_id
from gateway.api.paging import Page
from gateway.api.relayed import JSON_ROUTES
from gateway.api.streams import read_again
from gateway.errors import BackendError, BadRequest, GatewayError, NotFound
from gateway.http.request import Request
from gateway.http.response import Answer, BufferedResponse, StartedResponse, StartResponse
from gateway.pipeline.lasting import answer_lasting
from gateway.pipeline.reading import adapted, no_json
from gateway.pipeline.request_context import CONTEXT, CommonHandler, RequestContext
from gateway.pipeline.route import Routes, Row
from gateway.proxy.body import NotJson, serialise
from gateway.proxy.call import Call
from gateway.proxy.headers import STREAM_HEADERS
from gateway.proxy.numbering import Numbering
from gateway.quantities import whole_number
from gateway.responses.asked import JsonObject
from gateway.responses.kept import KeptResponses
from gateway.responses.packing import too_long
from gateway.responses.taken import Taken, sent_on, take
from gateway.responses.work import Work, new_id
from gateway.scope import Scope
from gateway.streams.kinds import EVENTS
from gateway.streams.nobody import to_nobody
from gateway.streams.recorded import RecordedStart
from gateway.streams.recording import EndWork
from gateway.tasks import spawn
from gateway.workers import SMALL, WORKERS

_UNDER_WAY: Final = ("queued", "in_progress")
_KEPT_PATHS: Final = ("/v1/responses", "/responses")


def json_routes(kept: KeptResponses | None) -> dict[str, CommonHandler]:
    """Return what answers the POST routes with the model in a JSON body, by path.

    ``kept`` keeps responses, if they are kept.
    """
    found: dict[str, CommonHandler] = {**JSON_ROUTES}
    if kept is not None:
        for path in _KEPT_PATHS:
            found[path] = RememberingRoute(JSON_ROUTES[path], kept)
    return found


class RememberingRoute:
    """What answers requests for a response, and keeps it. ``route``: what asks the model."""

    def __init__(self, route: JsonRoute, kept: KeptResponses) -> None:
        self._route = route
        self._kept = kept

    async def __call__(self, request: Request, context: RequestContext) -> Answer:
        """Answer ``request``."""
        raw = await request.body()
        most, limit = context.services.limits.request.values, context.services.limits.max_body
        id = new_id()
        try:
            taken: Taken
            taken, own = await WORKERS.run(take, raw, most, id)
        except NotJson as error:
            raise no_json(request.headers, error) from None
        asked = taken.asked
        if not asked.remembers:
            return await self._route.answer(request, context, raw)
        key_id = context.principal.key_id
        before = await self._kept.before(asked, key_id, limit)
        work = Work(key_id, taken, own or b"", id)
        pieces = sent_on(taken, before, work.items)
        # What came before may be pictures of megabytes.
        aside = sum(map(len, pieces)) > SMALL
        sent = await WORKERS.joined(pieces) if aside else b"".join(pieces)
        if len(sent) > limit and before:
            raise too_long()
        try:
            call = await self._route.ready(request, context, sent, request.query.get("model"))
        except NotJson as error:  # all of it together is more than one request may have
            raise no_json(request.headers, error) from None
        del raw, own, sent, pieces, before, taken
        work.response["model"] = call.model
        if call.stream:
            renames = call.renamed is not None
            created = int(time.time())
            call.mender = Numbering(
                call.model, created, renames=renames, id=work.id, note=work.note
            )
        else:
            call.rewrite = work.rewritten
        if asked.background:
            return await self._in_background(request, context, call, work)
        recorded = _Start(
            self._kept, work, request.start_response, call, request, lasts=lasts(request.headers)
        )
        self._kept.begin(work)
        answer = partial(self._answered, recorded, request, call=call, work=work)
        if recorded.lasts:
            return await answer_lasting(self._kept.streams, recorded, context, answer)
        return await answer(context)

    async def _answered(
        self,
        recorded: _Start,
        request: Request,
        context: RequestContext,
        call: Call,
        work: Work,
    ) -> Answer:
        refused = False
        try:
            return await relayed(recorded, request, context, call, None)
        except GatewayError as error:
            refused = not work.begun  # its client is told so, and has no id of it
            work.fail(error)
            raise
        finally:
            recorded.end()
            self._kept.finish(work, discard=refused or not work.begun)

    async def _in_background(
        self, request: Request, context: RequestContext, call: Call, work: Work
    ) -> Answer:
        """Begin the work, and answer at once: with the response as it is, or its stream."""
        # What its key is charged, and the places that it takes, end with the work.
        recorded = _Start(self._kept, work, to_nobody, call, request, lasts=True)
        own = copy.copy(context)
        context.hand_over()
        lifecycle = context.services.lifecycle
        outcome = metered_call(request, own, call)
        work.was_sent = lambda: outcome.sent is not None
        announced = spawn(self._kept.announce(work), name="note a response in the background")

        async def run() -> None:
            status = 500
            try:
                await asyncio.shield(announced)
                status = (await relayed(recorded, request, own, call, outcome)).status
            except GatewayError as error:
                status = error.status
                work.fail(own.tell(error))
            finally:
                if not work.complete:
                    work.fail(_untold(call))
                recorded.end()
                self._kept.finish(work)
                lifecycle.leave()
                own.release(status)

        self._kept.begin(work)
        lifecycle.enter()
        self._kept.in_background(spawn(run(), name="answer in the background"))
        if call.stream is not True:
            await asyncio.shield(announced)
            return _json(work.response)
        await work.started.wait()
        if work.recording is None:
            raise work.error or _untold(call)
        streams = self._kept.streams
        return await read_again(request, context, streams, work.recording, 0, at_once=False)


class ResponseHandlers:
    """Reads, ends and deletes responses. ``kept`` is ``None`` where none are kept."""

    def __init__(self, kept: KeptResponses | None) -> None:
        self._kept_or_none = kept

    def routes(self) -> Routes:
        """Return the rows of its routes."""
        one = "/v1/responses/{response_id}"
        yield Row("GET", one, self.read, Scope.CHAT, counts=False)
        yield Row("DELETE", one, self.delete, Scope.CHAT, counts=False)
        yield Row("POST", f"{one}/cancel", self.cancel, Scope.CHAT, counts=False)
        yield Row("GET", f"{one}/input_items", self.inputs, Scope.CHAT, counts=False)

    @property
    def _kept(self) -> KeptResponses:
        if self._kept_or_none is None:
            raise NotFound(
                "no responses are kept here (`responses.store`)", code="response_not_found"
            )
        return self._kept_or_none

    async def read(self, request: web.Request) -> Answer:
        """GET /v1/responses/ID: a response as it is now.

        With ``?stream=true`` the events of one that was asked for as a stream, and those to come;
        with ``starting_after=N`` those behind the ``sequence_number`` N.
        """
        key_id, streams = request[CONTEXT].principal.key_id, _is_true(request, "stream")
        after = _after(request) if streams else 0
        found = await self._kept.find(request.match_info["response_id"], key_id)
        if not streams:
            return _json(found.response)
        if found.work is not None and (recording := found.work.recording) is not None:
            if not recording.lost:
                kept = self._kept.streams
                # Work in the background has its place among its key's requests.
                at_once = not found.work.asked.background or found.work.over
                again = (*adapted(request), kept, recording, after)
                return await read_again(*again, at_once=at_once)
        elif found.events is not None:
            headers = (("Content-Type", EVENTS), *STREAM_HEADERS)
            return BufferedResponse(200, headers, events_behind(found.events, after))
        raise BadRequest(
            "its events are not kept: only those of a response that was asked for as a stream are",
            param="stream",
        )

    async def inputs(self, request: web.Request) -> Answer:
        """GET /v1/responses/ID/input_items: what a response was asked with, as a page.

        ``order`` is ``desc`` by default, ``limit`` 1 to 100, ``after`` the id of an item.
        """
        key_id = request[CONTEXT].principal.key_id
        page = Page.of(request)
        found = await self._kept.find(request.match_info["response_id"], key_id)
        limit = request[CONTEXT].services.limits.max_body
        return _json(page.cut(await self._kept.inputs(found, key_id, limit)))

    async def cancel(self, request: web.Request) -> Answer:
        """POST /v1/responses/ID/cancel: end the work on a response in the background."""
        key_id = request[CONTEXT].principal.key_id
        found = await self._kept.find(request.match_info["response_id"], key_id)
        if not found.response["background"]:
            raise BadRequest("only a response that is made in the background can be cancelled")
        if found.work is not None and not found.work.over:
            found.work.cancel()
            await found.work.ending.wait()
            return _json(found.work.response)
        if found.response["status"] in _UNDER_WAY:
            raise BadRequest(
                "another gateway works on this response, and only that one can cancel it",
                code="response_elsewhere",
            )
        return _json(found.response)

    async def delete(self, request: web.Request) -> Answer:
        """DELETE /v1/responses/ID: forget a response, and end the work on it."""
        id = request.match_info["response_id"]
        await self._kept.delete(id, request[CONTEXT].principal.key_id)
        return _json({"id": id, "object": "response", "deleted": True})


def events_behind(events: bytes, after: int) -> bytes:
    """Return those of the ``events`` of a whole stream that are behind the number ``after``,
    counted from 1.
    """
    blocks = [block for block in events.split(b"\n\n") if block]
    told = [block for block in blocks if block.startswith((b"data", b"event"))]
    return b"".join(b"%b\n\n" % block for block in told[after:])


def _after(request: web.Request) -> int:
    """Return how many events the client has seen: their numbers begin with 0."""
    said = request.query.get("starting_after")
    if said is None:
        return 0
    number = whole_number(said)
    if number is None:
        raise BadRequest("`starting_after` must be a sequence number", param="starting_after")
    return number + 1


def _is_true(request: web.Request, name: str) -> bool:
    said = request.query.get(name, "false").lower()
    if said not in ("true", "false", "1", "0"):
        raise BadRequest(f"`{name}` must be true or false", param=name)
    return said in ("true", "1")


def _json(value: JsonObject) -> BufferedResponse:
    return BufferedResponse(200, (("Content-Type", "application/json"),), serialise(value))


def _untold(call: Call) -> GatewayError:
    return BackendError(f"{call.model} did not answer with a response that can be kept")


class _Start(RecordedStart):
    """Begins the answer that is the response of ``work``, and records it."""

    __slots__ = ("_work",)

    def __init__(
        self,
        kept: KeptResponses,
        work: Work,
        start_response: StartResponse,
        call: Call,
        request: Request,
        *,
        lasts: bool,
    ) -> None:
        self._work = work
        super().__init__(
            kept.streams,
            work.key_id,
            start_response,
            call.dialect.last_event,
            id=stream_id(request.headers) if call.stream is True else None,
            lasts=call.stream is True and lasts,
        )

    @property
    def end_work(self) -> EndWork | None:
        """Ends the work on the answer with an error."""
        return self._work.end_work

    @end_work.setter
    def end_work(self, value: EndWork | None) -> None:
        self._work.end_work = value

    async def __call__(
        self, status: int, headers: CIMultiDict[str], length: int | None
    ) -> StartedResponse:
        """Send the head of a streamed answer."""
        started = await super().__call__(status, headers, length)
        self._work.recording = self.recording
        self._work.started.set()
        return started
