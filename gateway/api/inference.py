"""Routes with a JSON body: parsed once, resolved, shaped, given its personality, relayed."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

from multidict import istr

from gateway.api.choosing import choose, resolve
from gateway.api.conversation import (
    CACHE,
    has_several,
    heed,
    prefix_in,
    prefix_of,
    turn_aside,
    turn_of,
)
from gateway.errors import BackendError, BadRequest, GatewayError, ModelNotFound, Unable
from gateway.http.request import Request
from gateway.http.response import Answer, BufferedResponse, StartResponse
from gateway.pipeline.lasting import answer_lasting
from gateway.pipeline.metered import Metered
from gateway.pipeline.reading import no_json
from gateway.pipeline.request_context import RequestContext
from gateway.proxy.ability import GENERATION, sentence
from gateway.proxy.asking import Asked
from gateway.proxy.body import NotJson, serialise, with_responses
from gateway.proxy.call import Call
from gateway.proxy.failure import Failure
from gateway.proxy.numbering import Numbering
from gateway.proxy.personality import CHAT, COMPLETION, RESPONSES
from gateway.proxy.prompt_size import split_size
from gateway.proxy.relay import relay
from gateway.proxy.resolve import Target
from gateway.proxy.routes import RelayedRoute
from gateway.proxy.shaping import (
    OF_MEMORY,
    Plan,
    Rules,
    is_to_be_fitted,
    look,
    make,
    read,
    shaped,
)
from gateway.proxy.sse import Usage
from gateway.proxy.template import through_template
from gateway.proxy.unqueued import ask_unqueued, running, to_client
from gateway.streams.recorded import STREAM_ID, RecordedStart
from gateway.workers import WORKERS, is_small

JSON = b"Content-Type: application/json\r\n"
#: The header by which a client asks that its stream go on when its connection is lost.
RESUME: Final = istr("X-Stream-Resume")
#: What a client may call its stream.
_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_TRUTHS: Final = MappingProxyType({"true": True, "1": True, "false": False, "0": False})


class JsonRoute:
    """What answers the requests of a route whose model stands in its JSON body.

    A :data:`gateway.pipeline.request_context.CommonHandler`. What is chosen once, here, is not
    looked up for every request. A chat completion that is not streamed also has ``responses``, its
    text, which clients of the old system read.
    """

    def __init__(self, route: RelayedRoute) -> None:
        unqueued = route.unqueued
        self._route = route
        self._path = route.path
        self._format = route.format
        self._target = route.target
        self._dialect = route.dialect
        self._needs = route.needs
        self._rewrite = with_responses if route.format is CHAT and not unqueued else None
        self._numbered = route.format is RESPONSES and not unqueued
        self._forgets = self._numbered  # llama-server does
        self._send = answer_unqueued if unqueued else send
        self._takes_slot = not unqueued
        self._generates = route.streams and not unqueued

    async def __call__(self, request: Request, context: RequestContext) -> Answer:
        """Answer ``request``."""
        return await self.answer(request, context, await request.body())

    async def answer(self, request: Request, context: RequestContext, raw: bytes) -> Answer:
        """Answer ``request``, whose body is ``raw``."""
        try:
            call = await self.ready(request, context, raw, request.query.get("model"))
        except NotJson as error:
            raise no_json(request.headers, error) from None
        del raw  # not kept: a stream lives for minutes, and prompts are long
        return await self._send(request, context, call)

    async def ready(
        self, request: Request, context: RequestContext, raw: bytes, queried: str | None = None
    ) -> Call:
        """Return the call that the body ``raw`` becomes, with its place in a slot: see
        :meth:`prepare`.
        """
        prepare = self.prepare if is_small(raw) else self._prepare_aside
        call = await prepare(context, raw, queried)
        if (conversations := context.services.conversations) is not None:
            if call.turn is None and call.renamed is None and self._takes_slot:
                if self._generates:
                    call.turn = await turn_aside(conversations, context, call, self._format)
                else:
                    call.turn = conversations.stray(context.principal.key_id)
            if CACHE in request.headers:
                heed(request.headers, call.turn)
        return call

    async def prepare(
        self, context: RequestContext, raw: bytes, queried: str | None = None, *, tools: bool = True
    ) -> Call:
        """Return what the body ``raw`` of a client becomes: the call of a model, with its shape.

        ``queried``: the model that the query names. Without ``tools`` those of the personality
        are left out. Raises :class:`NotJson`, and :class:`gateway.errors.BadRequest` for what the
        model, or the gateway, doesn't take.
        """
        rules = self._rules(context)
        body, found, changed, long = read(raw, rules, queried)
        if long is not None:
            await context.services.bounds.measure(long)
        try:
            target = choose(context, body)
        except ModelNotFound:
            target = await resolve(context, body)
        if self._forgets and target.sent_as is None:
            refuse_memory(body)
        if target.sent_as is None and self._may_be_unable(context, target):
            await refuse_readers(context, target)
        if not tools:
            target = replace(target, tools=None)
        found, changed, stream, telling = shaped(
            body, found, changed, target, rules, context.principal.limits.max_tokens
        )
        sent = serialise(body) if changed else raw
        call = self._call(context, target, raw, sent, found, stream, telling)
        if self._generates:
            if has_several(target):
                call.prefix = prefix_of(context, body, self._format)
            elif target.sent_as is None and context.services.conversations is not None:
                conversations = context.services.conversations
                call.turn = turn_of(conversations, context, call, sent, body, self._format)
        return call

    async def _prepare_aside(
        self, context: RequestContext, raw: bytes, queried: str | None
    ) -> Call:
        """Return the same for a body that would keep others waiting if it were looked
        through here.
        """
        rules = self._rules(context)
        named, _ = await WORKERS.run(look, raw, rules, queried)
        target = await resolve(context, named)
        if self._forgets and target.sent_as is None:
            refuse_memory(named)
        if target.sent_as is None and self._may_be_unable(context, target):
            await refuse_readers(context, target)
        limits = context.principal.limits
        made, body = await WORKERS.run(make, raw, rules, Plan.of(target), limits.max_tokens)
        sent = raw if body is None else body
        call = self._call(context, target, raw, sent, made.found, made.stream, made.telling)
        if self._generates and has_several(target):
            call.prefix = await prefix_in(context, sent, self._format)
        return call

    def _rules(self, context: RequestContext) -> Rules:
        services, route = context.services, self._route
        rules = services.rules.get(self._path)
        if rules is None:
            rules = services.rules[self._path] = Rules(
                route.format,
                route.target,
                services.bounds,
                streams=route.streams,
                defaults=route.defaults,
                media=services.media,
                most=services.limits.request.values,
            )
        return rules

    def _may_be_unable(self, context: RequestContext, target: Target) -> bool:
        needs = self._needs
        if needs in target.lacks:
            raise Unable(target.lacks[needs], param="model")
        return needs is GENERATION and target.name not in context.services.library.resolver.writers

    def _call(
        self,
        context: RequestContext,
        target: Target,
        raw: bytes,
        sent: bytes,
        found: int,
        stream: bool,
        telling: Asked | None,
    ) -> Call:
        """Return the call of ``target`` with the body ``sent``, which ``raw`` has become."""
        call = Call(target.name, "POST", self._target, JSON, sent)
        # Not by name above: for a class that makes a dictionary of them first.
        call.stream = stream
        if telling is not None:
            telling.note(call)
        call.asked = raw
        format, prompt = self._format, target.prompt
        if prompt is not None and format is COMPLETION and target.asked:
            call.prepare = partial(through_template, raw=sent, prompt=prompt)
        elif found and _is_to_be_fitted(found, target):
            call.prepare = partial(context.services.templates.fitted, format=format, raw=sent)
        elif prompt is None or format.apply is None:
            call.asked = None  # its messages are those of `body`
        call.dialect = self._dialect
        call.rewrite = self._rewrite
        if target.sent_as is not None:
            call.renamed = target.name
        if self._numbered and stream:
            renames = target.sent_as is not None
            call.mender = Numbering(target.name, int(time.time()), renames=renames)
        return call


def refuse_memory(body: Mapping[str, object]) -> None:
    """Raise :class:`BadRequest` for what needs a memory, which no llama-server has."""
    for name in OF_MEMORY:
        if body.get(name):
            raise BadRequest(
                f"`{name}` needs responses that are kept: set `responses.store: true` in "
                "gateway.yaml, and restart",
                param=name,
            )


def _is_to_be_fitted(found: int, target: Target) -> bool:
    spec = target.spec
    return is_to_be_fitted(found, here=spec.ours, template=spec.names_template)


async def refuse_readers(context: RequestContext, target: Target) -> None:
    """Raise :class:`Unable` if the model can't write, by its file: without loading it."""
    services, spec = context.services, target.spec
    writers = services.library.resolver.writers
    # One that is up, and that nothing says has another task, can write, or it would have ended.
    plain = not (spec.embeddings or spec.reranking)
    if not plain or running(services.scheduler, target.name) is None:
        await services.headers.refresh([spec])
        if (facts := services.headers.of(spec)) is None:
            return  # not known yet, or there is no such file: which loading it will tell
        if facts.reads_only:
            raise Unable(sentence(GENERATION, target.name), param="model")
    writers.add(target.name)


async def answer_unqueued(
    request: Request, context: RequestContext, call: Call, *, load: bool = True
) -> BufferedResponse:
    """Answer ``call`` without waiting for a slot, and note what became of it."""
    with (
        metered_call(request, context, call) as metered,
        context.services.standing.watching(context),
    ):
        fetched = await ask_unqueued(context.services.scheduler, call, load=load, outcome=metered)
        metered.status = fetched.status
        if call.method != "GET":
            asked = len(call.body) if isinstance(call.body, bytes) else 0
            metered.usage = Usage(split_size(asked, len(fetched.body)))
    return await to_client(context.services.scheduler, call, fetched)


async def send(
    request: Request, context: RequestContext, call: Call, outcome: Metered | None = None
) -> Answer:
    """Relay ``call``, and note what became of it, in ``outcome`` if there is one already. Streams
    are kept for those who read them again.

    Raises :class:`gateway.errors.BadRequest` for a header ``X-Stream-Resume`` or ``X-Stream-Id``
    that says nothing, and :class:`gateway.errors.Conflict` for the id of another stream.
    """
    kept = context.services.streams
    if kept is None or call.stream is False:
        return await relayed(request.start_response, request, context, call, outcome)
    recorded = RecordedStart(
        kept,
        context.principal.key_id,
        request.start_response,
        call.dialect.ending,
        id=stream_id(request.headers) if call.stream is True else None,
        lasts=call.stream is True and lasts(request.headers),
        kind=call.dialect.stream,
    )
    if recorded.lasts:
        work = partial(relayed, recorded, request, call=call, outcome=outcome)
        return await answer_lasting(kept, recorded, context, work)
    try:
        return await relayed(recorded, request, context, call, outcome)
    finally:
        recorded.end()


def lasts(headers: Mapping[str, str]) -> bool:
    """Return whether a client asks that its stream go on when its connection is lost.

    Raises :class:`gateway.errors.BadRequest` for a header that says nothing.
    """
    if RESUME not in headers:
        return False
    asked = headers[RESUME].strip().lower()
    if asked not in _TRUTHS:
        raise BadRequest(f"`{RESUME}` must be `true` or `false`", param=RESUME)
    return _TRUTHS[asked]


def stream_id(headers: Mapping[str, str]) -> str | None:
    """Return the id that a client has chosen for its stream.

    Raises :class:`gateway.errors.BadRequest` for one that can't be an id.
    """
    id = headers.get(STREAM_ID)
    if id is not None and not _ID.fullmatch(id):
        raise BadRequest(
            f"`{STREAM_ID}` must be 16 to 64 letters (a to z, A to Z), digits, `_` or `-`",
            param=STREAM_ID,
        )
    return id


async def relayed(
    start_response: StartResponse,
    request: Request,
    context: RequestContext,
    call: Call,
    outcome: Metered | None,
) -> Answer:
    """Send ``call``, and its answer by ``start_response``; note what became of it, in ``outcome``
    if there is one already.
    """
    services = context.services
    call.heartbeat = services.limits.heartbeat
    if outcome is None:
        outcome = metered_call(request, context, call)
    outcome.ending = ending = services.standing.begin(context)
    recorded = start_response if isinstance(start_response, RecordedStart) else None
    if recorded is not None:
        recorded.work_begins(ending.end)
    try:
        with outcome:
            response = await relay(start_response, services.scheduler, call, outcome)
            outcome.status = response.status
        if recorded is not None and isinstance(response, BufferedResponse):
            recorded.refuse(_refusal(call, response))
        return response
    except GatewayError as refusal:
        if recorded is not None:
            recorded.refuse(context.tell(refusal))
        raise
    finally:
        services.standing.done(ending)
        if (error := outcome.error) is not None and error.status >= 500:
            services.errors.add(
                error.message, code=error.code, model=call.model, request_id=context.id
            )


def _refusal(call: Call, response: BufferedResponse) -> GatewayError:
    """Return why there is no stream, for who comes back to it."""
    if response.status < 400:
        return BackendError(f"{call.model} did not answer with a stream")
    return Failure.read(response.status, response.body).as_error()


def metered_call(request: Request, context: RequestContext, call: Call) -> Metered:
    """Return what counts ``call``, which is sent for ``request``."""
    client = context.services.proxies.client(request)
    return Metered(context, call.target, call.method, client, streamed=call.stream is True)
