"""conf/gateway.yaml and the environment: what is read, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import REPOSITORY

from gateway.config import Settings, load_settings
from gateway.validation import InvalidFiles, parse_duration, parse_size


def problems(file: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(InvalidFiles) as caught:
        load_settings(file, environ=environ or {})
    return str(caught.value)


def test_the_shipped_file_says_the_defaults() -> None:
    loaded = load_settings(REPOSITORY / "conf/gateway.yaml", environ={})
    assert loaded.root == REPOSITORY
    shipped = loaded.settings.model_dump()
    defaults = Settings().model_dump()
    for key, value in defaults.items():
        if not isinstance(value, Path):
            assert shipped[key] == value, key


def test_paths_are_relative_to_the_project(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf/gateway.yaml"
    file.write_text("data_dir: here\ntls: {certificate: ssl/x.pem}\nllama_server: bin/ls\n")
    settings = load_settings(file, environ={}).settings
    assert settings.data_dir == tmp_path / "here"
    assert settings.tls.certificate == tmp_path / "ssl/x.pem"
    assert settings.llama_server == str(tmp_path / "bin/ls")
    assert settings.llm_storage == Path.home() / "LLMs"
    elsewhere = tmp_path / "gateway.yaml"
    elsewhere.write_text("")
    assert load_settings(elsewhere, environ={}).root == tmp_path


def test_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("port: 1\ntls: {enabled: false}\n")
    environ = {
        "LLM_GATEWAY_PORT": "9000",
        "LLM_GATEWAY_TLS__ENABLED": "true",
        "LLM_GATEWAY_TLS__PASSPHRASE": "1234",
        "LLM_GATEWAY_LIMITS__MAX_BODY": "1MiB",
        "LLM_GATEWAY_CORS__ORIGINS": '["https://a.example"]',
        "LLM_GATEWAY_KEY": "a client's, not ours",
    }
    settings = load_settings(file, environ=environ).settings
    assert settings.port == 9000
    assert settings.tls.enabled
    assert settings.tls.passphrase is not None
    assert settings.tls.passphrase.get_secret_value() == "1234"
    assert settings.limits.max_body == 2**20
    assert settings.cors.origins == ("https://a.example",)


def test_every_problem_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "port: 70000\nhots: x\nlimits: {max_body: lots, queue_size: -1}\n"
        "tls: {passphrase: [hunter2, x]}\nscheduler: {memory_budget: some}\n"
    )
    text = problems(file, {"LLM_GATEWAY_SHUTDOWN_TIMEOUT": "soon"})
    for expected in (
        f"{file}: port:",
        "from 0",
        f"{file}: hots: unknown key",
        "shutdown_timeout",
        "limits.max_body",
        "64MiB",
        "limits.queue_size",
        "scheduler.memory_budget",
        "auto, or a size",
        "environment: LLM_GATEWAY_SHUTDOWN_TIMEOUT",
    ):
        assert expected in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port: 1\nport: 2\n", "given twice"),
        ("a: [", "not valid YAML"),
        ("just text", "keys with values"),
        ("tls: true", "tls"),
        ("{? [a]: 1}", "not valid YAML"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    assert words in problems(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read" in problems(tmp_path / "nothing.yaml")


def test_units() -> None:
    assert parse_size("64MiB") == 64 * 2**20
    assert parse_size("1.5 GB") == 1_500_000_000
    assert parse_size("8g") == 8 * 2**30
    assert parse_duration("500ms") == 0.5
    assert parse_duration(30) == 30
    assert parse_duration("30d") == 30 * 86400
    for wrong in ("", "x", "5 parsecs", -1, True, None, float("nan"), "-3s"):
        with pytest.raises(ValueError, match="must be"):
            parse_duration(wrong)
        with pytest.raises(ValueError, match="must be"):
            parse_size(wrong)


def test_names_and_networks(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "allowed_hosts: [Box.Example.com, '*.example.com', '*']\n"
        "trusted_proxies: [10.1.2.3/8, '::1']\n"
    )
    settings = load_settings(file, environ={}).settings
    assert settings.allowed_hosts == ("box.example.com", "*.example.com", "*")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1/128")
    file.write_text("allowed_hosts: ['https://a.b']\ntrusted_proxies: [proxy.example.com]\n")
    text = problems(file)
    for expected in ("allowed_hosts", "without scheme or port", "trusted_proxies", "10.0.0.0/8"):
        assert expected in text
