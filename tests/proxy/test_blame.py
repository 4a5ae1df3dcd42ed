"""Where in a request the fault is that llama-server told of."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import orjson
import pytest

from gateway.proxy.blame import media_in, read_failure
from gateway.proxy.failure import Failure

PICTURE = {"type": "image_url", "image_url": {"url": "data:,x"}}
NO_PICTURES = "image input is not supported - hint: if this is unexpected, ..."


def failure(target: str, asked: object, message: str, status: int = 500) -> Failure:
    answer = orjson.dumps({"error": {"message": message}})
    return read_failure("m", True, target, asked, status, answer)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"messages": [{"content": [{"type": "text"}, PICTURE]}]}, "messages[0].content[1]"),
        ({"messages": [{"content": PICTURE}]}, "messages[0].content"),
        ({"input": [{"output": [{"type": "input_image"}]}]}, "input[0].output[0]"),
        ({"prompt": {"multimodal_data": []}}, "prompt"),
        ({"messages": "x", "prompt": [[1], ["x", {"multimodal_data": []}]]}, "prompt[1][1]"),
        ({"messages": [{"content": [{"type": ["image_url"]}]}]}, None),
    ],
)
def test_first_picture_is_blamed(body: dict[str, Any], place: str | None) -> None:
    found = media_in(body)
    assert (found[0] if found is not None else None) == place


def test_a_place_costs_no_more_than_the_body() -> None:
    """However long a key is, and however much is below it."""
    key = "k" * 100_000
    body = {"messages": [{"content": [{key: [{}] * 20_000}, {key: [PICTURE]}]}]}
    tracemalloc.start()
    began = time.process_time()
    found = media_in(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None
    assert found[0].startswith("messages[0].content[1].kkk")
    assert len(found[0]) < 300  # it goes into an error
    assert most < 20 * 2**20  # of 2 GB before
    assert time.process_time() - began < 5


@pytest.mark.parametrize("asked", [b"[]", b"null", b"7", b"no JSON", b""])
def test_request_that_is_no_object_is_blamed_without_a_place(asked: bytes) -> None:
    """Below /upstream nobody has looked at it."""
    told = failure("/v1/chat/completions", asked, NO_PICTURES)
    assert told.status == 400
    assert "mmproj" in told.message


@pytest.mark.parametrize(
    "message", ["vector::_M_default_append", "vector", "vector::reserve", "vector::_M_range_check:"]
)
def test_number_that_cpp_cannot_use_is_the_clients_mistake(
    message: str, subtests: pytest.Subtests
) -> None:
    for target, field in (("/v1/rerank", "top_n"), ("/v1/reranking", "top_n"), ("/detokenize", "")):
        with subtests.test(f"{target!r:.80}"):
            told = failure(target, b"{}", message)
            assert told.status == 400
            assert not told.fleeting
            assert field in told.message
            assert (told.fields["param"] or "") == field
    for target in ("/v1/chat/completions", "/v1/embeddings"):
        assert failure(target, b"{}", message).status == 500
    assert failure("/v1/rerank", b"{}", "vectors are out of order").status == 500
