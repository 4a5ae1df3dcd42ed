"""Which pages may call from a browser: by the rules, and as it goes over the wire."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import parse_settings
from gateway.http.cors import Cors
from gateway.problems import InvalidFiles
from tests.harness import MakeGateway, fake_model

PAGE = "https://my-app.web.app"
FIREBASE = Cors(["https://*.web.app"])


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (["https://*.web.app"], "https://my-app.web.app"),
        (["https://*.web.app"], "https://a.b.web.app"),
        (["https://*.web.app"], "HTTPS://My-App.Web.App"),
        (["https://my-app--*.web.app"], "https://my-app--pr12-x7.web.app"),
        (["https://app.example.com/"], "https://app.example.com"),
        (["http://localhost:*"], "http://localhost:5173"),
        (["http://localhost:*"], "http://localhost"),
        (["http://[::1]:3000"], "http://[::1]:3000"),
        (["capacitor://localhost"], "capacitor://localhost"),
    ],
)
def test_named_origins_are_allowed(origins: list[str], origin: str) -> None:
    assert (
        Cors(parse_settings({"cors": {"origins": origins}}).cors.origins).allowed(origin) == origin
    )


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (["https://*.web.app"], origin)
        for origin in (
            "https://web.app",
            "https://.web.app",
            "https://evilweb.app",
            "https://evil.com",
            "https://evil.com/.web.app",
            "https://evil.com?.web.app",
            "https://evil.com#.web.app",
            "https://evil.com\\.web.app",
            "https://evil.com:443.web.app",
            "https://evil.com@x.web.app",
            "https://evil.com%2f.web.app",
            "https://x.web.app.evil.com",
            "https://x.web.appevil.com",
            "https://x.web.app:8443",
            "https://x.web.app:443@evil.com",
            "https://x.webxapp",
            "http://x.web.app",
            "https://x.web.app\n",
            "https://evil.com\n.web.app",
            "https://x.web.app/",
            "https://x..web.app",
            "https://\u0455.web.app",
            "https://\u017f.web.app",  # lowers to s, were the pattern not ASCII
            "null",
            "*",
            "",
        )
    ]
    + [
        (["https://my-app--*.web.app"], "https://my-app--x.evil.web.app"),
        (["https://my-app--*.web.app"], "https://evil.web.app"),
        (["http://localhost:*"], "http://localhost:80.evil.com"),
        (["http://localhost:*"], "http://localhost.evil.com"),
        (["http://localhost:3000"], "http://localhost:30001"),
        ([], PAGE),
    ],
)
def test_other_origins_are_not_allowed(origins: list[str], origin: str) -> None:
    made = parse_settings({"cors": {"origins": origins}})
    assert Cors(made.cors.origins).allowed(origin) is None


@given(st.text(max_size=40), st.sampled_from(["", ".", "/", "@", ":", "\\", "#", "?", "%2e"]))
def test_whatever_passes_ends_in_the_host_that_was_meant(text: str, glue: str) -> None:
    origin = f"https://{text}{glue}web.app"
    if FIREBASE.allowed(origin) is not None:
        assert re.fullmatch(r"https://([A-Za-z0-9-]+\.)+web\.app", origin)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("app.example.com", "scheme"),
        ("https://app.example.com/page", "no path"),
        ("https://*", "no origin"),
        ("https://*web.app", "of others"),
        ("https://my-*.app", "of others"),
        ("https://*-x.app:443", "of others"),
        ("https://web.*", "no origin"),
        ("https://a**.web.app", "no origin"),
        ("*://web.app", "no origin"),
        ("https://user@web.app", "no origin"),
        ("https://web.app:http", "no origin"),
        ("null", "scheme"),
        ("", "scheme"),
    ],
)
def test_what_is_no_origin_is_a_problem_of_the_configuration(origin: str, words: str) -> None:
    with pytest.raises(InvalidFiles, match=words):
        parse_settings({"cors": {"origins": [origin]}})


async def test_cors_headers_are_sent_to_allowed_origins(
    make_gateway: MakeGateway, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    models = {"good": fake_model(tmp_path)}
    async with make_gateway(models, cors={"origins": ["https://*.web.app"]}) as running:
        body = {"model": "good", "messages": [{"role": "user", "content": "hi"}]}
        wanted = {"Origin": PAGE}
        for options, status in (
            ({"json": body}, 200),
            ({"json": {**body, "stream": True}}, 200),
            ({"data": b"{"}, 400),
            ({"json": {**body, "model": "none"}}, 404),
            ({"json": body, "key": None}, 401),
        ):
            with subtests.test(f"{options!r:.80}"):
                async with running.request(
                    "POST", "/v1/chat/completions", headers=wanted, **options
                ) as response:
                    await response.read()
                    assert response.status == status
                    headers = response.headers
                    assert headers["Access-Control-Allow-Origin"] == PAGE
                    assert "X-Request-Id" in headers["Access-Control-Expose-Headers"]
                    assert "Origin" in headers["Vary"]
                    assert "Access-Control-Allow-Credentials" not in headers
        async with running.request(
            "GET", "/models", headers={"Origin": "https://evil.com"}
        ) as response:
            assert response.status == 200
            assert "Access-Control-Allow-Origin" not in response.headers
            assert "Origin" in response.headers["Vary"]


async def test_preflight_needs_no_key(make_gateway: MakeGateway) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-personality",
        "Access-Control-Request-Private-Network": "true",
    }
    async with make_gateway({}, cors={"origins": [PAGE]}) as running:
        async with running.request(
            "OPTIONS", "/v1/chat/completions", key=None, headers=asked
        ) as response:
            assert response.status == 204
            headers = response.headers
            assert headers["Access-Control-Allow-Origin"] == PAGE
            assert "x-personality" in headers["Access-Control-Allow-Headers"]
            assert int(headers["Access-Control-Max-Age"]) > 600
            assert headers["Access-Control-Allow-Private-Network"] == "true"
            assert "Access-Control-Allow-Credentials" not in headers
        async with running.request(
            "OPTIONS", "/models", key=None, headers={**asked, "Origin": "https://evil.com"}
        ) as response:
            assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_every_page_is_allowed_but_never_with_credentials(make_gateway: MakeGateway) -> None:
    async with (
        make_gateway({}) as running,
        running.request("GET", "/models", headers={"Origin": PAGE}) as response,
    ):
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in response.headers
