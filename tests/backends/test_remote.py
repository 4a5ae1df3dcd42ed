"""A model that a remote server has: reaching it, keys, TLS."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.backend import State
from gateway.errors import GatewayError, LoadFailed
from gateway.tasks import spawn
from gateway.tls.selfsigned import self_signed
from gateway.upstream import UpstreamError
from tests.backends.conftest import MakeRemote
from tests.remote_backends import failure
from tests.remote_server import RemoteServer, hang_up, hold

# --- to load is to look --------------------------------------------------------------------


async def test_loading_looks_and_unloading_lets_go(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    backend = make_remote(servers[0])
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
async def test_useless_server_fails_the_load_with_the_reason(
    make_remote: MakeRemote, servers: list[RemoteServer], path: str, answer: Any, says: str
) -> None:
    servers[0].answers[path] = answer
    backend = make_remote(servers[0])
    error = await failure(backend)
    assert error.status == 502
    assert error.message.startswith("the server of 'm' cannot be used: ")
    assert says in error.message
    assert (backend.state, backend.start_failed, backend.resident) == (State.STOPPED, True, False)
    assert backend.last_error is error


async def test_plain_text_to_a_port_for_tls_is_told(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    """As nginx and Go answer: 400 to whatever it is, which no client could do anything about."""
    server = servers[0]
    said = (400, b"The plain HTTP request was sent to HTTPS port")
    server.answers |= {"/v1/models": said, "/health": said}
    backend = make_remote(server)
    assert (await failure(backend)).message.endswith(
        "it answered 400 to GET /v1/models and to GET /health "
        "(The plain HTTP request was sent to HTTPS port)"
    )
    server.answers["/health"] = (200, {})
    await backend.ensure_ready()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 429])
async def test_a_server_without_a_list_of_models_can_be_used(
    make_remote: MakeRemote, servers: list[RemoteServer], status: int
) -> None:
    servers[0].answers["/v1/models"] = (status, {})
    backend = make_remote(servers[0])
    await backend.ensure_ready()
    assert backend.context_size is None
    assert (await backend.ask()).status == 200


async def test_a_server_where_nobody_listens_fails_the_load(
    make_remote: MakeRemote, nobody: str
) -> None:
    backend = make_remote(nobody)
    error = await failure(backend)
    assert error.status == 502
    assert error.message == "the server of 'm' cannot be used: the connection is refused"
    assert nobody.partition("//")[2] not in error.message  # clients read that
    assert any(nobody in line for line in backend.log.tail())  # administrators this


async def test_unknown_host_name_fails_the_load(make_remote: MakeRemote) -> None:
    error = await failure(make_remote("http://no-such-host.invalid"))
    assert (error.status, error.message.rpartition(": ")[2]) == (502, "its name is not known")


async def test_each_load_tries_anew(make_remote: MakeRemote, servers: list[RemoteServer]) -> None:
    await servers[0].stop()
    backend = make_remote(servers[0])
    await failure(backend)
    await servers[0].start()
    await backend.ensure_ready()
    assert (backend.state, backend.starts, backend.start_failed) == (State.READY, 2, False)


async def test_stop_during_a_look_ends_the_load(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    servers[0].answers["/v1/models"] = hold
    backend = make_remote(servers[0])
    loading = spawn(backend.ensure_ready(), name="load")
    await servers[0].until(lambda: len(servers[0].every) == 1)
    assert backend.state is State.STARTING
    await backend.stop()
    with pytest.raises(GatewayError, match="unloaded while it was loading"):
        await loading
    assert backend.state is State.STOPPED


# --- keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["itself", "env", "file"])
async def test_the_key_goes_along(
    make_remote: MakeRemote,
    servers: list[RemoteServer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    (tmp_path / "key").write_text("sk-very-secret\n")
    key = {"itself": "sk-very-secret", "env": "env:K", "file": f"file:{tmp_path / 'key'}"}[kind]
    backend = make_remote(servers[0], key=key, environ={"K": "sk-very-secret"})
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


async def test_a_key_that_is_refused_is_not_the_clients_fault(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    servers[0].answers["/v1/models"] = (401, {"error": {"message": "wrong key sk-1"}})
    error = await failure(make_remote(servers[0], key="sk-1"))
    assert (error.status, error.message.rpartition(": ")[2]) == (502, "it refuses the key")


async def test_missing_key_fails_the_load_without_a_request(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    backend = make_remote(servers[0], key="env:NOWHERE", environ={})
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


async def test_https_works_with_a_ca_of_ones_own(
    make_remote: MakeRemote, certificates: Callable[..., tuple[ssl.SSLContext, Path]]
) -> None:
    context, authority = certificates("127.0.0.1")
    async with RemoteServer(context) as server:
        backend = make_remote(server, caFile=str(authority), key="sk-1")
        await backend.ensure_ready()
        assert (await backend.ask()).status == 200
        assert server.asked[0].headers["Authorization"] == "Bearer sk-1"


async def test_https_is_verified(
    make_remote: MakeRemote, certificates: Callable[..., tuple[ssl.SSLContext, Path]]
) -> None:
    context, authority = certificates("box.example")
    async with RemoteServer(context) as server:
        error = await failure(make_remote(server, key="sk-1"))
        assert error.status == 502
        assert "its certificate is not trusted: " in error.message
        error = await failure(make_remote(server, key="sk-1", caFile=str(authority)))
        assert error.message.endswith("its certificate is for another name")
        assert server.every == []  # nobody got the key


async def test_server_without_tls_fails_the_load(
    make_remote: MakeRemote, servers: list[RemoteServer]
) -> None:
    error = await failure(make_remote(servers[0].url.replace("http://", "https://")))
    assert "TLS failed: " in error.message


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), ("nothing", "it holds no PEM certificate")]
)
async def test_wrong_file_of_authorities_fails_the_load(
    make_remote: MakeRemote, tmp_path: Path, content: str | None, says: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    error = await failure(make_remote("https://127.0.0.1:1", caFile=str(file)))
    assert error.detail == f"the file {file} of CAs: {says}" or says in error.message
    assert error.status == 500
