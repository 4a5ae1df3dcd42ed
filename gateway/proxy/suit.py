"""A body that a model of our own can take, or what keeps it from it: before one is loaded. Pure."""

from __future__ import annotations

from gateway.errors import Unable
from gateway.proxy.ability import MEDIA, TOOLS
from gateway.proxy.blame import media_in
from gateway.proxy.body import JsonObject
from gateway.proxy.personality import WITH_CALLS, WITH_MEDIA, MessageFormat
from gateway.proxy.resolve import Target


def suit(format: MessageFormat, body: JsonObject, found: int, target: Target) -> bool:
    """Fill in what llama-server misses in ``body``, in which ``check`` has ``found`` something.

    Returns whether anything was. Raises :class:`Unable` for what the model can't do by its entry
    in models.json, and :class:`gateway.errors.BadRequest` for tools that are none.
    """
    lacks, tools = target.lacks, body.get("tools")
    if tools and TOOLS in lacks and format.settle is not None:
        raise Unable(lacks[TOOLS], param="tools")
    if found & WITH_MEDIA and MEDIA in lacks:
        place = media_in(body)
        param = place[0] if place is not None else None
        raise Unable(f"`{param}`: {lacks[MEDIA]}" if param else lacks[MEDIA], param=param)
    if format.settle is not None and (tools is not None or found & WITH_CALLS):
        return format.settle(body)
    return False
