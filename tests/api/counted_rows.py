"""Requests to every relayed route, with what each may be counted as."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.parrot_model import TOOL

STORY = "the story and a the " * 4
#: A random model says something only when it is held to it. Nothing is taken from its cache where a
#: request may say so: /metrics has only what was read anew.
HELD = {"grammar": "root ::= [a-z ]*", "ignore_eos": True, "temperature": 0, "cache_prompt": False}
SHORT = {"max_tokens": 7, "n_predict": 7}
LIE = '{"usage":{"prompt_tokens":0,"completion_tokens":0},"timings":{"prompt_n":0,"predicted_n":0}}'
LYING = {"grammar": f"root ::= {LIE!r}".replace('"', '\\"').replace("'", '"')}
USER = {"role": "user", "content": STORY}
#: 256 KiB are parsed as a whole. What is longer flows by.
LONG = {"max_tokens": 400, "n_predict": 400}
STREAM = {"stream": True}
STREAMED = (
    STREAM,
    {**STREAM, "stream_options": {"include_usage": True}},
    {**STREAM, "stream_options": {"include_usage": False}},
    {**STREAM, "timings_per_token": True, "return_progress": True},
    {**STREAM, "timings_per_token": True, "stream_options": {"include_usage": True}},
)


@dataclass(frozen=True)
class Row:
    """A request to a path at llama-server (``fields`` of its body), and its answer's status.

    ``least``: bytes of the answer.
    """

    model: str
    target: str
    fields: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    least: int = 0


def rows() -> Iterator[Row]:
    for more in ({}, *STREAMED):
        for several in ({}, {"n": 2}, {"n_cmpl": 2}):
            yield chat({**several, **more})
            yield Row(
                "text", "/v1/completions", {**HELD, **SHORT, "prompt": STORY, **several, **more}
            )
        yield chat({**LYING, **more, "max_tokens": 200, "n": 2})
        yield chat({**LYING, **more, "max_tokens": 200})
        # A text that may be the end is kept back: no event tells of it.
        yield chat({**more, "stop": ["z" * 100], "grammar": "root ::= [z]{99} [a-y]*", "n": 2})
        for prompt in (["a", STORY], [[1, 280, 281], [282]], ["a", 280, "the"], [1, 280, 281]):
            for several in ({}, {"n": 2}):
                body = {**HELD, **SHORT, "prompt": prompt, **several, **more}
                yield Row("text", "/v1/completions", body)
    yield chat({**LONG, "logprobs": True, "top_logprobs": 10}, least=2**18)
    yield chat({**LONG, **STREAM, "logprobs": True, "top_logprobs": 10}, least=2**18)
    yield chat({**LONG, "logprobs": True, "top_logprobs": 10, "n": 2}, least=2**18)
    body = {**HELD, **LONG, "prompt": STORY, "logprobs": 10}
    yield Row("text", "/v1/completions", body, least=2**18)
    yield Row("text", "/v1/completions", {**body, "prompt": ["a", STORY]}, least=2**18)

    own = {**HELD, **SHORT, "prompt": STORY}
    for target in ("/completion", "/completions"):
        for more in ({}, STREAM, {**STREAM, "timings_per_token": True, "return_progress": True}):
            for fields in (
                None,
                [],
                ["content"],
                ["nothing"],
                ["timings/predicted_n"],
                ["timings"],
            ):
                chosen = {} if fields is None else {"response_fields": fields}
                yield Row("text", target, {**own, **more, **chosen})
                yield Row("text", target, {**own, **more, **chosen, "prompt": ["a", STORY]})
                yield Row("text", target, {**own, **more, **chosen, "n_cmpl": 2})
            for odd in (["content", 5], "content"):
                yield Row("text", target, {**own, **more, "response_fields": odd})
            yield Row("text", target, {**own, **more, "return_tokens": True})
            yield Row("text", target, {**own, **more, "prompt": [1, 280], "n_probs": 3})
            both = {"prompt": ["a", STORY], "n_cmpl": 2, "response_fields": ["content"]}
            yield Row("text", target, {**own, **more, **both})
    # One of them can't be read; by then the others may have been answered.
    invalid = {**own, "prompt": [STORY, [2**30]]}
    yield Row("one", "/completion", invalid, status=400)
    yield Row("one", "/completion", {**invalid, "response_fields": ["content"]}, status=400)
    yield Row("one", "/completion", {**invalid, **STREAM})
    yield Row("one", "/v1/completions", invalid, status=400)
    yield Row("one", "/v1/completions", {**invalid, **STREAM})
    long = {**own, **LONG, "n_probs": 10}
    yield Row("text", "/completion", long, least=2**18)
    kept = ["content", "completion_probabilities"]
    yield Row("text", "/completion", {**long, "response_fields": kept}, least=2**18)
    two: dict[str, Any] = {"prompt": ["a", STORY], "response_fields": kept}
    yield Row("text", "/completion", {**long, **two}, least=2**18)

    for more in ({}, STREAM, {**STREAM, "timings_per_token": True}):
        short = {**HELD, "max_output_tokens": 7, "input": STORY}
        yield Row("text", "/v1/responses", {**short, **more})
        yield Row("text", "/v1/responses", {**short, **more, "n": 2})
        yield Row("text", "/v1/messages", {**HELD, **SHORT, "messages": [USER], **more})
        yield Row("text", "/v1/messages", {**HELD, **SHORT, "messages": [USER], "n": 2, **more})
        gap = {"input_prefix": "a", "input_suffix": "b", "cache_prompt": False, **more}
        yield Row("parrot", "/infill", gap)
        yield Row("parrot", "/infill", {**gap, "response_fields": ["content"]})
        yield Row("parrot", "/infill", {**gap, "n_cmpl": 2, "response_fields": ["content"]})
        for count in (1, 2):
            call = {"messages": [USER], "tools": [TOOL], "cache_prompt": False, "n": count}
            yield Row("parrot", "/v1/chat/completions", {**call, **more})
            think = {"chat_template_kwargs": {"think": True}, "n": count, "cache_prompt": False}
            yield Row("parrot", "/v1/chat/completions", {"messages": [USER], **think, **more})

    texts = ["the story", "a much longer text that has words", "x"]
    for target in ("/embedding", "/embeddings", "/v1/embeddings"):
        for held in (texts[1], texts, texts * 60, [101, 2003, 102], [[101, 2003, 102], [101, 102]]):
            yield Row("embed", target, {"input": held})
    yield Row("embed", "/embedding", {"content": texts})
    yield Row("embed", "/embedding", {"content": {"prompt_string": texts[1]}})
    yield Row("embed", "/v1/embeddings", {"input": texts, "encoding_format": "base64"})
    for target in ("/v1/rerank", "/v1/reranking"):
        for best in ({}, {"top_n": 1}):
            yield Row("rank", target, {"query": "a story", "documents": texts, **best})
            yield Row("rank", target, {"query": "a story", "texts": texts, **best})
        yield Row("rank", target, {"query": "a story", "documents": texts[:1]})

    for target in ("/v1/chat/completions/input_tokens", "/v1/messages/count_tokens"):
        yield Row("text", target, {"messages": [USER]})
    yield Row("text", "/v1/responses/input_tokens", {"input": STORY})
    yield Row("text", "/apply-template", {"messages": [USER]})
    yield Row("text", "/tokenize", {"content": STORY * 100})
    yield Row("text", "/tokenize", {"content": STORY, "with_pieces": True})
    yield Row("text", "/detokenize", {"tokens": [280] * 1000})
    # What is refused has cost nothing.
    yield Row("text", "/v1/chat/completions/control", {"id": "x"}, status=400)
    yield Row("text", "/v1/systemone", {"input": STORY}, status=400)
    yield Row("text", "/v1/chat/completions", {"messages": [USER], "n": 9}, status=400)
    yield Row("text", "/v1/completions", {"prompt": "the " * 9000}, status=400)


def chat(fields: dict[str, Any], least: int = 0) -> Row:
    return Row(
        "text", "/v1/chat/completions", {**HELD, **SHORT, "messages": [USER], **fields}, least=least
    )


ROWS = list(rows())
