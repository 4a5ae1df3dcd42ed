"""Large bodies: looked through without keeping others waiting, and bounded in all."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.workers import WORKERS
from tests.harness import (
    FAKE,
    MakeGateway,
    Running,
    Served,
    alive,
    fake_model,
    project,
    wait_until,
)
from tests.heavy_bodies import KINDS, post, probed
from tests.wire import connected

MAX_BODY = 60 * 2**20
MEGABYTE = 2**20
CHAT = "/v1/chat/completions"

#: Seconds that others may wait while this machine is busy with other tests.
MOMENT = 0.25

#: What is tested here is how bodies of any size are looked through.
LONG_TEXTS = {"request": {"text_bytes": "64MiB"}}


def served(serve: Any, tmp_path: Path) -> Served:
    models = {"m": fake_model(tmp_path)}
    project(tmp_path, models, llama_server=str(FAKE), limits=LONG_TEXTS)
    return serve()


def longest_wait(url: str, ask: Any, moment: float = MOMENT) -> float:
    """How long /health takes at most while ``ask`` runs; of three tries the best one, or the first
    that takes no more than a ``moment``.

    The machine has other work, too: what the gateway itself causes, it causes each time.
    """
    waits = []
    for _ in range(3):
        with probed(url) as prober:
            ask()
        waits.append(prober.longest)
        if waits[-1] < moment:
            break
    return min(waits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "status"),
    [("lists", 400), ("messages", 400), ("one text", 200), ("code points", 200)],
)
def test_the_heaviest_bodies_keep_nobody_waiting(
    serve: Any, tmp_path: Path, kind: str, status: int
) -> None:
    """57 MB of ``[],`` stopped everybody for 6.5 s."""
    gateway = served(serve, tmp_path)
    url, key, body = gateway.url, gateway.key, KINDS[kind](MAX_BODY)
    assert post(url, key, CHAT, KINDS["one text"](1024))[0] == 200  # loaded

    def ask() -> None:
        assert post(url, key, CHAT, body)[0] == status

    assert longest_wait(url, ask) < MOMENT


def test_so_do_packed_ones_and_several_at_once(serve: Any, tmp_path: Path) -> None:
    gateway = served(serve, tmp_path)
    url, key = gateway.url, gateway.key
    packed = gzip.compress(KINDS["lists"](MAX_BODY), 1)
    middle = KINDS["messages"](2 * MEGABYTE)
    assert post(url, key, CHAT, KINDS["one text"](1024))[0] == 200

    def ask() -> None:
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(post, url, key, CHAT, packed, **{"Content-Encoding": "gzip"}),
                pool.submit(post, url, key, "/tokenize", packed, **{"Content-Encoding": "gzip"}),
                pool.submit(post, url, key, CHAT, middle),
                pool.submit(post, url, key, "/loadModel", middle),
            ]
        assert [answer.result()[0] for answer in asked] == [400, 400, 400, 413]

    assert longest_wait(url, ask) < MOMENT
    # All of it together took 2.9 GB.
    pid = gateway.process.pid
    peak = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    assert int(peak) < 700 * 1024


@pytest.mark.parametrize("size", [300_000, 5 * MEGABYTE])
@pytest.mark.parametrize(
    ("path", "body", "sent"),
    [
        (
            CHAT,
            {"model": "m:pirate", "messages": [{"role": "user", "content": "LARGE"}]},
            [{"role": "system", "content": "Arr"}, {"role": "user", "content": "LARGE"}],
        ),
        (
            CHAT,
            {"model": "m", "messages": [{"role": "user", "content": "LARGE"}], "stop": None},
            [{"role": "user", "content": "LARGE"}],
        ),
    ],
)
async def test_what_is_large_is_shaped_as_what_is_small(
    make_gateway: MakeGateway,
    tmp_path: Path,
    size: int,
    path: str,
    body: dict[str, Any],
    sent: list[Any],
) -> None:
    """A thread and the process do what is done at once."""
    record = tmp_path / "asked.json"
    model = fake_model(tmp_path, personalities={"pirate": "Arr"}, record=record)
    async with make_gateway({"m": model}, limits=LONG_TEXTS) as running:
        texts = {}
        for text in ("small", "\u00e4" * size):
            raw = json.dumps(body, ensure_ascii=False).replace("LARGE", text)
            status, answer = await running.json("POST", path, data=io.BytesIO(raw.encode()))
            assert status == 200, answer
            texts[text] = json.loads(record.read_text().splitlines()[-1])
        for text, asked in texts.items():
            expected = json.loads(json.dumps(sent).replace("LARGE", text))
            assert asked["messages"] == expected
            assert "stop" not in asked
        assert (WORKERS.pid is not None) == (size > 4 * MEGABYTE)
        assert running.gateway is not None
    assert WORKERS.pid is None  # it ends with the gateway


@pytest.mark.parametrize("size", [300_000, 5 * MEGABYTE])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ('{"model": "m", "messages": "LARGE"}', 400, "invalid_request"),
        ('{"model": "m", "messages": [{"role": "user", "content": "LARGE"}', 400, "invalid_json"),
        ('{"a": 1, "a": 2, "messages": [{"content": "LARGE"}]}', 400, "invalid_json"),
        ('{"model": "LARGE", "messages": [{"role": "user"}]}', 404, "model_not_found"),
        ('{"model": "m:x", "messages": [{"content": "LARGE"}]}', 404, "personality_not_found"),
        ('{"model": ["LARGE"], "messages": [{"role": "user"}]}', 400, "invalid_request"),
        (
            '{"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", '
            '"image_url": {"url": "http://x/LARGE"}}]}]}',
            400,
            "remote_media_refused",
        ),
    ],
)
async def test_what_is_wrong_with_it_is_told(
    make_gateway: MakeGateway, tmp_path: Path, size: int, body: str, status: int, code: str
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}, limits=LONG_TEXTS) as running:
        answers = []
        for text in ("x", "x" * size):
            data = body.replace("LARGE", text).encode()
            got, answer = await running.json("POST", CHAT, data=io.BytesIO(data))
            assert (got, answer["error"]["code"]) == (status, code)
            answers.append(answer["error"])
        assert answers[0]["param"] == answers[1]["param"]
        assert answers[0]["type"] == answers[1]["type"]


async def test_the_number_of_values_is_a_setting(make_gateway: MakeGateway, tmp_path: Path) -> None:
    limits = {"request": {"values": 5000}}
    async with make_gateway({"m": fake_model(tmp_path)}, limits=limits) as running:
        for count, status in ((4900, 200), (5100, 400)):
            body = {"model": "m", "messages": [{"role": "user", "content": "a,b"}] * 3}
            body["metadata"] = ["[,{"] * count
            got, answer = await running.json("POST", CHAT, json=body)
            assert got == status
        assert answer["error"]["code"] == "too_many_values"
        assert "limits.request.values" in answer["error"]["message"]


async def upload(running: Running, key: str, size: int) -> Any:
    """A connection on which a body of ``size`` bytes was announced."""
    host, _, port = running.url.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    writer.write(f"{head}Content-Length: {size}\r\n\r\n{{".encode())
    return reader, writer


async def test_memory_for_bodies_is_bounded(make_gateway: MakeGateway, tmp_path: Path) -> None:
    limits = {"body_memory": "8MiB", "max_body": "4MiB"}
    async with make_gateway({"m": fake_model(tmp_path)}, limits=limits) as running:
        assert running.gateway.ring is not None
        _, one = await running.gateway.ring.create("one")
        _, two = await running.gateway.ring.create("two")
        memory = running.gateway.body_memory
        uploads = [await upload(running, one, 2 * MEGABYTE) for _ in range(3)]
        async with asyncio.timeout(10):
            while memory.waiting < 2:
                await asyncio.sleep(0.01)
        # One key has its half, and its next ones wait; another one has room, and what is small
        # needs none.
        assert memory.taken == 4 * MEGABYTE
        body = KINDS["one text"](2 * MEGABYTE)
        assert (await running.json("POST", CHAT, data=io.BytesIO(body), key=two))[0] == 200
        assert (await running.chat("m"))[0] == 200
        # Whoever leaves gives the room to the next.
        for _reader, writer in uploads:
            writer.close()
        async with asyncio.timeout(10):
            while memory.taken or memory.waiting:
                await asyncio.sleep(0.01)
        assert (await running.json("POST", CHAT, data=io.BytesIO(body), key=one))[0] == 200
        assert memory.taken == 0


async def test_too_many_that_wait_are_sent_away(
    make_gateway: MakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.body_memory.WAITING_OF_ONE", 1)
    limits = {"body_memory": "4MiB", "max_body": "2MiB"}
    async with make_gateway({"m": fake_model(tmp_path)}, limits=limits) as running:
        memory = running.gateway.body_memory
        uploads = [await upload(running, running.key, MEGABYTE) for _ in range(2)]
        async with asyncio.timeout(10):
            while not memory.waiting:
                await asyncio.sleep(0.01)
        async with connected(running) as client:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            client.send(f"{head}{running.key}\r\nContent-Length: {MEGABYTE}\r\n\r\n".encode())
            status, headers, answer = await client.answer()
            assert (status, headers["retry-after"]) == (503, "5")
            assert json.loads(answer)["error"]["code"] == "bodies_too_many"
        for _reader, writer in uploads:
            writer.close()


def test_the_process_ends_with_its_gateway(serve: Any, tmp_path: Path) -> None:
    gateway = served(serve, tmp_path)
    assert post(gateway.url, gateway.key, CHAT, KINDS["one text"](5 * MEGABYTE))[0] == 200
    (worker,) = [
        int(child)
        for task in Path(f"/proc/{gateway.process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if b"worker_process" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    gateway.process.kill()
    gateway.process.wait()
    wait_until(lambda: not alive(worker), 10, "the end of the worker")


@pytest.mark.parametrize("size", [100, 300_000, 5 * MEGABYTE])
async def test_an_error_says_where_it_is_in_a_large_body(
    make_gateway: MakeGateway, tmp_path: Path, size: int
) -> None:
    model = fake_model(tmp_path, refuses=500, says="Failed to parse messages: no role")
    async with make_gateway({"m": model}, limits=LONG_TEXTS) as running:
        messages = [{"role": "user", "content": "x" * size}, {"content": "y"}]
        body = json.dumps({"model": "m", "messages": messages}).encode()
        status, answer = await running.json("POST", CHAT, data=io.BytesIO(body))
        assert status == 400
        assert answer["error"]["param"] == "messages[1].role"


async def test_a_file_that_comes_before_its_model_needs_room(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    async with make_gateway({"m": fake_model(tmp_path)}, limits=LONG_TEXTS) as running:
        memory = running.gateway.body_memory
        host, _, port = running.url.partition("://")[2].rpartition(":")
        _reader, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nAuthorization: "
        head += f"Bearer {running.key}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        writer.write(f"{head}Content-Length: {5 * MEGABYTE}\r\n\r\n".encode())
        writer.write(b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n')
        writer.write(b"x" * MEGABYTE)
        async with asyncio.timeout(10):
            while not memory.taken:
                await asyncio.sleep(0.01)
            writer.close()
            while memory.taken:
                await asyncio.sleep(0.01)
