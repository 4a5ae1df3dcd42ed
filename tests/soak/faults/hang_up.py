"""Clients that hang up: in the head, in the body, while they wait, in a stream; or half way."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from tests.soak.asking import MODELS, SECRET, chat
from tests.soak.client import Connection, request
from tests.soak.faults.driver import Driver, Strike


def _request(strike: Strike, **fields: object) -> bytes:
    messages = [{"role": "user", "content": SECRET}]
    body = {"model": strike.chance.choice(MODELS), "messages": messages, **fields}
    data = json.dumps(body).encode()
    return request("POST", "/v1/chat/completions", strike.door.leaving_key, data)


async def _in_the_head(connection: Connection, strike: Strike) -> None:
    connection.send(_request(strike)[: strike.chance.randrange(1, 100)])


async def _in_the_body(connection: Connection, strike: Strike) -> None:
    connection.send(_request(strike)[:-10])


async def _waiting(connection: Connection, strike: Strike) -> None:
    connection.begin(_request(strike, soak_silent=True))
    await asyncio.sleep(strike.chance.uniform(0, 0.3))


async def _in_a_stream(connection: Connection, strike: Strike) -> None:
    connection.begin(_request(strike, stream=True, max_tokens=10_000, soak_pause=0.01))
    await connection.some(strike.chance.randrange(1, 20))


async def _not_reading(connection: Connection, strike: Strike) -> None:
    connection.begin(_request(strike, stream=True, max_tokens=10_000, soak_pause=0.0002))
    await connection.some(1)
    connection.stop_reading()
    await asyncio.sleep(strike.chance.uniform(0, 1))


async def _half(connection: Connection, strike: Strike) -> None:
    """One that only says no more, and gets its answer."""
    door = strike.door
    asked = chat(strike.chance, door.leaving_key, strike.chance.choice(MODELS), "stream")
    answer = connection.begin(asked.data)
    if not door.kind.tls:
        connection.half_close()
    await connection.end()
    door.tally.note(door.name, replace(asked, counted=False), answer)


_WAYS = (_in_the_head, _in_the_body, _waiting, _in_a_stream, _not_reading, _half)


async def _strike(strike: Strike) -> None:
    door = strike.door
    try:
        connection = await Connection.open(door.port, door.trust)
    except OSError:
        return  # ordinary clients tell of it
    try:
        with strike.ledger.in_force(door.name, "hang-up"):
            await strike.chance.choice(_WAYS)(connection, strike)
    finally:
        connection.abort()


DRIVER = Driver(every=0.4, strike=_strike)
