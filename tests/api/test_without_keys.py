"""``auth.enabled: false``: who administrates, whom no page can pretend to be, and who may start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.access.without_keys import refusal
from gateway.cli import main
from gateway.config.load import parse_settings
from gateway.http.hosts import Hosts, Proxies
from gateway.http.listeners import CannotListen
from gateway.without_keys import warnings_of, why_not_open
from tests.harness import MakeGateway, fake_model, project

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0"
#: Headers that no request of this machine's own programs has, and what is said of them.
STRANGE = (
    ({"Origin": "https://evil.example"}, "web page elsewhere"),
    ({"Origin": "null"}, "web page elsewhere"),
    ({"Origin": "http://127.0.0.1:1"}, "web page elsewhere"),
    ({"Origin": "http://localhost:8080", "Host": "127.0.0.1:8080"}, "web page elsewhere"),
    ({"Sec-Fetch-Site": "cross-site"}, "web page elsewhere"),
    ({"Sec-Fetch-Site": "same-site"}, "web page elsewhere"),  # another port of localhost
    ({"Sec-Fetch-Site": "anything"}, "web page elsewhere"),
    ({"User-Agent": CHROME}, "doesn't say whose page"),
    ({"X-Forwarded-For": "127.0.0.1"}, "a proxy"),
    ({"X-Forwarded-Proto": "https"}, "a proxy"),
    ({"X-Real-IP": "10.0.0.1"}, "a proxy"),
    ({"Forwarded": "for=10.0.0.1"}, "a proxy"),
    ({"Via": "1.1 caddy"}, "a proxy"),
    ({"CF-Connecting-IP": "1.2.3.4"}, "a proxy"),
    ({"Host": "evil.example"}, "Host is not"),
    ({"Host": "box.local"}, "Host is not"),
    ({"Host": "192.168.1.5:8080"}, "Host is not"),
    ({"Host": "127.0.0.1.evil.example"}, "Host is not"),
    ({"Host": ""}, "Host is not"),
)
#: Headers of this machine's own programs, and of pages of the gateway itself.
OURS: tuple[dict[str, str], ...] = (
    {},
    {"User-Agent": "curl/8.5.0"},
    {"User-Agent": "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1"},
    {"User-Agent": CHROME, "Sec-Fetch-Site": "none"},  # an address that was typed
    {"User-Agent": CHROME, "Sec-Fetch-Site": "same-origin"},
    {"User-Agent": CHROME, "Origin": "http://127.0.0.1:8080"},  # an old browser's, of /ui/
    {"Host": "localhost:8080"},
    {"Host": "LOCALHOST."},
    {"Host": "[::1]:8080", "Origin": "http://[::1]:8080"},
    {"Host": "127.1.2.3"},
)


def known(**settings: Any) -> tuple[Hosts, Proxies]:
    made = parse_settings(settings)
    return Hosts(made), Proxies(made.trusted_proxies)


def request(headers: dict[str, str], *, remote: str = "127.0.0.1", **options: Any) -> web.Request:
    transport = SimpleNamespace(
        get_extra_info=lambda name, default=None: (remote, 5) if name == "peername" else default,
        is_closing=lambda: False,
    )
    given = CIMultiDict({"Host": "127.0.0.1:8080", **headers})
    return make_mocked_request("GET", "/unloadModel", given, transport=transport, **options)


@pytest.mark.parametrize(("headers", "said"), STRANGE)
def test_request_of_a_page_or_a_proxy_is_refused(headers: dict[str, str], said: str) -> None:
    reason = refusal(request(headers), *known(allowed_hosts=("*",)))
    assert reason is not None
    assert said in reason


@pytest.mark.parametrize("headers", OURS)
def test_request_of_a_program_here_is_let_in(headers: dict[str, str]) -> None:
    assert refusal(request(headers), *known()) is None


def test_without_keys_only_this_machine_is_an_administrator(subtests: pytest.Subtests) -> None:
    for remote in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        with subtests.test(f"{remote!r:.80}"):
            assert refusal(request({}, remote=remote), *known()) is None
    for remote in ("10.0.0.1", "192.168.1.5", "::ffff:10.0.0.1", "fe80::1", "2001:db8::1", ""):
        with subtests.test(f"{remote!r:.80}"):
            assert "loopback" in (refusal(request({}, remote=remote), *known()) or "")
    here = known(trusted_proxies=("127.0.0.1",))
    assert "a proxy" in (refusal(request({}), *here) or "")
    assert "a proxy" in (refusal(request({}, version=(1, 0)), *known()) or "")


@pytest.mark.parametrize(("scheme", "ours"), [("https", True), ("http", False)])
def test_over_tls_origins_are_https(scheme: str, ours: bool) -> None:
    asked = request({"Origin": f"{scheme}://127.0.0.1:8080"}, sslcontext=True)
    assert (refusal(asked, *known()) is None) is ours


def test_listed_name_is_let_in_and_no_other() -> None:
    listed = known(allowed_hosts=("box.example.com", "*.example.net"))
    for host in ("box.example.com:8080", "a.example.net"):
        assert refusal(request({"Host": host}), *listed) is None
    assert refusal(request({"Host": "example.net"}), *listed) is not None


async def test_admin_routes_are_for_this_machine_without_keys(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    models = {name: fake_model(tmp_path) for name in ("a", "b")}
    async with make_gateway(models, auth={"enabled": False}) as running:
        running.key = None
        assert (await running.json("POST", "/loadModel", json={"model": "a"}))[0] == 200
        assert (await running.json("GET", "/admin/status"))[1]["active"]["model"] == "a"
        evil = {"Origin": "https://evil.example"}
        old = {"User-Agent": CHROME}
        for method, path, options in (
            ("GET", "/unloadModel", {"headers": old}),  # <img src="http://127.0.0.1:8080/...">
            ("GET", "/unloadModel", {"headers": {"Sec-Fetch-Site": "cross-site"}}),
            ("POST", "/unloadModel", {"headers": evil}),
            ("POST", "/unloadModel", {"data": b'{"model": "a"}'}),  # a form, or text/plain
            (
                "POST",
                "/models/unload",
                {"data": b'{"model": "a"}', "headers": {"Content-Type": "text/plain"}},
            ),
            ("POST", "/admin/keys", {"json": {"name": "x"}, "headers": evil}),
            ("GET", "/upstream/a/health", {"headers": {"X-Forwarded-For": "10.0.0.1"}}),
            ("GET", "/admin/models/a/log?follow=false", {"headers": evil}),
        ):
            with subtests.test(f"{method!r:.80}"):
                status, answer = await running.json(method, path, **options)
                assert (status, answer["error"]["code"]) == (403, "local_only"), (method, path)
        assert await running.json("GET", "/models?loaded=true") == (200, ["a"])
        # Chats are everybody's; what a page loads is not chosen for this machine's programs.
        status, _ = await running.json(
            "POST", "/loadModel", json={"model": "b"}, headers={"Origin": "https://app.example"}
        )
        assert status == 200
        assert (await running.json("GET", "/admin/status"))[1]["active"]["model"] == "a"
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
        assert (await running.json("POST", "/v1/chat/completions", json=body, headers=evil))[
            0
        ] == 200
        assert (await running.json("POST", "/unloadModel", json={"model": "b"}))[0] == 200
        assert (await running.json("POST", "/unloadModel"))[0] == 200
        assert await running.json("GET", "/models?loaded=true") == (200, [])


async def test_dns_rebinding_gets_nowhere_with_any_host_allowed(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """A page whose own name leads here now: same-origin for its browser, over plain HTTP."""
    settings = {"auth": {"enabled": False}, "allowed_hosts": ["*"]}
    async with make_gateway({"a": fake_model(tmp_path)}, **settings) as running:
        port = running.url.rpartition(":")[2]
        for headers in (
            {"Host": f"evil.example:{port}"},
            {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},
        ):
            status, answer = await running.json(
                "GET", "/admin/models", key=None, headers={**headers, "User-Agent": CHROME}
            )
            assert (status, answer["error"]["code"]) == (403, "local_only")


async def test_errors_tell_a_page_no_paths(make_gateway: MakeGateway, tmp_path: Path) -> None:
    models = {"bad": fake_model(tmp_path, exit=3)}
    async with make_gateway(models, auth={"enabled": False}) as running:
        body = {"model": "bad", "messages": [{"role": "user", "content": "hi"}]}
        for headers, whole in (({}, True), ({"Origin": "https://evil.example"}, False)):
            _, answer = await running.json(
                "POST", "/v1/chat/completions", key=None, headers=headers, json=body
            )
            assert ("does not want to start" in answer["error"]["message"]) is whole


async def test_the_control_socket_is_its_owners(make_gateway: MakeGateway) -> None:
    from gateway.cli.control import control_request

    async with make_gateway({}, auth={"enabled": False}) as running:
        settings = running.gateway.settings
        answer = await asyncio.to_thread(control_request, settings, "GET", "/admin/status")
        assert answer is not None
        assert answer[0] == 200


# --- starting ------------------------------------------------------------------------------

OPEN = {"auth": {"enabled": False, "open_to_network": True}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "0.0.0.0 can be reached"),
        ({"host": "::"}, ":: can be reached"),
        ({"host": "box.lan"}, "box.lan can be reached"),
        ({"trusted_proxies": ["127.0.0.1"]}, "trusted_proxies (127.0.0.1/32) let others in"),
    ],
)
async def test_who_is_open_to_others_must_say_so(
    make_gateway: MakeGateway,
    tmp_path: Path,
    settings: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    closed = {"auth": {"enabled": False}}
    with pytest.raises(CannotListen, match=r"auth\.open_to_network: true") as refused:
        async with make_gateway({}, **settings, **closed):
            pass
    assert said in str(refused.value)
    config = project(tmp_path / "checked", {}, **settings, **closed)
    assert main(["check", "--config", str(config)]) == 1
    out, _ = capsys.readouterr()
    assert "auth.enabled" in out
    assert said in out
    assert "auth.open_to_network: true" in out
    opened = parse_settings({**settings, **OPEN})
    assert why_not_open(opened) is None
    assert said in "".join(warnings_of(opened))


async def test_who_says_so_is_warned_at_every_start(
    make_gateway: MakeGateway,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("first", "second"):
        caplog.clear()
        async with make_gateway({}, host="0.0.0.0", folder=folder, **OPEN) as running:
            warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
            assert any("everybody who reaches it may use every model" in text for text in warned)
            assert (await running.json("GET", "/models", key=None))[0] == 200
            assert (await running.json("GET", "/admin/models", key=None))[0] == 200
    config = project(tmp_path / "checked", {}, host="0.0.0.0", **OPEN)
    main(["check", "--config", str(config)])
    assert "everybody who reaches it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings", [{}, {"host": "127.0.0.2"}, {"host": "localhost"}, {"host": "::1"}]
)
def test_this_machine_alone_needs_no_word(settings: dict[str, Any]) -> None:
    made = parse_settings({**settings, "auth": {"enabled": False}})
    assert (why_not_open(made), warnings_of(made)) == (None, [])


def test_with_keys_it_means_nothing() -> None:
    made = parse_settings({"host": "0.0.0.0", "auth": {"open_to_network": True}})
    assert (why_not_open(made), warnings_of(made)) == (None, [])


def test_serve_says_it_as_a_command(serve: Any, tmp_path: Path) -> None:
    config = project(tmp_path / "p", {}, host="0.0.0.0", auth={"enabled": False})
    served = serve("--config", str(config))
    assert served.ended() == 1
    assert "error: auth.enabled is false, and 0.0.0.0" in "".join(served.log)
