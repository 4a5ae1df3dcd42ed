"""conf/gateway.yaml and the environment: what is read, and what is refused with which words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from gateway.config.head_address import parse_head, shown_head
from gateway.config.load import load_partly, load_settings
from gateway.config.settings import ClusterSettings, Settings
from gateway.library import read_catalog
from gateway.problems import InvalidFiles
from gateway.quantities import parse_duration, parse_size
from tests.harness import REPOSITORY


def problems(file: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(InvalidFiles) as caught:
        load_settings(file, environ=environ or {})
    return str(caught.value)


def test_the_shipped_file_says_the_defaults() -> None:
    loaded = load_settings(REPOSITORY / "conf/gateway.yaml", environ={})
    assert loaded.root == REPOSITORY
    shipped = asdict(loaded.settings)
    defaults = asdict(Settings())
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
    assert settings.tls.passphrase.reveal() == "1234"
    assert settings.limits.max_body == 2**20
    assert settings.cors.origins == ("https://a.example",)


def test_every_problem_is_told_at_once(tmp_path: Path, subtests: pytest.Subtests) -> None:
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
        with subtests.test(f"{expected!r:.80}"):
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
def test_unreadable_file_is_told_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    assert words in problems(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tls:\n\tenabled: true\n", "line 2, column 1: a tab: lines are indented with spaces"),
        ('{"port": 1,\n\t"host": "x"}', "line 2, column 1: a tab"),
        ("port:\t8080\n", "line 1, column 6: a tab: only spaces may stand between words"),
        ("port: 8080\t# the usual\n", "line 1, column 11: a tab: only spaces"),
        ("a: b: c", "line 1, column 5: this is too far indented, or the line before has no colon"),
        ('data_dir: "C:\\Users\\me"', "write the text in single quotes, or a path with /"),
        ("tls: [", "it ends too soon: a bracket"),
        ("data_dir: 'D:\\data'", "data_dir: is a path on a Windows drive"),
        ('llm_storage: "D:\\LLMs"', "llm_storage: is a path on a Windows drive"),  # YAML's own \\L
        ("tls: {private_key: 'C:/x-key.pem'}", "tls.private_key: is a path on a Windows drive"),
        ("llama_server: 'C:\\llama\\llama-server.exe'", "llama_server: is a path on a Windows"),
        ("hots: x", "hots: unknown key, did you mean 'host'?"),
        ("PORT: 1", "PORT: unknown key, did you mean 'port'?"),
        ("redirect_port: 80", "redirect_port: unknown key, it belongs into 'tls'"),
        ("limits: {port: 1}", "limits.port: unknown key, it belongs beside 'limits', not into it"),
        ("max_bdy: 1", "max_bdy: unknown key, did you mean 'limits.max_body'?"),
        ("tls: {enabeld: true}", "tls.enabeld: unknown key, did you mean 'enabled'?"),
        (
            "something: 1",
            "something: unknown key (got 1); allowed: accounting, admin",
        ),
        ("port: 8080,", "port: must be a whole number (got '8080,'); allowed: a port from 0"),
        ("port: 70000", "port: must be at most 65535 (got 70000)"),
        ("limits: {connections: 0}", "limits.connections: must be at least 1 (got 0)"),
        ("limits: {heartbeat: 0}", "limits.heartbeat: must be over 0 (got 0)"),
        ("ui: maybe", "ui: must be true or false (got 'maybe')"),
        ("cors: {origins: https://my.app}", "cors.origins: must be a list (got"),
        ("host: 5", "host: must be a text, or a list of texts (got 5)"),
        ("host: [127.0.0.1, 5]", "host: must be a list of texts (got"),
        ("host: []", "host: must name at least one address"),
        ("host: [127.0.0.1, '']", "host: must not be empty"),
        ("host: 127.0.0.1,", "host: must not be empty"),
        ("host: ['::1', '[::1]']", "host: is written without brackets, like ::1"),
        ("host: [box.lan, 'box.lan:80']", "host: must be an address or a name alone: its port"),
        ("host: [box.lan, ' box.lan']", "host: names an address twice"),
        ("host: ''", "host: must not be empty"),
        ("host: http://box.lan", "host: must be an address or a name alone, without scheme"),
        ("host: 10.0.0.0/8", "host: must be an address or a name alone, without scheme or path"),
        ("host: 127.0.0.1:8080", "host: must be an address or a name alone: its port is the set"),
        ("host: '[::1]:8080'", "host: must be an address or a name alone: its port is the setting"),
        ("host: '[::1]'", "host: is written without brackets, like ::1"),
        ("tls: {acme: {domains: [a.example], agree_tos: true, challenge: dns-01}}", "must be 'ht"),
    ],
)
def test_mistake_in_yaml_is_explained(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    assert words in problems(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "fe80::1%eth0", "box.lan", "my_box"])
def test_every_kind_of_host_is_taken(tmp_path: Path, host: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"host: '{host}'\n")
    assert load_settings(file, environ={}).settings.host == host


@pytest.mark.parametrize("text", ["['::1', 127.0.0.1]", "'::1, 127.0.0.1'"])
def test_host_may_be_several_addresses(tmp_path: Path, text: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"host: {text}\n")
    settings = load_settings(file, environ={}).settings
    assert settings.hosts == ("::1", "127.0.0.1")
    assert settings.others_reach is None
    environ = {"LLM_GATEWAY_HOST": '["127.0.0.1", "10.0.0.1"]'}
    settings = load_settings(file, environ=environ).settings
    assert (settings.hosts, settings.others_reach) == (("127.0.0.1", "10.0.0.1"), "10.0.0.1")
    assert load_settings(file, environ={}, overrides={"host": "::1"}).settings.hosts == ("::1",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("port: 1\n".encode("utf-16"), "is text in UTF-16, as some editors of Windows write it"),
        (b"port: 1\n# K\xf6ln\n", "is not text in UTF-8, line 2: save it in that encoding"),
    ],
)
@pytest.mark.parametrize("name", ["gateway.yaml", "models.json"])
def test_other_encodings_are_refused(tmp_path: Path, data: bytes, words: str, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    read = read_catalog if name == "models.json" else load_settings
    with pytest.raises(InvalidFiles) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: {words}")
    assert "codec" not in str(caught.value)


def test_what_the_command_line_says_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("port: 1\n")
    with pytest.raises(InvalidFiles) as caught:
        load_settings(file, environ={"LLM_GATEWAY_PORT": "2"}, overrides={"port": "http"})
    assert str(caught.value).startswith("command line: --port: must be a whole number (got 'http')")


def test_one_underscore_where_two_belong_is_hinted_at(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("")
    text = problems(file, {"LLM_GATEWAY_TLS_ENABLED": "true"})
    assert "LLM_GATEWAY_TLS_ENABLED: unknown key, did you mean LLM_GATEWAY_TLS__ENABLED?" in text


def test_configuration_of_the_old_system_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "config.js"
    file.write_text("module.exports = { port: 8080 };\n")
    assert "config.js: is JavaScript, like the configuration of LLM-API: here it is conf/" in (
        problems(file)
    )


def test_a_wrong_variable_is_told_what_it_may_mean(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("")
    text = problems(file, {"LLM_GATEWAY_PROT": "1"})
    assert "environment: LLM_GATEWAY_PROT: unknown key, did you mean 'port'?" in text


def test_right_settings_beside_wrong_ones_are_read(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "port: 70000\nhost: 127.0.0.9\nmodels_file: m.json\nnonsense: 1\n"
        "tls: {enabled: true, private_key: k.pem, redirect_port: x, acme: {domains: [a.example]}}\n"
        "limits: {queue_size: 7, max_body: lots}\n"
    )
    loaded, found = load_partly(file, environ={})
    settings = loaded.settings
    assert (settings.port, settings.host) == (8080, "127.0.0.9")
    assert settings.models_file == tmp_path / "m.json"
    assert settings.tls.enabled
    assert settings.tls.private_key == tmp_path / "k.pem"
    assert settings.tls.acme is None
    assert settings.limits.queue_size == 7
    keys = {problem.key for problem in found}
    assert keys >= {"port", "nonsense", "tls.redirect_port", "limits.max_body"}
    assert any(key.startswith("tls.acme") for key in keys)


def test_missing_file_is_told_with_what_makes_one(tmp_path: Path) -> None:
    assert "there is no such file; `llm-gateway init" in problems(tmp_path / "nothing.yaml")


def test_sizes_and_durations_have_units(subtests: pytest.Subtests) -> None:
    assert parse_size("64MiB") == 64 * 2**20
    assert parse_size("1.5 GB") == 1_500_000_000
    assert parse_size("8g") == 8 * 2**30
    assert parse_duration("500ms") == 0.5
    assert parse_duration(30) == 30
    assert parse_duration("30d") == 30 * 86400
    for wrong in ("", "x", "5 parsecs", -1, True, None, float("nan"), "-3s"):
        with subtests.test(f"{wrong!r:.80}"):
            with pytest.raises(ValueError, match="must be"):
                parse_duration(wrong)
            with pytest.raises(ValueError, match="must be"):
                parse_size(wrong)


def test_names_and_networks_are_checked(tmp_path: Path, subtests: pytest.Subtests) -> None:
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
        with subtests.test(f"{expected!r:.80}"):
            assert expected in text


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("auto", "auto"),
        ("192.168.1.5", "192.168.1.5:6379"),
        ("attic.lan:7000", "attic.lan:7000"),
        ("::1", "[::1]:6379"),
        ("[fd00::5]:7000", "[fd00::5]:7000"),
        ("ray://192.168.1.5", "ray://192.168.1.5:10001"),
        ("ray://[::1]:7000", "ray://[::1]:7000"),
    ],
)
def test_the_head_of_a_cluster_is_found_by_its_address(
    tmp_path: Path, written: str, address: str
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"cluster: {{address: '{written}'}}\n")
    settings = load_settings(file, environ={"LLM_GATEWAY_CLUSTER__PLACEMENT": "spread"}).settings
    assert settings.cluster == ClusterSettings(address=address, placement="spread")


@pytest.mark.parametrize("host", ["192.168.1.5", "attic.lan", "::1", "fd00::5"])
def test_an_address_of_a_head_that_is_shown_can_be_typed(host: str) -> None:
    assert parse_head(shown_head(host, 7000)) == shown_head(host, 7000)
    assert parse_head(shown_head(host, 6379)) == parse_head(host)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("http://attic", "give a host with its port"),
        ("attic:six", "behind the host comes a port"),
        ("attic:70000", "ports are from 1 to 65535"),
        ("*.attic.lan", "the name of many machines"),
        ("", "must be a text"),
        ("at tic", "is not a host name"),
    ],
)
def test_an_address_that_leads_to_no_head_is_refused(
    tmp_path: Path, written: str, words: str
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("cluster: {engine: ray}\n")
    text = problems(file, {"LLM_GATEWAY_CLUSTER__ADDRESS": written})
    assert words in text
    assert "auto, or where Ray's head is" in text
