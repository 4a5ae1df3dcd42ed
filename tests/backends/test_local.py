"""One model's llama-server through its states, with scripted children."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from harness import wait_until
from scripted import FAKE, Box, alive, gone, says

from gateway.backends.backend import Backend, State
from gateway.backends.local import LocalBackend
from gateway.catalog import ModelSpec, Params
from gateway.errors import BackendError, GatewayError, LoadFailed
from gateway.tasks import spawn
from gateway.upstream import ConnectFailed, ConnectionLost

BROKE = ConnectionLost("it went away", before_head=True)


class Watched(LocalBackend):
    """A backend, the states it went through, and a wait for the next one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, self.note)
        self.states = [self.state]
        self._news = asyncio.Event()

    def note(self, backend: Backend) -> None:
        self.states.append(self.state)
        self._news.set()

    async def reaches(self, state: State, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while self.state is not state:
                self._news.clear()
                await self._news.wait()


Make = Callable[..., Watched]


@pytest.fixture
async def make(box: Box) -> AsyncIterator[Make]:
    made: list[Watched] = []

    def make(spec: ModelSpec | None = None, /, **options: Any) -> Watched:
        environment = {
            key: options.pop(key)
            for key in list(options)
            if key in {"load_timeout", "stop_grace", "llama_server", "records", "runtime_dir"}
            or key.startswith(("backoff", "failed_", "quick", "health_"))
        }
        backend = Watched(
            spec or box.spec(**options), box.environment(**environment), f"{len(made)}.sock"
        )
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.stop()


async def failure(backend: Backend) -> GatewayError:
    """What ``ensure_ready`` raises."""
    with pytest.raises(GatewayError) as caught:
        await backend.ensure_ready()
    return caught.value


def kill(backend: Backend, number: signal.Signals = signal.SIGKILL) -> None:
    assert backend.pid is not None
    os.kill(backend.pid, number)


# --- a start that works --------------------------------------------------------------------


async def test_a_start_waits_for_health_and_a_stop_for_the_end(make, box):
    backend = make(start_delay=0.3)
    started = time.monotonic()
    await backend.ensure_ready()
    assert time.monotonic() - started >= 0.3
    assert backend.load_seconds >= 0.3
    assert (await backend.pool.fetch("GET", "/health", timeout=5)).status == 200
    pid = backend.pid
    assert alive(pid)
    assert len(box.left()) == 2  # the socket and the record
    await backend.stop()
    assert not alive(pid)
    assert box.left() == []
    assert backend.pid is None
    S = State
    assert backend.states == [S.STOPPED, S.STARTING, S.READY, S.STOPPING, S.STOPPED]
    assert (backend.starts, backend.deaths, backend.last_error) == (1, 0, None)


async def test_it_can_be_started_again_and_again(make, box):
    backend = make()
    for _ in range(3):
        await backend.ensure_ready()
        await backend.ensure_ready()
        await backend.stop()
        await backend.stop()
    assert backend.starts == 3
    assert [start["beside"] for start in box.starts()] == [[], [], []]


async def test_many_wait_for_one_start_and_one_that_goes_does_not_end_it(make, box):
    backend = make(start_delay=0.2)
    waiting = [spawn(backend.ensure_ready(), name="wait") for _ in range(5)]
    await backend.reaches(State.STARTING)
    waiting[0].cancel()
    await asyncio.gather(*waiting[1:])
    assert waiting[0].cancelled()
    assert len(box.starts()) == backend.starts == 1


async def test_a_start_all_of_whose_waiters_have_gone_goes_on(make):
    backend = make(start_delay=0.1)
    waiting = spawn(backend.ensure_ready(), name="wait")
    await backend.reaches(State.STARTING)
    waiting.cancel()
    await backend.reaches(State.READY)


async def test_the_connections_are_there_only_while_it_runs(make):
    backend = make()
    with pytest.raises(ConnectFailed, match="is stopped"):
        _ = backend.pool
    await backend.ensure_ready()
    backend.drain()
    assert backend.pool
    await backend.stop()
    with pytest.raises(BackendError, match="is stopped"):
        _ = backend.pool


async def test_draining_is_not_ready_and_can_be_taken_back(make):
    backend = make()
    backend.drain()
    assert backend.state is State.STOPPED
    await backend.ensure_ready()
    since = backend.ready_since
    backend.drain()
    assert "is being unloaded" in (await failure(backend)).message
    backend.undrain()
    await backend.ensure_ready()
    assert backend.ready_since == since  # it has been up all the time
    backend.undrain()


# --- a start that does not -----------------------------------------------------------------


async def test_one_that_exits_at_once_fails_with_its_last_lines(make, box):
    backend = make(exit=3)
    error = await failure(backend)
    assert isinstance(error, LoadFailed)
    assert error.headers["x-should-retry"] == "false"
    assert "exited with status 3 while it was loading" in error.message
    assert error.message.endswith("Its last lines: error: this fake does not want to start")
    assert backend.last_error is error
    assert (backend.state, backend.deaths) == (State.BACKOFF, 1)
    assert backend.states[-3:] == [State.STARTING, State.STOPPING, State.BACKOFF]
    assert box.left() == []


async def test_the_last_lines_are_those_of_this_start(make, tmp_path):
    backend = make(exit_once=tmp_path / "once")
    assert "does not want to start yet" in (await failure(backend)).message
    await backend.ensure_ready()
    kill(backend)
    await backend.reaches(State.BACKOFF)
    assert backend.last_error.message.endswith("Its last lines: fake llama-server starts")


async def test_one_that_never_becomes_healthy_is_given_up(make):
    backend = make(never_healthy=1, load_timeout=0.3)
    started = time.monotonic()
    error = await failure(backend)
    assert "made no progress for 0.3 s while loading" in error.message
    assert 0.3 < time.monotonic() - started < 5
    assert backend.pid is None


@pytest.mark.parametrize("status", [301, 400, 401, 404])
async def test_one_that_refuses_to_say_whether_it_is_healthy_is_given_up(make, status):
    """Not after the load's own time, in which something may still come of it."""
    backend = make(health=status, health_refusal=0.2, load_timeout=60)
    async with asyncio.timeout(20):
        error = await failure(backend)
    text = f'{{"error": "no\\n health of {status}"}}'
    assert f"answers {status} to GET /health ({text}), not 200." in error.message
    assert error.message.endswith("Its last lines: fake llama-server starts")


async def test_one_that_refuses_for_a_moment_is_waited_for(make, tmp_path):
    backend = make(health=404, health_refusal=60, load_timeout=0.5)
    assert "made no progress for 0.5 s while loading, and answers 404" in str(
        (await failure(backend)).message
    )


async def test_one_that_speaks_no_http_is_given_up(make):
    backend = make(health="garbage", health_refusal=0.2, load_timeout=60)
    async with asyncio.timeout(20):
        assert "what is not HTTP/1.1" in (await failure(backend)).message


@pytest.mark.parametrize("status", [500, 502])
async def test_one_before_which_something_waits_for_it_is_waited_for(make, status):
    backend = make(health=status, health_refusal=0.1, load_timeout=1)
    error = await failure(backend)
    assert "made no progress for 1 s while loading" in error.message
    assert f"answers {status} to GET /health" in error.message


async def test_one_that_accepts_and_answers_nothing_is_given_up(make):
    backend = make(never_healthy=1, load_timeout=0.3)
    starting = spawn(failure(backend), name="start")
    await says(backend)
    kill(backend, signal.SIGSTOP)
    assert "made no progress" in (await starting).message


async def test_one_that_goes_on_writing_is_not_given_up(make):
    backend = make(start_delay=1, dots=0.05, load_timeout=0.4)
    await backend.ensure_ready()
    assert backend.load_seconds > 0.8


@pytest.mark.parametrize("way", ["reads", "grows"])
async def test_one_that_goes_on_working_in_silence_is_not_given_up(make, way):
    """A disk that is slow, or a file that is mapped: nothing to see in the log for minutes."""
    backend = make(start_delay=1.5, load_timeout=0.5, **{way: 0.05})
    await backend.ensure_ready()
    assert backend.load_seconds >= 1.5


async def test_one_that_stops_working_is_given_up(make):
    """What it did at first is no excuse."""
    backend = make(start_delay=1, reads=0.05, load_timeout=0.5)
    starting = spawn(failure(backend), name="start")
    await says(backend)
    await asyncio.sleep(0.7)  # more than it would get without doing anything
    assert not starting.done()
    kill(backend, signal.SIGSTOP)
    assert "made no progress for 0.5 s" in (await starting).message


async def test_a_signal_is_named(make):
    error = await failure(make(signal=int(signal.SIGILL)))
    assert "was ended by SIGILL: it was compiled for a CPU with instructions" in error.message
    error = await failure(make(signal=int(signal.SIGSEGV)))
    assert "was ended by SIGSEGV while it was loading" in error.message
    error = await failure(make(signal=int(signal.SIGKILL)))
    assert "was killed (SIGKILL), often by the system when memory runs out" in error.message


async def test_a_model_file_that_is_missing_is_no_death(make, box):
    backend = make(model="nowhere.gguf")
    for _ in range(6):
        error = await failure(backend)
        assert isinstance(error, LoadFailed)
        assert error.code == "model_file_not_found"
        assert str(box.folder / "nowhere.gguf") in error.message
    assert (backend.state, backend.deaths, box.starts()) == (State.STOPPED, 0, [])
    (box.folder / "nowhere.gguf").touch()
    await backend.ensure_ready()


@pytest.mark.parametrize("where", ["", "folder\0x/m.gguf", "~nobody-of-that-name/m.gguf"])
async def test_a_model_file_that_cannot_be_named_is_no_death(box, make, where):
    spec = box.spec().model_copy(update={"params": Params.model_construct(model=where)})
    backend = make(spec)
    assert isinstance(await failure(backend), LoadFailed)
    assert (backend.state, backend.deaths) == (State.STOPPED, 0)


@pytest.mark.parametrize("program", ["/nowhere/llama-server", "no-such-llama-server", "/tmp"])
async def test_a_program_that_is_missing_is_no_death(make, program):
    backend = make(llama_server=program)
    error = await failure(backend)
    assert isinstance(error, LoadFailed)
    assert "llama_server" in error.message
    assert (backend.state, backend.deaths) == (State.STOPPED, 0)


async def test_a_program_that_cannot_be_run_says_so(make, box):
    program = box.folder / "llama-server"
    program.write_text("#!/nowhere/python\n")
    program.chmod(0o700)
    error = await failure(make(llama_server=str(program)))
    assert f"cannot start {program}: No such file or directory" in error.message


async def test_records_that_cannot_be_written_do_not_stop_a_start(make, box, caplog):
    (box.folder / "children").write_text("a file where the folder should be")
    backend = make()
    await backend.ensure_ready()
    await backend.stop()
    assert "cannot note the process of a" in caplog.text
    assert backend.state is State.STOPPED
    (box.folder / "children").unlink()


async def test_a_socket_that_cannot_be_made_is_a_failed_load(make, box):
    error = await failure(make(runtime_dir=box.folder / "gone"))
    assert "exited with status 1 while it was loading" in error.message
    assert "No such file or directory" in error.message


# --- death ---------------------------------------------------------------------------------


async def test_a_crash_is_noticed_at_once_and_the_next_start_waits(make, box):
    backend = make(backoff_first=0.2)
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


async def test_suspicion_waits_for_the_news_of_a_death(make):
    backend = make()
    await backend.suspect(BROKE)
    await backend.ensure_ready()
    kill(backend)
    await backend.suspect(BROKE)
    assert backend.state is State.BACKOFF
    await backend.ensure_ready()
    started = time.monotonic()
    assert await backend.suspect(BROKE)  # nothing is wrong with it
    assert 0.9 < time.monotonic() - started < 3
    assert backend.state is State.READY


async def test_an_exit_nobody_asked_for_is_a_death_whatever_its_status(make):
    backend = make()
    await backend.ensure_ready()
    kill(backend, signal.SIGTERM)
    await backend.reaches(State.BACKOFF)
    assert "was ended by SIGTERM" in backend.last_error.message


async def test_each_further_death_waits_longer_and_the_last_is_final(make):
    backend = make(exit=1, backoff_first=0.02, backoff_cap=0.05, quick_deaths_allowed=4)
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


async def test_a_failed_one_tries_again_after_a_pause_that_grows(make):
    backend = make(
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


async def test_a_slow_load_that_fails_is_a_quick_death_too(make):
    backend = make(never_healthy=1, load_timeout=0.2, quick_death=0.01, quick_deaths_allowed=2)
    await failure(backend)
    await failure(backend)
    assert backend.state is State.FAILED


async def test_one_that_lived_for_a_while_starts_counting_anew(make):
    backend = make(quick_death=0.0, quick_deaths_allowed=2)
    for _ in range(3):
        await backend.ensure_ready()
        kill(backend)
        await backend.reaches(State.BACKOFF)
    assert backend.deaths == 3


async def test_a_long_life_that_ended_as_asked_is_a_clean_slate(make):
    backend = make(quick_death=0.1, quick_deaths_allowed=2)
    await backend.ensure_ready()
    kill(backend)
    await backend.reaches(State.BACKOFF)
    await backend.ensure_ready()
    await asyncio.sleep(0.12)
    await backend.stop()
    await backend.ensure_ready()
    kill(backend)
    await backend.reaches(State.BACKOFF)


async def test_a_reset_ends_the_wait_for_the_next_start(make, tmp_path):
    backend = make(exit_once=tmp_path / "once", backoff_first=60)
    await failure(backend)
    waiting = spawn(backend.ensure_ready(), name="wait")
    await asyncio.sleep(0)
    backend.reset()
    await asyncio.wait_for(waiting, 10)


async def test_a_stop_ends_the_wait_for_the_next_start(make, tmp_path):
    backend = make(exit_once=tmp_path / "once", backoff_first=60)
    await failure(backend)
    waiting = spawn(backend.ensure_ready(), name="wait")
    await asyncio.sleep(0)
    await backend.stop()
    with pytest.raises(BackendError, match="was stopped while it was loading"):
        await asyncio.wait_for(waiting, 10)
    assert (backend.state, backend.starts) == (State.STOPPED, 1)


# --- stops at bad moments ------------------------------------------------------------------


async def test_a_stop_at_any_moment_of_a_start_leaves_nothing(make, box):
    """The delays reach from before the first step to after the last one."""
    for ticks in [*range(12), 20, 40, 80, 0.02, 0.04, 0.06, 0.1]:
        backend = make()
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


async def test_a_stop_in_the_same_moment_as_a_start_is_not_lost(make, box):
    backend = make()
    starting = spawn(backend.ensure_ready(), name="start")
    await backend.reaches(State.STARTING)
    await backend.stop()
    with pytest.raises(BackendError, match="was stopped"):
        await starting
    assert (backend.state, box.starts()) == (State.STOPPED, [])
    await backend.ensure_ready()


async def test_a_stop_while_a_failed_start_is_cleared_up_waits_for_the_end(make):
    backend = make(never_healthy=1, ignore_term=1, load_timeout=0.2, stop_grace=0.3)
    starting = spawn(failure(backend), name="start")
    await backend.reaches(State.STOPPING)
    pid = backend.pid
    await backend.stop()
    assert not alive(pid)
    await starting
    assert backend.state is State.STOPPED


async def test_a_stop_in_the_moment_of_a_death(make, box):
    backend = make()
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


async def test_a_stop_of_a_start_that_is_further_than_the_loop_knows(make, box):
    backend = make(never_healthy=1)
    starting = spawn(backend.ensure_ready(), name="start")
    while not box.alive():
        await asyncio.sleep(0)
    # The loop stands still for a while, as on a busy machine, and the child goes on.
    wait_until(lambda: box.left() != [], 20, "a socket")
    await backend.stop()
    assert box.left() == box.alive() == []
    with pytest.raises(GatewayError):
        await starting


async def test_a_start_wanted_during_a_stop_follows_it(make, box):
    backend = make(ignore_term=1, stop_grace=0.2)
    await backend.ensure_ready()
    stopping = backend.stop()
    assert backend.state is State.STOPPING
    await backend.ensure_ready()
    assert stopping.done()
    assert [start["beside"] for start in box.starts()] == [[], []]


async def test_a_cancelled_stop_goes_on(make):
    backend = make(ignore_term=1, stop_grace=0.2)
    await backend.ensure_ready()
    stopping = backend.stop()
    assert backend.state is State.STOPPING
    stopping.cancel()
    await backend.reaches(State.STOPPED)


async def test_open_streams_end_when_it_is_stopped(make):
    backend = make(chunks=1000, pause=0.05)
    await backend.ensure_ready()
    body = b'{"stream": true}'
    asking = spawn(
        backend.pool.fetch("POST", "/v1/chat/completions", body=body, timeout=60), name="ask"
    )
    await asyncio.sleep(0.1)
    await backend.stop()
    with pytest.raises(GatewayError, match="was shut down"):
        await asking


async def test_a_grandchild_is_ended_too(make, tmp_path):
    backend = make(grandchild=tmp_path / "pid")
    await backend.ensure_ready()
    grandchild = int((tmp_path / "pid").read_text())
    assert alive(grandchild)
    kill(backend)
    await backend.reaches(State.BACKOFF)
    assert await gone(grandchild)


async def test_a_wrapper_that_keeps_it_as_a_child(make, box):
    wrapper = box.folder / "wrapper"
    wrapper.write_text(f'#!/bin/sh\n{FAKE} "$@"\nexit 9\n')
    wrapper.chmod(0o700)
    backend = make(llama_server=str(wrapper))
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
