"""Which slot a request goes on in, seen by what it says. Pure.

That is the place that :mod:`gateway.conversations.place` finds as well, by chains: most requests go
on with all that is in a slot, and then it costs less to see it here. Wherever another slot might be
better, this says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.conversations.said import Said
from gateway.conversations.slot import Slot


def slot_of(said: Said, slots: Sequence[Slot]) -> Slot | None:
    """Return the free slot of which ``said`` repeats everything that is in it, if no other one has
    more of it in it, or will have.
    """
    messages = said.messages
    if messages is None:
        return None
    count, found, most = len(messages), None, 0
    for slot in slots:
        held = slot.said
        if held is None or slot.busy or held.messages is None:
            continue
        theirs = held.messages
        length = len(theirs)
        # The last ones first: conversations begin alike, but they don't go on so.
        if (
            most < length <= count
            and theirs[-1] == messages[length - 1]
            and held.owner == said.owner
            and held.format == said.format
            and held.before == said.before
            and theirs == (messages[:length] if length < count else messages)
        ):
            if length == count:
                return slot  # no other one can have more of it
            found, most = slot, length
    if found is None or len(slots) == 1:
        return found
    begun = found.said.base.links if found.said is not None else ()
    for slot in slots:
        if slot is not found and _may_have_more(slot, messages, most, begun):
            return None
    return found


def _may_have_more(
    slot: Slot, messages: Sequence[object], count: int, begun: tuple[bytes, ...]
) -> bool:
    """Return whether more than the first ``count`` of ``messages`` may be in ``slot``, or will be
    when it is free. ``begun``: the links of the first of them.
    """
    said = slot.asking if slot.busy else slot.said
    if said is not None and (theirs := said.messages) is not None:
        return len(theirs) > count < len(messages) and theirs[count] == messages[count]
    links = (slot.coming if slot.busy else slot.chain).links
    return not begun or (len(links) >= len(begun) and links[len(begun) - 1] == begun[-1])
