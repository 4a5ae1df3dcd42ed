"""GET /metrics: who may read it, in which formats, and that its numbers are right."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import MakeGateway, Running, eventually, fake_model

CHAT = "/v1/chat/completions"


async def text_of(running: Running, **options: Any) -> str:
    async with running.request("GET", "/metrics", **options) as response:
        assert response.status == 200
        return str(await response.text())


async def values(running: Running, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one metric: their labels' values, in the labels' order."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(await text_of(running))
        for sample in family.samples
        if sample.name == name
    }


async def status_of(running: Running, path: str = "/metrics", **options: Any) -> tuple[int, str]:
    async with running.request("GET", path, **options) as response:
        if response.status == 200:
            await response.read()
            return 200, ""
        return response.status, (await response.json())["error"]["code"]


# --- who may read it ---


async def test_a_key_for_metrics_reads_them_and_nothing_else(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}, metrics={"without_key": False}) as running:
        assert running.gateway.ring is not None
        _, key = await running.gateway.ring.create("prometheus", metrics=True)
        assert await status_of(running, key=key) == (200, "")
        for path in ("/v1/models", "/models", "/status", "/key", "/nothing"):
            assert await status_of(running, path, key=key) == (403, "other_key_required")
        assert await status_of(running, "/admin/status", key=key) == (403, "admin_key_required")
        assert await status_of(running, "/metrics?model=m", key=key) == (403, "admin_key_required")
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        status, answer = await running.json("POST", CHAT, json=body, key=key)
        assert (status, answer["error"]["code"]) == (403, "other_key_required")
        assert await values(running, "llm_gateway_requests_total") == {}


async def test_other_keys_need_to_be_an_administrators(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert running.gateway.ring is not None
        _, guest = await running.gateway.ring.create("guest")
        record, both = await running.gateway.ring.create("both", admin=True, metrics=True)
        assert await status_of(running, key=guest) == (403, "metrics_key_required")
        assert await status_of(running) == (200, "")
        assert await status_of(running, key=both) == (200, "")
        assert await status_of(running, "/admin/status", key=both) == (200, "")
        await running.gateway.ring.change(record.id, {"admin": False})
        assert await status_of(running, "/admin/status", key=both) == (403, "admin_key_required")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"X-Forwarded-For": "192.0.2.7"}, 401),
        ({"X-Forwarded-For": "127.0.0.1"}, 401),
        ({"Forwarded": "for=127.0.0.1"}, 401),
        ({"X-Real-IP": "127.0.0.1"}, 401),
        ({"Via": "1.1 proxy"}, 401),
        ({"Host": "box.example.com"}, 401),
        ({"Origin": "https://evil.example"}, 401),
        ({"Sec-Fetch-Site": "cross-site"}, 401),
        ({"User-Agent": "Mozilla/5.0"}, 401),
    ],
    ids=str,
)
async def test_without_a_key_only_programs_of_this_machine_read_them(
    make_gateway: MakeGateway, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    settings = {"allowed_hosts": ["*"]}
    async with make_gateway({"m": fake_model(tmp_path)}, **settings) as running:
        assert (await status_of(running, key=None, headers=headers))[0] == status


async def test_without_a_key_nothing_else_is_to_be_had(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert (await status_of(running, "/v1/models", key=None))[0] == 401
        path = "/metrics?model=m&autoload=true"
        assert await status_of(running, path, key=None) == (403, "admin_key_required")
        assert not running.gateway.scheduler.loaded()


async def test_it_may_be_closed_to_this_machine(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}, metrics={"without_key": False}) as running:
        assert (await status_of(running, key=None))[0] == 401


async def test_a_revoked_key_reads_them_no_more(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert running.gateway.ring is not None
        record, key = await running.gateway.ring.create("prometheus", metrics=True)
        assert await status_of(running, key=key) == (200, "")
        await running.gateway.ring.revoke(record.id)
        assert (await status_of(running, key=key))[0] == 401


async def test_switched_off_it_says_so(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}, metrics={"enabled": False}) as running:
        assert await status_of(running) == (404, "metrics_off")


# --- in which formats ---


async def test_both_formats_say_the_same(make_gateway: MakeGateway, tmp_path: Path) -> None:
    name = 'a "model"\\ with odd characters é'
    async with make_gateway({name: fake_model(tmp_path)}) as running:
        assert (await running.chat(name))[0] == 200
        plain = await text_of(running)
        accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
        async with running.request("GET", "/metrics", headers=accept) as response:
            assert response.content_type == "application/openmetrics-text"
            open_metrics = await response.text()
    families = [
        {
            sample.labels.get("model")
            for family in parse(text)
            for sample in family.samples
            if sample.name == "llm_gateway_requests_total"
        }
        for parse, text in (
            (text_string_to_metric_families, plain),
            (openmetrics_families, open_metrics),
        )
    ]
    assert families == [{name}, {name}]


# --- what they say ---


async def test_requests_are_counted_by_what_became_of_them(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        for _ in range(3):
            assert (await running.chat("m"))[0] == 200
        assert (await running.chat("unknown"))[0] == 404
        assert (await running.json("GET", "/v1/models", key="wrong"))[0] == 401
        assert (await running.json("GET", "/made/up"))[0] == 404
        requests = await values(running, "llm_gateway_requests_total")
        answers = await values(running, "llm_gateway_http_requests_total")
        prompt = await values(running, "llm_gateway_prompt_tokens_total")
        generated = await values(running, "llm_gateway_generated_tokens_total")
        key_id = running.gateway.accounting.recent[-1].key_id
        total = running.gateway.accounting.total("m")
    assert requests == {("m", CHAT, "200"): 3}
    assert answers["POST", CHAT, "200"] == 3
    assert answers["POST", CHAT, "404"] == 1
    assert answers["GET", "/v1/models", "401"] == 1
    assert answers["any", "other", "404"] == 1
    assert prompt == {(key_id, "m"): total.prompt_tokens}
    assert generated == {(key_id, "m"): total.completion_tokens}


async def test_a_request_under_way_is_seen(make_gateway: MakeGateway, tmp_path: Path) -> None:
    model = fake_model(tmp_path, CHUNKS="100000", PAUSE="0.02")
    async with make_gateway({"m": model}) as running:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with running.request("POST", CHAT, json=body) as response:
            await response.content.readany()
            assert await values(running, "llm_gateway_streams_open") == {(): 1}
            assert await values(running, "llm_gateway_requests_in_flight") == {("m",): 1}
            state = await values(running, "llm_gateway_model_state")
            assert [name for (_, name), value in state.items() if value] == ["ready"]
            assert (await values(running, "llm_gateway_connections_open"))[()] >= 2

        accounting = running.gateway.accounting
        await eventually(lambda: accounting.log.added and not accounting.unsettled)
        assert await values(running, "llm_gateway_streams_open") == {(): 0}
        assert (await values(running, "llm_gateway_requests_total"))["m", CHAT, "499"] == 1


async def test_swaps_evictions_and_unloads_are_told_apart(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    models = {name: fake_model(tmp_path) for name in "ab"}
    models["b"]["ttl"] = "200ms"
    async with make_gateway(models, scheduler={"max_loaded": 1}) as running:
        assert (await running.chat("a"))[0] == 200
        assert (await running.chat("b"))[0] == 200
        async with asyncio.timeout(30):
            while running.gateway.scheduler.loaded():
                await asyncio.sleep(0.02)
        assert (await running.chat("a"))[0] == 200
        await running.gateway.scheduler.unload("a")
        unloads = await values(running, "llm_gateway_model_unloads_total")
        swaps = await values(running, "llm_gateway_model_swaps_total")
    assert {of: value for of, value in unloads.items() if value} == {
        ("a", "evicted"): 1,
        ("b", "idle"): 1,
        ("a", "asked"): 1,
    }
    assert swaps == {("a",): 0, ("b",): 1}


async def test_a_death_is_counted_with_its_reason(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert (await running.chat("m"))[0] == 200
        restarts = await values(running, "llm_gateway_model_restarts_total")
        assert restarts
        assert not any(restarts.values())
        backend = running.gateway.scheduler.backend("m")
        assert backend is not None
        assert backend.pid is not None
        os.kill(backend.pid, signal.SIGKILL)
        await eventually(lambda: backend.deaths == 1)
        restarts = await values(running, "llm_gateway_model_restarts_total")
    assert {of: value for of, value in restarts.items() if value} == {("m", "killed"): 1}


async def test_revoked_keys_and_removed_models_are_gone_for_the_counters(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}) as running:
        assert running.gateway.ring is not None
        record, _ = await running.gateway.ring.create("guest")
        gone = running.gateway.accounting.measures.gone
        assert not gone("m", record.id)
        assert not gone("m", "anonymous")
        assert gone("n", record.id)
        await running.gateway.ring.revoke(record.id)
        assert gone("m", record.id)


def test_only_a_scrape_imports_the_library() -> None:
    code = "import gateway.app, gateway.server, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
