"""The death of a model's llama-server, and stops at bad moments."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.errors import BackendError, GatewayError
from gateway.tasks import spawn
from gateway.upstream import ConnectFailed, UpstreamRequest
from tests.backends.conftest import MakeLocal
from tests.harness import wait_until
from tests.local_backends import failure, kill
from tests.scripted import FAKE, Box, alive, gone

# --- death ---------------------------------------------------------------------------------


async def test_a_crash_is_noticed_at_once_and_the_next_start_waits(
    make_local: MakeLocal, box: Box
) -> None:
    backend = make_local(backoff_first=0.2)
    await backend.ensure_ready()
    pool, pid = backend.pool, backend.pid
    kill(backend, signal.SIGSEGV)
    await gone(pid)
    await backend.reaches(State.STOPPING, 1)
    with pytest.raises(ConnectFailed):  # which the relay answers by sending the request again
        _ = backend.pool
    restart = spawn(backend.ensure_ready(), name="restart")  # in the middle of clearing up
    await backend.reaches(State.BACKOFF)
    died = time.monotonic()
    assert "was ended by SIGSEGV" in backend.last_error.message
    assert isinstance(backend.last_error, BackendError)
    await restart
    assert time.monotonic() - died >= 0.19
    assert backend.pid != pid
    assert backend.pool is not pool
    assert backend.deaths == 1
    assert [start["beside"] for start in box.starts()] == [[], []]


async def test_suspicion_waits_for_the_news_of_a_death(make_local: MakeLocal) -> None:
    backend = make_local()
    await backend.suspect()
    await backend.ensure_ready()
    kill(backend)
    await backend.suspect()
    assert backend.state is State.BACKOFF
    await backend.ensure_ready()
    started = time.monotonic()
    await backend.suspect()  # nothing is wrong with it
    assert 0.9 < time.monotonic() - started < 3
    assert backend.state is State.READY


async def test_an_exit_nobody_asked_for_is_a_death_whatever_its_status(
    make_local: MakeLocal,
) -> None:
    backend = make_local()
    await backend.ensure_ready()
    kill(backend, signal.SIGTERM)
    await backend.reaches(State.BACKOFF)
    assert "was ended by SIGTERM" in backend.last_error.message


async def test_each_further_death_waits_longer_and_the_last_is_final(make_local: MakeLocal) -> None:
    backend = make_local(exit=1, backoff_first=0.02, backoff_cap=0.05, quick_deaths_allowed=4)
    waits = []
    for _ in range(3):
        await failure(backend)
        waits.append(backend.retry_at - backend.since)
        assert backend.state is State.BACKOFF
    assert waits == pytest.approx([0.02, 0.04, 0.05], abs=0.01)
    await failure(backend)
    assert backend.state is State.FAILED
    starts = backend.starts
    error = await failure(backend)
    assert "failed 4 times in a row" in error.message
    assert "this fake does not want to start" in error.message
    assert backend.starts == starts
    await backend.stop()
    assert backend.state is State.FAILED
    backend.reset()
    assert backend.state is State.STOPPED
    assert "exited with status 1" in (await failure(backend)).message
    assert backend.state is State.BACKOFF


async def test_a_failed_one_tries_again_after_a_pause_that_grows(make_local: MakeLocal) -> None:
    backend = make_local(
        exit=1, backoff_first=0.01, quick_deaths_allowed=1, failed_first=0.05, failed_cap=0.15
    )
    pauses = []
    for _ in range(3):
        assert "does not want to start" in (await failure(backend)).message
        assert backend.state is State.FAILED
        pauses.append(backend.retry_at - backend.since)
        told = await failure(backend)
        assert "tries again in 1 s" in told.message
        assert told.headers["Retry-After"] == "1"
        assert backend.starts == len(pauses)
        while backend.retry_at > time.monotonic():
            await asyncio.sleep(backend.retry_at - time.monotonic())
    assert pauses == pytest.approx([0.05, 0.1, 0.15], abs=0.01)


async def test_a_slow_load_that_fails_is_a_quick_death_too(make_local: MakeLocal) -> None:
    backend = make_local(
        never_healthy=1, load_timeout=0.2, quick_death=0.01, quick_deaths_allowed=2
    )
    await failure(backend)
    await failure(backend)
    assert backend.state is State.FAILED


async def test_one_that_lived_for_a_while_starts_counting_anew(make_local: MakeLocal) -> None:
    backend = make_local(quick_death=0.0, quick_deaths_allowed=2)
    for _ in range(3):
        await backend.ensure_ready()
        kill(backend)
        await backend.reaches(State.BACKOFF)
    assert backend.deaths == 3


async def test_a_long_life_that_ended_as_asked_is_a_clean_slate(make_local: MakeLocal) -> None:
    backend = make_local(quick_death=0.1, quick_deaths_allowed=2)
    await backend.ensure_ready()
    kill(backend)
    await backend.reaches(State.BACKOFF)
    await backend.ensure_ready()
    await asyncio.sleep(0.12)  # longer than quick_death
    await backend.stop()
    await backend.ensure_ready()
    kill(backend)
    await backend.reaches(State.BACKOFF)


async def test_a_reset_ends_the_wait_for_the_next_start(
    make_local: MakeLocal, tmp_path: Path
) -> None:
    backend = make_local(exit_once=tmp_path / "once", backoff_first=60)
    await failure(backend)
    waiting = spawn(backend.ensure_ready(), name="wait")
    await asyncio.sleep(0)
    backend.reset()
    await asyncio.wait_for(waiting, 10)


async def test_a_stop_ends_the_wait_for_the_next_start(
    make_local: MakeLocal, tmp_path: Path
) -> None:
    backend = make_local(exit_once=tmp_path / "once", backoff_first=60)
    await failure(backend)
    waiting = spawn(backend.ensure_ready(), name="wait")
    await asyncio.sleep(0)
    await backend.stop()
    with pytest.raises(BackendError, match="was stopped while it was loading"):
        await asyncio.wait_for(waiting, 10)
    assert (backend.state, backend.starts) == (State.STOPPED, 1)


# --- stops at bad moments ------------------------------------------------------------------


async def test_a_stop_at_any_moment_of_a_start_leaves_nothing(
    make_local: MakeLocal, box: Box, subtests: pytest.Subtests
) -> None:
    """The delays reach from before the first step to after the last one."""
    for ticks in [*range(12), 20, 40, 80, 0.02, 0.04, 0.06, 0.1]:
        with subtests.test(f"{ticks!r:.80}"):
            backend = make_local()
            starting = spawn(backend.ensure_ready(), name="start")
            if isinstance(ticks, float):
                await asyncio.sleep(ticks)
            else:
                for _ in range(ticks):
                    await asyncio.sleep(0)
            await backend.stop()
            assert backend.state is State.STOPPED
            if State.STARTING not in backend.states:  # too early: there was nothing to stop
                await starting
                await backend.stop()
            await asyncio.wait([starting])
            if starting.exception() is not None:
                assert "was stopped while it was loading" in str(starting.exception())
            assert box.alive() == []
            assert box.left() == []


async def test_a_stop_in_the_same_moment_as_a_start_is_not_lost(
    make_local: MakeLocal, box: Box
) -> None:
    backend = make_local()
    starting = spawn(backend.ensure_ready(), name="start")
    await backend.reaches(State.STARTING)
    await backend.stop()
    with pytest.raises(BackendError, match="was stopped"):
        await starting
    assert (backend.state, box.starts()) == (State.STOPPED, [])
    await backend.ensure_ready()


async def test_a_stop_while_a_failed_start_is_cleared_up_waits_for_the_end(
    make_local: MakeLocal,
) -> None:
    backend = make_local(never_healthy=1, ignore_term=1, load_timeout=0.2, stop_grace=0.3)
    starting = spawn(failure(backend), name="start")
    await backend.reaches(State.STOPPING)
    pid = backend.pid
    await backend.stop()
    assert not alive(pid)
    await starting
    assert backend.state is State.STOPPED


async def test_stop_in_the_moment_of_a_death_leaves_it_startable(
    make_local: MakeLocal, box: Box
) -> None:
    backend = make_local()
    for ticks in range(8):
        await backend.ensure_ready()
        pid = backend.pid
        kill(backend)
        if ticks < 4:
            await gone(pid)  # it is dead, and nobody knows
        else:
            await backend.reaches(State.STOPPING)  # the news is here, and it is cleared away
        for _ in range(ticks % 4):
            await asyncio.sleep(0)
        await backend.stop()
        assert backend.state is State.STOPPED
        assert box.left() == []
        backend.reset()
        await backend.ensure_ready()  # no late news of the death disturbs the next one
        await asyncio.sleep(0.02)
        assert backend.state is State.READY
        await backend.stop()


async def test_stop_of_a_start_just_spawned_leaves_no_process(
    make_local: MakeLocal, box: Box
) -> None:
    backend = make_local(never_healthy=1)
    starting = spawn(backend.ensure_ready(), name="start")
    while not box.alive():
        await asyncio.sleep(0)
    # The loop stands still for a while, as on a busy machine, and the child goes on.
    wait_until(lambda: box.left() != [], 20, "a socket")
    await backend.stop()
    assert box.left() == box.alive() == []
    with pytest.raises(GatewayError):
        await starting


async def test_a_start_wanted_during_a_stop_follows_it(make_local: MakeLocal, box: Box) -> None:
    backend = make_local(ignore_term=1, stop_grace=0.2)
    await backend.ensure_ready()
    stopping = backend.stop()
    assert backend.state is State.STOPPING
    await backend.ensure_ready()
    assert stopping.done()
    assert [start["beside"] for start in box.starts()] == [[], []]


async def test_a_cancelled_stop_goes_on(make_local: MakeLocal) -> None:
    backend = make_local(ignore_term=1, stop_grace=0.2)
    await backend.ensure_ready()
    stopping = backend.stop()
    assert backend.state is State.STOPPING
    stopping.cancel()
    await backend.reaches(State.STOPPED)


async def test_open_streams_end_when_it_is_stopped(make_local: MakeLocal) -> None:
    backend = make_local(chunks=1000, pause=0.05)
    await backend.ensure_ready()
    body = b'{"stream": true}'
    asking = spawn(
        backend.pool.fetch(UpstreamRequest("POST", "/v1/chat/completions", body=body), timeout=60),
        name="ask",
    )
    await asyncio.sleep(0.1)  # it is on its way: nothing tells when it is there
    await backend.stop()
    with pytest.raises(GatewayError, match="was shut down"):
        await asking


async def test_a_grandchild_is_ended_too(make_local: MakeLocal, tmp_path: Path) -> None:
    backend = make_local(grandchild=tmp_path / "pid")
    await backend.ensure_ready()
    grandchild = int((tmp_path / "pid").read_text())
    assert alive(grandchild)
    kill(backend)
    await backend.reaches(State.BACKOFF)
    assert await gone(grandchild)


async def test_death_below_a_wrapper_is_told_by_the_wrappers_status(
    make_local: MakeLocal, box: Box
) -> None:
    wrapper = box.folder / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{FAKE} "$@"\nexit 9\n')
    wrapper.chmod(0o700)
    backend = make_local(llama_server=str(wrapper))
    await backend.ensure_ready()
    (inner,) = (start["pid"] for start in box.starts())
    assert inner != backend.pid
    await backend.stop()
    assert await gone(inner, 10)
    await backend.ensure_ready()
    inner = box.starts()[-1]["pid"]
    os.kill(inner, signal.SIGKILL)
    await backend.reaches(State.BACKOFF)
    assert "exited with status 9" in backend.last_error.message
