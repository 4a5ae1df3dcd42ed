"""What goes on at a gateway while its pictures are taken."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.harness import opened, wait_until
from tests.web.look.gateways import BUSY, LOADING, Gateways
from tests.web.visitors import Box

#: Seconds for what another process does, on a busy machine.
PATIENCE_S = 60


@contextlib.contextmanager
def loads(box: Box) -> Iterator[None]:
    """Meanwhile the model loads that doesn't come to an end with it, and is some way along."""

    def load() -> None:
        with contextlib.suppress(urllib.error.HTTPError):
            box.ask("POST", "/loadModel", {"model": LOADING})

    def percent() -> float:
        told = box.ask("GET", "/admin/status")["models"]
        return max((one["progress"] or 0 for one in told if one["name"] == LOADING), default=0)

    loader = threading.Thread(target=load)
    loader.start()
    try:
        wait_until(lambda: percent() > 0.12, PATIENCE_S, f"12% of {LOADING}")
        yield
    finally:
        box.ask("POST", f"/unloadModel?model={LOADING}")
        loader.join()


@contextlib.contextmanager
def running(all_of_them: Gateways) -> Iterator[None]:
    """Meanwhile two answers are being written, and a third waits for them."""
    house = all_of_them.house

    def read(key: str) -> None:
        messages = [{"role": "user", "content": "Tell me a story."}]
        body: dict[str, Any] = {"model": BUSY, "messages": messages, "stream": True}
        head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{house.url}/v1/chat/completions", json.dumps(body).encode(), head
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            answer.read()

    keys = (all_of_them.keys["laptop"], all_of_them.keys["kitchen tablet"], house.admin)
    readers = [threading.Thread(target=read, args=[key]) for key in keys]
    for reader in readers:
        reader.start()
    try:
        wait_until(
            lambda: len(house.ask("GET", "/admin/requests?limit=1")["under_way"]) == len(readers),
            PATIENCE_S,
            "three requests under way",
        )
        yield
    finally:
        with opened(all_of_them.gate):
            for reader in readers:
                reader.join()
