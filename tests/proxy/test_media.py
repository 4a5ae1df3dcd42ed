"""Nothing is fetched for a client, whatever it is called and wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.proxy.media import FETCHED_TOO
from gateway.proxy.personality import ANTHROPIC, CHAT, COMPLETION, NONE, RESPONSES, MessageFormat

REMOTE = [
    "http://127.0.0.1:1/x",
    "https://example.com/x.png",
    "HTTP://example.com",
    " http://example.com",
    "file:///etc/passwd",
    "ftp://x",
    "DATA:http://x",
]
HARMLESS = ["data:image/png;base64,AA==", "AA==", ""]


def bodies(url: str) -> list[tuple[MessageFormat, dict[str, Any]]]:
    """Every place in every format that llama-server, or a newer one, might look at."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"url": url}},
        {"type": "input_video", "input_video": {"url": url}},
        {"type": "audio_url", "audio_url": {"url": url}},
        {"type": "file", "file": {"file_data": url}},
    ]
    found: list[tuple[MessageFormat, dict[str, Any]]] = []
    for part in parts:
        words = {"type": "text", "text": "http://example.com is no media"}
        message = {"role": "user", "content": [words, part]}
        found += [
            (CHAT, {"messages": [{"role": "user", "content": "hi"}, message]}),
            (CHAT, {"messages": [{"role": "user", "content": part}]}),
            (NONE, {"input": [{"content": [part]}]}),
            (NONE, {"content": [part]}),
            (NONE, {"state": {"messages": [message]}}),
            (COMPLETION, {"prompt": [{"deep": [[part]]}]}),
        ]
    source = {"type": "image", "source": {"type": "url", "url": url}}
    for block in (source, {"type": "tool_result", "content": [source]}):
        found.append((ANTHROPIC, {"messages": [{"role": "user", "content": [block]}]}))
    item = {"type": "input_image", "image_url": url}
    found += [
        (RESPONSES, {"input": [{"role": "user", "content": [item]}]}),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": [item]}]}),
        (COMPLETION, {"prompt": {"prompt_string": "x", "multimodal_data": [url]}}),
        (NONE, {"images": [url]}),
        (NONE, {"files": [url]}),
    ]
    return found


@pytest.mark.parametrize("url", REMOTE)
def test_media_elsewhere_are_refused(url: str) -> None:
    for format_, body in bodies(url):
        with pytest.raises(BadRequest) as caught:
            format_.check(body)
        assert caught.value.code == "remote_media_refused", body


@pytest.mark.parametrize("url", REMOTE)
def test_remote_media_are_taken_where_allowed_and_by_http_only(url: str) -> None:
    fetched = url.startswith(("http://", "https://"))
    for format_, body in bodies(url):
        if fetched:
            format_.check(body, FETCHED_TOO)
            continue
        with pytest.raises(BadRequest, match="data: or http:// or https://"):
            format_.check(body, FETCHED_TOO)


@pytest.mark.parametrize("url", HARMLESS)
def test_media_that_came_along_are_taken(url: str) -> None:
    for format_, body in bodies(url):
        format_.check(body)


@pytest.mark.parametrize(
    ("format_", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "http://x"}]}),
        (
            CHAT,
            {
                "messages": [{"role": "assistant", "tool_calls": [{"image_url": "http://x"}]}],
                "tools": [{"image_url": {"url": "http://x"}}],
            },
        ),
        (
            ANTHROPIC,
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "tool_use", "input": {"image_url": {"url": "http://x"}}},
                            {"type": "search_result", "source": "https://x", "content": []},
                        ],
                    }
                ]
            },
        ),
        (NONE, {"input": ["http://x", "https://y"]}),
        (NONE, {"input": [1, 2, 3], "documents": ["http://x"]}),
        (COMPLETION, {"prompt": "http://x"}),
        (NONE, {"images": 7, "input": {"image_url": 7}}),
    ],
)
def test_address_in_a_text_is_no_media(format_: MessageFormat, body: dict[str, Any]) -> None:
    format_.check(body)


def test_deep_nesting_is_no_crash() -> None:
    deep: Any = {"image_url": "http://x"}
    for _ in range(900):
        deep = [deep]
    with pytest.raises(BadRequest):
        NONE.check({"input": deep})
