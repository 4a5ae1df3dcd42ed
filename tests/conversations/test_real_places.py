"""Where the cached tokens of each request came from, with the bundled llama-server."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import pytest

from gateway.access.past_requests import RequestFilter
from gateway.access.store import Store
from tests.conversations.test_real_llama_server import ask, cache, entry, words
from tests.harness import MakeGateway, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SWAPPED: dict[str, Any] = {"llama_server": "auto", "scheduler": {"max_loaded": 1}}


def bodies(seed: int) -> dict[str, dict[str, Any]]:
    """A request of each API, with a prompt of its own."""
    said = [{"role": "user", "content": words(seed, 90)}]
    return {
        "/v1/chat/completions": {"messages": said, "max_tokens": 4},
        "/v1/messages": {"messages": said, "max_tokens": 4},
        "/v1/responses": {"input": said, "max_output_tokens": 4},
    }


async def ended(running: Running, count: int, query: str = "") -> list[dict[str, Any]]:
    """The last ``count`` requests, the newest last: they are counted behind their answers."""
    async with asyncio.timeout(30):
        while running.gateway.accounting.log.added < count:
            await asyncio.sleep(0.01)
    status, told = await running.json("GET", f"/admin/requests?limit=100{query}")
    assert status == 200, told
    return [*reversed(told["ended"])][-count:]


async def send(running: Running, path: str, body: dict[str, Any]) -> None:
    async with running.request(
        "POST", path, json={"model": "a", "temperature": 0, **body}
    ) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", [*bodies(0)])
async def test_request_tells_where_its_cached_tokens_were(
    make_gateway: MakeGateway, path: str, streamed: bool
) -> None:
    body = {**bodies(31)[path], "stream": streamed}
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, cache=cache(), **SWAPPED) as running:
        for _ in range(2):
            await send(running, path, body)
        for action in ("unload", "load"):
            status, said = await running.json("POST", f"/models/{action}", json={"model": "a"})
            assert status == 200, said
        await send(running, path, body)
        cold, live, restored = await ended(running, 3)
        assert (cold["cached_from"], cold["cached_tokens"]) == (None, 0)
        for one, place in ((live, "slot"), (restored, "disk")):
            assert one["cached_from"] == place
            assert one["prompt_tokens"] > one["cached_tokens"] > one["prompt_tokens"] - 8
            assert one["streamed"] is streamed
        for place, ids in (("disk", [restored]), ("none", [cold]), ("none,slot", [cold, live])):
            _, told = await running.json("GET", f"/admin/requests?cached_from={place}")
            assert [one["id"] for one in reversed(told["ended"])] == [one["id"] for one in ids]
        database = running.gateway.settings.database
        await assert_counted(running, live["cached_tokens"], restored["cached_tokens"])
    async with await Store.open(database) as store:
        kept = await store.requests_of(RequestFilter(limit=10))
        assert [one.cached_from for one in kept] == ["disk", "slot", None]
        (used,) = await store.usage_of()
        assert used.cached_tokens == live["cached_tokens"] + restored["cached_tokens"]


async def assert_counted(running: Running, live: int, restored: int) -> None:
    """The model has one hit of each kind, wherever that is told."""
    _, report = await running.json("GET", "/admin/cache")
    (counted,) = report["models"]
    (of_key,) = report["keys"]
    _, models = await running.json("GET", "/admin/models")
    _, status = await running.json("GET", "/admin/status")
    for told in (models, status):
        (one,) = [model["prompt_cache"] for model in told["models"] if model["name"] == "a"]
        assert {"model": "a", **one} == counted
    assert (counted["hits"], counted["tokens"]) == (1, restored)
    assert (counted["slot_hits"], counted["slot_tokens"]) == (1, live)
    assert counted["seconds"] == pytest.approx(counted["slot_seconds"], rel=0.5)
    assert counted["seconds"] > 0
    assert counted["bytes_read"] == of_key["bytes_read"] > 0
    assert counted["bytes_written"] >= counted["size"] >= counted["bytes_read"]
    recent = status["requests"]["recent"]
    assert [one["cached_from"] for one in recent] == [None, "slot", "disk"]


async def test_without_a_cache_they_are_llama_servers_own(make_gateway: MakeGateway) -> None:
    body = bodies(32)["/v1/chat/completions"]
    models = {"a": entry(), "b": entry()}
    async with make_gateway(models, cache={"enabled": False}, **SWAPPED) as running:
        for _ in range(2):
            await send(running, "/v1/chat/completions", body)
        await ask(running, "b", [{"role": "user", "content": "Hi"}])
        await send(running, "/v1/chat/completions", body)
        of_a = [one for one in await ended(running, 4) if one["model"] == "a"]
        assert [one["cached_from"] for one in of_a] == [None, "slot", None]
        _, status = await running.json("GET", "/admin/status")
        assert ["prompt_cache" in model for model in status["models"]] == [False, False]


async def test_anthropic_request_to_several_slots_is_a_hit_of_one(
    make_gateway: MakeGateway,
) -> None:
    """llama-server chooses its slot itself."""
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry(parallel=2)}, **settings) as running:
        for _ in range(2):
            await send(running, "/v1/messages", bodies(33)["/v1/messages"])
        _, live = await ended(running, 2)
        assert live["cached_from"] == "slot"
        async with asyncio.timeout(30):  # the slots are looked at behind the answer
            report: dict[str, Any] = {"models": []}
            while not any(one["slot_hits"] for one in report["models"]):
                await asyncio.sleep(0.05)
                _, report = await running.json("GET", "/admin/cache")
        for (one,) in (report["models"], report["keys"]):
            assert (one["hits"], one["slot_hits"]) == (0, 1)
            assert one["slot_tokens"] == live["cached_tokens"]


async def test_requests_come_as_csv_a_page_at_a_time(make_gateway: MakeGateway) -> None:
    settings = {"llama_server": "auto", "cache": cache()}
    async with make_gateway({"a": entry()}, **settings) as running:
        for _ in range(3):
            await send(running, "/v1/chat/completions", bodies(34)["/v1/chat/completions"])
        told = await ended(running, 3)
        query, rows = "?format=csv&limit=2", []
        while query:
            async with running.request("GET", f"/admin/requests{query}") as answer:
                assert answer.content_type == "text/csv"
                rows += [*csv.DictReader(io.StringIO(await answer.text()))]
                following = answer.links.get("next")
                query = f"?{following['url'].query_string}" if following else ""
    assert [row["id"] for row in rows] == [one["id"] for one in reversed(told)]
    assert [row["cached_from"] for row in rows] == ["slot", "slot", ""]
    assert [int(row["cached_tokens"]) for row in rows] == [
        one["cached_tokens"] for one in reversed(told)
    ]
    assert all(float(row["prefill"]) >= 0 for row in rows)
