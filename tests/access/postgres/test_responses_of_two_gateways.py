"""Responses with a memory where two gateways share one PostgreSQL database, one of them by TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.tls.selfsigned import self_signed
from tests.harness import MakeGateway, Running
from tests.responses.writer import KEPT, PATH, Writer, id_in, models

pytestmark = pytest.mark.slow


@pytest.fixture
async def writer() -> AsyncIterator[Writer]:
    writer = Writer()
    async with writer.server:
        yield writer


@pytest.fixture
async def both(
    make_gateway: MakeGateway, tmp_path: Path, url: str, writer: Writer
) -> AsyncIterator[tuple[Running, Running]]:
    made = self_signed(["127.0.0.1"], tmp_path / "ssl")
    tls = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "ca_chain": str(made.chain),
    }
    shared = {"store": {"url": url}, "responses": KEPT}
    async with (
        make_gateway(models(writer), folder="one", **shared) as one,
        make_gateway(models(writer), folder="other", tls=tls, **shared) as other,
    ):
        yield one, other


async def ask(
    both: tuple[Running, Running], which: int, method: str, path: str, **more: Any
) -> Any:
    """What a gateway answers; both know the key of the first."""
    running = both[which]
    status, said = await running.json(
        method, path, ssl=False, key=more.pop("key", both[0].key), **more
    )
    assert status == 200, (status, said)
    return said


async def text_of(both: tuple[Running, Running], which: int, id: str) -> str:
    """The text of a response, as soon as that gateway has all of it: it is written a moment after
    it was answered.
    """
    while True:
        status, found = await both[which].json("GET", f"{PATH}/{id}", ssl=False, key=both[0].key)
        if status == 200 and found["status"] == "completed":
            text: str = found["output"][0]["content"][0]["text"]
            return text
        assert status in (200, 404), found


async def test_either_goes_on_where_the_other_was(
    both: tuple[Running, Running], writer: Writer
) -> None:
    previous: dict[str, str] = {}
    for turn, which in enumerate((0, 1, 0)):
        writer.say(f"answer {turn}", ends=True)
        said = {"model": "m", "input": f"question {turn}", **previous}
        response = await ask(both, which, "POST", PATH, json=said)
        assert await text_of(both, 1 - which, response["id"]) == f"answer {turn}"
        items = await ask(both, 1 - which, "GET", f"{PATH}/{response['id']}/input_items?limit=100")
        assert len(items["data"]) == 2 * turn + 1
        previous = {"previous_response_id": response["id"]}
    assert [len(one["input"]) for one in writer.asked[1:]] == [3, 5]


async def test_a_conversation_is_that_of_both(
    both: tuple[Running, Running], writer: Writer
) -> None:
    made = await ask(both, 0, "POST", "/v1/conversations", json={})
    for turn, which in enumerate((1, 0)):
        writer.say(f"answer {turn}", ends=True)
        said = {"model": "m", "input": f"question {turn}", "conversation": made["id"]}
        response = await ask(both, which, "POST", PATH, json=said)
        await text_of(both, 1 - which, response["id"])
    path = f"/v1/conversations/{made['id']}/items?order=asc"
    listed = [await ask(both, which, "GET", path) for which in (0, 1)]
    assert listed[0]["data"] == listed[1]["data"]
    assert len(listed[0]["data"]) == 4


async def test_work_in_the_background_is_seen_at_the_other_and_cancelled_at_its_own(
    both: tuple[Running, Running], writer: Writer
) -> None:
    said = {"model": "m", "input": "hi", "background": True}
    response = await ask(both, 1, "POST", PATH, json=said)
    one = f"{PATH}/{response['id']}"
    assert (await ask(both, 0, "GET", one))["status"] in ("queued", "in_progress")
    key = both[0].key
    status, refused = await both[0].json("POST", f"{one}/cancel", key=key)
    assert (status, refused["error"]["code"]) == (400, "response_elsewhere")
    cancelled = await ask(both, 1, "POST", f"{one}/cancel")
    assert cancelled["status"] == "cancelled"


async def test_a_stream_that_has_ended_is_read_at_the_other(
    both: tuple[Running, Running], writer: Writer
) -> None:
    writer.say("one ", "two", ends=True)
    body = {"model": "m", "input": "hi", "stream": True}
    async with both[1].request("POST", PATH, json=body, ssl=False, key=both[0].key) as response:
        id = await id_in(response)
        await response.read()
    await text_of(both, 0, id)
    path = f"{PATH}/{id}?stream=true&starting_after=0"
    async with both[0].request("GET", path, key=both[0].key) as response:
        said = (await response.read()).decode()
    assert response.status == 200
    kinds = [line[7:] for line in said.splitlines() if line.startswith("event: ")]
    assert kinds.count("response.output_text.delta") == 2
    assert kinds[-1] == "response.completed"
    assert "response.created" not in kinds


async def test_what_one_deletes_the_other_has_no_more_and_no_other_key_reads_it(
    both: tuple[Running, Running], writer: Writer
) -> None:
    said = {"name": "other", "admin": True}
    _, made = await both[1].json("POST", "/admin/keys", json=said, ssl=False, key=both[0].key)
    assert both[0].gateway.ring is not None
    await both[0].gateway.ring.reload()  # as it does when it hears of the key
    writer.say("one", ends=True)
    response = await ask(both, 0, "POST", PATH, json={"model": "m", "input": "hi"})
    await text_of(both, 1, response["id"])
    one = f"{PATH}/{response['id']}"
    for running in both:
        status, _ = await running.json("GET", one, ssl=False, key=made["key"])
        assert status == 404
    await ask(both, 1, "DELETE", one)
    status, _ = await both[0].json("GET", one, key=both[0].key)
    assert status == 404
