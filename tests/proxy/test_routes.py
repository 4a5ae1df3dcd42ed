"""The table of llama-server's routes: complete, without contradictions, and safe."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.dialect import ANTHROPIC
from gateway.proxy.routes import TABLE, ModelIn, refusal, without_key
from gateway.scope import Scope

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


def test_the_table_has_every_route_of_llama_server(subtests: pytest.Subtests) -> None:
    have = {(route.method, route.path) for route in TABLE}
    assert len(have) == len(TABLE)
    for method, paths in LLAMA_SERVER.items():
        with subtests.test(f"{method!r:.80}"):
            assert {(method, path) for path in paths.split()} <= have


def test_what_is_not_for_chat_is_closed_with_a_reason() -> None:
    closed = {(r.method, r.path) for r in TABLE if r.refused or r.scope is not Scope.CHAT}
    assert closed == NOT_FOR_CHAT
    assert all(r.reason for r in TABLE if r.refused or r.scope is not Scope.CHAT)


def test_the_table_agrees_with_itself() -> None:
    for route in TABLE:
        if route.method == "GET" and not route.refused:
            assert route.model is ModelIn.QUERY
        if route.defaults:
            assert not route.unqueued
        assert (route.dialect is ANTHROPIC) == (route.format.name == "anthropic")
        assert route.target.startswith("/")


def test_routes_are_there_with_and_without_v1() -> None:
    """Clients take either for their base URL. What only llama.cpp has, has no /v1 there either."""
    have = {(route.method, route.path) for route in TABLE} - NOT_FOR_CHAT
    bare = {(method, "/v1" + path) for method, path in have if not path.startswith("/v1/")}
    assert {(method, path) for method, path in have if path.startswith("/v1/")} <= bare
    only_bare = bare - have
    assert only_bare == {("GET", "/v1/props"), ("GET", "/v1/lora-adapters")} | {
        ("POST", f"/v1/{name}") for name in ("completion", "embedding")
    }


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
def test_targets_that_must_not_be_sent_on_are_refused(path: str, query: str, refused: bool) -> None:
    assert (refusal(path, query) is not None) == refused


REFUSED = sorted({route.path for route in TABLE if route.refused})
#: What a server that tidies up paths takes for a single slash.
SLASHES = st.sampled_from(["/", "//", "/./", "/x/../", "/%2e/", "/x/%2e%2E/", "%2f", "%2F/"])


@given(st.sampled_from(REFUSED), st.data())
def test_a_refused_path_is_refused_however_it_is_written(path: str, data: st.DataObject) -> None:
    written = ""
    for char in path.replace("{conversation}", "some id"):
        if char == "/":
            written += data.draw(SLASHES)
        elif data.draw(st.booleans()):
            written += f"%{ord(char):02x}"
        else:
            written += char
    assert refusal(written + data.draw(st.sampled_from(["", "/", "/."])), "") is not None


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_target_is_judged(path: str, query: str) -> None:
    reason = refusal(path, query)
    assert reason is None or reason
    if unquote(path) in REFUSED:
        assert reason is not None


@given(st.sampled_from(["save", "restore"]), st.data())
def test_files_of_slots_are_refused_however_it_is_written(action: str, data: st.DataObject) -> None:
    written = "".join(f"%{ord(c):02X}" if data.draw(st.booleans()) else c for c in action)
    before = data.draw(st.lists(st.sampled_from(["a=b", "action=erase", "", "&"])))
    after = data.draw(st.lists(st.sampled_from(["a=b", "action=erase", "", "x=;"])))
    assert refusal("/slots/0", "&".join([*before, f"action={written}", *after])) is not None


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4))
def test_a_key_never_stays_in_a_query(pairs: list[tuple[str, str]]) -> None:
    secret = "llmgw_secret"
    raw = urlencode([*pairs, ("authKey", secret), *pairs])
    left = without_key(raw)
    assert secret not in left
    assert parse_qsl(left, keep_blank_values=True) == [
        pair for pair in pairs * 2 if pair[0] != "authKey"
    ]


def test_keys_stay_here() -> None:
    assert without_key("authKey=k") == ""
    assert without_key("a=1&authKey=k&b=%2F&c") == "a=1&b=%2F&c"
    assert without_key("%61uthKey=k&x=authKey") == "x=authKey"
    assert without_key("") == ""
