"""A key is made, used, and revoked; from then on it is refused."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from tests.soak.allowed import RIGHT
from tests.soak.asking import MODELS, Asked, chat
from tests.soak.client import Answer, request
from tests.soak.faults.driver import Driver, Strike

#: While these are in force keys can't be changed, and whoever wants to is told so.
_UNWRITABLE = frozenset({"disk full", "store locked"})
_TOLD = frozenset({"500 store_error", "503 store_busy"})


async def _strike(strike: Strike) -> None:
    with strike.ledger.in_force(strike.door.name, "key revoked"):
        made = await _changed(strike, "POST", "/admin/keys", b'{"name": "short-lived"}')
        if made is None:
            return
        key = made.json()
        await _used(strike, key["key"], RIGHT)
        while await _changed(strike, "DELETE", f"/admin/keys/{key['id']}") is None:
            await asyncio.sleep(0.5)
        await _used(strike, key["key"], "401 api_key_revoked")


async def _changed(strike: Strike, method: str, path: str, body: bytes = b"") -> Answer | None:
    """The answer to a change; None if the database took it not just then, and that was told."""
    door, began = strike.door, time.monotonic()
    answer = await door.ask(request(method, path, door.admin_key, body))
    if answer.status in (200, 201, 204):
        return answer
    faults = strike.ledger.faults(door.name, began, answer.ended)
    told = f"{answer.status} {answer.json()['error']['code']}" if answer.complete else "no answer"
    if not (told in _TOLD and faults & _UNWRITABLE) and "gateway killed" not in faults:
        door.tally.breach(f"{door.name}: {method} of a key: {told}", f"{faults}: {answer.text!r}")
    return None


async def _used(strike: Strike, key: str, expected: str) -> None:
    door = strike.door
    asked = chat(strike.chance, key, strike.chance.choice(MODELS), "whole")

    def outcome(answer: Answer) -> str:
        found = asked.outcome(answer)
        return RIGHT if found == expected else f"wrong: {found} for a key that is {expected}"

    looked_at: Asked = replace(asked, outcome=outcome, kind="key", counted=False)
    door.tally.note(door.name, looked_at, await door.ask(asked.data))


DRIVER = Driver(every=8, strike=_strike)
