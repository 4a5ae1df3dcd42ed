"""What clients get from a model on a node is what they get from one on the gateway's machine."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cluster.cluster import Cluster
from tests.cluster.gateways import cluster_of
from tests.cluster.machines import Machines, up
from tests.harness import MakeGateway, Running, fake_model
from tests.scripted import Box

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make_gateway: MakeGateway, tmp_path: Path
) -> AsyncIterator[Running]:
    machines = Machines(Box(folder))
    monkeypatch.setattr("gateway.app.cluster_of", cluster_of(machines))
    await machines.start("attic")
    entry = fake_model(tmp_path)
    kinds = {"chat": {}, "embed": {"embeddings": True}, "rerank": {"reranking": True}}
    models = {
        f"{kind}-{where}": {**entry, **more, "nodes": node}
        for kind, more in kinds.items()
        for where, node in (("here", "here"), ("there", "attic"))
    }
    async with make_gateway(models, cluster={}) as running:
        cluster = running.gateway.scheduler.environment.nodes
        assert isinstance(cluster, Cluster)
        await up(cluster, "attic")
        yield running
    await machines.close()


REQUESTS: list[tuple[str, str, str, Any]] = [
    ("chat", "POST", "/v1/chat/completions", CHAT),
    ("chat", "POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    ("chat", "POST", "/v1/chat/completions", {"messages": 1}),
    ("chat", "POST", "/v1/completions", {"prompt": "hi"}),
    ("chat", "POST", "/v1/completions", {"prompt": "hi", "stream": True}),
    ("chat", "POST", "/v1/responses", {"input": "hi"}),
    ("chat", "POST", "/v1/responses", {"input": "hi", "stream": True}),
    ("chat", "POST", "/v1/messages", {**CHAT, "max_tokens": 5}),
    ("chat", "POST", "/v1/messages", {**CHAT, "max_tokens": 5, "stream": True}),
    ("chat", "POST", "/v1/messages/count_tokens", CHAT),
    ("chat", "POST", "/api/chat", CHAT),
    ("chat", "POST", "/api/chat", {**CHAT, "stream": False}),
    ("chat", "POST", "/api/generate", {"prompt": "hi"}),
    ("chat", "POST", "/api/show", {}),
    ("embed", "POST", "/v1/embeddings", {"input": "hi"}),
    ("embed", "POST", "/api/embed", {"input": "hi"}),
    ("rerank", "POST", "/v1/rerank", {"query": "q", "documents": ["a", "b"]}),
    ("chat", "POST", "/v1/embeddings", {"input": "hi"}),
    ("chat", "POST", "/tokenize", {"content": "hi"}),
    ("chat", "POST", "/detokenize", {"tokens": [1]}),
    ("chat", "POST", "/apply-template", CHAT),
    ("chat", "POST", "/infill", {"input_prefix": "a", "input_suffix": "b"}),
    ("chat", "GET", "/upstream/MODEL/health", None),
    ("chat", "GET", "/upstream/MODEL/props", None),
    ("chat", "GET", "/upstream/MODEL/slots", None),
    ("chat", "GET", "/upstream/MODEL/nothing", None),
    ("chat", "GET", "/v1/models/MODEL", None),
    ("chat", "POST", "/v1/completions", {"prompt": "x" * 20_000_000}),
]


#: Different for each answer.
OWN = {"content-length", "date", "server-timing", "x-request-id", "x-stream-id"}


def plain(text: str) -> str:
    """``text`` without what is different for each model and answer."""
    for pattern, name in (
        (r"(chat|embed|rerank)-(here|there)", "MODEL"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"[0-9a-f]{16,}", "ID"),
        (r"\d+(\.\d+)?", "N"),
    ):
        text = re.sub(pattern, name, text)
    return text


async def asked(running: Running, model: str, method: str, path: str, body: Any) -> Any:
    """Status, header fields and text of an answer, as far as they must be alike."""
    data = None if body is None else io.BytesIO(json.dumps({"model": model, **body}).encode())
    type_ = {} if body is None else {"Content-Type": "application/json"}
    async with running.request(
        method, path.replace("MODEL", model), data=data, headers=type_
    ) as response:
        fields = {name.lower(): plain(value) for name, value in response.headers.items()}
        own = fields.keys() & OWN
        return (
            response.status,
            {name: value for name, value in fields.items() if name not in own},
            own,
            plain(await response.text()),
        )


async def test_answers_are_alike(running: Running) -> None:
    for kind, method, path, body in REQUESTS:
        here = await asked(running, f"{kind}-here", method, path, body)
        there = await asked(running, f"{kind}-there", method, path, body)
        assert here == there, f"{method} {path}"

    _, told = await running.json("GET", "/admin/usage")
    counted: dict[str, list[Any]] = {"here": [], "there": []}
    for row in told["usage"]:
        kind, _, where = row.pop("model").partition("-")
        if where in counted:
            counts = {name: value for name, value in row.items() if isinstance(value, int)}
            counted[where].append((kind, counts))
    assert counted["here"]
    assert sorted(counted["here"], key=str) == sorted(counted["there"], key=str)
