"""No test may pass whose gateway writes a key or a prompt: ``nothing_leaks`` in conftest.py."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.access.key_format import new_key
from tests.leaks import add_childs, follow, leaks, sent, watched

#: What somebody asks here.
ASKED = "what is the harbour master's name"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": ASKED}]}


@pytest.fixture
def nothing_leaks() -> None:
    """Something does here."""


@pytest.mark.parametrize("text", [new_key(), ASKED], ids=["a key", "a prompt"])
def test_key_or_prompt_is_found_wherever_it_is_written(tmp_path: Path, text: str) -> None:
    log: list[str] = []
    printed: list[str] = []
    follow(log)
    follow(printed)
    with sqlite3.connect(tmp_path / "gateway.db") as store:
        store.execute("CREATE TABLE told (text)")
        store.execute("INSERT INTO told VALUES (?)", (text,))
    store.close()
    places: dict[str, Callable[[], object]] = {
        "this process": lambda: logging.getLogger("gateway.x").warning("said %s", text),
        "a library": lambda: logging.getLogger("asyncio").error("Task %r", {"content": text}),
        "a log": lambda: log.append(f"ValueError: {text} is too much\n"),
        "stdout": lambda: printed.append(f"{json.dumps({'message': text})}\n"),
        "llama-server": lambda: add_childs([f"slot 0: {text}"]),
    }
    for place, write in places.items():
        with watched() as seen:
            write()
        assert any(text in line for line in leaks(seen, None, __name__)), place
    with watched() as seen:
        printed.append("Admin key, shown only this once:\n")
        printed.append(f"  {text if text != ASKED else new_key()}\n")
        printed.append(f"  curl localhost:8080 -H 'Authorization: Bearer {text}'\n")
        logging.getLogger("httpx").warning("said %s", text)
    assert leaks(seen, None, __name__) == [], "for whoever starts it, and of a client"
    assert [text in line for line in leaks([], tmp_path, __name__)] == [True]


def test_what_a_test_has_sent_is_found_in_any_form() -> None:
    said = 'tell "them" ägain'
    for line in (said, repr({"x": said}), json.dumps({"message": said})):
        sent({"messages": [{"role": "user", "content": [{"type": "text", "text": said}]}]})
        assert leaks([line], None, __name__) != [], line
    assert leaks([said], None, __name__) == [], "of another test"
