"""DELETE /admin/requests: ending what runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path
from typing import Any

from gateway.tasks import spawn
from tests import scripted
from tests.api.request_log.records import CHAT, cancelled, once
from tests.dialects import ROUTES
from tests.harness import MakeGateway, fake_model

DIALECTS = (CHAT, "/v1/messages", "/v1/responses", "/completion")
#: The model says letters for as long as its context lasts, which is longer than any test.
#: For Anthropic's messages llama-server's own limit would be 4,096 tokens: two seconds.
ENDLESS = {"grammar": "root ::= [a-z ]+", "ignore_eos": True, "max_tokens": 30_000}


async def rest_of(answer: Any) -> str:
    """What comes until the end of a stream that breaks."""
    said = b""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(10):
            async for piece in answer.content.iter_any():
                said += piece
    return said.decode()


async def test_request_is_cancelled_in_each_dialect_by_both_protocols(
    make_gateway: MakeGateway, tiny_model: Path
) -> None:
    """A real llama-server whose answers have no end; a query is for the other door."""
    params = {"model": str(tiny_model), "threads": 1, "ctxSize": 10 * 32768, "nPredict": 30000}
    model = {"params": params, "setParams": ENDLESS, "parallel": 10}
    async with make_gateway({"m": model}, llama_server="auto") as running:
        await running.gateway.scheduler.load("m")
        async with contextlib.AsyncExitStack() as stack:
            streams = []
            for path, query in itertools.product(DIALECTS, ("", "?x=1")):
                body = {"model": "m", **ROUTES[path], "stream": True}
                answer = await stack.enter_async_context(
                    running.request("POST", path + query, json=body)
                )
                await answer.content.readany()
                streams.append((path, answer))
            whole = [
                spawn(
                    running.json("POST", path + query, json={"model": "m", **ROUTES[path]}),
                    name="whole",
                )
                for path, query in ((DIALECTS[0], ""), (DIALECTS[1], "?x=1"))
            ]
            seen = await once(running, lambda seen: len(seen["under_way"]) == 10)
            await once(
                running,
                lambda seen: (
                    {one["stage"] for one in seen["under_way"]} == {"generating", "answering"}
                ),
            )
            readings = [spawn(rest_of(answer), name="reads") for _, answer in streams]
            for one in seen["under_way"]:
                assert await cancelled(running, one["id"]) == 204
            for (path, _), reading in zip(streams, readings, strict=True):
                assert "cancelled by an administrator" in await reading, path
            (chat, said), (messages, anthropic) = [await task for task in whole]
            assert (chat, messages) == (409, 409)
            assert said["error"]["code"] == "cancelled"
            assert anthropic["type"] == "error"
        scheduler = running.gateway.scheduler
        await scripted.until(scheduler, lambda: scheduler.in_flight == 0)
        async with asyncio.timeout(30):  # llama-server's own slots
            while any(
                slot["is_processing"] for slot in (await running.json("GET", "/slots?model=m"))[1]
            ):
                # It misses the client of an answer in one piece when it was idle for a second, and
                # a look is not idle.
                await asyncio.sleep(1.3)
        seen = await once(running, lambda seen: len(seen["ended"]) == 10)
        assert {(one["status"], one["code"]) for one in seen["ended"]} == {(409, "cancelled")}
        assert all(one["completion_tokens"] for one in seen["ended"] if one["streamed"])
        # It is not told as a failure of the backend.
        assert (await running.json("GET", "/chat/errors"))[1]["errors"] == []
        assert await cancelled(running, seen["ended"][0]["id"]) == 404


async def test_request_that_has_ended_or_is_anothers_is_not_cancelled(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        await running.chat("m")
        (one,) = (await once(running, lambda seen: seen["ended"]))["ended"]
        status, said = await running.json("DELETE", f"/admin/requests/{one['id']}")
        assert (status, said["error"]["code"]) == (404, "request_not_found")
        assert "has ended already" in said["error"]["message"]
        status, said = await running.json("DELETE", "/admin/requests/nothing")
        assert status == 404
        assert "never was" in said["error"]["message"]
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("plain")
        for method, path in (("GET", ""), ("DELETE", f"/{one['id']}")):
            status, said = await running.json(method, f"/admin/requests{path}", key=key)
            assert (status, said["error"]["code"]) == (403, "admin_key_required")
