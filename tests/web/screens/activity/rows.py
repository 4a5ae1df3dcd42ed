"""Requests that run and that ran, and their rows."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from datetime import UTC, date, timedelta
from datetime import datetime as moment
from functools import partial
from typing import Any

from openai import OpenAI
from playwright.sync_api import Locator, Page

from tests.harness import wait_until

PAST = 200
#: Model, and the result, of every tenth one that has ended.
_RESULTS = {0: (499, None), 3: (400, "context_length_exceeded"), 7: (502, "backend_error")}


def request_of(
    number: int, now: float, keys: dict[str, str], chance: random.Random
) -> tuple[object, ...]:
    status, code = _RESULTS.get(number % 10, (200, None))
    model = "tiny" if number % 4 == 0 else "endless"
    load = 3.2 if number % 25 == 0 else 0.0
    queue = chance.choice((0.0, 0.0, 0.4, 2.5))
    prefill, answer = chance.uniform(0.05, 0.8), chance.uniform(0.3, 9)
    tokens = int(answer * 42)
    return (
        int((now - 60 - number * 97) * 1e6),
        f"req_past{number:04}",
        keys["plain"] if number % 3 else "k_0gone000",
        model,
        None,
        "POST",
        "/v1/chat/completions",
        number % 5 != 0,
        status,
        code,
        f"192.168.1.{20 + number % 4}",
        queue + load + prefill + answer,
        queue,
        load,
        prefill,
        answer,
        chance.randint(40, 6000),
        cached := chance.randint(0, 30),
        tokens,
        42.0,
        ("slot" if number % 2 else "disk") if cached else None,
        number % 4,  # its slot
        number,
    )


def usage_of(keys: dict[str, str], chance: random.Random) -> Iterator[tuple[object, ...]]:
    today = moment.now(UTC).date()
    for back in range(1, 30):
        for key in keys.values():
            for model in ("endless", "tiny"):
                requests = chance.randint(0, 40)
                if requests:
                    day: date = today - timedelta(days=back)
                    yield (
                        key,
                        model,
                        day,
                        requests,
                        requests * 800,
                        requests * 210,
                        requests * 300,
                    )


@contextlib.contextmanager
def streaming(box: Any, model: str = "endless", *, waits: bool = False) -> Iterator[list[str]]:
    """A long answer that somebody reads; what comes of an error of it.

    ``waits``: nothing of it comes, for want of a slot.
    """
    said: list[str] = []
    begun = threading.Event()
    before = {one["id"] for one in under_way(box)}
    client = OpenAI(base_url=f"{box.url}/v1", api_key=box.plain, max_retries=0)

    def read() -> None:
        try:
            for _ in client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "private"}], stream=True
            ):
                begun.set()
        except Exception as error:
            said.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    if waits:
        new = partial(wait_until, seconds=60, what="it waits in the queue")
        new(lambda: {"queued"} == {o["stage"] for o in under_way(box) if o["id"] not in before})
    else:
        assert begun.wait(60)
    try:
        yield said
    finally:
        client.close()
        reader.join(20)
        assert not reader.is_alive()


def under_way(box: Any) -> list[Any]:
    return list(box.ask("GET", "/admin/requests?limit=1")["under_way"])


def ended_rows(page: Page) -> Locator:
    return page.get_by_role("region", name="Ended").locator("tbody tr[data-request]")


def shown(page: Page) -> list[str]:
    """The ids of what has ended, as they stand there at this moment."""
    ids: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("[aria-label=Ended] tr[data-request]")]
            .map(row => row.dataset.request)"""
    )
    return ids
