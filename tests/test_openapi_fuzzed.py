"""What a fuzzer makes of the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from tests.harness import FAKE, MakeGateway, Running, fake_model
from tests.openapi_documents import DOCUMENT
from tests.route_table import API

pytestmark = pytest.mark.slow


RECORDER = str(FAKE.with_name("recording_llama_server.py"))
#: Streams that end only when their client leaves, which a fuzzer does not.
ENDLESS = ("/status", "/models/sse", "/admin/log")


def with_models(value: Any, *names: str) -> Any:
    """A document in which every `model` is one of ``names``, so that most requests get far."""
    if isinstance(value, list):
        return [with_models(item, *names) for item in value]
    if not isinstance(value, dict):
        return value
    # Examples name models of others, and would have one fetched from the hub.
    changed = {
        key: with_models(item, *names)
        for key, item in value.items()
        if key not in ("example", "x-codeSamples")
    }
    if "model" in changed.get("properties", {}):
        changed["properties"] = {**changed["properties"], "model": {"enum": list(names)}}
    if changed.get("name") == "model" and "schema" in changed:
        changed["schema"] = {"enum": list(names)}
    return changed


async def fuzz(running: Running, folder: Path, *options: str) -> tuple[int | None, str]:
    """What schemathesis says, as a process of its own. Another ``--seed`` finds other things."""
    schema = folder / "openapi.json"
    schema.write_text(json.dumps(with_models(DOCUMENT, "a", "a:poet", "none such")))
    excluded = (argument for path in ENDLESS for argument in ("--exclude-path", path))
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("st")),
        *(
            "run",
            str(schema),
            "--url",
            running.url,
            "--header",
            f"Authorization:Bearer {running.key}",
        ),
        *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing"),
        *("--continue-on-failure", "--no-shrink", "--suppress-health-check", "all"),
        *("--warnings", "off", "--no-color", "--generation-database", "none"),
        *("--request-timeout", "5", *excluded, *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_no_input_is_answered_with_a_server_error(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": fake_model(tmp_path, personalities={"poet": "You rhyme."})}
    async with make_gateway(models, llama_server=RECORDER) as running:
        status, _ = await running.json("POST", "/loadModel", json={"model": "a"})
        assert status == 200
        code, out = await fuzz(running, tmp_path, "--max-time", "10", "--seed", "1")
    assert code == 0, out
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


LONG = "9" * 20  # beyond 64 bits: read by the standard library
HALF = '"\\ud800"'
POET = '"model": "a:poet"'
STRANGE = {
    "half a character": f'{{"model": {HALF}, "n": {LONG}}}',
    "half a character said": f'{{{POET}, "n": {LONG}, "messages": [{{"content": {HALF}}}], '
    f'"input": {HALF}, "prompt": {HALF}}}',
    "half a character as a field": f"{{{HALF}: {LONG}}}",
    "roles that are lists": f'{{{POET}, "messages": [{{"role": []}}], "input": [{{"role": []}}]}}',
    "parts that are numbers": f'{{{POET}, "input": [{{"role": "system", "content": [1]}}]}}',
    "a long number for the template": f'{{{POET}, "prompt": "x", '
    f'"chat_template_kwargs": {{"n": {LONG}}}}}',
    "deep": f'{{{POET}, "messages": [{{}}], "input": [{{}}], "prompt": "x", '
    f'"personality": "poet", "x": {"[" * 1000}{"]" * 1000}}}',
}


async def test_malformed_bodies_are_no_server_error(
    make_gateway: MakeGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"a": fake_model(tmp_path, personalities={"poet": "You rhyme."})}
    failed = []
    async with make_gateway(models, llama_server=RECORDER) as running:
        for method, path, *_ in API:
            for name, body in STRANGE.items() if method in ("POST", "PATCH") else ():
                async with running.request(method, path, data=body) as response:
                    if response.status >= 500:
                        failed.append((method, path, name, await response.text()))
    assert not failed
    assert not [r.getMessage() for r in caplog.records if r.exc_info]


async def test_headers_arrive_as_they_came(make_gateway: MakeGateway, tmp_path: Path) -> None:
    path = "/upstream/a/v1/files"
    form = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b; x=\N{SNOWMAN}"  # in no other encoding than UTF-8
    model = fake_model(tmp_path, record=tmp_path / "record")
    model["mmproj"] = model["params"]["model"]  # it hears
    async with make_gateway({"a": model}, llama_server=RECORDER) as running:
        status, _ = await running.json("POST", path, headers={"Content-Type": kind}, data=form)
        assert status == 200
    asked = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    (sent,) = [one for one in asked if one["method"] == "POST" and one["target"] == "/v1/files"]
    assert sent["headers"]["content-type"] == kind


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/nowhere"])
@pytest.mark.parametrize("header", [b"Expect: \xff", b"Content-Encoding: gzip"])
async def test_headers_that_promise_something_else_are_refused(
    make_gateway: MakeGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    header: bytes,
    path: str,
) -> None:
    async with make_gateway({"a": fake_model(tmp_path)}) as running:
        url = URL(running.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST {path} HTTP/1.1\r\nHost: {url.host}\r\nX-Api-Key: {running.key}\r\n"
        head += "Connection: close\r\n"  # else it stays open, as nothing is left unread
        writer.write(head.encode() + header + b"\r\nContent-Length: 2\r\n\r\n{}")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    unread = b"404" if path == "/nowhere" else b"400"
    status = b"417" if b"Expect" in header else unread
    assert answer.startswith(b"HTTP/1.1 %b " % status)
    assert not [r.getMessage() for r in caplog.records if r.exc_info]
