"""Profiles of gateways elsewhere, and which gateway a command means; over TLS of the box's own."""

from __future__ import annotations

import io
import json
import os
import pty
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from tests.harness import COMMAND, Served, project, tied

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]
CONFIG = "conf/gateway.yaml"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose certificate nobody knows, for `localhost`."""
    root = tmp_path_factory.mktemp("box") / "project"
    tls = {
        "enabled": True,
        "private_key": "ssl/localhost-key.pem",
        "certificate": "ssl/localhost-crt.pem",
        "ca_chain": "ssl/localhost-chain.pem",
    }
    config = project(root, {"far": {"url": "http://127.0.0.1:9"}}, tls=tls)
    subprocess.run(
        [COMMAND, "tls", "self-signed", "--config", config, "--domain", "localhost"],
        check=True,
        capture_output=True,
    )
    served = Served(root)
    try:
        assert served.url
        yield served
    finally:
        served.stop()


@pytest.fixture
def url(box: Served) -> str:
    return box.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the profiles, on a machine without a gateway of its own."""
    for name in [name for name in os.environ if name.startswith("LLM_GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config/llm-gateway"


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(COMMAND, ..., typed=TEXT)`` -> exit status, stdout, stderr."""

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return (main(arguments), *capsys.readouterr())

    return run


def fingerprint(box: Served, run: Run) -> str:
    return str(
        json.loads(run("tls", "show", "--config", str(box.root / CONFIG), "--json")[1])["sha256"]
    )


@pytest.mark.parametrize("trusted", ["--ca", "--fingerprint"])
def test_a_profile_is_written_for_its_owner_alone(
    box: Served, url: str, home: Path, run: Run, trusted: str
) -> None:
    """And is what commands use then, by name or without one."""
    given = {
        "--ca": str(box.root / "ssl/localhost-chain.pem"),
        "--fingerprint": fingerprint(box, run),
    }
    status, out, err = run("login", url, "--name", "box", trusted, given[trusted], typed=box.key)
    assert (status, err) == (0, "")
    assert out.startswith(f"logged in to {url}: an admin key, 1 model\n")
    assert box.key not in out
    for file in home.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    (listed,) = json.loads(run("login", "--list", "--json")[1])
    assert listed == {
        "name": "box",
        "url": url,
        "key": True,
        "ca": str(home / "box-ca.pem"),
        "default": True,
    }
    assert run("usage")[0] == 0
    assert run("usage", "--profile", "box")[0] == 0
    assert run("usage", "--url", f"{url}/v1")[0] == 0
    status, out, err = run("logout")
    assert (status, out) == (0, f"forgotten: box, {url}\n")
    assert "goes on being valid" in err
    assert json.loads(run("login", "--list", "--json")[1]) == []
    assert "no gateway is running" in run("usage")[2]
    assert [file.name for file in home.iterdir()] == ["profiles.json"]


def test_nothing_is_written_that_does_not_work(
    box: Served, url: str, home: Path, run: Run, subtests: pytest.Subtests
) -> None:
    ca = ("--ca", str(box.root / "ssl/localhost-chain.pem"))
    for arguments, typed, reason in (
        ((url,), box.key, "signed by nobody whom this machine trusts: --ca FILE, or --fing"),
        ((url, "--fingerprint", "ab" * 32), box.key, "shows another certificate"),
        ((url, "--fingerprint", "abc"), box.key, "64 hex digits"),
        ((url, "--ca", "/nowhere.pem"), box.key, "--ca /nowhere.pem: No such file"),
        ((url, *ca), "llmgw_wrong\n", "this API key is incomplete"),
        ((url, *ca), "\n", "no key was given"),
        ((url, *ca), "k\u00e9y\n", "characters that no key has"),
        ((box.url, *ca), box.key, "is for localhost: use such an address"),
        ((url.replace("https", "http"),), "k", "this port speaks https"),
        (("http://127.0.0.1:9",), "k", "cannot be reached: Connection refused"),
        (("ftp://x",), "k", "must be like https://"),
        ((url, "--name", "../x"), "k", "a profile's name has"),
        ((), "k", "which gateway?"),
        (("--use", "nobody"), "", "there is no profile 'nobody'"),
    ):
        with subtests.test(f"{arguments!r:.80}"):
            status, out, err = run("login", *arguments, typed=typed)
            assert (status, out) == (1, ""), arguments
            assert reason in err
            assert err.count("\n") == 1
            assert box.key not in err
    assert not home.exists()


def test_login_needs_no_key_where_none_is_asked_for(tmp_path: Path, run: Run, home: Path) -> None:
    project(tmp_path / "open", {}, auth={"enabled": False})
    served = Served(tmp_path / "open")
    try:
        status, out, _ = run("login", served.url)
        assert status == 0
        assert "it asks for no key, 0 models" in out
        assert "profile 127.0.0.1 is" in out
        assert (
            json.loads((home / "profiles.json").read_text())["profiles"]["127.0.0.1"]["key"] is None
        )
        assert run("status", "--once", "--config", str(tmp_path / "open" / CONFIG))[0] == 0
    finally:
        served.stop()


def test_option_comes_before_variable_running_gateway_and_profile(
    box: Served, url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option, then a variable, then what runs here, then the default profile."""
    ca = ("--ca", str(box.root / "ssl/localhost-chain.pem"))
    assert run("login", url, "--name", "box", *ca, typed=box.key)[0] == 0
    # The default profile; its name stands in what it says.
    assert run("load", "nobody")[2].startswith(f"error: {url} (profile box): there is no model")
    # Before it, the one that runs on the configuration that is found.
    monkeypatch.chdir(box.root)
    assert run("load", "nobody")[2].startswith("error: there is no model 'nobody'")
    # Before that, variables.
    monkeypatch.setenv("LLM_GATEWAY_PROFILE", "box")
    assert "(profile box): there is no model" in run("load", "nobody")[2]
    monkeypatch.setenv("LLM_GATEWAY_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 (LLM_GATEWAY_URL) cannot be reached" in run("load", "nobody")[2]
    # And before all, options.
    assert "(profile box): there is no" in run("load", "--profile", "box", "nobody")[2]
    assert run("load", "--url", url, "nobody")[2].startswith("error: there is no model 'nobody'")
    config = str(box.root / CONFIG)
    assert run("load", "--config", config, "nobody")[2].startswith("error: there is no model")
    for both in (("--url", url, "--profile", "box"), ("--config", config, "--url", url)):
        status, _, err = run("load", *both, "nobody")
        assert status == 1
        assert "give one of them" in err
    empty = project(tmp_path / "empty", {})
    assert "no gateway is running on" in run("load", "--config", str(empty), "x")[2]
    status, _, err = run("load", "--profile", "bocks", "nobody")
    assert status == 1
    assert "there is no profile 'bocks'" in err


def test_keys_are_made_at_a_gateway_elsewhere(box: Served, url: str, run: Run, home: Path) -> None:
    ca = ("--ca", str(box.root / "ssl/localhost-chain.pem"))
    assert run("login", url, *ca, typed=box.key)[0] == 0
    status, key, err = run("keys", "create", "laptop", "mine", "--expires", "30d", "--rpm", "5")
    assert status == 0
    assert key.startswith("llmgw_")
    assert f"at {url} (profile localhost)" in err
    listed = json.loads(run("keys", "list", "--json")[1])
    (made,) = [one for one in listed if one["name"] == "laptop"]
    assert made["limits"] == {"rpm": 5}
    assert made["description"] == "mine"
    # What the box says itself is the same.
    here = run("keys", "list", "--json", "--config", str(box.root / CONFIG))[1]
    assert [one["id"] for one in json.loads(here)] == [one["id"] for one in listed]
    assert run("keys", "list")[1].split()[:3] == ["ID", "NAME", "ADMIN"]
    assert run("login", url, "--name", "guest", *ca, typed=key)[1].startswith(
        f"logged in to {url}: a key, 1 model"
    )
    status, _, err = run("keys", "list")
    assert status == 1
    assert "(profile guest): " in err
    assert run("login", "--use", "localhost")[0] == 0
    status, out, _ = run("keys", "revoke", made["id"])
    assert (status, out.split()[:2]) == (0, ["revoked", made["id"]])
    assert run("keys", "revoke", "k_nothing")[0] == 1
    assert "API key" in run("usage", "--profile", "guest")[2]
    # Without a profile it is the database here again.
    for name in ("guest", "localhost"):
        assert run("logout", name)[0] == 0
    assert json.loads(run("keys", "list", "--json")[1]) == []


def test_damaged_profiles_are_told_without_their_keys(
    run: Run, home: Path, subtests: pytest.Subtests
) -> None:
    home.mkdir(parents=True)
    for text in ("{", '{"profiles": {"a": {"key": "secret"}}}', '{"profiles": [1]}', "[]"):
        with subtests.test(f"{text!r:.80}"):
            (home / "profiles.json").write_text(text)
            status, _, err = run("usage")
            assert status == 1
            assert "is not what `llm-gateway login` writes" in err
            assert "secret" not in err


def test_login_shows_the_certificate_and_asks_for_the_key(
    box: Served, url: str, home: Path
) -> None:
    """The certificate is shown, and the key is asked for until it is right, and never shown."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        tied(COMMAND, "login"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = ""
    try:
        for words, typed in (
            ("https://box.example.com: ", url.removeprefix("https://")),
            ("Are they the same? [no] ", "yes"),
            ("Key (it isn't shown): ", "llmgw_wrong"),
            ("this API key is incomplete", ""),
            ("Key (it isn't shown): ", box.key),
            ("is now the default", ""),
        ):
            while words not in seen:
                seen += os.read(screen, 1000).decode()
            seen = seen.partition(words)[2] if typed else seen
            if typed:
                os.write(screen, f"{typed}\n".encode())
        assert process.wait(20) == 0
        assert "llmgw_" not in seen
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert (home / "localhost-ca.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")
