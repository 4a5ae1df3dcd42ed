"""Plain HTTP on tls.redirect_port, as it goes over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import AcmeSettings, Settings, TlsSettings
from gateway.http.tls_state import TlsState
from gateway.redirect import TARGET, build_redirect, host_of
from gateway.tls import self_signed
from tests.harness import MakeGateway

KEY = "llmgw_secret"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """A redirect to port 8443, with one proof in memory and one file."""
    folder = tmp_path / "public/.well-known/acme-challenge"
    folder.mkdir(parents=True)
    (folder / "file-token").write_text("file proof")
    state = TlsState(acme_tokens={"memory-token": "memory proof"})
    names = ["box.example.com", "localhost", "::1", "2001:db8::1", "*.wild.example"]
    state.serves(names, local=False)
    settings = Settings(
        public_dir=tmp_path / "public", allowed_hosts=("also.example", "*.below.example", "*")
    )
    app = build_redirect(settings, state, 8443)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def ask(port: int, target: str, *headers: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, Location and body of a raw request; the server must close the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (f"{method} {target} HTTP/1.1", *headers, "", "")
    writer.write("\r\n".join(lines).encode("latin-1"))
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).decode("latin-1").partition("\r\n\r\n")
    writer.close()
    status, *fields = head.split("\r\n")
    found = {k.lower(): v.strip() for k, _, v in (field.partition(":") for field in fields)}
    if status != "HTTP/1.0 400 Bad Request":  # aiohttp's own, for what is no HTTP at all
        assert found["server"] == "llm-gateway"
    return int(status.split()[1]), found.get("location", ""), body


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("box.example.com", "https://box.example.com:8443"),
        ("box.example.com:80", "https://box.example.com:8443"),
        ("BOX.example.com.", "https://box.example.com:8443"),
        ("localhost:8080", "https://localhost:8443"),
        ("127.0.0.1:8080", "https://127.0.0.1:8443"),
        ("[::1]:8080", "https://[::1]:8443"),
        ("[2001:DB8::0:1]", "https://[2001:db8::1]:8443"),
    ],
)
async def test_redirect_leads_to_https_of_the_same_host(
    port: int, host: str, location: str
) -> None:
    target = "/v1/models?x=1&y=%2F..%2f"
    assert (await ask(port, target, f"Host: {host}"))[:2] == (308, location + target)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example@box.example.com",
        "box.example.com/evil.example",
        "box.example.com:80:80",
        "box.example.com:http",
        "box.example.com:999999",
        "box example.com",
        "box..example.com",
        "-box.example.com",
        "*.example.com",
        "1.2.3",
        "999.1.1.1",
        "[::1",
        "[::1%25eth0]",
        "b\u00f6x.example.com",
        "a" * 300,
        "a." * 200 + "com",
        "box.example.com\\evil.example",
        "box.example.com?x",
        "box.example.com#x",
    ],
)
async def test_what_cannot_be_a_host_is_sent_nowhere(port: int, host: str) -> None:
    status, location, _ = await ask(port, "/", f"Host: {host}")
    assert (status, location) == (400, "")


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("a.wild.example", True),
        ("a.b.wild.example", False),
        ("wild.example", False),
        ("also.example", True),
        ("a.b.below.example", True),
        ("127.0.0.1", True),  # which it has come to
        ("127.0.0.2", False),
        ("[::ffff:127.0.0.1]", True),
        ("[::2]", False),
        ("evil.example", False),
        ("box.example.com.evil.example", False),
        ("evilbox.example.com", False),
        ("xn--bx-fka.example.com", False),
    ],
)
async def test_names_of_others_are_sent_nowhere(port: int, host: str, ours: bool) -> None:
    status, location, _ = await ask(port, "/x", f"Host: {host}")
    assert (status, bool(location)) == ((308, True) if ours else (421, False))


async def test_redirect_leads_to_names_of_a_certificate_to_come() -> None:
    acme = AcmeSettings(domains=("soon.example.com",), agree_tos=True)
    app = build_redirect(Settings(tls=TlsSettings(acme=acme)), TlsState(), 443)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        where = runner.addresses[0][1]
        assert (await ask(where, "/", "Host: soon.example.com"))[:2] == (
            308,
            "https://soon.example.com/",
        )
        assert (await ask(where, "/", "Host: other.example.com"))[0] == 421
    finally:
        await runner.cleanup()


async def test_request_without_or_with_two_hosts_is_refused(port: int) -> None:
    assert (await ask(port, "/"))[:2] == (400, "")
    twice = ("Host: box.example.com", "Host: evil.example.com")
    assert (await ask(port, "/", *twice))[:2] == (400, "")


@pytest.mark.parametrize(
    "target", ["http://evil.example/", "https://evil.example/x", "*", '/a"b<c>']
)
async def test_odd_targets_are_sent_nowhere(port: int, target: str) -> None:
    assert (await ask(port, target, "Host: box.example.com"))[:2] == (400, "")


@pytest.mark.parametrize("target", ["/%u0041", "/a%", "/%ff", "/a%zz?x"])
@pytest.mark.parametrize("folder", ["", "/.well-known/acme-challenge"])
async def test_ambiguous_path_is_refused(port: int, folder: str, target: str) -> None:
    status, location, body = await ask(port, folder + target, "Host: box.example.com")
    assert (status, location) == (400, "")
    assert body.startswith("the path ")


async def test_two_slashes_stay_on_the_host(port: int) -> None:
    _, location, _ = await ask(port, "//evil.example/x", "Host: box.example.com")
    assert location == "https://box.example.com:8443//evil.example/x"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (f"?authKey={KEY}", ""),
        (f"?x=1&authKey={KEY}&y=%2F", "?x=1&y=%2F"),
        (f"?auth%4Bey={KEY}", ""),
        (f"?authKey={KEY}&authKey={KEY}", ""),
        ("?x=authKey", "?x=authKey"),
        ("?", "?"),
    ],
)
async def test_a_key_in_the_query_is_not_repeated(port: int, query: str, left: str) -> None:
    status, location, _ = await ask(port, f"/status{query}", "Host: box.example.com")
    assert (status, location) == (308, f"https://box.example.com:8443/status{left}")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/ping", "/health", "/v1/chat/completions", "/admin/keys"])
async def test_nothing_else_is_served_and_no_key_looked_at(
    port: int, method: str, path: str
) -> None:
    headers = ("Host: box.example.com", f"Authorization: Bearer {KEY}", "Content-Length: 0")
    status, location, body = await ask(port, path, *headers, method=method)
    assert (status, location) == (308, f"https://box.example.com:8443{path}")
    assert body == ("" if method == "HEAD" else "https only\n")


async def test_proofs_are_served_from_memory_and_from_the_folder(port: int) -> None:
    async def proof(token: str, method: str = "GET") -> tuple[int, str]:
        path = f"/.well-known/acme-challenge/{token}"
        status, _, body = await ask(port, path, "Host: box.example.com", method=method)
        return status, body

    assert await proof("memory-token") == (200, "memory proof")
    assert await proof("file-token") == (200, "file proof")
    assert await proof("none") == (404, "there is no such challenge\n")
    assert await proof("..%2f..%2fsecret") == (404, "there is no such challenge\n")
    assert (await proof("memory-token", "POST"))[0] == 308


async def test_the_usual_port_is_not_written(tmp_path: Path) -> None:
    state = TlsState(names=frozenset({"box.example.com"}))
    runner = web.AppRunner(build_redirect(Settings(), state, 443))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        _, location, _ = await ask(runner.addresses[0][1], "/x", "Host: box.example.com:80")
        assert location == "https://box.example.com/x"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("public", "suffix"), [(443, ""), (8443, ":8443")])
async def test_redirect_names_the_public_port(
    make_gateway: MakeGateway, tmp_path: Path, public: int, suffix: str
) -> None:
    made = self_signed(["127.0.0.1", "box.example.com"], tmp_path / "ssl")
    tls = {
        "enabled": True,
        "private_key": str(made.private_key),
        "certificate": str(made.certificate),
        "redirect_port": 0,
        "public_port": public,
    }
    async with make_gateway({}, tls=tls) as running:
        (url,) = running.gateway.lifecycle.redirect_urls
        port = int(url.rpartition(":")[2])
        _, location, _ = await ask(port, "/x", "Host: box.example.com:80")
        assert location == f"https://box.example.com{suffix}/x"
        assert (await ask(port, "/x", "Host: evil.example.com"))[:2] == (421, "")


async def test_redirect_listens_on_several_addresses(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    made = self_signed(["127.0.0.1"], tmp_path / "ssl")
    tls = {"enabled": True, "private_key": str(made.private_key), "redirect_port": 0}
    tls["certificate"] = str(made.certificate)
    async with make_gateway({}, tls=tls, host=["127.0.0.1", "127.0.0.2"]) as running:
        https = int(running.url.rpartition(":")[2])
        assert running.gateway.urls == [f"https://127.0.0.{n}:{https}" for n in (1, 2)]
        urls = running.gateway.lifecycle.redirect_urls
        port = int(urls[0].rpartition(":")[2])
        assert urls == [f"http://127.0.0.{n}:{port}" for n in (1, 2)]
        for url in running.gateway.urls:
            async with running.session.get(f"{url}/ping", ssl=False) as answer:
                assert await answer.text() == "pong"
        assert (await ask(port, "/x", "Host: 127.0.0.1"))[1] == f"https://127.0.0.1:{https}/x"


@given(st.text(max_size=300))
def test_whatever_a_host_header_holds_only_a_host_comes_out(text: str) -> None:
    host = host_of([text])
    assert host is None or not set(host) & set("/@?#\\ \t\r\n%,;\"'<>")


@given(st.text(max_size=100))
def test_a_target_that_passes_is_harmless_in_a_header(text: str) -> None:
    if TARGET.fullmatch(text):
        assert text.isascii()
        assert text.isprintable()
        assert text.startswith("/")
        assert not set(text) & set(' "<>\\^`{|}')


@pytest.mark.parametrize(
    ("names", "local", "promised"),
    [
        (["box.example.com"], False, True),
        (["localhost", "box.example.com"], False, True),
        (["*.example.com"], False, True),
        (["box.example.com"], True, False),
        (["localhost", "127.0.0.1", "::1"], False, False),
        (["93.184.216.34"], False, False),
        (["box"], False, False),
        (["box.lan", "box.local", "box.home.arpa", "box.internal", "a.localhost"], False, False),
        ([], False, False),
    ],
)
def test_only_public_names_are_promised_https_for_ever(
    names: list[str], local: bool, promised: bool
) -> None:
    state = TlsState()
    state.serves(names, local=local)
    assert state.hsts == ("max-age=31536000" if promised else None)
