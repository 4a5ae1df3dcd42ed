"""Bodies that come packed (RFC 9110, 8.4): unpacked within the limit, whatever is in them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import io
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from yarl import URL

from gateway.proxy.coding import DECODERS
from tests.harness import FAKE, MakeGateway, Served, fake_model

RECORDER = str(FAKE.with_name("recording_llama_server.py"))
CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi \u00e4"}]}
FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
LIMIT = 64 * 2**20  # of bodies, by default

PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
with contextlib.suppress(ImportError):
    from backports import zstd

    PACKERS["zstd"] = zstd.compress
with contextlib.suppress(ImportError):
    import brotli

    PACKERS["br"] = lambda data: brotli.compress(data, quality=4)

each_coding = pytest.mark.parametrize("coding", PACKERS)


def hearing(tmp_path: Path, **env: Any) -> dict[str, Any]:
    """A scripted model that takes sounds, too."""
    model = fake_model(tmp_path, **env)
    return {**model, "mmproj": model["params"]["model"]}


def sent(tmp_path: Path) -> Any:
    """What llama-server got last."""
    return json.loads((tmp_path / "record").read_text().splitlines()[-1])


@each_coding
async def test_it_arrives_unpacked(
    make_gateway: MakeGateway, tmp_path: Path, coding: str, subtests: pytest.Subtests
) -> None:
    pack = PACKERS[coding]
    raw = json.dumps(BODY).encode()
    models = {"m": hearing(tmp_path, record=tmp_path / "record")}
    async with make_gateway(models, llama_server=RECORDER) as running:
        for path, body, kind in (
            (CHAT, raw, "application/json"),
            ("/v1/messages", raw, "application/json"),
            ("/tokenize", raw, "application/json"),
            ("/v1/audio/transcriptions", FORM, "multipart/form-data; boundary=b"),
            ("/upstream/m/x", bytes(range(256)) * 9000, "x/y"),
            ("/props?model=m", raw, "application/json"),
        ):
            with subtests.test(f"{path!r:.80}"):
                for chunked in (False, True):
                    packed: Any = pack(body)
                    headers = {"Content-Encoding": coding.upper(), "Content-Type": kind}
                    async with running.request(
                        "POST",
                        path,
                        data=io.BytesIO(packed) if chunked else packed,
                        headers=headers,
                    ) as response:
                        assert response.status == 200, (path, await response.text())
                    got = sent(tmp_path)
                    assert got["body"].encode("latin-1") == body
                    assert "content-encoding" not in got["headers"]
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        for path in ("/loadModel", "/unloadModel"):
            status, _ = await running.json("POST", path, data=pack(raw), headers=headers)
            assert status == 200


@pytest.mark.parametrize("coding", ["Identity", ""])
async def test_body_in_no_coding_is_taken_as_it_is(
    make_gateway: MakeGateway, tmp_path: Path, coding: str
) -> None:
    async with make_gateway({"m": hearing(tmp_path)}) as running:
        headers = {"Content-Encoding": coding}
        assert (await running.json("POST", CHAT, json=BODY, headers=headers))[0] == 200


@pytest.mark.parametrize(
    "coding",
    ["x-gzip", "gzip, gzip", "gzip, identity", "identity, deflate", "compress", "gzip;q=1", "aws"],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/loadModel", "/upstream/m/x"])
async def test_codings_that_are_not_taken(
    make_gateway: MakeGateway, tmp_path: Path, coding: str, path: str
) -> None:
    taken = ", ".join(DECODERS)
    assert taken.startswith("gzip, deflate")
    async with make_gateway({"m": hearing(tmp_path)}) as running:
        data = gzip.compress(json.dumps(BODY).encode())
        one, _, more = coding.partition(", ")
        for values in ([coding], [one, more]) if more else ([coding],):
            headers = [("Content-Encoding", value) for value in values]
            headers += [("X-Api-Key", running.key)]
            async with running.session.post(
                running.url + path, data=data, headers=headers
            ) as response:
                assert (response.status, response.headers["Accept-Encoding"]) == (415, taken)
                answer = await response.json()
            assert f"{coding!r} is not taken here: one of {taken}" in answer["error"]["message"]
            assert ("code" in answer["error"]) == (path != "/v1/messages")


@pytest.mark.parametrize("path", [CHAT, "/loadModel", "/upstream/m/x", "/v1/audio/transcriptions"])
async def test_transfer_codings_are_not_taken(
    make_gateway: MakeGateway, tmp_path: Path, path: str
) -> None:
    """What is packed below the chunks would arrive as it is, and mean something else."""
    async with make_gateway({"m": hearing(tmp_path)}) as running:
        data = gzip.compress(json.dumps(BODY).encode())
        address = urlsplit(running.url)
        for coding in ("gzip, chunked", "identity, chunked"):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {running.key}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\n"
                f"Transfer-Encoding: {coding}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 415 "), answer
            assert b"only chunked" in answer
            writer.close()
            await writer.wait_closed()


async def test_it_is_refused_before_it_comes(make_gateway: MakeGateway, tmp_path: Path) -> None:
    async with make_gateway({"m": hearing(tmp_path)}) as running:
        url = URL(running.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: {url.host}\r\nX-Api-Key: {running.key}\r\n"
            "Content-Encoding: x-gzip\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 415 ")
        writer.close()
        await writer.wait_closed()


@each_coding
async def test_damaged_body_is_refused(
    make_gateway: MakeGateway, tmp_path: Path, coding: str, subtests: pytest.Subtests
) -> None:
    packed = PACKERS[coding](json.dumps(BODY).encode())
    headers = {"Content-Encoding": coding}
    async with make_gateway({"m": hearing(tmp_path)}) as running:
        for data in (packed[:-3], packed + b"more", b"no such thing, whatever it may be"):
            with subtests.test(f"{data!r:.80}"):
                status, answer = await running.json("POST", CHAT, data=data, headers=headers)
                assert (status, answer["error"]["code"]) == (400, "malformed_request")
                message = answer["error"]["message"]
                assert message.startswith(
                    f"the body is not {coding}, as its Content-Encoding says: "
                )
        data = packed[:-3]
        form = {**headers, "Content-Type": "multipart/form-data; boundary=b"}
        path = "/v1/audio/transcriptions?model=m"
        assert (await running.json("POST", path, data=data, headers=form))[0] == 400
        assert (await running.chat("m"))[0] == 200


@each_coding
async def test_too_much_is_refused_as_soon_as_it_is_there(
    make_gateway: MakeGateway, tmp_path: Path, coding: str, subtests: pytest.Subtests
) -> None:
    limits = {"max_body": "100KiB"}
    async with make_gateway({"m": hearing(tmp_path)}, limits=limits) as running:
        headers = {"Content-Encoding": coding}
        for size, expected in ((102_300, 200), (102_500, 413)):
            raw = json.dumps(BODY).encode()
            data = PACKERS[coding](raw + b" " * (size - len(raw)))
            status, answer = await running.json("POST", CHAT, data=data, headers=headers)
            assert status == expected
        assert "over 102400 bytes (limits.max_body)" in answer["error"]["message"]
        for path in ("/v1/audio/transcriptions?model=m", "/upstream/m/x", "/loadModel"):
            with subtests.test(f"{path!r:.80}"):
                form = {**headers, "Content-Type": "multipart/form-data; boundary=b"}
                data = PACKERS[coding](FORM + bytes(10_000_000))
                assert (await running.json("POST", path, data=data, headers=form))[0] == 413, path


async def test_packed_nothing_without_end_is_refused(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """What unpacks to nothing counts as it comes, and only so many times."""
    limits = {"max_body": "100KiB"}
    empty = gzip.compress(b"")
    async with make_gateway({"m": hearing(tmp_path)}, limits=limits) as running:
        headers = {"Content-Encoding": "gzip"}
        data = io.BytesIO(empty * 10_000)
        assert (await running.json("POST", CHAT, data=data, headers=headers))[0] in (400, 413)


# --- a gigabyte in a megabyte --------------------------------------------------------------


def gigabyte(coding: str) -> bytes:
    """A body of about a megabyte or less that unpacks to a gigabyte."""
    some = bytes(2**26)
    if coding == "zstd":
        return zstd.compress(some) * 16
    if coding == "br":
        packer = brotli.Compressor(quality=1)
        return b"".join(packer.process(some) for _ in range(16)) + packer.finish()
    wbits = zlib.MAX_WBITS | 16 if coding == "gzip" else zlib.MAX_WBITS
    packer = zlib.compressobj(wbits=wbits)
    head = packer.compress(b" ") + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(some) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + part * 16


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("packed"))
    yield served
    served.stop()


def kilobytes(served: Served, what: str) -> int:
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def post(served: Served, coding: str, body: bytes) -> int:
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    headers = {"X-Api-Key": served.key, "Content-Encoding": coding}
    try:
        connection.request("POST", CHAT, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


class Neighbour(threading.Thread):
    """Somebody else, who asks for something small again and again."""

    def __init__(self, served: Served) -> None:
        super().__init__(daemon=True)
        self._address = urlsplit(served.url)
        self._over = threading.Event()
        self.waits: list[float] = []

    def run(self) -> None:
        host, port = self._address.hostname or "", self._address.port
        connection = http.client.HTTPConnection(host, port, timeout=60)
        while not self._over.is_set():
            started = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            self.waits.append(time.perf_counter() - started)
            self._over.wait(0.002)
        connection.close()

    def __enter__(self) -> Neighbour:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self.join()


@each_coding
def test_a_gigabyte_costs_no_more_than_the_limit_and_stalls_nobody(
    served: Served, coding: str
) -> None:
    body = gigabyte(coding)
    assert len(body) < 2**21
    assert post(served, "identity", b"{}") == 400  # all is there that one request needs
    waits = []
    for _ in range(5):  # what others on this machine do is no stall of ours
        Path(f"/proc/{served.process.pid}/clear_refs").write_text("5")  # the peak, see proc(5)
        before = kilobytes(served, "VmRSS")
        with Neighbour(served) as neighbour:
            assert post(served, coding, body) == 413
        grown = (kilobytes(served, "VmHWM") - before) * 1024
        assert grown < LIMIT + 24 * 2**20
        waits.append(max(neighbour.waits))
        if waits[-1] < 0.1:
            break
    print(f"{coding}: {grown / 2**20:.0f} MiB, {[round(1000 * wait) for wait in waits]} ms")
    assert min(waits) < 0.3
