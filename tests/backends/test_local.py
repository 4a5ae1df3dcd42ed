"""The start of a model's llama-server, with scripted children."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.backends.backend import State
from gateway.backends.process import Child
from gateway.backends.server_run import ServerRun
from gateway.errors import BackendError, LoadFailed
from gateway.models.local_model import Params
from gateway.tasks import spawn
from gateway.upstream import ConnectFailed, UpstreamRequest
from tests.backends.conftest import MakeLocal
from tests.local_backends import failure, kill
from tests.scripted import Box, alive, says

# --- a start that works --------------------------------------------------------------------


async def test_a_start_waits_for_health_and_a_stop_for_the_end(
    make_local: MakeLocal, box: Box
) -> None:
    backend = make_local(start_delay=0.3)
    started = time.monotonic()
    await backend.ensure_ready()
    assert time.monotonic() - started >= 0.3
    assert backend.load_seconds >= 0.3
    assert (await backend.pool.fetch(UpstreamRequest("GET", "/health"), timeout=5)).status == 200
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


async def test_a_start_is_under_way_when_it_has_been_asked_for(make_local: MakeLocal) -> None:
    backend = make_local()
    backend.start()
    assert backend.state is State.STARTING
    await backend.ensure_ready()
    assert backend.starts == 1
    stopping = backend.stop()
    assert backend.state is State.STOPPING
    await stopping
    assert backend.state is State.STOPPED


async def test_a_start_whose_preparation_fails_is_refused_and_may_be_tried_again(
    make_local: MakeLocal, box: Box
) -> None:
    async def prepare() -> None:
        raise ValueError("an odd file")

    backend = make_local()
    backend.start(prepare)
    assert "cannot be started" in (await failure(backend)).message
    assert (backend.state, backend.deaths, box.starts()) == (State.STOPPED, 0, [])
    assert backend.start_error is backend.last_error
    await backend.ensure_ready()
    assert backend.start_error is None


async def test_a_stop_in_the_moment_in_which_it_is_ready_counts(
    make_local: MakeLocal, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_ready = ServerRun.until_ready

    async def then_stopped(run: ServerRun) -> Child:
        child = await until_ready(run)
        backend.stop()  # its task begins a turn later: after what follows here
        return child

    monkeypatch.setattr(ServerRun, "until_ready", then_stopped)
    backend = make_local()
    assert "stopped" in (await failure(backend)).message
    await backend.stop()
    S = State
    assert backend.states == [S.STOPPED, S.STARTING, S.STOPPING, S.STOPPED]
    assert box.left() == []


async def test_a_stop_while_a_start_is_prepared_ends_that_too(
    make_local: MakeLocal, box: Box
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def prepare() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    backend = make_local()
    backend.start(prepare)
    await begun.wait()
    await backend.stop()
    assert ended.is_set()
    assert (backend.state, backend.start_error, box.starts()) == (State.STOPPED, None, [])


async def test_it_can_be_started_again_and_again(make_local: MakeLocal, box: Box) -> None:
    backend = make_local()
    for _ in range(3):
        await backend.ensure_ready()
        await backend.ensure_ready()
        await backend.stop()
        await backend.stop()
    assert backend.starts == 3
    assert [start["beside"] for start in box.starts()] == [[], [], []]


async def test_many_wait_for_one_start_and_one_that_goes_does_not_end_it(
    make_local: MakeLocal, box: Box
) -> None:
    backend = make_local(start_delay=0.2)
    waiting = [spawn(backend.ensure_ready(), name="wait") for _ in range(5)]
    await backend.reaches(State.STARTING)
    waiting[0].cancel()
    await asyncio.gather(*waiting[1:])
    assert waiting[0].cancelled()
    assert len(box.starts()) == backend.starts == 1


async def test_a_start_all_of_whose_waiters_have_gone_goes_on(make_local: MakeLocal) -> None:
    backend = make_local(start_delay=0.1)
    waiting = spawn(backend.ensure_ready(), name="wait")
    await backend.reaches(State.STARTING)
    waiting.cancel()
    await backend.reaches(State.READY)


async def test_the_connections_are_there_only_while_it_runs(make_local: MakeLocal) -> None:
    backend = make_local()
    with pytest.raises(ConnectFailed, match="is stopped"):
        _ = backend.pool
    await backend.ensure_ready()
    backend.drain()
    assert backend.pool
    await backend.stop()
    with pytest.raises(BackendError, match="is stopped"):
        _ = backend.pool


async def test_draining_is_not_ready_and_can_be_taken_back(make_local: MakeLocal) -> None:
    backend = make_local()
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


async def test_one_that_exits_at_once_fails_with_its_last_lines(
    make_local: MakeLocal, box: Box
) -> None:
    backend = make_local(exit=3)
    error = await failure(backend)
    assert isinstance(error, LoadFailed)
    assert error.headers["x-should-retry"] == "false"
    assert "exited with status 3 while it was loading" in error.message
    assert error.message.endswith("Its last lines: error: this fake does not want to start")
    assert backend.last_error is error
    assert (backend.state, backend.deaths) == (State.BACKOFF, 1)
    assert backend.states[-3:] == [State.STARTING, State.STOPPING, State.BACKOFF]
    assert box.left() == []


async def test_the_last_lines_are_those_of_this_start(
    make_local: MakeLocal, tmp_path: Path
) -> None:
    backend = make_local(exit_once=tmp_path / "once")
    assert "does not want to start yet" in (await failure(backend)).message
    await backend.ensure_ready()
    kill(backend)
    await backend.reaches(State.BACKOFF)
    assert backend.last_error.message.endswith("Its last lines: fake llama-server starts")


async def test_one_that_never_becomes_healthy_is_given_up(make_local: MakeLocal) -> None:
    backend = make_local(never_healthy=1, load_timeout=0.3)
    started = time.monotonic()
    error = await failure(backend)
    assert "made no progress for 0.3 s while loading" in error.message
    assert 0.3 < time.monotonic() - started < 5
    assert backend.pid is None


@pytest.mark.parametrize("status", [301, 400, 401, 404])
async def test_one_that_refuses_to_say_whether_it_is_healthy_is_given_up(
    make_local: MakeLocal, status: int
) -> None:
    """Not after the load's own time, in which something may still come of it."""
    backend = make_local(health=status, health_refusal=0.2, load_timeout=60)
    async with asyncio.timeout(20):
        error = await failure(backend)
    text = f'{{"error": "no\\n health of {status}"}}'
    assert f"answers {status} to GET /health ({text}), not 200." in error.message
    assert error.message.endswith("Its last lines: fake llama-server starts")


async def test_one_that_refuses_for_a_moment_is_waited_for(
    make_local: MakeLocal, tmp_path: Path
) -> None:
    backend = make_local(health=404, health_refusal=60, load_timeout=0.5)
    assert "made no progress for 0.5 s while loading, and answers 404" in str(
        (await failure(backend)).message
    )


async def test_one_that_speaks_no_http_is_given_up(make_local: MakeLocal) -> None:
    backend = make_local(health="garbage", health_refusal=0.2, load_timeout=60)
    async with asyncio.timeout(20):
        assert "what is not HTTP/1.1" in (await failure(backend)).message


@pytest.mark.parametrize("status", [500, 502])
async def test_one_before_which_something_waits_for_it_is_waited_for(
    make_local: MakeLocal, status: int
) -> None:
    backend = make_local(health=status, health_refusal=0.1, load_timeout=1)
    error = await failure(backend)
    assert "made no progress for 1 s while loading" in error.message
    assert f"answers {status} to GET /health" in error.message


async def test_one_that_accepts_and_answers_nothing_is_given_up(make_local: MakeLocal) -> None:
    backend = make_local(never_healthy=1, load_timeout=0.3)
    starting = spawn(failure(backend), name="start")
    await says(backend)
    kill(backend, signal.SIGSTOP)
    assert "made no progress" in (await starting).message


async def test_one_that_goes_on_writing_is_not_given_up(make_local: MakeLocal) -> None:
    backend = make_local(start_delay=1, dots=0.05, load_timeout=0.4)
    await backend.ensure_ready()
    assert backend.load_seconds > 0.8


@pytest.mark.parametrize("way", ["reads", "grows"])
async def test_one_that_goes_on_working_in_silence_is_not_given_up(
    make_local: MakeLocal, way: str
) -> None:
    """A disk that is slow, or a file that is mapped: nothing to see in the log for minutes."""
    backend = make_local(start_delay=1.5, load_timeout=0.5, **{way: 0.05})
    await backend.ensure_ready()
    assert backend.load_seconds >= 1.5


async def test_one_that_stops_working_is_given_up(make_local: MakeLocal) -> None:
    """What it did at first is no excuse."""
    backend = make_local(start_delay=1, reads=0.05, load_timeout=0.5)
    starting = spawn(failure(backend), name="start")
    await says(backend)
    await asyncio.sleep(0.7)  # more than it would get without doing anything
    assert not starting.done()
    kill(backend, signal.SIGSTOP)
    assert "made no progress for 0.5 s" in (await starting).message


async def test_a_death_by_a_signal_names_it(make_local: MakeLocal) -> None:
    error = await failure(make_local(signal=int(signal.SIGILL)))
    assert "was ended by SIGILL: it was compiled for a CPU with instructions" in error.message
    error = await failure(make_local(signal=int(signal.SIGSEGV)))
    assert "was ended by SIGSEGV while it was loading" in error.message
    error = await failure(make_local(signal=int(signal.SIGKILL)))
    assert "was killed (SIGKILL), often by the system when memory runs out" in error.message


async def test_a_model_file_that_is_missing_is_no_death(make_local: MakeLocal, box: Box) -> None:
    backend = make_local(model="nowhere.gguf")
    for _ in range(6):
        error = await failure(backend)
        assert isinstance(error, LoadFailed)
        assert error.code == "model_file_not_found"
        assert str(box.folder / "nowhere.gguf") in error.message
    assert (backend.state, backend.deaths, box.starts()) == (State.STOPPED, 0, [])
    (box.folder / "nowhere.gguf").touch()
    await backend.ensure_ready()


@pytest.mark.parametrize("where", ["", "folder\0x/m.gguf", "~nobody-of-that-name/m.gguf"])
async def test_a_model_file_that_cannot_be_named_is_no_death(
    box: Box, make_local: MakeLocal, where: str
) -> None:
    spec = replace(box.spec(), params=Params(model=where))
    backend = make_local(spec)
    assert isinstance(await failure(backend), LoadFailed)
    assert (backend.state, backend.deaths) == (State.STOPPED, 0)


@pytest.mark.parametrize("program", ["/nowhere/llama-server", "no-such-llama-server", "/tmp"])
async def test_a_program_that_is_missing_is_no_death(make_local: MakeLocal, program: str) -> None:
    backend = make_local(llama_server=program)
    error = await failure(backend)
    assert isinstance(error, LoadFailed)
    assert "llama_server" in error.message
    assert (backend.state, backend.deaths) == (State.STOPPED, 0)


async def test_a_program_that_cannot_be_run_says_so(make_local: MakeLocal, box: Box) -> None:
    program = box.folder / "llama-server"
    program.write_text("#!/nowhere/python\n")
    program.chmod(0o700)
    error = await failure(make_local(llama_server=str(program)))
    assert f"cannot start {program}: No such file or directory" in error.message


async def test_records_that_cannot_be_written_do_not_stop_a_start(
    make_local: MakeLocal, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    (box.folder / "children").write_text("a file where the folder should be")
    backend = make_local()
    await backend.ensure_ready()
    await backend.stop()
    assert "cannot note the process of a" in caplog.text
    assert backend.state is State.STOPPED
    (box.folder / "children").unlink()


async def test_a_socket_that_cannot_be_made_is_a_failed_load(
    make_local: MakeLocal, box: Box
) -> None:
    error = await failure(make_local(runtime_dir=box.folder / "gone"))
    assert "exited with status 1 while it was loading" in error.message
    assert "No such file or directory" in error.message
