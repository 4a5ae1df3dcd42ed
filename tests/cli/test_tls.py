"""``llm-gateway tls self-signed`` as it is typed, and its advice as it is pasted."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

import pytest
import yaml

from gateway.cli import main
from gateway.config.load import load_settings, parse_settings
from gateway.tls import build_context, inspect


def run(*arguments: str) -> int:
    return main(["tls", "self-signed", *arguments])


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a configuration, and the command started inside it."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/gateway.yaml").write_text("port: 8443\n")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LLM_GATEWAY_")]:
        monkeypatch.delenv(name)
    return tmp_path


def yaml_part(printed: str) -> dict[str, dict[str, object]]:
    lines = printed.splitlines()
    start = lines.index("tls:")
    part: dict[str, dict[str, object]] = yaml.safe_load("\n".join(lines[start : start + 5]))
    return part


def test_the_printed_settings_work_when_pasted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--domain", "box.example.com", "--domain", "192.168.1.20") == 0

    printed = capsys.readouterr().out
    assert yaml_part(printed)["tls"]["certificate"] == "ssl/box.example.com-crt.pem"
    config = project / "conf/gateway.yaml"
    config.write_text(config.read_text() + yaml.safe_dump(yaml_part(printed)))
    settings = load_settings(config).settings
    found = inspect(settings.tls)
    assert (found.errors, found.warnings) == ((), ())
    assert found.certificate is not None
    assert found.certificate.names == ("box.example.com", "192.168.1.20")
    assert found.certificate.fingerprint in printed
    assert isinstance(build_context(settings.tls), ssl.SSLContext)
    assert f"--cacert {project}/ssl/box.example.com-chain.pem" in printed
    assert "https://box.example.com:8443/ping" in printed
    assert "\n  llm-gateway login https://box.example.com:8443\n" in printed


def test_by_default_it_is_for_this_machine(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert "localhost, 127.0.0.1, ::1" in capsys.readouterr().out
    key = project / "ssl/localhost-key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (project / "ssl/localhost-crt.pem").exists()
    assert (project / "ssl/localhost-chain.pem").exists()


def test_existing_files_stay_unless_forced(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    key = (project / "ssl/localhost-key.pem").read_text()
    capsys.readouterr()

    assert run() == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "localhost-key.pem" in output.err
    assert "--force" in output.err
    assert (project / "ssl/localhost-key.pem").read_text() == key

    assert run("--force") == 0
    assert "localhost-key.pem.bak" in capsys.readouterr().out
    assert (project / "ssl/localhost-key.pem.bak").read_text() == key
    assert (project / "ssl/localhost-key.pem").read_text() != key


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "../../etc/passwd"), "not a host name"),
        (("--domain", "https://example.com"), "without scheme"),
        (("--days", "0"), "from 1 to 397"),
        (("--days", "3650"), "from 1 to 397"),
        (("--config", "missing.yaml"), "missing.yaml"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_written(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(*arguments) == 1
    assert said in capsys.readouterr().err
    assert not (project / "ssl").exists()


def test_out_may_be_anywhere_and_named_oddly(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = project.parent / "it's: my keys #1"
    assert run("--out", str(out), "--domain", "*.example.com") == 0
    part = yaml_part(capsys.readouterr().out)["tls"]
    assert part["certificate"] == str(out / "_wildcard.example.com-crt.pem")
    tls = parse_settings({"tls": part}).tls
    assert inspect(tls).errors == ()


def test_without_a_configuration_it_writes_where_one_would_go(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "conf/gateway.yaml").unlink()
    monkeypatch.setenv("HOME", str(project / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert run() == 0
    assert (project / "ssl/localhost-crt.pem").exists()
    assert yaml_part(capsys.readouterr().out)["tls"]["private_key"] == "ssl/localhost-key.pem"
