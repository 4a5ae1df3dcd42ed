"""What a box has behind it: 200 requests of today, and 30 days of usage, by its own store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from gateway.access.past_requests import PastRequest
from gateway.access.store import DailyUsage, Store

REQUESTS, DAYS = 200, 30
#: How every so many-th of ten ended: status, and the code of its error.
_ENDS = {4: (499, None), 6: (400, "context_length_exceeded"), 9: (502, "backend_error")}
_CLIENTS = ("192.168.1.20", "192.168.1.31", "192.168.1.44", "fd00::4d1a:9be2:77c0:15")


def write_past(file: Path, key_ids: Sequence[str], models: Sequence[str]) -> None:
    """Write into the database of a gateway that runs, for these keys and models."""
    asyncio.run(_write(file, key_ids, models))


async def _write(file: Path, key_ids: Sequence[str], models: Sequence[str]) -> None:
    chance = random.Random(7)
    async with await Store.open(file) as store:
        await store.add_requests([*_requests(key_ids, models, chance)])
        await store.add_usage([*_usage(key_ids, models, chance)])


def _requests(
    key_ids: Sequence[str], models: Sequence[str], chance: random.Random
) -> Iterator[PastRequest]:
    ended = time.time() - 40
    for number in range(REQUESTS):
        ended -= chance.expovariate(1 / 180)
        yield _request(number, ended, chance.choice(key_ids), chance.choice(models), chance)


def _request(
    number: int, ended: float, key_id: str, model: str, chance: random.Random
) -> PastRequest:
    status, code = _ENDS.get(number % 10, (200, None)) if number % 3 else (200, None)
    speed = chance.uniform(28, 61)
    queue, load = chance.choice((0.0, 0.0, 0.0, 2.5)), 11.4 if number % 25 == 7 else 0.0
    prefill, generation = chance.uniform(0.05, 0.9), chance.uniform(0.3, 14)
    prompt = chance.randint(40, 6000)
    return PastRequest(
        seq=int(ended * 1e6),
        id=f"req_{chance.getrandbits(64):016x}",
        key_id=key_id,
        model=model,
        personality="pirate" if number % 12 == 5 else None,
        method="POST",
        route="/v1/embeddings" if number % 17 == 3 else "/v1/chat/completions",
        streamed=number % 5 != 0,
        status=status,
        code=code,
        client=chance.choice(_CLIENTS),
        seconds=queue + load + prefill + generation,
        queue=queue,
        load=load,
        prefill=prefill,
        generation=generation,
        prompt_tokens=prompt,
        cached_tokens=(cached := int(prompt * chance.choice((0, 0, 0.6, 0.9)))),
        completion_tokens=int(speed * generation) if status == 200 else 0,
        tokens_per_second=speed,
        cached_from=("slot" if number % 3 else "disk") if cached else None,
    )


def _usage(
    key_ids: Sequence[str], models: Sequence[str], chance: random.Random
) -> Iterator[DailyUsage]:
    today: date = datetime.now(UTC).date()
    for back in range(DAYS):
        day = today - timedelta(days=back)
        busy = 0.4 if day.weekday() > 4 else 1.0
        for key_id in key_ids:
            for model in models:
                count = int(chance.randint(0, 60) * busy)
                if count:
                    read, said = count * chance.randint(300, 1500), count * chance.randint(90, 400)
                    cached = read * chance.randint(0, 90) // 100
                    yield DailyUsage(key_id, model, day, count, read, said, cached)
