"""Errors of llama-server, and ours, in each API's words."""

from __future__ import annotations

import orjson
import pytest

from gateway.errors import (
    BackendError,
    BadRequest,
    RateLimited,
    RequestTimeout,
    Unable,
    Unauthorized,
)
from gateway.proxy.dialect import ANTHROPIC, OPENAI
from gateway.proxy.failure import Failure


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"error":{"message":"m","code":400}}', "m"),
        (b'{"error":"m"}', "m"),
        (b'{"error":{"message":{"a":1}}}', "{'a': 1}"),
        (b'{"error":{}}', "the server gave no reason"),
        (b'{"error":null}', "the server gave no reason"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"m","code":404}', "m"),
        (b'{"detail":[{"loc":["body"]}]}', '{"detail":[{"loc":["body"]}]}'),
        (b"", "the server gave no reason"),
        (b"[1]", "[1]"),
        (b"<html>\xff", "<html>\ufffd"),
        (
            b'{"error":{"message":"too long","n_prompt_tokens":31,"n_ctx":10}}',
            "too long (31 tokens, and the context has 10)",
        ),
        (b'{"error":{"message":"31 of 10","n_prompt_tokens":31,"n_ctx":10}}', "31 of 10"),
    ],
)
@pytest.mark.parametrize("status", [400, 501])
def test_a_failure_keeps_its_status_and_message_in_each_dialect(
    answer: bytes, message: str, status: int
) -> None:
    failure = Failure.read(status, answer)
    assert (failure.status, failure.message) == (status, message)
    error = orjson.loads(OPENAI.error(failure))["error"]
    assert error["message"] == message
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str)
    assert "param" in error
    ours = failure.as_error("so: ")
    assert ours.message == f"so: {message}"
    assert ours.status == (400 if status == 400 else 502)
    kind = "invalid_request_error" if status == 400 else "api_error"
    assert orjson.loads(ANTHROPIC.error(failure)) == {
        "type": "error",
        "error": {"type": kind, "message": message},
    }


@pytest.mark.parametrize("status", [429, 503])
def test_refusal_says_when_to_come_back(status: int) -> None:
    later = [(b"retry-AFTER", b"Wed, 21 Oct 2026 07:28:00 GMT"), (b"X", b"y")]
    for said, expected in ((later, "Wed, 21 Oct 2026 07:28:00 GMT"), ([], "5")):
        failure = Failure.read(status, b"", said)
        assert failure.retry_after == expected
        ours = failure.as_error()
        assert (ours.status, ours.headers) == (status, {"Retry-After": expected})
    assert Failure.read(500, b"").retry_after is None
    assert Failure.read(500, b"", [(b"Retry-After", b"9")]).as_error().headers == {
        "Retry-After": "9"
    }


@pytest.mark.parametrize(
    "answer",
    [
        {"code": 400, "message": "9 of 8", "type": "exceed_context_size_error"},
        {
            "code": 500,
            "message": "input (602 tokens) is too large to process. increase the physical batch "
            "size (current batch size: 512)",
            "type": "server_error",
        },
    ],
)
def test_too_much_input_is_the_clients_mistake(answer: dict[str, object]) -> None:
    failure = Failure.read(500, orjson.dumps({"error": answer}))
    assert (failure.status, failure.message) == (400, answer["message"])
    error = orjson.loads(failure.in_openai_shape())["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["type"] == "exceed_context_size_error"
    ours = failure.as_error()
    assert isinstance(ours, BadRequest)
    assert ours.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("message", "lacking"),
    [
        ("tools param requires --jinja flag", "tools"),
        ("tool_choice param requires --jinja flag", "tools"),
        ("image input is not supported - hint: if this is unexpected, you may need ...", "media"),
        ("This server does not support embeddings. Start it with `--embeddings`", "embeddings"),
        ("This server does not support reranking. Start it with `--reranking`", "reranking"),
        ("the current context does not logits computation. skipping", "generation"),  # 2025
        ("This server does not support image input for decisions. For a model that", "media"),
        ("This server does not support metrics endpoint. Start it with `--metrics`", "metrics"),
        ("This server does not support slots endpoint. Start it with `--slots`", "slots"),
        ("This server does not support changing global properties. Start it with", "props"),
        ("'messages' is required", None),
        ('"input_prefix" is required', None),
        ("Failed to parse messages: Missing tool call function: {}", None),
        ("Failed to parse tools: Missing tool type: null; tools = []", None),
        ("Failed to parse tool call arguments as JSON: [json.exception.parse_error.101]", None),
        ("Only one completion choice is allowed", None),
        ("got exception: Unexpected empty grammar stack after accepting piece: . (30)", None),
        ("All non-assistant messages must contain 'content'", None),
        ("System message must be at the beginning. at row 85, column 32:\n  ...", None),
        ("[json.exception.type_error.302] type must be string, but is null", None),
    ],
)
def test_a_500_for_the_clients_mistake_is_a_400(message: str, lacking: str | None) -> None:
    for status in (500, 501) if lacking is None else (400, 500, 501):
        answer = {"error": {"code": status, "message": message, "type": "server_error"}}
        failure = Failure.read(status, orjson.dumps(answer))
        assert (failure.status, failure.message) == (400, message)
        assert failure.lacking == lacking
        assert not failure.fleeting
        error = orjson.loads(OPENAI.error(failure))["error"]
        assert error["type"] == "invalid_request_error"
        assert (error["code"] == "unsupported_by_model") == (lacking is not None)
        ours = failure.as_error()
        assert (ours.status, ours.headers) == (400, {"x-should-retry": "false"})


@pytest.mark.parametrize(
    "message",
    [
        "failed to decode, ret = -3",
        "Compute error.",
        "The request failed: Failed to parse messages",
        "std::bad_alloc",
        "vector::_M_range_check: __n (which is 7) >= this->size() (which is 7)",
        "[json.exception.parse_error.101] parse error",
    ],
)
def test_any_other_500_stays_one(message: str, subtests: pytest.Subtests) -> None:
    answer = orjson.dumps({"error": {"message": message}})
    failure = Failure.read(500, answer)
    assert failure.status == 500
    assert failure.fleeting
    # And what a proxy says, or with another status, isn't llama-server's.
    for status in (502, 503, 504):
        with subtests.test(f"{status!r:.80}"):
            said = orjson.dumps({"error": {"message": "tools param requires --jinja flag"}})
            assert Failure.read(status, said).status == status


def test_clients_mistake_is_not_to_be_sent_again(subtests: pytest.Subtests) -> None:
    for error in (BadRequest("x"), Unable("x")):
        assert error.headers == {"x-should-retry": "false"}
    for again in (RequestTimeout("x"), BackendError("x"), RateLimited("x")):
        with subtests.test(f"{again!r:.80}"):
            assert "x-should-retry" not in again.headers


def test_our_errors_have_the_shape_of_both_dialects() -> None:
    error = BackendError("gone")
    assert OPENAI.body(error) == error.body()
    assert ANTHROPIC.body(error)["error"] == {"type": "api_error", "message": "gone"}
    assert ANTHROPIC.body(Unauthorized("who"))["error"]["type"] == "authentication_error"
    for dialect, start in ((OPENAI, b"data: "), (ANTHROPIC, b"event: error\ndata: ")):
        event = dialect.last_event(error)
        assert event.startswith(start)
        assert event.endswith(b"\n\n")
        assert orjson.loads(event.removeprefix(start)) == dialect.body(error)


def test_an_error_may_nest_deeply() -> None:
    details = "[" * 300 + "]" * 300
    failure = Failure.read(500, b'{"error": {"message": "m", "details": %b}}' % details.encode())
    assert orjson.loads(failure.in_openai_shape())["error"]["message"] == "m"
