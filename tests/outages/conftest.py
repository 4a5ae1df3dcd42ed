"""One cluster for all tests of this folder; after one that fails it is built anew."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.outages.boxes import leave_the_network
from tests.outages.town import Town, demo, scripted

_TOOLS = ("ip", "iptables", "nsenter", "setpriv", "unshare")
_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Wait last for what takes four minutes, and passes by itself meanwhile."""
    items.sort(key=_waits)


def _waits(item: pytest.Item) -> bool:
    return "left" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the network before any thread is there: a namespace is a thread's."""
    if not session.items or session.config.option.collectonly:
        return
    if importlib.util.find_spec("ray") is None:
        raise pytest.UsageError("Ray is missing: pip install --no-deps -r .ci/cluster.lock")
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise pytest.UsageError(f"missing: {', '.join(missing)} (iproute2, iptables, util-linux)")
    leave_the_network()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, object]:
    """Note which tests have failed, for what is done after them."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def disk() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="out", ignore_cleanup_errors=True) as name:
        yield Path(name)


class Towns:
    """The cluster that stands, on ``disk``. ``leave``: a gateway is killed there at once."""

    def __init__(self, disk: Path, *, leave: bool) -> None:
        self._disk = disk
        self._leave = leave
        self._built = 0
        self._standing: Town | None = None

    async def standing(self) -> Town:
        """Return the one that stands; build one where none does."""
        if self._standing is None:
            self._built += 1
            folder = self._disk / str(self._built)
            (folder / "LLMs").mkdir(parents=True)
            town = Town(folder)
            try:
                await town.open(_models(folder))
                if self._leave:
                    await town.leave()
            except BaseException:
                await town.close()
                raise
            self._standing = town
        return self._standing

    async def tear_down(self) -> None:
        """End the one that stands, if one does."""
        if (town := self._standing) is not None:
            self._standing = None
            await town.close()


def _models(folder: Path) -> dict[str, object]:
    models = {
        "plain": scripted(folder),
        "slow": scripted(folder, start_delay=6),
        "long": scripted(folder, chunks=400, pause=0.05),
        "stubborn": scripted(folder, ignore_term=1),
        "demo": demo(),
    }
    for name in ("wide", "broad", "large"):  # each may only try, alone on its node
        models[name] = {**scripted(folder), "memory": "1000GiB"}
    return models


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def towns(request: pytest.FixtureRequest, disk: Path) -> AsyncIterator[Towns]:
    made = Towns(disk, leave=any(_waits(item) for item in request.session.items))
    yield made
    await made.tear_down()


@pytest_asyncio.fixture(loop_scope="session")
async def town(request: pytest.FixtureRequest, towns: Towns) -> AsyncIterator[Town]:
    """The cluster, complete and empty; what a test has left behind fails it."""
    town = await towns.standing()
    in_order = False
    try:
        await town.up("attic", "cellar")
        yield town
        if not request.node.stash.get(_FAILED, False):
            await town.settled()
            in_order = True
    finally:
        if not in_order:
            await towns.tear_down()


@pytest.fixture
def left(town: Town) -> str:
    """What nodes call the gateway that was killed when the cluster was built."""
    return town.left
