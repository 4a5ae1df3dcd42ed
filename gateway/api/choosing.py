"""Finds out which model, and which personality, a request means."""

from __future__ import annotations

from gateway.access.principal import Principal
from gateway.errors import BadRequest, ModelNotFound
from gateway.library import Library
from gateway.pipeline.request_context import RequestContext
from gateway.proxy.body import JsonObject
from gateway.proxy.resolve import Active, NothingChosen, Target
from gateway.scope import Scope


async def resolve(context: RequestContext, body: JsonObject, *, anew: bool = False) -> Target:
    """Do the same as :func:`choose`, but read models.json again for an unknown name."""
    try:
        return choose(context, body, anew=anew)
    except ModelNotFound:
        library = context.services.library
        await library.refresh()  # perhaps it was added a moment ago
        try:
            return choose(context, body, anew=anew)
        except ModelNotFound as error:
            if (note := library.note) is None:
                raise
            message = f"{error.message} ({note})"
            raise ModelNotFound(message, code=error.code, param=error.param) from None


def choose(context: RequestContext, body: JsonObject, *, anew: bool = False) -> Target:
    """Return the model and personality that ``body`` and the headers of the request mean.

    Without a name for the model: what the key, or an administrator, chose by ``/loadModel``, else
    the only model there is, else the only one that is loaded.

    ``anew``: without regard to what ``/loadModel`` chose before.

    Raises :class:`ModelNotFound`, also for what the key may not use: that there is such a model,
    or personality, is not for it to know.
    """
    choice = body.get("personality")
    if choice is None:
        choice = context.named
    elif not isinstance(choice, str):
        raise BadRequest("`personality` must be a text", param="personality")
    principal, library = context.principal, context.services.library
    requested, resolver = body.get("model"), library.resolver
    active = None if anew else chosen_by(principal, library)
    default = principal.default_personality
    models, personalities = principal.models, principal.personalities
    try:
        target = resolver.resolve(
            requested,
            choice=choice,
            active=active,
            default=default,
            models=models,
            personalities=personalities,
        )
    except NothingChosen:
        if anew or (only := _only_one(context)) is None:
            raise
        target = resolver.resolve(
            requested,
            choice=choice,
            active=Active(only),
            default=default,
            models=models,
            personalities=personalities,
        )
    context.model = target.name
    context.personality = target.personality
    return target


def chosen_by(principal: Principal, library: Library) -> Active | None:
    """Return what requests of ``principal`` mean that name no model.

    A choice that this key may not use (an administrator's for everybody, or its own from before
    its rights changed) is none: no request fails for a name that it didn't say, or learns it.
    Neither does one for the personality alone.
    """
    chosen = library.choices.of(principal.key_id, admin=principal.may(Scope.ADMIN))
    if chosen is None:
        return None
    if principal.models is not None and chosen.model not in principal.models:
        return None
    allowed = principal.personalities
    if allowed is not None and chosen.personality is not None and chosen.personality not in allowed:
        return Active(chosen.model)
    return chosen


def _only_one(context: RequestContext) -> str | None:
    """Return the only model that the key may use, or the only loaded one of them."""
    allowed, services = context.principal.models, context.services
    for names in (services.library.catalog.names, services.scheduler.loaded()):
        usable = [name for name in names if allowed is None or name in allowed]
        if len(usable) == 1:
            return usable[0]
    return None
