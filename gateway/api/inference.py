"""Routes with a JSON body: parsed once, resolved, shaped, given its personality, relayed."""

from __future__ import annotations

import time
from functools import partial

from gateway.api.metered import Metered
from gateway.api.principal import Principal
from gateway.api.reading import no_json, whole_body
from gateway.api.request import AnyHandler, FrontRequest, Request, opener, visit_of
from gateway.api.visit import VISIT, Visit
from gateway.errors import BadRequest, Forbidden, ModelNotFound, Unable
from gateway.library import Library
from gateway.proxy.ability import GENERATION, sentence
from gateway.proxy.beside import ask_beside, running, to_client
from gateway.proxy.body import JsonObject, parse_object, serialise, shape, with_responses
from gateway.proxy.call import Call
from gateway.proxy.lenience import drop_nulls
from gateway.proxy.numbering import Numbering
from gateway.proxy.outgoing import Answer, Whole
from gateway.proxy.personality import CHAT, COMPLETION, DEVELOPER, MANY_SYSTEMS, RESPONSES
from gateway.proxy.relay import relay
from gateway.proxy.resolve import Active, NothingChosen, Target
from gateway.proxy.routes import Route
from gateway.proxy.suit import suit
from gateway.proxy.template import through_template

JSON = b"Content-Type: application/json\r\n"
#: OpenAI's name, and llama-server's, for how many answers are wanted to each prompt.
_COUNTS = ("n", "n_cmpl")


def json_handler(route: Route) -> AnyHandler:
    """The handler of a route whose model stands in its JSON body.

    What is chosen once, here, is not looked up for every request. A chat completion that is not
    streamed also has ``responses``, its text, which clients of the old system read.
    """
    format, beside, needs = route.format, route.beside, route.needs
    check, apply, nulls = format.check, format.apply, format.nulls
    dialect, upstream, streams = route.dialect, route.target, route.streams
    rewrite = with_responses if format is CHAT and not beside else None
    numbered = format is RESPONSES and not beside

    async def handle(request: Request) -> Answer:
        if isinstance(request, FrontRequest):
            visit: Visit = request
            raw = request.take_body()
        else:
            visit = request[VISIT]
            raw = await whole_body(request)
        try:
            body = parse_object(raw)
        except BadRequest as error:
            raise no_json(request.headers, error) from None
        # `find`, not `in`: see gateway.proxy.body.
        changed = raw.find(b"null") >= 0 and drop_nulls(body, nulls)
        allowed = visit.parts.media
        found = check(body, allowed)
        try:
            target = choose(visit, body)
        except ModelNotFound:
            target = await resolve(visit, body)
        if body.pop("personality", None) is not None:
            changed = True
        if target.set_params or target.strip_params:
            shape(body, target.strip_params, target.set_params)
            found = check(body, allowed)
            changed = True
        if (name := target.sent_as) is not None:
            body["model"] = name
            changed = True
        else:
            if needs in target.lacks:
                raise Unable(target.lacks[needs], param="model")
            if needs is GENERATION and target.name not in visit.parts.library.resolver.writers:
                await refuse_readers(visit, target)
            if found or "tools" in body or "tool_choice" in body:
                changed |= suit(format, body, found, target)
        if route.defaults:
            for key, value in target.defaults.items():
                if key not in body:
                    body[key] = value
                    changed = True
        if target.prompt is not None:
            if apply is not None:
                apply(body, target.prompt)
                changed = True
            elif format is COMPLETION and target.asked:
                call = Call(target.name, "POST", upstream, JSON, b"", dialect=dialect)
                call.stream = streams and body.get("stream") is True
                if name is not None:
                    call.renamed = target.name
                call.prepare = partial(through_template, body=body, prompt=target.prompt)
                _several(call, body)
                return await send(request, call)
        call = Call(target.name, "POST", upstream, JSON, serialise(body) if changed else raw)
        # Not by name above: for a class that makes a dictionary of them first.
        call.stream = streams and body.get("stream") is True
        if found & (MANY_SYSTEMS | DEVELOPER) and _to_be_fitted(found, target):
            call.prepare = partial(visit.parts.templates.fitted, format=format, body=body)
            call.asked = raw
        elif target.prompt is not None:
            call.asked = raw
        call.dialect = dialect
        call.rewrite = rewrite
        if name is not None:
            call.renamed = target.name
        if numbered and call.stream:
            call.mender = Numbering(target.name, int(time.time()), renames=name is not None)
        if format is COMPLETION or "n" in body or "n_cmpl" in body:
            _several(call, body)
        raw, body = b"", {}  # not kept: a stream lives for minutes, and prompts are long
        return await (answer_beside(request, call) if beside else send(request, call))

    return handle


def _several(call: Call, body: JsonObject) -> None:
    """Note whether ``body`` asks for several answers, as llama-server has it."""
    prompt = body.get("prompt")
    call.many_prompts = isinstance(prompt, list) and not all(type(p) is int for p in prompt)
    call.several = call.many_prompts or any(body.get(name) not in (None, 1) for name in _COUNTS)


def _to_be_fitted(found: int, target: Target) -> bool:
    """Whether the body's system messages may not be as the model's chat template takes them."""
    return not target.spec.url and bool(found & MANY_SYSTEMS or target.spec.template)


async def refuse_readers(visit: Visit, target: Target) -> None:
    """Raise :class:`Unable` if the model can't write, by its file: without loading it."""
    parts, spec = visit.parts, target.spec
    writers = parts.library.resolver.writers
    # One that is up, and that nothing says has another task, can write, or it would have ended.
    plain = not (spec.embeddings or spec.reranking)
    if not plain or running(parts.scheduler, target.name) is None:
        await parts.headers.refresh([spec])
        if (facts := parts.headers.of(spec)) is None:
            return  # not known yet, or there is no such file: which loading it will tell
        if facts.reads_only:
            raise Unable(sentence(GENERATION, target.name), param="model")
    writers.add(target.name)


async def answer_beside(request: Request, call: Call, *, load: bool = True) -> Whole:
    """Answer ``call`` without waiting for a slot, as far as the key's limits allow."""
    visit = visit_of(request)
    with Metered(visit) as metered:
        fetched = await ask_beside(visit.parts.scheduler, call, load=load)
        metered.status = fetched.status
    return to_client(visit.parts.scheduler, call, fetched)


async def send(request: Request, call: Call) -> Answer:
    """Relay ``call`` as far as the key's limits allow, and note what became of it."""
    visit = visit_of(request)
    parts = visit.parts
    call.heartbeat = parts.heartbeat
    outcome = Metered(visit)
    try:
        with outcome:
            response = await relay(opener(request), parts.scheduler, call, outcome)
            outcome.status = response.status
            return response
    finally:
        if (error := outcome.error) is not None and error.status >= 500:
            parts.errors.add(error.message, code=error.code, model=call.model, request_id=visit.id)


async def resolve(visit: Visit, body: JsonObject, *, anew: bool = False) -> Target:
    """See :func:`choose`; what isn't there is looked for in models.json again."""
    try:
        return choose(visit, body, anew=anew)
    except ModelNotFound:
        library = visit.parts.library
        await library.refresh()  # perhaps it was added a moment ago
        try:
            return choose(visit, body, anew=anew)
        except ModelNotFound as error:
            if (note := library.note) is None:
                raise
            message = f"{error.message} ({note})"
            raise ModelNotFound(message, code=error.code, param=error.param) from None


def choose(visit: Visit, body: JsonObject, *, anew: bool = False) -> Target:
    """The model and personality that ``body`` and the headers of the request mean.

    Without a name for the model: what the key, or an administrator, chose by ``/loadModel``, else
    the only model there is, else the only one that is loaded.

    ``anew``: without regard to what ``/loadModel`` chose before.

    Raises :class:`ModelNotFound`; :class:`Forbidden` where the key may not use the model.
    """
    choice = body.get("personality")
    if choice is None:
        choice = visit.named
    elif not isinstance(choice, str):
        raise BadRequest("`personality` must be a text", param="personality")
    principal, library = visit.principal, visit.parts.library
    requested, resolver = body.get("model"), library.resolver
    active = None if anew else chosen_by(principal, library)
    default = principal.default_personality
    try:
        target = resolver.resolve(
            requested,
            choice=choice,
            active=active,
            default=default,
            models=principal.models,
            personalities=principal.personalities,
        )
    except NothingChosen:
        if anew or (only := _only_one(visit)) is None:
            raise
        target = resolver.resolve(requested, choice=choice, active=Active(only), default=default)
    if principal.models is not None and target.name not in principal.models:
        raise Forbidden(f"this key may not use the model {target.name!r}")
    if (
        principal.personalities is not None
        and target.personality is not None
        and target.personality not in principal.personalities
    ):
        raise Forbidden(f"this key may not use the personality {target.personality!r}")
    visit.model = target.name
    visit.personality = target.personality
    return target


def chosen_by(principal: Principal, library: Library) -> Active | None:
    """What requests of ``principal`` mean that name no model.

    A choice that this key may not use (an administrator's for everybody, or its own from before
    its rights changed) is none: no request fails for a name that it didn't say, or learns it.
    Neither does one for the personality alone.
    """
    chosen = library.choices.of(principal.key_id, admin=principal.admin)
    if chosen is None:
        return None
    if principal.models is not None and chosen.model not in principal.models:
        return None
    allowed = principal.personalities
    if allowed is not None and chosen.personality is not None and chosen.personality not in allowed:
        return Active(chosen.model)
    return chosen


def _only_one(visit: Visit) -> str | None:
    """The only model there is, or the only one loaded, of those that the key may use."""
    allowed, parts = visit.principal.models, visit.parts
    for names in (parts.library.catalog.names, parts.scheduler.loaded()):
        usable = [name for name in names if allowed is None or name in allowed]
        if len(usable) == 1:
            return usable[0]
    return None
