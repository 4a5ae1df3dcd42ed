"""Checks, before a local model is loaded, that it can answer a body. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import Unable
from gateway.proxy.ability import MEDIA, TOOLS
from gateway.proxy.blame import media_in
from gateway.proxy.body import JsonObject
from gateway.proxy.personality import WITH_CALLS, WITH_MEDIA, MessageFormat


def suit(format: MessageFormat, body: JsonObject, found: int, lacks: Mapping[str, str]) -> bool:
    """Fill in what llama-server misses in ``body``, in which ``check`` has ``found`` something.

    ``lacks``: what the model can't do, by its entry in models.json. Returns whether anything was
    changed. Raises :class:`Unable` for that, and :class:`gateway.errors.BadRequest` for tools that
    are none.
    """
    changed = False
    if TOOLS in lacks and format.settle is not None:
        changed = _leave_tools(body)
        if body.get("tools"):
            raise Unable(lacks[TOOLS], param="tools")
    if found & WITH_MEDIA and MEDIA in lacks:
        place = media_in(body)
        param = place[0] if place is not None else None
        raise Unable(f"`{param}`: {lacks[MEDIA]}" if param else lacks[MEDIA], param=param)
    if format.settle is not None and (body.get("tools") is not None or found & WITH_CALLS):
        changed |= format.settle(body)
    return changed


def _leave_tools(body: JsonObject) -> bool:
    """Leave out the tools of a body that wants none of them called; whether it does.

    Leaving them out is what the client asks for, but llama-server refuses the field that says so.
    """
    choice = body.get("tool_choice")
    if isinstance(choice, dict):  # Anthropic's
        choice = choice.get("type")
    if choice != "none":
        return False
    body.pop("tools", None)
    del body["tool_choice"]
    return True
