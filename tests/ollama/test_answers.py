"""The lines that a stream of events becomes, and the answer that the same stream becomes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from gateway.errors import BackendError
from gateway.ollama.answers import LONGEST, Clock, Gathered, Lines, Shape
from gateway.ollama.context import unpack

CHAT, GENERATE = Shape("m", chat=True), Shape("m", chat=False)
ASKED = ({"role": "user", "content": "hi"},)
TIMINGS = {"prompt_n": 3, "cache_n": 7, "prompt_ms": 1.5, "predicted_n": 2, "predicted_ms": 4.25}


def events(*deltas: dict[str, Any], finish: str = "stop", **last: Any) -> bytes:
    """A stream as llama-server sends it (tools/server, builds of 2025 and 2026)."""
    made = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], **last}
    texts = [json.dumps(event) for event in (*made, end)]
    return b"".join(f"data: {text}\n\n".encode() for text in [*texts, "[DONE]"])


def lines(data: bytes, shape: Shape = CHAT) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Lines(shape, Clock()).feed(data).splitlines()]


def gathered(data: bytes, shape: Shape = CHAT) -> dict[str, Any]:
    made = Gathered(shape, Clock())
    made.feed(data)
    assert made.complete
    return made.answer()


def test_each_piece_of_text_is_a_line() -> None:
    first, second, last = lines(
        events({"role": "assistant"}, {"content": "Hel"}, {"content": "lo"})
    )
    assert first["message"] == {"role": "assistant", "content": "Hel"}
    assert (first["model"], first["done"]) == ("m", False)
    assert second["message"]["content"] == "lo"
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"]) == (True, "stop")


def test_a_completion_has_its_text_in_another_field() -> None:
    *texts, last = lines(events({"content": "Hi"}), GENERATE)
    assert [line["response"] for line in texts] == ["Hi"]
    assert (last["response"], last["done"]) == ("", True)
    assert "context" not in last


def test_the_last_line_tells_what_it_took() -> None:
    (*_, last) = lines(events({"content": "Hi"}, timings=TIMINGS))
    assert (last["prompt_eval_count"], last["eval_count"]) == (10, 2)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (1_500_000, 4_250_000)
    assert last["total_duration"] > 0
    assert last["load_duration"] == 0


def test_what_a_server_elsewhere_does_not_tell_is_measured() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    data = events({"content": "Hi"}).replace(b"data: [DONE]", b"")
    own = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps({"choices": [], "usage": usage}).encode()
    (*_, last) = lines(data + own)
    assert (last["prompt_eval_count"], last["eval_count"]) == (10, 2)
    assert last["eval_duration"] > 0
    assert last["prompt_eval_duration"] > 0


def test_loading_counts_by_itself() -> None:
    made = Lines(CHAT, Clock(loading=lambda: 2.5))
    last = json.loads(made.feed(events(timings=TIMINGS)).splitlines()[-1])
    assert last["load_duration"] == 2_500_000_000


def test_thoughts_stand_beside_the_text() -> None:
    data = events({"reasoning_content": "Hm"}, {"reasoning_content": "m."}, {"content": "Yes."})
    assert [line["message"].get("thinking") for line in lines(data)] == ["Hm", "m.", None, None]
    whole = gathered(data, GENERATE)
    assert (whole["thinking"], whole["response"]) == ("Hmm.", "Yes.")


def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": more["name"]} if "name" in more else {})}
    id_ = {"id": more["id"]} if "id" in more else {}
    return {"tool_calls": [{"index": index, **id_, "type": "function", "function": function}]}


def test_calls_of_tools_come_whole_before_the_end() -> None:
    pieces = (
        call(0, "", name="weather", id="a1"),
        call(0, '{"city":'),
        call(0, ' "Cairo"}'),
        call(1, "{}", name="now"),
    )
    data = events(*pieces, finish="tool_calls")
    told, last = lines(data)
    weather = {"index": 0, "name": "weather", "arguments": {"city": "Cairo"}}
    now = {"index": 1, "name": "now", "arguments": {}}
    calls = [{"id": "a1", "function": weather}, {"function": now}]
    assert told["message"] == {"role": "assistant", "content": "", "tool_calls": calls}
    assert (told["done"], last["done"], last["done_reason"]) == (False, True, "stop")
    assert gathered(data)["message"]["tool_calls"] == calls


def test_a_call_that_was_cut_off_is_none() -> None:
    data = events(call(0, '{"city": "Ca', name="weather"), finish="length")
    (last,) = lines(data)
    assert last["done_reason"] == "length"
    assert "tool_calls" not in gathered(data)["message"]


def test_probabilities_come_with_their_tokens() -> None:
    top = [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}, {"token": "Yo", "logprob": -2}]
    told = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": top}]}
    data = events({"content": "Hi"}).replace(
        b'"delta": {"content": "Hi"}',
        b'"delta": {"content": "Hi"}, "logprobs": %b' % json.dumps(told).encode(),
    )
    assert lines(data)[0]["logprobs"] == told["content"]
    assert gathered(data)["logprobs"] == told["content"]


def test_llama_servers_own_completions_end_with_stop() -> None:
    data = b"".join(
        b"data: %b\n\n" % json.dumps(event).encode()
        for event in (
            {"content": "return", "stop": False},
            {"content": " 1", "stop": False},
            {"content": "", "stop": True, "stop_type": "limit", "timings": TIMINGS},
        )
    )
    *texts, last = lines(data, GENERATE)
    assert [line["response"] for line in texts] == ["return", " 1"]
    assert (last["done_reason"], last["eval_count"]) == ("length", 2)
    assert gathered(data, GENERATE)["response"] == "return 1"


def test_a_context_holds_question_and_answer() -> None:
    shape = Shape("m", chat=False, before=ASKED)
    data = events({"content": "Hel"}, {"content": "lo"})
    wanted = [*ASKED, {"role": "assistant", "content": "Hello"}]
    assert unpack(lines(data, shape)[-1]["context"]) == wanted
    assert unpack(gathered(data, shape)["context"]) == wanted


@pytest.mark.parametrize(
    "error",
    [
        b'data: {"error": {"code": 500, "message": "no room", "type": "server_error"}}\n\n',
        b'error: {"code": 500, "message": "no room", "type": "server_error"}\n\n',
        b'data: {"error": "no room"}\n\n',
    ],
)
def test_an_error_within_a_stream_is_its_last_line(error: bytes) -> None:
    data = events({"content": "Hi"}).partition(b"data: [DONE]")[0]
    made = Lines(CHAT, Clock())
    assert json.loads(made.feed(data + error).splitlines()[-1]) == {"error": "no room"}
    assert made.complete
    assert made.feed(b"data: [DONE]\n\n") == b""
    one = Gathered(CHAT, Clock())
    one.feed(data + error)
    assert one.error is not None
    assert one.error["message"] == "no room"


def test_a_stream_that_breaks_off_says_why() -> None:
    made = Lines(CHAT, Clock())
    assert made.last(b"", BackendError("the model died")) == b'{"error":"the model died"}\n'
    assert made.complete


def test_a_heartbeat_is_a_line_that_adds_nothing() -> None:
    made = Lines(CHAT, Clock())
    beat = json.loads(made.pulse(b"loading m, 3 s", True))
    assert (beat["message"]["content"], beat["done"]) == ("", False)
    assert made.half() == b""
    made.feed(events())
    assert made.half() is None  # nothing comes behind the last line


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_pieces_of_any_size_become_the_same_lines(end: bytes) -> None:
    data = events(
        {"content": "Wie heißt "}, {"reasoning_content": "x"}, {"content": "er? \U0001f40a"}
    )
    whole = lines(data)
    data = data.replace(b"\n", end)
    for seed in range(30):
        chance, made, at, found = random.Random(seed), Lines(CHAT, Clock()), 0, b""
        while at < len(data):
            size = chance.randrange(1, 40)
            found += made.feed(data[at : at + size])
            at += size
        assert [json.loads(line).get("message") for line in found.splitlines()] == [
            line.get("message") for line in whole
        ]


def test_an_event_without_an_end_is_given_up() -> None:
    made = Lines(CHAT, Clock())
    assert made.feed(b"data: " + b"x" * (LONGEST + 1)) == b""
    assert made.over


def test_a_server_that_sends_no_stream_is_understood() -> None:
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    whole = {"choices": [{"message": message, "finish_reason": "length"}], "usage": usage}
    made = Gathered(CHAT, Clock())
    answer = json.loads(made.rewritten(json.dumps(whole).encode(), whole))
    assert answer["message"] == {"role": "assistant", "content": "Hello", "thinking": "Hm."}
    assert (answer["done_reason"], answer["prompt_eval_count"]) == ("length", 3)
    assert made.rewritten(b"{}", {"done": True}) == b"{}"
