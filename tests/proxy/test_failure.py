"""Errors of llama-server, and ours, in each API's words."""

from __future__ import annotations

import orjson
import pytest

from gateway.errors import BackendError, BadRequest, Unauthorized
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
def test_errors(answer: bytes, message: str) -> None:
    for status in (400, 501):
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
def test_when_to_come_back(status: int) -> None:
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


def test_our_errors_in_both_dialects() -> None:
    error = BackendError("gone")
    assert OPENAI.body(error) == error.body()
    assert ANTHROPIC.body(error)["error"] == {"type": "api_error", "message": "gone"}
    assert ANTHROPIC.body(Unauthorized("who"))["error"]["type"] == "authentication_error"
    for dialect, start in ((OPENAI, b"data: "), (ANTHROPIC, b"event: error\ndata: ")):
        event = dialect.last_event(error)
        assert event.startswith(start)
        assert event.endswith(b"\n\n")
        assert orjson.loads(event.removeprefix(start)) == dialect.body(error)
