"""Lines of the log: their level, as text, and as JSON."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import queue
import re
import signal
import socket
import urllib.error
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
from gateway.log_output import (
    JournalOutput,
    PrefixedOutput,
    TextOutput,
    is_the_journal,
)
from tests.harness import DEMO, DEMO_GGUF, FAKE, Served, fake_model, project

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


def test_fields_of_a_record_are_fields_of_its_json() -> None:
    made = record("task 7")
    made.request_id, made.fields = "req_1", {"slot": 1}
    told = json.loads(JsonFormat().record(made))
    assert (told["request_id"], told["slot"]) == ("req_1", 1)


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
    handler = logs.LogHandler(logs.LogWriter(records, TextOutput(io.StringIO())), records)

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
    address = served.wait_for(r'listening on (http[^",\s]+)', served.out)
    key = served.wait_for(r"\s(llmgw_\w+)", served.log)  # what is printed for people
    request_id = answer_of(address, "/v1/models", key)["X-Request-Id"]
    assert served.stop() == 0
    told = [json.loads(line) for line in served.out]
    assert {"ts", "level", "logger", "message"} <= set.intersection(*map(set, told))
    assert {line["logger"].partition(".")[0] for line in told} == {"gateway"}
    assert key not in "".join(served.out)
    (asked,) = (line for line in told if line.get("request_id") == request_id)
    assert (asked["logger"], asked["status"]) == ("gateway.access", 200)
    settings = [line for line in told if line["message"].startswith("settings: ")]
    assert [line["level"] for line in settings] == ["info"]  # nothing is printed of it
    assert "on this machine" not in "".join(served.log)


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
    assert served.ended() == 1
    (line,) = served.log
    assert f"LLM_GATEWAY_LOG__{name}" in line
    assert value in line
    assert "info" in line or "json" in line


def test_everything_is_logged_from_one_signal_to_the_next(serve: Serve, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {"m": fake_model(tmp_path)}, llama_server=str(FAKE))
    served = serve("--config", str(config), env={"LLM_GATEWAY_LOG__LEVEL": "info"})
    address = served.url
    answer_of(address, "/models", served.key)
    served.process.send_signal(signal.SIGUSR1)
    served.wait_for(r"(logging everything)", served.log)
    served.process.send_signal(signal.SIGUSR1)
    served.wait_for(r"(logging as configured)", served.log)
    answer_of(address, "/models", served.key)
    assert served.stop() == 0


#: What is never to be found again, in each place where a client can put something.
SECRETS = [f"s3cret-{name}" for name in ("prompt", "system", "broken", "query", "input", "wrong")]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_key_and_nothing_that_was_said_is_logged_at_any_level(
    serve: Serve, tmp_path: Path, form: str
) -> None:
    log = {"format": form, "level": "debug"}
    params = {"model": DEMO_GGUF, "nPredict": 8}  # /chat/ask sets no end of its own
    config = project(tmp_path / "p", {DEMO: {"params": params}}, log=log)
    served = serve("--config", str(config))
    lines, printed = (served.log, served.out) if form == "text" else (served.out, served.log)
    address = served.wait_for(r'listening on (http[^",\s]+)', lines)
    key = served.wait_for(r"\s(llmgw_\w+)", printed)
    prompt, system, broken, query, given, wrong = SECRETS

    def ask(path: str, body: object, key: str | None = key) -> int:
        headers = {"Content-Type": "application/json"} | ({"X-Api-Key": key} if key else {})
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(address + path, data if body else None, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.read()
            return error.code

    said = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    chat = {"model": DEMO, "max_tokens": 4, "messages": said}
    assert ask("/v1/chat/completions", chat) == 200
    assert ask("/v1/chat/completions", {**chat, "stream": True}) == 200
    assert ask(f"/chat/ask?authKey={key}&question={query}", None, None) == 200
    assert ask("/v1/completions", {"model": DEMO, "prompt": given, "max_tokens": 2}) == 200
    assert ask("/v1/chat/completions", {**chat, "messages": broken}) == 400
    assert ask("/v1/chat/completions", f'{{"model": "{broken}') == 400
    assert ask("/v1/chat/completions", chat, f"llmgw_{wrong}") == 401
    assert served.stop() == 0

    everything = "".join(lines)
    assert everything.count("/chat/completions") >= 5  # it is the log of these requests
    for secret in (key, *SECRETS):
        assert secret not in everything
    assert not any(secret in "".join(printed) for secret in SECRETS)


# --- the journal -----------------------------------------------------------------------------

FIELDS = ("req_1", "GET", "/v1/llmgw_abc", 404, 0.12345, "k1", "-", "192.0.2.1")


def parsed(entry: bytes) -> dict[str, str]:
    """The fields of an entry, as its protocol has them."""
    fields = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(entry[:8], "little")
            value, entry = entry[8 : 8 + size], entry[9 + size :]
        fields[name.decode()] = value.decode()
    return fields


def test_journal_gets_fields_of_what_was_logged(tmp_path: Path) -> None:
    try:
        raise OSError("gone")
    except OSError as error:
        failed = record("a\nmodel %s", "m\udcff", error=error)
    failed.request_id, failed.fields = "req_2", {"slot": 1}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(address := str(tmp_path / "journal"))
        otherwise = io.StringIO()
        output = JournalOutput(TextOutput(otherwise), address)

        output.write([failed, (AT, FIELDS)], ["failed\n", "asked\n"])

        told, asked = (parsed(journal.recv(65536)) for _ in range(2))
        message = told.pop("MESSAGE")
        assert told == {
            "SYSLOG_IDENTIFIER": "llm-gateway",
            "PRIORITY": "4",
            "LOGGER": "gateway.x",
            "REQUEST_ID": "req_2",
            "SLOT": "1",
        }
        assert message.startswith("a\nmodel m\\udcff\nTraceback ")
        assert message.endswith("OSError: gone")
        assert "req_1 GET /v1/llmgw_... 404 0.123s" in asked.pop("MESSAGE")
        assert asked == {
            "SYSLOG_IDENTIFIER": "llm-gateway",
            "PRIORITY": "6",
            "LOGGER": "gateway.access",
            "REQUEST_ID": "req_1",
            "HTTP_METHOD": "GET",
            "HTTP_PATH": "/v1/llmgw_...",
            "HTTP_STATUS": "404",
            "SECONDS": "0.123",
            "KEY_ID": "k1",
            "CLIENT": "192.0.2.1",
        }
        assert otherwise.getvalue() == ""

        output.write([record("x" * 10_000_000)], ["too long\n"])
        assert otherwise.getvalue() == "too long\n"
    (tmp_path / "journal").unlink()
    output.write([(AT, FIELDS)], ["gone\n"])
    assert otherwise.getvalue() == "too long\ngone\n"
    output.close()


def test_lines_for_the_journal_have_their_priority_and_no_time() -> None:
    stream = io.StringIO()
    PrefixedOutput(stream).write([record("oh\nno"), (AT, FIELDS)], ["", ""])
    first, second, third = stream.getvalue().splitlines()
    assert (first, second) == ("<4>gateway.x: oh", "<4>no")
    assert third.startswith("<6>gateway.access: req_1 GET /v1/llmgw_... 404 0.123s")


def test_stream_is_the_journals_if_systemd_says_so(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        said = f"{status.st_dev}:{status.st_ino}"
        assert is_the_journal(stream, {"JOURNAL_STREAM": said})
        assert not is_the_journal(stream, {"JOURNAL_STREAM": "8:1"})
        assert not is_the_journal(stream, {})
    assert not is_the_journal(io.StringIO(), {"JOURNAL_STREAM": said})
