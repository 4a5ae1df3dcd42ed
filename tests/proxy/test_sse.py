"""Usage out of the last events of a stream, however it was cut into pieces."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gateway.proxy import dialect
from gateway.proxy.sse import AnthropicTail, Tail, Usage, usage_of


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


CHUNK = {"choices": [{"delta": {"content": "x"}}]}
TIMINGS = {"cache_n": 3, "prompt_n": 4, "predicted_n": 5, "predicted_per_second": 80.5}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}
OPENAI = stream(*[CHUNK] * 30, {**CHUNK, "timings": TIMINGS}) + b"data: [DONE]\n\n"
RESPONSES = stream(
    {"delta": "x"},
    {
        "response": {
            "usage": {
                "input_tokens": 7,
                "output_tokens": 5,
                "input_tokens_details": {"cached_tokens": 3},
            }
        },
        "timings": TIMINGS,
    },
)
#: The answer once more, as long as it is.
LONG = stream(
    {"delta": "x"},
    {
        "response": {
            "output": [{"text": "x" * 30_000}],
            "usage": {"input_tokens": 7, "output_tokens": 5},
        }
    },
)
ANTHROPIC = stream(
    {"message": {"usage": {"input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 0}}},
    *[{"delta": {"text": "x"}}] * 30,
    {"usage": {"output_tokens": 5}},
    {"type": "message_stop"},
)


@pytest.mark.parametrize("size", [100, 1000, 10**6])
@pytest.mark.parametrize(
    ("kind", "events", "speed"),
    [(Tail, OPENAI, 80.5), (Tail, RESPONSES, 80.5), (AnthropicTail, ANTHROPIC, None)],
)
def test_usage_is_found_in_each_kind_of_stream(
    kind: type[Tail], events: bytes, speed: float | None, size: int
) -> None:
    tail = kind()
    feed = tail.feed
    for start in range(0, len(events), size):
        feed(events[start : start + size])
    assert tail.usage() == Usage(7, 5, 3, speed)


@pytest.mark.parametrize(
    ("kind", "events", "speed"),
    [(Tail, OPENAI, 80.5), (Tail, RESPONSES, 80.5), (AnthropicTail, ANTHROPIC, None)],
)
@pytest.mark.parametrize("size", [100, 1000])
def test_usage_is_read_from_whole_chunks(
    kind: type[Tail], events: bytes, speed: float | None, size: int
) -> None:
    tail = kind()
    tail.framed = True
    for start in range(0, len(events), size):
        piece = events[start : start + size]
        tail.feed(b"%x\r\n%b\r\n" % (len(piece), piece))
    assert tail.usage() == Usage(7, 5, 3, speed)


@pytest.mark.parametrize("kind", [Tail, AnthropicTail])
def test_stream_that_says_nothing_of_usage_has_none(kind: Any, subtests: pytest.Subtests) -> None:
    for events in (b"", b"data: [DONE]\n\n", b"data: {broken usage\n\n", stream({"usage": 7})):
        with subtests.test(f"{events!r:.80}"):
            tail = kind()
            tail.feed(events)
            assert tail.usage() is None


@pytest.mark.parametrize("size", [4096, 16384, 65536])
def test_usage_is_found_in_a_long_last_event(size: int) -> None:
    tail = dialect.RESPONSES.tail()
    for at in range(0, len(LONG), size):
        tail.feed(LONG[at : at + size])
    assert tail.usage() == Usage(7, 5, 0, None)


def test_a_broken_anthropic_stream_still_tells_the_prompt() -> None:
    tail = AnthropicTail()
    tail.feed(ANTHROPIC[:300])
    assert tail.usage() == Usage(7, 0, 3, None)


def test_usage_is_found_in_whole_answers() -> None:
    assert usage_of({"usage": USAGE, "timings": TIMINGS}) == Usage(7, 5, 3, 80.5)
    assert usage_of({"timings": TIMINGS}) == Usage(7, 5, 3, 80.5)
    anthropic = {"input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 5}
    assert usage_of({"usage": anthropic}) == Usage(7, 5, 3, None)
    assert usage_of({"usage": {"prompt_tokens": 7, "total_tokens": 7}}) == Usage(7, 0, 0, None)


@pytest.mark.parametrize("answer", [[], {}, {"usage": None}, {"response": 7}, None])
def test_an_answer_that_tells_no_usage_has_none(answer: Any) -> None:
    assert usage_of(answer) is None


@pytest.mark.parametrize("tokens", ["-1", "-1e9", "1e30", "18446744073709551615", "true", '"7"'])
def test_impossible_number_of_tokens_is_not_counted(tokens: str) -> None:
    """They would be counted for a key's limits, and no database takes all of them."""
    answer = orjson.loads(f'{{"usage": {{"prompt_tokens": 7.0, "completion_tokens": {tokens}}}}}')
    assert usage_of(answer) == Usage(7, 0, 0, None)


def test_tokens_of_several_answers_are_counted() -> None:
    """llama-server tells the first one's tokens, others those of all."""
    choices: list[Any] = [{"text": "four"}, {"text": "eighteight"}, None]
    told = {"prompt_tokens": 3, "completion_tokens": 2}
    theirs = {"choices": choices, "usage": told}
    assert usage_of(theirs) == Usage(3, 2)
    ours = {**theirs, "timings": {"predicted_per_second": 9.0}}
    assert usage_of(ours) == Usage(3, 2 + 4, 0, 9.0)
    choices[1:] = [{"message": {"content": "four"}}, {"message": {"tool_calls": [1, 2]}}]
    assert usage_of(ours) == Usage(3, 2 + 4, 0, 9.0)
    choices[0] = {"text": ""}
    assert usage_of(ours) == Usage(3, 2 + 11, 0, 9.0)  # a token may be one byte
    assert usage_of([ours, theirs, {}, 7]) == Usage(6, 2 + 11 + 2, 0, 9.0)
    assert usage_of([{}]) is None
