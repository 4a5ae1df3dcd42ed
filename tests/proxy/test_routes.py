"""The table of llama-server's routes: complete, without contradictions, and safe."""

from __future__ import annotations

import pytest

from gateway.proxy.dialect import ANTHROPIC
from gateway.proxy.routes import TABLE, Access, ModelIn, refusal, without_key

#: What llama-server b10434 to b11549 answers to, but for its web UI and what the gateway answers
#: itself: /health, /v1/health, /models, /v1/models and the router's /models/... .
LLAMA_SERVER = {
    "GET": "/metrics /props /lora-adapters /slots /v1/stream /tools /cors-proxy",
    "POST": """/props /completion /completions /v1/completions /chat/completions
        /v1/chat/completions /v1/chat/completions/control /responses /v1/responses
        /audio/transcriptions /v1/audio/transcriptions /v1/messages /v1/messages/count_tokens
        /infill /embedding /embeddings /v1/embeddings /rerank /reranking /v1/rerank
        /v1/reranking /v1/systemone /tokenize /detokenize /apply-template
        /chat/completions/input_tokens /v1/chat/completions/input_tokens
        /responses/input_tokens /v1/responses/input_tokens /lora-adapters /slots/{slot}
        /v1/streams/lookup /tools /cors-proxy""",
    "DELETE": "/v1/stream",
}
#: What nobody without an admin key may call, or nobody at all.
NOT_FOR_CHAT = {
    ("GET", "/tools"),
    ("POST", "/tools"),
    ("GET", "/cors-proxy"),
    ("POST", "/cors-proxy"),
    ("POST", "/props"),
    ("POST", "/lora-adapters"),
    ("POST", "/slots/{slot}"),
    ("GET", "/slots"),
    ("GET", "/metrics"),
    ("GET", "/v1/stream"),
    ("GET", "/v1/stream/{conversation}"),
    ("DELETE", "/v1/stream"),
    ("DELETE", "/v1/stream/{conversation}"),
    ("GET", "/v1/streams"),
    ("POST", "/v1/streams/lookup"),
}


def test_complete() -> None:
    have = {(route.method, route.path) for route in TABLE}
    assert len(have) == len(TABLE)
    for method, paths in LLAMA_SERVER.items():
        assert {(method, path) for path in paths.split()} <= have


def test_safe() -> None:
    closed = {(r.method, r.path) for r in TABLE if r.access is not Access.CHAT}
    assert closed == NOT_FOR_CHAT
    assert all(r.reason for r in TABLE if r.access is not Access.CHAT)


def test_consistent() -> None:
    for route in TABLE:
        if route.method == "GET" and route.access is not Access.REFUSED:
            assert route.model is ModelIn.QUERY
        if route.defaults:
            assert not route.beside
        assert (route.dialect is ANTHROPIC) == (route.format.name == "anthropic")
        assert route.target.startswith("/")


@pytest.mark.parametrize(
    ("path", "query", "refused"),
    [
        ("/tools", "", True),
        ("/tools/", "", True),
        ("//tools", "", True),
        ("/%74ools", "", True),
        ("/a/../tools", "", True),
        ("/a/%2e%2e/tools", "", True),
        ("/cors-proxy", "url=x", True),
        ("/v1/stream/abc", "", True),
        ("/v1/streams/lookup", "", True),
        ("/slots/0", "action=save", True),
        ("/slots/0", "a=b&action=%72estore", True),
        ("/slots/0", "action=erase", False),
        ("/slots", "", False),
        ("/toolshed", "", False),
        ("/v1/chat/completions", "", False),
        ("/", "", False),
    ],
)
def test_refusals(path: str, query: str, refused: bool) -> None:
    assert (refusal(path, query) is not None) == refused


def test_keys_stay_here() -> None:
    assert without_key("authKey=k") == ""
    assert without_key("a=1&authKey=k&b=%2F&c") == "a=1&b=%2F&c"
    assert without_key("%61uthKey=k&x=authKey") == "x=authKey"
    assert without_key("") == ""
