"""What a gateway holds while it has nothing to do, and what is left of it behind its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any, Final, NamedTuple

from tests.soak.asking import MODELS, chat
from tests.soak.client import Answer
from tests.soak.door import Door
from tests.soak.measures import descendants, open_files

#: Seconds within which a gateway must have put away all that it had for its clients.
_SETTLES: Final = 60.0
#: How often an idle gateway is looked at first, every half second.
_LOOKS: Final = 12
#: The files of a data folder behind its gateway's end.
_STAY: Final = frozenset(
    {
        "models.json",
        "models.last-good.json",
        "gateway.db",
        "gateway.lock",
        "gpus.json",
        "children",
        "cache",
    }
)


#: Tasks that a loaded model may have, or not if nothing was measured of it when it was loaded.
_GROWTH: Final = Counter(f"growth of {model}" for model in MODELS)


class Held(NamedTuple):
    """What a gateway holds."""

    tasks: Counter[str]
    files: Counter[str]
    processes: int

    def beyond(self, before: Held) -> str:
        """What there is more of than ``before``, in words; empty if there is nothing."""
        more: dict[str, Any] = {
            "tasks": dict(self.tasks - (before.tasks | _GROWTH)),
            "files": dict(self.files - before.files),
            "processes": max(self.processes - before.processes, 0),
        }
        return ", ".join(f"{what}: {found}" for what, found in more.items() if found)

    def __str__(self) -> str:
        files = ", ".join(f"{count} {kind}" for kind, count in self.files.most_common(3))
        return f"{self.tasks.total()} tasks, {files}, {self.processes} processes"


async def held(door: Door) -> Held:
    """What the gateway of ``door`` holds now, with its models loaded."""
    return Held(Counter(await door.tasks()), open_files(door.pid), len(descendants(door.pid)))


async def at_most(door: Door) -> Held:
    """The most that the idle gateway of ``door`` holds in a few looks.

    The connections to llama-servers come and go with the questions of its watchdogs.
    """
    found = await held(door)
    for _ in range(_LOOKS):
        await asyncio.sleep(0.5)
        now = await held(door)
        most = max(found.processes, now.processes)
        found = Held(found.tasks | now.tasks, found.files | now.files, most)
    return found


async def load(door: Door) -> None:
    """Have the models loaded that there is room for."""
    for model in MODELS:
        answer = await door.admin("POST", "/models/load", {"model": model})
        assert answer.status in (200, 400), answer.text  # 400: loaded already
        asked = chat(door.chance, door.key, model, "whole")
        door.tally.note(door.name, asked, await door.ask(asked.data))


async def check_idle(door: Door, before: Held) -> Held:
    """Look at an idle gateway, which held ``before`` when it was idle first."""
    now = await held(door)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLES):
            while now.beyond(before):
                await asyncio.sleep(0.5)
                now = await held(door)
    if more := now.beyond(before):
        door.tally.breach(f"{door.name}: left while idle", more)
    status = (await door.admin("GET", "/admin/status")).json()
    if status["in_flight"] or status["requests"]["under_way"]:
        door.tally.breach(f"{door.name}: in flight while idle", f"{status['requests']}")
    return now


async def check_counted(door: Door) -> None:
    """Look whether each answer was counted, by a gateway that was never killed."""
    usage: Answer = await door.admin("GET", "/admin/usage?by=key")
    by_key = {row["name"]: row["requests"] for row in usage.json()["usage"]}
    found, expected = by_key["ordinary"], door.tally.counted[door.name]
    if found != expected:
        door.tally.breach(f"{door.name}: requests are not counted", f"{found} of {expected}")
    lost = (await door.admin("GET", "/admin/requests")).json()["lost"]
    if lost:
        door.tally.breach(f"{door.name}: records are lost", f"{lost}")


def check_folder(door: Door) -> None:
    """Look at the files of a gateway that has ended."""
    found = {each.name for each in door.data.iterdir()} - _STAY
    found |= {str(each) for each in (door.data / "children").iterdir()}
    found |= {str(each) for each in door.folder.glob("*/llm-gateway*/*")}
    if found:
        door.tally.breach(f"{door.name}: files are left", f"{sorted(found)}")
