"""Our name for a model in what a server elsewhere sends, and nothing else of it changed."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.renaming import RenamingInEvents, RenamingInJson, renamed

THERE = '/models/secret path/\u00e4 "q" \\.gguf'
HERE = 'our "name" \u00fc'
#: What looks like a name and is none.
TRAPS: dict[str, Any] = {
    "text": 'a "model":"no", and "model',
    'a"model': "no",
    "input": {"model": THERE, "deep": [{"model": "no"}, '"model":"no"']},
    "models": ["model", "no"],
    "metadata": [{"model": THERE}],
    "number": 123456789012345678901234567890.10,
    "empty": {},
    "list": [[], [{}], [1, [2]]],
    "end\\": "\\",
}


def in_pieces(feed: Any, data: bytes, size: int) -> bytes:
    out = b"".join(feed.feed(data[at : at + size]) for at in range(0, len(data), size))
    return out + feed.rest()


def answers() -> list[Any]:
    first, last = {"model": THERE, **TRAPS}, {**TRAPS, "model": THERE}
    return [first, last, {"model": THERE}, {**TRAPS, "model": THERE, "more": TRAPS}]


@pytest.mark.parametrize(
    "dump", [json.dumps, lambda v: json.dumps(v, indent=2, ensure_ascii=False)]
)
@pytest.mark.parametrize("answer", answers())
def test_model_is_renamed_in_a_complete_answer_and_nothing_else(answer: Any, dump: Any) -> None:
    sent = dump(answer).encode()
    wanted = json.loads(sent) | {"model": HERE}
    outs = [renamed(sent, orjson.loads(sent), HERE)]
    outs += [in_pieces(RenamingInJson(HERE), sent, size) for size in (*range(1, 40), 10_000)]
    for out in outs:
        assert json.loads(out) == wanted
        assert list(json.loads(out)) == list(wanted)
        was = json.dumps(THERE, ensure_ascii=dump is json.dumps).encode()
        assert out.replace(orjson.dumps(HERE), was) == sent  # and not another byte


@pytest.mark.parametrize(
    "sent",
    [
        b'{"model":null,"x":{"model":"a"}}',
        b'{"model":7}',
        b'{"model":{"model":"a"}}',
        b'{"model":["model","a"],"b":"c"}',
        b'{"x":{"model":"a"}}',
        b'[{"model":"a"}]',
        b'["model","a"]',
        b'"model"',
        b"{}",
        b"",
        b'{"model": "unfinis',
        b'{"mod',
        b'{"a":"b\\',
        b"no JSON",
    ],
)
def test_answer_that_names_no_model_stays_as_it_is(sent: bytes) -> None:
    for size in range(1, len(sent) + 2):
        assert in_pieces(RenamingInJson(HERE), sent, size) == sent
    try:
        parsed = orjson.loads(sent)
    except ValueError:
        return
    assert renamed(sent, parsed, HERE) == sent


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["model", '"model":"']),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["model", 'x"model']), inner)
    ),
    max_leaves=20,
)


@given(value=JSON, size=st.integers(1, 50))
def test_model_is_renamed_in_any_json(value: Any, size: int) -> None:
    sent = json.dumps(value).encode()
    wanted = value
    if isinstance(value, dict) and isinstance(value.get("model"), str):
        wanted = value | {"model": HERE}
    assert json.loads(in_pieces(RenamingInJson(HERE), sent, size)) == wanted
    assert json.loads(renamed(sent, json.loads(sent), HERE)) == wanted


def stream(*events: Any, end: str = "\n\n", dump: Any = json.dumps) -> bytes:
    lines = [event if isinstance(event, str) else f"data: {dump(event)}" for event in events]
    return "".join(line + end for line in lines).encode()


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("dump", [json.dumps, lambda v: orjson.dumps(v).decode()])
def test_model_is_renamed_in_a_stream(end: str, dump: Any) -> None:
    words: list[dict[str, Any]] = [
        {"id": "1", "model": THERE, "choices": [{"delta": {"content": word}}]}
        for word in ("a", '"model":"no"', 'a "model', "\\", '\\"model\\":\\"no\\"')
    ]
    others: list[dict[str, Any]] = [
        {"model": "", "choices": []},
        {"choices": []},
        {"model": "another"},
        words[0],
    ]
    sent = stream(": comment", *words, *others, "data: [DONE]", end=end, dump=dump)
    wanted = [event | ({"model": HERE} if "model" in event else {}) for event in (*words, *others)]
    for size in (*range(1, 80), 100_000):
        out = in_pieces(RenamingInEvents(HERE), sent, size)
        assert [json.loads(line[6:]) for line in out.splitlines() if b"{" in line] == wanted
        assert out.startswith(f": comment{end}".encode())
        assert out.endswith(f"data: [DONE]{end}".encode())


def test_only_lines_that_are_complete_go_out() -> None:
    names = RenamingInEvents(HERE)
    assert names.feed(b'data: {"model":"there"}\n\ndata: {"mod') == (
        b'data: {"model":%b}\n\n' % orjson.dumps(HERE)
    )
    assert names.feed(b'el":"the') == b""
    assert names.feed(b're"}\n') == b'data: {"model":%b}\n' % orjson.dumps(HERE)
    assert names.feed(b"\n") == b"\n"
    assert names.feed(b"data: [DONE]") == b""
    assert names.rest() == b"data: [DONE]"
    assert names.rest() == b""


def test_anthropics_model_is_renamed_only_once() -> None:
    start: Any = {"type": "message_start", "message": {"role": "assistant", "model": THERE}}
    block = {"type": "content_block_start", "content_block": {"input": {"model": THERE}}}
    sent = stream("event: message_start", start, block)
    start["message"]["model"] = HERE
    for size in (*range(1, 80), 100_000):
        out = in_pieces(RenamingInEvents(HERE, once=True), sent, size)
        assert [json.loads(line[6:]) for line in out.splitlines() if b"{" in line] == [start, block]


@pytest.mark.parametrize("before", [0, 2**20 - 3, 2**20 - 50, 2**20 + 1000])
def test_a_line_without_an_end_is_not_collected(before: int) -> None:
    names = RenamingInEvents(HERE)
    sent = b'data: {"x":"' + b"x" * before + b'","model":"there","y":"'
    out = b"".join(names.feed(sent[at : at + 5000]) for at in range(0, len(sent), 5000))
    for _ in range(300):
        out += names.feed(b"x" * 10_000)
        assert len(sent) + 3_000_000 - len(out) > 0
    assert len(out) > 3_000_000 + before - 2**20 - 20_000
    assert re.search(rb'"model":"(.*?)(?<!\\)"', out)[0] == b'"model":%b' % orjson.dumps(HERE)
