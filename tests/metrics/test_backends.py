"""llama-servers' own metrics are joined, and none of them can hold up a scrape."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import DEMO_GGUF, MakeGateway, Running, fake_model

REAL = {"params": {"model": DEMO_GGUF, "ctxSize": 256, "threads": 1}}


async def scraped(running: Running, path: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    async with running.request("GET", path, headers=accept) as response:
        assert response.status == 200
        text = await response.text()
    parse = text_string_to_metric_families
    if response.content_type != "text/plain":
        parse = openmetrics_families
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def test_real_ones_are_labelled_by_their_models(make_gateway: MakeGateway) -> None:
    models = {"first": REAL, "second": REAL, "third": REAL}
    settings = {"llama_server": "auto", "metrics": {"backends": True}}
    async with make_gateway(models, **settings) as running:
        for model in ("first", "second"):
            assert (await running.chat(model, max_tokens=3))[0] == 200
        found = await scraped(running, "/metrics?backends=1")
        with_model = await running.request("GET", "/metrics?model=first")
        as_told = {
            line.split()[0]
            for line in (await with_model.text()).splitlines()
            if not line.startswith("#")
        }
        assert not as_told & (await scraped(running, "/metrics")).keys()
    assert len(as_told) > 5
    assert as_told <= found.keys()  # each by the very name
    up = {labels["model"]: value for labels, value in found["llm_gateway_backend_metrics_up"]}
    assert up == {"first": 1, "second": 1}  # what isn't loaded isn't asked
    tokens = {labels["model"]: value for labels, value in found["llamacpp:tokens_predicted_total"]}
    assert tokens == {"first": 3, "second": 3}


async def test_one_that_hangs_or_has_none_is_left_out(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway(
        {"none": fake_model(tmp_path), "hung": fake_model(tmp_path)}
    ) as running:
        for model in ("none", "hung"):
            assert (await running.chat(model))[0] == 200
        backend = running.gateway.scheduler.backend("hung")
        assert backend is not None
        assert backend.pid is not None
        os.kill(backend.pid, signal.SIGSTOP)
        try:
            asked = time.monotonic()
            found = await scraped(running, "/metrics?backends=1")
            took = time.monotonic() - asked
        finally:
            os.kill(backend.pid, signal.SIGCONT)
        assert took < 10
        assert not any(value for _, value in found["llm_gateway_backend_metrics_up"])
        assert found["llm_gateway_requests_total"]
        # Without that wish nobody waits for it.
        os.kill(backend.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                assert "llm_gateway_backend_metrics_up" not in await scraped(running, "/metrics")
        finally:
            os.kill(backend.pid, signal.SIGCONT)
