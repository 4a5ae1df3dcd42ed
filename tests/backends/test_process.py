"""Real processes, started and ended; gateways that are killed, and what they leave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from gateway.backends import process
from gateway.backends.logring import LogRing
from gateway.backends.process import Child, Records
from gateway.tasks import spawn
from tests.scripted import Box, alive, gone


def env_of(box: Box) -> dict[str, str]:
    """The folder in it lets ``box`` find what is left."""
    return {"PATH": os.environ["PATH"], "BOX": str(box.folder)}


async def shell(box: Box, script: str) -> Child:
    return await process.start(("sh", "-c", script), env_of(box), log=LogRing(), name="shell")


async def line(child: Child, number: int = 0) -> str:
    """Wait for a line of output."""
    came = asyncio.Event()
    end = child.log.listen(came.set)
    try:
        async with asyncio.timeout(10):
            while child.log.total <= number:
                came.clear()
                await came.wait()
    finally:
        end()
    return child.log.tail()[number]


async def test_child_has_its_arguments_and_its_output_is_kept(box: Box) -> None:
    argv = ("sh", "-c", 'echo "$1 $NAME"; echo oops >&2; printf end; exit 7', "sh", "a b")
    env = {**env_of(box), "NAME": "ä"}
    child = await process.start(argv, env, log=LogRing(), name="shell")
    assert await child.wait() == 7
    assert child.log.tail() == ["a b ä", "oops", "end"]
    assert child.returncode == 7
    assert await child.stop(1) == 7


async def test_it_sees_nothing_of_our_environment_and_no_open_file(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    child = await shell(box, "env; ls /proc/self/fd; read line || echo nothing to read")
    await child.wait()
    lines = child.log.tail()
    assert not [text for text in lines if text.startswith("SECRET")]
    assert [text for text in lines if text.isdigit()] == ["0", "1", "2", "3"]  # 3 is ls's own
    assert lines[-1] == "nothing to read"


async def test_stop_ends_it_and_its_own_children(box: Box) -> None:
    child = await shell(box, "sleep 600 & echo $!; wait")
    grandchild = int(await line(child))
    assert await child.stop(5) == -signal.SIGTERM
    assert await gone(grandchild)


async def test_what_it_leaves_behind_when_it_exits_is_ended_and_does_not_delay_the_news(
    box: Box,
) -> None:
    child = await shell(box, "sleep 600 & echo $!; exit 3")
    started = time.monotonic()
    assert await child.wait() == 3
    assert time.monotonic() - started < 3
    assert await gone(int(child.log.tail()[0]))


async def test_the_exit_is_noticed_though_one_that_left_the_group_holds_the_pipe(box: Box) -> None:
    child = await shell(box, "setsid sleep 600 & echo $!; exit 3")
    started = time.monotonic()
    assert await child.wait() == 3
    assert time.monotonic() - started < 3
    os.kill(int(child.log.tail()[0]), signal.SIGKILL)


async def test_one_that_ignores_sigterm_is_killed_after_the_grace(box: Box) -> None:
    child = await shell(box, "trap '' TERM; echo ready; while :; do sleep 1; done")
    await line(child)
    started = time.monotonic()
    assert await child.stop(0.2) == -signal.SIGKILL
    assert time.monotonic() - started >= 0.2


async def test_a_stopped_process_can_be_ended(box: Box) -> None:
    # With a handler for SIGTERM, as llama-server has one: without, the kernel ends it anyway.
    child = await shell(box, "trap 'exit 5' TERM; echo ready; while :; do sleep 1; done")
    await line(child)
    os.kill(child.pid, signal.SIGSTOP)
    assert await child.stop(20) == 5


async def test_a_cancelled_stop_kills_at_once(box: Box) -> None:
    child = await shell(box, "trap '' TERM; echo ready; while :; do sleep 1; done")
    await line(child)
    stopping = spawn(child.stop(60), name="stop")
    await asyncio.sleep(0)
    stopping.cancel()
    assert await child.wait() == -signal.SIGKILL
    assert stopping.cancelled()


async def test_several_may_stop_it_and_wait_for_it(box: Box) -> None:
    child = await shell(box, "exec sleep 600")
    waiter = spawn(child.wait(), name="wait")
    statuses = await asyncio.gather(child.stop(5), child.stop(5), child.wait(), waiter)
    assert set(statuses) == {-signal.SIGTERM}
    child.kill()


async def test_a_cancelled_wait_disturbs_nobody(box: Box) -> None:
    child = await shell(box, "read line < /dev/zero; exec sleep 600")
    waiter = spawn(child.wait(), name="wait")
    await asyncio.sleep(0)
    waiter.cancel()
    child.kill()
    assert await child.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (None, 0, "No such file or directory"),
        ("#!/bin/sh\n", 0o600, "Permission denied"),
        ("#!/nowhere/sh\n", 0o700, "No such file or directory"),
    ],
)
async def test_a_program_that_cannot_be_started_says_why(
    box: Box, content: str | None, mode: int, reason: str
) -> None:
    program = box.folder / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    child = await process.start((str(program),), env_of(box), log=LogRing(), name="program")
    assert await child.wait() == 127
    assert child.log.tail() == [f"cannot start {program}: {reason}"]


async def test_a_start_cancelled_at_any_moment_leaves_nothing(box: Box) -> None:
    for ticks in range(8):
        starting = spawn(shell(box, "exec sleep 600"), name="start")
        for _ in range(ticks):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            await starting.result().stop(5)
        assert box.alive() == []


async def test_a_flood_of_output_is_read_and_only_the_newest_kept(box: Box) -> None:
    child = await shell(box, "seq 200000; echo done")
    assert await child.wait() == 0
    assert child.log.total == 200001
    assert child.log.tail(2) == ["200000", "done"]


# --- a gateway that dies -------------------------------------------------------------------

PARENT = """
import asyncio, os, pathlib, sys
from gateway.backends import process
from gateway.backends.logring import LogRing

async def main(folder, *argv):
    env = {"PATH": os.environ["PATH"], "BOX": folder}
    child = await process.start(argv, env, log=LogRing(), name="orphan")
    process.Records(pathlib.Path(folder, "children")).write(child)
    child.log.listen(lambda: print(child.pid, child.log.tail()[0], flush=True))
    await child.wait()

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main(*sys.argv[2:]))
else:
    asyncio.run(main(*sys.argv[2:]))
"""


async def die_with_a_child(box: Box, script: str, loop: str = "asyncio") -> list[int]:
    """A gateway starts ``script`` and is killed when it has said something.

    Returns the pids of the child and the one that it said.
    """
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, loop, str(box.folder), "sh", "-c", script),
        stdout=asyncio.subprocess.PIPE,
    )
    assert gateway.stdout is not None
    pids = [int(word) for word in (await gateway.stdout.readline()).split()]
    gateway.kill()
    await gateway.communicate()
    return pids


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_child_dies_with_a_gateway_that_is_killed(box: Box, loop: str) -> None:
    child, same = await die_with_a_child(box, "echo $$; exec sleep 600", loop)
    assert child == same
    assert await gone(child)
    assert box.records.reap_leftovers() == []
    assert box.left() == []


async def test_what_a_wrapper_started_is_ended_by_the_next_gateway(box: Box) -> None:
    child, grandchild = await die_with_a_child(box, "sleep 600 & echo $!; wait")
    assert await gone(child)
    assert alive(grandchild)
    assert box.records.reap_leftovers() == ["orphan"]
    assert not alive(grandchild)
    assert box.left() == []


async def test_one_that_left_its_session_is_ended_by_the_next_gateway(box: Box) -> None:
    script = "setsid sh -c 'echo $$; exec sleep 600' & wait"
    child, grandchild = await die_with_a_child(box, script)
    assert await gone(child)
    assert alive(grandchild)
    assert box.records.reap_leftovers() == ["orphan"]
    assert not alive(grandchild)


async def test_one_without_the_mark_is_known_by_its_start_time(box: Box) -> None:
    """As where /proc/PID/environ cannot be read: the program may have cleared it."""
    child = await shell(box, 'exec env -i "BOX=$BOX" sh -c "echo ready; sleep 600; true"')
    await line(child)
    box.records.write(child)
    assert await asyncio.to_thread(box.records.reap_leftovers) == ["shell"]
    assert await child.wait() == -signal.SIGKILL


async def test_a_stranger_with_the_same_pid_is_left_alone(box: Box) -> None:
    child = await shell(box, "exec sleep 600")
    box.records.write(child)
    (file,) = (box.folder / "children").iterdir()
    record = json.loads(file.read_text())
    for change in ({"started": record["started"] + 1}, {"boot": "another"}):
        file.write_text(json.dumps({**record, "mark": "another", **change}))
        assert await asyncio.to_thread(box.records.reap_leftovers) == []
        assert not file.exists()
    assert alive(child.pid)
    await child.stop(5)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": 0}', "\0", '{"pid": {}}'])
async def test_a_broken_record_is_dropped(
    box: Box, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = box.folder / "children"
    folder.mkdir()
    (folder / "1.json").write_text(content)
    (folder / "2.json").mkdir()
    assert box.records.reap_leftovers() == []
    assert caplog.text.count("ignoring the child record") == 2
    (folder / "2.json").rmdir()


async def test_no_folder_of_records_is_no_trouble(tmp_path: Path) -> None:
    assert Records(tmp_path / "none").reap_leftovers() == []


async def test_records_are_for_living_processes_only(box: Box) -> None:
    child = await shell(box, "true")
    await child.wait()
    box.records.write(child)
    assert box.left() == []
    box.records.remove(child)


def test_identity_tells_processes_apart() -> None:
    mine = process.identify(os.getpid())
    assert mine is not None
    assert mine == process.identify(os.getpid())
    assert mine != process.identify(1)
    assert process.identify(2**22 + 1) is None


def test_the_launcher_is_where_it_is_looked_for() -> None:
    launcher = Path(process.__file__).with_name("launch.py")
    assert stat.S_ISREG(launcher.stat().st_mode)
