"""What answers took that don't tell by themselves, in whatever pieces they come."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.asking import ask_to_tell
from gateway.proxy.gathered import Completions, GatheredChoices, status_of
from gateway.proxy.sse import Tail, Usage, usage_of
from gateway.proxy.telling import (
    Both,
    TellingInEvents,
    TellingInJson,
    ask_for_timings,
    without_timings,
)

TIMINGS = {"cache_n": 3, "prompt_n": 4, "predicted_n": 5, "predicted_per_second": 80.5}
TOLD = Usage(7, 5, 3, 80.5)
#: What an answer may say that tells nothing.
LIE = '{"usage":{"prompt_tokens":1,"completion_tokens":1},"timings":{"prompt_n":1,"predicted_n":1}}'


def dumped(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


def stream(*events: Any) -> bytes:
    return b"".join(b"data: " + dumped(event) + b"\n\n" for event in events)


def fed(reader: Any, data: bytes, sizes: list[int]) -> bytes:
    out, at = [], 0
    for size in [*sizes, len(data)]:
        if piece := data[at : at + size]:
            out.append(reader.feed(piece))
        at += size
    return b"".join([*out, reader.rest()])


SIZES = st.lists(st.integers(1, 60), max_size=200)
TEXTS = st.one_of(st.just(LIE), st.just(',"timings":{"a'), st.text())


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        (None, None),
        ([], None),
        ("content", None),
        (["content", 5], None),
        (["content", "timings"], None),
        (["content"], ["content", "timings"]),
        (["timings/predicted_n"], ["timings/predicted_n", "timings"]),
    ],
)
def test_numbers_are_asked_for_where_they_lack(fields: Any, asked: Any) -> None:
    body = {"response_fields": fields}
    assert ask_for_timings(body) is (asked is not None)
    assert body == {"response_fields": asked or fields}


@given(TEXTS, TEXTS, SIZES)
def test_what_was_asked_for_besides_is_taken_out(text: str, more: str, sizes: list[int]) -> None:
    wanted = {"content": text, "x": {"timings/prompt_n": 1, "y": more}}
    for answer in ({**wanted, "timings": TIMINGS}, [{**wanted, "timings": TIMINGS}] * 3):
        left = wanted if isinstance(answer, dict) else [wanted] * 3
        assert without_timings(dumped(answer)) == dumped(left)
        reader = TellingInJson(1, several=isinstance(answer, list), strip=True)
        assert fed(reader, dumped(answer), sizes) == dumped(left)
        assert reader.usage() == usage_of(answer)
    assert without_timings(b'{"timings":{"a":1}}') == b"{}"


@given(TEXTS, SIZES)
def test_what_was_asked_for_is_taken_out_of_events(text: str, sizes: list[int]) -> None:
    """With whatever the client has chosen, and with numbers told on the way."""
    own = [
        {"index": i % 2, "content": text, "stop": False, "timings": {**TIMINGS, "predicted_n": i}}
        for i in range(10)
    ]
    for last in ({"content": ""}, {}, {"index": 1, "stop": True}):
        events = [*own, {**last, "timings": TIMINGS}, {**last, "timings": TIMINGS}]
        plain = TellingInEvents(2, strip=False)
        assert fed(plain, stream(*events), sizes) == stream(*events)
        assert plain.usage() == Usage(7, 10, 3, 80.5)
        # A stream that is cut: one has ended with 5, the other has come to 8.
        cut = TellingInEvents(2, strip=False)
        fed(cut, stream(*events[:-1]), sizes)
        assert cut.usage() == Usage(7, 5 + (9 if last.get("index") is None else 8), 3, 80.5)
    stripped = TellingInEvents(1, strip=True)
    events = [{"content": text, "stop": False}, {"content": text, "timings": TIMINGS}]
    assert fed(stripped, stream(*events), sizes) == stream(events[0], {"content": text})
    assert stripped.usage() == TOLD


@given(TEXTS, SIZES, st.booleans())
def test_usage_of_several_choices_is_summed(
    text: str, sizes: list[int], one_of_its_own: bool
) -> None:
    events: list[dict[str, Any]] = []
    for end in (None, "stop"):
        for index in (1, 0):
            delta = {"content": text} if end is None else {}
            choice = {"index": index, "delta": delta, "finish_reason": end}
            event: dict[str, Any] = {"choices": [choice], "id": "x", "timings": TIMINGS}
            if end is not None and one_of_its_own:
                del event["timings"]
                numbers = {"choices": [], "usage": {"prompt_tokens": 7}, "timings": TIMINGS}
                numbers["usage"] = {"prompt_tokens": 7, "completion_tokens": 5}
                events += (event, numbers)
            else:
                events.append(event)
    reader = TellingInEvents(2, strip=False)
    fed(reader, stream(*events) + b"data: [DONE]\n\n", sizes)
    usage = reader.usage()
    assert usage is not None
    assert usage[:2] == (7, 10)


@given(TEXTS, TEXTS, SIZES)
def test_a_long_answer_is_believed_in_its_last_word(text: str, key: str, sizes: list[int]) -> None:
    """The input of a tool may have keys of any name (Anthropic's ``tool_use``)."""
    held = {"usage": {"input_tokens": 0}, "timings": {"prompt_n": 0, "predicted_n": 0}, key: text}
    usage = {"input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 5}
    answer = {"content": [{"type": "tool_use", "input": held}, {"text": text}], "usage": usage}
    reader = TellingInJson(1, several=False, strip=False)
    assert fed(reader, dumped(answer), sizes) == dumped(answer)
    assert reader.usage() == Usage(7, 5, 3)
    assert reader.size == len(dumped(answer))


@given(TEXTS, SIZES, st.integers(0, 9))
def test_tokens_are_counted_by_their_logprobs(text: str, sizes: list[int], more: int) -> None:
    token = {"token": text, "top_logprobs": [{"token": text}]}
    choices = [{"logprobs": {"content": [token] * count}} for count in (5, 5 + more)]
    usage = {"prompt_tokens": 7, "completion_tokens": 5}
    answer = {"choices": choices, "usage": usage, "timings": TIMINGS}
    assert usage_of(answer) == Usage(7, 10 + more, 0, 80.5)
    reader = TellingInJson(2, several=True, strip=False)
    fed(reader, dumped({"choices": choices, "timings": TIMINGS}), sizes)
    assert reader.usage() == Usage(7, 10 + more, 3, 80.5)


def test_numbers_before_a_long_list_are_found() -> None:
    answer = {"content": LIE, "timings": TIMINGS, "completion_probabilities": [{"a": 1}] * 50_000}
    reader = TellingInJson(1, several=False, strip=False)
    fed(reader, dumped(answer), [65_536] * 50)
    assert reader.usage() == TOLD


def test_usage_is_found_in_a_last_event_longer_than_what_is_kept() -> None:
    """llama.cpp's own repeats the prompt."""
    last = {"content": "", "stop": True, "prompt": LIE * 2000, "timings": TIMINGS}
    tail = Tail()
    for piece in (stream({"content": "x", "stop": False}), stream(last)):
        tail.feed(piece)
    assert tail.usage() == TOLD


def test_llama_cpps_own_events_tell_as_they_come() -> None:
    """So they count what was written, and not what was sent, when they are hung up on."""
    tail = Tail()
    tail.feed(stream({"content": "", "stop": False, "tokens_predicted": 9, "tokens_evaluated": 4}))
    assert tail.usage() == Usage(4, 9)


def test_two_readers_work_one_behind_the_other() -> None:
    class Upper:
        def feed(self, data: bytes) -> bytes:
            return data.upper()

        def rest(self) -> bytes:
            return b"!"

    both = Both(TellingInJson(1, several=False, strip=True), Upper())
    answer = {"content": "a", "timings": TIMINGS}
    assert fed(both, dumped(answer), [3] * 100) == b'{"CONTENT":"A"}!'


# --- several answers that are put together ---------------------------------------------------


def gathered(*events: Any, sizes: list[int]) -> GatheredChoices:
    reader, data, at = GatheredChoices(2), stream(*events) + b"data: [DONE]\n\n", 0
    for size in [*sizes, len(data)]:
        assert not reader.complete
        reader.feed(data[at : at + size])
        at += size
        if at >= len(data):
            break
    assert reader.complete
    return reader


@given(st.text(), SIZES)
def test_gathered_chat_is_put_together(text: str, sizes: list[int]) -> None:
    def event(index: int, end: str | None = None, **delta: Any) -> dict[str, Any]:
        choice = {"finish_reason": end, "index": index, "delta": delta}
        return {"choices": [choice], "id": "x", "model": "m", "object": "chat.completion.chunk"}

    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    reader = gathered(
        event(1, role="assistant", content=None),
        event(1, content=text),
        event(0, role="assistant", content=None),
        event(1, content=text),
        event(0, reasoning_content="so "),
        event(0, reasoning_content=text),
        event(0, tool_calls=[call]),
        event(0, tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
        {**event(1, "stop"), "timings": TIMINGS},
        {**event(0, "tool_calls"), "timings": TIMINGS},
        sizes=sizes,
    )
    answer = reader.answer()
    function = {"name": "f", "arguments": "{}"}
    assert answer["choices"] == [
        {
            "finish_reason": "tool_calls",
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "",
                "reasoning_content": f"so {text}",
                "tool_calls": [{"type": "function", "function": function, "id": "c"}],
            },
        },
        {
            "finish_reason": "stop",
            "index": 1,
            "message": {"role": "assistant", "content": text * 2},
        },
    ]
    assert (answer["object"], answer["model"], answer["id"]) == ("chat.completion", "m", "x")
    assert usage_of({"usage": answer["usage"]}) == Usage(7, 5, 3)  # as llama-server: of the first
    assert answer["timings"] == TIMINGS
    assert reader.usage() == Usage(7, 10, 3, 80.5)
    assert reader.events == 10


@given(st.text(), SIZES)
def test_gathered_completions_are_put_together(text: str, sizes: list[int]) -> None:
    def event(index: int, said: str) -> dict[str, Any]:
        return {"index": index, "content": said, "tokens": [7], "stop": False}

    last = {"content": "", "tokens": [], "stop": True, "timings": TIMINGS, "prompt": LIE}
    settings = {"generation_settings": {"stream": True, "seed": 4}}
    events = [event(1, text), event(0, LIE), event(1, text), {"index": 1, **last}, event(0, text)]
    for fields in ([], ["content", "generation_settings/seed", "nothing/here", "index"]):
        reader = Completions(1, fields)
        for part in (stream(*events), stream({"index": 0, **last, **settings})):
            assert not reader.complete
            at = 0
            for size in [*sizes, len(part)]:
                reader.feed(part[at : at + size])
                at += size
        assert reader.complete
        first, second = reader.answer()
        if fields:
            assert first == {
                "content": LIE + text,
                "generation_settings/seed": 4,
                "index": 0,
            }
            assert second == {"content": text * 2, "index": 1}
        else:
            plain = {"generation_settings": {"stream": False, "seed": 4}}
            assert first == {"index": 0, **last, **plain, "content": LIE + text}
            assert second == {"index": 1, **last, "content": text * 2}
        assert reader.usage() == Usage(14, 10, 6, 80.5)
    one = Completions(1)
    one.feed(stream(event(0, text), {"index": 0, **last}))
    assert one.answer() == {"index": 0, **last, "content": text}


def test_error_in_a_gathered_stream_is_read() -> None:
    reader = gathered({"error": {"code": 400, "message": "no"}}, sizes=[5] * 20)
    assert reader.error == {"code": 400, "message": "no"}
    assert status_of(reader.error) == 400
    assert status_of({"code": "x"}) == status_of({"code": 7}) == status_of({}) == 500


@pytest.mark.parametrize(
    ("body", "target", "here", "gathers", "answers"),
    [
        ({"n": 2}, "/v1/chat/completions", True, True, 2),
        ({"n": 2, "stream": True}, "/v1/chat/completions", True, False, 2),
        ({"n": 2}, "/v1/chat/completions", False, False, 2),
        ({"n": 2}, "/v1/responses", True, False, 2),
        ({"n": 3, "n_cmpl": 2}, "/v1/completions", True, True, 2),
        ({"n": 2, "logprobs": True}, "/v1/chat/completions", True, False, 2),
        ({"n": 2, "logprobs": 1}, "/v1/completions", True, True, 2),
        ({"n": 1}, "/v1/completions", True, False, 1),
        ({"n": True}, "/v1/completions", True, False, 1),
        ({"n": "2"}, "/v1/completions", True, False, 1),
        ({"prompt": ["a", "b"]}, "/v1/completions", True, True, 1),
        ({"prompt": [1, 2]}, "/v1/completions", True, False, 1),
        ({"prompt": ["a", "b"]}, "/completion", True, True, 1),
        ({"prompt": ["a", "b"], "return_tokens": True}, "/completion", True, False, 1),
        ({"prompt": ["a", "b"]}, "/completion", False, False, 1),
        ({"n_cmpl": 2, "response_fields": ["content", 7]}, "/infill", True, True, 2),
    ],
)
def test_answer_that_tells_no_usage_is_asked_for_as_a_stream(
    body: dict[str, Any], target: str, here: bool, gathers: bool, answers: int
) -> None:
    sent = orjson.loads(orjson.dumps({**body, "stream_options": {}}))
    asked = ask_to_tell(sent, target, here=here)
    assert (asked.gathers is not None, asked.answers) == (gathers, answers)
    assert asked.changed is gathers
    assert sent.get("stream") is (True if gathers else body.get("stream"))
    assert ("stream_options" in sent) is not gathers
