"""Ports, and names that lead here or elsewhere."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import parse_settings
from gateway.doctor import network
from gateway.doctor.checks import Finding, Level, Running, Subject
from gateway.models.catalog import EMPTY


def subject(running: Running | None = None, **settings: Any) -> Subject:
    return Subject(parse_settings(settings), EMPTY, {}, running=running)


def ports(where: Subject) -> list[Finding]:
    return [finding for finding in network.check_ports(where) if finding.name == "port"]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_port_in_use_is_told_with_its_holder(taken: int) -> None:
    (finding,) = ports(subject(port=taken))
    assert finding.level is Level.ERROR
    assert f"is in use by {Path('/proc/self/comm').read_text().strip()}" in finding.what
    assert f"(process {os.getpid()})" in finding.what


def test_port_of_the_service_is_told_to_be_its(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\necho 'Listen=127.0.0.1:{taken} (Stream)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(network, "holder_of", lambda port: None)  # as another user sees it
    (finding,) = ports(subject(port=taken))
    assert finding.level is Level.WARNING
    assert f"127.0.0.1:{taken} is the service's" in finding.what


def test_free_port_is_ok(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
    (finding,) = ports(subject(port=free))
    assert (finding.level, finding.what) == (Level.OK, f"127.0.0.1:{free} is free")
    found = ports(subject(host=["127.0.0.1", "192.0.2.1"], port=free))  # RFC 5737
    assert [finding.level for finding in found] == [Level.OK, Level.ERROR]
    assert "this machine has no such address" in found[1].what


def test_port_of_our_own_gateway_is_ok(taken: int) -> None:
    running = Running(os.getpid(), {"urls": [f"http://127.0.0.1:{taken}"]})
    (finding,) = ports(subject(running, port=taken))
    assert (finding.level, finding.do) == (Level.OK, "")
    (finding,) = ports(subject(running, port=1))
    assert finding.level is Level.WARNING
    assert "was started with other settings" in finding.what
    tls = {"enabled": True, "redirect_port": taken}
    found = ports(subject(running, port=taken, tls=tls))
    assert [(one.subject, one.level) for one in found] == [
        ("", Level.OK),
        ("tls.redirect_port", Level.OK),
    ]


def test_keys_in_the_clear_are_told() -> None:
    found = list(network.check_ports(subject(host="0.0.0.0", port=0)))
    assert [finding.name for finding in found] == ["port", "exposure"]
    assert found[1].level is Level.WARNING
    assert "unencrypted" in found[1].what
    found = list(network.check_ports(subject(host="0.0.0.0", port=0, auth={"enabled": False})))
    assert Level.ERROR in [finding.level for finding in found]


class _Other(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>somebody else's")

    def log_message(self, *_: Any) -> None:
        pass


def reached(port: int, **settings: Any) -> Finding:
    running = Running(None, {"urls": []})
    where = subject(running, port=port, allowed_hosts=["localhost"], **settings)
    (finding,) = network.check_reachable(where)
    return finding


def test_answer_of_another_server_is_told() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        finding = reached(server.server_port)
        assert finding.level is Level.WARNING
        assert "is answered by something else" in finding.what
        # It doesn't speak TLS.
        finding = reached(server.server_port, tls={"enabled": True})
        assert finding.level is Level.WARNING
        assert "tried from inside" in finding.what
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_name_that_nobody_answers_at_is_warned_of(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    finding = reached(taken)
    assert finding.level is Level.WARNING
    assert "gives no answer, tried from inside" in finding.what
    assert "forward the port" in finding.do
    finding = reached(1)
    assert finding.level is Level.WARNING
    assert "Connection refused" in finding.what


def test_allowed_hosts_that_do_not_resolve_are_told() -> None:
    (finding,) = network.check_reachable(subject(allowed_hosts=["*", "*.example.com"]))
    assert (finding.level, finding.what[:13]) == (Level.OK, "allowed_hosts")
    found = network.check_reachable(subject(allowed_hosts=["nobody.invalid", "localhost"]))
    missing, here = found
    assert (missing.subject, missing.level) == ("nobody.invalid", Level.WARNING)
    assert "as no gateway is running" in here.what
