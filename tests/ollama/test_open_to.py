"""Ollama's API without a key, from the networks in ``auth.ollama_open_to`` only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from gateway.access.open_to import OpenNetworks
from gateway.cli import main
from gateway.config.load import parse_settings
from gateway.http.cors import Cors
from gateway.http.hosts import Hosts, Proxies
from gateway.problems import InvalidFiles
from gateway.without_keys import warnings_of
from tests.harness import MakeGateway, Running, fake_model, project

HELLO = [{"role": "user", "content": "hi"}]
OPEN = ("192.168.1.0/24", "10.0.0.7", "fd00::/64")
#: Headers of requests that a page or a proxy can send, and what is said of them.
STRANGE = (
    ({"Origin": "https://evil.example"}, "cors.origins"),
    ({"Origin": "null"}, "cors.origins"),
    ({"Origin": "http://box.local:8080"}, "cors.origins"),  # of another program of that machine
    ({"Origin": "http://evil.example:8080", "Host": "evil.example:8080"}, "its Host"),
    ({"Host": "evil.example:8080"}, "its Host"),  # a GET after rebinding has no Origin
    ({"Host": "192.168.1.5.evil.example"}, "its Host"),
    ({"Host": ""}, "its Host"),
    ({"Sec-Fetch-Site": "cross-site"}, "a web page elsewhere"),
    ({"Sec-Fetch-Site": "same-site"}, "a web page elsewhere"),
    ({"X-Forwarded-For": "192.168.1.9"}, "a proxy"),
    ({"X-Real-IP": "192.168.1.9"}, "a proxy"),
    ({"Forwarded": "for=192.168.1.9"}, "a proxy"),
    ({"Via": "1.1 caddy"}, "a proxy"),
)
#: Headers of programs in the network.
OURS: tuple[dict[str, str], ...] = (
    {},
    {"User-Agent": "ollama-python/0.6.3"},
    {"Host": "BOX.local:8080"},
    {"Host": "box"},
    {"Host": "[fd00::5]:8080"},
    {"Host": "ai.example.com"},  # listed
    {"Origin": "app://obsidian.md", "Sec-Fetch-Site": "cross-site"},  # listed
    {"User-Agent": "Mozilla/5.0 Obsidian/1.9", "Sec-Fetch-Site": "none"},
)


def networks(*open_to: str, **settings: Any) -> OpenNetworks:
    said = {"cors": {"origins": ["*", "app://obsidian.md"]}, "allowed_hosts": ["ai.example.com"]}
    made = parse_settings({**said, "auth": {"ollama_open_to": open_to or OPEN}, **settings})
    cors = Cors(made.cors.origins)
    return OpenNetworks(made.auth.ollama_open_to, Hosts(made), Proxies(made.trusted_proxies), cors)


def request(headers: dict[str, str], *, remote: str = "192.168.1.9", **more: Any) -> web.Request:
    transport = SimpleNamespace(
        get_extra_info=lambda name, default=None: (remote, 5) if name == "peername" else default,
        is_closing=lambda: False,
    )
    given = CIMultiDict({"Host": "192.168.1.5:8080", **headers})
    return make_mocked_request("GET", "/api/tags", given, transport=transport, **more)


@pytest.mark.parametrize(("headers", "said"), STRANGE)
def test_what_a_page_or_a_proxy_can_send_needs_a_key(headers: dict[str, str], said: str) -> None:
    asked = request(headers)
    assert networks().holds(asked)
    assert said in (networks().refusal(asked) or "")


@pytest.mark.parametrize("headers", OURS)
def test_a_program_of_the_network_needs_none(headers: dict[str, str]) -> None:
    asked = request(headers)
    assert networks().holds(asked)
    assert networks().refusal(asked) is None


@pytest.mark.parametrize(
    ("remote", "held"),
    [
        ("192.168.1.9", True),
        ("::ffff:192.168.1.9", True),
        ("10.0.0.7", True),
        ("fd00::9", True),
        ("192.168.2.9", False),
        ("10.0.0.8", False),
        ("fd00:0:0:1::9", False),
        ("127.0.0.1", False),
        ("", False),
    ],
)
def test_only_addresses_in_the_networks_are_held(remote: str, held: bool) -> None:
    assert networks().holds(request({}, remote=remote)) is held
    lying = request({"X-Forwarded-For": "192.168.1.9"}, remote=remote)
    assert networks().holds(lying) is held


def test_trusted_proxy_is_believed_and_nobody_behind_it() -> None:
    opened = networks(trusted_proxies=["172.16.0.1"])

    def through(forwarded: str | None, **more: str) -> web.Request:
        headers = {"X-Forwarded-For": forwarded, **more} if forwarded else more
        return request(headers, remote="172.16.0.1")

    assert opened.holds(through("192.168.1.9"))
    assert opened.refusal(through("192.168.1.9", Via="1.1 caddy")) is None
    assert not opened.holds(through("203.0.113.5"))
    assert not opened.holds(through("192.168.1.9, 203.0.113.5"))
    itself = networks("172.16.0.0/16", trusted_proxies=["172.16.0.1"])
    assert "X-Forwarded-For" in (itself.refusal(through(None)) or "")


def test_over_tls_any_name_of_the_certificate_will_do() -> None:
    named = {"Host": "other.example.com"}
    assert networks().refusal(request(named, sslcontext=True)) is None
    assert "cors.origins" in (
        networks().refusal(request({**named, "Origin": "https://a.example"}, sslcontext=True)) or ""
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("192.168.1.0/33", "192.168.1.0/33"),
        ("home", "home"),
        ("192.168.1.5/24", "192.168.1.5 within 192.168.1.0/24"),
        ("::ffff:192.168.1.0/120", "write it as IPv4"),
        ("", "'' does not appear"),
    ],
)
def test_what_is_no_network_is_refused_with_words(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auth = {"ollama_open_to": [text]}
    with pytest.raises(InvalidFiles, match=r"auth\.ollama_open_to") as refused:
        parse_settings({"auth": auth})
    assert said in str(refused.value)
    assert main(["check", "--config", str(project(tmp_path, {}, auth=auth))]) == 1
    told = capsys.readouterr().out
    assert said in told
    assert "ollama_open_to" in told


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("10.0.0.0/7", True),
        ("203.0.112.0/20", True),
        ("10.0.0.0/8", False),
        ("100.64.0.0/10", False),
        ("127.0.0.1", False),
        ("fe80::/10", False),
    ],
)
def test_addresses_of_the_internet_are_warned_of(text: str, warned: bool) -> None:
    made = parse_settings({"auth": {"ollama_open_to": [text]}})
    assert [text in warning for warning in warnings_of(made)] == [True] * warned
    without = parse_settings({"auth": {"ollama_open_to": [text], "enabled": False}})
    assert "no effect" in "".join(warnings_of(without))


@pytest.fixture
async def running(make_gateway: MakeGateway, tmp_path: Path) -> AsyncIterator[Running]:
    async with make_gateway(
        {"m": fake_model(tmp_path)}, auth={"ollama_open_to": ["127.0.0.1"]}
    ) as running:
        yield running


async def test_ollamas_api_is_served_without_a_key_and_nothing_else(
    running: Running, subtests: pytest.Subtests
) -> None:
    body = {"model": "m", "messages": HELLO, "stream": False}

    async def status(method: str, path: str, **more: Any) -> int:
        async with running.request(method, path, **{"key": None, **more}) as answer:
            return int(answer.status)

    for method, path, sent in (
        *(("GET", f"/api/{name}", None) for name in ("version", "tags", "ps")),
        *(("HEAD", path, None) for path in ("/", "/api/version", "/api/tags")),
        ("GET", "/", None),
        ("POST", "/api/show", {"model": "m"}),
        ("POST", "/api/chat", body),
        ("POST", "/api/generate", {"model": "m", "prompt": "hi", "stream": False}),
    ):
        with subtests.test(f"{method} {path}"):
            assert await status(method, path, json=sent) == 200
            assert await status(method, path, json=sent, key="ollama") == 200  # a placeholder
    for method, path, sent in (
        ("POST", "/api/pull", {"model": "hf.co/a/b"}),
        ("DELETE", "/api/delete", {"model": "m"}),
        ("POST", "/api/create", {"model": "m"}),
        ("POST", "/v1/chat/completions", body),
        ("GET", "/v1/models", None),
        ("GET", "/v1/streams/x", None),
        ("GET", "/admin/requests", None),
    ):
        with subtests.test(f"{method} {path}"):
            assert await status(method, path, json=sent) == 401
    wrong = "llmgw_" + "x" * 43
    assert await status("POST", "/api/chat", json=body, key=wrong) == 401
    for headers, refused in (
        ({"Origin": "https://evil.example"}, 401),
        ({"X-Forwarded-For": "127.0.0.1"}, 401),
        ({"Host": "evil.example"}, 421),
    ):
        with subtests.test(str(headers)):
            assert await status("GET", "/api/tags", headers=headers) == refused
            assert await status("POST", "/api/chat", json=body, headers=headers) == refused
    as_a_form = {"Content-Type": "text/plain"}
    assert await status("POST", "/api/show", data='{"model": "m"}', headers=as_a_form) == 401


async def test_it_is_counted_as_a_principal_of_its_own(running: Running) -> None:
    assert running.gateway.ring is not None
    record, key = await running.gateway.ring.create("ollama")
    body = {"model": "m", "messages": HELLO, "stream": False}
    for presented in (None, key):
        assert (await running.json("POST", "/api/chat", json=body, key=presented))[0] == 200
    _, told = await running.json("GET", "/admin/requests?key=ollama")
    assert [(one["key"], one["name"]) for one in told["ended"]] == [("ollama", "ollama")]
    _, told = await running.json("GET", f"/admin/requests?key={record.id}")
    assert [one["key"] for one in told["ended"]] == [record.id]
    _, told = await running.json("GET", "/admin/usage?by=key")
    assert {row["key"] for row in told["usage"]} == {"ollama", record.id}
