"""Models that other servers have: which server gets a request, and what becomes of dead ones."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from elsewhere import CLOSING, Elsewhere, hang_up, hold
from scripted import Box, catalog_of, until

from gateway.backends.backend import Backend, State
from gateway.backends.decision import SchedulingLimits
from gateway.backends.remote import RemoteBackend
from gateway.backends.scheduler import Scheduler
from gateway.catalog import ModelSpec, parse_catalog
from gateway.errors import GatewayError, LoadFailed
from gateway.tasks import spawn
from gateway.tls.selfsigned import self_signed
from gateway.upstream import ConnectionLost, Fetched, HeadTimeout, ResponseHead, UpstreamError

CHAT = "/v1/chat/completions"


def spec_of(*servers: Elsewhere | str, name: str = "m", **entry: Any) -> ModelSpec:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    text = json.dumps({name: {"url": urls, "modelName": "there", **entry}})
    return parse_catalog(text).models[name]


class Watched(RemoteBackend):
    """A backend, and a wait for what it or its servers become."""

    def __init__(self, spec: ModelSpec, box: Box, **environment: Any) -> None:
        self._told = asyncio.Event()
        super().__init__(spec, box.environment(**environment), self.note)

    def note(self, backend: Backend) -> None:
        self._told.set()

    async def until(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._told.clear()
                await self._told.wait()

    def up(self) -> list[bool]:
        return [server.up for server in self.servers]

    async def ask(self, path: str = CHAT) -> Fetched:
        return await self.pool.fetch("POST", path, body=b"{}", timeout=20)


Make = Callable[..., Watched]


@pytest.fixture
async def make(box: Box) -> AsyncIterator[Make]:
    """Backends that end with the test."""
    made: list[Watched] = []

    def make(*servers: Elsewhere | str, environ: Any = None, **entry: Any) -> Watched:
        options = {} if environ is None else {"environ": environ}
        made.append(Watched(spec_of(*servers, **entry), box, **options))
        return made[-1]

    yield make
    for backend in made:
        await backend.stop()
        assert backend.state is State.STOPPED


@pytest.fixture
async def servers() -> AsyncIterator[list[Elsewhere]]:
    """Two of them."""
    async with Elsewhere() as one, Elsewhere() as two:
        yield [one, two]


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


class Sink:
    """What came of one exchange."""

    def __init__(self) -> None:
        self.done: asyncio.Future[ResponseHead] = asyncio.get_running_loop().create_future()

    def on_head(self, head: ResponseHead) -> None:
        self.head = head

    def on_body(self, data: bytes) -> None:
        pass

    def on_end(self) -> None:
        self.done.set_result(self.head)

    def on_error(self, error: UpstreamError) -> None:
        self.done.set_exception(error)


async def failure(backend: Watched) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await backend.ensure_ready()
    return caught.value


# --- to load is to look --------------------------------------------------------------------


async def test_loading_looks_and_unloading_lets_go(make, servers):
    backend = make(servers[0])
    assert (backend.state, backend.resident, backend.pid) == (State.STOPPED, False, None)
    await asyncio.gather(backend.ensure_ready(), backend.ensure_ready())
    assert (backend.state, backend.starts, backend.up()) == (State.READY, 1, [True])
    assert [one.target for one in servers[0].every] == ["/v1/models", "/health"]
    assert backend.context_size == 4096
    assert (await backend.ask()).status == 200
    await backend.stop()
    assert (backend.state, backend.resident) == (State.STOPPED, False)
    assert backend.servers == tuple(
        dataclasses.replace(server, up=False, in_flight=0) for server in backend.servers
    )
    with pytest.raises(UpstreamError, match="is stopped"):
        await backend.ask()


@pytest.mark.parametrize(
    ("path", "answer", "says"),
    [
        ("/v1/models", (500, {}), "it answered 500 to GET /v1/models"),
        ("/health", (503, b"Loading\n model"), "it answered 503 to GET /health (Loading model)"),
        ("/v1/models", (401, {}), "it wants a key"),
        ("/v1/models", (301, b"", {"Location": "https://x/"}), "redirects to another url"),
        ("/v1/models", hang_up, "went away before it answered"),
    ],
)
async def test_a_server_that_is_of_no_use(make, servers, path, answer, says):
    servers[0].answers[path] = answer
    backend = make(servers[0])
    error = await failure(backend)
    assert error.status == 502
    assert error.message.startswith("the server of 'm' cannot be used: ")
    assert says in error.message
    assert (backend.state, backend.start_failed, backend.resident) == (State.STOPPED, True, False)
    assert backend.last_error is error


async def test_a_port_for_tls_asked_in_plain_text(make, servers):
    """As nginx and Go answer: 400 to whatever it is, which no client could do anything about."""
    server = servers[0]
    said = (400, b"The plain HTTP request was sent to HTTPS port")
    server.answers |= {"/v1/models": said, "/health": said}
    backend = make(server)
    assert (await failure(backend)).message.endswith(
        "it answered 400 to GET /v1/models and to GET /health "
        "(The plain HTTP request was sent to HTTPS port)"
    )
    server.answers["/health"] = (200, {})
    await backend.ensure_ready()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 429])
async def test_a_server_without_a_list_of_models_can_be_used(make, servers, status):
    servers[0].answers["/v1/models"] = (status, {})
    backend = make(servers[0])
    await backend.ensure_ready()
    assert backend.context_size is None
    assert (await backend.ask()).status == 200


async def test_nobody_there(make, nobody):
    backend = make(nobody)
    error = await failure(backend)
    assert error.status == 502
    assert error.message == "the server of 'm' cannot be used: the connection is refused"
    assert nobody.partition("//")[2] not in error.message  # clients read that
    assert any(nobody in line for line in backend.log.tail())  # administrators this


async def test_a_name_that_nobody_knows(make):
    error = await failure(make("http://no-such-host.invalid"))
    assert (error.status, error.message.rpartition(": ")[2]) == (502, "its name is not known")


async def test_each_load_tries_anew(make, servers):
    await servers[0].stop()
    backend = make(servers[0])
    await failure(backend)
    await servers[0].start()
    await backend.ensure_ready()
    assert (backend.state, backend.starts, backend.start_failed) == (State.READY, 2, False)


async def test_stopped_while_it_looks(make, servers):
    servers[0].answers["/v1/models"] = hold
    backend = make(servers[0])
    loading = spawn(backend.ensure_ready(), name="load")
    await servers[0].until(lambda: len(servers[0].every) == 1)
    assert backend.state is State.STARTING
    await backend.stop()
    with pytest.raises(GatewayError, match="unloaded while it was loading"):
        await loading
    assert backend.state is State.STOPPED


# --- keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["itself", "env", "file"])
async def test_the_key_goes_along(make, servers, tmp_path: Path, caplog, kind):
    (tmp_path / "key").write_text("sk-very-secret\n")
    key = {"itself": "sk-very-secret", "env": "env:K", "file": f"file:{tmp_path / 'key'}"}[kind]
    backend = make(servers[0], key=key, environ={"K": "sk-very-secret"})
    with caplog.at_level("DEBUG"):
        await backend.ensure_ready()
        await backend.ask()
    for asked in servers[0].every:
        assert asked.headers.getall("Authorization") == ["Bearer sk-very-secret"]
        assert asked.headers["Host"] == servers[0].url.removeprefix("http://")
        assert asked.headers["User-Agent"].startswith("llm-gateway/")
        assert asked.headers["Accept-Encoding"] == "identity"
    seen = caplog.text + repr(backend.log.tail()) + repr(backend.servers) + repr(backend.spec)
    assert "secret" not in seen


async def test_a_key_that_is_refused_is_not_the_clients_fault(make, servers):
    servers[0].answers["/v1/models"] = (401, {"error": {"message": "wrong key sk-1"}})
    error = await failure(make(servers[0], key="sk-1"))
    assert (error.status, error.message.rpartition(": ")[2]) == (502, "it refuses the key")


async def test_a_key_that_is_not_there(make, servers):
    backend = make(servers[0], key="env:NOWHERE", environ={})
    error = await failure(backend)
    assert isinstance(error, LoadFailed)
    assert error.public == "the servers of 'm' cannot be asked."
    assert error.detail == "key: the environment variable NOWHERE is not set"
    assert (servers[0].every, backend.state) == ([], State.STOPPED)


# --- TLS -----------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[..., tuple[ssl.SSLContext, Path]]:
    def make(domain: str) -> tuple[ssl.SSLContext, Path]:
        made = self_signed([domain], tmp_path / "ssl")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        stem = tmp_path / "ssl" / domain
        context.load_cert_chain(f"{stem}-crt.pem", f"{stem}-key.pem")
        assert made.fingerprint
        return context, tmp_path / "ssl/local-ca-crt.pem"

    return make


async def test_https_with_a_ca_of_ones_own(make, certificates):
    context, authority = certificates("127.0.0.1")
    async with Elsewhere(context) as server:
        backend = make(server, caFile=str(authority), key="sk-1")
        await backend.ensure_ready()
        assert (await backend.ask()).status == 200
        assert server.asked[0].headers["Authorization"] == "Bearer sk-1"


async def test_https_is_verified(make, certificates):
    context, authority = certificates("box.example")
    async with Elsewhere(context) as server:
        error = await failure(make(server, key="sk-1"))
        assert error.status == 502
        assert "its certificate is not trusted: " in error.message
        error = await failure(make(server, key="sk-1", caFile=str(authority)))
        assert error.message.endswith("its certificate is for another name")
        assert server.every == []  # nobody got the key


async def test_a_server_that_speaks_no_tls(make, servers):
    error = await failure(make(servers[0].url.replace("http://", "https://")))
    assert "TLS failed: " in error.message


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), ("nothing", "it holds no PEM certificate")]
)
async def test_a_ca_file_that_is_none(make, tmp_path, content, says):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    error = await failure(make("https://127.0.0.1:1", caFile=str(file)))
    assert error.detail == f"the file {file} of CAs: {says}" or says in error.message
    assert error.status == 500


# --- several servers -----------------------------------------------------------------------


async def test_the_server_with_the_fewest_requests_gets_the_next(make, servers):
    one, two = servers
    for server in servers:
        server.answers[CHAT] = hold
    backend = make(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    sent = []
    for count in range(1, 7):
        sent.append(await backend.pool.send("POST", CHAT, b"", b"{}", Sink()))
        loads = sorted(server.in_flight for server in backend.servers)
        assert loads == [count // 2, count - count // 2]
    await one.until(lambda: len(one.asked) == 3)
    await two.until(lambda: len(two.asked) == 3)
    busy = one if backend.servers[0].in_flight else two
    for exchange in sent[::2]:
        exchange.abort()  # all on one server: the next three go there
    assert sorted(server.in_flight for server in backend.servers) == [0, 3]
    again = [await backend.pool.send("POST", CHAT, b"", b"{}", Sink()) for _ in range(3)]
    assert [server.in_flight for server in backend.servers] == [3, 3]
    for exchange in (*sent, *again):
        exchange.abort()
    assert busy in servers


async def test_idle_servers_take_turns(make, servers):
    backend = make(*servers)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    for _ in range(4):
        await backend.ask()
    assert [len(server.asked) for server in servers] == [2, 2]


async def test_one_of_two_is_enough_and_the_other_is_tried_again(make, servers):
    one, two = servers
    await two.stop()
    backend = make(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.servers[1].error is not None)
    assert backend.servers[1].error == "the connection is refused"
    for _ in range(3):
        assert (await backend.ask()).status == 200
    assert len(one.asked) == 3
    await two.start()
    await backend.until(lambda: backend.up() == [True, True])
    await backend.ask()
    await backend.ask()
    assert len(two.asked) == 1


async def test_a_request_that_could_not_be_sent_goes_to_another(make, servers):
    one, two = servers
    backend = make(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    await one.stop()
    # Connections from the looks may still be there: a request on one that is dead is sent again.
    for _ in range(3):
        sink = Sink()
        await backend.pool.send("POST", CHAT, b"", b"{}", sink)
        with contextlib.suppress(UpstreamError):
            assert (await sink.done).status == 200
    await backend.until(lambda: backend.up() == [False, True])
    for _ in range(3):
        assert (await backend.ask()).status == 200
    assert backend.state is State.READY


async def test_a_request_that_was_sent_is_not_sent_again(make, servers):
    servers[0].answers.update(CLOSING)
    backend = make(servers[0])
    await backend.ensure_ready()
    servers[0].answers[CHAT] = hang_up
    with pytest.raises(ConnectionLost) as caught:
        await backend.ask()
    assert len(servers[0].asked) == 1
    assert not await backend.suspect(caught.value)


async def test_while_all_are_down_each_is_tried(make, servers):
    one, two = servers
    backend = make(one, two)
    await backend.ensure_ready()
    await backend.until(lambda: backend.up() == [True, True])
    for server in servers:
        await server.stop()
    for _ in range(2):
        with contextlib.suppress(UpstreamError):
            await backend.ask()
    await backend.until(lambda: backend.state is State.BACKOFF)
    assert (backend.serving, backend.resident, backend.deaths) == (True, True, 1)
    with pytest.raises(UpstreamError) as caught:
        await backend.ask()
    assert caught.value.status == 502
    assert caught.value.message == (
        "no server of 'm' can be used: m (server 1): the connection is refused; "
        "m (server 2): the connection is refused"
    )
    assert not await backend.suspect(caught.value)
    error = await failure(backend)
    assert "no server of 'm'" in error.message
    await two.start()
    await backend.until(lambda: backend.state is State.READY)
    assert (await backend.ask()).status == 200


async def test_a_server_that_breaks_down_while_it_answers_others_finishes_those(make, servers):
    server = servers[0]
    finish = asyncio.Event()

    async def slow(asked):
        await finish.wait()
        asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server.answers[CHAT] = slow
    backend = make(server)
    await backend.ensure_ready()
    running = spawn(backend.ask(), name="ask")
    await server.until(lambda: len(server.asked) == 1)
    server.answers["/health"] = (503, {})
    await backend.pool.look_again(20)
    assert (backend.state, backend.servers[0].error) == (
        State.BACKOFF,
        "it answered 503 to GET /health ({})",
    )
    finish.set()
    assert (await running).status == 200
    # It may take requests all the same: what it answers is for the client to read.
    server.answers[CHAT] = (503, {"error": {"message": "loading"}})
    assert (await backend.ask()).status == 503
    server.answers["/health"] = (200, {})
    await backend.ensure_ready()
    assert backend.state is State.READY


async def test_a_server_that_refuses_the_key_later_gets_no_requests(make, servers):
    backend = make(servers[0], key="sk-1")
    await backend.ensure_ready()
    servers[0].answers["/v1/models"] = (401, {})
    await backend.pool.look_again(20)
    with pytest.raises(UpstreamError, match="it refuses the key"):
        await backend.ask()
    assert servers[0].asked == []


async def test_an_answer_that_does_not_begin(make, servers):
    servers[0].answers[CHAT] = hold
    backend = make(servers[0], timeout="200ms")
    await backend.ensure_ready()
    sink = Sink()
    await backend.pool.send("POST", CHAT, b"", b"{}", sink)
    with pytest.raises(HeadTimeout, match=r"m sent no answer within 0\.2 s") as caught:
        await sink.done
    assert caught.value.status == 504


# --- the scheduler -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def scheduling(box: Box, *specs: ModelSpec, **options: Any) -> AsyncIterator[Scheduler]:
    environ = {"environ": options.pop("environ")} if "environ" in options else {}
    scheduler = Scheduler(
        catalog_of(*specs),
        box.environment(**environ),
        options.pop("limits", SchedulingLimits()),
        queue_size=100,
        queue_timeout=options.pop("queue_timeout", 30),
        **options,
    )
    try:
        yield scheduler
    finally:
        await scheduler.close()
    assert not [s for s in scheduler.status() if s.state is not State.STOPPED]


async def test_leases_are_counted_and_queued(box, servers):
    async with scheduling(box, spec_of(servers[0], parallel=2)) as scheduler:
        first, second = await scheduler.lease("m"), await scheduler.lease("m")
        third = spawn(scheduler.lease("m"), name="third")
        await until(scheduler, lambda: scheduler.status()[0].queued == 1)
        status = scheduler.status()[0]
        assert (status.in_flight, status.slots, status.memory, status.pid) == (2, 2, None, None)
        assert [server.url for server in status.servers] == [servers[0].url]
        first.release()
        (await third).release()
        second.release()


async def test_it_is_loaded_before_the_memory_of_this_machine_is_known(box, servers):
    async with scheduling(box, spec_of(servers[0]), memory_known=False) as scheduler:
        await scheduler.load("m")
        assert scheduler.loaded() == ["m"]


async def test_it_neither_goes_for_others_nor_makes_them_go(box, servers):
    local = box.spec("local")
    async with scheduling(box, local, spec_of(servers[0]), limits=SchedulingLimits(1)) as scheduler:
        await scheduler.load("local")
        await scheduler.load("m")
        assert scheduler.loaded() == ["local", "m"]
        assert len(box.starts()) == 1
        await scheduler.unload("m")
        assert scheduler.loaded() == ["local"]


async def test_a_load_that_fails_fails_at_once_and_the_next_request_tries_again(box, servers):
    await servers[0].stop()
    async with scheduling(box, spec_of(servers[0])) as scheduler:
        for _ in range(6):
            with pytest.raises(UpstreamError, match="the connection is refused"):
                await scheduler.lease("m")
        await servers[0].start()
        (await scheduler.lease("m")).release()


async def test_loading_one_that_is_down_looks_and_says_so(box, servers):
    async with scheduling(box, spec_of(servers[0])) as scheduler:
        await scheduler.load("m")
        servers[0].answers["/v1/models"] = (500, {})
        backend = scheduler.backend("m")
        await backend.pool.look_again(20)
        assert scheduler.loaded() == []
        with pytest.raises(UpstreamError, match="answered 500"):
            await scheduler.load("m")
        servers[0].answers["/v1/models"] = (200, {})
        await scheduler.load("m")
        assert scheduler.loaded() == ["m"]


async def test_a_model_may_become_remote_and_local_again(box, servers):
    away, here = spec_of(servers[0]), box.spec("m")
    async with scheduling(box, here) as scheduler:
        lease = await scheduler.lease("m")
        assert lease.backend.pid is not None
        scheduler.apply(catalog_of(away))
        waiting = spawn(scheduler.lease("m"), name="waits for the new one")
        lease.release()
        with await waiting as moved:
            assert (await moved.backend.pool.fetch("POST", CHAT, timeout=20)).status == 200
            assert len(servers[0].asked) == 1
            scheduler.apply(catalog_of(here))
            waiting = spawn(scheduler.lease("m"), name="waits for the old one")
        with await waiting as back:
            assert back.backend.pid is not None
        assert len(box.starts()) == 2


async def test_its_key_is_not_inherited_by_processes_of_this_machine(box, servers):
    environ = {**box.environment().environ, "FIRST_KEY": "one", "NEXT_KEY": "two", "OTHER": "x"}
    here, away = box.spec("here"), spec_of(servers[0], key="env:FIRST_KEY")

    async def seen(scheduler: Scheduler) -> set[str]:
        with await scheduler.lease("here") as lease:
            lines = Path(f"/proc/{lease.backend.pid}/environ").read_text().split("\0")
        await scheduler.unload("here")
        return {line.partition("=")[0] for line in lines} & {"FIRST_KEY", "NEXT_KEY", "OTHER"}

    async with scheduling(box, here, away, environ=environ) as scheduler:
        with await scheduler.lease("m") as lease:
            await lease.backend.pool.fetch("POST", CHAT, timeout=20)
        assert servers[0].asked[-1].headers["Authorization"] == "Bearer one"
        assert await seen(scheduler) == {"NEXT_KEY", "OTHER"}
        scheduler.apply(catalog_of(here, spec_of(servers[0], key="env:NEXT_KEY")))
        assert await seen(scheduler) == {"OTHER"}


async def test_a_changed_url_is_taken_over_and_a_gone_entry_lets_go(box, servers):
    one, two = servers
    async with scheduling(box, spec_of(one)) as scheduler:
        (await scheduler.lease("m")).release()
        scheduler.apply(catalog_of(spec_of(two)))
        with await scheduler.lease("m") as lease:
            await lease.backend.pool.fetch("POST", CHAT, timeout=20)
            assert (len(one.asked), len(two.asked)) == (0, 1)
            backend = lease.backend
            scheduler.apply(catalog_of())
        await until(scheduler, lambda: not backend.resident)
