"""GET /admin/requests: what runs, and what ran."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.access.request_log import RECENT, Record
from gateway.proxy.sse import Usage
from gateway.tasks import spawn
from tests.api.request_log.records import CHAT, cancelled, entry, event_of, look, once
from tests.harness import MakeGateway, Running, fake_model, opened

# --- what runs, and what ran -------------------------------------------------------------------


async def test_request_is_shown_from_its_beginning_to_its_end(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with make_gateway({"m": fake_model(tmp_path, gate=gate, chunks=4)}) as running:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "private"}]}
        async with running.request("POST", CHAT, json=body) as response:
            await response.content.readany()
            (one,) = (await look(running))["under_way"]
            assert one["id"] == response.headers["X-Request-Id"]
            assert (one["stage"], one["streamed"], one["ended"]) == ("generating", True, None)
            assert one["completion_tokens"] == 1
            assert one["client"] == "127.0.0.1"
            with opened(gate):
                await response.read()
        seen = await once(running, lambda seen: seen["ended"])
        (ended,) = seen["ended"]
        assert seen["under_way"] == []
        assert (ended["id"], ended["started"][:16]) == (one["id"], one["started"][:16])
        assert (ended["name"], ended["model"], ended["route"]) == ("test", "m", CHAT)
        assert (ended["method"], ended["status"], ended["code"]) == ("POST", 200, None)
        assert (ended["client"], ended["streamed"]) == ("127.0.0.1", True)
        timings = ended["timings"]
        assert timings["load"] > 0  # it was loaded for this one
        assert sum(timings.values()) == pytest.approx(ended["seconds"], abs=0.01)
        assert "private" not in json.dumps(seen)
        assert ended.keys() == one.keys()


def under_way(number: int, seen: dict[str, Any]) -> bool:
    return len(seen["under_way"]) == number


async def test_queued_and_loading_requests_are_shown(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    models = {
        "m": fake_model(tmp_path, gate=gate, chunks=2) | {"parallel": 1},
        "slow": fake_model(tmp_path, start_delay=30),
    }
    async with make_gateway(models) as running:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        tasks = []
        for number, model in enumerate(("m", "m", "m", "slow"), 1):
            tasks.append(
                spawn(running.json("POST", CHAT, json={**body, "model": model}), name="asks")
            )
            await once(running, partial(under_way, number))
        seen = await once(
            running,
            lambda seen: (
                {one["stage"] for one in seen["under_way"]} == {"generating", "queued", "loading"}
            ),
        )
        first, second, third, slow = seen["under_way"]
        assert (first["stage"], first["position"]) == ("generating", None)
        assert [(one["stage"], one["position"]) for one in (second, third)] == [
            ("queued", 1),
            ("queued", 2),
        ]
        assert second["timings"]["prefill"] is None
        assert slow["stage"] == "loading"
        assert slow["timings"]["load"] > 0
        # One that is queued, and one whose model is loading, can be cancelled as well.
        for one in (third, slow):
            assert await cancelled(running, one["id"]) == 204
        for task in tasks[2:]:
            with contextlib.suppress(json.JSONDecodeError):
                status, said = await task
                assert (status, said["error"]["code"]) == (409, "cancelled")
        seen = await once(running, lambda seen: len(seen["ended"]) == 2)
        by_model = {one["model"]: one for one in seen["ended"]}
        assert by_model["slow"]["timings"]["load"] > 0
        assert by_model["slow"]["timings"]["generation"] is None
        assert by_model["m"]["timings"]["queue"] > 0
        with opened(gate):
            for task in tasks[:2]:
                with contextlib.suppress(json.JSONDecodeError):
                    await task


async def test_requests_are_told_as_events_too(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        await running.chat("m")
        headers = {"Accept": "text/event-stream"}
        async with running.request("GET", "/admin/requests?every=0.2", headers=headers) as events:
            first = await event_of(events)
            assert [one["model"] for one in first["ended"]] == ["m"]
            await running.chat("m")
            async with asyncio.timeout(10):
                while not (later := await event_of(events))["ended"]:
                    pass
            (new,) = later["ended"]  # only what has come since
            assert new["id"] != first["ended"][0]["id"]


async def test_events_that_left_some_out_begin_anew(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        accounting = running.gateway.accounting
        accounting.add(*entry(0, at=accounting.wall()))
        query = "?every=0.2&follow=true&limit=20"
        async with running.request("GET", f"/admin/requests{query}") as events:
            assert [one["id"] for one in (await event_of(events))["ended"]] == ["req_0"]
            for number in range(1, RECENT + 2):  # one more than are in memory
                accounting.add(*entry(number, at=accounting.wall()))
            anew = await event_of(events)
            newest = [f"req_{number}" for number in range(RECENT + 1, RECENT - 19, -1)]
            assert [one["id"] for one in anew["ended"]] == newest
            assert anew["next"] is not None
            older = await look(running, f"?cursor={anew['next']}&limit=500")
            assert [one["id"] for one in older["ended"]][-1] == "req_0"
            accounting.add(*entry(1000, at=accounting.wall()))
            more = await event_of(events)
            assert [one["id"] for one in more["ended"]] == ["req_1000"]
            assert "next" not in more


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=9xx", "status"),
        ("status=200,", "status"),
        ("slow=-1", "slow"),
        ("slow=nan", "slow"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        (f"limit={'0' * 17}500000", "limit"),
        ("cursor=x", "cursor"),
        (f"cursor={'0' * 5000}", "cursor"),
        (f"cursor={2**63}", "cursor"),
        ("cursor=1&follow=true", "cursor"),
        ("follow=true&every=0", "every"),
    ],
)
async def test_wrong_filter_is_refused_by_its_name(
    running: Running, query: str, param: str
) -> None:
    status, said = await running.json("GET", f"/admin/requests?{query}")
    assert (status, said["error"]["param"]) == (400, param)


async def test_a_thousand_statuses_are_few(running: Running) -> None:
    await running.chat("m")
    seen = await once(running, lambda seen: seen["ended"])
    again = await look(running, f"?status={','.join(['2xx', '204'] * 900)}")
    assert (again["ended"], again["problem"]) == (seen["ended"], None)


async def test_filters_and_pages_cover_memory_and_store(
    running: Running, subtests: pytest.Subtests
) -> None:
    accounting = running.gateway.accounting
    at = accounting.wall() - 1000
    for number in range(RECENT + 100):
        accounting.add(*entry(number, at=at + number))
    ids: list[str] = []
    seen = await look(running, "?limit=120")
    ids += [one["id"] for one in seen["ended"]]
    while seen["next"] is not None:
        seen = await look(running, f"?limit=120&cursor={seen['next']}")
        ids += [one["id"] for one in seen["ended"]]
    assert ids == [f"req_{number}" for number in reversed(range(RECENT + 100))]
    for query, expected in (
        ("status=404", 30),
        ("status=4xx,500", 60),
        ("status=5xx&slow=2", 15),
        ("model=other", 100),
        ("key=k_1", 300),
        ("key=anonymous", 0),
    ):
        with subtests.test(f"{query!r:.80}"):
            found: list[Any] = []
            cursor = ""
            while cursor is not None:
                seen = await look(running, f"?{query}&limit=40{cursor}")
                found += seen["ended"]
                cursor = f"&cursor={seen['next']}" if seen["next"] else None
            assert len(found) == expected, query
    assert seen["lost"] == 0


# --- timings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "timings"),
    [
        # In one piece, and it told how fast it was: five tokens at 20 a second.
        (entry(2), (0, 0, 0.75, 0.25)),
        # It waited half a second, for 0.3 of them its model was loading.
        (entry(2, waited=0.5, loading=0.3), (0.2, 0.3, 0.25, 0.25)),
        (entry(2, streamed=True, waited=0.5, began=0.6), (0.5, 0, 0.1, 0.4)),
        (entry(2, streamed=True), (0, 0, 1, 0)),  # hung up on before anything came
        (entry(2)._replace(usage=Usage(10, 5)), (0, 0, None, 1)),  # nobody said
        (entry(2)._replace(sent=False), (1, 0, None, None)),
        (entry(2, waited=1.0, loading=1.0)._replace(sent=False), (0, 1, None, None)),
    ],
)
def test_timings_are_those_of_llama_server(
    record: Record, timings: tuple[float | None, ...]
) -> None:
    kept = record.kept()
    assert (kept.queue, kept.load, kept.prefill, kept.generation) == pytest.approx(timings)
