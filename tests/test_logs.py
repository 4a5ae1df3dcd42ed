"""Lines of the log: their level, as text, and as JSON."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import queue
import re
import urllib.request
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from gateway import logs
from gateway.log_format import JsonFormat, TextFormat
from tests.harness import FAKE, Served, fake_model, project

Serve = Callable[..., Served]
AT = datetime(2026, 1, 31, 12, 0, 0, 123_456, UTC).timestamp()


def record(message: str, *values: object, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("gateway.x", logging.WARNING, "", 0, message, values, info)
    made.created = AT
    return made


def test_json_is_one_object_a_line() -> None:
    line = JsonFormat().record(record("a\nmodel %s", "m\u2028\udcff"))
    assert line.count("\n") == 1
    assert line.isascii()
    assert json.loads(line) == {
        "ts": "2026-01-31T12:00:00.123Z",
        "level": "warning",
        "logger": "gateway.x",
        "message": "a\nmodel m\u2028\udcff",
    }


def test_json_line_has_the_exception() -> None:
    try:
        raise OSError("gone")
    except OSError as error:
        told = json.loads(JsonFormat().record(record("oh", error=error)))
    assert told["message"] == "oh"
    assert told["exception"].endswith("OSError: gone")


def test_json_line_of_a_request_hides_keys() -> None:
    key = "llmgw_abc"
    fields = ("req_1", "GET", f"/v1/{key}/x y", 404, 0.12345, "-", "m", "192.0.2.1")
    assert json.loads(JsonFormat().request(AT, fields)) == {
        "ts": "2026-01-31T12:00:00.123Z",
        "level": "info",
        "logger": "gateway.access",
        "message": "GET /v1/llmgw_.../x%20y 404",
        "request_id": "req_1",
        "method": "GET",
        "path": "/v1/llmgw_.../x%20y",
        "status": 404,
        "seconds": 0.123,
        "model": "m",
        "client": "192.0.2.1",
    }
    text = TextFormat().request(AT, fields)
    line = r",123 INFO gateway.access: req_1 GET /v1/llmgw_\.\.\./x%20y 404 0\.123s key=- model=m "
    assert re.search(line + r"from=192\.0\.2\.1\n$", text)


async def test_what_is_logged_for_a_request_carries_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    records: Any = queue.SimpleQueue()
    ids: Any = weakref.WeakKeyDictionary()
    monkeypatch.setattr(logs, "request_ids", ids)
    handler = logs.LogHandler(logs.LogWriter(records, io.StringIO()), records)

    async def answer(request_id: str | None) -> None:
        task = asyncio.current_task()
        if request_id is not None:
            ids[task] = request_id
        await asyncio.sleep(0)
        handler.handle(record("oh"))

    await asyncio.gather(*map(answer, ("req_1", "req_2", None)))
    await asyncio.to_thread(handler.handle, record("elsewhere"))
    told = [json.loads(JsonFormat().record(records.get())) for _ in range(4)]
    assert [line.get("request_id") for line in told] == ["req_1", "req_2", None, None]


def test_all_of_it_is_json(serve: Serve, tmp_path: Path) -> None:
    models = {"m": fake_model(tmp_path)}
    config = project(
        tmp_path / "p", models, llama_server=str(FAKE), log={"format": "json", "level": "debug"}
    )
    served = serve("--config", str(config))
    address = served.wait_for(r'listening on (http[^",\s]+)', served.log)
    key = served.key
    request_id = answer_of(address, "/v1/models", key)["X-Request-Id"]
    assert served.stop() == 0
    told = [json.loads(line) for line in served.log]
    assert {"ts", "level", "logger", "message"} <= set.intersection(*map(set, told))
    assert {line["logger"].partition(".")[0] for line in told} == {"gateway"}
    assert key not in "".join(served.log)
    (asked,) = (line for line in told if line.get("request_id") == request_id)
    assert (asked["logger"], asked["status"]) == ("gateway.access", 200)
    settings = [line for line in told if line["message"].startswith("settings: ")]
    assert [line["level"] for line in settings] == ["info"]  # nothing is printed of it
    assert "on this machine" not in "".join(served.out)


def answer_of(address: str, path: str, key: str) -> Message:
    """The headers of an answer; anything but 2xx raises."""
    request = urllib.request.Request(address + path, headers={"X-Api-Key": key})
    with urllib.request.urlopen(request, timeout=20) as answer:
        headers: Message = answer.headers
        return headers


def test_only_warnings_are_logged_if_wanted(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config), env={"LLM_GATEWAY_LOG__LEVEL": "warning"})
    address = served.wait_for(r"on this machine\s+(http\S+)", served.out)
    answer_of(address, "/models", served.key)
    assert served.stop() == 0
    assert served.log == []


@pytest.mark.parametrize(("name", "value"), [("LEVEL", "loud"), ("FORMAT", "xml")])
def test_wrong_level_or_format_is_refused(
    serve: Serve, tmp_path: Path, name: str, value: str
) -> None:
    config = project(tmp_path / "p", {})
    served = serve("--config", str(config), env={f"LLM_GATEWAY_LOG__{name}": value})
    assert served.process.wait(20) == 1
    served.stop()
    (line,) = served.log
    assert f"LLM_GATEWAY_LOG__{name}" in line
    assert value in line
    assert "info" in line or "json" in line
