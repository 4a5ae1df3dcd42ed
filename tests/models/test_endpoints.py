"""Addresses and keys of servers elsewhere, as they may be written and as they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.models.endpoints import check_key, parse_endpoint, read_key


@pytest.mark.parametrize(
    ("url", "chat", "tokenize"),
    [
        ("http://otherbox:8080", "/v1/chat/completions", "/tokenize"),
        ("http://otherbox:8080/", "/v1/chat/completions", "/tokenize"),
        ("https://api.example.com/v1", "/v1/chat/completions", "/tokenize"),
        ("https://api.example.com/v1/", "/v1/chat/completions", "/tokenize"),
        ("https://e.com/openai/v1", "/openai/v1/chat/completions", "/openai/tokenize"),
        (
            "https://e.com/v1beta/openai",
            "/v1beta/openai/chat/completions",
            "/v1beta/openai/tokenize",
        ),
    ],
)
def test_target_is_below_the_path_of_the_url(url: str, chat: str, tokenize: str) -> None:
    endpoint = parse_endpoint(url)
    assert endpoint.target("/v1/chat/completions") == chat
    assert endpoint.target("/tokenize") == tokenize


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "written"),
    [
        ("http://otherbox", "otherbox", 80, "otherbox", "http://otherbox"),
        ("HTTPS://API.Example.com:443/v1", "api.example.com", 443, "api.example.com", None),
        ("https://e.com:8443", "e.com", 8443, "e.com:8443", None),
        ("http://[::1]:8080/v1", "::1", 8080, "[::1]:8080", "http://[::1]:8080/v1"),
        ("http://llama_box:1", "llama_box", 1, "llama_box:1", None),
        ("http://bücher.example", "xn--bcher-kva.example", 80, "xn--bcher-kva.example", None),
    ],
)
def test_url_tells_host_port_and_authority(
    url: str, host: str, port: int, authority: str, written: str | None
) -> None:
    endpoint = parse_endpoint(url)
    assert (endpoint.host, endpoint.port, endpoint.authority) == (host, port, authority)
    assert endpoint.tls is url.lower().startswith("https")
    assert parse_endpoint(endpoint.url) == endpoint
    if written is not None:
        assert endpoint.url == written


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.3", True),
        ("http://[::1]", True),
        ("http://localhost:1", True),
        ("http://192.168.1.4", False),
        ("http://box", False),
    ],
)
def test_loopback_url_is_known_as_one(url: str, loopback: bool) -> None:
    assert parse_endpoint(url).is_loopback is loopback


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must begin with"),
        ("otherbox:8080", "must begin with"),
        ("ftp://otherbox", "must begin with"),
        ("unix:///run/x.sock", "must begin with"),
        ("http://", "must begin with"),
        ("http://:8080", "must begin with"),
        ("http://box:99999", "port"),
        ("http://box:0", "port"),
        ("http://box:x", "port"),
        ("http://[::1", "not a url"),
        ("http://me:s3cret@box", "no user and password"),
        ("http://box/v1?api-version=1", "no ?query"),
        ("http://box/v1#x", "no #fragment"),
        ("http://box/a b", "characters"),
        ("http://box/v1\r\nX: y", "characters"),
        ("http://box/../v1", "dots"),
        ("http://box/a//b", "characters"),
        ("http://b ox", "host"),
        ("http://*.example.com", "host"),
    ],
)
def test_wrong_url_is_refused_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_endpoint(url)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_keys_come_from_the_entry_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-file\n")
    assert read_key(check_key("sk-1:2"), {}) == "sk-1:2"
    assert read_key(check_key("env:THE_KEY"), {"THE_KEY": " sk-env "}) == "sk-env"
    assert read_key(check_key(f"file:{file}"), {}) == "sk-file"


@pytest.mark.parametrize(
    "key", ["", "with space", "line\r\nX: y", "schlüssel", "env:", "env:A-B", "file:", "file:x/y"]
)
def test_impossible_key_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_key(key)
    assert key not in str(caught.value) or not key or key in ("env:", "file:")


def test_missing_key_is_told_without_secrets(tmp_path: Path, subtests: pytest.Subtests) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "two lines").write_text("sk-1\nsk-2")
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="variable THE_KEY is not set"):
        read_key("env:THE_KEY", {})
    for name, says in (
        ("nothing", "cannot be read: No such file"),
        ("empty", "is empty"),
        ("two lines", "printable ASCII without spaces"),
        ("bytes", "holds no text"),
    ):
        with subtests.test(f"{name!r:.80}"):
            with pytest.raises(ValueError, match=says) as caught:
                read_key(f"file:{tmp_path / name}", {})
            assert "sk-" not in str(caught.value)
