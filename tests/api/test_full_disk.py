"""A disk that is full below the database: what becomes of requests, and of what is told of them.

The kernel refuses to let files of a process grow (``RLIMIT_FSIZE``), as it would on a full disk.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.access.past_requests import RequestFilter
from gateway.access.store import Store
from tests.harness import FAKE, Served, fake_model, project, tied

pytestmark = pytest.mark.slow

Serve = Callable[..., Served]
_, MOST = resource.getrlimit(resource.RLIMIT_FSIZE)


async def test_requests_go_on_and_are_recorded_later(serve: Serve, tmp_path: Path) -> None:
    models = {"m": fake_model(tmp_path)}
    config = project(tmp_path / "p", models, llama_server=str(FAKE))
    served = serve("--config", str(config))
    url, key = served.url, served.key
    async with aiohttp.ClientSession(url, headers={"X-Api-Key": key}) as session:

        async def asked(path: str, **options: Any) -> Any:
            async with session.get(path, **options) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        async def chats() -> None:
            body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            async with session.post("/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()

        async def once(failing: bool) -> Any:
            """It is written every few seconds, and with a look at what is in the store."""
            async with asyncio.timeout(60):
                while True:
                    seen = await asked("/admin/requests")
                    if (seen["problem"] is not None) is failing:
                        return seen
                    await asyncio.sleep(0.2)

        await chats()
        await once(failing=False)
        pid = int((await asked("/admin/system"))["pid"])
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, MOST))
        await chats()
        seen = await once(failing=True)
        assert "requests cannot be recorded" in seen["problem"]
        assert (len(seen["ended"]), seen["lost"]) == (2, 0)
        await chats()
        usage = await asked("/admin/usage")  # what isn't written is counted too
        assert sum(row["requests"] for row in usage["usage"]) == 3
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (MOST, MOST))
        seen = await once(failing=False)
        assert len(seen["ended"]) == 3
        ids = [one["id"] for one in seen["ended"]]
    assert served.stop() == 0
    log = "".join(served.log)
    assert log.count("requests cannot be recorded, trying again") == 1
    assert "requests are recorded again, 0 were lost" in log
    assert "Traceback" not in log
    async with await Store.open(tmp_path / "p/data/gateway.db") as store:
        assert [one.id for one in await store.requests_of(RequestFilter(limit=10))] == ids
        assert sum(one.requests for one in await store.usage_of()) == 3


#: What is too much to wait for a disk is lost.
PROCESS = """
import asyncio, json, logging, resource, sys
from pathlib import Path

from gateway.access import request_log
from gateway.access.request_log import Record, RequestLog
from gateway.access.past_requests import RequestFilter
from gateway.proxy.sse import Usage
from gateway.access.store import Store

NOON, ROOM = 1_770_000_000, 20
MOST = request_log.MOST_UNWRITTEN


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def main(file):
    async with await Store.open(file) as store:
        log = RequestLog(keep=1e9, write_every=3600, wall=lambda: NOON)
        log.open(store)
        limit(file.stat().st_size)
        for number in range(MOST + ROOM):
            log.add(Record(NOON, "k", "m", None, 200, Usage(1, 1), 1.0, "/x", f"req_{number}"))
            if number % 5000 == 0:
                await log.write()
        await log.write()
        told = {"lost": log.lost, "problem": log.problem}
        limit(resource.RLIM_INFINITY)
        await log.write()
        kept = await store.requests_of(RequestFilter(limit=10 * MOST))
        told |= {"kept": len(kept), "oldest": kept[-1].id, "after": log.problem}
        await log.close()
    print(json.dumps({**told, "most": MOST, "room": ROOM}))


logging.basicConfig(stream=sys.stderr, format="%(message)s")
asyncio.run(main(Path(sys.argv[1])))
"""


def test_what_waits_too_long_is_lost_and_counted(tmp_path: Path) -> None:
    done = subprocess.run(
        tied(sys.executable, "-c", PROCESS, tmp_path / "gateway.db"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["lost"] == told["room"]
    assert (told["kept"], told["oldest"]) == (told["most"], f"req_{told['room']}")
    assert "requests cannot be recorded" in told["problem"]
    assert told["after"] is None
    assert done.stderr.count("requests cannot be recorded, trying again") == 1
