"""When llama-server stops working on a request that was given up.

It goes on for up to a second after its client has gone (:mod:`gateway.backends.slot_looks`), and
for longer beside others' answers, or in a long step. Until then its slot is nobody else's: whatever
is sent there is put off, and what was put off first is tried first, be its slot free or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gateway.backends.slot_looks import SlotLooks
from gateway.backends.slots import SlotSeen, each_slot
from gateway.conversations.ended import Ended

#: Seconds after which llama-server has noticed that the client of a stream has gone: at its next
#: token.
_SOON: Final = 0.05


async def until_idle(
    looks: SlotLooks,
    at_work: Callable[[Sequence[SlotSeen]], bool],
    ended: Ended,
) -> None:
    """Return when llama-server is not ``at_work`` on a request any more, or nobody can say.

    If its answer hadn't begun, and nothing was seen of it, it may be on its way to its slot.
    """
    begun = ended.began is not None
    if (parting := ended.slots) is not None:
        await asyncio.wait([parting])
        if not parting.cancelled() and (seen := each_slot(parting.result())) is not None:
            begun = begun or at_work(seen)
    await asyncio.sleep(_SOON)
    said = await looks.now()
    while (seen := each_slot(said)) is not None:
        if at_work(seen):
            begun = True
        elif begun:
            return
        else:
            begun = True  # it is there by the next look, or will never be
        said = await looks.next()
