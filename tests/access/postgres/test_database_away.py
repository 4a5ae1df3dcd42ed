"""A database that goes away and comes back: requests go on with what is known."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import openai
import psycopg
import pytest

from gateway.access.past_requests import RequestFilter
from gateway.access.store import Store
from gateway.cli import main
from gateway.secret import Secret
from tests.harness import FAKE, MakeGateway, Served, fake_model, project, wait_until
from tests.postgres import PASSWORD, PostgresServer

pytestmark = pytest.mark.slow

Serve = Callable[..., Served]


async def test_requests_go_on_and_nothing_is_lost_but_counted(
    make_gateway: MakeGateway,
    tmp_path: Path,
    server: PostgresServer,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("gateway.access.request_log.MOST_UNWRITTEN", 10)
    caplog.set_level("INFO")
    async with make_gateway({"m": fake_model(tmp_path)}, store={"url": url}) as running:
        accounting, peers = running.gateway.accounting, running.gateway.peers
        assert peers is not None
        await asyncio.wait_for(peers.connected.wait(), 30)
        assert (await running.chat("m"))[0] == 200
        await accounting.usage(days=1)
        await accounting.log.write()
        server.stop()
        for _ in range(15):
            assert (await running.chat("m"))[0] == 200
        status, told = await running.json("POST", "/admin/keys", json={"name": "phone"})
        assert (status, told["error"]["code"]) == (503, "store_unreachable")
        await accounting.log.write()
        _, told = await running.json("GET", "/admin/requests")
        assert len(told["ended"]) == 16  # the newest are in memory
        assert told["lost"] == 5
        assert "cannot be read now" in told["problem"]
        status, _ = await running.json("GET", "/admin/usage")
        assert status == 503
        server.start()
        await asyncio.wait_for(peers.connected.wait(), 30)
        assert (await running.json("POST", "/admin/keys", json={"name": "phone"}))[0] == 201
        await accounting.log.write()
        _, told = await running.json("GET", "/admin/requests")
        assert (told["lost"], told["problem"]) == (5, None)
        _, told = await running.json("GET", "/admin/usage")
        assert sum(row["requests"] for row in told["usage"]) == 16
    async with await Store.open(Secret(url)) as store:
        assert len(await store.requests_of(RequestFilter(limit=100))) == 11
    for line, times in {
        "requests cannot be recorded": 1,
        "requests are recorded again, 5 were lost": 1,
        "other gateways cannot be heard": 1,
        "other gateways are heard again": 1,
    }.items():
        assert sum(line in message for message in caplog.messages) == times, line
    assert not any("s3cret" in line for line in (*caplog.messages, caplog.text))


def run(config: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit status of a command, and what it wrote: in this process, which has all imported."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*arguments, "--config", str(config)])
    return code, out.getvalue(), err.getvalue()


def of_nobody(written: Iterable[str]) -> bool:
    """Whether the database's password is nowhere in it."""
    return not any("s3cret" in text or PASSWORD in text for text in written)


def test_gateway_that_waits_for_its_database_ends_as_fast_as_any_other(
    serve: Serve, tmp_path: Path, server: PostgresServer, url: str
) -> None:
    server.stop()
    config = project(tmp_path / "p", {}, llama_server=str(FAKE), port=0, store={"url": url})
    code, out, err = run(config, "keys", "list")
    assert code != 0
    assert "cannot be reached" in err
    gone = serve("--config", str(config))
    gone.wait_for(r"(waiting for the database)", gone.log)
    assert gone.stop() == 0
    assert of_nobody([*gone.log, *gone.out, out, err])


def test_gateway_that_starts_before_its_database_waits_for_it(
    serve: Serve, tmp_path: Path, server: PostgresServer, url: str
) -> None:
    server.stop()
    config = project(tmp_path / "p", {}, llama_server=str(FAKE), port=0, store={"url": url})
    served = serve("--config", str(config))
    served.wait_for(r"(waiting for the database)", served.log)
    server.start()
    assert served.key
    made = run(config, "keys", "create", "phone")
    assert made[0] == 0, made
    assert "in the database of store.url" in made[2]
    with served.client() as client:
        assert client.with_options(api_key=made[1].strip()).models.list().data == []
    listed = run(config, "keys", "list")
    assert "2 keys in the database of store.url" in listed[2]
    checked = run(config, "check")
    assert served.stop() == 0
    written = [f"{out}{err}" for _, out, err in (made, listed, checked)]
    assert of_nobody([*served.log, *served.out, *written])


def test_gateway_notices_that_its_connections_were_ended(
    serve: Serve, tmp_path: Path, url: str
) -> None:
    """As by a database administrator, or a firewall that forgets connections."""
    config = project(tmp_path / "p", {}, llama_server=str(FAKE), port=0, store={"url": url})
    served = serve("--config", str(config))
    assert served.key
    with psycopg.connect(url, autocommit=True) as connection:
        others = (
            "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        def listening() -> bool:
            row = connection.execute(f"SELECT count(*) {others}").fetchone()
            return row is not None and row[0] >= 3

        wait_until(listening, 30, "three connections")
        connection.execute(f"SELECT pg_terminate_backend(pid) {others}")
    made = run(config, "keys", "create", "phone")
    with served.client() as client:

        def known() -> bool:
            try:
                client.with_options(api_key=made[1].strip()).models.list()
            except openai.AuthenticationError:
                return False
            return True

        wait_until(known, 30, "the key is known")
    assert served.stop() == 0
