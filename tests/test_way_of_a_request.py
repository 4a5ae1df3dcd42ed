"""Which modules a streamed chat passes through, from its client's socket to llama-server's.

What they call on the way and what then returns (limits, accounting, formats) is no part of it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from gateway.upstream.connection import Connection
from tests.bench import upstream
from tests.harness import MakeGateway
from tests.wire import connected, post

BODY = {
    "model": "good:teacher",
    "messages": [{"role": "user", "content": "Where is the Nile?"}],
    "stream": True,
    "max_tokens": 5,
    "bench_rate": 100.0,
}
END = b"\r\n0\r\n\r\n"


#: Who calls whom with a request of the fast JSON protocol, from its connection to the one to
#: llama-server.
CHAIN = [
    "gateway.http.fast_json",
    "gateway.pipeline.steps",
    "gateway.api.inference",
    "gateway.proxy.relay",
    "gateway.upstream.pool",
    "gateway.upstream.exchange",
    "gateway.upstream.connection",
]
#: From Python 3.12 on, aiohttp begins to answer within the read that brought the request.
READ = "gateway.http.aiohttp_connection"
#: The same behind aiohttp's server.
AIOHTTP_CHAIN = [
    "gateway.pipeline.edge",
    "gateway.pipeline.steps",
    "gateway.api.relayed",
    *CHAIN[2:],
]


class Way:
    """``chain``: the modules on the stack when a request is written within ``with``."""

    def __init__(self) -> None:
        self.chain: list[str] = []

    def __enter__(self) -> Way:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is Connection.begin.__code__:
            stack = _outwards(frame)
            self.chain = list(dict.fromkeys(f.f_globals["__name__"] for f in stack if _is_ours(f)))
            self.chain.reverse()


def _is_ours(frame: FrameType) -> bool:
    name: str = frame.f_globals["__name__"]
    return name.startswith("gateway.")


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@pytest.mark.parametrize(
    ("lines", "chain"),
    [((), CHAIN), (("TE: trailers",), AIOHTTP_CHAIN)],
    ids=["fast JSON", "aiohttp"],
)
async def test_streamed_chat_passes_through_these_modules_only(
    make_gateway: MakeGateway, tmp_path: Path, lines: tuple[str, ...], chain: list[str]
) -> None:
    program = tmp_path / "llama-server"
    program.write_text(
        f"#!{sys.executable}\nimport runpy\n"
        f"runpy.run_path({upstream.__file__!r}, run_name='__main__')\n"
    )
    program.chmod(0o755)
    (tmp_path / "any.gguf").touch()
    model = {
        "params": {"model": str(tmp_path / "any.gguf")},
        "personalities": {"teacher": "You teach geography."},
        "memory": "1MiB",
    }
    ways = []
    async with (
        make_gateway({"good": model}, llama_server=str(program)) as running,
        connected(running) as client,
    ):
        request = post(running, json.dumps(BODY).encode(), *lines)
        for number in range(5):
            # The first ones load the model, and are remembered in many places.
            with Way() if number > 1 else contextlib.nullcontext() as way:
                client.send(request)
                await client.reader.readuntil(END)
            if way is not None:
                ways.append(way)
    chains = [[name for name in way.chain if name != READ] for way in ways]
    assert chains == [chain] * len(ways)
    assert len(chain) <= 20
