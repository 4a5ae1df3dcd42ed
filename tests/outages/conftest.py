"""One cluster for all tests of this folder; what one of them leaves in disorder is built anew."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.outages.boxes import leave_the_network
from tests.outages.town import Town, demo, scripted

_TOOLS = ("ip", "iptables", "nsenter", "setpriv", "unshare")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the network before any thread is there: a namespace is a thread's."""
    if not session.items or session.config.option.collectonly:
        return
    if importlib.util.find_spec("ray") is None:
        raise pytest.UsageError("Ray is missing: pip install --no-deps -r .ci/cluster.lock")
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise pytest.UsageError(f"missing: {', '.join(missing)} (iproute2, iptables, util-linux)")
    leave_the_network()


@pytest.fixture(scope="session")
def disk() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="out", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def standing(request: pytest.FixtureRequest, disk: Path) -> AsyncIterator[Town]:
    (disk / "LLMs").mkdir()
    made = Town(disk)
    models = {
        "plain": scripted(disk),
        "slow": scripted(disk, start_delay=6),
        "long": scripted(disk, chunks=400, pause=0.05),
        "stubborn": scripted(disk, ignore_term=1),
        "demo": demo(),
    }
    for name in ("wide", "broad", "large"):  # each may only try, alone on its node
        models[name] = {**scripted(disk), "memory": "1000GiB"}
    try:
        await made.open(models)
        if any("left" in getattr(item, "fixturenames", ()) for item in request.session.items):
            await made.leave()  # at once, since it takes four minutes until all of it is gone
        yield made
    finally:
        await made.close()


@pytest.fixture
def left(standing: Town) -> str:
    """What nodes call the gateway that was killed at the beginning."""
    return standing.left


@pytest_asyncio.fixture(loop_scope="session")
async def town(standing: Town) -> AsyncIterator[Town]:
    """The cluster, complete and empty; what a test has left behind fails it."""
    await standing.up("attic", "cellar")
    yield standing
    await standing.settled()
