"""The line that the service manager shows."""

from __future__ import annotations

import pytest

from gateway.status_line import line

URLS = ["https://127.0.0.1:443"]


@pytest.mark.parametrize(
    ("loaded", "running", "rate", "text"),
    [
        ([], 0, 0.0, "no model loaded"),
        (["a", "b"], 0, 0.2, "loaded: a, b"),
        (["a"], 1, 0.0, "loaded: a; 1 request"),
        (["a"], 12, 45.4, "loaded: a; 12 requests; 45 tokens/s"),
    ],
)
def test_line_tells_what_is_loaded_and_running(
    loaded: list[str], running: int, rate: float, text: str
) -> None:
    assert line(URLS, loaded, running, rate) == f"listening on https://127.0.0.1:443; {text}"
